//! Loading a batch of slices of three channels: each flipped and turned in its own way (`gather`), and with every
//! augmentation in every sample (`augment`).

use shadegrad::data::AugmentConfig;
use shadegrad::ops::{self, Sample, Slices};
use shadegrad::{Error, Result};

use super::{BenchCase, Cost, Layer, Work};

pub const FORM: &str = "NxHxW";

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let &[n, h, w] = layer.x.dims() else {
        return Err(Error::shape("load_batch", format!("needs {FORM}, got {}", layer.x)));
    };
    let always = AugmentConfig {
        rotate_p: 1.0,
        elastic_p: 1.0,
        noise_p: 1.0,
        brightness_p: 1.0,
        contrast_p: 1.0,
        gamma_p: 1.0,
        ..AugmentConfig::strong()
    };
    let case = |entry, augment: AugmentConfig, flops: f64| {
        // A pixel is four bytes of the data set and four numbers of the batch.
        let cost = Cost::of(flops * layer.elements(), 5.0 * layer.elements());
        BenchCase::new(layer, FORM, entry, "v1", cost, move |device| {
            let count = 2 * n;
            let images: Vec<u8> = (0..3 * count * h * w).map(|at| (at * at / 7 % 251) as u8).collect();
            let masks = vec![0; count * h * w];
            let rescale = [[0.0, 255.0, 1.0, 0.0]; 3];
            let slices = Slices::upload(device, [h, w], &images, &masks, &rescale, [0, 1, 2])?;
            let mut samples: Vec<Sample> = (0..n).map(|at| Sample::plain(2 * at, 0)).collect();
            samples.iter_mut().enumerate().for_each(|(at, sample)| augment.apply(sample, [h, w], 0, 0, at));
            let table = slices.table(n)?;
            let (x, target) = (device.zeros("bench", [n, h, w, 3])?, device.zeros("bench", [n, h, w, 1])?);
            Work::launch(move || ops::load_batch(&slices, &samples, &table, &x, &target))
        })
    };
    // Per channel a factor and a summand; then four bilinear reads, noise and tones, and the elastic grid once.
    Ok(vec![case("gather", AugmentConfig::default(), 6.0), case("augment", always, 120.0)])
}
