//! Two tensors side by side along the channels.
//!
//! # Forward
//! `y[r,c] = a[r,c]` where c < A, else `b[r,c-A]`;  rows r are everything but the last axis.
//!
//! # Backward
//! `ga[r,c] = gy[r,c]`;  `gb[r,c] = gy[r,A+c]`: each number of gy goes to exactly one place.
//!
//! # Data flow
//! ```text
//! a [r, A]   a0 a1           y [r, A + B]   a0 a1 b0 b1 b2
//! b [r, B]   b0 b1 b2                       a0 a1 b0 b1 b2
//!                               gy          .. .. -------------> ga
//!                                                 .. .. .. ----> gb
//! ```
//!
//! One invocation copies one number of the wide tensor, in v2 four channels; one launch writes both gradients.
//!
//! Shapes: a `[.., A]`, b `[.., B]`, equal but for the last axis -> y `[.., A + B]`.
//!
//! Versions: v1 (an element per invocation), v2 (four channels).
//!
//! Launches: 1 forward, 1 backward.
//!
//! # Files
//! - [`shaders/concat.wgsl`](../../../../../shaders/concat.wgsl), below
//! - [`src/ops/concat.rs`](../../../src/shadegrad/ops/concat.rs.html)
//! - [`src/cpu/concat.rs`](../../../src/shadegrad/cpu/concat.rs.html)
//! - [`kernels-tests/ops/concat.rs`](../../../../../kernels-tests/ops/concat.rs)
//! - [`bench/ops/concat.rs`](../../../../../bench/ops/concat.rs)
//!
//! <details><summary>shaders/concat.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/concat.wgsl")]
//! ```
//! </details>

use std::sync::Arc;

use super::plan::Plan;
use super::{Version, can_wait, choice};
use crate::autograd::{Backward, Kept, OnReading, Recipe, Wanted, record_with};
use crate::cpu::concat::{self as plain, ConcatParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes};
use crate::tensor::{Device, Shape, Tensor};
use crate::{Error, Result};

const OP: &str = "concat";
pub(super) const SHADER: Shader = shader!("concat");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[("_v2", "the channels of both divide by 4")],
    run: |on| now_or_later(&on.x()?, &on.input(on.sizes.shape.with_last(on.sizes.out))?, false).map(Some),
};

/// The channels of a, then those of b: PyTorch's `torch.cat([a, b], 1)`, whose axis 1 is the last one here.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let a = device.tensor("a", [2, 1], &[1.0, 2.0])?;
/// let b = device.tensor("b", [2, 2], &[10.0, 11.0, 20.0, 21.0])?;
/// assert_eq!(shadegrad::ops::concat(&a, &b)?.to_vec()?, [1.0, 10.0, 11.0, 2.0, 20.0, 21.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if another axis than the last differs, or if a tensor has no element.
pub fn concat(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    now_or_later(a, b, true)
}

fn now_or_later(a: &Tensor, b: &Tensor, later: bool) -> Result<Tensor> {
    let version = select(a, b);
    observed(OP, a.device(), |on| join([&on.read(a)?, &on.read(b)?], version, later))
}

fn select(a: &Tensor, b: &Tensor) -> Version {
    let (ca, cb) = (a.shape().last(), b.shape().last());
    choice::version(a.device(), OP, || Sizes { out: cb, ..Sizes::of(a.shape()) }, usual(ca, cb))
}

/// Four channels at a time where they divide.
fn usual(a: usize, b: usize) -> Version {
    if a.is_multiple_of(4) && b.is_multiple_of(4) { Version::V2 } else { Version::V1 }
}

/// As [`concat()`], with the kernel named; the gradients use the same version.
///
/// # Errors
/// As [`concat()`]; [`Error::Shape`] for [`Version::V2`] if the channels of a or b do not divide by 4.
pub fn forward(a: &Tensor, b: &Tensor, version: Version) -> Result<Tensor> {
    join([a, b], version, false)
}

/// With `later` the numbers are computed when somebody asks for them, who may be able to read both parts instead.
fn join([a, b]: [&Tensor; 2], version: Version, later: bool) -> Result<Tensor> {
    let ((_, ca), (_, cb)) = (a.shape().rows(OP)?, b.shape().rows(OP)?);
    if b.shape().with_last(ca) != a.shape() {
        let message = format!("{} and {} may differ in the last axis only", a.shape(), b.shape());
        return Err(Error::shape(OP, message));
    }
    if version == Version::V2 && usual(ca, cb) != Version::V2 {
        let message = format!("v2 needs channels that divide by 4, got {} and {}", a.shape(), b.shape());
        return Err(Error::shape(OP, message));
    }
    let joined = Arc::new(Joined::new([a, b], version));
    let y = if later && can_wait(a.device()) {
        a.device().later(joined.shape, a.dtype(), joined.clone())
    } else {
        joined.of(a, b)?
    };
    let backward = ConcatBackward { shapes: [a.shape(), b.shape()], params: joined.params, version };
    // Not worth it if both parts are numbers: they are as large as y.
    let cheap = joined.parts.iter().any(|part| matches!(part, Kept::Recipe(..)));
    let recipe: Option<Arc<dyn Recipe>> = if cheap { Some(joined) } else { None };
    record_with(y, &[Some(a), Some(b)], || backward, || recipe)
}

