//! Shader text: files under `shaders/`, put together from pieces and checked with errors that name the piece.
//!
//! - `// @include reduce` takes in `shaders/lib/reduce.wgsl`, each piece once. WGSL does not mind the order of
//!   declarations, so this is plain concatenation and every file stays readable in any WGSL editor.
//! - `const TILE_M: u32 = 8u; // @tune 4 8 16` is valid WGSL as it stands; the loader replaces the number.
//! - `alias Element = f32; // @half f16` is what a kernel's images are made of: for one that is given 16-bit floats the
//!   loader replaces the type and adds `enable f16;`.
//! - `// @include conv2d_matrix @half` takes a piece in for those kernels only. `// @include matrix` is the piece that multiplies
//!   matrices ([`Matrix`]); `// @include lanes` is the piece by which neighbours share what they read ([`TOGETHER`]); `// @include
//!   gemm` is the tile engine, of which there are two ([`BLOCK`]).
//! - `override WG: u32 = 64u;` is the workgroup size, the same in every shader ([`WORKGROUP`](super::WORKGROUP)). A kernel that
//!   wants larger workgroups has a constant for that, and its op counts workgroups, not invocations.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use crate::{Error, Result};

/// A shader file: its name without `.wgsl`, and its embedded text.
#[derive(Debug, Clone, Copy)]
pub struct Shader {
    /// The file's stem, which is also the op's name.
    pub name: &'static str,
    /// The text at build time.
    pub source: &'static str,
}

/// Names one file of `shaders/` and embeds its text.
macro_rules! shader {
    ($name:literal) => {
        $crate::gpu::Shader {
            name: $name,
            source: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $name, ".wgsl")),
        }
    };
}
pub(crate) use shader;

