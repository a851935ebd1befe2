//! Linear layers over the channels of every pixel: forward and both gradients.

use shadegrad::Result;
use shadegrad::cpu::linear::LinearParams;
use shadegrad::ops::linear::{backward_input, backward_weight, forward};

use super::{BenchCase, Cost, Layer, Work, tiles};

pub const FORM: &str = "NxHxWxC OUT";

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let ([n, h, w, c], out) = (layer.nhwc()?, layer.out);
    let (x, y, rows) = ([n, h, w, c], [n, h, w, out], n * h * w);
    let p = LinearParams {
        rows: rows as u32,
        inputs: c as u32,
        outputs: out as u32,
        has_bias: 1,
        ..bytemuck::Zeroable::zeroed()
    };
    // Each of the three reads two of x, weight and y, and writes the third.
    let cost = Cost::of(2.0 * (rows * c * out) as f64, (rows * (c + out) + c * out) as f64);
    let mut cases = Vec::new();
    for kernel in tiles(out.is_multiple_of(8), c, out) {
        cases.push(BenchCase::new(layer, FORM, "forward", kernel, cost, move |device| {
            let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", [c, out])?);
            let bias = device.zeros("bench", [out])?;
            Work::launch(move || forward(&x, &weight, Some(&bias), kernel).map(drop))
        }));
    }
    for kernel in tiles(c.is_multiple_of(8), out, c) {
        cases.push(BenchCase::new(layer, FORM, "backward_input", kernel, cost, move |device| {
            let (gy, weight) = (device.zeros("bench", y)?, device.zeros("bench", [c, out])?);
            let gx = device.zeros("bench", x)?;
            Work::launch(move || backward_input(&p, &gy, &weight, &gx, kernel))
        }));
    }
    for kernel in tiles(c.is_multiple_of(8) && out.is_multiple_of(8), c, out) {
        cases.push(BenchCase::new(layer, FORM, "backward_weight", kernel, cost, move |device| {
            let (x, gy) = (device.zeros("bench", x)?, device.zeros("bench", y)?);
            let (gw, gb) = (device.zeros("bench", [c, out])?, device.zeros("bench", [out])?);
            Work::launch(move || backward_weight(&p, &x, &gy, &gw, Some(&gb), kernel))
        }));
    }
    Ok(cases)
}
