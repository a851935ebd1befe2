//! `shadegrad import`: PyTorch's weights into a file of ours.

use std::path::PathBuf;

use shadegrad::models::{self, weights};
use shadegrad::{Device, Result};

use super::weights::{Foreign, open};
use super::{export, train};

/// Turn a PyTorch state dict (.pth, .pt, .safetensors) into a weight file that knows its network.
///
/// The file is read as data: nothing in it is run. Known are the names of UNeXt-pytorch and this project's networks, and
/// the U-Nets of mateuszbuda/brain-segmentation-pytorch and milesial/Pytorch-UNet, whose tensors are renamed.
///
/// Examples:
///   shadegrad import --weights unext.pth --out unext.safetensors
///   shadegrad import --weights checkpoint.pt --normalize per_volume --out mine.safetensors
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ImportArgs {
    /// What torch.save(model.state_dict(), ...) wrote, or a safetensors file with PyTorch's names
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    foreign: Foreign,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ImportArgs) -> Result<()> {
    let opened = open(&args.weights, Some(&args.foreign))?;
    let mut net = models::build(&Device::cpu(), &opened.config.network(), 0)?;
    weights::load_dict(&mut net, &opened.dict)?;
    weights::save(&mut net, &args.out, &train::about(&opened.config)?)?;
    export::written(&args.out, &opened.config, net.parameters().count(), args.json);
    Ok(())
}
