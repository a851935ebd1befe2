//! What a network is made of: parameters, multiply-adds and activations by stage.
//!
//! Nothing here knows a network. A forward pass over the smallest image is recorded on a tape; every operation on it
//! says what it computed. From there everything grows with the area of the image, because all sides divide.

use serde::Serialize;

use super::{ModelConfig, Network, build};
use crate::nn::Mode;
use crate::{Device, Error, Result, Tape};

/// A stage of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageSummary {
    /// As `forward_stages` calls it; `logits` for what comes last.
    pub name: String,
    /// Height, width and channels of its output.
    pub shape: [usize; 3],
    /// Parameters used in it.
    pub parameters: usize,
    /// Multiply-adds of convolutions and linear layers, for one image.
    pub macs: u64,
    /// Bytes of the outputs of all its operations, for one image.
    pub activation_bytes: u64,
}

/// A network at one size of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its name.
    pub model: &'static str,
    /// Rows and columns of an image.
    pub size: usize,
    /// Parameters.
    pub parameters: usize,
    /// Multiply-adds for one image.
    pub macs: u64,
    /// Bytes of the outputs of all operations, for one image.
    pub activation_bytes: u64,
    /// In the order in which they are computed.
    pub stages: Vec<StageSummary>,
}

impl Summary {
    /// Describes a network for square images.
    ///
    /// # Errors
    /// [`Error::Config`] for a size that it does not take, or settings that make no network.
    pub fn new(config: &ModelConfig, size: usize) -> Result<Self> {
        let smallest = config.multiple();
        if size == 0 || !size.is_multiple_of(smallest) {
            let message = format!("{} needs a size that divides by {smallest}, got {size}", config.model);
            return Err(Error::Config(message));
        }
        let net = build(&Device::cpu(), config, 0)?;
        let mut stages = record(net.as_ref(), smallest)?;
        let times = size / smallest;
        for stage in &mut stages {
            stage.shape[0] *= times;
            stage.shape[1] *= times;
            stage.macs *= (times * times) as u64;
            stage.activation_bytes *= (times * times) as u64;
        }
        Ok(Self {
            model: config.model.name(),
            size,
            parameters: net.parameters().count(),
            macs: stages.iter().map(|stage| stage.macs).sum(),
            activation_bytes: stages.iter().map(|stage| stage.activation_bytes).sum(),
            stages,
        })
    }
}

/// The stages of one image of `size` rows and columns.
fn record(net: &dyn Network, size: usize) -> Result<Vec<StageSummary>> {
    let tape = Tape::new();
    let image = Device::cpu().zeros("summary", [1, size, size, net.config().in_channels])?;
    // (name, shape, operations so far) at the end of each stage.
    let mut ends = Vec::new();
    let logits = net.forward_stages(&tape.watch_input(&image), Mode::Eval, &mut |name, output| {
        ends.push((name.to_owned(), output.shape().nhwc("summary")?, tape.len()));
        Ok(())
    })?;
    ends.push(("logits".to_owned(), logits.shape().nhwc("summary")?, tape.len()));
    let operations = tape.operations();
    let mut first = 0;
    let stage = |(name, [_, height, width, channels], end): (String, [usize; 4], usize)| {
        let part = &operations[first..end];
        first = end;
        StageSummary {
            name,
            shape: [height, width, channels],
            parameters: part.iter().map(|operation| operation.parameters).sum(),
            macs: part.iter().map(|operation| operation.macs).sum(),
            activation_bytes: part.iter().map(|operation| operation.output.len() as u64 * 4).sum(),
        }
    };
    Ok(ends.into_iter().map(stage).collect())
}
