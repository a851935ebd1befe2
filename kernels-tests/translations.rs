//! Every kernel for drivers that this machine lacks. naga translates each entry point of each shader, with every
//! combination of its `// @tune` numbers, to SPIR-V, MSL and HLSL; `spirv-val` validates the first and Microsoft's own
//! compiler takes the last to DXIL, where they are to be had: `./kernels-tests/portability` fetches both.
//!
//! | variable | tool | otherwise |
//! | --- | --- | --- |
//! | `SHADEGRAD_SPIRV_VAL` | path of `spirv-val` | the one under `target/portability/`, or on the path |
//! | `SHADEGRAD_DXC` | path of `libdxcompiler.so` | the one under `target/portability/` |

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use naga::back::pipeline_constants::process_overrides;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use shadegrad::gpu::shader::{BLOCK, SPLIT, TOGETHER};
use shadegrad::gpu::translate::Translator;
use shadegrad::gpu::{Assembled, Constants, Form, Matrix, Shader};
use shadegrad::ops::matrix::MatrixKernel;

use crate::bench::harness::peaks::PEAKS;

/// A shader's text with one choice of its tunable numbers.
pub(crate) struct Variant {
    /// `conv2d.TILE_M=4.TILE_N=1`, `relu` or `relu.f16`; numbers that the file has anyway are left out.
    pub(crate) name: String,
    pub(crate) text: Assembled,
    /// Whether its images are 16-bit floats, and what multiplies matrices then.
    pub(crate) form: Form,
}

impl Variant {
    /// Whether it is one for matrix units, and what multiplies.
    pub(crate) fn matrix(&self) -> Option<Matrix> {
        match self.form {
            Form::F16(matrix) if matrix != Matrix::default() => Some(matrix),
            _ => None,
        }
    }

    /// The entry points that differ from those of another variant.
    pub(crate) fn entries<'a>(&self, translator: &'a Translator) -> Vec<&'a str> {
        let mut entries = translator.entries();
        let as_it_stands = !self.name.contains('='); // the constants of tiles change nothing of matrix units
        entries.retain(|entry| match self.matrix() {
            Some(_) => is_for_matrix(entry),
            None => as_it_stands || !is_for_matrix(entry),
        });
        entries
    }
}

/// Whether an entry point multiplies on matrix units.
pub(crate) fn is_for_matrix(entry: &str) -> bool {
    ["forward_v5", "forward_statistics_v5", "backward_weight_v6"].contains(&entry)
}

/// The shaders of the ops, and the one of `bench` that needs no f16.
fn shaders() -> impl Iterator<Item = &'static Shader> {
    shadegrad::ops::shaders().chain([&PEAKS])
}

/// Workgroup memory of DirectX.
const DIRECTX_WORKGROUP_BYTES: u32 = 32768;

/// All shaders with all combinations of their tunable numbers; first of each shader the file as it stands.
pub(crate) fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for shader in shaders() {
        for constants in shader.variants() {
            let suffix: String = constants.list().iter().map(|(name, value)| format!(".{name}={value}")).collect();
            let name = format!("{}{suffix}", shader.name);
            if let Ok(text) = shader.assemble_half(None, &constants.list()) {
                all.push(Variant { name: format!("{name}.f16"), text, form: Form::F16(Matrix::default()) });
            }
            all.push(Variant { name, text: shader.assemble(None, &constants.list()).unwrap(), form: Form::F32 });
        }
        for matrix in Matrix::ALL.into_iter().filter(|matrix| *matrix != Matrix::default()) {
            // What DirectX has no memory for, which has no matrix units either, is not emulated.
            let fits = |constants: &Constants| {
                matrix.needs_units()
                    || MatrixKernel { matrix, constants: *constants }.memory() <= DIRECTX_WORKGROUP_BYTES as usize
            };
            for constants in shadegrad::ops::matrix::blocks().filter(fits) {
                let suffix: String = constants.list().iter().map(|(name, value)| format!(".{name}={value}")).collect();
                let (name, form) = (format!("{}.f16.{}{suffix}", shader.name, matrix.piece()), Form::F16(matrix));
                let text = shader.assemble_as(None, &constants.list(), form).ok();
                all.extend(text.map(|text| Variant { name, text, form }));
            }
        }
    }
    all
}

