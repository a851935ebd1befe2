//! Exponential moving average of the parameters (Polyak averaging).
//!
//! # Forward
//! `average = average + (1 - decay) * (parameter - average)`
//!
//! # Backward
//! No gradient: the average follows the weights, nothing is computed from it while training.
//!
//! # Data flow
//! ```text
//! parameter [count] ---+--> update --> average [count], changed in place
//! average   [count] ---'    one invocation, one number; in v2 four
//! ```
//!
//! Shapes: both `[count]`.
//!
//! Versions: v1 (a number per invocation), v2 (four).
//!
//! Launches: 1.
//!
//! # Files
//! - [`shaders/ema.wgsl`](../../../../../shaders/ema.wgsl), below
//! - [`src/ops/ema.rs`](../../../src/shadegrad/ops/ema.rs.html)
//! - [`src/cpu/ema.rs`](../../../src/shadegrad/cpu/ema.rs.html)
//! - [`kernels-tests/ops/ema.rs`](../../../../../kernels-tests/ops/ema.rs)
//! - [`bench/ops/ema.rs`](../../../../../bench/ops/ema.rs)
//!
//! <details><summary>shaders/ema.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/ema.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use super::{Version, updates};
use crate::cpu::ema::{self as plain, EmaParams};
use crate::debug::observed;
use crate::gpu::Shader;
use crate::gpu::shader::shader;
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "ema";
pub(super) const SHADER: Shader = shader!("ema");
pub(super) const PLAN: Plan =
    Plan { op: OP, rules: &[updates::RULE], run: |on| ema(0.999, &on.flat()?, &on.flat()?).map(|()| None) };

/// Moves `average` towards `parameter` in place; `decay` in 0..=1 is the share of the average that stays.
///
/// # Errors
/// [`Error::Shape`] if the tensors differ in size.
pub fn ema(decay: f64, parameter: &Tensor, average: &Tensor) -> Result<()> {
    let version = Version::by_fours(parameter.len());
    observed(OP, parameter.device(), |on| update(decay, &on.read(parameter)?, &on.change(average)?, version))
}

/// As [`ema`], with the kernel named.
///
/// # Errors
/// As [`ema`]; [`Error::Shape`] for [`Version::V2`] if the numbers do not divide by 4.
pub fn update(decay: f64, parameter: &Tensor, average: &Tensor, version: Version) -> Result<()> {
    let count = parameter.len();
    if average.len() != count {
        let shapes = format!("{} and {}", average.shape(), parameter.shape());
        return Err(Error::shape(OP, format!("average and parameter must be alike, got {shapes}")));
    }
    let params = EmaParams { count: count as u32, one_minus_decay: (1.0 - decay) as f32 };
    match parameter.device() {
        Device::Gpu(_) => {
            let (entry, invocations) = updates::entry(OP, version, count)?;
            SHADER.entry(entry).params(&params).reads([parameter]).writes([average]).over(invocations)
        }
        Device::Cpu(_) => {
            plain::update(&params, &parameter.f32s(), &mut average.f32s_mut());
            Ok(())
        }
    }
}
