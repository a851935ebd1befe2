//! Shader text: files under `shaders/`, put together from pieces and checked with errors that name the piece.
//!
//! - `// @include reduce` takes in `shaders/lib/reduce.wgsl`, each piece once. WGSL does not mind the order of
//!   declarations, so this is plain concatenation and every file stays readable in any WGSL editor.
//! - `const TILE_M: u32 = 8u; // @tune 4 8 16` is valid WGSL as it stands; the loader replaces the number.
//! - `override WG: u32 = 64u;` is the workgroup size, the same in every shader ([`WORKGROUP`](super::WORKGROUP)).

use std::borrow::Cow;
use std::collections::HashSet;
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
    ("columns", include_str!("../../shaders/lib/columns.wgsl")),
    ("flat", include_str!("../../shaders/lib/flat.wgsl")),
    ("gemm_tile", include_str!("../../shaders/lib/gemm_tile.wgsl")),
    ("reduce", include_str!("../../shaders/lib/reduce.wgsl")),
    ("weight_chunks", include_str!("../../shaders/lib/weight_chunks.wgsl")),
];

/// One entry point of a shader with the constants that a version asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The shader's name.
    pub shader: &'static str,
    /// The entry point.
    pub entry: &'static str,
    /// Replacements of `// @tune` constants.
    pub constants: &'static [(&'static str, u32)],
}

/// The text that the compiler sees, and where each of its lines came from.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// WGSL.
    pub text: String,
    /// File and line (from 1) of each line of `text`.
    pub origin: Vec<(String, u32)>,
}

impl Shader {
    /// Puts the shader together: its own text (from `folder` if given), its pieces and its constants.
    ///
    /// # Errors
    /// A piece or constant that does not exist, or a file of `folder` that cannot be read.
    pub fn assemble(&self, folder: Option<&Path>, constants: &[(&str, u32)]) -> Result<Assembled> {
        let mut out = Assembled { text: String::new(), origin: Vec::new() };
        let mut seen = HashSet::new();
        let mut used = HashSet::new();
        append(&format!("{}.wgsl", self.name), self.source, folder, constants, &mut seen, &mut used, &mut out)?;
        for (name, _) in constants {
            if !used.contains(*name) {
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

fn append(
    file: &str,
    embedded: &str,
    folder: Option<&Path>,
    constants: &[(&str, u32)],
    seen: &mut HashSet<String>,
    used: &mut HashSet<String>,
    out: &mut Assembled,
) -> Result<()> {
    if !seen.insert(file.to_owned()) {
        return Ok(());
    }
    let text: Cow<'_, str> = match folder {
        Some(folder) => {
            let path = folder.join(file);
            std::fs::read_to_string(&path).map_err(Error::io("read", &path))?.into()
        }
        None => embedded.into(),
    };
    let mut pieces = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(name) = line.trim().strip_prefix("// @include ") {
            pieces.push((index, name.trim().to_owned()));
        }
        out.text.push_str(&tuned(line, constants, used));
        out.text.push('\n');
        out.origin.push((file.to_owned(), index as u32 + 1));
    }
    for (index, name) in pieces {
        let Some((_, source)) = PIECES.iter().find(|(piece, _)| *piece == name) else {
            return Err(Error::Shader {
                file: file.to_owned(),
                line: index as u32 + 1,
                message: format!("there is no shaders/lib/{name}.wgsl"),
            });
        };
        append(&format!("lib/{name}.wgsl"), source, folder, constants, seen, used, out)?;
    }
    Ok(())
}

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
    /// File and line of a line (from 1) of the whole text.
    pub fn locate(&self, line: u32) -> (String, u32) {
        let index = (line.max(1) - 1) as usize;
        self.origin.get(index).cloned().unwrap_or_else(|| ("?".to_owned(), line))
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
        // SAFETY: `kernels-tests/shaders.rs` proves with naga that each loop of each file under `shaders/` counts
        // towards a bound that its body does not change, so none is infinite. All other checks stay on.
        unsafe { device.create_shader_module_trusted(descriptor, checks) }
    }
}
