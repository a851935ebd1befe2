//! `shadegrad show model`: what a network is made of.

use shadegrad::models::{ModelConfig, Summary, build};
use shadegrad::{Device, Result};

use super::{Shown, print_json};

/// A network: its diagram, and shapes, parameters, multiply-adds and activation bytes of each stage
///
/// Examples:
///   shadegrad show model unet --size 256
///   shadegrad show model resunet --preset seed --base 16 --size 512 --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ModelArgs {
    #[command(flatten)]
    shown: Shown,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ModelArgs) -> Result<()> {
    let config = args.shown.config()?;
    let summary = Summary::new(&config, args.shown.size)?;
    if args.json {
        return print_json(&summary);
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