#[test]
fn tuned_numbers_are_all_combined() {
    let names: Vec<_> = variants().into_iter().map(|variant| variant.name).collect();
    let tuned = ["linear.TILE_M=4.TILE_N=1", "linear.TILE_N=1", "linear", "batch_norm.PIXELS=8"];
    for wanted in [
        &tuned[..],
        &["relu", "relu.f16", "conv2d_normed.f16.matrix_units16", "conv2d.f16.matrix_units8.PANE_ROWS=128"],
    ]
    .concat()
    {
        assert!(names.iter().any(|name| name == wanted), "{wanted} is not among {names:?}");
    }
}

/// The numbers of a file as it stands are among those to try, no line with `@tune` is overlooked, and no combination
/// is missing.
#[test]
fn every_tunable_number_is_understood() {
    for shader in shaders() {
        let (text, tunables) = (shader.assemble(None, &[]).unwrap().text, shader.tunables());
        assert_eq!(tunables.len(), text.matches("// @tune").count(), "{}", shader.name);
        for tunable in &tunables {
            assert!(
                tunable.values.contains(&tunable.usual) && tunable.values.len() > 1,
                "{}: {tunable:?}",
                shader.name
            );
        }
        assert!(tunables.len() <= Constants::MOST, "{}", shader.name);
        let variants = shader.variants();
        // All combinations, but blocks have tiles of two sizes only, the terms of small ones may be shared out, and what is for
        // blocks is for them alone.
        let values = |name: &str| tunables.iter().find(|t| t.name == name).map_or(1, |tunable| tunable.values.len());
        let others = |names: &[&str]| -> usize {
            let mut others: Vec<_> = tunables.iter().filter(|tunable| !names.contains(&tunable.name)).collect();
            others.drain(..).map(|tunable| tunable.values.len()).product()
        };
        let apart = others(&[BLOCK, SPLIT]);
        let blocks = (1 + values(SPLIT)) * (values(BLOCK) - 1) * others(&[BLOCK, SPLIT, TOGETHER, "TILE_M", "TILE_N"]);
        assert_eq!(variants.len(), apart + blocks, "{}", shader.name);
        assert_eq!(variants.iter().collect::<HashSet<_>>().len(), variants.len(), "{}", shader.name);
        assert!(variants[0].list().is_empty() && variants[1..].iter().all(|variant| !variant.list().is_empty()));
    }
}

/// Nothing beyond WebGPU itself: no subgroups, no f16 but for mixed precision, no 64-bit numbers, no limits above the promised
/// ones; subgroups and matrix units only where that is what a variant is for.
#[test]
fn every_kernel_is_plain_webgpu() {
    const MOST_WORKGROUP_BYTES: u32 = 16384;
    const UNITS_WORKGROUP_BYTES: u32 = 49152; // what NVIDIA's and AMD's cards have at least
    for Variant { name, text, form } in variants() {
        let module = text.validate().unwrap();
        let of_form = match form {
            Form::F32 => Capabilities::empty(),
            Form::F16(matrix) if matrix.needs_units() => {
                Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP | Capabilities::COOPERATIVE_MATRIX
            }
            Form::F16(_) => Capabilities::SHADER_FLOAT16,
        };
        let shares = if name.contains(TOGETHER) { Capabilities::SUBGROUP } else { Capabilities::empty() };
        let needed = of_form | shares;
        let mut validator = Validator::new(ValidationFlags::all(), needed);
        let info = match validator.validate(&module) {
            Ok(info) => info,
            Err(error) => panic!("{name} needs more than WebGPU promises: {}", error.into_inner()),
        };
        for entry in &module.entry_points {
            let bytes = workgroup_bytes(&module, &info, &entry.name);
            // Matrix units, blocks whose terms are shared out and the largest of Winograd's in one kernel are only for devices that have more.
            let more = is_for_matrix(&entry.name) || name.contains(SPLIT) || name.contains("VECTORS=16");
            let most = match form {
                Form::F16(matrix) if matrix.needs_units() && is_for_matrix(&entry.name) => UNITS_WORKGROUP_BYTES,
                _ if more => DIRECTX_WORKGROUP_BYTES,
                _ => MOST_WORKGROUP_BYTES,
            };
            assert!(bytes <= most, "{name}.{}: {bytes} bytes of workgroup memory", entry.name);
        }
    }
}

