//! Cases of counting: logits of exactly 0, targets of exactly 0.5, NaN, empty and full, several chunks and classes.

use shadegrad::cpu::metric_counts::{MetricCountsParams, forward};
use shadegrad::ops;

use super::{Case, EXACT, doubles, numbers};

const OP: &str = "metric_counts";

pub fn cases() -> Vec<Case> {
    let shapes = [[1, 1, 1, 1], [3, 40, 16, 1], [2, 7, 9, 3], [2, 256, 256, 1], [70, 4, 8, 2], [5, 61, 53, 1]];
    let mut cases = Vec::new();
    for shape in shapes {
        for offset in [0.0, -2.0, 2.0] {
            cases.push(case(shape, offset));
        }
    }
    cases
}

/// Logits and targets are rounded to a coarse grid, so that many stand exactly on the threshold.
fn case(shape: [usize; 4], offset: f32) -> Case {
    let name = format!("{shape:?} logits around {offset}");
    Case::new(OP, name.clone(), move |device, checks| {
        let count = shape.iter().product();
        let mut x: Vec<f32> = numbers(&name, count).iter().map(|v| (v * 4.0).round() * 0.25 + offset).collect();
        if count > 1 {
            x[1] = f32::NAN;
        }
        let x = checks.stored(x);
        let target: Vec<f32> = numbers("target", count).iter().map(|v| (v * 4.0).round() * 0.25).collect();
        let p = MetricCountsParams {
            images: shape[0] as u32,
            image_len: (shape[1] * shape[2] * shape[3]) as u32,
            chunk: 0,
            image_chunks: 0,
            first_chunk: 0,
            chunks: 0,
        };
        let mut want = vec![0; shape[0] * 3];
        forward(&p, &doubles(&x), &doubles(&target), &mut want);
        let counts = ops::metric_counts(&checks.image(device, shape, &x)?, &device.tensor(OP, shape, &target)?)?;
        let got: Vec<f32> = counts.to_vec_u32()?.iter().map(|count| *count as f32).collect();
        let want: Vec<f64> = want.iter().map(|count| f64::from(*count)).collect();
        let version = if matches!(device, shadegrad::Device::Cpu(_)) { "plain" } else { "v1" };
        checks.values("count", version, &got, &want, EXACT);
        Ok(())
    })
}
