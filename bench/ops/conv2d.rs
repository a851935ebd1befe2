//! Convolutions: forward, and the gradients of x and of the weight, with every kernel that takes the channels.

use shadegrad::cpu::conv2d::Conv2dParams;
use shadegrad::gpu::Constants;
use shadegrad::ops::Version;
use shadegrad::ops::conv2d::{
    GatherKernel, WeightKernel, backward, backward_input, backward_weight, forward, forward_with_statistics,
};
use shadegrad::ops::{conv2d_few, winograd, winograd_fused};
use shadegrad::{Error, Result};

use super::{BenchCase, Cost, Layer, Work, versions};

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
    for (name, version) in gathers(&p) {
        cases.push(BenchCase::new(layer, FORM, "forward", name, cost, move |device| {
            let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", weight)?);
            let bias = device.zeros("bench", [out])?;
            Work::launch(move || forward(&x, &weight, Some(&bias), stride, padding, version).map(drop))
        }));
    }
    let tiles = out.is_multiple_of(8);
    let statistics = [tiles.then_some(("v2", Version::V2.into())), shared(out), few(&p), fused(&p)];
    for (name, kernel) in statistics.into_iter().flatten() {
        cases.push(BenchCase::new(layer, FORM, "forward_statistics", name, cost, move |device| {
            let (x, weight) = (device.zeros("bench", x)?, device.zeros("bench", weight)?);
            Work::launch(move || forward_with_statistics(&x, &weight, None, stride, padding, kernel).map(drop))
        }));
    }
    for (name, version) in gathers(&p.input_gradient()) {
        cases.push(BenchCase::new(layer, FORM, "backward_input", name, cost, move |device| {
            let (gy, weight) = (device.zeros("bench", y)?, device.zeros("bench", weight)?);
            let gx = device.zeros("bench", x)?;
            Work::launch(move || backward_input(&p, &gy, &weight, &gx, version))
        }));
    }
    for kernel in WeightKernel::all(&p) {
        cases.push(BenchCase::new(layer, FORM, "backward_weight", kernel.name(), cost, move |device| {
            let (x, gy) = (device.zeros("bench", x)?, device.zeros("bench", y)?);
            let (gw, gb) = (device.zeros("bench", weight)?, device.zeros("bench", [out])?);
            Work::launch(move || backward_weight(&p, &x, &gy, &gw, Some(&gb), kernel))
        }));
    }
    if WeightKernel::usual(x[3], out) == WeightKernel::V3 {
        cases.push(BenchCase::new(layer, FORM, "backward", Version::V2.name(), cost.and(cost), move |device| {
            let (x_in, gy) = (device.zeros("bench", x)?, device.zeros("bench", y)?);
            let (w, gx) = (device.zeros("bench", weight)?, device.zeros("bench", x)?);
            let (gw, gb) = (device.zeros("bench", weight)?, device.zeros("bench", [out])?);
            Work::launch(move || backward(&p, [&x_in, &gy, &w], &gx, &gw, Some(&gb)))
        }));
    }
    Ok(cases)
}

/// The versions that make this gather, with their names.
fn gathers(p: &Conv2dParams) -> Vec<(&'static str, GatherKernel)> {
    let of = |version: &Version| (version.name(), (*version).into());
    let direct = versions(p.out_c.is_multiple_of(8)).iter().map(of);
    let winograd = winograd::takes(p).then_some(("v3", GatherKernel::Winograd));
    direct.chain(winograd).chain(shared(p.out_c as usize)).chain(few(p)).chain(fused(p)).collect()
}

/// The tiles through workgroup memory.
fn shared(out: usize) -> Option<(&'static str, GatherKernel)> {
    (out.is_multiple_of(8) && out >= 16).then_some(("v4", GatherKernel::Shared(Constants::default())))
}

/// The kernel for an x of few channels.
fn few(p: &Conv2dParams) -> Option<(&'static str, GatherKernel)> {
    (conv2d_few::takes(p) && p.out_c.is_multiple_of(8)).then_some(("v6", GatherKernel::Few(Constants::default())))
}

/// Winograd's form in one kernel.
fn fused(p: &Conv2dParams) -> Option<(&'static str, GatherKernel)> {
    winograd_fused::takes(p).then_some(("v7", GatherKernel::Fused(Constants::default())))
}
