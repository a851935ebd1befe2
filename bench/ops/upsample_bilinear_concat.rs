//! A decoder's beginning: bilinear upsampling to twice the size with the skip connection beside it, and both gradients.

use shadegrad::Result;
use shadegrad::ops::Version;
use shadegrad::ops::upsample_bilinear_concat::forward;

use super::{BenchCase, Cost, Layer, Work, versions};

pub const FORM: &str = "NxHxWxC OTHER";

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let ([n, h, w, c], other) = (layer.nhwc()?, layer.out);
    let (x, skip, y) = ([n, h, w, c], [n, 2 * h, 2 * w, other], [n, 2 * h, 2 * w, c + other]);
    let [small, beside, all] = [x, skip, y].map(|shape| shape.iter().product::<usize>() as f64);
    let cost = Cost::of(8.0 * 4.0 * small, small + beside + all);
    let mut cases = Vec::new();
    for &version in versions(c.is_multiple_of(8) && other.is_multiple_of(8)) {
        let statistics = (version == Version::V2).then_some(("forward_statistics", true)); // v1 leaves none
        for (entry, before_norm) in [("forward", false)].into_iter().chain(statistics) {
            cases.push(BenchCase::new(layer, FORM, entry, version.name(), cost, move |device| {
                let (x, skip) = (device.zeros("bench", x)?, device.zeros("bench", skip)?);
                Work::launch(move || forward(&x, &skip, true, before_norm, version).map(drop))
            }));
        }
        cases.push(BenchCase::new(layer, FORM, "backward", version.name(), cost, move |device| {
            let (x, skip) = (device.zeros("bench", x)?, device.zeros("bench", skip)?);
            let both = move |tape: &shadegrad::Tape| {
                forward(&tape.watch_input(&x), &tape.watch_input(&skip), true, false, version)
            };
            Work::gradient(device.zeros("bench", y)?, both)
        }));
    }
    Ok(cases)
}