/// Workgroup memory of an entry point.
fn workgroup_bytes(module: &naga::Module, info: &naga::valid::ModuleInfo, entry: &str) -> u32 {
    let stage = Some((naga::ShaderStage::Compute, entry));
    let (settled, _) = process_overrides(module, info, stage, &Default::default()).unwrap();
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(settled.to_ctx()).unwrap();
    let shared = settled.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
    shared.map(|(_, variable)| layouter[variable.ty].size).sum()
}

/// What decides whether a device has room for a kernel on matrix units is what the kernel declares.
#[test]
fn matrix_units_know_their_workgroup_memory() {
    let conv2d = shaders().find(|shader| shader.name == "conv2d").unwrap();
    for matrix in Matrix::ALL {
        for constants in shadegrad::ops::matrix::blocks() {
            let text = conv2d.assemble_as(None, &constants.list(), Form::F16(matrix)).unwrap();
            let module = text.validate().unwrap();
            let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).unwrap();
            let entries = module.entry_points.iter().filter(|entry| is_for_matrix(&entry.name));
            let most = entries.map(|entry| workgroup_bytes(&module, &info, &entry.name)).max().unwrap();
            let kernel = MatrixKernel { matrix, constants };
            assert_eq!(most as usize, kernel.memory(), "{kernel}");
        }
    }
}

/// Writes each entry point of each variant in one language into a fresh folder of cargo's for tests, and says how many.
/// `but`: a variant that the language must refuse.
fn translate(
    end: &str,
    but: impl Fn(&Variant) -> bool,
    language: impl Fn(&Translator, &str) -> shadegrad::Result<Vec<u8>>,
) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("translations").join(end);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let mut files = Vec::new();
    let mut failed = Vec::new();
    for variant in variants() {
        let translator = Translator::new(&variant.text, true).unwrap();
        let name = &variant.name;
        for entry in variant.entries(&translator) {
            match language(&translator, entry) {
                Ok(_) if but(&variant) => failed.push(format!("{name}.{entry}: it is taken, so it can be offered")),
                Err(_) if but(&variant) => {}
                Ok(written) => {
                    let path = folder.join(format!("{name}.{entry}.{end}"));
                    std::fs::write(&path, written).unwrap();
                    files.push(path);
                }
                Err(error) => failed.push(format!("{name}.{entry}: {error}")),
            }
        }
    }
    assert!(failed.is_empty(), "{} of {} to {end}:\n{}", failed.len(), failed.len() + files.len(), failed.join("\n"));
    println!("{} variants of entry points to {end}, in {}", files.len(), folder.display());
    files
}

#[test]
fn every_variant_is_msl() {
    let files = translate("metal", |_| false, |translator, entry| translator.msl(entry).map(String::into_bytes));
    assert!(files.len() > 100, "{}", files.len());
}

#[test]
fn every_variant_is_valid_spirv() {
    let spirv = |translator: &Translator, entry: &str| {
        Ok(without_strides(&translator.spirv(entry)?).into_iter().flat_map(u32::to_le_bytes).collect())
    };
    let mut files = translate("spv", |_| false, spirv);
    let Some(tool) = tool("SHADEGRAD_SPIRV_VAL", "root/usr/bin/spirv-val").or_else(|| on_path("spirv-val")) else {
        return not_checked("SPIR-V by spirv-val; ./kernels-tests/portability fetches it");
    };
    if !knows_matrices(&tool) {
        files.retain(|file| !file.to_string_lossy().contains("matrix_units"));
        not_checked(
            "SPIR-V of matrix units, which this spirv-val does not know; SHADEGRAD_SPIRV_VAL names a newer one",
        );
    }
    let wrong: Vec<_> = files.iter().filter_map(|file| refused(&tool, file)).collect();
    assert!(wrong.is_empty(), "spirv-val refuses {} of {}:\n{}", wrong.len(), files.len(), wrong.join("\n"));
    // A tool that takes everything would prove nothing.
    let damaged = files[0].with_file_name("damaged.spv");
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let end = bytes.len() - 4; // without OpFunctionEnd
    bytes.truncate(end);
    std::fs::write(&damaged, bytes).unwrap();
    assert!(refused(&tool, &damaged).is_some(), "{} takes a damaged file", tool.display());
}

