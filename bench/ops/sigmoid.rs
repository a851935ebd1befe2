//! The logistic function over the logits of a network (batch 8 at 256x256), one class and four.

use shadegrad::ops::Version;
use shadegrad::{Shape, Tape, ops};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for shape in [[8, 256, 256, 1], [8, 256, 256, 4]] {
        let elements = Shape::from(shape).len() as f64;
        for version in [Version::V1, Version::V2] {
            cases.push(BenchCase {
                op: "sigmoid",
                entry: "forward",
                version: version.name(),
                case: format!("logits {shape:?}"),
                flops: elements * 4.0,
                bytes: elements * 8.0,
                prepare: Box::new(move |device| {
                    let x = device.zeros("bench", shape)?;
                    Ok(Box::new(move || ops::sigmoid::forward(&x, version).map(drop)))
                }),
            });
            cases.push(BenchCase {
                op: "sigmoid",
                entry: "forward+backward_input",
                version: version.name(),
                case: format!("logits {shape:?}"),
                flops: elements * 7.0,
                bytes: elements * 20.0,
                prepare: Box::new(move |device| {
                    let (x, gy) = (device.zeros("bench", shape)?, device.zeros("bench", shape)?);
                    Ok(Box::new(move || {
                        let tape = Tape::new();
                        let y = ops::sigmoid::forward(&tape.watch_input(&x), version)?;
                        tape.backward_from(&y, &gy).map(drop)
                    }))
                }),
            });
        }
    }
    cases
}
