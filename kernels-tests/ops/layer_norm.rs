//! Cases of layer normalisation: many short rows, few long ones, one channel, means far from 0, variances below eps.

use shadegrad::cpu::layer_norm::{LayerNormParams, backward_input, backward_sums, forward};
use shadegrad::ops::{Version, layer_norm};
use shadegrad::{Device, Shape, Tape, Tensor};

use super::{Case, GradientCase, POINTWISE, SUMS, Tolerance, doubles, numbers};

const OP: &str = "layer_norm";
const EPS: f32 = 1e-5;

/// x is 90 deviations away from 0: f32 holds the mean to half a unit in the last place, 6e-6 deviations.
const FAR_MEAN: Tolerance = Tolerance { nmse: 1e-9, absolute: 3e-5 };

/// Gradients of weight and bias: sums of thousands of numbers of both signs, which may cancel to a hundredth. With few
/// channels nothing else is in the norm that the error is compared with.
const PARAMETER: Tolerance = Tolerance { nmse: 1e-11, absolute: 5e-6 };

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let shapes: [&[usize]; 14] = [
        &[2, 15, 7],
        &[2, 16, 16, 160],
        &[2, 8, 8, 256],
        &[1, 1, 3, 512],
        &[2, 53, 61, 7],
        &[3, 31, 17, 12],
        &[5, 4],
        &[1000, 36],
        &[130, 132],
        &[64],
        &[9, 1],
        &[1, 13],
        &[7, 1028],
        &[9000, 16],
    ];
    for dims in shapes {
        cases.push(case(dims, "", 0.3, 1.0));
    }
    for dims in [&[2, 15, 7], &[70, 160]] as [&[usize]; 2] {
        cases.push(case(dims, " far mean", 50.0, 1.0));
        cases.push(case(dims, " tiny variance", -0.002, 0.002));
    }
    cases
}

fn params(rows: usize, channels: usize) -> LayerNormParams {
    LayerNormParams {
        rows: rows as u32,
        channels: channels as u32,
        chunk: 0,
        first_chunk: 0,
        columns: 0,
        accumulate: 0,
        eps: EPS,
    }
}

struct Reference {
    y: Vec<f64>,
    gx: Vec<f64>,
    gw: Vec<f64>,
    gb: Vec<f64>,
}

fn reference(p: &LayerNormParams, x: &[f64], weight: &[f64], bias: &[f64], gy: &[f64]) -> Reference {
    let (mut y, mut statistics) = (vec![0.0; x.len()], vec![0.0; 2 * p.rows as usize]);
    forward(p, x, weight, bias, &mut y, &mut statistics);
    let (mut gx, mut gw, mut gb) = (vec![0.0; x.len()], vec![0.0; weight.len()], vec![0.0; weight.len()]);
    backward_input(p, x, gy, &statistics, weight, &mut gx);
    backward_sums(p, x, gy, &statistics, &mut gw, &mut gb);
    Reference { y, gx, gw, gb }
}

fn weights(name: &str, channels: usize) -> Vec<f32> {
    numbers(name, channels).iter().map(|v| 1.0 + 0.5 * v).collect()
}

fn case(dims: &[usize], special: &'static str, mean: f32, spread: f32) -> Case {
    let dims = dims.to_vec();
    let name = format!("{dims:?}{special}");
    Case::new(OP, name.clone(), move |device, checks| {
        let shape = Shape::new(&dims)?;
        let channels = shape.last();
        let x = checks.stored(numbers(&name, shape.len()).iter().map(|v| mean + spread * v).collect());
        let gy = checks.stored(numbers("gy", x.len()));
        let (weight, bias) = (weights("weight", channels), numbers("bias", channels));
        let p = params(x.len() / channels, channels);
        let want = reference(&p, &doubles(&x), &doubles(&weight), &doubles(&bias), &doubles(&gy));
        let far = special == " far mean";
        let versions: &[Version] =
            if layer_norm::takes_v2(channels) { &[Version::V1, Version::V2] } else { &[Version::V1] };
        for version in versions {
            let tape = Tape::new();
            let input = tape.watch_input(&checks.image(device, shape, &x)?);
            let weight = tape.watch_input(&device.tensor(OP, [channels], &weight)?);
            let bias = tape.watch_input(&device.tensor(OP, [channels], &bias)?);
            let y = layer_norm::forward(&input, &weight, &bias, EPS, *version)?;
            let grads = tape.backward_from(&y, &checks.image(device, shape, &gy)?)?;

            let entries = match version {
                Version::V1 => ["backward_input", "backward_sums weight", "backward_sums bias"],
                Version::V2 => ["backward x", "backward weight", "backward bias"],
            };
            let version = version.name();
            checks.compare("forward", version, &y, &want.y, if far { FAR_MEAN } else { POINTWISE })?;
            let mut gradient = |entry, of: &Tensor, want: &[f64], tolerance| match grads.of(of) {
                Some(got) => checks.compare(entry, version, got, want, tolerance),
                None => Err(shadegrad::Error::Tape(format!("{entry}: no gradient"))),
            };
            gradient(entries[0], &input, &want.gx, if far { FAR_MEAN } else { of_one(channels).unwrap_or(SUMS) })?;
            gradient(entries[1], &weight, &want.gw, if far { FAR_MEAN } else { PARAMETER })?;
            gradient(entries[2], &bias, &want.gb, PARAMETER)?;
            if matches!(device, Device::Cpu(_)) {
                break; // the plain twin has one version
            }
        }
        Ok(())
    })
}

/// The gradient of a row of one number is that number less itself, times 1 / sqrt(eps). A GPU that multiplies and subtracts at once
/// (NVIDIA's does) leaves the rounding of the product.
fn of_one(channels: usize) -> Option<Tolerance> {
    const ROUNDED: f64 = 1.5 / (1 << 24) as f64; // numbers up to 1, times weights up to 1.5
    (channels == 1).then(|| Tolerance { absolute: ROUNDED / f64::from(EPS).sqrt(), ..SUMS })
}

pub fn gradients() -> Vec<GradientCase> {
    let (rows, channels) = (3, 5);
    let p = params(rows, channels);
    let inputs = vec![
        doubles(&numbers("finite", rows * channels)),
        doubles(&weights("finite weight", channels)),
        doubles(&numbers("finite bias", channels)),
    ];
    let gy = doubles(&numbers("finite gy", rows * channels));
    let result = reference(&p, &inputs[0], &inputs[1], &inputs[2], &gy);
    vec![GradientCase {
        name: OP.to_owned(),
        inputs,
        value: Box::new(move |i| reference(&p, &i[0], &i[1], &i[2], &gy).y.iter().zip(&gy).map(|(y, g)| y * g).sum()),
        gradients: vec![result.gx, result.gw, result.gb],
        tolerance: 1e-6,
    }]
}
