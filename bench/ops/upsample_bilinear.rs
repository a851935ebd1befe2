//! Bilinear upsampling to twice the size, and its gradient.

use shadegrad::Result;
use shadegrad::ops::{self, UpsampleSettings};

use super::{BenchCase, Cost, IMAGES, Layer, Work, versions};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let ([n, h, w, c], elements, corners) = (layer.nhwc()?, layer.elements(), layer.align_corners);
    // The large image has four times the elements.
    let (forward, backward) = (Cost::of(36.0 * elements, 5.0 * elements), Cost::of(32.0 * elements, 5.0 * elements));
    let mut cases = Vec::new();
    for &version in versions(c.is_multiple_of(4)) {
        let settings = UpsampleSettings { align_corners: corners, relu: false };
        let run = ops::upsample_bilinear::forward;
        cases.push(BenchCase::new(layer, FORM, "forward", version.name(), forward, move |device| {
            let x = device.zeros("bench", [n, h, w, c])?;
            Work::launch(move || run(&x, None, settings, version).map(drop))
        }));
        cases.push(BenchCase::new(layer, FORM, "backward_input", version.name(), backward, move |device| {
            let (x, gy) = (device.zeros("bench", [n, h, w, c])?, device.zeros("bench", [n, 2 * h, 2 * w, c])?);
            Work::gradient(gy, move |tape| run(&tape.watch_input(&x), None, settings, version))
        }));
    }
    Ok(cases)
}
