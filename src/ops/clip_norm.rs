//! Gradient clipping by the global norm (`torch.nn.utils.clip_grad_norm_`), on the device.
//!
//! # Forward
//! `norm = step[3] * sqrt(sum of g^2)`;  `step[3] = step[3] * min(1, max_norm / (norm + 1e-6))`. The optimizer
//! multiplies every gradient by `step[3]`, so the gradients are not rewritten. A `step[3]` of 0 (the step is skipped, see
//! [`unscale`](fn@crate::ops::unscale)) stays, and the norm is 0.
//!
//! # Backward
//! No gradient: it prepares an update of the weights.
//!
//! # Data flow
//! ```text
//! gradient [count]   | chunk | chunk | chunk | ..
//!                        |       |       |      partial: a workgroup, the squares of one chunk (in v2 four at a time)
//! partials           [   .       .       .  .. ]
//!                        \_______|_______/      finalize: one workgroup
//! norm [1], step[3]
//! ```
//!
//! Shapes: gradient `[count]`, `step` `[4]` -> norm `[1]`.
//!
//! Versions: v1 (number by number), v2 (four at a time).
//!
//! Launches: 2.
//!
//! # Files
//! - [`shaders/clip_norm.wgsl`](../../../../../shaders/clip_norm.wgsl), below
//! - [`src/ops/clip_norm.rs`](../../../src/shadegrad/ops/clip_norm.rs.html)
//! - [`src/cpu/clip_norm.rs`](../../../src/shadegrad/cpu/clip_norm.rs.html)
//! - [`kernels-tests/ops/clip_norm.rs`](../../../../../kernels-tests/ops/clip_norm.rs)
//! - [`bench/ops/clip_norm.rs`](../../../../../bench/ops/clip_norm.rs)
//!
//! <details><summary>shaders/clip_norm.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/clip_norm.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use super::{Version, updates};
use crate::cpu::clip_norm::{self as plain, ClipNormParams};
use crate::debug::observed;
use crate::gpu::Shader;
use crate::gpu::shader::shader;
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "clip_norm";
pub(super) const SHADER: Shader = shader!("clip_norm");
pub(super) const PLAN: Plan =
    Plan { op: OP, rules: &[updates::RULE], run: |on| clip_norm(1.0, &on.flat()?, &on.constant([4])?).map(|_| None) };

/// Gradients of a chunk: about 512 chunks keep a GPU busy, and no chain of additions is longer than 64 terms.
fn chunk_of(count: usize, version: Version) -> usize {
    match version {
        Version::V1 => (count / 512).clamp(256, 4096),
        Version::V2 => (count / 512).clamp(1024, 16384).next_multiple_of(4),
    }
}

fn sizes(gradient: &Tensor, max_norm: f32, version: Version) -> ClipNormParams {
    let count = gradient.len();
    let chunk = chunk_of(count, version);
    ClipNormParams { count: count as u32, chunk: chunk as u32, chunks: count.div_ceil(chunk) as u32, max_norm }
}

/// On a GPU: the sum of the squares of each chunk.
fn squares(params: &ClipNormParams, gradient: &Tensor, version: Version) -> Result<Tensor> {
    let entry = match version {
        Version::V1 => "partial_v1",
        Version::V2 => "partial_v2",
    };
    let chunks = params.chunks as usize;
    let partials = gradient.device().empty(OP, [chunks])?;
    SHADER.entry(entry).params(params).reads([gradient]).writes([&partials]).groups(chunks)?;
    Ok(partials)
}

/// On a GPU: sums of squares that together are all of the gradient's.
pub(super) fn partial_squares(gradient: &Tensor) -> Result<Tensor> {
    let version = Version::by_fours(gradient.len());
    squares(&sizes(gradient, 0.0, version), gradient, version)
}

/// Lowers the gradient factor `step[3]` so that the norm of `step[3] * gradient` stays below `max_norm`. Returns the
/// norm before, `[1]`, on the device: nothing waits for it.
///
/// # Errors
/// [`Error::Shape`] if `step` is not `[4]`, [`Error::Config`] if `max_norm` is not above 0.
pub fn clip_norm(max_norm: f64, gradient: &Tensor, step: &Tensor) -> Result<Tensor> {
    let version = Version::by_fours(gradient.len());
    observed(OP, gradient.device(), |on| clip(max_norm, &on.read(gradient)?, &on.change(step)?, version))
}

/// As [`clip_norm`], with the kernel named.
///
/// # Errors
/// As [`clip_norm`]; [`Error::Shape`] for [`Version::V2`] if the gradients do not divide by 4.
pub fn clip(max_norm: f64, gradient: &Tensor, step: &Tensor, version: Version) -> Result<Tensor> {
    updates::check(OP, version, gradient.len())?;
    if step.len() != 4 {
        return Err(Error::shape(OP, format!("step must be [4], got {}", step.shape())));
    }
    if max_norm.is_nan() || max_norm <= 0.0 {
        return Err(Error::Config(format!("{OP}: the largest norm must be above 0, got {max_norm}")));
    }
    let params = sizes(gradient, max_norm as f32, version);
    let norm = gradient.device().empty(OP, [1])?;
    match gradient.device() {
        Device::Gpu(_) => {
            let partials = squares(&params, gradient, version)?;
            SHADER.entry("finalize").params(&params).reads([&partials]).writes([step, &norm]).groups(1)?;
        }
        Device::Cpu(_) => plain::clip(&params, &gradient.f32s(), &mut step.f32s_mut(), &mut norm.f32s_mut()),
    }
    Ok(norm)
}
