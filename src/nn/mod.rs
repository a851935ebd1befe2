//! Layers: parameters and a call into the ops. One `visit` per module serves the optimizer, saving, loading,
//! counting and the summary.

mod layers;
mod parameters;
mod visit;

pub use crate::ops::Mode;
pub use layers::{BatchNorm2d, Conv2d, DepthwiseConv2d, LayerNorm, Linear, UpConv2d};
pub use parameters::Parameters;
pub use visit::{Layout, Module, Parameter, Values, Visitor, fill, names};
