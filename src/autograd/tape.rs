//! The tape: a flat list of nodes in the order of execution. No sorting, no recursion, no global state.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{Backward, Gradients, Leaf, Pass, Recipe, Setting, Wanted};
use crate::ops::transpose_weights::TurnedWeights;
use crate::tensor::{DType, Device, Shape, Tensor};
use crate::{Error, Result, debug, ops};

/// Where a tensor stands on a tape.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Weak: a tensor that outlives its tape keeps nothing of it.
    tape: Weak<Mutex<Inner>>,
    pub(crate) index: usize,
}

/// An input of a node.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// Not differentiated.
    Constant,
    /// A slot: a watched tensor or a node's output.
    Value(usize),
    /// A parameter.
    Leaf(Arc<Leaf>),
}

/// A recorded operation.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) op: Box<dyn Backward>,
    pub(crate) inputs: Vec<Input>,
    /// The slot of its output.
    pub(crate) output: usize,
    shape: Shape,
}

impl Node {
    /// Channels of its output.
    pub(crate) fn channels(&self) -> usize {
        self.shape.last()
    }
}

#[derive(Debug, Default)]
struct Inner {
    nodes: Vec<Node>,
    /// Per slot: is its gradient wanted?
    wants: Vec<bool>,
    /// Per slot: what its numbers are, and so those of its gradient.
    types: Vec<DType>,
    /// Slots whose gradient is returned.
    watched: Vec<usize>,
    /// Whether cheap results are computed again instead of kept.
    recomputing: bool,
}

/// What one recorded operation did.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Its name.
    pub op: &'static str,
    /// Shape of its result.
    pub output: Shape,
    /// Multiply-adds of its forward pass, for what is a sum of products with weights.
    pub macs: u64,
    /// Numbers of the parameters that it takes.
    pub parameters: usize,
    /// Bytes kept for its gradient.
    pub saved_bytes: u64,
    /// Shapes of the tensors kept for its gradient.
    pub kept: Vec<Shape>,
    /// Where its inputs come from, in their order.
    pub inputs: Vec<Source>,
    /// The number of its result, for the inputs of later operations.
    pub value: usize,
    /// What it was told beyond its inputs, as far as that is numbers: stride, padding...
    pub settings: Vec<(&'static str, f64)>,
}

/// Where an input of an operation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It is not differentiated, or absent.
    Constant,
    /// A watched tensor, or the result of an operation, by its number.
    Value(usize),
    /// A parameter, by its stable number.
    Parameter(usize),
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    // Nodes are pushed whole: a panic elsewhere leaves a shorter list, not a broken one.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A list of what was computed from watched tensors. One per step; playing it consumes it.
#[derive(Debug, Default)]
pub struct Tape {
    inner: Arc<Mutex<Inner>>,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty tape that needs less memory and more time: what batch norm, its ReLU and concatenation give to a
    /// convolution is not kept for the gradient but computed again, from what is kept anyway. The numbers are the same to
    /// the bit. (T. Chen et al., "Training deep nets with sublinear memory cost", arXiv 1604.06174.)
    pub fn recomputing() -> Self {
        let tape = Self::default();
        lock(&tape.inner).recomputing = true;
        tape
    }

    /// Everything computed from the returned tensor is recorded. Its own gradient is not wanted: images.
    pub fn watch(&self, tensor: &Tensor) -> Tensor {
        self.start(tensor, false)
    }

    /// As [`watch`](Self::watch), and its gradient is wanted.
    pub fn watch_input(&self, tensor: &Tensor) -> Tensor {
        self.start(tensor, true)
    }

    fn start(&self, tensor: &Tensor, wanted: bool) -> Tensor {
        let mut inner = lock(&self.inner);
        let index = inner.wants.len();
        inner.wants.push(wanted);
        inner.types.push(tensor.dtype());
        if wanted {
            inner.watched.push(index);
        }
        let slot = Slot { tape: Arc::downgrade(&self.inner), index };
        let mut watched = tensor.detach();
        watched.slot = Some(slot);
        watched
    }

