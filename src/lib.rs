//! shadegrad: a hand-written GPU compute engine that trains and runs segmentation networks on any vendor's GPU.

mod error;

pub mod autograd;
pub mod cpu;
pub mod data;
pub mod debug;
pub mod eval;
pub mod gpu;
pub mod ops;
pub mod tensor;

pub use autograd::{Gradients, Tape};
pub use error::{Error, Result};
pub use tensor::{DType, Device, Shape, Tensor};
