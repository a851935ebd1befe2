//! The networks. A model file opens with a diagram and its `forward` reads like the paper.
//!
//! [`build`] makes any of them from a [`ModelConfig`]; training, evaluation and prediction know only [`Network`].

mod config;
pub mod unext;
pub mod weights;

use std::fmt::Debug;

use crate::nn::{Mode, Module, Parameters, Visitor};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

pub use config::{Model, ModelConfig};
pub use unext::Unext;

/// Is shown the output of each stage of a forward pass, by name.
pub type Stage<'a> = dyn FnMut(&str, &Tensor) -> Result<()> + 'a;

/// A segmentation network: images `[N, H, W, in_channels]` -> logits `[N, H, W, num_classes]`.
pub trait Network: Module + Debug + Send {
    /// What it was built from.
    fn config(&self) -> &ModelConfig;

    /// The tensors behind its parameters.
    fn parameters(&self) -> &Parameters;

    /// As [`forward`](Self::forward), and shows each stage as it is computed.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and what `stage` returns.
    fn forward_stages(&self, x: &Tensor, mode: Mode, stage: &mut Stage<'_>) -> Result<Tensor>;

    /// Images -> logits. H and W must divide by [`ModelConfig::multiple`].
    ///
    /// # Errors
    /// [`Error::Shape`] for other sizes or channels; else as the ops.
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.forward_stages(x, mode, &mut |_, _| Ok(()))
    }
}

impl Module for Box<dyn Network> {
    fn visit(&mut self, path: &str, visitor: &mut dyn Visitor) -> Result<()> {
        (**self).visit(path, visitor)
    }
}

/// A network on a device, initialised as its published code does, from a seed.
///
/// # Errors
/// [`Error::Config`] for a width of 0; else as [`Device::empty`].
pub fn build(device: &Device, config: &ModelConfig, seed: u64) -> Result<Box<dyn Network>> {
    Ok(match config.model {
        Model::Unext => Box::new(Unext::new(device, config, seed)?),
    })
}

/// Refuses images that a network does not take.
fn check_images(config: &ModelConfig, x: &Tensor) -> Result<()> {
    let (name, multiple) = (config.model.name(), config.multiple());
    let [_, h, w, c] = x.shape().nhwc(name)?;
    if h % multiple == 0 && w % multiple == 0 && c == config.in_channels {
        return Ok(());
    }
    let message =
        format!("needs [N, H, W, {}] with H and W that divide by {multiple}, got {}", config.in_channels, x.shape());
    Err(Error::shape(name, message))
}
