//! Class probabilities of a whole batch: the logits of 4 and of 16 classes.

use shadegrad::ops::Version;
use shadegrad::{Shape, Tape, ops};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for shape in [[8, 256, 256, 4], [2, 256, 256, 16]] {
        let elements = Shape::from(shape).len() as f64;
        for version in [Version::V1, Version::V2] {
            cases.push(BenchCase {
                op: "softmax",
                entry: "forward",
                version: version.name(),
                case: format!("classes {shape:?}"),
                flops: elements * 4.0,
                bytes: elements * 8.0,
                prepare: Box::new(move |device| {
                    let x = device.zeros("bench", shape)?;
                    Ok(Box::new(move || ops::softmax::forward(&x, version).map(drop)))
                }),
            });
            cases.push(BenchCase {
                op: "softmax",
                entry: "forward+backward_input",
                version: version.name(),
                case: format!("classes {shape:?}"),
                flops: elements * 8.0,
                bytes: elements * 20.0,
                prepare: Box::new(move |device| {
                    let (x, gy) = (device.zeros("bench", shape)?, device.zeros("bench", shape)?);
                    Ok(Box::new(move || {
                        let tape = Tape::new();
                        let y = ops::softmax::forward(&tape.watch_input(&x), version)?;
                        tape.backward_from(&y, &gy).map(drop)
                    }))
                }),
            });
        }
    }
    cases
}
