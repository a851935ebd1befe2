//! Cases of the loss scale: finite gradients, infinite ones and NaN first, last and between, the step at which it grows.

use shadegrad::cpu::unscale::{UnscaleParams, unscale};
use shadegrad::ops;

use super::{Case, EXACT, doubles, numbers};

const OP: &str = "unscale";

pub fn cases() -> Vec<Case> {
    let mut cases = vec![case(10_007, None, 5.0), case(10_007, None, 9.0)];
    for count in [1, 63, 10_007, 300_001] {
        for (at, value) in [(0, f32::INFINITY), (count / 2, f32::NAN), (count - 1, f32::NEG_INFINITY)] {
            cases.push(case(count, Some((at, value)), 9.0));
        }
    }
    cases
}

/// `steps` have gone well since the scale changed; the tenth doubles it.
fn case(count: usize, wrong: Option<(usize, f32)>, steps: f32) -> Case {
    Case::new(OP, format!("{count} with {wrong:?}, after {steps} steps"), move |device, checks| {
        let mut g = numbers("g", count);
        if let Some((at, value)) = wrong {
            g[at] = value;
        }
        let (step, scale) = ([1.0, 2.0, 3.0, 0.5], [1024.0, steps, 7.0]);
        let (mut want_step, mut want_scale) = (doubles(&step), doubles(&scale));
        let params = UnscaleParams { chunks: 0, interval: 10 };
        unscale(&params, &doubles(&g), &mut want_step, &mut want_scale);
        let (step, scale) = (device.tensor(OP, [4], &step)?, device.tensor(OP, [3], &scale)?);
        ops::unscale(10, &device.tensor(OP, [count], &g)?, &step, &scale)?;
        checks.compare("unscale step", "v1", &step, &want_step, EXACT)?;
        checks.compare("unscale scale", "v1", &scale, &want_scale, EXACT)
    })
}
