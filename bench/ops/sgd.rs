//! One step of gradient descent with momentum for all parameters of a network.

use shadegrad::Result;
use shadegrad::ops::{self, Sgd};

use super::{BenchCase, COUNT, Cost, Layer, Work};

pub const FORM: &str = COUNT;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (x, elements) = (layer.x, layer.elements());
    // Parameter and momentum are read and written, the gradient is read.
    let cost = Cost::of(6.0 * elements, 5.0 * elements);
    Ok(vec![BenchCase::new(layer, FORM, "update", "v1", cost, move |device| {
        let settings = Sgd { momentum: 0.9, ..Sgd::default() };
        let step = device.tensor("bench", [4], &settings.step_values(1e-3))?;
        let zeros = || device.zeros("bench", x);
        let (gradient, parameter, buffer) = (zeros()?, zeros()?, zeros()?);
        Work::launch(move || ops::sgd(&settings, &gradient, &step, &parameter, &buffer))
    })])
}