/// naga gives arrays in workgroup and private memory a stride, as in buffers. No driver minds; newer versions of `spirv-val`
/// do (VUID-StandaloneSpirv-None-10684), and say nothing else then.
fn without_strides(words: &[u32]) -> Vec<u32> {
    use rspirv::binary::Assemble as _;
    use rspirv::dr::Operand;
    use rspirv::spirv::{Decoration, Op, StorageClass};
    let mut module = rspirv::dr::load_words(words).unwrap();
    let mut plain = HashSet::new();
    // A type stands behind those that it is made of.
    for ty in module.types_global_values.iter().rev() {
        let outside = matches!(
            ty.operands.first(),
            Some(Operand::StorageClass(StorageClass::Workgroup | StorageClass::Function))
        );
        let made_of = match ty.class.opcode {
            Op::TypePointer if outside => ty.operands.get(1),
            Op::TypeArray if ty.result_id.is_some_and(|id| plain.contains(&id)) => ty.operands.first(),
            _ => None,
        };
        plain.extend(made_of.and_then(Operand::id_ref_any));
    }
    module.annotations.retain(|decoration| {
        let of = decoration.operands.first().and_then(Operand::id_ref_any);
        let stride = decoration.operands.get(1) == Some(&Operand::Decoration(Decoration::ArrayStride));
        !(stride && of.is_some_and(|id| plain.contains(&id)))
    });
    module.assemble()
}

/// Whether `spirv-val` is new enough for SPV_KHR_cooperative_matrix (2023).
fn knows_matrices(tool: &Path) -> bool {
    let done = Command::new(tool).arg("--version").output().unwrap();
    let year = text(&done.stdout).split_once('v').and_then(|(_, rest)| rest.get(..4)?.parse::<u32>().ok());
    year.is_some_and(|year| year > 2023)
}

/// What `spirv-val` says against a file, for Vulkan 1.1.
fn refused(tool: &Path, file: &Path) -> Option<String> {
    let done = Command::new(tool).args(["--target-env", "vulkan1.1"]).arg(file).output().unwrap();
    let said = || format!("{}: {}{}", file.display(), text(&done.stdout), text(&done.stderr));
    (!done.status.success()).then(said)
}

/// DX12 has no matrix units for wgpu: its adapters list none, and naga refuses them.
#[test]
fn every_variant_is_hlsl_for_dxc() {
    let units = |variant: &Variant| variant.matrix().is_some_and(Matrix::needs_units);
    let files = translate("hlsl", units, |translator, entry| translator.hlsl(entry).map(String::into_bytes));
    let Some(library) = tool("SHADEGRAD_DXC", "libdxcompiler.so") else {
        return not_checked("HLSL by the DirectX compiler; ./kernels-tests/portability fetches it");
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/dxc");
    let compile = |files: &[PathBuf]| {
        let done = Command::new("python3").arg(&script).arg(&library).args(files).output();
        let done = done.unwrap_or_else(|error| panic!("{} needs python3: {error}", script.display()));
        (done.status.code(), format!("{}{}", text(&done.stdout), text(&done.stderr)))
    };
    let (code, said) = compile(&files);
    assert!(code == Some(0), "{said}");
    print!("{said}");
    let damaged = files[0].with_file_name("damaged.hlsl");
    std::fs::write(&damaged, std::fs::read_to_string(&files[0]).unwrap().replace("asfloat(", "asnothing(")).unwrap();
    assert!(compile(&[damaged]).0 == Some(1), "{} takes a damaged file", library.display());
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The file that a variable names (then it must exist), or the one that `./kernels-tests/portability` has fetched.
pub(crate) fn tool(variable: &str, fetched: &str) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(variable) {
        let path = PathBuf::from(named);
        assert!(path.exists(), "{variable}={}: there is no such file", path.display());
        return Some(path);
    }
    Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/portability").join(fetched)).filter(|path| path.exists())
}

fn on_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// A line that the test harness does not swallow: what was left out must be seen.
pub(crate) fn not_checked(what: &str) {
    let _ = writeln!(std::io::stderr(), "NOT CHECKED: {what}");
}
