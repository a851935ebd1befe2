//! A weight as its input gradient reads it: the layer's sizes are those of the weight.

use shadegrad::{Result, ops};

use super::{BenchCase, Cost, IMAGES, Layer, Work};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (shape, cost) = (layer.nhwc()?, Cost::of(0.0, 2.0 * layer.elements()));
    Ok(vec![BenchCase::new(layer, FORM, "transpose", "v1", cost, move |device| {
        let weight = device.zeros("bench", shape)?;
        Work::launch(move || ops::transpose_weights(&[&weight]).map(drop))
    })])
}
