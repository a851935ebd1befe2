//! shadegrad: a hand-written GPU compute engine that trains and runs segmentation networks on any vendor's GPU.
//!
//! Reading order: a [`Tensor`] is a handle to numbers on a [`Device`]; an op ([`ops`]) is a
//! kernel, its plain-Rust twin ([`cpu`]) and its gradient; the [`Tape`] plays gradients backwards ([`autograd`]);
//! layers ([`nn`]) hold parameters and call ops; a network ([`models`]) is a struct of layers; [`train`] puts slices
//! ([`data`]) in and weights out; [`eval`] says how good they are and [`report`] shows it. [`gpu`] is the only place that talks to wgpu.
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
