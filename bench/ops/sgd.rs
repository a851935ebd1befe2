//! One step of gradient descent with momentum for all parameters of a network.

use shadegrad::Result;
use shadegrad::ops::{Sgd, Version, sgd};

use super::{BenchCase, COUNT, Cost, Layer, Work, by_fours};

pub const FORM: &str = COUNT;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    by_fours(layer, case)
}

fn case(layer: &Layer, version: Version) -> BenchCase {
    let (x, elements) = (layer.x, layer.elements());
    // Parameter and momentum are read and written, the gradient is read.
    let cost = Cost::of(6.0 * elements, 5.0 * elements);
    BenchCase::new(layer, FORM, "update", version, cost, move |device| {
        let settings = Sgd { momentum: 0.9, ..Sgd::default() };
        let step = device.tensor("bench", [4], &settings.step_values(1e-3))?;
        let zeros = || device.zeros("bench", x);
        let (gradient, parameter, buffer) = (zeros()?, zeros()?, zeros()?);
        Work::launch(move || sgd::update(&settings, &gradient, &step, [&parameter, &buffer], version))
    })
}
