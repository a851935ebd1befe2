//! Upsampling in UNeXt's decoder, and with align_corners in ResUNet's (batch 8 at 256x256).

use shadegrad::ops::Version;
use shadegrad::{Shape, Tape, ops};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for shape in [[8, 8, 8, 160], [8, 16, 16, 128], [8, 32, 32, 32], [8, 64, 64, 16], [8, 128, 128, 16]] {
        for version in [Version::V1, Version::V2] {
            cases.extend(both("unext", shape, false, version));
        }
    }
    for shape in [[8, 32, 32, 512], [8, 64, 64, 256], [8, 128, 128, 128]] {
        for version in [Version::V1, Version::V2] {
            cases.extend(both("resunet", shape, true, version));
        }
    }
    cases
}

fn both(network: &str, shape: [usize; 4], corners: bool, version: Version) -> [BenchCase; 2] {
    let elements = Shape::from(shape).len() as f64;
    let [n, h, w, c] = shape;
    let forward = BenchCase {
        op: "upsample_bilinear",
        entry: "forward",
        version: version.name(),
        case: format!("{network} {shape:?}"),
        flops: elements * 4.0 * 9.0,
        bytes: elements * 4.0 * 5.0,
        prepare: Box::new(move |device| {
            let x = device.zeros("bench", shape)?;
            Ok(Box::new(move || ops::upsample_bilinear::forward(&x, corners, version).map(drop)))
        }),
    };
    let backward = BenchCase {
        op: "upsample_bilinear",
        entry: "forward+backward_input",
        version: version.name(),
        case: format!("{network} {shape:?}"),
        flops: elements * (4.0 * 9.0 + 32.0),
        bytes: elements * 4.0 * 10.0,
        prepare: Box::new(move |device| {
            let (x, gy) = (device.zeros("bench", shape)?, device.zeros("bench", [n, 2 * h, 2 * w, c])?);
            Ok(Box::new(move || {
                let tape = Tape::new();
                let y = ops::upsample_bilinear::forward(&tape.watch_input(&x), corners, version)?;
                tape.backward_from(&y, &gy).map(drop)
            }))
        }),
    };
    [forward, backward]
}
