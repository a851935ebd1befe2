//! Depthwise convolutions that keep the size: forward and both gradients; with GELU where it is a part of the layer.

use shadegrad::{Result, ops};

use super::{BenchCase, Cost, Layer, Work, versions};

pub const FORM: &str = "NxHxWxC KxK";

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (shape, elements, kernel) = (layer.nhwc()?, layer.elements(), layer.kernel);
    let (c, padding) = (shape[3], kernel / 2);
    let run = if layer.gelu { ops::depthwise_conv2d::forward_gelu } else { ops::depthwise_conv2d::forward };
    // Each of the three passes over two images; the weight is small. GELU writes or reads one more.
    let images = if layer.gelu { 3.0 } else { 2.0 };
    let cost = Cost::of(2.0 * elements * (kernel * kernel) as f64, images * elements);
    let mut cases = Vec::new();
    for &version in versions(c.is_multiple_of(4)) {
        for entry in ["forward", "backward_input", "backward_weight"] {
            cases.push(BenchCase::new(layer, FORM, entry, version.name(), cost, move |device| {
                let (x, weight) = (device.zeros("bench", shape)?, device.zeros("bench", [kernel, kernel, c])?);
                let bias = device.zeros("bench", [c])?;
                if entry == "forward" {
                    return Work::launch(move || run(&x, &weight, Some(&bias), padding, version).map(drop));
                }
                // An even kernel makes the result smaller.
                let gy = device.zeros("bench", run(&x, &weight, None, padding, version)?.shape())?;
                Work::gradient(gy, move |tape| {
                    let watched =
                        |wanted: bool, tensor| if wanted { tape.watch_input(tensor) } else { tensor.detach() };
                    let of_x = entry == "backward_input";
                    let (x, weight, bias) = (watched(of_x, &x), watched(!of_x, &weight), watched(!of_x, &bias));
                    run(&x, &weight, Some(&bias), padding, version)
                })
            }));
        }
    }
    Ok(cases)
}
