//! The moving average of all parameters of a network.

use shadegrad::Result;
use shadegrad::ops::{Version, ema};

use super::{BenchCase, COUNT, Cost, Layer, Work, by_fours};

pub const FORM: &str = COUNT;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    by_fours(layer, case)
}

fn case(layer: &Layer, version: Version) -> BenchCase {
    let (x, elements) = (layer.x, layer.elements());
    let cost = Cost::of(3.0 * elements, 3.0 * elements);
    BenchCase::new(layer, FORM, "update", version, cost, move |device| {
        let (parameter, average) = (device.zeros("bench", x)?, device.zeros("bench", x)?);
        Work::launch(move || ema::update(0.999, &parameter, &average, version))
    })
}