/// The shared pieces of `shaders/lib`.
const PIECES: &[(&str, &str)] = &[
    ("all_taps", include_str!("../../shaders/lib/all_taps.wgsl")),
    ("batch_norm", include_str!("../../shaders/lib/batch_norm.wgsl")),
    ("batch_norm_input", include_str!("../../shaders/lib/batch_norm_input.wgsl")),
    ("batch_norm_sums", include_str!("../../shaders/lib/batch_norm_sums.wgsl")),
    ("batch_norm_table", include_str!("../../shaders/lib/batch_norm_table.wgsl")),
    ("batch_norm_table4", include_str!("../../shaders/lib/batch_norm_table4.wgsl")),
    ("bilinear", include_str!("../../shaders/lib/bilinear.wgsl")),
    ("bilinear4", include_str!("../../shaders/lib/bilinear4.wgsl")),
    ("bilinear_half4", include_str!("../../shaders/lib/bilinear_half4.wgsl")),
    ("columns", include_str!("../../shaders/lib/columns.wgsl")),
    ("conv2d_both", include_str!("../../shaders/lib/conv2d_both.wgsl")),
    ("conv2d_eight_joined", include_str!("../../shaders/lib/conv2d_eight_joined.wgsl")),
    ("conv2d_eight_normed", include_str!("../../shaders/lib/conv2d_eight_normed.wgsl")),
    ("conv2d_eight_plain", include_str!("../../shaders/lib/conv2d_eight_plain.wgsl")),
    ("conv2d_element", include_str!("../../shaders/lib/conv2d_element.wgsl")),
    ("conv2d_forward", include_str!("../../shaders/lib/conv2d_forward.wgsl")),
    ("conv2d_gather_plain", include_str!("../../shaders/lib/conv2d_gather_plain.wgsl")),
    ("conv2d_gx", include_str!("../../shaders/lib/conv2d_gx.wgsl")),
    ("conv2d_gy_plain", include_str!("../../shaders/lib/conv2d_gy_plain.wgsl")),
    ("conv2d_matrix", include_str!("../../shaders/lib/conv2d_matrix.wgsl")),
    ("conv2d_norm_sums", include_str!("../../shaders/lib/conv2d_norm_sums.wgsl")),
    ("conv2d_order", include_str!("../../shaders/lib/conv2d_order.wgsl")),
    ("conv2d_sizes", include_str!("../../shaders/lib/conv2d_sizes.wgsl")),
    ("conv2d_statistics", include_str!("../../shaders/lib/conv2d_statistics.wgsl")),
    ("conv2d_tile", include_str!("../../shaders/lib/conv2d_tile.wgsl")),
    ("conv2d_weight", include_str!("../../shaders/lib/conv2d_weight.wgsl")),
    ("conv2d_weight_block", include_str!("../../shaders/lib/conv2d_weight_block.wgsl")),
    ("conv2d_weight_matrix", include_str!("../../shaders/lib/conv2d_weight_matrix.wgsl")),
    ("conv2d_weight_rows", include_str!("../../shaders/lib/conv2d_weight_rows.wgsl")),
    ("conv2d_weight_terms", include_str!("../../shaders/lib/conv2d_weight_terms.wgsl")),
    ("conv2d_x_joined", include_str!("../../shaders/lib/conv2d_x_joined.wgsl")),
    ("conv2d_x_plain", include_str!("../../shaders/lib/conv2d_x_plain.wgsl")),
    ("conv_transpose2d_matrix", include_str!("../../shaders/lib/conv_transpose2d_matrix.wgsl")),
    ("conv_transpose2d_tile", include_str!("../../shaders/lib/conv_transpose2d_tile.wgsl")),
    ("eight", include_str!("../../shaders/lib/eight.wgsl")),
    ("element", include_str!("../../shaders/lib/element.wgsl")),
    ("epilogue", include_str!("../../shaders/lib/epilogue.wgsl")),
    ("finite", include_str!("../../shaders/lib/finite.wgsl")),
    ("flat", include_str!("../../shaders/lib/flat.wgsl")),
    ("gelu", include_str!("../../shaders/lib/gelu.wgsl")),
    ("gemm_block", include_str!("../../shaders/lib/gemm_block.wgsl")),
    ("gemm_columns", include_str!("../../shaders/lib/gemm_columns.wgsl")),
    ("gemm_forward", include_str!("../../shaders/lib/gemm_forward.wgsl")),
    ("gemm_matrix", include_str!("../../shaders/lib/gemm_matrix.wgsl")),
    ("gemm_tile", include_str!("../../shaders/lib/gemm_tile.wgsl")),
    ("lanes_apart", include_str!("../../shaders/lib/lanes_apart.wgsl")),
    ("lanes_together", include_str!("../../shaders/lib/lanes_together.wgsl")),
    ("linear_blocks", include_str!("../../shaders/lib/linear_blocks.wgsl")),
    ("linear_weight", include_str!("../../shaders/lib/linear_weight.wgsl")),
    ("linear_weight_block", include_str!("../../shaders/lib/linear_weight_block.wgsl")),
    ("matrix_block", include_str!("../../shaders/lib/matrix_block.wgsl")),
    ("matrix_numbers", include_str!("../../shaders/lib/matrix_numbers.wgsl")),
    ("matrix_plain", include_str!("../../shaders/lib/matrix_plain.wgsl")),
    ("matrix_plain16", include_str!("../../shaders/lib/matrix_plain16.wgsl")),
    ("matrix_plain8", include_str!("../../shaders/lib/matrix_plain8.wgsl")),
    ("matrix_units", include_str!("../../shaders/lib/matrix_units.wgsl")),
    ("matrix_units16", include_str!("../../shaders/lib/matrix_units16.wgsl")),
    ("matrix_units8", include_str!("../../shaders/lib/matrix_units8.wgsl")),
    ("matrix_vectors", include_str!("../../shaders/lib/matrix_vectors.wgsl")),
    ("outer_product", include_str!("../../shaders/lib/outer_product.wgsl")),
    ("parts", include_str!("../../shaders/lib/parts.wgsl")),
    ("reduce", include_str!("../../shaders/lib/reduce.wgsl")),
    ("shifted", include_str!("../../shaders/lib/shifted.wgsl")),
    ("shifted_quad", include_str!("../../shaders/lib/shifted_quad.wgsl")),
    ("shifted_weight", include_str!("../../shaders/lib/shifted_weight.wgsl")),
    ("shifted_weight_block", include_str!("../../shaders/lib/shifted_weight_block.wgsl")),
    ("tile_constants", include_str!("../../shaders/lib/tile_constants.wgsl")),
    ("tile_groups", include_str!("../../shaders/lib/tile_groups.wgsl")),
    ("tile_places", include_str!("../../shaders/lib/tile_places.wgsl")),
    ("tile_statistics", include_str!("../../shaders/lib/tile_statistics.wgsl")),
    ("weight_block", include_str!("../../shaders/lib/weight_block.wgsl")),
    ("weight_matrix", include_str!("../../shaders/lib/weight_matrix.wgsl")),
    ("weight_sums", include_str!("../../shaders/lib/weight_sums.wgsl")),
    ("winograd", include_str!("../../shaders/lib/winograd.wgsl")),
    ("winograd_tall", include_str!("../../shaders/lib/winograd_tall.wgsl")),
    ("winograd_forward", include_str!("../../shaders/lib/winograd_forward.wgsl")),
    ("winograd_product", include_str!("../../shaders/lib/winograd_product.wgsl")),
    ("winograd_product_block", include_str!("../../shaders/lib/winograd_product_block.wgsl")),
];

