//! The loss of a batch of 8 at 256x256, one class.

use shadegrad::Tape;
use shadegrad::ops::{BceDice, bce_dice};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let shape = [8, 256, 256, 1];
    let elements = shape.iter().product::<usize>() as f64;
    let mut cases = Vec::new();
    for (name, settings) in [("sample", BceDice::sample()), ("batch", BceDice::batch())] {
        cases.push(BenchCase {
            op: "bce_dice",
            entry: "forward",
            version: "v1",
            case: format!("{name} {shape:?}"),
            flops: elements * 40.0,
            bytes: elements * 8.0,
            prepare: Box::new(move |device| {
                let x = device.zeros("bench", shape)?;
                Ok(Box::new(move || bce_dice(&x, &x, &settings).map(drop)))
            }),
        });
        cases.push(BenchCase {
            op: "bce_dice",
            entry: "forward and backward",
            version: "v1",
            case: format!("{name} {shape:?}"),
            flops: elements * 65.0,
            bytes: elements * 20.0,
            prepare: Box::new(move |device| {
                let x = device.zeros("bench", shape)?;
                Ok(Box::new(move || {
                    let tape = Tape::new();
                    let loss = bce_dice(&tape.watch_input(&x), &x, &settings)?;
                    tape.backward(&loss).map(drop)
                }))
            }),
        });
    }
    cases
}