    /// How many operations are recorded.
    pub fn len(&self) -> usize {
        lock(&self.inner).nodes.len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was recorded, in order.
    pub fn operations(&self) -> Vec<Operation> {
        let of = |node: &mut Node| Operation {
            op: node.op.name(),
            output: node.shape,
            macs: node.op.macs(),
            parameters: node.inputs.iter().map(parameters).sum(),
            saved_bytes: saved_bytes(node.op.as_mut()),
            kept: node.op.saved().into_iter().map(|tensor| tensor.shape()).collect(),
            inputs: node.inputs.iter().map(source).collect(),
            value: node.output,
            settings: node.op.settings().into_iter().filter_map(number).collect(),
        };
        lock(&self.inner).nodes.iter_mut().map(of).collect()
    }

    /// Bytes kept for the gradients. A tensor kept by several operations counts for each.
    pub fn saved_bytes(&self) -> u64 {
        lock(&self.inner).nodes.iter_mut().map(|node| saved_bytes(node.op.as_mut())).sum()
    }

    /// As [`saved_bytes`](Self::saved_bytes), but a tensor kept by several operations counts once.
    pub fn distinct_saved_bytes(&self) -> u64 {
        let mut inner = lock(&self.inner);
        let mut all: Vec<Tensor> = Vec::new();
        for node in &mut inner.nodes {
            for kept in node.op.saved() {
                if !all.iter().any(|known| known.same_place(kept)) {
                    all.push(kept.detach());
                }
            }
        }
        all.iter().map(Tensor::bytes).sum()
    }

    /// What was recorded, in the order of execution: for exporters.
    pub(crate) fn into_nodes(self) -> Vec<Node> {
        std::mem::take(&mut *lock(&self.inner)).nodes
    }

    /// The gradients of a scalar with respect to every parameter and watched input that it depends on.
    ///
    /// # Errors
    /// [`Error::Tape`] if `loss` is no scalar or was not recorded here; else as the ops' launches.
    pub fn backward(self, loss: &Tensor) -> Result<Gradients> {
        if loss.len() != 1 {
            return Err(Error::Tape(format!("the loss must be one number, got {}", loss.shape())));
        }
        let one = loss.device().one()?;
        self.backward_from(loss, &one.view(0, loss.shape()))
    }

    /// As [`backward`](Self::backward), from any tensor and its gradient.
    ///
    /// # Errors
    /// As [`backward`](Self::backward).
    pub fn backward_from(self, output: &Tensor, gradient: &Tensor) -> Result<Gradients> {
        let at = match &output.slot {
            Some(slot) if slot.tape.ptr_eq(&Arc::downgrade(&self.inner)) => slot.index,
            Some(_) => return Err(Error::Tape("the output belongs to another tape".into())),
            None => return Err(Error::Tape("the output was not computed from a watched tensor".into())),
        };
        if (gradient.shape(), gradient.dtype()) != (output.shape(), output.dtype()) {
            let message = format!("the gradient {gradient} does not fit the output {output}");
            return Err(Error::Tape(message));
        }
        let Inner { mut nodes, wants, types, watched, recomputing: _ } = std::mem::take(&mut *lock(&self.inner));
        let mut slots: Vec<Option<Tensor>> = vec![None; wants.len()];
        slots[at] = Some(gradient.detach());
        let mut grads = Gradients::default();
        grads.leaves.reserve(nodes.iter().map(|node| node.inputs.len()).sum());
        let turned =
            nodes.iter().rev().filter(|node| needed(&node.inputs[0], &wants)).filter_map(|node| node.op.turns());
        let turned = TurnedWeights::ahead(turned.map(Tensor::detach).collect());
        let pass = RefCell::new(Pass { turned, ..Pass::default() });
        // Popping drops each node's saved tensors as soon as it has been played.
        while let Some(mut node) = nodes.pop() {
            let Some(gy) = slots[node.output].take() else { continue };
            let begun = RefCell::new(begun(&node, &mut slots));
            let on_reading = can_be_left(&node, nodes.last(), &slots, &wants);
            let gradients = play(&mut node, &gy, (&wants, &types), &grads, (&pass, &begun, on_reading))?;
            drop(gy);
            for ((input, gradient), begun) in node.inputs.iter().zip(gradients).zip(begun.into_inner()) {
                if let (Input::Value(index), Some(begun)) = (input, begun) {
                    slots[*index] = Some(begun); // the op did not add to it
                }
                let Some(gradient) = gradient else { continue };
                match input {
                    Input::Constant => {}
                    Input::Value(index) => add_into(&mut slots[*index], gradient)?,
                    Input::Leaf(leaf) => {
                        if grads.has_leaf(leaf.id) {
                            pass.borrow_mut().sums.launch()?; // the first use's gradient may still wait to be summed
                        }
                        keep(&mut grads, leaf, gradient)?;
                    }
                }
            }
        }
        pass.into_inner().sums.launch()?;
        for index in watched {
            if let Some(gradient) = slots[index].take() {
                grads.values.insert(index, gradient);
            }
        }
        Ok(grads)
    }
}

/// Per input of a node: the gradient of another use of it, taken out of its slot for an op that adds to it in place.
fn begun(node: &Node, slots: &mut [Option<Tensor>]) -> Vec<Option<Tensor>> {
    let alone = |input: &Input| match input {
        Input::Value(index) => {
            let uses = node.inputs.iter().filter(|other| matches!(other, Input::Value(same) if same == index)).count();
            (uses == 1).then_some(*index)
        }
        Input::Constant | Input::Leaf(_) => None,
    };
    let take = |input: &Input| {
        let slot = &mut slots[alone(input)?];
        // A check looks at each op's own gradient, and the CPU device's ops do not add.
        let adds = |first: &Tensor| {
            first.is_sole_owner()
                && matches!(first.device(), Device::Gpu(_))
                && !first.device().switches().looks_at_results()
        };
        if node.op.accumulates() && slot.as_ref().is_some_and(adds) { slot.take() } else { None }
    };
    node.inputs.iter().map(take).collect()
}

/// Whether the gradient of a node's first input can be left to the node that is played next, which made that input.
fn can_be_left(node: &Node, next: Option<&Node>, slots: &[Option<Tensor>], wants: &[bool]) -> bool {
    match (node.inputs.first(), next) {
        (Some(Input::Value(index)), Some(next)) if next.output == *index => {
            slots[*index].is_none() && next.op.makes_gradient(needed(&next.inputs[0], wants))
        }
        _ => false,
    }
}

fn play(
    node: &mut Node,
    gy: &Tensor,
    (wants, types): (&[bool], &[DType]),
    grads: &Gradients,
    (pass, begun, on_reading): (&RefCell<Pass>, &RefCell<Vec<Option<Tensor>>>, bool),
) -> Result<Vec<Option<Tensor>>> {
    let Node { op, inputs, .. } = node;
    let together = !gy.device().switches().looks_at_results();
    debug::check::play(op.as_mut(), gy, |op, gy, real| {
        let mut wanted = Wanted {
            device: gy.device(),
            inputs,
            wants,
            types,
            // On a GPU the kernel writes the parameter's gradient where the optimizer reads it. CPU ops lock whole
            // buffers, so there it is copied afterwards.
            gradients: (real && matches!(gy.device(), Device::Gpu(_))).then_some(grads),
            placed: Vec::new(),
            begun: begun.take(),
            on_reading: on_reading && real && together,
            pass: (real && together).then_some(pass),
        };
        let gradients = op.backward(gy, &mut wanted);
        begun.replace(wanted.begun);
        gradients
    })
}

/// What the operation that made `output` keeps for its gradient; nothing if it was not recorded last.
pub(crate) fn kept_for(output: &Tensor) -> Vec<Tensor> {
    let Some(slot) = &output.slot else { return Vec::new() };
    let Some(tape) = slot.tape.upgrade() else { return Vec::new() };
    let mut inner = lock(&tape);
    match inner.nodes.last_mut() {
        Some(node) if node.output == slot.index => node.op.saved().into_iter().map(|kept| kept.detach()).collect(),
        _ => Vec::new(),
    }
}

/// Numbers of an input that is a parameter.
fn parameters(input: &Input) -> usize {
    match input {
        Input::Leaf(leaf) => leaf.grad.len(),
        Input::Constant | Input::Value(_) => 0,
    }
}

fn number((name, setting): (&'static str, Setting<'_>)) -> Option<(&'static str, f64)> {
    match setting {
        Setting::Number(value) => Some((name, value)),
        Setting::Tensor(_) => None,
    }
}

fn source(input: &Input) -> Source {
    match input {
        Input::Constant => Source::Constant,
        Input::Value(index) => Source::Value(*index),
        Input::Leaf(leaf) => Source::Parameter(leaf.id),
    }
}

pub(super) fn needed(input: &Input, wants: &[bool]) -> bool {
    match input {
        Input::Constant => false,
        Input::Value(index) => wants[*index],
        Input::Leaf(_) => true,
    }
}

/// Gradients of a value used twice add up, in place where nobody else holds the first.
fn add_into(slot: &mut Option<Tensor>, gradient: Tensor) -> Result<()> {
    *slot = Some(match slot.take() {
        None => gradient,
        Some(first) if first.is_sole_owner() => {
            ops::add_assign(&first, &gradient)?;
            first.detach() // from what was summed up of it
        }
        Some(first) => ops::add(&first, &gradient)?,
    });
    Ok(())
}

/// Puts a parameter's gradient in its place, or adds it there.
fn keep(grads: &mut Gradients, leaf: &Leaf, gradient: Tensor) -> Result<()> {
    if let Some(first) = grads.leaves.get(&leaf.id) {
        return ops::add_assign(first, &gradient.reshape(first.shape())?);
    }
    if !gradient.same_place(&leaf.grad) {
        leaf.grad.copy_from(&gradient)?;
    }
    grads.leaves.insert(leaf.id, leaf.grad.clone());
    Ok(())
}

fn saved_bytes(op: &mut dyn Backward) -> u64 {
    op.saved().iter().map(|tensor| tensor.bytes()).sum()
}

/// As [`record`], for results that are cheap to compute again: on a recomputing tape the result gets a recipe.
///
/// # Errors
/// As [`record`].
pub(crate) fn record_with<B: Backward + 'static>(
    output: Tensor,
    inputs: &[Option<&Tensor>],
    make: impl FnOnce() -> B,
    recipe: impl FnOnce() -> Option<Arc<dyn Recipe>>,
) -> Result<Tensor> {
    let mut output = record(output, inputs, make)?;
    let tape = output.slot.as_ref().and_then(|slot| slot.tape.upgrade());
    // A check looks at what ops keep.
    let wanted = tape.is_some_and(|tape| lock(&tape).recomputing) && !output.device().switches().looks_at_results();
    output.recipe = if wanted { recipe() } else { None };
    Ok(output)
}

