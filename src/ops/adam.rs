//! Adam and AdamW for all parameters in one dispatch.
//!
//! # Forward
//! For each number: gradient g, parameter p, moments m and v, decays b1 and b2.
//!
//! ```text
//! g' = factor g + decay p
//! m  = b1 m + (1 - b1) g'
//! v  = b2 v + (1 - b2) g'^2
//! p  = p - shrink p - step_size m / (sqrt(v) / root_correction + eps)
//! ```
//!
//! What changes at every step stands in `step = [step_size, root_correction, shrink, factor]`: step_size = lr / (1 -
//! b1^t), root_correction = sqrt(1 - b2^t), shrink = lr decay (AdamW, with decay = 0 above) or 0, and factor = 1 unless
//! gradients are clipped or accumulated.
//!
//! # Backward
//! No gradient: an update of the weights is not differentiated.
//!
//! # Data flow
//! ```text
//! gradient [count] ---.
//! step         [4] ---+--> update --> parameter, m, v [count], changed in place
//! parameter, m, v  ---'    one invocation, one number; in v2 four
//! ```
//!
//! Shapes: gradient, parameter and both moments `[count]`; `step` `[4]`.
//!
//! Versions: v1 (a number per invocation), v2 (four).
//!
//! Launches: 1.
//!
//! # Files
//! - [`shaders/adam.wgsl`](../../../../../shaders/adam.wgsl), below
//! - [`src/ops/adam.rs`](../../../src/shadegrad/ops/adam.rs.html)
//! - [`src/cpu/adam.rs`](../../../src/shadegrad/cpu/adam.rs.html)
//! - [`kernels-tests/ops/adam.rs`](../../../../../kernels-tests/ops/adam.rs)
//! - [`bench/ops/adam.rs`](../../../../../bench/ops/adam.rs)
//!
//! <details><summary>shaders/adam.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/adam.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use super::{Version, updates};
use crate::cpu::adam::{self as plain, AdamParams};
use crate::debug::observed;
use crate::gpu::Shader;
use crate::gpu::shader::shader;
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "adam";
pub(super) const SHADER: Shader = shader!("adam");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[updates::RULE],
    run: |on| {
        let [p, m, v] = [on.flat()?, on.flat()?, on.flat()?];
        adam(&Adam::default(), &on.flat()?, &on.constant([4])?, &p, &m, &v).map(|()| None)
    },
};

/// Adam's settings, as in PyTorch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Decay of the first moment: 0.9.
    pub beta1: f64,
    /// Decay of the second moment: 0.999.
    pub beta2: f64,
    /// Added to the root of the second moment after its bias correction: 1e-8.
    pub eps: f64,
    /// Weight decay: times the parameter, added to the gradient.
    pub weight_decay: f64,
    /// AdamW: the decay shrinks the parameter instead, by `lr * weight_decay`.
    pub decoupled: bool,
}

impl Default for Adam {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decoupled: false }
    }
}

impl Adam {
    /// What `step` must hold before step `t` (from 1) with rate `lr`:
    /// `[lr / (1 - beta1^t), sqrt(1 - beta2^t), lr * weight_decay if decoupled, 1]`. The last is the gradient's factor.
    pub fn step_values(&self, lr: f64, t: u64) -> [f32; 4] {
        let power = |beta: f64| beta.powf(t as f64);
        let shrink = if self.decoupled { lr * self.weight_decay } else { 0.0 };
        [(lr / (1.0 - power(self.beta1))) as f32, (1.0 - power(self.beta2)).sqrt() as f32, shrink as f32, 1.0]
    }

    fn params(&self, count: usize) -> AdamParams {
        AdamParams {
            count: count as u32,
            beta1: self.beta1 as f32,
            one_minus_beta1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            one_minus_beta2: (1.0 - self.beta2) as f32,
            eps: self.eps as f32,
            weight_decay: if self.decoupled { 0.0 } else { self.weight_decay as f32 },
        }
    }
}

/// Updates `parameter` and its moments in place.
///
/// # Errors
/// [`Error::Shape`] if the four tensors differ in size or `step` is not `[4]`.
pub fn adam(
    settings: &Adam,
    gradient: &Tensor,
    step: &Tensor,
    parameter: &Tensor,
    m: &Tensor,
    v: &Tensor,
) -> Result<()> {
    observed(OP, parameter.device(), |on| {
        let (gradient, step, version) = (&on.read(gradient)?, &on.read(step)?, Version::by_fours(parameter.len()));
        update(settings, gradient, step, [&on.change(parameter)?, &on.change(m)?, &on.change(v)?], version)
    })
}

/// As [`adam`] for `[parameter, m, v]`, with the kernel named.
///
/// # Errors
/// As [`adam`]; [`Error::Shape`] for [`Version::V2`] if the numbers do not divide by 4.
pub fn update(
    settings: &Adam,
    gradient: &Tensor,
    step: &Tensor,
    [parameter, m, v]: [&Tensor; 3],
    version: Version,
) -> Result<()> {
    let count = parameter.len();
    if [gradient.len(), m.len(), v.len()] != [count; 3] || step.len() != 4 {
        let shapes = [gradient, parameter, m, v, step].map(|tensor| tensor.shape().to_string()).join(", ");
        return Err(Error::shape(OP, format!("gradient, parameter and moments must be alike and step [4]: {shapes}")));
    }
    let params = settings.params(count);
    match parameter.device() {
        Device::Gpu(_) => {
            let (entry, invocations) = updates::entry(OP, version, count)?;
            SHADER.entry(entry).params(&params).reads([gradient, step]).writes([parameter, m, v]).over(invocations)
        }
        Device::Cpu(_) => {
            let (mut p, mut m, mut v) = (parameter.f32s_mut(), m.f32s_mut(), v.f32s_mut());
            plain::update(&params, &gradient.f32s(), &step.f32s(), &mut p, &mut m, &mut v);
            Ok(())
        }
    }
}
