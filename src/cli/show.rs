//! `shadegrad show`: what a network is made of.

use shadegrad::models::{Model, ModelConfig, Summary, build};
use shadegrad::{Device, Error, Result};

use super::network::NetworkFlags;

/// Show what something is made of.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Model(ModelArgs),
}

/// A network: its diagram, and shapes, parameters, multiply-adds and activation bytes of each stage
///
/// Examples:
///   shadegrad show model unet --size 256
///   shadegrad show model resunet --preset seed --base 16 --size 512 --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct ModelArgs {
    /// unext, unet or resunet
    model: Model,
    /// Rows and columns of an image
    #[arg(long, default_value_t = 256, value_name = "N")]
    size: usize,
    #[command(flatten)]
    network: NetworkFlags,
    /// Channels of the image
    #[arg(long, default_value_t = 3, value_name = "N")]
    in_channels: usize,
    /// Classes, each with a logit of its own
    #[arg(long, default_value_t = 1, value_name = "N")]
    num_classes: usize,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ShowArgs) -> Result<()> {
    let What::Model(args) = &args.what;
    let (in_channels, num_classes) = (args.in_channels, args.num_classes);
    let mut config = ModelConfig { in_channels, num_classes, ..ModelConfig::new(args.model) };
    args.network.apply(&mut config)?;
    let summary = Summary::new(&config, args.size)?;
    if args.json {
        println!("{}", serde_json::to_string(&summary).map_err(|error| Error::Config(error.to_string()))?);
        return Ok(());
    }
    let smallest = ModelConfig { base: 1, widths: [1; 5], ..config.clone() };
    println!("{}", build(&Device::cpu(), &smallest, 0)?.diagram());
    let published = ModelConfig::new(config.model);
    if (config.base, config.widths, config.in_channels) != (published.base, published.widths, published.in_channels) {
        println!("(channels in the diagram are the published ones, those in the table yours)\n");
    }
    print!("{}", table(&summary));
    Ok(())
}

/// The stages as text.
fn table(summary: &Summary) -> String {
    let line = |name: &str, shape: &str, parameters: usize, macs: u64, bytes: u64| {
        let (giga, mebi) = (macs as f64 * 1e-9, bytes as f64 / 1048576.0);
        format!("{name:<11} {shape:<18} {parameters:>12} {giga:>9.4} {mebi:>12.2}\n")
    };
    let mut text =
        format!("{:<11} {:<18} {:>12} {:>9} {:>12}\n", "stage", "output", "parameters", "GMACs", "MiB an image");
    for stage in &summary.stages {
        let [h, w, c] = stage.shape;
        let shape = format!("{h} x {w} x {c}");
        text += &line(&stage.name, &shape, stage.parameters, stage.macs, stage.activation_bytes);
    }
    text + &line("all", "", summary.parameters, summary.macs, summary.activation_bytes)
}
