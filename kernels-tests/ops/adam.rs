//! Cases of Adam and AdamW: five steps with ordinary, zero and tiny gradients, with and without weight decay, and with
//! a factor on the gradient.
//!
//! The reference is the formula of the paper in f64, with the bias corrections where the paper has them.

use shadegrad::ops::{Adam, adam};

use super::{Case, Tolerance, by_fours, doubles, numbers};

const OP: &str = "adam";
const STEPS: u64 = 5;
const RATE: f64 = 1e-2;

/// Five steps of a quotient and a root, each off by a few units in the last place.
const STEPS_OF_ROUNDING: Tolerance = Tolerance { nmse: 1e-12, absolute: 2e-6 };

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for count in [1, 63, 10004, 10007] {
        for weight_decay in [0.0, 1e-2] {
            for decoupled in [false, true] {
                cases.push(case(count, "gradients", 1.0, 1.0, Adam { weight_decay, decoupled, ..Adam::default() }));
            }
        }
    }
    cases.push(case(1000, "zero gradients", 0.0, 1.0, Adam { weight_decay: 0.0, ..Adam::default() }));
    cases.push(case(1000, "zero gradients", 0.0, 1.0, Adam { weight_decay: 1e-2, ..Adam::default() }));
    // From a parameter of zero, so that the result is the update and nothing hides it.
    cases.push(case(1000, "gradients of 1e-9", 1e-9, 0.0, Adam { weight_decay: 0.0, ..Adam::default() }));
    cases.push(case(1000, "large gradients", 1e4, 0.0, Adam { weight_decay: 0.0, ..Adam::default() }));
    cases
}

fn case(count: usize, what: &str, gradient_scale: f32, parameter_scale: f32, settings: Adam) -> Case {
    let Adam { weight_decay, decoupled, .. } = settings;
    let name = format!("{count} {what}, weight decay {weight_decay}{}", if decoupled { ", AdamW" } else { "" });
    Case::new(OP, name, move |device, checks| {
        let factor = if decoupled { 0.375 } else { 1.0 };
        // The constants as the kernel gets them, in f32.
        let [beta1, rest1, beta2, rest2, eps, decay] =
            [settings.beta1, 1.0 - settings.beta1, settings.beta2, 1.0 - settings.beta2, settings.eps, weight_decay]
                .map(|value| f64::from(value as f32));
        let start: Vec<f32> = numbers("p", count).iter().map(|p| p * parameter_scale).collect();
        for &version in by_fours(count) {
            let mut want_p = doubles(&start);
            let (mut want_m, mut want_v) = (vec![0.0; count], vec![0.0; count]);

            let parameter = device.tensor(OP, [count], &start)?;
            let (m, v) = (device.zeros(OP, [count])?, device.zeros(OP, [count])?);
            let step = device.zeros(OP, [4])?;
            for t in 1..=STEPS {
                let g: Vec<f32> = numbers(&format!("g{t}"), count).iter().map(|g| g * gradient_scale).collect();
                let [size, root, shrink, _] = settings.step_values(RATE, t);
                step.write(&[size, root, shrink, factor])?;
                adam::update(&settings, &device.tensor(OP, [count], &g)?, &step, [&parameter, &m, &v], version)?;
                let (correct1, correct2) = (1.0 - settings.beta1.powf(t as f64), 1.0 - settings.beta2.powf(t as f64));
                for i in 0..count {
                    let mut g = f64::from(factor) * f64::from(g[i]);
                    if decoupled {
                        want_p[i] -= RATE * weight_decay * want_p[i];
                    } else {
                        g += decay * want_p[i];
                    }
                    want_m[i] = beta1 * want_m[i] + rest1 * g;
                    want_v[i] = beta2 * want_v[i] + rest2 * g * g;
                    want_p[i] -= RATE * (want_m[i] / correct1) / ((want_v[i] / correct2).sqrt() + eps);
                }
            }
            checks.compare("update parameter", version.name(), &parameter, &want_p, STEPS_OF_ROUNDING)?;
            // Tiny moments are scaled to about 1: a bound of 1e-6 says nothing about 1e-21.
            let scale = if gradient_scale == 0.0 { 1.0 } else { 1.0 / gradient_scale };
            let mut scaled = |entry, got: Vec<f32>, want: &[f64], powers: i32| {
                let got: Vec<f32> =
                    got.iter().map(|g| (f64::from(*g) * f64::from(scale).powi(powers)) as f32).collect();
                let want: Vec<f64> = want.iter().map(|w| w * f64::from(scale).powi(powers)).collect();
                checks.values(entry, version.name(), &got, &want, STEPS_OF_ROUNDING);
            };
            scaled("update m", m.to_vec()?, &want_m, 1);
            scaled("update v", v.to_vec()?, &want_v, 2);
        }
        Ok(())
    })
}
