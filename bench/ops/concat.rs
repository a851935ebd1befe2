//! Skip connections of U-Net (base 16, batch 8 at 256x256) and the widest of ResUNet (base 16): upsampled, then skip.

use shadegrad::ops::Version;
use shadegrad::{Tape, ops};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for (name, [n, h, w], ca, cb) in [
        ("unet d4", [8, 256, 256], 16, 16),
        ("unet d2", [8, 64, 64], 64, 64),
        ("resunet d3", [8, 256, 256], 32, 16),
        ("resunet d1", [8, 64, 64], 128, 64),
    ] {
        let bytes = 8.0 * (n * h * w * (ca + cb)) as f64;
        for version in [Version::V1, Version::V2] {
            cases.push(BenchCase {
                op: "concat",
                entry: "forward",
                version: version.name(),
                case: format!("{name} [{n}, {h}, {w}, {ca}+{cb}]"),
                flops: 0.0,
                bytes,
                prepare: Box::new(move |device| {
                    let (a, b) = (device.zeros("bench", [n, h, w, ca])?, device.zeros("bench", [n, h, w, cb])?);
                    Ok(Box::new(move || ops::concat::forward(&a, &b, version).map(drop)))
                }),
            });
            cases.push(BenchCase {
                op: "concat",
                entry: "forward+backward",
                version: version.name(),
                case: format!("{name} [{n}, {h}, {w}, {ca}+{cb}]"),
                flops: 0.0,
                bytes: 2.0 * bytes,
                prepare: Box::new(move |device| {
                    let (a, b) = (device.zeros("bench", [n, h, w, ca])?, device.zeros("bench", [n, h, w, cb])?);
                    let gy = device.zeros("bench", [n, h, w, ca + cb])?;
                    Ok(Box::new(move || {
                        let tape = Tape::new();
                        let y = ops::concat::forward(&tape.watch_input(&a), &tape.watch_input(&b), version)?;
                        tape.backward_from(&y, &gy).map(drop)
                    }))
                }),
            });
        }
    }
    cases
}
