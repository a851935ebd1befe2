//! The norm of all gradients of a network.

use shadegrad::Result;
use shadegrad::ops::{Version, clip_norm};

use super::{BenchCase, COUNT, Cost, Layer, Work, by_fours};

pub const FORM: &str = COUNT;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    by_fours(layer, case)
}

fn case(layer: &Layer, version: Version) -> BenchCase {
    let (x, elements) = (layer.x, layer.elements());
    let cost = Cost::of(2.0 * elements, elements);
    BenchCase::new(layer, FORM, "clip", version, cost, move |device| {
        let (gradient, step) = (device.zeros("bench", x)?, device.zeros("bench", [4])?);
        Work::launch(move || clip_norm::clip(1.0, &gradient, &step, version).map(drop))
    })
}
