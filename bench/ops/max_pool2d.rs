//! Max pooling in UNeXt's encoder (batch 8 at 256x256).

use shadegrad::{Tape, ops};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for shape in [[8, 256, 256, 16], [8, 128, 128, 32], [8, 64, 64, 128]] {
        let elements = shape.iter().product::<usize>() as f64;
        cases.push(BenchCase {
            op: "max_pool2d",
            entry: "forward",
            version: "v1",
            case: format!("unext {shape:?}"),
            flops: elements * 0.75,
            bytes: elements * 4.0 * 1.5,
            prepare: Box::new(move |device| {
                let x = device.zeros("bench", shape)?;
                Ok(Box::new(move || ops::max_pool2d(&x).map(drop)))
            }),
        });
        cases.push(BenchCase {
            op: "max_pool2d",
            entry: "backward_input",
            version: "v1",
            case: format!("unext {shape:?}"),
            flops: 0.0,
            bytes: elements * 4.0 * 1.5,
            prepare: Box::new(move |device| {
                let x = device.zeros("bench", shape)?;
                let gy = device.zeros("bench", [shape[0], shape[1] / 2, shape[2] / 2, shape[3]])?;
                // Forward is part of this figure: the gradient needs its winners.
                Ok(Box::new(move || {
                    let tape = Tape::new();
                    let y = ops::max_pool2d(&tape.watch_input(&x))?;
                    tape.backward_from(&y, &gy).map(drop)
                }))
            }),
        });
    }
    cases
}
