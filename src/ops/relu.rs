//! Rectifier.
//!
//! # Forward
//! `y = max(x, 0)`; -0 and NaN stay as they are.
//!
//! # Backward
//! `gx = gy` where y > 0, else 0: the slope at 0 is 0. y says all that the gradient needs, so x is not kept.
//!
//! # Data flow
//! ```text
//! x   -2  3  0  5 | -1  1  4 -3
//! y    0  3  0  5 |  0  1  4  0
//! gx   0 g1  0 g3 |  0 g5 g6  0
//! ```
//!
//! One invocation computes one element, in v2 four (the bar); 64 invocations are a workgroup.
//!
//! Shapes: any; y has the shape of x.
//!
//! Versions: v1 (an element per invocation), v2 (four).
//!
//! Launches: 1 forward, 1 backward.
//!
//! # Files
//! - [`shaders/relu.wgsl`](../../../../../shaders/relu.wgsl), below
//! - [`src/ops/relu.rs`](../../../src/shadegrad/ops/relu.rs.html)
//! - [`src/cpu/relu.rs`](../../../src/shadegrad/cpu/relu.rs.html)
//! - [`kernels-tests/ops/relu.rs`](../../../../../kernels-tests/ops/relu.rs)
//! - [`bench/ops/relu.rs`](../../../../../bench/ops/relu.rs)
//!
//! <details><summary>shaders/relu.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/relu.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use super::{Version, choice};
use crate::autograd::{Backward, Wanted, record};
use crate::cpu::relu as plain;
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "relu";
pub(super) const SHADER: Shader = shader!("relu");
pub(super) const PLAN: Plan =
    Plan { op: OP, rules: &[("_v2", "the elements divide by 4")], run: |on| relu(&on.x()?).map(Some) };

/// The positive part. -0 and NaN stay as they are and the slope at 0 is 0, as in PyTorch.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let x = shadegrad::Device::cpu().tensor("x", [3], &[-1.0, 0.0, 2.0])?;
/// assert_eq!(shadegrad::ops::relu(&x)?.to_vec()?, [0.0, 0.0, 2.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if x has no element.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    observed(OP, x.device(), |on| forward(&on.read(x)?, select(x)))
}

fn select(x: &Tensor) -> Version {
    choice::version(x.device(), OP, || Sizes::of(x.shape()), Version::by_fours(x.len()))
}

/// As [`relu`], with the kernel named; its gradient uses the same version.
///
/// # Errors
/// As [`relu`]; [`Error::Shape`] for [`Version::V2`] if the elements do not divide by 4.
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
    record(y, &[Some(x)], || ReluBackward { kept, version })
}

/// What the gradient needs: y, whose sign tells where x was positive.
#[derive(Debug)]
struct ReluBackward {
    kept: Tensor,
    version: Version,
}

impl Backward for ReluBackward {
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
