//! One step of Adam for all of UNeXt's 1.47 million parameters.

use shadegrad::ops::{self, Adam};

use super::BenchCase;

/// UNeXt's parameters, with one class.
const COUNT: usize = 1_471_937;

pub fn cases() -> Vec<BenchCase> {
    vec![BenchCase {
        op: "adam",
        entry: "update",
        version: "v1",
        case: format!("unext [{COUNT}]"),
        flops: COUNT as f64 * 14.0,
        bytes: COUNT as f64 * 28.0,
        prepare: Box::new(|device| {
            let settings = Adam::default();
            let step = device.tensor("bench", [4], &settings.step_values(1e-3, 1))?;
            let zeros = || device.zeros("bench", [COUNT]);
            let (gradient, parameter, m, v) = (zeros()?, zeros()?, zeros()?, zeros()?);
            Ok(Box::new(move || ops::adam(&settings, &gradient, &step, &parameter, &m, &v)))
        }),
    }]
}
