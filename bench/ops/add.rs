//! Sums in UNeXt (batch 8 at 256x256): skip connections of the decoder, and the residual of the shifted blocks.

use shadegrad::ops::Version;
use shadegrad::{Shape, ops};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for shape in [[8, 128, 128, 16], [8, 64, 64, 32], [8, 32, 32, 128], [8, 16, 16, 160], [8, 8, 8, 256]] {
        let elements = Shape::from(shape).len() as f64;
        for version in [Version::V1, Version::V2] {
            cases.push(BenchCase {
                op: "add",
                entry: "forward",
                version: version.name(),
                case: format!("unext {shape:?}"),
                flops: elements,
                bytes: elements * 12.0,
                prepare: Box::new(move |device| {
                    let (a, b) = (device.zeros("bench", shape)?, device.zeros("bench", shape)?);
                    Ok(Box::new(move || ops::add::forward(&a, &b, version).map(drop)))
                }),
            });
            cases.push(BenchCase {
                op: "add",
                entry: "assign",
                version: version.name(),
                case: format!("unext {shape:?}"),
                flops: elements,
                bytes: elements * 12.0,
                prepare: Box::new(move |device| {
                    let (sum, added) = (device.zeros("bench", shape)?, device.zeros("bench", shape)?);
                    Ok(Box::new(move || ops::add::assign(&sum, &added, version)))
                }),
            });
        }
    }
    cases
}
