//! Softmax over the last axis (channels: classes).
//!
//! # Forward
//! `y[r,c] = exp(x[r,c] - m) / sum over k of exp(x[r,k] - m)`,  m the largest x of the row.
//!
//! # Backward
//! `gx[r,c] = y[r,c] * (gy[r,c] - sum over k of gy[r,k] * y[r,k])`. y is kept, x is not.
//!
//! # Data flow
//! ```text
//! row r of x     1.0 3.0 2.0   --> m = 3.0 --> sum of exp(x - m) --> y   0.09 0.67 0.24
//! row r + 1      ..
//! ```
//!
//! One invocation walks three times over its row, in v2 with four channels at a time.
//!
//! Shapes: x `[.., C]`; y has the shape of x.
//!
//! Versions: v1 (a row per invocation), v2 (the same with four channels at a time).
//!
//! Launches: 1 forward, 1 backward.
//!
//! # Files
//! - [`shaders/softmax.wgsl`](../../../../../shaders/softmax.wgsl), below
//! - [`src/ops/softmax.rs`](../../../src/shadegrad/ops/softmax.rs.html)
//! - [`src/cpu/softmax.rs`](../../../src/shadegrad/cpu/softmax.rs.html)
//! - [`kernels-tests/ops/softmax.rs`](../../../../../kernels-tests/ops/softmax.rs)
//! - [`bench/ops/softmax.rs`](../../../../../bench/ops/softmax.rs)
//!
//! <details><summary>shaders/softmax.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/softmax.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use super::{Version, choice};
use crate::autograd::{Backward, Wanted, record};
use crate::cpu::softmax::{self as plain, SoftmaxParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "softmax";
pub(super) const SHADER: Shader = shader!("softmax");
pub(super) const PLAN: Plan =
    Plan { op: OP, rules: &[("_v2", "the channels divide by 4")], run: |on| softmax(&on.x()?).map(Some) };

/// Turns the channels of each pixel into probabilities that add up to 1.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let x = shadegrad::Device::cpu().tensor("x", [1, 2], &[1000.0, 1000.0])?;
/// assert_eq!(shadegrad::ops::softmax(&x)?.to_vec()?, [0.5, 0.5]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if x has no element.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    observed(OP, x.device(), |on| forward(&on.read(x)?, select(x)))
}

fn select(x: &Tensor) -> Version {
    choice::version(x.device(), OP, || Sizes::of(x.shape()), Version::by_fours(x.shape().last()))
}

/// As [`softmax`], with the kernel named; its gradient uses the same version.
///
/// # Errors
/// As [`softmax`]; [`Error::Shape`] for [`Version::V2`] if the channels do not divide by 4.
pub fn forward(x: &Tensor, version: Version) -> Result<Tensor> {
    let (rows, channels) = x.shape().rows(OP)?;
    if version == Version::V2 && Version::by_fours(channels) != Version::V2 {
        return Err(Error::shape(OP, format!("v2 needs channels that divide by 4, got {}", x.shape())));
    }
    let params = SoftmaxParams { channels: channels as u32 };
    let y = x.new_empty(OP, x.shape())?;
    match x.device() {
        Device::Gpu(_) => {
            let entry = match version {
                Version::V1 => "forward_v1",
                Version::V2 => "forward_v2",
            };
            // As tables: tensors larger than one binding are cut between any two rows.
            let (x, y) = (x.reshape([rows, channels])?, y.reshape([rows, channels])?);
            for part in x.device().image_ranges(OP, &[&x, &y])? {
                let (x, y) = (x.images(&part), y.images(&part));
                SHADER.entry(entry).params(&params).reads([x]).writes([y]).over(part.len())?;
            }
        }
        Device::Cpu(_) => plain::forward(&params, &x.f32s(), &mut y.f32s_mut()),
    }
    let kept = y.clone();
    record(y, &[Some(x)], || SoftmaxBackward { kept, params, version })
}

/// What the gradient needs: y.
#[derive(Debug)]
struct SoftmaxBackward {
    kept: Tensor,
    params: SoftmaxParams,
    version: Version,
}

impl Backward for SoftmaxBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let gx = wanted.empty(OP, 0, gy.shape())?;
        match gy.device() {
            Device::Gpu(_) => {
                let entry = match self.version {
                    Version::V1 => "backward_input_v1",
                    Version::V2 => "backward_input_v2",
                };
                let (rows, channels) = gy.shape().rows(OP)?;
                let table = |tensor: &Tensor| tensor.reshape([rows, channels]);
                let (gy, kept, gx) = (table(gy)?, table(&self.kept)?, table(&gx)?);
                for part in gy.device().image_ranges(OP, &[&gy, &kept, &gx])? {
                    let (gy, kept, gx) = (gy.images(&part), kept.images(&part), gx.images(&part));
                    SHADER.entry(entry).params(&self.params).reads([gy, kept]).writes([gx]).over(part.len())?;
                }
            }
            Device::Cpu(_) => {
                plain::backward_input(&self.params, &gy.f32s(), &self.kept.f32s(), &mut gx.f32s_mut());
            }
        }
        Ok(vec![Some(gx)])
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        vec![&mut self.kept]
    }
}
