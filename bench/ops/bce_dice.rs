//! The loss of a batch.

use shadegrad::Result;
use shadegrad::ops::{BceDice, bce_dice};

use super::{BenchCase, Cost, IMAGES, Layer, Work};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (x, elements) = (layer.x, layer.elements());
    let forward = Cost::of(40.0 * elements, 2.0 * elements);
    let backward = Cost::of(25.0 * elements, 3.0 * elements);
    Ok(vec![
        BenchCase::new(layer, FORM, "forward", "v1", forward, move |device| {
            let x = device.zeros("bench", x)?;
            Work::launch(move || bce_dice(&x, &x, &BceDice::batch()).map(drop))
        }),
        BenchCase::new(layer, FORM, "backward_input", "v1", backward, move |device| {
            let (x, gy) = (device.zeros("bench", x)?, device.tensor("bench", [1], &[1.0])?);
            Work::gradient(gy, move |tape| bce_dice(&tape.watch_input(&x), &x, &BceDice::batch()))
        }),
    ])
}
