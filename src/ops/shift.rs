//! Shifted tokens (UNeXt): groups of channels move by -2, -1, 0, 1, 2 pixels along one axis.
//!
//! # Forward
//! `y[.., i, .., c] = x[.., i - s, .., c]`, 0 from outside;  `s = c / chunk - 2`, groups of `chunk = ceil(C/5)`
//! channels.
//!
//! # Backward
//! `gx[.., i, .., c] = gy[.., i + s, .., c]`, 0 from outside: the opposite shift, by the same kernel.
//!
//! # Data flow
//! ```text
//! i ->          x             y
//! group 0   1 2 3 4 5     3 4 5 0 0     s = -2
//! group 1   1 2 3 4 5     2 3 4 5 0     s = -1
//! group 2   1 2 3 4 5     1 2 3 4 5     s =  0
//! group 3   1 2 3 4 5     0 1 2 3 4     s =  1
//! group 4   1 2 3 4 5     0 0 1 2 3     s =  2
//! ```
//!
//! One invocation copies one element, in v2 four channels. What leaves the image is lost, what enters is 0.
//!
//! Shapes: y has the shape of x `[N, H, W, C]`; there can be fewer than five groups.
//!
//! Versions: v1 (an element per invocation), v2 (four channels).
//!
//! Launches: 1 forward, 1 backward.
//!
//! # Files
//! - [`shaders/shift.wgsl`](../../../../../shaders/shift.wgsl), below
//! - [`src/ops/shift.rs`](../../../src/shadegrad/ops/shift.rs.html)
//! - [`src/cpu/shift.rs`](../../../src/shadegrad/cpu/shift.rs.html)
//! - [`kernels-tests/ops/shift.rs`](../../../../../kernels-tests/ops/shift.rs)
//! - [`bench/ops/shift.rs`](../../../../../bench/ops/shift.rs)
//!
//! <details><summary>shaders/shift.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/shift.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use super::{Version, choice};
use crate::autograd::{Backward, Setting, Wanted, record};
use crate::cpu::shift::{self as plain, ShiftParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "shift";
pub(super) const SHADER: Shader = shader!("shift");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[("_v2", "the channels divide by 4 and are at least 12")],
    run: |on| shift(&on.x()?, Axis::Width).map(Some),
};

/// Along which axis the tokens move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Axis {
    /// Up and down.
    Height,
    /// Left and right.
    Width,
}

impl Axis {
    /// The extent of the axis in `[N, H, W, C]`, and how many pixels neighbours on it are apart.
    pub fn steps(self, [_, h, w, _]: [usize; 4]) -> (usize, usize) {
        match self {
            Self::Height => (h, w),
            Self::Width => (w, 1),
        }
    }
}

/// Moves each fifth of the channels by its own number of pixels, from -2 to 2, so that a linear layer sees neighbours.
///
/// ```
/// # use shadegrad::ops::{Axis, shift};
/// # fn main() -> shadegrad::Result<()> {
/// // One row of two pixels with five channels.
/// let x = shadegrad::Device::cpu().tensor("x", [1, 1, 2, 5], &[1., 2., 3., 4., 5., 6., 7., 8., 9., 10.])?;
/// assert_eq!(shift(&x, Axis::Width)?.to_vec()?, [0., 7., 3., 0., 0., 0., 0., 8., 4., 0.]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if x is no image batch.
pub fn shift(x: &Tensor, axis: Axis) -> Result<Tensor> {
    x.shape().nhwc(OP)?;
    observed(OP, x.device(), |on| forward(&on.read(x)?, axis, select(x)))
}

fn select(x: &Tensor) -> Version {
    choice::version(x.device(), OP, || Sizes::of(x.shape()), usual(x.shape().last()))
}

/// Four channels at a time where they divide; below 12 channels they could lie in three groups.
fn usual(channels: usize) -> Version {
    if channels.is_multiple_of(4) && channels >= 12 { Version::V2 } else { Version::V1 }
}

/// As [`shift`], with the kernel named; its gradient uses the same version.
///
/// # Errors
/// As [`shift`]; [`Error::Shape`] for [`Version::V2`] if the channels do not divide by 4 or are fewer than 12.
pub fn forward(x: &Tensor, axis: Axis, version: Version) -> Result<Tensor> {
    let image = x.shape().nhwc(OP)?;
    let c = image[3];
    if version == Version::V2 && usual(c) != Version::V2 {
        return Err(Error::shape(OP, format!("v2 needs 4n channels, at least 12, got {}", x.shape())));
    }
    let (length, step) = axis.steps(image);
    let params = ShiftParams {
        length: length as u32,
        inner: (step * c) as u32,
        channels: c as u32,
        chunk: c.div_ceil(5) as u32,
        direction: 1,
    };
    let y = x.new_empty(OP, x.shape())?;
    run(&params, version, x, &y)?;
    record(y, &[Some(x)], || ShiftBackward { params, axis, version })
}

fn run(params: &ShiftParams, version: Version, x: &Tensor, y: &Tensor) -> Result<()> {
    match x.device() {
        Device::Gpu(_) => {
            let (entry, lanes) = match version {
                Version::V1 => ("forward_v1", 1),
                Version::V2 => ("forward_v2", 4),
            };
            for images in x.device().image_ranges(OP, &[x, y])? {
                let (x, y) = (x.images(&images), y.images(&images));
                let invocations = y.len() / lanes;
                SHADER.entry(entry).params(params).reads([x]).writes([y]).over(invocations)?;
            }
        }
        Device::Cpu(_) => plain::forward(params, &x.f32s(), &mut y.f32s_mut()),
    }
    Ok(())
}

/// What the gradient needs: the sizes.
#[derive(Debug)]
struct ShiftBackward {
    params: ShiftParams,
    axis: Axis,
    version: Version,
}

impl Backward for ShiftBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let gx = wanted.empty(OP, 0, gy.shape())?;
        run(&ShiftParams { direction: -1, ..self.params }, self.version, gy, &gx)?;
        Ok(vec![Some(gx)])
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        Vec::new()
    }

    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        vec![("axis", Setting::Number(f64::from(self.axis as u8)))]
    }
}