/// The constant that says how many neighbours of a subgroup share what they read. With more than 1, `// @include lanes` stands
/// for `lanes_together`, and only a device with subgroups takes the text; else for `lanes_apart`.
pub const TOGETHER: &str = "TOGETHER";

/// The constant that says how many tiles stand side by side in a block that reads through workgroup memory. With 1 each invocation
/// reads for itself.
pub const BLOCK: &str = "BLOCK";

/// The constant that says how many invocations share the terms of a tile of a block.
pub const SPLIT: &str = "SPLIT";

/// Pieces with two forms: what a file includes, the piece where each invocation reads for itself, and the one with
/// [`BLOCK`] above 1.
const BY_BLOCKS: [[&str; 3]; 5] = [
    ["gemm", "gemm_tile", "gemm_block"],
    ["conv2d_weights", "conv2d_weight", "conv2d_weight_block"],
    ["linear_weights", "linear_weight", "linear_weight_block"],
    ["shifted_weights", "shifted_weight", "shifted_weight_block"],
    ["winograd_products", "winograd_product", "winograd_product_block"],
];

/// What multiplies matrices of 16-bit floats in a kernel for matrix units: the piece that `// @include matrix` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Matrix {
    /// Plain WGSL that every device takes; matrices of 16x16.
    #[default]
    Plain16,
    /// The same, of 8x8.
    Plain8,
    /// Matrix units for matrices of 16x16.
    Units16,
    /// The same, for 8x8.
    Units8,
}

impl Matrix {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Plain16, Self::Plain8, Self::Units16, Self::Units8];

    /// The piece under `shaders/lib`.
    pub fn piece(self) -> &'static str {
        match self {
            Self::Plain16 => "matrix_plain16",
            Self::Plain8 => "matrix_plain8",
            Self::Units16 => "matrix_units16",
            Self::Units8 => "matrix_units8",
        }
    }

    /// Rows, and columns, of a matrix.
    pub fn unit(self) -> usize {
        match self {
            Self::Plain16 | Self::Units16 => 16,
            Self::Plain8 | Self::Units8 => 8,
        }
    }

    /// Whether only a device with matrix units takes it.
    pub fn needs_units(self) -> bool {
        matches!(self, Self::Units16 | Self::Units8)
    }
}

impl fmt::Display for Matrix {
    /// `16x16`, `8x8 emulated`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Plain16 => "16x16 emulated",
            Self::Plain8 => "8x8 emulated",
            Self::Units16 => "16x16",
            Self::Units8 => "8x8",
        })
    }
}

/// The form of a text that a kernel is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Form {
    /// As the files stand: images are f32.
    #[default]
    F32,
    /// Images are 16-bit floats.
    F16(Matrix),
}

/// One entry point of a shader with the constants that a version asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The shader's name.
    pub shader: &'static str,
    /// The entry point.
    pub entry: &'static str,
    /// Replacements of `// @tune` constants.
    pub constants: Constants,
    /// What images are, and what multiplies matrices.
    pub form: Form,
}

