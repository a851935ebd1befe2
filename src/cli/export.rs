//! `shadegrad export`: trained weights for other programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use shadegrad::models::{self, onnx, weights};
use shadegrad::train::TrainConfig;
use shadegrad::{Device, Error, Result};

use super::train;
use super::weights::{Foreign, open};

/// Write trained weights as an ONNX graph or as safetensors.
///
/// The ONNX graph (opset 17) takes `image` [N, C, H, W] and gives `logits` [N, classes, H, W], for any N, H and W that the
/// network takes. Normalising the image stays outside: how is in the file's metadata. torch reads the safetensors
/// (safetensors.torch.load_file): names and layouts are PyTorch's.
///
/// Examples:
///   shadegrad export --weights runs/unext/best.safetensors --out unext.onnx
///   shadegrad export --weights unext.pth --out unext.onnx
///   shadegrad export --weights unext.pth --out unext.safetensors
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ExportArgs {
    /// A weight file: .safetensors of a run, or PyTorch's .pth
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// The file to write; its ending, .onnx or .safetensors, says what
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    foreign: Foreign,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    let ending = args.out.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
    if !["onnx", "safetensors"].contains(&ending.as_str()) {
        let message = format!("--out {}: the ending must be .onnx or .safetensors", args.out.display());
        return Err(Error::Config(message));
    }
    let opened = open(&args.weights, Some(&args.foreign))?;
    let mut net = models::build(&Device::cpu(), &opened.config.network(), 0)?;
    weights::load_dict(&mut net, &opened.dict)?;
    if ending == "onnx" {
        onnx::save(net.as_mut(), &args.out, &about(&opened.config)?)?;
    } else {
        weights::save(&mut net, &args.out, &train::about(&opened.config)?)?;
    }
    written(&args.out, &opened.config, net.parameters().count(), args.json);
    Ok(())
}

/// Says what was written.
pub(crate) fn written(out: &Path, config: &TrainConfig, parameters: usize, json: bool) {
    let model = &config.model;
    if json {
        println!("{}", serde_json::json!({ "model": model, "parameters": parameters, "out": out }));
    } else {
        println!("{}: {model} with {parameters} parameters", out.display());
    }
}

/// What a user of the graph has to know, as `metadata_props`.
fn about(config: &TrainConfig) -> Result<BTreeMap<String, String>> {
    let names = ["pre-contrast", "FLAIR", "post-contrast"];
    let order = config.normalize.channel_order().map(|channel| names[channel]).join(", ");
    let how = match config.normalize.name() {
        "per_volume" => {
            "for each channel of a patient's volume: clip to its percentiles 10 and 99, then mean 0 and variance 1"
        }
        "foreground" => {
            "for each channel of a patient's volume: mean 0 and variance 1 of the bytes brighter than the channel's mean"
        }
        "imagenet" => "(byte / 255 - mean) / std, mean 0.485 0.456 0.406, std 0.229 0.224 0.225",
        _ => "((byte / 255 - mean) / std) / 255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225",
    };
    let mut about = BTreeMap::from([
        ("model".to_owned(), config.model.to_string()),
        ("normalize".to_owned(), config.normalize.name().to_owned()),
        ("normalize_formula".to_owned(), how.to_owned()),
        ("channels".to_owned(), order),
        ("sides_divide_by".to_owned(), config.network().multiple().to_string()),
        ("layout".to_owned(), "NCHW, float32".to_owned()),
        ("probability".to_owned(), "sigmoid(logits)".to_owned()),
    ]);
    about.extend(train::about(config)?);
    Ok(about)
}
