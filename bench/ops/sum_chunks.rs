//! The second stage of a weight gradient: one table with a row per pixel of the layer.

use shadegrad::{Result, ops};

use super::{BenchCase, Cost, IMAGES, Layer, Work};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let [n, h, w, c] = layer.nhwc()?;
    let cost = Cost::of(layer.elements(), layer.elements() + c as f64);
    Ok(vec![BenchCase::new(layer, FORM, "sums", "v1", cost, move |device| {
        let (table, gradient) = (device.zeros("bench", [n * h * w, c])?, device.zeros("bench", [c])?);
        Work::launch(move || ops::sum_chunks(&table, &[&gradient]))
    })])
}
