//! The weights of several layers as their input gradients read them: inputs and outputs exchanged, kernels turned round.
//!
//! # Forward
//! `turned[taps-1-tap, o, i] = weight[tap, i, o]`, for each of a list of weights
//!
//! # Backward
//! No gradient: it is a part of gradients.
//!
//! # Data flow
//! ```text
//! weight of a convolution [kh, kw, in, out] --+
//! weight of a convolution [kh, kw, in, out] --+--> transpose --> each as [kh, kw, out, in], turned by 180 degrees
//! weight of a linear layer        [in, out] --+
//! ```
//!
//! The tape knows which gradients it will play next, so [`TurnedWeights`] turns many weights at once.
//!
//! Shapes: `[.., in, out]` -> `[.., out, in]`.
//!
//! Versions: one; `transpose_quads` where inputs and outputs divide by 4.
//!
//! Launches: 1 for up to 32 weights of one model.
//!
//! [`matrix`](super::matrix) units read a convolution's weight with inputs and outputs exchanged, too, but not turned round; and for
//! its input gradient turned round, but not exchanged. Both as 16-bit floats.
//!
//! # Files
//! - [`shaders/transpose_weights.wgsl`](../../../../../shaders/transpose_weights.wgsl), below
//! - [`src/ops/transpose_weights.rs`](../../../src/shadegrad/ops/transpose_weights.rs.html)
//! - [`src/cpu/transpose_weights.rs`](../../../src/shadegrad/cpu/transpose_weights.rs.html)
//! - [`kernels-tests/ops/transpose_weights.rs`](../../../../../kernels-tests/ops/transpose_weights.rs)
//! - [`bench/ops/transpose_weights.rs`](../../../../../bench/ops/transpose_weights.rs)
//!
//! <details><summary>shaders/transpose_weights.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/transpose_weights.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use crate::cpu::transpose_weights::{self as plain, Part};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, WORKGROUP};
use crate::tensor::{DType, Device, Shape, Tensor};
use crate::{Error, Result};

const OP: &str = "transpose_weights";
pub(super) const SHADER: Shader = shader!("transpose_weights");
pub(super) const PLAN: Plan =
    Plan { op: OP, rules: &[], run: |on| transpose_weights(&[&on.constant(on.sizes.shape)?]).map(|_| None) };

/// Weights of one launch, as in the shader.
const PARTS: usize = 32;
/// Rows and columns of what an invocation takes, as in the shader.
const BLOCK: usize = 4;
/// Bytes that the weights turned ahead of their use may take at first, unless one alone takes more; twice as many each time,
/// because a backward pass lets go of memory as it goes on.
const AHEAD_BYTES: u64 = 16 << 20;
/// A binding may begin at any multiple of so many numbers (256 bytes).
const ALIGNMENT: usize = 64;

/// Exchanges inputs and outputs of each weight `[.., in, out]` and turns its kernel by 180 degrees.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let weight = device.tensor("w", [1, 2, 1, 2], &[1.0, 2.0, 3.0, 4.0])?; // two positions, one input, two outputs
/// let turned = shadegrad::ops::transpose_weights(&[&weight])?;
/// assert_eq!(turned[0].shape().dims(), [1, 2, 2, 1]);
/// assert_eq!(turned[0].to_vec()?, [3.0, 4.0, 1.0, 2.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] for a tensor without inputs and outputs; else as the launches.
pub fn transpose_weights(weights: &[&Tensor]) -> Result<Vec<Tensor>> {
    let Some(first) = weights.first() else { return Ok(Vec::new()) };
    observed(OP, first.device(), |on| {
        let weights: Vec<Tensor> = weights.iter().map(|weight| on.read(weight)).collect::<Result<_>>()?;
        let weights: Vec<&Tensor> = weights.iter().collect();
        let (mut turned, mut rest) = (Vec::new(), &weights[..]);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(together(rest));
            turned.extend(launch(now, Order::Turned, DType::F32)?);
            rest = later;
        }
        Ok(turned)
    })
}

/// How many of the weights, from the first on, one launch can turn: they must lie in one buffer, within one binding.
fn together(weights: &[&Tensor]) -> usize {
    let fits = |count: &usize| match (weights[0].device(), Tensor::span(&weights[..*count])) {
        (Device::Gpu(context), Some(span)) => span.bytes() <= context.max_binding_bytes(),
        _ => false,
    };
    (2..=weights.len().min(PARTS)).take_while(fits).last().unwrap_or(1)
}

/// A convolution's weight `[kh, kw, in, out]` as matrix units read it: `[kh, kw, out, in]`, 16-bit floats, the kernel not turned round.
///
/// # Errors
/// As the launch.
pub(super) fn by_output(weight: &Tensor) -> Result<Tensor> {
    Ok(launch(&[weight], Order::Exchanged, DType::F16)?.remove(0))
}

/// A convolution's weight `[kh, kw, in, out]` as matrix units read it for the input gradient: 16-bit floats, the kernel turned round.
///
/// # Errors
/// [`Error::Shape`] unless inputs and outputs divide by 4; else as the launch.
pub(super) fn by_input(weight: &Tensor) -> Result<Tensor> {
    Ok(launch(&[weight], Order::HalfTurn, DType::F16)?.remove(0))
}

