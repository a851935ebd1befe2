//! The norm of all of UNeXt's 1.47 million gradients.

use shadegrad::ops;

use super::BenchCase;

/// UNeXt's parameters, with one class.
const COUNT: usize = 1_471_937;

pub fn cases() -> Vec<BenchCase> {
    vec![BenchCase {
        op: "clip_norm",
        entry: "clip",
        version: "v1",
        case: format!("unext [{COUNT}]"),
        flops: COUNT as f64 * 2.0,
        bytes: COUNT as f64 * 4.0,
        prepare: Box::new(|device| {
            let (gradient, step) = (device.zeros("bench", [COUNT])?, device.zeros("bench", [4])?);
            Ok(Box::new(move || ops::clip_norm(1.0, &gradient, &step).map(drop)))
        }),
    }]
}
