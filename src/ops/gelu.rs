//! GELU in its exact form.
//!
//! # Forward
//! `y = x P(x)`, with the standard normal's distribution function P.
//!
//! # Backward
//! `gx = gy (P(x) + x p(x))`, with its density p. x is kept. How P and p are computed stands in the shader's header.
//!
//! # Data flow
//! ```text
//! x[i] --> |x| --+--> bell(t)  = exp(-t^2 / 2)   --+--> P(x) --> y[i] = x P(x)
//!                '--> ratio(t) = P(-t) / bell(t) --'
//! gy[i], x[i] ----------------> P(x) + x p(x) ---------> gx[i]
//! ```
//!
//! One invocation computes one element, in v2 four.
//!
//! Shapes: any; y has the shape of x.
//!
//! Versions: v1 (an element per invocation), v2 (four).
//!
//! Launches: 1 forward, 1 backward.
//!
//! # Files
//! - [`shaders/gelu.wgsl`](../../../../../shaders/gelu.wgsl), below
//! - [`src/ops/gelu.rs`](../../../src/shadegrad/ops/gelu.rs.html)
//! - [`src/cpu/gelu.rs`](../../../src/shadegrad/cpu/gelu.rs.html)
//! - [`kernels-tests/ops/gelu.rs`](../../../../../kernels-tests/ops/gelu.rs)
//! - [`bench/ops/gelu.rs`](../../../../../bench/ops/gelu.rs)
//!
//! <details><summary>shaders/gelu.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/gelu.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use super::{Version, choice};
use crate::autograd::{Backward, Wanted, record};
use crate::cpu::gelu as plain;
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "gelu";
pub(super) const SHADER: Shader = shader!("gelu");
pub(super) const PLAN: Plan =
    Plan { op: OP, rules: &[("_v2", "the elements divide by 4")], run: |on| gelu(&on.x()?).map(Some) };

/// x times the probability that a standard normal number is below x: PyTorch's `gelu` with `approximate = "none"`.
/// Right to a few units in the last place, for far negative x too.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let x = shadegrad::Device::cpu().tensor("x", [3], &[-20.0, 0.0, 20.0])?;
/// assert_eq!(shadegrad::ops::gelu(&x)?.to_vec()?, [0.0, 0.0, 20.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if x has no element.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    observed(OP, x.device(), |on| forward(&on.read(x)?, select(x)))
}

fn select(x: &Tensor) -> Version {
    choice::version(x.device(), OP, || Sizes::of(x.shape()), Version::by_fours(x.len()))
}

/// As [`gelu`], with the kernel named; its gradient uses the same version.
///
/// # Errors
/// As [`gelu`]; [`Error::Shape`] for [`Version::V2`] if the elements do not divide by 4.
pub fn forward(x: &Tensor, version: Version) -> Result<Tensor> {
    x.shape().rows(OP)?;
    if version == Version::V2 && Version::by_fours(x.len()) != Version::V2 {
        return Err(Error::shape(OP, format!("v2 needs 4n elements, got {}", x.shape())));
    }
    let y = x.new_empty(OP, x.shape())?;
    match x.device() {
        Device::Gpu(_) => {
            let (entry, lanes) = match version {
                Version::V1 => ("forward_v1", 1),
                Version::V2 => ("forward_v2", 4),
            };
            for part in x.device().image_ranges(OP, &[x, &y])? {
                let (x, y) = (x.images(&part), y.images(&part));
                let invocations = y.len() / lanes;
                SHADER.entry(entry).reads([x]).writes([y]).over(invocations)?;
            }
        }
        Device::Cpu(_) => plain::forward(&x.f32s(), &mut y.f32s_mut()),
    }
    let kept = x.detach();
    record(y, &[Some(x)], || GeluBackward { kept, version })
}

/// gx = gy times the slope at `kept`, x of the forward pass.
pub(super) fn input_gradient(gy: &Tensor, kept: &Tensor, gx: &Tensor, version: Version) -> Result<()> {
    match gy.device() {
        Device::Gpu(_) => {
            let (entry, lanes) = match version {
                Version::V1 => ("backward_input_v1", 1),
                Version::V2 => ("backward_input_v2", 4),
            };
            for part in gy.device().image_ranges(OP, &[gy, kept, gx])? {
                let (gy, kept, gx) = (gy.images(&part), kept.images(&part), gx.images(&part));
                let invocations = gx.len() / lanes;
                SHADER.entry(entry).reads([gy, kept]).writes([gx]).over(invocations)?;
            }
        }
        Device::Cpu(_) => plain::backward_input(&gy.f32s(), &kept.f32s(), &mut gx.f32s_mut()),
    }
    Ok(())
}

/// What the gradient needs: x.
#[derive(Debug)]
struct GeluBackward {
    kept: Tensor,
    version: Version,
}

impl Backward for GeluBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let gx = wanted.empty(OP, 0, gy.shape())?;
        input_gradient(gy, &self.kept, &gx, self.version)?;
        Ok(vec![Some(gx)])
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        vec![&mut self.kept]
    }
}
