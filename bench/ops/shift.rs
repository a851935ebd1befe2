//! Shifted tokens of UNeXt (batch 8 at 256x256): block1 and dblock1, block2, dblock2.

use shadegrad::ops::{Axis, Version};
use shadegrad::{Shape, ops};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for shape in [[8, 16, 16, 160], [8, 8, 8, 256], [8, 32, 32, 128]] {
        for axis in [Axis::Height, Axis::Width] {
            for version in [Version::V1, Version::V2] {
                cases.push(BenchCase {
                    op: "shift",
                    entry: "forward", // the gradient is the same kernel
                    version: version.name(),
                    case: format!("unext {shape:?} {axis:?}"),
                    flops: 0.0,
                    bytes: Shape::from(shape).len() as f64 * 8.0,
                    prepare: Box::new(move |device| {
                        let x = device.zeros("bench", shape)?;
                        Ok(Box::new(move || ops::shift::forward(&x, axis, version).map(drop)))
                    }),
                });
            }
        }
    }
    cases
}
