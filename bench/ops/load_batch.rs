//! Loading a batch of 8 slices of 256x256: each flipped and turned in its own way, with the draws of `strong`, and with
//! every augmentation in every sample.

use shadegrad::data::AugmentConfig;
use shadegrad::ops::{self, Sample, Slices};

use super::BenchCase;

pub fn cases() -> Vec<BenchCase> {
    let always = AugmentConfig {
        rotate_p: 1.0,
        elastic_p: 1.0,
        noise_p: 1.0,
        brightness_p: 1.0,
        contrast_p: 1.0,
        gamma_p: 1.0,
        ..AugmentConfig::strong()
    };
    vec![
        case("flips and turns", "gather", AugmentConfig::default()),
        case("preset strong", "augment", AugmentConfig::strong()),
        case("every augmentation", "augment", always),
    ]
}

fn case(name: &str, entry: &'static str, augment: AugmentConfig) -> BenchCase {
    let (n, h, w) = (8, 256, 256);
    let pixels = (n * h * w) as f64;
    BenchCase {
        op: "load_batch",
        entry,
        version: "v1",
        case: format!("[{n}, {h}, {w}, 3] {name}"),
        flops: pixels * 6.0,
        bytes: pixels * 20.0,
        prepare: Box::new(move |device| {
            let count = 16;
            let images: Vec<u8> = (0..3 * count * h * w).map(|at| (at * at / 7 % 251) as u8).collect();
            let masks = vec![0; count * h * w];
            let rescale = [[0.0, 255.0, 1.0, 0.0]; 3];
            let slices = Slices::upload(device, [h, w], &images, &masks, &rescale, [0, 1, 2])?;
            let mut samples: Vec<Sample> = (0..n).map(|at| Sample::plain(2 * at, 0)).collect();
            samples.iter_mut().enumerate().for_each(|(at, sample)| augment.apply(sample, [h, w], 0, 0, at));
            let table = slices.table(n)?;
            let (x, target) = (device.zeros("bench", [n, h, w, 3])?, device.zeros("bench", [n, h, w, 1])?);
            Ok(Box::new(move || ops::load_batch(&slices, &samples, &table, &x, &target)))
        }),
    }
}