/// The weight `[kh, kw, out, in]` of a transposed convolution as 16-bit floats: matrix units read it as it stands.
///
/// # Errors
/// As [`by_input`].
pub(super) fn halves(weight: &Tensor) -> Result<Tensor> {
    Ok(launch(&[weight], Order::Same, DType::F16)?.remove(0))
}

/// What becomes of the order of a weight's numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Inputs and outputs exchanged, and the kernel turned by 180 degrees.
    Turned,
    /// Inputs and outputs exchanged.
    Exchanged,
    /// The kernel turned by 180 degrees.
    HalfTurn,
    /// Nothing.
    Same,
}

impl Order {
    fn exchanges(self) -> bool {
        matches!(self, Self::Turned | Self::Exchanged)
    }
}

fn launch(weights: &[&Tensor], order: Order, dtype: DType) -> Result<Vec<Tensor>> {
    let Some(span) = Tensor::span(weights) else { return Ok(Vec::new()) };
    let mut parts = [Part { first_group: u32::MAX, ..bytemuck::Zeroable::zeroed() }; PARTS];
    let (mut groups, mut to, mut places) = (0, 0, Vec::new());
    let mut whole_quads = true;
    for (part, weight) in parts.iter_mut().zip(weights) {
        let shape = weight.shape();
        let [leading @ .., inputs, outputs] = shape.dims() else {
            return Err(Error::shape(OP, format!("a weight must be [.., in, out], got {shape}")));
        };
        *part = Part {
            first_group: groups as u32,
            source: weight.distance(&span) as u32,
            to: to as u32,
            taps: leading.iter().product::<usize>() as u32,
            inputs: *inputs as u32,
            outputs: *outputs as u32,
            by_half_turn: matches!(order, Order::Turned | Order::HalfTurn).into(),
            ..*part
        };
        whole_quads &= [part.source as usize, *inputs, *outputs].iter().all(|number| number.is_multiple_of(BLOCK));
        let last = if order.exchanges() { [*outputs, *inputs] } else { [*inputs, *outputs] };
        places.push((to, Shape::new(&[leading, &last].concat())?));
        let blocks = part.taps as usize * inputs.div_ceil(BLOCK) * outputs.div_ceil(BLOCK);
        groups += blocks.div_ceil(WORKGROUP);
        to += weight.len().next_multiple_of(ALIGNMENT);
    }
    if !order.exchanges() && !whole_quads {
        return Err(Error::shape(OP, "numbers in their own order are taken by fours".to_owned()));
    }
    let entry = match order {
        Order::HalfTurn | Order::Same => "halve_quads",
        _ if whole_quads => "transpose_quads",
        _ => "transpose",
    };
    let turned = span.device().empty_as(OP, [to], dtype)?;
    match span.device() {
        Device::Gpu(_) => SHADER.entry(entry).params(&parts).reads([&span]).writes([&turned]).groups(groups)?,
        Device::Cpu(_) => {
            for part in &parts[..weights.len()] {
                plain::transpose(part, &span.f32s(), &mut turned.f32s_mut());
            }
        }
    }
    Ok(places.into_iter().map(|(to, shape)| turned.view(to, shape)).collect())
}

/// The weights that gradients will ask for, turned some launches' worth ahead.
#[derive(Debug, Default)]
pub struct TurnedWeights {
    /// In the order in which they will be asked for.
    waiting: Vec<Tensor>,
    /// Weight, and how it reads turned.
    ready: Vec<(Tensor, Tensor)>,
    launches: u32,
}

impl TurnedWeights {
    /// A list of what will be asked for, in that order.
    pub fn ahead(weights: Vec<Tensor>) -> Self {
        Self { waiting: weights, ready: Vec::new(), launches: 0 }
    }

    /// A weight, turned.
    ///
    /// # Errors
    /// As [`transpose_weights`].
    pub fn take(&mut self, weight: &Tensor) -> Result<Tensor> {
        let known = |list: &(Tensor, Tensor)| list.0.same_place(weight);
        if let Some(index) = self.ready.iter().position(known) {
            return Ok(self.ready.swap_remove(index).1);
        }
        let Some(index) = self.waiting.iter().position(|waiting| waiting.same_place(weight)) else {
            return Ok(transpose_weights(&[weight])?.remove(0));
        };
        // Those before it were not asked for after all.
        self.waiting.drain(..index);
        let mut bytes = 0;
        let small = self.waiting.iter().take_while(|weight| {
            bytes += weight.bytes();
            bytes <= AHEAD_BYTES << self.launches.min(4)
        });
        let small = small.count().max(1);
        let count = together(&self.waiting[..small].iter().collect::<Vec<_>>());
        let now: Vec<Tensor> = self.waiting.drain(..count).collect();
        let turned = launch(&now.iter().collect::<Vec<_>>(), Order::Turned, DType::F32)?;
        self.launches += 1;
        self.ready.extend(now.into_iter().zip(turned));
        Ok(self.ready.remove(self.ready.len() - count).1)
    }
}
