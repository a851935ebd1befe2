//! Counting the pixels of a batch of logits.

use shadegrad::{Result, ops};

use super::{BenchCase, Cost, IMAGES, Layer, Work};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (x, elements) = (layer.x, layer.elements());
    Ok(vec![BenchCase::new(layer, FORM, "count", "v1", Cost::of(0.0, 2.0 * elements), move |device| {
        let x = device.zeros("bench", x)?;
        Work::launch(move || ops::metric_counts(&x, &x).map(drop))
    })])
}
