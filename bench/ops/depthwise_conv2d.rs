//! The 3x3 depthwise convolutions of UNeXt (batch 8 at 256x256): block1 and dblock1, block2, dblock2.

use shadegrad::ops::Version;
use shadegrad::{Shape, Tape, ops};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for shape in [[8, 16, 16, 160], [8, 8, 8, 256], [8, 32, 32, 128]] {
        for version in [Version::V1, Version::V2] {
            cases.extend(both(shape, version));
        }
    }
    cases
}

fn both(shape: [usize; 4], version: Version) -> [BenchCase; 2] {
    let elements = Shape::from(shape).len() as f64;
    let c = shape[3];
    let forward = BenchCase {
        op: "depthwise_conv2d",
        entry: "forward",
        version: version.name(),
        case: format!("unext {shape:?}"),
        flops: elements * 18.0,
        bytes: elements * 8.0,
        prepare: Box::new(move |device| {
            let (x, weight) = (device.zeros("bench", shape)?, device.zeros("bench", [3, 3, c])?);
            let bias = device.zeros("bench", [c])?;
            Ok(Box::new(move || ops::depthwise_conv2d::forward(&x, &weight, Some(&bias), 1, version).map(drop)))
        }),
    };
    let backward = BenchCase {
        op: "depthwise_conv2d",
        entry: "forward+backward",
        version: version.name(),
        case: format!("unext {shape:?}"),
        flops: elements * 55.0,
        bytes: elements * 24.0,
        prepare: Box::new(move |device| {
            let (x, weight) = (device.zeros("bench", shape)?, device.zeros("bench", [3, 3, c])?);
            let (bias, gy) = (device.zeros("bench", [c])?, device.zeros("bench", shape)?);
            Ok(Box::new(move || {
                let tape = Tape::new();
                let (x, weight, bias) = (tape.watch_input(&x), tape.watch_input(&weight), tape.watch_input(&bias));
                let y = ops::depthwise_conv2d::forward(&x, &weight, Some(&bias), 1, version)?;
                tape.backward_from(&y, &gy).map(drop)
            }))
        }),
    };
    [forward, backward]
}
