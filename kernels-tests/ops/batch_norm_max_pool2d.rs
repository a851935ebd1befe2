//! Cases of batch normalisation with max pooling: weights above, below and at 0, ties, odd rows and columns, one window,
//! several chunks, channels that do and do not divide by 4; both modes, with and without a ReLU. The reference does one
//! after the other.

use shadegrad::cpu::batch_norm::{self as norm, BatchNormParams, Gate};
use shadegrad::cpu::batch_norm_max_pool2d::{self as plain, BatchNormMaxPool2dParams};
use shadegrad::cpu::max_pool2d::{self as pool, MaxPool2dParams};
use shadegrad::ops::batch_norm_max_pool2d::forward;
use shadegrad::ops::{BatchNormSettings, Mode, RunningStats, Version};
use shadegrad::{Device, Result, Tape, Tensor};

use super::{Case, Checks, GradientCase, POINTWISE, SUMS, Tolerance, doubles, numbers};

const OP: &str = "batch_norm_max_pool2d";

/// As for batch normalisation alone: sums that may cancel.
const PARAMETER: Tolerance = Tolerance { nmse: 1e-11, absolute: 5e-6 };

pub fn cases() -> Vec<Case> {
    let shapes =
        [[1, 2, 2, 1], [1, 2, 3, 4], [2, 7, 9, 5], [3, 17, 31, 1], [2, 53, 61, 20], [1, 37, 42, 132], [4, 64, 64, 16]];
    let mut cases = Vec::new();
    for mode in [Mode::Train, Mode::Eval] {
        for shape in shapes {
            for (relu, ties) in [(true, false), (false, true), (true, true)] {
                cases.push(case(shape, mode, relu, ties));
            }
        }
    }
    cases
}

/// One set of sizes for each of the three twins; what only the kernels look at stays 0.
#[derive(Clone, Copy)]
struct Sizes {
    norm: BatchNormParams,
    pool: MaxPool2dParams,
    both: BatchNormMaxPool2dParams,
}

fn sizes([n, h, w, c]: [usize; 4], mode: Mode, relu: bool) -> Sizes {
    let settings = BatchNormSettings { relu, ..BatchNormSettings::new(mode) };
    let (batch, in_h, in_w, channels) = (n as u32, h as u32, w as u32, c as u32);
    let norm = BatchNormParams {
        images: batch,
        image_pixels: in_h * in_w,
        channels,
        chunk: 0,
        image_chunks: 0,
        chunks: 0,
        first_chunk: 0,
        columns: 0,
        momentum: settings.momentum,
        eps: settings.eps,
        inverse_count: if mode == Mode::Train { 1.0 / (n * h * w) as f32 } else { 0.0 },
        accumulate: 0,
        floor: if relu { 0.0 } else { f32::MIN },
    };
    let pool = MaxPool2dParams { batch, in_h, in_w, out_h: in_h / 2, out_w: in_w / 2, channels, accumulate: 0 };
    let both = BatchNormMaxPool2dParams {
        images: batch,
        in_h,
        in_w,
        image_pixels: (in_h / 2) * (in_w / 2),
        channels,
        chunk: 0,
        image_chunks: 0,
        chunks: 0,
        first_chunk: 0,
        columns: 0,
        eps: norm.eps,
        floor: norm.floor,
    };
    Sizes { norm, pool, both }
}

struct Reference {
    y: Vec<f64>,
    gx: Vec<f64>,
    gw: Vec<f64>,
    gb: Vec<f64>,
    running: [Vec<f64>; 2],
}

/// Normalisation, then pooling, then back through both.
fn reference(sizes: &Sizes, x: &[f64], affine: [&[f64]; 2], running: [&[f64]; 2], gy: &[f64]) -> Reference {
    let (p, channels) = (&sizes.norm, sizes.norm.channels as usize);
    let [[mean, variance], running] = statistics(p, x, running);
    let mut v = vec![0.0; x.len()];
    norm::forward(p, x, affine, [&mean, &variance], &mut v);
    let (mut y, mut winner, mut gv) = (vec![0.0; gy.len()], vec![0; gy.len()], vec![0.0; x.len()]);
    pool::forward(&sizes.pool, &v, &mut y, &mut winner);
    pool::backward_input(&sizes.pool, gy, &winner, &mut gv);
    let (mut gw, mut gb, mut gx) = (vec![0.0; channels], vec![0.0; channels], vec![0.0; x.len()]);
    let (gate, constants) = (Gate::new(p, 0.0), [affine[0], affine[1], &mean[..], &variance]);
    norm::backward_sums(p, gate, x, &gv, constants, &mut gw, &mut gb);
    norm::backward_input(p, gate, x, &gv, constants, [&gw, &gb], &mut gx);
    Reference { y, gx, gw, gb, running }
}

/// Mean and variance that x is normalised with, and the running ones afterwards.
fn statistics(p: &BatchNormParams, x: &[f64], running: [&[f64]; 2]) -> [[Vec<f64>; 2]; 2] {
    let [mut mean, mut variance] = running.map(<[f64]>::to_vec);
    let mut running = running.map(<[f64]>::to_vec);
    if p.inverse_count > 0.0 {
        norm::statistics(p, x, &mut mean, &mut variance);
        norm::update_mean(p, &mean, &mut running[0]);
        norm::update_var(p, &variance, &mut running[1]);
    }
    [[mean, variance], running]
}

