//! The linear layers of UNeXt's shifted blocks (batch 8 at 256x256): block1 and dblock1, block2, dblock2.

use shadegrad::cpu::linear::LinearParams;
use shadegrad::ops;
use shadegrad::ops::Version;

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for shape in [[8, 16, 16, 160], [8, 8, 8, 256], [8, 32, 32, 128]] {
        for version in [Version::V1, Version::V2] {
            cases.extend(all(shape, version));
        }
    }
    cases
}

fn all(shape: [usize; 4], version: Version) -> [BenchCase; 3] {
    let c = shape[3];
    let rows = shape.iter().product::<usize>() / c;
    let p = LinearParams {
        rows: rows as u32,
        inputs: c as u32,
        outputs: c as u32,
        has_bias: 1,
        chunk_rows: 0,
        chunks: 0,
        first_chunk: 0,
    };
    let case = |entry, prepare| BenchCase {
        op: "linear",
        entry,
        version: version.name(),
        case: format!("unext {shape:?} -> {c}"),
        flops: 2.0 * (rows * c * c) as f64,
        bytes: 4.0 * (2 * rows * c + c * c) as f64,
        prepare,
    };
    [
        case(
            "forward",
            Box::new(move |device| {
                let (x, weight) = (device.zeros("bench", shape)?, device.zeros("bench", [c, c])?);
                let bias = device.zeros("bench", [c])?;
                Ok(Box::new(move || ops::linear::forward(&x, &weight, Some(&bias), version).map(drop)))
            }),
        ),
        case(
            "backward_input",
            Box::new(move |device| {
                let (gy, weight) = (device.zeros("bench", shape)?, device.zeros("bench", [c, c])?);
                let gx = device.zeros("bench", shape)?;
                Ok(Box::new(move || ops::linear::backward_input(&p, &gy, &weight, &gx, version)))
            }),
        ),
        case(
            "backward_weight",
            Box::new(move |device| {
                let (x, gy) = (device.zeros("bench", shape)?, device.zeros("bench", shape)?);
                let (gw, gb) = (device.zeros("bench", [c, c])?, device.zeros("bench", [c])?);
                Ok(Box::new(move || ops::linear::backward_weight(&p, &x, &gy, &gw, Some(&gb), version)))
            }),
        ),
    ]
}
