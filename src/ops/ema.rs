//! Exponential moving average of the parameters (Polyak averaging). Not differentiated.
//!
//! average += (1 - decay) * (parameter - average).  Shapes: both `[count]`.  Versions: one.

use crate::cpu::ema::{self as plain, EmaParams};
use crate::debug::observed;
use crate::gpu::Shader;
use crate::gpu::shader::shader;
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "ema";
pub(super) const SHADER: Shader = shader!("ema");

/// Moves `average` towards `parameter` in place; `decay` in 0..=1 is the share of the average that stays.
///
/// # Errors
/// [`Error::Shape`] if the tensors differ in size.
pub fn ema(decay: f64, parameter: &Tensor, average: &Tensor) -> Result<()> {
    observed(OP, parameter.device(), |on| update(decay, &on.read(parameter)?, &on.change(average)?))
}

fn update(decay: f64, parameter: &Tensor, average: &Tensor) -> Result<()> {
    let count = parameter.len();
    if average.len() != count {
        let shapes = format!("{} and {}", average.shape(), parameter.shape());
        return Err(Error::shape(OP, format!("average and parameter must be alike, got {shapes}")));
    }
    let params = EmaParams { count: count as u32, one_minus_decay: (1.0 - decay) as f32 };
    match parameter.device() {
        Device::Gpu(_) => SHADER.entry("update").params(&params).reads([parameter]).writes([average]).over(count),
        Device::Cpu(_) => {
            plain::update(&params, &parameter.f32s(), &mut average.f32s_mut());
            Ok(())
        }
    }
}
