//! `shadegrad show kernel`: the text that the compiler gets, and what naga makes of it for each driver.

use clap::builder::PossibleValuesParser;
use serde_json::json;
use shadegrad::debug::Switches;
use shadegrad::gpu::translate::{Translator, disassemble};
use shadegrad::gpu::{Assembled, Form, Matrix, Shader};
use shadegrad::ops::{MORE_SHADERS, shaders};
use shadegrad::train::Precision;
use shadegrad::{Error, Result};

use super::{print_json, print_text};

/// A kernel: its final WGSL with all included pieces, or what a driver gets
///
/// Examples:
///   shadegrad show kernel conv2d
///   shadegrad show kernel conv2d --entry forward_v2 --spirv
///   shadegrad show kernel relu --precision f16
///   shadegrad show kernel conv2d --entry forward_v5 --matrix units16 --spirv
///   shadegrad show kernel linear --entry forward_v2 --set TILE_M=4 --msl
///   SHADEGRAD_SHADERS=my/shaders shadegrad show kernel relu --hlsl
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct KernelArgs {
    /// The op, or one of its further shaders, e.g. winograd_fused
    #[arg(value_name = "OP", value_parser = PossibleValuesParser::new(shaders().map(|shader| shader.name)), hide_possible_values = true)]
    op: String,
    /// One entry point, e.g. forward_v2 [default: all]
    #[arg(long, value_name = "NAME")]
    entry: Option<String>,
    /// Another number for a constant with `// @tune`, e.g. --set TILE_M=4
    #[arg(long, value_name = "NAME=N", value_parser = constant)]
    set: Vec<(String, u32)>,
    /// f32, or f16: its form for images of 16-bit floats
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// For matrix units, which implies --precision f16: units16, units8; or their emulation plain16, plain8
    #[arg(long, value_name = "KIND", value_parser = matrix)]
    matrix: Option<Matrix>,
    /// SPIR-V as text: what Vulkan gets
    #[arg(long, group = "language")]
    spirv: bool,
    /// Metal Shading Language
    #[arg(long, group = "language")]
    msl: bool,
    /// HLSL: what DX12 gets
    #[arg(long, group = "language")]
    hlsl: bool,
    /// WGSL again, as naga understands it: constants settled, nothing unused
    #[arg(long, group = "language")]
    wgsl: bool,
    /// One JSON object: op, entries, language, and each text by its entry point
    #[arg(long)]
    json: bool,
}

fn constant(text: &str) -> std::result::Result<(String, u32), String> {
    let (name, number) = text.split_once('=').ok_or("must be NAME=NUMBER")?;
    let number = number.parse().map_err(|_| format!("{number} is no whole number"))?;
    Ok((name.to_owned(), number))
}

fn matrix(text: &str) -> std::result::Result<Matrix, String> {
    let name = |matrix: &Matrix| matrix.piece().strip_prefix("matrix_") == Some(text);
    Matrix::ALL.into_iter().find(name).ok_or_else(|| format!("{text} is not one of units16, units8, plain16, plain8"))
}

pub(super) fn run(args: &KernelArgs) -> Result<()> {
    let shader = shaders().find(|shader| shader.name == args.op);
    let shader = shader.ok_or_else(|| Error::Config(format!("there is no op {}", args.op)))?;
    let text = assemble(args, shader)?;
    let translator = Translator::new(&text, true)?;
    let all = translator.entries();
    if let Some(entry) = args.entry.as_deref().filter(|entry| !all.contains(entry)) {
        only_in_half(args, shader, entry)?;
        only_in_another(args, entry)?;
    }
    let entries = match &args.entry {
        Some(entry) => vec![entry.as_str()],
        None => all.clone(),
    };
    let language = language(args);
    let translated = entries.iter().map(|entry| translate(&translator, language, entry)).collect::<Result<Vec<_>>>()?;
    if args.json {
        let texts: serde_json::Map<_, _> = match language {
            None => [("all".to_owned(), json!(text.text))].into_iter().collect(),
            Some(_) => {
                entries.iter().zip(&translated).map(|(entry, text)| ((*entry).to_owned(), json!(text))).collect()
            }
        };
        return print_json(&json!({
            "op": args.op, "entries": all, "language": language.unwrap_or("wgsl source"), "text": texts,
        }));
    }
    if language.is_none() {
        return print_text(&text.text);
    }
    let mut out = String::new();
    for (entry, text) in entries.iter().zip(&translated) {
        if translated.len() > 1 {
            out += &format!("{} ---- {}.{entry}\n", if language == Some("spirv") { ";" } else { "//" }, args.op);
        }
        out += text.trim_end();
        out.push('\n');
    }
    print_text(&out)
}

/// An error for an entry point that only the form for 16-bit floats has.
fn only_in_half(args: &KernelArgs, shader: &Shader, entry: &str) -> Result<()> {
    match assemble_as(args, shader, Form::F16(Matrix::default())) {
        Ok(half) if Translator::new(&half, true)?.entries().contains(&entry) => Err(Error::Config(format!(
            "{entry} is there for images of 16-bit floats only; add --precision f16, or --matrix units16 for matrix units"
        ))),
        _ => Ok(()),
    }
}

