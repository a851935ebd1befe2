//! Bilinear upsampling to twice the size, with a ReLU and the sum with a skip connection where the layer has them, and
//! its gradient.

use shadegrad::Result;
use shadegrad::ops::UpsampleSettings;
use shadegrad::ops::upsample_bilinear::forward;

use super::{BenchCase, Cost, IMAGES, Layer, Work, versions};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let ([n, h, w, c], elements) = (layer.nhwc()?, layer.elements());
    let &Layer { align_corners, relu, skip, .. } = layer;
    let (settings, y) = (UpsampleSettings { align_corners, relu }, [n, 2 * h, 2 * w, c]);
    // The large images have four times the elements: y, a skip connection, and what the ReLU's gradient asks.
    let large = 4.0 * elements;
    let down = Cost::of(9.0 * large, elements + large + if skip { large } else { 0.0 });
    let up = Cost::of(8.0 * large, elements + large + if relu { elements } else { 0.0 });
    let mut cases = Vec::new();
    for &version in versions(c.is_multiple_of(4)) {
        cases.push(BenchCase::new(layer, FORM, "forward", version.name(), down, move |device| {
            let x = device.zeros("bench", [n, h, w, c])?;
            let skip = if skip { Some(device.zeros("bench", y)?) } else { None };
            Work::launch(move || forward(&x, skip.as_ref(), settings, version).map(drop))
        }));
        cases.push(BenchCase::new(layer, FORM, "backward_input", version.name(), up, move |device| {
            let (x, gy) = (device.zeros("bench", [n, h, w, c])?, device.zeros("bench", y)?);
            Work::gradient(gy, move |tape| forward(&tape.watch_input(&x), None, settings, version))
        }));
    }
    Ok(cases)
}
