//! What `backward` returns.

use rustc_hash::FxHashMap;

use super::Slot;
use crate::tensor::Tensor;

/// Gradients of parameters (by their stable number) and of watched inputs.
#[derive(Debug, Default)]
pub struct Gradients {
    pub(super) leaves: FxHashMap<usize, Tensor>,
    pub(super) values: FxHashMap<usize, Tensor>,
}

impl Gradients {
    /// The gradient of a parameter, or of a tensor watched with `watch_input`.
    pub fn of(&self, tensor: &Tensor) -> Option<&Tensor> {
        match (&tensor.leaf, &tensor.slot) {
            (Some(leaf), _) => self.leaves.get(&leaf.id),
            (None, Some(Slot { index, .. })) => self.values.get(index),
            (None, None) => None,
        }
    }

    /// Whether a parameter got a gradient.
    pub fn has_leaf(&self, id: usize) -> bool {
        self.leaves.contains_key(&id)
    }
}