/// Records an operation if one of its inputs is watched. `inputs` holds `None` for an absent one (no bias).
///
/// # Errors
/// [`Error::Tape`] if the inputs stand on two tapes, or on one that has been played.
pub(crate) fn record<B: Backward + 'static>(
    mut output: Tensor,
    inputs: &[Option<&Tensor>],
    make: impl FnOnce() -> B,
) -> Result<Tensor> {
    let mut tape: Option<Weak<Mutex<Inner>>> = None;
    for slot in inputs.iter().flatten().filter_map(|tensor| tensor.slot.as_ref()) {
        match &tape {
            Some(first) if !first.ptr_eq(&slot.tape) => {
                return Err(Error::Tape("the inputs of one operation are recorded on two tapes".into()));
            }
            _ => tape = Some(slot.tape.clone()),
        }
    }
    let Some(tape) = tape else { return Ok(output) };
    let Some(live) = tape.upgrade() else {
        return Err(Error::Tape("this tensor's tape has been played; detach() it or start a new tape".into()));
    };
    let mut inner = lock(&live);
    let sources: Vec<Input> = inputs
        .iter()
        .map(|input| match input {
            Some(Tensor { slot: Some(slot), .. }) => Input::Value(slot.index),
            Some(Tensor { leaf: Some(leaf), .. }) => Input::Leaf(Arc::clone(leaf)),
            _ => Input::Constant,
        })
        .collect();
    let wanted = sources.iter().any(|input| needed(input, &inner.wants));
    let index = inner.wants.len();
    inner.wants.push(wanted);
    inner.types.push(output.dtype());
    if wanted {
        let shape = output.shape();
        inner.nodes.push(Node { op: Box::new(make()), inputs: sources, output: index, shape });
    }
    output.slot = Some(Slot { tape, index });
    Ok(output)
}

impl fmt::Display for Tape {
    /// One line per operation: output shape and bytes kept for its gradient.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut inner = lock(&self.inner);
        writeln!(out, "{:>4}  {:<20} {:<24} {:>12}  inputs", "", "op", "output", "saved bytes")?;
        let mut total = 0;
        for (number, node) in inner.nodes.iter_mut().enumerate() {
            let (shape, saved) = (node.shape.to_string(), saved_bytes(node.op.as_mut()));
            total += saved;
            write!(out, "{number:>4}  {:<20} {shape:<24} {saved:>12} ", node.op.name())?;
            for input in &node.inputs {
                match input {
                    Input::Constant => write!(out, " -")?,
                    Input::Value(index) => write!(out, " v{index}")?,
                    Input::Leaf(leaf) => write!(out, " p{}", leaf.id)?,
                }
            }
            writeln!(out, " -> v{}", node.output)?;
        }
        write!(out, "{} operations keep {total} bytes", inner.nodes.len())
    }
}
