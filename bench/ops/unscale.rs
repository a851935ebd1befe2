//! The loss scale, with all gradients of a network.

use shadegrad::{Result, ops};

use super::{BenchCase, COUNT, Cost, Layer, Work};

pub const FORM: &str = COUNT;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (x, elements) = (layer.x, layer.elements());
    let cost = Cost::of(2.0 * elements, elements);
    Ok(vec![BenchCase::new(layer, FORM, "unscale", "v1", cost, move |device| {
        let (gradient, step) = (device.zeros("bench", x)?, device.zeros("bench", [4])?);
        let scale = device.tensor("bench", [3], &[65536.0, 0.0, 0.0])?;
        Work::launch(move || ops::unscale(2000, &gradient, &step, &scale))
    })])
}
