//! One step of Adam for all parameters of a network.

use shadegrad::Result;
use shadegrad::ops::{Adam, Version, adam};

use super::{BenchCase, COUNT, Cost, Layer, Work, by_fours};

pub const FORM: &str = COUNT;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    by_fours(layer, case)
}

fn case(layer: &Layer, version: Version) -> BenchCase {
    let (x, elements) = (layer.x, layer.elements());
    // Parameter and both moments are read and written, the gradient is read.
    let cost = Cost::of(14.0 * elements, 7.0 * elements);
    BenchCase::new(layer, FORM, "update", version, cost, move |device| {
        let settings = Adam::default();
        let step = device.tensor("bench", [4], &settings.step_values(1e-3, 1))?;
        let zeros = || device.zeros("bench", x);
        let (gradient, parameter, m, v) = (zeros()?, zeros()?, zeros()?, zeros()?);
        Work::launch(move || adam::update(&settings, &gradient, &step, [&parameter, &m, &v], version))
    })
}