/// The gradient of a joined tensor, of its parts: nobody needs to write it, since [`ConcatBackward`] takes it apart again.
pub(super) fn of_gradients(parts: [Tensor; 2]) -> Tensor {
    let version = usual(parts[0].shape().last(), parts[1].shape().last());
    let joined = Joined::new(parts.each_ref(), version);
    parts[0].device().later(joined.shape, parts[0].dtype(), Arc::new(joined))
}

/// How y is made of its parts.
#[derive(Debug)]
struct Joined {
    parts: [Kept; 2],
    shape: Shape,
    params: ConcatParams,
    version: Version,
}

impl Joined {
    /// Of parts that differ in their last axis only.
    fn new([a, b]: [&Tensor; 2], version: Version) -> Self {
        let channels = [a, b].map(|part| part.shape().last());
        Self {
            parts: [Kept::of(a), Kept::of(b)],
            shape: a.shape().with_last(channels.iter().sum()),
            params: ConcatParams { a_channels: channels[0] as u32, b_channels: channels[1] as u32 },
            version,
        }
    }

    fn of(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let Self { shape, params, version, .. } = self;
        let y = a.new_empty(OP, *shape)?;
        match a.device() {
            Device::Gpu(_) => {
                let (entry, lanes) = match version {
                    Version::V1 => ("forward_v1", 1),
                    Version::V2 => ("forward_v2", 4),
                };
                // As tables: tensors larger than one binding are cut between any two rows.
                let table = |tensor: &Tensor| tensor.shape().rows(OP).and_then(|size| tensor.reshape([size.0, size.1]));
                let (a, b, y) = (table(a)?, table(b)?, table(&y)?);
                for part in a.device().image_ranges(OP, &[&a, &b, &y])? {
                    let (a, b, y) = (a.images(&part), b.images(&part), y.images(&part));
                    let invocations = y.len() / lanes;
                    SHADER.entry(entry).params(params).reads([a, b]).writes([y]).over(invocations)?;
                }
            }
            Device::Cpu(_) => plain::forward(params, &a.f32s(), &b.f32s(), &mut y.f32s_mut()),
        }
        Ok(y)
    }
}

impl Recipe for Joined {
    fn make(&self) -> Result<Tensor> {
        let [a, b] = &self.parts;
        self.of(&a.tensor()?, &b.tensor()?)
    }

    fn on_reading(&self) -> Option<OnReading> {
        let [a, b] = &self.parts;
        a.numbers().zip(b.numbers()).map(|(a, b)| OnReading::Joined([a.clone(), b.clone()]))
    }
}

/// What the gradient needs: the shapes.
#[derive(Debug)]
struct ConcatBackward {
    shapes: [Shape; 2],
    params: ConcatParams,
    version: Version,
}

impl Backward for ConcatBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let Self { shapes, params, version } = self;
        if let Some(OnReading::Joined([ga, gb])) = gy.on_reading() {
            return Ok(vec![wanted.needs(0).then_some(ga), wanted.needs(1).then_some(gb)]);
        }
        let ga = wanted.empty(OP, 0, shapes[0])?;
        let gb = wanted.empty(OP, 1, shapes[1])?;
        match gy.device() {
            Device::Gpu(_) => {
                let (entry, lanes) = match version {
                    Version::V1 => ("backward_v1", 1),
                    Version::V2 => ("backward_v2", 4),
                };
                let (rows, width) = gy.shape().rows(OP)?;
                let gy = gy.reshape([rows, width])?;
                let ga = ga.reshape([rows, shapes[0].last()])?;
                let gb = gb.reshape([rows, shapes[1].last()])?;
                for part in gy.device().image_ranges(OP, &[&gy, &ga, &gb])? {
                    let (gy, ga, gb) = (gy.images(&part), ga.images(&part), gb.images(&part));
                    let invocations = gy.len() / lanes;
                    SHADER.entry(entry).params(params).reads([gy]).writes([ga, gb]).over(invocations)?;
                }
            }
            Device::Cpu(_) => plain::backward(params, &gy.f32s(), &mut ga.f32s_mut(), &mut gb.f32s_mut()),
        }
        Ok(vec![wanted.needs(0).then_some(ga), wanted.needs(1).then_some(gb)])
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        Vec::new()
    }
}
