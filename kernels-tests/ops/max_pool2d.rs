//! Cases of max pooling, alone and behind a batch norm: ties, odd rows and columns, one window, more elements than a workgroup.

use shadegrad::cpu::max_pool2d::{MaxPool2dParams, backward_input, forward};
use shadegrad::ops::{BatchNormSettings, Mode, RunningStats};
use shadegrad::{Result, Tape, Tensor, ops};

use super::{Case, EXACT, GradientCase, SUMS, batch_norm, doubles, numbers};

const OP: &str = "max_pool2d";

fn params([n, h, w, c]: [usize; 4]) -> MaxPool2dParams {
    MaxPool2dParams {
        batch: n as u32,
        in_h: h as u32,
        in_w: w as u32,
        out_h: (h / 2) as u32,
        out_w: (w / 2) as u32,
        channels: c as u32,
        accumulate: 0,
    }
}

/// Few different values, so that many windows hold ties.
fn with_ties(mut values: Vec<f32>) -> Vec<f32> {
    values.iter_mut().for_each(|value| *value = (*value * 2.0).round());
    values
}

pub fn cases() -> Vec<Case> {
    let shapes = [[1, 2, 2, 1], [2, 7, 9, 3], [1, 3, 2, 5], [3, 17, 31, 7], [2, 64, 64, 16]];
    let mut cases = Vec::new();
    for shape in shapes {
        for ties in [false, true] {
            cases.push(case(shape, ties));
        }
    }
    cases.extend(
        [[1, 2, 2, 4], [2, 6, 10, 12], [1, 18, 16, 64], [1, 22, 20, 40], [6, 32, 32, 8], [2, 7, 8, 8]].map(after_norm),
    );
    cases
}

/// Behind a batch norm that nobody has asked yet, whose result the pooling then writes in passing: the same bits as one after
/// the other. It is pooled twice, so that one gradient is added to the other. Odd rows are not for that kernel.
fn after_norm(shape: [usize; 4]) -> Case {
    Case::new(OP, format!("{shape:?} after a norm"), move |device, checks| {
        let (channels, settings) = (shape[3], BatchNormSettings { relu: true, ..BatchNormSettings::new(Mode::Train) });
        let x = checks.stored(with_ties(numbers("x", shape.iter().product())));
        let out_shape = [shape[0], shape[1] / 2, shape[2] / 2, channels];
        let gy = checks.stored(numbers("gy", out_shape.iter().product()));
        let (weight, bias) = (numbers("weight", channels), numbers("bias", channels));
        let (p, mut want_v) = (params(shape), Vec::new());
        let want = batch_norm::reference(
            &batch_norm::params(shape, Mode::Train, true),
            &doubles(&x),
            [&doubles(&weight), &doubles(&bias)],
            [&vec![0.0; channels], &vec![1.0; channels]],
            |v| {
                let (mut y, mut winner) = (vec![0.0; gy.len()], vec![0; gy.len()]);
                forward(&p, v, &mut y, &mut winner);
                let mut gv = vec![0.0; v.len()];
                backward_input(&p, &doubles(&gy), &winner, &mut gv);
                y.iter_mut().chain(&mut gv).for_each(|number| *number *= 2.0);
                [[v, &y].concat(), gv]
            },
        );
        want_v.extend_from_slice(&want.y[..x.len()]);
        let vector = |values: &[f32]| device.tensor(OP, [channels], values);
        let run = |first_the_norm: bool| -> Result<[Tensor; 3]> {
            let tape = Tape::new();
            let input = tape.watch_input(&checks.image(device, shape, &x)?);
            let running = [vector(&vec![0.0; channels])?, vector(&vec![1.0; channels])?];
            let running = RunningStats { mean: &running[0], var: &running[1] };
            let v = ops::batch_norm(&input, &vector(&weight)?, &vector(&bias)?, &running, &settings)?;
            if first_the_norm {
                v.to_vec()?;
            }
            let y = ops::add(&ops::max_pool2d(&v)?, &ops::max_pool2d(&v)?)?;
            let grads = tape.backward_from(&y, &checks.image(device, out_shape, &gy)?)?;
            Ok([v.detach(), y.detach(), grads.of(&input).expect("watched").detach()])
        };
        let [[v, y, gx], apart] = [run(false)?, run(true)?];
        checks.compare("forward v", "selected", &v, &want_v, SUMS)?;
        checks.compare("forward", "selected", &y, &want.y[x.len()..], SUMS)?;
        for (entry, got, apart) in [("forward v", v, &apart[0]), ("forward", y, &apart[1])] {
            checks.compare(entry, "selected", &got, &doubles(&apart.to_vec()?), EXACT)?;
        }
        checks.compare("backward_input apart", "selected", &apart[2], &want.gx, SUMS)?;
        checks.compare("backward_input", "selected", &gx, &want.gx, SUMS)
    })
}

fn case(shape: [usize; 4], ties: bool) -> Case {
    let name = format!("{shape:?}{}", if ties { " ties" } else { "" });
    Case::new(OP, name.clone(), move |device, checks| {
        let p = params(shape);
        let x = numbers(&name, shape.iter().product());
        let x = checks.stored(if ties { with_ties(x) } else { x });
        let out_shape = [shape[0], shape[1] / 2, shape[2] / 2, shape[3]];
        let gy = checks.stored(numbers("gy", out_shape.iter().product()));

        let tape = Tape::new();
        let input = tape.watch_input(&checks.image(device, shape, &x)?);
        let y = ops::max_pool2d(&input)?;
        let grads = tape.backward_from(&y, &checks.image(device, out_shape, &gy)?)?;

        let mut want_y = vec![0.0; gy.len()];
        let mut winner = vec![0; gy.len()];
        let mut want_gx = vec![0.0; x.len()];
        forward(&p, &doubles(&x), &mut want_y, &mut winner);
        backward_input(&p, &doubles(&gy), &winner, &mut want_gx);
        checks.compare("forward", "v1", &y, &want_y, EXACT)?;
        if let Some(gx) = grads.of(&input) {
            checks.compare("backward_input", "v1", gx, &want_gx, EXACT)?;
        }
        Ok(())
    })
}

pub fn gradients() -> Vec<GradientCase> {
    let shape = [2, 5, 6, 3];
    let p = params(shape);
    let x = doubles(&numbers("finite", shape.iter().product()));
    let outputs = 2 * 2 * 3 * 3;
    let gy = doubles(&numbers("finite gy", outputs));
    let run = move |x: &[f64]| {
        let (mut y, mut winner) = (vec![0.0; outputs], vec![0; outputs]);
        forward(&p, x, &mut y, &mut winner);
        (y, winner)
    };
    let mut gx = vec![0.0; x.len()];
    backward_input(&p, &gy, &run(&x).1, &mut gx);
    vec![GradientCase {
        name: format!("{OP} input"),
        inputs: vec![x],
        value: Box::new(move |inputs| run(&inputs[0]).0.iter().zip(&gy).map(|(y, g)| y * g).sum()),
        gradients: vec![gx],
        tolerance: 1e-6,
    }]
}
