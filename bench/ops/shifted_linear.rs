//! Linear layers over shifted tokens, along rows and columns: forward and both gradients.

use shadegrad::ops::{Axis, shifted_linear};
use shadegrad::{Result, Tape};

use super::{BenchCase, Cost, Layer, Work, versions};

pub const FORM: &str = "NxHxWxC OUT";

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let ([n, h, w, c], out) = (layer.nhwc()?, layer.out);
    let (x, y, rows) = ([n, h, w, c], [n, h, w, out], n * h * w);
    let with_residual = layer.skip;
    // Each of the three reads two of x, weight and y, and writes the third.
    let numbers = (rows * (c + out) + c * out) as f64;
    let flops = 2.0 * (rows * c * out) as f64;
    let mut cases = Vec::new();
    for axis in [Axis::Height, Axis::Width] {
        // Each axis is a case of its own.
        let layer = Layer { name: format!("{} {axis:?}", layer.name), ..layer.clone() };
        for &version in versions(out.is_multiple_of(8)) {
            let cost = Cost::of(flops, numbers + if with_residual { (rows * out) as f64 } else { 0.0 });
            cases.push(BenchCase::new(&layer, FORM, "forward", version.name(), cost, move |device| {
                let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", [c, out])?);
                let (bias, residual) = (device.zeros("bench", [out])?, device.zeros("bench", y)?);
                let forward = shadegrad::ops::shifted_linear::forward;
                Work::launch(move || {
                    forward(&x, &weight, Some(&bias), axis, with_residual.then_some(&residual), version).map(drop)
                })
            }));
        }
        // The gradients choose their own version.
        for (entry, divides) in
            [("backward_input", c.is_multiple_of(8)), ("backward_weight", (c | out).is_multiple_of(8))]
        {
            let version = versions(divides)[usize::from(divides)];
            let cost = Cost::of(flops, numbers);
            cases.push(BenchCase::new(&layer, FORM, entry, version.name(), cost, move |device| {
                let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", [c, out])?);
                let bias = device.zeros("bench", [out])?;
                Work::gradient(device.zeros("bench", y)?, move |tape: &Tape| {
                    let watched =
                        |wanted: bool, tensor| if wanted { tape.watch_input(tensor) } else { tensor.detach() };
                    let of_x = entry == "backward_input";
                    let (x, weight, bias) = (watched(of_x, &x), watched(!of_x, &weight), watched(!of_x, &bias));
                    shifted_linear(&x, &weight, Some(&bias), axis, None)
                })
            }));
        }
    }
    Ok(cases)
}