/// An error for an entry point that another shader of the op has.
fn only_in_another(args: &KernelArgs, entry: &str) -> Result<()> {
    for (_, shader) in MORE_SHADERS.iter().filter(|(op, _)| *op == args.op) {
        // Without --set: the other file has constants of its own.
        let text = assemble(&KernelArgs { set: Vec::new(), ..args.clone() }, shader);
        if text.is_ok_and(|text| Translator::new(&text, true).is_ok_and(|text| text.entries().contains(&entry))) {
            let name = shader.name;
            return Err(Error::Config(format!(
                "{entry} of {} is in shaders/{name}.wgsl; show it with: show kernel {name} --entry {entry}",
                args.op
            )));
        }
    }
    Ok(())
}

/// The text in the form that is asked for.
fn assemble(args: &KernelArgs, shader: &Shader) -> Result<Assembled> {
    let form = match (args.matrix, args.precision) {
        (Some(matrix), _) => Form::F16(matrix),
        (None, Precision::F16) => Form::F16(Matrix::default()),
        (None, Precision::F32) => Form::F32,
    };
    assemble_as(args, shader, form)
}

/// The text, from the folder that the environment names if it does.
fn assemble_as(args: &KernelArgs, shader: &Shader, form: Form) -> Result<Assembled> {
    let constants: Vec<(&str, u32)> = args.set.iter().map(|(name, number)| (name.as_str(), *number)).collect();
    shader.assemble_as(Switches::from_env()?.shaders.as_deref(), &constants, form)
}

/// The language asked for; `None`: the text as it is written.
fn language(args: &KernelArgs) -> Option<&'static str> {
    let asked = [(args.spirv, "spirv"), (args.msl, "msl"), (args.hlsl, "hlsl"), (args.wgsl, "wgsl")];
    asked.iter().find(|(given, _)| *given).map(|(_, name)| *name)
}

/// Also without a language: so that an entry point that does not exist is an error.
fn translate(translator: &Translator, language: Option<&str>, entry: &str) -> Result<String> {
    match language {
        Some("spirv") => disassemble(&translator.spirv(entry)?),
        Some("msl") => translator.msl(entry),
        Some("hlsl") => translator.hlsl(entry),
        _ => translator.wgsl(entry),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        kernel: KernelArgs,
    }

    fn parse(line: &[&str]) -> std::result::Result<KernelArgs, clap::Error> {
        Line::try_parse_from([&["kernel"], line].concat()).map(|line| line.kernel)
    }

    #[test]
    fn every_kernel_in_every_language() -> Result<()> {
        for shader in shaders() {
            let has_half = shader.assemble_half(None, &[]).is_ok();
            for flag in ["--spirv", "--msl", "--hlsl", "--wgsl"] {
                for precision in ["f32", "f16"].iter().take(1 + usize::from(has_half)) {
                    let line = [shader.name, flag, "--precision", precision];
                    let Ok(args) = parse(&line) else { panic!("{line:?} is refused") };
                    let translator = Translator::new(&assemble(&args, shader)?, true)?;
                    for entry in translator.entries() {
                        let text = translate(&translator, language(&args), entry)?;
                        assert!(text.contains(entry), "{line:?} {entry}:\n{text}");
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn kernels_for_matrix_units_in_the_languages_that_have_them() -> Result<()> {
        let line = |words: &[&str]| parse(&[&["conv2d", "--entry", "forward_v5"], words].concat());
        let shown = |words: &[&str]| {
            let Ok(args) = line(words) else { panic!("{words:?} is refused") };
            let Some(shader) = shaders().find(|shader| shader.name == args.op) else { panic!("no conv2d") };
            let translator = Translator::new(&assemble(&args, shader)?, true)?;
            translate(&translator, language(&args), "forward_v5")
        };
        assert!(shown(&["--matrix", "units16", "--spirv"])?.contains("OpCooperativeMatrixMulAddKHR"));
        assert!(shown(&["--matrix", "units8", "--msl"])?.contains("simdgroup_multiply_accumulate"));
        assert!(!shown(&["--precision", "f16", "--spirv"])?.contains("CooperativeMatrix"));
        assert!(shown(&["--matrix", "units16", "--hlsl"]).is_err() && shown(&["--wgsl"]).is_err());
        assert!(line(&["--matrix", "units4"]).is_err());
        let Ok(Err(error)) = line(&[]).map(|args| run(&args)) else { panic!("there is no such entry point in f32") };
        assert!(error.to_string().contains("add --precision f16"), "{error}");
        Ok(())
    }

    #[test]
    fn wrong_words_are_refused() -> Result<()> {
        assert!(parse(&["conv3d"]).is_err() && parse(&["relu", "--msl", "--hlsl"]).is_err());
        assert!(parse(&["relu", "--set", "TILE_M"]).is_err());
        let Ok(args) = parse(&["relu", "--entry", "sideways"]) else { panic!("refused too early") };
        let Err(error) = run(&args) else { panic!("there is no such entry point") };
        assert!(error.to_string().contains("there are forward_v1, forward_v2"), "{error}");
        let Ok(args) = parse(&["conv2d", "--entry", "forward_v7", "--set", "TILE_M=4"]) else {
            panic!("refused too early")
        };
        let Err(error) = run(&args) else { panic!("it is in another file") };
        assert!(error.to_string().contains("show kernel winograd_fused --entry forward_v7"), "{error}");
        Ok(())
    }

    #[test]
    fn a_constant_is_replaced() -> Result<()> {
        let (Ok(args), Some(linear)) =
            (parse(&["linear", "--set", "TILE_M=4"]), shaders().find(|shader| shader.name == "linear"))
        else {
            panic!("refused")
        };
        assert!(assemble(&args, linear)?.text.contains("const TILE_M: u32 = 4u;"));
        Ok(())
    }
}