impl Entry {
    /// `shader.entry`.
    pub fn label(&self) -> String {
        format!("{}.{}", self.shader, self.entry)
    }
}

/// Numbers for `// @tune` constants in the place of the file's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Constants([Option<(&'static str, u32)>; Self::MOST]);

impl Constants {
    /// A shader has at most so many.
    pub const MOST: usize = 5;

    /// The number of a constant that is replaced.
    pub fn get(self, name: &str) -> Option<u32> {
        self.list().into_iter().find(|(known, _)| *known == name).map(|(_, number)| number)
    }

    /// The same, or the one in the file, which is `usual`.
    pub(crate) fn number(self, name: &str, usual: usize) -> usize {
        self.get(name).map_or(usual, |number| number as usize)
    }

    /// Whether a kernel has these constants.
    fn makes_sense(self) -> bool {
        let [rows, vectors] = [self.number("TILE_M", 8), self.number("TILE_N", 2)];
        match self.number(BLOCK, 1) {
            1 => self.number(SPLIT, 1) == 1,
            // Four slabs of large tiles are more workgroup memory than DirectX has.
            _ => rows == 4 * vectors && self.number(TOGETHER, 1) == 1 && (rows == 4 || self.number(SPLIT, 1) == 1),
        }
    }

    /// Names and numbers.
    pub fn list(self) -> Vec<(&'static str, u32)> {
        self.0.into_iter().flatten().collect()
    }

    /// The same with one more.
    pub(crate) fn with(mut self, name: &'static str, number: u32) -> Self {
        if let Some(free) = self.0.iter_mut().find(|place| place.is_none()) {
            *free = Some((name, number));
        }
        self
    }
}

impl From<&[(&'static str, u32)]> for Constants {
    /// Of the first [`Constants::MOST`].
    fn from(list: &[(&'static str, u32)]) -> Self {
        list.iter().fold(Self::default(), |constants, (name, number)| constants.with(name, *number))
    }
}

impl fmt::Display for Constants {
    /// `TILE_M=4 TILE_N=1`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> = self.list().into_iter().map(|(name, number)| format!("{name}={number}")).collect();
        out.write_str(&list.join(" "))
    }
}

/// The text that the compiler sees, and where each of its lines came from.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// WGSL.
    pub text: String,
    /// File and line (from 1) of each line of `text`.
    pub origin: Vec<(String, u32)>,
}

/// A `// @tune` constant of a shader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunable {
    /// Its name.
    pub name: &'static str,
    /// Its number in the file.
    pub usual: u32,
    /// The numbers to try.
    pub values: Vec<u32>,
}

impl Shader {
    /// The `// @tune` constants of the built-in text and its pieces, in their order; without those of pieces that are for 16-bit
    /// floats only ([`blocks`](crate::ops::matrix::blocks) has these).
    pub fn tunables(&self) -> Vec<Tunable> {
        let (mut texts, mut all) = (vec![self.source], Vec::new());
        let mut next = 0;
        while let Some(text) = texts.get(next).copied() {
            next += 1;
            for line in text.lines() {
                all.extend(tunable(line));
                let piece = included(line, Matrix::default(), Choices::default());
                let piece = piece.and_then(|name| PIECES.iter().find(|(known, _)| *known == name));
                texts.extend(piece.map(|(_, text)| *text).filter(|text| !texts.contains(text)));
            }
        }
        all
    }

    /// Combinations of the numbers of [`tunables`](Self::tunables), each without those that the file has anyway: the first is
    /// empty and stands for the file as it is. All of them, but blocks are of square tiles, large or small, and only the terms of
    /// small ones are shared out; within them neighbours share everything as it is.
    pub fn variants(&self) -> Vec<Constants> {
        let mut all = vec![Constants::default()];
        for Tunable { name, usual, values } in self.tunables() {
            let with =
                |variant: &Constants, value: u32| if value == usual { *variant } else { variant.with(name, value) };
            all = all.iter().flat_map(|variant| values.iter().map(move |value| with(variant, *value))).collect();
        }
        all.retain(|variant| variant.makes_sense());
        all.sort_by_key(|variant| *variant != Constants::default());
        all
    }

