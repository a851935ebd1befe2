//! Rectifiers of UNeXt (batch 8 at 256x256): after each pooling and each upsampling.

use shadegrad::ops::Version;
use shadegrad::{Shape, Tape, ops};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for shape in [[8, 256, 256, 16], [8, 128, 128, 16], [8, 64, 64, 32], [8, 32, 32, 128], [8, 16, 16, 160]] {
        let elements = Shape::from(shape).len() as f64;
        for version in [Version::V1, Version::V2] {
            cases.push(BenchCase {
                op: "relu",
                entry: "forward",
                version: version.name(),
                case: format!("unext {shape:?}"),
                flops: elements,
                bytes: elements * 8.0,
                prepare: Box::new(move |device| {
                    let x = device.zeros("bench", shape)?;
                    Ok(Box::new(move || ops::relu::forward(&x, version).map(drop)))
                }),
            });
            cases.push(BenchCase {
                op: "relu",
                entry: "forward+backward_input",
                version: version.name(),
                case: format!("unext {shape:?}"),
                flops: elements * 2.0,
                bytes: elements * 20.0,
                prepare: Box::new(move |device| {
                    let (x, gy) = (device.zeros("bench", shape)?, device.zeros("bench", shape)?);
                    Ok(Box::new(move || {
                        let tape = Tape::new();
                        let y = ops::relu::forward(&tape.watch_input(&x), version)?;
                        tape.backward_from(&y, &gy).map(drop)
                    }))
                }),
            });
        }
    }
    cases
}
