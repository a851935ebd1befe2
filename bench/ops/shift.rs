//! Shifted tokens along rows and columns; the gradient is the same kernel with the other sign.

use shadegrad::ops::Axis;
use shadegrad::{Result, ops};

use super::{BenchCase, Cost, IMAGES, Layer, Work, versions};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (x, cost) = (layer.nhwc()?, Cost::of(0.0, 2.0 * layer.elements()));
    let mut cases = Vec::new();
    for axis in [Axis::Height, Axis::Width] {
        // Each axis is a case of its own.
        let layer = Layer { name: format!("{} {axis:?}", layer.name), ..layer.clone() };
        for &version in versions(x[3].is_multiple_of(4) && x[3] >= 12) {
            cases.push(BenchCase::new(&layer, FORM, "forward", version.name(), cost, move |device| {
                let x = device.zeros("bench", x)?;
                Work::launch(move || ops::shift::forward(&x, axis, version).map(drop))
            }));
            cases.push(BenchCase::new(&layer, FORM, "backward", version.name(), cost, move |device| {
                let x = device.zeros("bench", x)?;
                Work::gradient(x.clone(), move |tape| ops::shift::forward(&tape.watch_input(&x), axis, version))
            }));
        }
    }
    Ok(cases)
}
