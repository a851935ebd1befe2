//! Reverse-mode automatic differentiation: a list of what was computed, played backwards.
//!
//! ```
//! use shadegrad::{Device, Tape, ops};
//! # fn main() -> shadegrad::Result<()> {
//! let device = Device::cpu();
//! let x = device.tensor("x", [1, 1, 1, 4], &[-1.0, 0.5, 2.0, -3.0])?;
//! let tape = Tape::new();                    // one per step
//! let x = tape.watch_input(&x);              // recording starts at the input, not in a global mode
//! let y = ops::relu(&x)?;
//! let gy = device.tensor("gy", y.shape(), &[1.0; 4])?;
//! let grads = tape.backward_from(&y, &gy)?;  // consumes the tape, drops saved tensors as it plays
//! assert_eq!(grads.of(&x).expect("watched").to_vec()?, [0.0, 1.0, 1.0, 0.0]);
//! # Ok(())
//! # }
//! ```
//!
//! An op calls `record` with its output, its inputs and a struct that holds exactly what its gradient needs.
//! Values computed only from unwatched tensors leave no trace.

mod gradients;
mod kept;
mod tape;

use std::fmt::Debug;

use crate::Result;
use crate::tensor::{Device, Shape, Tensor};

pub use gradients::Gradients;
pub(crate) use kept::{Kept, Recipe};
pub(crate) use tape::{Input, Node, kept_for, record, record_with};
pub use tape::{Operation, Slot, Source, Tape};

/// A trained parameter: its stable number, and the place where its gradient is written.
#[derive(Debug)]
pub struct Leaf {
    /// Position among the parameters of the model.
    pub id: usize,
    /// A range of the tensor of all gradients.
    pub grad: Tensor,
}

/// The gradient of one recorded operation.
pub trait Backward: Debug + Send {
    /// The op's name, as in its file.
    fn name(&self) -> &'static str;

    /// The gradients of the op's inputs, in the order in which they were recorded; `None` where not wanted.
    ///
    /// # Errors
    /// As the op's launches.
    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>>;

    /// The tensors kept for the gradient. They can be replaced: a check puts copies on the CPU in their place.
    fn saved(&mut self) -> Vec<&mut Tensor>;

    /// From now on decides the other way wherever rounding decides: on which side of a ReLU's corner a number lies that
    /// is all but 0. A check that asks what rounding can do calls it.
    fn decide_otherwise(&mut self) {}

    /// Multiply-adds of the forward pass; 0 for what is no sum of products with weights.
    fn macs(&self) -> u64 {
        0
    }

    /// What the forward op was told beyond its recorded inputs, by name: for exporters.
    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        Vec::new()
    }
}

/// A setting of a recorded op.
#[derive(Debug, Clone, Copy)]
pub enum Setting<'a> {
    /// A count, a switch (0 or 1) or a constant.
    Number(f64),
    /// A tensor that is not differentiated.
    Tensor(&'a Tensor),
}

/// Which input gradients are wanted, and where to put them.
#[derive(Debug)]
pub struct Wanted<'a> {
    device: &'a Device,
    /// Per input: wanted?
    needs: Vec<bool>,
    /// Per input: the place in the tensor of all gradients, for a parameter that has no gradient yet.
    targets: Vec<Option<Tensor>>,
}

impl Wanted<'_> {
    /// Whether the gradient of input `index` is wanted.
    pub fn needs(&self, index: usize) -> bool {
        self.needs.get(index).copied().unwrap_or(false)
    }

    /// A tensor for the gradient of input `index`: the parameter's own place if there is one, else a fresh one.
    ///
    /// # Errors
    /// As [`Device::empty`].
    pub fn empty(&mut self, op: &'static str, index: usize, shape: Shape) -> Result<Tensor> {
        match self.targets.get_mut(index).and_then(Option::take) {
            Some(place) if place.len() == shape.len() => Ok(place.view(0, shape)),
            _ => self.device.empty(op, shape),
        }
    }
}
