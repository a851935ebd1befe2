//! A GPU that only plans: ops check their shapes, choose their kernels and take their buffers as on a real one, but
//! nothing is compiled, launched or stored. What they did is kept as a list of events.
//!
//! So `show plan` and `show memory` need no second description of any op, and no GPU.

use super::shader::Constants;
use super::tuned::Question;
use crate::tensor::{DType, Shape};

/// Something that a planned step does.
#[derive(Debug, Clone, PartialEq)]
pub enum PlanEvent {
    /// A buffer is taken from the pool.
    Allocated {
        /// Its number; used again once it has been freed.
        buffer: u64,
        /// Who asked for it.
        op: &'static str,
        /// Bytes of its size class.
        bytes: u64,
    },
    /// A buffer goes back to the pool.
    Freed {
        /// Its number.
        buffer: u64,
    },
    /// An op has several kernels to choose from.
    Asked {
        /// For what.
        question: Question,
        /// The one that it takes without an answer.
        usual: String,
        /// All that take these sizes, the naive one first.
        candidates: Vec<String>,
    },
    /// A kernel is launched.
    Launched(PlannedLaunch),
    /// An op, or its gradient, is done.
    Finished {
        /// Its name.
        op: &'static str,
        /// Whether it was its gradient.
        backward: bool,
        /// Its result; of a gradient: what it is the gradient of.
        result: Option<Shape>,
    },
}

/// A kernel launch that was not made.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedLaunch {
    /// The shader's name.
    pub shader: &'static str,
    /// The entry point.
    pub entry: &'static str,
    /// Its numbers that are not the file's.
    pub constants: Constants,
    /// Workgroups along each axis.
    pub groups: [u32; 3],
    /// Shapes of the bound tensors, in the order of the bindings.
    pub bindings: Vec<Shape>,
    /// What their numbers are.
    pub types: Vec<DType>,
    /// Bytes of all bound tensors.
    pub bytes: u64,
}
