//! `shadegrad show`: what a network, a kernel or a step is made of. Nothing here needs a GPU.

mod kernel;
mod memory;
mod model;
mod plan;
mod tape;

use std::io::{ErrorKind, Write as _};

use shadegrad::models::{Model, ModelConfig};
use shadegrad::{Error, Result};

use super::network::NetworkFlags;

/// Show what something is made of.
///
/// Examples:
///   shadegrad show model unet --size 256
///   shadegrad show tape unext --train
///   shadegrad show kernel conv2d --entry forward_v2 --spirv
///   shadegrad show plan conv2d --shape 2x128x128x64 --out 64
///   shadegrad show memory unet --batch 8 --size 256
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ShowArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Model(model::ModelArgs),
    Tape(tape::TapeArgs),
    Kernel(kernel::KernelArgs),
    Plan(plan::PlanArgs),
    Memory(memory::MemoryArgs),
}

pub(crate) fn run(args: &ShowArgs) -> Result<()> {
    match &args.what {
        What::Model(args) => model::run(args),
        What::Tape(args) => tape::run(args),
        What::Kernel(args) => kernel::run(args),
        What::Plan(args) => plan::run(args),
        What::Memory(args) => memory::run(args),
    }
}

/// The network that is shown.
#[derive(Debug, clap::Args)]
struct Shown {
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
}

impl Shown {
    fn config(&self) -> Result<ModelConfig> {
        let (in_channels, num_classes) = (self.in_channels, self.num_classes);
        let mut config = ModelConfig { in_channels, num_classes, ..ModelConfig::new(self.model) };
        self.network.apply(&mut config)?;
        Ok(config)
    }
}

/// Prints a value as one JSON object.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| Error::Config(error.to_string()))?;
    print_text(&(text + "\n"))
}

/// Prints a text that may be long: `| head` may close the pipe before its end.
fn print_text(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::io("write", "standard output")(error)),
        _ => Ok(()),
    }
}

/// Bytes in MiB.
fn mebi(bytes: u64) -> f64 {
    bytes as f64 / 1048576.0
}
