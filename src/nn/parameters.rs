//! All parameters of a model as one tensor, and all their gradients as another: an optimizer step is one dispatch.

use std::sync::Arc;

use super::visit::{Module, Parameter, Visitor};
use crate::autograd::{Gradients, Leaf};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

/// Elements that a parameter's place is a multiple of: 256 bytes, where every device can bind.
const ALIGN: usize = 64;

/// The flat tensors behind a model's parameters.
#[derive(Debug)]
pub struct Parameters {
    /// All numbers, in the order of the visit, each parameter at a multiple of 64.
    pub values: Tensor,
    /// Their gradients.
    pub gradients: Tensor,
    names: Vec<String>,
    leaves: Vec<Arc<Leaf>>,
    count: usize,
}

impl Parameters {
    /// Moves a model's parameters into one tensor and makes them leaves of the tape.
    ///
    /// # Errors
    /// As [`Device::zeros`].
    pub fn gather(module: &mut dyn Module, device: &Device) -> Result<Self> {
        let mut sizes = Sizes::default();
        module.visit("", &mut sizes)?;
        let values = device.zeros("parameters", [sizes.end])?;
        let gradients = device.zeros("gradients", [sizes.end])?;
        let mut mover = Mover { sizes: &sizes, values: &values, gradients: &gradients, leaves: Vec::new() };
        module.visit("", &mut mover)?;
        let leaves = mover.leaves;
        Ok(Self { values, gradients, leaves, count: sizes.count, names: sizes.names })
    }

    /// How many numbers are trained.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their names, by stable number.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Checks that every parameter got a gradient: the optimizer reads all places.
    ///
    /// # Errors
    /// [`Error::Tape`] naming the first that did not.
    pub fn check(&self, gradients: &Gradients) -> Result<()> {
        match self.leaves.iter().find(|leaf| !gradients.has_leaf(leaf.id)) {
            Some(leaf) => Err(Error::Tape(format!("{} got no gradient", self.names[leaf.id]))),
            None => Ok(()),
        }
    }
}

/// Where each parameter goes.
#[derive(Default)]
struct Sizes {
    names: Vec<String>,
    starts: Vec<usize>,
    end: usize,
    count: usize,
}

impl Visitor for Sizes {
    fn param(&mut self, name: &str, parameter: &mut Parameter) -> Result<()> {
        self.names.push(name.to_owned());
        self.starts.push(self.end);
        self.count += parameter.tensor.len();
        self.end += parameter.tensor.len().next_multiple_of(ALIGN);
        Ok(())
    }
}

struct Mover<'a> {
    sizes: &'a Sizes,
    values: &'a Tensor,
    gradients: &'a Tensor,
    leaves: Vec<Arc<Leaf>>,
}

impl Visitor for Mover<'_> {
    fn param(&mut self, _name: &str, parameter: &mut Parameter) -> Result<()> {
        let id = self.leaves.len();
        let (start, shape) = (self.sizes.starts[id], parameter.tensor.shape());
        let mut place = self.values.view(start, shape);
        place.copy_from(&parameter.tensor)?;
        let leaf = Arc::new(Leaf { id, grad: self.gradients.view(start, shape) });
        place.leaf = Some(Arc::clone(&leaf));
        parameter.tensor = place;
        self.leaves.push(leaf);
        Ok(())
    }
}
