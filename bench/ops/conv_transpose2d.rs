//! The four up-convolutions of U-Net (2x2, stride 2) at 256x256, base 16 and batch 8.

use shadegrad::ops::Version;
use shadegrad::{Tape, ops};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let layers = [
        ("unet d1.up", [8, 16, 16, 256], 128),
        ("unet d2.up", [8, 32, 32, 128], 64),
        ("unet d3.up", [8, 64, 64, 64], 32),
        ("unet d4.up", [8, 128, 128, 32], 16),
    ];
    let both = |(name, x, out)| [Version::V1, Version::V2].into_iter().flat_map(move |v| layer(name, x, out, v));
    layers.into_iter().flat_map(both).collect()
}

fn layer(name: &'static str, x: [usize; 4], out: usize, version: Version) -> [BenchCase; 2] {
    let [n, h, w, c] = x;
    let weight = [2, 2, out, c];
    let products = (n * h * w * c * 4 * out) as f64;
    let bytes = 4.0 * (n * h * w * (c + 4 * out) + 4 * out * c) as f64;
    let case = |entry, times: f64, prepare| BenchCase {
        op: "conv_transpose2d",
        entry,
        version: version.name(),
        case: format!("{name} {x:?} 2x2 s2 -> {out}"),
        flops: 2.0 * times * products,
        bytes: times * bytes,
        prepare,
    };
    [
        case(
            "forward",
            1.0,
            Box::new(move |device| {
                let (x, w) = (device.zeros("bench", x)?, device.zeros("bench", weight)?);
                let b = device.zeros("bench", [out])?;
                Ok(Box::new(move || ops::conv_transpose2d::forward(&x, &w, Some(&b), 2, 0, 0, version).map(drop)))
            }),
        ),
        case(
            "forward+backward",
            3.0,
            Box::new(move |device| {
                let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", weight)?);
                let (bias, gy) = (device.zeros("bench", [out])?, device.zeros("bench", [n, 2 * h, 2 * w, out])?);
                Ok(Box::new(move || {
                    let tape = Tape::new();
                    let (x, weight) = (tape.watch_input(&x), tape.watch_input(&weight));
                    let bias = tape.watch_input(&bias);
                    let y = ops::conv_transpose2d::forward(&x, &weight, Some(&bias), 2, 0, 0, version)?;
                    tape.backward_from(&y, &gy).map(drop)
                }))
            }),
        ),
    ]
}
