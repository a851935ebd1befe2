//! Cases of batch normalisation with bilinear upsampling: one row, one column, odd sizes, several chunks, channels that do
//! and do not divide by 4; both modes, with and without a ReLU. The reference does one after the other.

use shadegrad::Tape;
use shadegrad::cpu::upsample_bilinear::{UpsampleBilinearParams, backward_input, forward as upsample};
use shadegrad::ops::batch_norm_upsample_bilinear::forward;
use shadegrad::ops::{BatchNormSettings, Mode, Version};

use super::batch_norm::{Inputs, PARAMETER, SUMS_ENTRY, gradient_case, params, reference, run};
use super::{Case, EXACT, GradientCase, POINTWISE, SUMS, doubles, numbers};

const OP: &str = "batch_norm_upsample_bilinear";

pub fn cases() -> Vec<Case> {
    let small = [[1, 1, 3, 2], [1, 1, 6, 8], [2, 6, 1, 3], [2, 5, 7, 3], [3, 17, 11, 7], [2, 3, 5, 20]];
    let large = [[1, 37, 41, 132], [4, 32, 32, 16]];
    let mut cases = Vec::new();
    for mode in [Mode::Train, Mode::Eval] {
        for shape in small.into_iter().chain(large) {
            for relu in [false, true] {
                cases.push(case(shape, mode, relu));
            }
        }
    }
    cases
}

/// Upsamples normalised numbers and adds skip, and brings gy back.
fn upsampled([_, h, w, c]: [usize; 4], relu: bool, v: &[f64], skip: &[f64], gy: &[f64]) -> [Vec<f64>; 2] {
    let (in_h, in_w, channels, relu) = (h as u32, w as u32, c as u32, u32::from(relu));
    let p = UpsampleBilinearParams { in_h, in_w, channels, align_corners: 0, relu, has_skip: 1 };
    let (mut y, mut gv) = (vec![0.0; gy.len()], vec![0.0; v.len()]);
    upsample(&p, v, Some(skip), &mut y);
    backward_input(&p, 0.0, v, gy, &mut gv);
    [y, gv]
}

fn case(shape: [usize; 4], mode: Mode, relu: bool) -> Case {
    let name = format!("{shape:?} {mode:?}{}", if relu { " relu" } else { "" });
    Case::new(OP, name.clone(), move |device, checks| {
        let [n, h, w, channels] = shape;
        let out_shape = [n, 2 * h, 2 * w, channels];
        let x = checks.stored(numbers(&name, shape.iter().product()));
        let (weight, bias, mean) = (numbers("weight", channels), numbers("bias", channels), numbers("mean", channels));
        let var: Vec<f32> = numbers("var", channels).iter().map(|v| 0.5 + 0.25 * v).collect();
        let [skip, gy] = ["skip", "gy"].map(|name| checks.stored(numbers(name, 4 * x.len())));
        let want = reference(
            &params(shape, mode, false),
            &doubles(&x),
            [&doubles(&weight), &doubles(&bias)],
            [&doubles(&mean), &doubles(&var)],
            |v| upsampled(shape, relu, v, &doubles(&skip), &doubles(&gy)),
        );
        let bounds = [POINTWISE, SUMS, PARAMETER, PARAMETER];
        let sums = SUMS_ENTRY;
        let inputs = Inputs { op: OP, sums, shape, x: &x, vectors: [&weight, &bias, &mean, &var], gy: &gy, bounds };
        let settings = BatchNormSettings { relu, ..BatchNormSettings::new(mode) };
        let versions: &[Version] =
            if channels.is_multiple_of(4) { &[Version::V1, Version::V2] } else { &[Version::V1] };
        for &version in versions {
            let tape = Tape::new();
            let skip = tape.watch_input(&checks.image(device, out_shape, &skip)?);
            let grads = run(device, tape, checks, &inputs, version.name(), &want, |x, affine, running| {
                forward(x, affine, running, &settings, &skip, version)
            })?;
            let gskip = grads.of(&skip).expect("watched");
            checks.compare("backward_sums skip", version.name(), gskip, &doubles(&gy), EXACT)?;
        }
        Ok(())
    })
}

pub fn gradients() -> Vec<GradientCase> {
    let shape = [2, 3, 2, 3];
    let outputs = 4 * shape.iter().product::<usize>();
    let (gy, skip) = (doubles(&numbers("finite gy", outputs)), doubles(&numbers("finite skip", outputs)));
    let modes = [(Mode::Train, false), (Mode::Eval, false), (Mode::Train, true), (Mode::Eval, true)];
    let case = |(mode, relu)| {
        let (of_y, skip) = (gy.clone(), skip.clone());
        let name = format!("{OP} {mode:?}{}", if relu { " relu" } else { "" });
        let then = move |v: &[f64]| upsampled(shape, relu, v, &skip, &of_y);
        gradient_case(name, shape, params(shape, mode, false), &gy, then)
    };
    modes.map(case).into()
}
