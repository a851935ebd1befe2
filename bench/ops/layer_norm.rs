//! Layer normalisation in UNeXt (batch 8 at 256x256): the patch embeddings, the shifted blocks and what follows them.

use shadegrad::ops::{Version, layer_norm};
use shadegrad::{Tape, Tensor};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for shape in [[8, 16, 16, 160], [8, 8, 8, 256], [8, 32, 32, 128]] {
        let elements = shape.iter().product::<usize>() as f64;
        for version in [Version::V1, Version::V2] {
            cases.push(BenchCase {
                op: "layer_norm",
                entry: "forward",
                version: version.name(),
                case: format!("unext {shape:?}"),
                flops: elements * 7.0,
                bytes: elements * 8.0,
                prepare: Box::new(move |device| {
                    let x = device.zeros("bench", shape)?;
                    let weight = device.zeros("bench", [shape[3]])?;
                    Ok(Box::new(move || layer_norm::forward(&x, &weight, &weight, 1e-5, version).map(drop)))
                }),
            });
            cases.push(BenchCase {
                op: "layer_norm",
                entry: "forward and backward",
                version: version.name(),
                case: format!("unext {shape:?}"),
                flops: elements * 24.0,
                // x and y; x, gy and gx; x and gy again for the parameters.
                bytes: elements * 28.0,
                prepare: Box::new(move |device| {
                    let x = device.zeros("bench", shape)?;
                    let weight = device.zeros("bench", [shape[3]])?;
                    Ok(Box::new(move || {
                        let tape = Tape::new();
                        let watch = |tensor: &Tensor| tape.watch_input(tensor);
                        let y = layer_norm::forward(&watch(&x), &watch(&weight), &watch(&weight), 1e-5, version)?;
                        tape.backward_from(&y, &x).map(drop)
                    }))
                }),
            });
        }
    }
    cases
}
