//! shadegrad: a hand-written GPU compute engine that trains and runs segmentation networks on any vendor's GPU.
//!
//! # The tour
//!
//! The [`course`] explains all of it in eleven short chapters, each with a program that runs as a test:
//!
//! | chapter | what | where |
//! | --- | --- | --- |
//! | [1](course::ch01_tensor) | a [`Tensor`] is a handle to numbers on a [`Device`] | [`tensor`] |
//! | [2](course::ch02_op) | an op is written twice: kernels, and plain Rust that judges them | [`ops`], [`cpu`] |
//! | [3](course::ch03_kernel) | a kernel in WGSL: bindings, workgroups, tiles | [`gpu`], `shaders/` |
//! | [4](course::ch04_tape) | the [`Tape`] plays gradients backwards | [`autograd`] |
//! | [5](course::ch05_layers) | layers hold parameters and call ops | [`nn`] |
//! | [6](course::ch06_network) | a network is a struct of layers: UNeXt | [`models`] |
//! | [7](course::ch07_loss) | the loss, one number: cross-entropy and Dice | [`ops::bce_dice`](mod@ops::bce_dice) |
//! | [8](course::ch08_optimizer) | the optimizer changes all weights in one launch | [`ops::adam`](mod@ops::adam), [`ops::sgd`](mod@ops::sgd) |
//! | [9](course::ch09_training) | slices in, weights out | [`data`], [`train`] |
//! | [10](course::ch10_gpu) | what a step launches, and what lives when | [`gpu::plan`], [`debug`] |
//! | [11](course::ch11_first_kernel) | a new op from nothing, in five files | [`ops`] |
//!
//! Beside the path: [`eval`] says how good weights are, [`report`] shows it. Each op's page has its formulas, a picture,
//! and its five files: begin with [`relu`](mod@ops::relu), [`max_pool2d`](mod@ops::max_pool2d),
//! [`conv2d`](mod@ops::conv2d). [`gpu`] is the only place that talks to wgpu.
//!
//! # A training step
//!
//! ```
//! use shadegrad::models::{self, ModelConfig};
//! use shadegrad::ops::{BceDice, Mode, bce_dice};
//! use shadegrad::{Device, Tape};
//!
//! # fn main() -> shadegrad::Result<()> {
//! let device = Device::cpu();
//! let net = models::build(&device, &ModelConfig::unext_small(), 0)?;
//! let images = device.zeros("images", [2, 32, 32, 3])?;
//! let masks = device.zeros("masks", [2, 32, 32, 1])?;
//! let tape = Tape::new();
//! let logits = net.forward(&tape.watch(&images), Mode::Train)?;
//! let loss = bce_dice(&logits, &masks, &BceDice::batch())?;
//! let gradients = tape.backward(&loss)?;
//! net.parameters().check(&gradients)?;
//! # Ok(())
//! # }
//! ```

mod error;

pub mod autograd;
pub mod course;
pub mod cpu;
pub mod data;
pub mod debug;
pub mod eval;
pub mod gpu;
pub mod models;
pub mod nn;
pub mod ops;
pub mod report;
pub mod tensor;
pub mod train;

pub use autograd::{Gradients, Tape};
pub use error::{Error, Result};
pub use tensor::{DType, Device, Shape, Tensor};