    /// Puts the shader together: its own text (from `folder` if given), its pieces and its constants.
    ///
    /// # Errors
    /// A piece or constant that does not exist, or a file of `folder` that cannot be read.
    pub fn assemble(&self, folder: Option<&Path>, constants: &[(&str, u32)]) -> Result<Assembled> {
        self.assemble_as(folder, constants, Form::F32)
    }

    /// Its text in every form that a chosen kernel may have, one after the other: what decides whether an answer of `tune` is of
    /// today's kernels. A piece that several forms take in is there several times.
    ///
    /// # Errors
    /// As [`assemble`](Self::assemble).
    pub fn every_form(&self, folder: Option<&Path>) -> Result<Assembled> {
        let mut all = self.assemble(folder, &[])?;
        let others: [(&[(&str, u32)], Form); 4] = [
            (&[], Form::F16(Matrix::Units16)),
            (&[], Form::F16(Matrix::Units8)),
            (&[(TOGETHER, 2)], Form::F32),
            (&[(BLOCK, 2)], Form::F32),
        ];
        // Not every shader has them.
        for form in others.into_iter().filter_map(|(constants, form)| self.assemble_as(folder, constants, form).ok()) {
            all.text += &form.text;
            all.origin.extend(form.origin);
        }
        Ok(all)
    }

    /// As [`assemble`](Self::assemble), for images of 16-bit floats.
    ///
    /// # Errors
    /// As [`assemble`](Self::assemble), and if the text has no `// @half` line.
    pub fn assemble_half(&self, folder: Option<&Path>, constants: &[(&str, u32)]) -> Result<Assembled> {
        self.assemble_as(folder, constants, Form::F16(Matrix::default()))
    }

    /// As [`assemble`](Self::assemble), in any form.
    ///
    /// # Errors
    /// As [`assemble_half`](Self::assemble_half), and if the text has no kernel for the matrix units that are asked for.
    pub fn assemble_as(&self, folder: Option<&Path>, constants: &[(&str, u32)], form: Form) -> Result<Assembled> {
        let file = format!("{}.wgsl", self.name);
        let text = text_of(&file, self.source, folder)?;
        let mut assembly = Assembly { folder, constants, form, seen: HashSet::new(), used: HashSet::new() };
        let mut out = Assembled { text: String::new(), origin: Vec::new() };
        if let Form::F16(matrix) = form {
            out.push("enable f16;", &file, 1);
            if matrix.needs_units() {
                out.push("enable wgpu_cooperative_matrix;", &file, 1);
            }
        }
        assembly.append(&file, &text, &mut out)?;
        if let Form::F16(matrix) = form
            && matrix != Matrix::default()
            && !assembly.seen.contains(&piece_file(matrix.piece()))
        {
            let message = "it has no kernel for matrix units: `// @include matrix`".to_owned();
            return Err(Error::Shader { file, line: 0, message });
        }
        if form != Form::F32 && !out.text.contains(HALF) {
            let message = "it has no form for 16-bit floats: `// @include element` and images of `Element`".to_owned();
            return Err(Error::Shader { file, line: 0, message });
        }
        for (name, _) in constants {
            if !assembly.used.contains(*name) {
                return Err(Error::Shader {
                    file: format!("{}.wgsl", self.name),
                    line: 0,
                    message: format!("there is no `const {name}: u32 = ..; // @tune` to replace"),
                });
            }
        }
        Ok(out)
    }
}

/// The text of a file of `shaders/`: from the folder if there is one, else as it was built in.
fn text_of(file: &str, embedded: &'static str, folder: Option<&Path>) -> Result<Cow<'static, str>> {
    let Some(folder) = folder else { return Ok(embedded.into()) };
    let path = folder.join(file);
    Ok(std::fs::read_to_string(&path).map_err(Error::io("read", &path))?.into())
}

/// What putting pieces together needs to know.
struct Assembly<'a> {
    /// Where pieces come from, if not from what was built in.
    folder: Option<&'a Path>,
    constants: &'a [(&'a str, u32)],
    form: Form,
    /// Files that are in.
    seen: HashSet<String>,
    /// Constants that were found.
    used: HashSet<String>,
}

