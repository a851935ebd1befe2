//! Transposed convolutions whose stride is their kernel: the up-convolutions of U-Net (2x2). The gradients are
//! convolutions, with the kernels that the op selects.

use shadegrad::ops::Version;
use shadegrad::{Result, ops};

use super::{BenchCase, Cost, Layer, Work, tiles};

pub const FORM: &str = "NxHxWxC KxK OUT";

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let ([n, h, w, c], Layer { kernel: side, out, .. }) = (layer.nhwc()?, layer.clone());
    let (x, weight, y) = ([n, h, w, c], [side, side, out, c], [n, side * h, side * w, out]);
    let numbers = |shape: [usize; 4]| shape.iter().product::<usize>() as f64;
    let cost = Cost::of(2.0 * numbers(y) * c as f64, numbers(x) + numbers(weight) + numbers(y));
    let mut cases = Vec::new();
    let takes_v2 = out.is_multiple_of(4) && (side * side * out).is_multiple_of(8);
    for kernel in tiles(takes_v2, c, side * side * out) {
        cases.push(BenchCase::new(layer, FORM, "forward", kernel, cost, move |device| {
            let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", weight)?);
            let bias = device.zeros("bench", [out])?;
            let run = ops::conv_transpose2d::forward;
            Work::launch(move || run(&x, &weight, Some(&bias), side, 0, 0, kernel).map(drop))
        }));
    }
    for entry in ["backward_input", "backward_weight"] {
        cases.push(BenchCase::new(layer, FORM, entry, "selected", cost, move |device| {
            let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", weight)?);
            let bias = device.zeros("bench", [out])?;
            Work::gradient(device.zeros("bench", y)?, move |tape| {
                let watched = |wanted: bool, tensor| if wanted { tape.watch_input(tensor) } else { tensor.detach() };
                let of_x = entry == "backward_input";
                let (x, weight, bias) = (watched(of_x, &x), watched(!of_x, &weight), watched(!of_x, &bias));
                ops::conv_transpose2d::forward(&x, &weight, Some(&bias), side, 0, 0, Version::V1)
            })
        }));
    }
    Ok(cases)
}
