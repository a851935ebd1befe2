//! Convolutions: forward, and the gradients of x and of the weight, with every kernel that takes the channels.

use shadegrad::cpu::conv2d::Conv2dParams;
use shadegrad::gpu::Constants;
use shadegrad::ops::Version;
use shadegrad::ops::conv2d::{
    GatherKernel, WeightKernel, backward, backward_input, backward_weight, forward, forward_with_statistics,
};
use shadegrad::ops::{conv2d_few, winograd, winograd_fused, winograd_weight};
use shadegrad::{Device, Error, Result};

use super::{BenchCase, Cost, Layer, Work};

pub const FORM: &str = "NxHxWxC KxK OUT [sSTRIDE] [pPADDING]";

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (x, Layer { kernel, out, stride, padding, .. }) = (layer.nhwc()?, layer.clone());
    if x[1].min(x[2]) + 2 * padding < kernel {
        return Err(Error::Config(format!("conv2d: {} leaves no result", layer.text(FORM))));
    }
    let weight = [kernel, kernel, x[3], out];
    let p = Conv2dParams::forward(x, weight, stride, padding, true);
    let y = [p.batch, p.out_h, p.out_w, p.out_c].map(|extent| extent as usize);
    let numbers = |shape: [usize; 4]| shape.iter().product::<usize>() as f64;
    // Each of the three reads two of x, weight and y, and writes the third.
    let cost = Cost::of(2.0 * numbers(y) * numbers(weight) / out as f64, numbers(x) + numbers(weight) + numbers(y));
    let mut cases = Vec::new();
    for kernel in gathers(&p) {
        cases.push(BenchCase::new(layer, FORM, "forward", kernel, cost, move |device| {
            let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", weight)?);
            let bias = device.zeros("bench", [out])?;
            Work::launch(move || forward(&x, &weight, Some(&bias), stride, padding, kernel).map(drop))
        }));
    }
    let leave_none =
        |kernel: &GatherKernel| *kernel == Version::V1.into() || matches!(kernel, GatherKernel::Winograd(_));
    for kernel in gathers(&p).into_iter().filter(|kernel| !leave_none(kernel)) {
        cases.push(BenchCase::new(layer, FORM, "forward_statistics", kernel, cost, move |device| {
            let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", weight)?);
            Work::launch(move || forward_with_statistics(&x, &weight, None, stride, padding, kernel).map(drop))
        }));
    }
    for kernel in gathers(&p.input_gradient()) {
        cases.push(BenchCase::new(layer, FORM, "backward_input", kernel, cost, move |device| {
            let (gy, weight) = (device.zeros("bench", y)?, device.zeros("bench", weight)?);
            let gx = device.zeros("bench", x)?;
            Work::launch(move || backward_input(&p, &gy, &weight, &gx, kernel))
        }));
    }
    let mut weights = WeightKernel::all(&Device::cpu(), &p);
    let both = weights.contains(&WeightKernel::V3(Constants::default()));
    let tiles = super::tiles(both, x[3], out);
    weights.extend(tiles.iter().skip(2).map(|kernel| WeightKernel::V3(kernel.constants)));
    if winograd_weight::takes(&p) {
        weights.extend(tiles.iter().skip(1).map(|kernel| WeightKernel::V5(kernel.constants)));
    }
    for kernel in weights {
        cases.push(BenchCase::new(layer, FORM, "backward_weight", kernel, cost, move |device| {
            let (x, gy) = (device.zeros("bench", x)?, device.zeros("bench", y)?);
            let (gw, gb) = (device.zeros("bench", weight)?, device.zeros("bench", [out])?);
            Work::launch(move || backward_weight(&p, &x, &gy, &gw, Some(&gb), kernel))
        }));
    }
    for kernel in tiles.into_iter().skip(1) {
        cases.push(BenchCase::new(layer, FORM, "backward", kernel, cost.and(cost), move |device| {
            let (x_in, gy) = (device.zeros("bench", x)?, device.zeros("bench", y)?);
            let (w, gx) = (device.zeros("bench", weight)?, device.zeros("bench", x)?);
            let (gw, gb) = (device.zeros("bench", weight)?, device.zeros("bench", [out])?);
            Work::launch(move || backward(&p, [&x_in, &gy, &w], &gx, &gw, Some(&gb), kernel))
        }));
    }
    Ok(cases)
}

/// The kernels that make this gather; of `// @tune` constants only whether neighbours share what they read.
fn gathers(p: &Conv2dParams) -> Vec<GatherKernel> {
    let tiled = p.out_c.is_multiple_of(8);
    let tiles = super::tiles(tiled, p.in_c as usize, p.out_c as usize);
    let products = tiles.iter().skip(1).filter(|_| winograd::takes(p));
    let products = products.map(|kernel| GatherKernel::Winograd(kernel.constants));
    let fused = winograd_fused::takes(p).then_some(GatherKernel::Fused(Constants::default()));
    tiles.iter().copied().map(Into::into).chain(products).chain(conv2d_few::kernels(p)).chain(fused).collect()
}
