//! The networks. A model file opens with a diagram and its `forward` reads like the paper.

pub mod unext;
pub mod weights;

pub use unext::{Unext, UnextConfig};
