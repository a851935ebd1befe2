//! The dynamic loss scale of mixed precision (`torch.amp.GradScaler`; P. Micikevicius et al., arXiv 1710.03740), on the device.
//!
//! # Forward
//! The gradients are those of `scale * loss`. If all of them are finite, `step[3] = step[3] / scale`, and after `interval`
//! such steps the scale doubles. Else `step[3] = 0`, by which the optimizer leaves everything as it is, and the scale
//! halves. Nothing waits for the answer.
//!
//! # Backward
//! No gradient: it prepares an update of the weights.
//!
//! # Data flow
//! ```text
//! gradient [count]   | chunk | chunk | chunk | ..
//!                        |       |       |      clip_norm's partial: a workgroup, the squares of one chunk
//! partials           [   .       .       .  .. ]
//!                        \_______|_______/      finalize: one workgroup
//! step[3], scale [3]
//! ```
//!
//! Shapes: gradient `[count]`, `step` `[4]`, `scale` `[3]`: the scale, steps since it changed, skipped steps.
//!
//! Versions: one.
//!
//! Launches: 2.
//!
//! # Files
//! - [`shaders/unscale.wgsl`](../../../../../shaders/unscale.wgsl), below
//! - [`src/ops/unscale.rs`](../../../src/shadegrad/ops/unscale.rs.html)
//! - [`src/cpu/unscale.rs`](../../../src/shadegrad/cpu/unscale.rs.html)
//! - [`kernels-tests/ops/unscale.rs`](../../../../../kernels-tests/ops/unscale.rs)
//! - [`bench/ops/unscale.rs`](../../../../../bench/ops/unscale.rs)
//!
//! <details><summary>shaders/unscale.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/unscale.wgsl")]
//! ```
//! </details>

use super::clip_norm::partial_squares;
use super::plan::Plan;
use crate::cpu::unscale::{self as plain, UnscaleParams};
use crate::debug::observed;
use crate::gpu::Shader;
use crate::gpu::shader::shader;
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "unscale";
pub(super) const SHADER: Shader = shader!("unscale");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[],
    run: |on| unscale(INTERVAL, &on.flat()?, &on.constant([4])?, &on.constant([3])?).map(|()| None),
};

/// The scale at the start: what the loss is multiplied by, steps since that changed, skipped steps. As
/// `torch.amp.GradScaler`.
pub const START: [f32; 3] = [65536.0, 0.0, 0.0];
/// Good steps after which the scale doubles, as there.
pub const INTERVAL: u32 = 2000;

/// Takes the loss scale `scale[0]` out of the gradient factor `step[3]`, or makes that 0 if a gradient is infinite or NaN;
/// raises or lowers the scale for the next step.
///
/// # Errors
/// [`Error::Shape`] if `step` is not `[4]` or `scale` not `[3]`.
pub fn unscale(interval: u32, gradient: &Tensor, step: &Tensor, scale: &Tensor) -> Result<()> {
    observed(OP, gradient.device(), |on| change(interval, &on.read(gradient)?, &on.change(step)?, &on.change(scale)?))
}

fn change(interval: u32, gradient: &Tensor, step: &Tensor, scale: &Tensor) -> Result<()> {
    if step.len() != 4 || scale.len() != 3 {
        let message = format!("step must be [4] and scale [3], got {} and {}", step.shape(), scale.shape());
        return Err(Error::shape(OP, message));
    }
    match gradient.device() {
        Device::Gpu(_) => {
            let partials = partial_squares(gradient)?;
            let params = UnscaleParams { chunks: partials.len() as u32, interval };
            SHADER.entry("finalize").params(&params).reads([&partials]).writes([step, scale]).groups(1)?;
        }
        Device::Cpu(_) => {
            let params = UnscaleParams { chunks: 1, interval };
            plain::unscale(&params, &gradient.f32s(), &mut step.f32s_mut(), &mut scale.f32s_mut());
        }
    }
    Ok(())
}
