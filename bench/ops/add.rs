//! Sums: of two images, in place, and the gradient of an operand that was broadcast (a vector of channels).

use shadegrad::{Result, ops};

use super::{BenchCase, Cost, IMAGES, Layer, Work, versions};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (x, elements) = (layer.x, layer.elements());
    let cost = Cost::of(elements, 3.0 * elements);
    let mut cases = Vec::new();
    for &version in versions(x.len().is_multiple_of(4)) {
        cases.push(BenchCase::new(layer, FORM, "forward", version.name(), cost, move |device| {
            let (a, b) = (device.zeros("bench", x)?, device.zeros("bench", x)?);
            Work::launch(move || ops::add::forward(&a, &b, version).map(drop))
        }));
        cases.push(BenchCase::new(layer, FORM, "assign", version.name(), cost, move |device| {
            let (sum, added) = (device.zeros("bench", x)?, device.zeros("bench", x)?);
            Work::launch(move || ops::add::assign(&sum, &added, version))
        }));
    }
    let cost = Cost::of(elements, elements + x.last() as f64);
    cases.push(BenchCase::new(layer, FORM, "reduce", "v1", cost, move |device| {
        let (a, b) = (device.zeros("bench", x)?, device.zeros("bench", [x.last()])?);
        Work::gradient(a.clone(), move |tape| ops::add(&a, &tape.watch_input(&b)))
    }));
    Ok(cases)
}