/// Between -1 and 1; the third is 0, where it exists.
fn weights(channels: usize) -> Vec<f32> {
    let mut weight = numbers("weight", channels);
    weight.iter_mut().skip(2).take(1).for_each(|weight| *weight = 0.0);
    weight
}

fn case(shape: [usize; 4], mode: Mode, relu: bool, ties: bool) -> Case {
    let name = format!("{shape:?} {mode:?}{}{}", if relu { " relu" } else { "" }, if ties { " ties" } else { "" });
    Case::new(OP, name.clone(), move |device, checks| {
        let [n, h, w, channels] = shape;
        let mut x = numbers(&name, shape.iter().product());
        if ties {
            x.iter_mut().for_each(|value| *value = (*value * 2.0).round()); // few different values
        }
        let (weight, bias, mean) = (weights(channels), numbers("bias", channels), numbers("mean", channels));
        let var: Vec<f32> = numbers("var", channels).iter().map(|v| 0.5 + 0.25 * v).collect();
        let gy = numbers("gy", n * (h / 2) * (w / 2) * channels);
        let want = reference(
            &sizes(shape, mode, relu),
            &doubles(&x),
            [&doubles(&weight), &doubles(&bias)],
            [&doubles(&mean), &doubles(&var)],
            &doubles(&gy),
        );
        let versions: &[Version] =
            if channels.is_multiple_of(4) { &[Version::V1, Version::V2] } else { &[Version::V1] };
        for &version in versions {
            let inputs = Inputs { shape, x: &x, vectors: [&weight, &bias, &mean, &var], gy: &gy };
            let settings = BatchNormSettings { relu, ..BatchNormSettings::new(mode) };
            run(device, checks, &inputs, &settings, version, &want)?;
        }
        Ok(())
    })
}

struct Inputs<'a> {
    shape: [usize; 4],
    x: &'a [f32],
    /// Weight, bias, running mean and variance.
    vectors: [&'a [f32]; 4],
    gy: &'a [f32],
}

fn run(
    device: &Device,
    checks: &mut Checks,
    inputs: &Inputs<'_>,
    settings: &BatchNormSettings,
    version: Version,
    want: &Reference,
) -> Result<()> {
    let vector = |which: usize| device.tensor(OP, [inputs.shape[3]], inputs.vectors[which]);
    let tape = Tape::new();
    let x = tape.watch_input(&device.tensor(OP, inputs.shape, inputs.x)?);
    let (weight, bias) = (tape.watch_input(&vector(0)?), tape.watch_input(&vector(1)?));
    let (mean, var) = (vector(2)?, vector(3)?);
    let y = forward(&x, &weight, &bias, &RunningStats { mean: &mean, var: &var }, settings, version)?;
    let grads = tape.backward_from(&y, &device.tensor(OP, y.shape(), inputs.gy)?)?;

    let version = version.name();
    checks.compare("forward", version, &y, &want.y, POINTWISE)?;
    checks.compare("forward running mean", version, &mean, &want.running[0], POINTWISE)?;
    checks.compare("forward running var", version, &var, &want.running[1], POINTWISE)?;
    let mut gradient = |entry, of: &Tensor, want: &[f64], tolerance| match grads.of(of) {
        Some(got) => checks.compare(entry, version, got, want, tolerance),
        None => Err(shadegrad::Error::Tape(format!("{entry}: no gradient"))),
    };
    gradient("backward_input", &x, &want.gx, SUMS)?;
    gradient("backward_sums weight", &weight, &want.gw, PARAMETER)?;
    gradient("backward_sums bias", &bias, &want.gb, PARAMETER)
}

pub fn gradients() -> Vec<GradientCase> {
    let shape = [2, 5, 4, 3];
    let count = shape.iter().product();
    let gy = doubles(&numbers("finite gy", 2 * 2 * 2 * 3));
    let mut cases = Vec::new();
    for (mode, relu) in [(Mode::Train, false), (Mode::Eval, false), (Mode::Train, true), (Mode::Eval, true)] {
        let sizes = sizes(shape, mode, relu);
        let inputs =
            vec![doubles(&numbers("finite", count)), vec![0.7, -1.2, 0.4], doubles(&numbers("finite bias", 3))];
        let running = [doubles(&numbers("finite mean", 3)), vec![0.5, 1.0, 1.5]];
        let result = reference(&sizes, &inputs[0], [&inputs[1], &inputs[2]], [&running[0], &running[1]], &gy);
        let gy = gy.clone();
        // The twin's own forward pass.
        let value = move |inputs: &[Vec<f64>]| {
            let [[mean, variance], _] = statistics(&sizes.norm, &inputs[0], [&running[0], &running[1]]);
            let (mut y, mut winner) = (vec![0.0; gy.len()], vec![0; gy.len()]);
            plain::forward(&sizes.both, &inputs[0], [&inputs[1], &inputs[2]], [&mean, &variance], &mut y, &mut winner);
            y.iter().zip(&gy).map(|(y, g)| y * g).sum()
        };
        cases.push(GradientCase {
            name: format!("{OP} {mode:?}{}", if relu { " relu" } else { "" }),
            inputs,
            value: Box::new(value),
            gradients: vec![result.gx, result.gw, result.gb],
            tolerance: 1e-6,
        });
    }
    cases
}
