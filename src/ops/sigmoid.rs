//! Logistic function.
//!
//! # Forward
//! `y = 1 / (1 + exp(-x))`. Only exp(-|x|) is taken, which cannot overflow.
//!
//! # Backward
//! `gx = gy * y * (1 - y)`. y is kept, x is not.
//!
//! # Data flow
//! ```text
//! x[i] --> e = exp(-|x|) --+-- x >= 0 --> 1 / (1 + e) --+--> y[i]
//!                          '-- x <  0 --> e / (1 + e) --'
//! gy[i], y[i] -----------------> y (1 - y) -------------> gx[i]
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
//! - [`shaders/sigmoid.wgsl`](../../../../../shaders/sigmoid.wgsl), below
//! - [`src/ops/sigmoid.rs`](../../../src/shadegrad/ops/sigmoid.rs.html)
//! - [`src/cpu/sigmoid.rs`](../../../src/shadegrad/cpu/sigmoid.rs.html)
//! - [`kernels-tests/ops/sigmoid.rs`](../../../../../kernels-tests/ops/sigmoid.rs)
//! - [`bench/ops/sigmoid.rs`](../../../../../bench/ops/sigmoid.rs)
//!
//! <details><summary>shaders/sigmoid.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/sigmoid.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use super::{Version, choice};
use crate::autograd::{Backward, Wanted, record};
use crate::cpu::sigmoid as plain;
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "sigmoid";
pub(super) const SHADER: Shader = shader!("sigmoid");
pub(super) const PLAN: Plan =
    Plan { op: OP, rules: &[("_v2", "the elements divide by 4")], run: |on| sigmoid(&on.x()?).map(Some) };

/// Numbers to probabilities, without overflow at either end. Training does not use it: the loss takes logits.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let x = shadegrad::Device::cpu().tensor("x", [3], &[-200.0, 0.0, 200.0])?;
/// assert_eq!(shadegrad::ops::sigmoid(&x)?.to_vec()?, [0.0, 0.5, 1.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if x has no element.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    observed(OP, x.device(), |on| forward(&on.read(x)?, select(x)))
}

fn select(x: &Tensor) -> Version {
    choice::version(x.device(), OP, || Sizes::of(x.shape()), Version::by_fours(x.len()))
}

/// As [`sigmoid`], with the kernel named; its gradient uses the same version.
///
/// # Errors
/// As [`sigmoid`]; [`Error::Shape`] for [`Version::V2`] if the elements do not divide by 4.
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
    let kept = y.clone();
    record(y, &[Some(x)], || SigmoidBackward { kept, version })
}

/// What the gradient needs: y.
#[derive(Debug)]
struct SigmoidBackward {
    kept: Tensor,
    version: Version,
}

impl Backward for SigmoidBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let gx = wanted.empty(OP, 0, gy.shape())?;
        match gy.device() {
            Device::Gpu(_) => {
                let (entry, lanes) = match self.version {
                    Version::V1 => ("backward_input_v1", 1),
                    Version::V2 => ("backward_input_v2", 4),
                };
                for part in gy.device().image_ranges(OP, &[gy, &self.kept, &gx])? {
                    let (gy, kept, gx) = (gy.images(&part), self.kept.images(&part), gx.images(&part));
                    let invocations = gx.len() / lanes;
                    SHADER.entry(entry).reads([gy, kept]).writes([gx]).over(invocations)?;
                }
            }
            Device::Cpu(_) => plain::backward_input(&gy.f32s(), &self.kept.f32s(), &mut gx.f32s_mut()),
        }
        Ok(vec![Some(gx)])
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        vec![&mut self.kept]
    }
}
