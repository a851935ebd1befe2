//! The moving average of all of UNeXt's 1.47 million parameters.

use shadegrad::ops;

use super::BenchCase;

/// UNeXt's parameters, with one class.
const COUNT: usize = 1_471_937;

pub fn cases() -> Vec<BenchCase> {
    vec![BenchCase {
        op: "ema",
        entry: "update",
        version: "v1",
        case: format!("unext [{COUNT}]"),
        flops: COUNT as f64 * 3.0,
        bytes: COUNT as f64 * 12.0,
        prepare: Box::new(|device| {
            let (parameter, average) = (device.zeros("bench", [COUNT])?, device.zeros("bench", [COUNT])?);
            Ok(Box::new(move || ops::ema(0.999, &parameter, &average)))
        }),
    }]
}
