//! Cases of batch normalisation with max pooling: weights above, below and at 0, ties, odd rows and columns, one window,
//! several chunks and slabs, channels that do and do not divide by 4; both modes, with and without a ReLU. The reference does one
//! after the other.

use shadegrad::Tape;
use shadegrad::cpu::max_pool2d::{MaxPool2dParams, backward_input, forward as pool};
use shadegrad::ops::batch_norm_max_pool2d::forward;
use shadegrad::ops::{BatchNormSettings, Mode, Version};

use super::batch_norm::{Inputs, PARAMETER, SUMS_ENTRY, gradient_case, params, reference, run};
use super::{Case, GradientCase, POINTWISE, SUMS, doubles, numbers};

const OP: &str = "batch_norm_max_pool2d";

pub fn cases() -> Vec<Case> {
    let small = [[1, 2, 2, 1], [1, 2, 3, 4], [2, 7, 9, 5], [3, 17, 31, 1]];
    let large = [[2, 53, 61, 20], [1, 37, 42, 132], [4, 64, 64, 16], [6, 16, 15, 64], [2, 47, 65, 160]];
    let mut cases = Vec::new();
    for mode in [Mode::Train, Mode::Eval] {
        for shape in small.into_iter().chain(large) {
            for (relu, ties) in [(true, false), (false, true), (true, true)] {
                cases.push(case(shape, mode, relu, ties));
            }
        }
    }
    cases
}

/// Pools normalised numbers, and brings gy back to the winners.
fn pooled([n, h, w, c]: [usize; 4], v: &[f64], gy: &[f64]) -> [Vec<f64>; 2] {
    let (batch, in_h, in_w, channels) = (n as u32, h as u32, w as u32, c as u32);
    let p = MaxPool2dParams { batch, in_h, in_w, out_h: in_h / 2, out_w: in_w / 2, channels, accumulate: 0 };
    let (mut y, mut winner, mut gv) = (vec![0.0; gy.len()], vec![0; gy.len()], vec![0.0; v.len()]);
    pool(&p, v, &mut y, &mut winner);
    backward_input(&p, gy, &winner, &mut gv);
    [y, gv]
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
        let x = checks.stored(x);
        let (weight, bias, mean) = (weights(channels), numbers("bias", channels), numbers("mean", channels));
        let var: Vec<f32> = numbers("var", channels).iter().map(|v| 0.5 + 0.25 * v).collect();
        let gy = checks.stored(numbers("gy", n * (h / 2) * (w / 2) * channels));
        let want = reference(
            &params(shape, mode, relu),
            &doubles(&x),
            [&doubles(&weight), &doubles(&bias)],
            [&doubles(&mean), &doubles(&var)],
            |v| pooled(shape, v, &doubles(&gy)),
        );
        let bounds = [POINTWISE, SUMS, PARAMETER, PARAMETER];
        let sums = SUMS_ENTRY;
        let inputs = Inputs { op: OP, sums, shape, x: &x, vectors: [&weight, &bias, &mean, &var], gy: &gy, bounds };
        let settings = BatchNormSettings { relu, ..BatchNormSettings::new(mode) };
        let versions: &[Version] =
            if channels.is_multiple_of(4) { &[Version::V1, Version::V2] } else { &[Version::V1] };
        for &version in versions {
            run(device, Tape::new(), checks, &inputs, version.name(), &want, |x, [weight, bias], running| {
                forward(x, weight, bias, running, &settings, version)
            })?;
        }
        Ok(())
    })
}

pub fn gradients() -> Vec<GradientCase> {
    let shape = [2, 5, 4, 3];
    let gy = doubles(&numbers("finite gy", 2 * 2 * 2 * 3));
    let modes = [(Mode::Train, false), (Mode::Eval, false), (Mode::Train, true), (Mode::Eval, true)];
    let case = |(mode, relu)| {
        let of_y = gy.clone();
        let name = format!("{OP} {mode:?}{}", if relu { " relu" } else { "" });
        gradient_case(name, shape, params(shape, mode, relu), &gy, move |v| pooled(shape, v, &of_y))
    };
    modes.map(case).into()
}
