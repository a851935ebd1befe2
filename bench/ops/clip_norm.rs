//! The norm of all gradients of a network.

use shadegrad::{Result, ops};

use super::{BenchCase, COUNT, Cost, Layer, Work};

pub const FORM: &str = COUNT;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (x, elements) = (layer.x, layer.elements());
    let cost = Cost::of(2.0 * elements, elements);
    Ok(vec![BenchCase::new(layer, FORM, "clip", "v1", cost, move |device| {
        let (gradient, step) = (device.zeros("bench", x)?, device.zeros("bench", [4])?);
        Work::launch(move || ops::clip_norm(1.0, &gradient, &step).map(drop))
    })])
}
