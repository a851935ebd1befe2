//! Layer normalisation over channels: forward, and the gradients of x and of the parameters, in version 2 together.

use shadegrad::ops::{Version, layer_norm};
use shadegrad::{Result, Tape, Tensor};

use super::{BenchCase, Cost, IMAGES, Layer, Work, versions};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (x, elements) = (layer.x, layer.elements());
    let mut cases = Vec::new();
    for &version in versions(layer_norm::takes_v2(x.last())) {
        let cost = Cost::of(7.0 * elements, 2.0 * elements);
        cases.push(BenchCase::new(layer, FORM, "forward", version.name(), cost, move |device| {
            let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", [x.last()])?);
            Work::launch(move || layer_norm::forward(&x, &weight, &weight, 1e-5, version).map(drop))
        }));
        let mut gradient = |entry, cost, watch: fn(&Tape, Tensor, Tensor) -> [Tensor; 2]| {
            cases.push(BenchCase::new(layer, FORM, entry, version.name(), cost, move |device| {
                let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", [x.last()])?);
                Work::gradient(x.clone(), move |tape| {
                    let [x, weight] = watch(tape, x.clone(), weight.clone());
                    layer_norm::forward(&x, &weight, &weight, 1e-5, version)
                })
            }));
        };
        let (input, sums) = (Cost::of(11.0 * elements, 3.0 * elements), Cost::of(6.0 * elements, 2.0 * elements));
        match version {
            Version::V1 => {
                gradient("backward_input", input, |tape, x, weight| [tape.watch_input(&x), weight]);
                gradient("backward_sums", sums, |tape, x, weight| [x, tape.watch_input(&weight)]);
            }
            Version::V2 => {
                let cost = Cost::of(17.0 * elements, 3.0 * elements);
                gradient("backward", cost, |tape, x, weight| [tape.watch_input(&x), tape.watch_input(&weight)]);
            }
        }
    }
    Ok(cases)
}
