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

use std::cell::RefCell;
use std::fmt::Debug;

use crate::ops::sum_chunks::{self, ChunkSums};
use crate::ops::transpose_weights::TurnedWeights;
use crate::tensor::{DType, Device, Shape, Tensor};
use crate::{Error, Result};

pub use gradients::Gradients;
pub(crate) use kept::{Kept, OnReading, Recipe};
use tape::needed;
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

    /// The weight that the gradient of x will ask for with [`Wanted::turned`], if it does.
    fn turns(&self) -> Option<&Tensor> {
        None
    }

    /// Whether it asks for the place of a gradient with [`Wanted::place_to_add`], and so adds up the gradients of an input
    /// that is used twice.
    fn accumulates(&self) -> bool {
        false
    }

    /// Whether it makes the gradient of its result itself where it reads it, if that is a batch norm's; `_for_x`: whether the
    /// gradient of its first input is wanted.
    fn makes_gradient(&self, _for_x: bool) -> bool {
        false
    }

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
    inputs: &'a [Input],
    /// Per slot of the tape: wanted?
    wants: &'a [bool],
    /// Per slot: what its numbers are, and so those of its gradient.
    types: &'a [DType],
    /// The gradients so far, where those of parameters are written into their places.
    gradients: Option<&'a Gradients>,
    /// The places that have been handed out.
    placed: Vec<&'a Tensor>,
    /// Per input: the gradient of another use of it.
    begun: Vec<Option<Tensor>>,
    /// Whether the gradient of the first input is read next, by an op that can make it where it reads it.
    on_reading: bool,
    /// What this pass shares; `None` where each op must be done before the next one begins.
    pass: Option<&'a RefCell<Pass>>,
}

/// What the gradients of one backward pass share.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    pub(crate) sums: ChunkSums,
    pub(crate) turned: TurnedWeights,
}

impl<'a> Wanted<'a> {
    /// For a gradient that is computed outside of any backward pass: it shares nothing, and nothing waits.
    pub(crate) fn alone(device: &'a Device) -> Self {
        let (placed, begun, on_reading) = (Vec::new(), Vec::new(), false);
        Self { device, inputs: &[], wants: &[], types: &[], gradients: None, placed, begun, on_reading, pass: None }
    }

    /// Whether the gradient of input `index` is wanted.
    pub fn needs(&self, index: usize) -> bool {
        self.inputs.get(index).is_some_and(|input| needed(input, self.wants))
    }

    /// What the gradient of input `index` is made of.
    fn dtype(&self, index: usize) -> DType {
        match (self.device, self.inputs.get(index)) {
            (Device::Gpu(_), Some(Input::Value(slot))) => self.types[*slot],
            // Parameters are f32, and so is all that the CPU computes.
            _ => DType::F32,
        }
    }

    /// The place in the tensor of all gradients, of a parameter that has no gradient yet.
    fn place(&self, index: usize) -> Option<&'a Tensor> {
        let Input::Leaf(leaf) = self.inputs.get(index)? else { return None };
        let is_taken =
            self.gradients?.has_leaf(leaf.id) || self.placed.iter().any(|place| place.same_place(&leaf.grad));
        (!is_taken).then_some(&leaf.grad)
    }

    /// Whether the gradient of the first input may be left to the op that reads it.
    pub(crate) fn on_reading(&self) -> bool {
        self.on_reading
    }

    /// A tensor for the gradient of input `index`: the parameter's own place if there is one, else a fresh one.
    ///
    /// # Errors
    /// As [`Device::empty`].
    pub fn empty(&mut self, op: &'static str, index: usize, shape: Shape) -> Result<Tensor> {
        match self.place(index) {
            Some(place) if place.len() == shape.len() => {
                self.placed.push(place);
                Ok(place.view(0, shape))
            }
            _ => self.device.empty_as(op, shape, self.dtype(index)),
        }
    }

    /// As [`empty`](Self::empty), and whether the tensor holds the gradient of another use of the input, to which the op
    /// must then add its own.
    ///
    /// # Errors
    /// As [`Device::empty`].
    pub fn place_to_add(&mut self, op: &'static str, index: usize, shape: Shape) -> Result<(Tensor, bool)> {
        match self.begun.get_mut(index).and_then(Option::take) {
            Some(begun) if begun.len() == shape.len() => Ok((begun.view(0, shape), true)),
            Some(begun) => Err(Error::shape(op, format!("a gradient {} cannot be added to {shape}", begun.shape()))),
            None => Ok((self.empty(op, index, shape)?, false)),
        }
    }

    /// A table `[chunks, width]` for partial sums, which [`sum_chunks`](Self::sum_chunks) then adds up into gradients. A
    /// single chunk may be the gradients themselves.
    ///
    /// # Errors
    /// As [`Device::empty`] and [`sum_chunks`](sum_chunks::sum_chunks).
    pub fn chunk_table(&self, op: &'static str, shape: [usize; 2], gradients: &[&Tensor]) -> Result<Tensor> {
        let [chunks, width] = shape;
        match (sum_chunks::as_table(width, gradients), self.pass) {
            (Some(table), _) if chunks == 1 => Ok(table),
            (_, Some(pass)) if self.can_wait(gradients) => pass.borrow_mut().sums.table(self.device, shape),
            _ => self.device.empty(op, shape),
        }
    }

    /// Whether only the optimizer reads the gradients.
    fn can_wait(&self, gradients: &[&Tensor]) -> bool {
        gradients.iter().all(|gradient| self.placed.iter().any(|place| place.same_place(gradient)))
    }

    /// Adds up a [table](Self::chunk_table) of partial sums into gradients, as [`sum_chunks`](sum_chunks::sum_chunks).
    /// Gradients that only the optimizer reads are summed later, together with those of other ops.
    ///
    /// # Errors
    /// As [`sum_chunks`](sum_chunks::sum_chunks).
    pub fn sum_chunks(&self, table: &Tensor, gradients: &[&Tensor]) -> Result<()> {
        let (_, width) = table.shape().rows("sum_chunks")?;
        if sum_chunks::as_table(width, gradients).is_some_and(|place| place.same_place(table)) {
            return Ok(()); // the first stage wrote the gradients themselves
        }
        match self.pass {
            Some(pass) if self.can_wait(gradients) => pass.borrow_mut().sums.add(table, gradients),
            _ => sum_chunks::sum_chunks(table, gradients),
        }
    }

    /// A weight with inputs and outputs exchanged and its kernel turned round, as
    /// [`transpose_weights`](fn@crate::ops::transpose_weights).
    ///
    /// # Errors
    /// As [`transpose_weights`](fn@crate::ops::transpose_weights).
    pub fn turned(&self, weight: &Tensor) -> Result<Tensor> {
        match self.pass {
            Some(pass) => pass.borrow_mut().turned.take(weight),
            None => TurnedWeights::default().take(weight),
        }
    }
}
