//! The loss scale, with all gradients of a network.

use shadegrad::{Result, ops};

use super::{BenchCase, COUNT, Cost, Layer, Work};

pub const FORM: &str = COUNT;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (x, elements) = (layer.x, layer.elements());
    let cost = Cost::of(2.0 * elements, elements);
    Ok(vec![BenchCase::new(layer, FORM, "unscale", "v1", cost, move |device| {
        let (gradient, step) = (device.zeros("bench", x)?, device.zeros("bench", [4])?);
        let scale = device.tensor("bench", [3], &ops::unscale::START)?;
        Work::launch(move || ops::unscale(ops::unscale::INTERVAL, &gradient, &step, &scale))
    })])
}
