//! Max pooling and its gradient.

use shadegrad::{Result, ops};

use super::{BenchCase, Cost, IMAGES, Layer, Work};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let ([n, h, w, c], elements) = (layer.nhwc()?, layer.elements());
    // x is read, y and the winners are a quarter of it; the gradient goes the other way.
    let (forward, backward) = (Cost::of(0.75 * elements, 1.5 * elements), Cost::of(0.0, 1.5 * elements));
    Ok(vec![
        BenchCase::new(layer, FORM, "forward", "v1", forward, move |device| {
            let x = device.zeros("bench", [n, h, w, c])?;
            Work::launch(move || ops::max_pool2d(&x).map(drop))
        }),
        BenchCase::new(layer, FORM, "backward_input", "v1", backward, move |device| {
            let (x, gy) = (device.zeros("bench", [n, h, w, c])?, device.zeros("bench", [n, h / 2, w / 2, c])?);
            Work::gradient(gy, move |tape| ops::max_pool2d(&tape.watch_input(&x)))
        }),
    ])
}