impl Assembly<'_> {
    /// Adds a file and, behind it, the pieces that it includes.
    fn append(&mut self, file: &str, text: &str, out: &mut Assembled) -> Result<()> {
        if !self.seen.insert(file.to_owned()) {
            return Ok(());
        }
        let mut pieces = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let (half, matrix) = match self.form {
                Form::F32 => (false, Matrix::default()),
                Form::F16(matrix) => (true, matrix),
            };
            let above_1 = |wanted: &str| self.constants.iter().any(|(name, number)| *name == wanted && *number > 1);
            let choices = Choices { half, together: above_1(TOGETHER), blocks: above_1(BLOCK) };
            if let Some(name) = included(line, matrix, choices) {
                pieces.push((index, name.to_owned()));
            }
            let line = if half { halved(line) } else { line.into() };
            out.push(&tuned(&line, self.constants, &mut self.used), file, index as u32 + 1);
        }
        for (index, name) in pieces {
            let Some((_, source)) = PIECES.iter().find(|(piece, _)| *piece == name) else {
                return Err(Error::Shader {
                    file: file.to_owned(),
                    line: index as u32 + 1,
                    message: format!("there is no shaders/lib/{name}.wgsl"),
                });
            };
            let piece = piece_file(&name);
            self.append(&piece, &text_of(&piece, source, self.folder)?, out)?;
        }
        Ok(())
    }
}

/// Where a piece stands under `shaders/`.
fn piece_file(name: &str) -> String {
    format!("lib/{name}.wgsl")
}

/// What decides between pieces.
#[derive(Debug, Clone, Copy, Default)]
struct Choices {
    /// Images are 16-bit floats, for which there are pieces of their own.
    half: bool,
    /// Neighbours share what they read.
    together: bool,
    /// Tiles read through workgroup memory.
    blocks: bool,
}

/// The piece that a line takes in.
fn included(line: &str, matrix: Matrix, Choices { half, together, blocks }: Choices) -> Option<&str> {
    let name = line.trim().strip_prefix("// @include ")?.trim();
    match name.strip_suffix(" @half") {
        Some(name) => half.then_some(name),
        None if name == "matrix" => Some(matrix.piece()),
        None if name == "lanes" => Some(if together { "lanes_together" } else { "lanes_apart" }),
        None => match BY_BLOCKS.iter().find(|[wanted, ..]| *wanted == name) {
            Some([_, apart, block]) => Some(if blocks { block } else { apart }),
            None => Some(name),
        },
    }
}

/// What `const NAME: u32 = 8u; // @tune 4 8` declares.
fn tunable(line: &'static str) -> Option<Tunable> {
    let (declaration, values) = line.split_once("// @tune")?;
    let (name, number) = declaration.strip_prefix("const ")?.split_once(": u32 = ")?;
    let usual = number.trim().strip_suffix("u;")?.parse().ok()?;
    let values = values.split_whitespace().map_while(|value| value.parse().ok()).collect();
    Some(Tunable { name, usual, values })
}

/// The line with its type replaced if it is `alias Element = f32; // @half f16`.
fn halved(line: &str) -> Cow<'_, str> {
    let parts = || {
        let (declaration, half) = line.split_once(HALF)?;
        let (alias, _) = declaration.split_once('=')?;
        Some(format!("{alias}= {half}; {HALF}{half}"))
    };
    parts().map_or(line.into(), Into::into)
}

/// Before the type that takes the place of a line's own.
const HALF: &str = "// @half ";

/// The line with its number replaced if it declares one of `constants` as tunable.
fn tuned<'a>(line: &'a str, constants: &[(&str, u32)], used: &mut HashSet<String>) -> Cow<'a, str> {
    if !line.contains("// @tune") {
        return line.into();
    }
    for (name, value) in constants {
        let head = format!("const {name}: u32 = ");
        if let (Some(rest), Some(comment)) = (line.strip_prefix(&head), line.find("// @tune"))
            && rest.contains("u;")
        {
            used.insert((*name).to_owned());
            return format!("{head}{value}u; {}", &line[comment..]).into();
        }
    }
    line.into()
}

