//! One step of gradient descent with momentum for all of UNeXt's 1.47 million parameters.

use shadegrad::ops::{self, Sgd};

use super::BenchCase;

/// UNeXt's parameters, with one class.
const COUNT: usize = 1_471_937;

pub fn cases() -> Vec<BenchCase> {
    vec![BenchCase {
        op: "sgd",
        entry: "update",
        version: "v1",
        case: format!("unext [{COUNT}]"),
        flops: COUNT as f64 * 6.0,
        bytes: COUNT as f64 * 20.0,
        prepare: Box::new(|device| {
            let settings = Sgd { momentum: 0.9, ..Sgd::default() };
            let step = device.tensor("bench", [4], &settings.step_values(1e-3))?;
            let zeros = || device.zeros("bench", [COUNT]);
            let (gradient, parameter, buffer) = (zeros()?, zeros()?, zeros()?);
            Ok(Box::new(move || ops::sgd(&settings, &gradient, &step, &parameter, &buffer)))
        }),
    }]
}
