//! Linear layers over shifted tokens, along rows and columns: forward and both gradients.

use shadegrad::Result;
use shadegrad::cpu::shifted_linear::ShiftedLinearParams;
use shadegrad::ops::Axis;
use shadegrad::ops::shifted_linear::{Gradients, backward, forward};

use super::{BenchCase, Cost, Layer, Work, tiles};

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
        for kernel in tiles(out.is_multiple_of(8), c, out) {
            let cost = Cost::of(flops, numbers + if with_residual { (rows * out) as f64 } else { 0.0 });
            cases.push(BenchCase::new(&layer, FORM, "forward", kernel, cost, move |device| {
                let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", [c, out])?);
                let (bias, residual) = (device.zeros("bench", [out])?, device.zeros("bench", y)?);
                Work::launch(move || {
                    forward(&x, &weight, Some(&bias), axis, with_residual.then_some(&residual), kernel).map(drop)
                })
            }));
        }
        let cost = Cost::of(flops, numbers);
        for kernel in tiles((c | out).is_multiple_of(8), out, c) {
            for entry in ["backward_input", "backward_weight"] {
                cases.push(BenchCase::new(&layer, FORM, entry, kernel, cost, move |device| {
                    let (gy, p) =
                        (device.zeros("bench", y)?, ShiftedLinearParams::forward(x, out, axis.steps(x), true, false));
                    let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", [c, out])?);
                    let (gx, gw) = (device.zeros("bench", x.shape())?, device.zeros("bench", [c, out])?);
                    let gb = device.zeros("bench", [out])?;
                    Work::launch(move || {
                        let places = match entry {
                            "backward_input" => Gradients { gx: Some(&gx), ..Gradients::default() },
                            _ => Gradients { gx: None, gw: Some(&gw), gb: Some(&gb) },
                        };
                        backward(&p, [&x, &weight, &gy], places, kernel)
                    })
                }));
            }
        }
    }
    Ok(cases)
}
