//! Loading a batch of 8 slices of 256x256, each flipped and turned in its own way.

use shadegrad::ops::{self, Sample, Slices};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let (n, h, w) = (8, 256, 256);
    let pixels = (n * h * w) as f64;
    vec![BenchCase {
        op: "load_batch",
        entry: "gather",
        version: "v1",
        case: format!("[{n}, {h}, {w}, 3]"),
        flops: pixels * 6.0,
        bytes: pixels * 20.0,
        prepare: Box::new(move |device| {
            let count = 16;
            let (images, masks) = (vec![0; 3 * count * h * w], vec![0; count * h * w]);
            let rescale = [[0.0, 255.0, 1.0, 0.0]; 3];
            let slices = Slices::upload(device, [h, w], &images, &masks, &rescale, [0, 1, 2])?;
            let samples: Vec<Sample> = (0..n)
                .map(|at| Sample { slice: 2 * at, group: 0, turn: at as u32 % 4, flips: at as u32 / 2 % 4 })
                .collect();
            let table = slices.table(n)?;
            let (x, target) = (device.zeros("bench", [n, h, w, 3])?, device.zeros("bench", [n, h, w, 1])?);
            Ok(Box::new(move || ops::load_batch(&slices, &samples, &table, &x, &target)))
        }),
    }]
}
