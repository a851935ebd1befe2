//! The networks. A model file opens with a diagram and its `forward` reads like the paper.
//!
//! [`build`] makes any of them from a [`ModelConfig`]; training, evaluation and prediction know only [`Network`].

mod config;
mod memory;
pub mod onnx;
mod onnx_messages;
pub mod resunet;
mod summary;
pub mod unet;
pub mod unext;
pub mod weights;

use std::fmt::Debug;

use crate::nn::{Mode, Module, Parameters, Visitor};
use crate::tensor::random::Stream;
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

pub use config::{Down, Model, ModelConfig, Preset, Up};
pub use memory::{KernelTraffic, LiveBuffer, MemoryPlan, MemoryPoint, PlannedStep};
pub use resunet::Resunet;
pub use summary::{StageSummary, Summary};
pub use unet::Unet;
pub use unext::Unext;

/// Is shown the output of each stage of a forward pass, by name.
pub type Stage<'a> = dyn FnMut(&str, &Tensor) -> Result<()> + 'a;

/// A segmentation network: images `[N, H, W, in_channels]` -> logits `[N, H, W, num_classes]`.
pub trait Network: Module + Debug + Send {
    /// What it was built from.
    fn config(&self) -> &ModelConfig;

    /// The tensors behind its parameters.
    fn parameters(&self) -> &Parameters;

    /// The text of its file, which opens with its diagram.
    fn source(&self) -> &'static str;

    /// The diagram at the top of its file.
    fn diagram(&self) -> String {
        let lines = self.source().lines().skip_while(|line| !line.starts_with("//! ```text")).skip(1);
        let lines = lines.take_while(|line| !line.starts_with("//! ```"));
        lines.map(|line| format!("{}\n", line.strip_prefix("//! ").unwrap_or_default())).collect()
    }

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
        Model::Unet => Box::new(Unet::new(device, config, seed)?),
        Model::Resunet => Box::new(Resunet::new(device, config, seed)?),
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

/// PyTorch's default start. Convolutions: weight and bias from U(-1, 1) / sqrt(fan_in), where fan_in of a weight
/// `[a, b, kh, kw]` is b * kh * kw (in a transposed convolution b is the *output* channels). Norms: 1 and 0.
struct DefaultStart {
    seed: u64,
    /// Of the weight visited last, whose bias comes next; `None` for a norm.
    bound: Option<f32>,
}

impl DefaultStart {
    fn new(seed: u64) -> Self {
        Self { seed, bound: None }
    }

    /// `None` for what keeps its start: running statistics.
    fn of(&mut self, name: &str, shape: &[usize]) -> Option<Vec<f32>> {
        let count: usize = shape.iter().product();
        let leaf = name.rsplit('.').next();
        if leaf == Some("weight") {
            let fan_in: usize = shape[1..].iter().product();
            self.bound = (shape.len() > 1).then_some((1.0 / (fan_in as f64).sqrt()) as f32);
        }
        match (leaf, self.bound) {
            (Some("weight" | "bias"), Some(bound)) => {
                let stream = Stream::seeded(self.seed, name);
                Some((0..count as u64).map(|i| stream.unit(i) * bound).collect())
            }
            (Some("weight"), None) => Some(vec![1.0; count]),
            (Some("bias"), None) => Some(vec![0.0; count]),
            _ => None,
        }
    }
}