impl Assembled {
    /// Puts the text of any file together with the pieces that it includes, which come from `folder` if given.
    ///
    /// # Errors
    /// A file that cannot be read, or a piece that does not exist.
    pub fn read(path: &Path, folder: Option<&Path>) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let (seen, used) = (HashSet::new(), HashSet::new());
        let mut assembly = Assembly { folder, constants: &[], form: Form::F32, seen, used };
        let mut out = Self { text: String::new(), origin: Vec::new() };
        assembly.append(&path.display().to_string(), &text, &mut out)?;
        Ok(out)
    }

    /// Adds a line.
    fn push(&mut self, line: &str, file: &str, number: u32) {
        self.text.push_str(line);
        self.text.push('\n');
        self.origin.push((file.to_owned(), number));
    }

    /// The files that it is made of, in their order.
    pub fn files(&self) -> Vec<&str> {
        let mut files: Vec<&str> = self.origin.iter().map(|(file, _)| file.as_str()).collect();
        files.dedup();
        files
    }

    /// File and line of a line (from 1) of the whole text.
    pub fn locate(&self, line: u32) -> (String, u32) {
        let index = (line.max(1) - 1) as usize;
        self.origin.get(index).cloned().unwrap_or_else(|| ("?".to_owned(), line))
    }

    /// A short name of the text, the same on every machine: measurements and tuned choices are kept under it.
    pub fn hash(&self) -> String {
        format!("{:08x}", crc32c::crc32c(self.text.as_bytes()))
    }

    /// Parses and validates the text.
    ///
    /// # Errors
    /// The first fault, with file and line of the piece that holds it.
    pub fn validate(&self) -> Result<naga::Module> {
        self.validated().map(|(module, _)| module)
    }

    /// As [`validate`](Self::validate), with what the validator found out.
    pub(super) fn validated(&self) -> Result<(naga::Module, naga::valid::ModuleInfo)> {
        let fault = |line: u32, message: String| {
            let (file, line) = self.locate(line);
            Error::Shader { file, line, message }
        };
        let module = naga::front::wgsl::parse_str(&self.text).map_err(|error| {
            let line = self.first_line(error.labels().map(|(span, _)| span));
            fault(line, error.message().to_owned())
        })?;
        let mut validator =
            naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
        let info = validator.validate(&module).map_err(|error| {
            let line = self.first_line(error.spans().map(|(span, _)| *span));
            let mut message = error.as_inner().to_string();
            let mut source = std::error::Error::source(error.as_inner());
            while let Some(cause) = source {
                message = format!("{message}: {cause}");
                source = cause.source();
            }
            fault(line, message)
        })?;
        Ok((module, info))
    }

    /// The line of the first span that is one: what naga made up itself, such as the type to return, has none.
    fn first_line(&self, spans: impl Iterator<Item = naga::Span>) -> u32 {
        let mut defined = spans.filter(naga::Span::is_defined);
        defined.next().map_or(0, |span| span.location(&self.text).line_number)
    }

    /// Compiles the text for a device.
    ///
    /// Our own shaders keep their bounds checks but not wgpu's hidden loop counters: with those, a register-tiled
    /// matmul written with loops is 2-7 times slower (measured). Shaders from a user (`trusted` false) keep both.
    #[allow(unsafe_code, reason = "the one place: every loop of ours has a bound that its body does not change")]
    pub(crate) fn compile(&self, device: &wgpu::Device, label: &str, trusted: bool) -> wgpu::ShaderModule {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(label),
            source: wgpu::ShaderSource::Wgsl(self.text.as_str().into()),
        };
        if !trusted {
            return device.create_shader_module(descriptor);
        }
        let checks = wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
        // SAFETY: `loops` proves with naga that each loop of a text counts towards a bound that its body does not
        // change, so none is infinite: `kernels-tests/shaders.rs` asks it of each file under `shaders/`, `Replacement`
        // of any other text before it says `trusted`. All other checks stay on.
        unsafe { device.create_shader_module_trusted(descriptor, checks) }
    }
}
