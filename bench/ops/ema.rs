//! The moving average of all parameters of a network.

use shadegrad::{Result, ops};

use super::{BenchCase, COUNT, Cost, Layer, Work};

pub const FORM: &str = COUNT;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (x, elements) = (layer.x, layer.elements());
    let cost = Cost::of(3.0 * elements, 3.0 * elements);
    Ok(vec![BenchCase::new(layer, FORM, "update", "v1", cost, move |device| {
        let (parameter, average) = (device.zeros("bench", x)?, device.zeros("bench", x)?);
        Work::launch(move || ops::ema(0.999, &parameter, &average))
    })])
}
