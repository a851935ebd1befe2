//! Counting a batch of 8 at 256x256, one class.

use shadegrad::ops;

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let shape = [8, 256, 256, 1];
    let elements = shape.iter().product::<usize>() as f64;
    vec![BenchCase {
        op: "metric_counts",
        entry: "count",
        version: "v1",
        case: format!("{shape:?}"),
        flops: 0.0,
        bytes: elements * 8.0,
        prepare: Box::new(move |device| {
            let x = device.zeros("bench", shape)?;
            Ok(Box::new(move || ops::metric_counts(&x, &x).map(drop)))
        }),
    }]
}
