//! Cases of gradient descent: four steps, plain, with momentum, with Nesterov's, with weight decay and a gradient factor.

use shadegrad::ops::{Sgd, sgd};

use super::{Case, SUMS, by_fours, doubles, numbers};

const OP: &str = "sgd";
const RATE: f64 = 1e-2;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for count in [1, 63, 10004, 10007] {
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            cases.push(case(count, Sgd { momentum, nesterov, weight_decay: 1e-2 }, 0.375));
        }
    }
    cases.push(case(1000, Sgd::default(), 1.0));
    cases
}

fn case(count: usize, settings: Sgd, factor: f32) -> Case {
    let Sgd { momentum, nesterov, weight_decay } = settings;
    let name = format!("{count} momentum {momentum} nesterov {nesterov} decay {weight_decay} factor {factor}");
    Case::new(OP, name, move |device, checks| {
        // The constants as the kernel gets them, in f32.
        let [momentum, decay, rate] = [momentum, weight_decay, RATE].map(|value| f64::from(value as f32));
        let start = numbers("p", count);
        for &version in by_fours(count) {
            let (mut want_p, mut want_buffer) = (doubles(&start), vec![0.0; count]);
            let (parameter, buffer) = (device.tensor(OP, [count], &start)?, device.zeros(OP, [count])?);
            let step = device.zeros(OP, [4])?;
            for t in 0..4 {
                let g = numbers(&format!("g{t}"), count);
                let [rate32, a, b, _] = settings.step_values(RATE);
                step.write(&[rate32, a, b, factor])?;
                sgd::update(&settings, &device.tensor(OP, [count], &g)?, &step, [&parameter, &buffer], version)?;
                for i in 0..count {
                    let g = f64::from(factor) * f64::from(g[i]) + decay * want_p[i];
                    want_buffer[i] = momentum * want_buffer[i] + g;
                    want_p[i] -= rate * if nesterov { g + momentum * want_buffer[i] } else { want_buffer[i] };
                }
            }
            // Four steps of roundings, each carried on by the momentum.
            checks.compare("update parameter", version.name(), &parameter, &want_p, SUMS)?;
            checks.compare("update buffer", version.name(), &buffer, &want_buffer, SUMS)?;
        }
        Ok(())
    })
}
