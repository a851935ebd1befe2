//! Stochastic gradient descent with momentum for all parameters in one dispatch.
//!
//! # Forward
//! ```text
//! g'     = factor g + decay p
//! buffer = momentum buffer + g'
//! p      = p - rate (nesterov ? g' + momentum buffer : buffer)
//! ```
//!
//! rate and factor (1 unless gradients are clipped or accumulated) stand in `step = [rate, -, -, factor]`.
//!
//! # Backward
//! No gradient: an update of the weights is not differentiated.
//!
//! # Data flow
//! ```text
//! gradient [count] ----.
//! step         [4] ----+--> update --> parameter, buffer [count], changed in place
//! parameter, buffer ---'    one invocation, one number; in v2 four
//! ```
//!
//! Shapes: gradient, parameter and buffer `[count]`; `step` `[4]`.
//!
//! Versions: v1 (a number per invocation), v2 (four).
//!
//! Launches: 1.
//!
//! # Files
//! - [`shaders/sgd.wgsl`](../../../../../shaders/sgd.wgsl), below
//! - [`src/ops/sgd.rs`](../../../src/shadegrad/ops/sgd.rs.html)
//! - [`src/cpu/sgd.rs`](../../../src/shadegrad/cpu/sgd.rs.html)
//! - [`kernels-tests/ops/sgd.rs`](../../../../../kernels-tests/ops/sgd.rs)
//! - [`bench/ops/sgd.rs`](../../../../../bench/ops/sgd.rs)
//!
//! <details><summary>shaders/sgd.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/sgd.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use super::{Version, updates};
use crate::cpu::sgd::{self as plain, SgdParams};
use crate::debug::observed;
use crate::gpu::Shader;
use crate::gpu::shader::shader;
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "sgd";
pub(super) const SHADER: Shader = shader!("sgd");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[updates::RULE],
    run: |on| {
        let (parameter, buffer) = (on.flat()?, on.flat()?);
        sgd(&Sgd::default(), &on.flat()?, &on.constant([4])?, &parameter, &buffer).map(|()| None)
    },
};

/// The settings, as in PyTorch (dampening 0).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sgd {
    /// Share of the momentum buffer that stays from step to step; 0: plain gradient descent.
    pub momentum: f64,
    /// Look ahead along the momentum.
    pub nesterov: bool,
    /// Weight decay: times the parameter, added to the gradient.
    pub weight_decay: f64,
}

impl Sgd {
    /// What `step` must hold before a step with rate `lr`: `[lr, 0, 0, 1]`. The last is the gradient's factor.
    pub fn step_values(&self, lr: f64) -> [f32; 4] {
        [lr as f32, 0.0, 0.0, 1.0]
    }
}

/// Updates `parameter` and its momentum `buffer` in place; the buffer starts at 0.
///
/// # Errors
/// [`Error::Shape`] if the three tensors differ in size or `step` is not `[4]`.
pub fn sgd(settings: &Sgd, gradient: &Tensor, step: &Tensor, parameter: &Tensor, buffer: &Tensor) -> Result<()> {
    observed(OP, parameter.device(), |on| {
        let (gradient, step, version) = (&on.read(gradient)?, &on.read(step)?, Version::by_fours(parameter.len()));
        update(settings, gradient, step, [&on.change(parameter)?, &on.change(buffer)?], version)
    })
}

/// As [`sgd`] for `[parameter, buffer]`, with the kernel named.
///
/// # Errors
/// As [`sgd`]; [`Error::Shape`] for [`Version::V2`] if the numbers do not divide by 4.
pub fn update(
    settings: &Sgd,
    gradient: &Tensor,
    step: &Tensor,
    [parameter, buffer]: [&Tensor; 2],
    version: Version,
) -> Result<()> {
    let count = parameter.len();
    if [gradient.len(), buffer.len()] != [count; 2] || step.len() != 4 {
        let shapes = [gradient, parameter, buffer, step].map(|tensor| tensor.shape().to_string()).join(", ");
        return Err(Error::shape(OP, format!("gradient, parameter and buffer must be alike and step [4]: {shapes}")));
    }
    let params = SgdParams {
        count: count as u32,
        momentum: settings.momentum as f32,
        nesterov: u32::from(settings.nesterov),
        weight_decay: settings.weight_decay as f32,
    };
    match parameter.device() {
        Device::Gpu(_) => {
            let (entry, invocations) = updates::entry(OP, version, count)?;
            SHADER.entry(entry).params(&params).reads([gradient, step]).writes([parameter, buffer]).over(invocations)
        }
        Device::Cpu(_) => {
            let (mut p, mut buffer) = (parameter.f32s_mut(), buffer.f32s_mut());
            plain::update(&params, &gradient.f32s(), &step.f32s(), &mut p, &mut buffer);
            Ok(())
        }
    }
}
