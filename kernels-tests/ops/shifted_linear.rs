//! Cases of the linear layer over shifted tokens: one to five groups, groups that do not divide by 4, images of one pixel
//! and two, with and without bias and residual, more rows than a chunk of the weight gradient.
//!
//! The reference is the definition in plain loops, not the twin, which is made of the twins of `shift` and `linear`: it is
//! compared with the loops too.

use shadegrad::cpu::shifted_linear::{ShiftedLinearParams, backward_input, backward_weight, forward};
use shadegrad::ops::Axis;
use shadegrad::ops::shifted_linear::Gradients;
use shadegrad::{Device, Shape, Tape, ops};

use super::{Case, GradientCase, SUMS, doubles, numbers};

const OP: &str = "shifted_linear";

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for axis in [Axis::Height, Axis::Width] {
        cases.extend([
            case([1, 1, 1, 1], 1, axis, true, false),
            case([2, 6, 4, 5], 3, axis, false, true),
            case([1, 5, 7, 6], 8, axis, true, true),
            case([1, 1, 2, 8], 8, axis, true, false),
            case([2, 2, 1, 16], 24, axis, false, false),
            case([2, 5, 6, 24], 16, axis, true, true),
            case([3, 9, 7, 48], 40, axis, true, true),
            case([2, 16, 16, 160], 160, axis, true, true),
            case([2, 8, 8, 128], 64, axis, false, true),
            case([5, 9, 11, 16], 5, axis, true, false),
            case([5, 9, 11, 7], 16, axis, true, false),
        ]);
    }
    cases
}

fn params(shape: [usize; 4], outputs: usize, axis: Axis, bias: bool, residual: bool) -> ShiftedLinearParams {
    ShiftedLinearParams::forward(shape, outputs, axis.steps(shape), bias, residual)
}

fn case(shape: [usize; 4], outputs: usize, axis: Axis, with_bias: bool, with_residual: bool) -> Case {
    let (bias, residual) = (if with_bias { " bias" } else { "" }, if with_residual { " residual" } else { "" });
    let name = format!("{shape:?} -> {outputs} {axis:?}{bias}{residual}");
    Case::new(OP, name, move |device, checks| {
        let [n, h, w, inputs] = shape;
        let rows = n * h * w;
        let p = params(shape, outputs, axis, with_bias, with_residual);
        let x = checks.stored(numbers("x", rows * inputs));
        let [res, gy] = ["residual", "gy"].map(|name| checks.stored(numbers(name, rows * outputs)));
        let (weight, b) = (numbers("w", inputs * outputs), numbers("b", outputs));

        let (x64, w64, b64) = (doubles(&x), doubles(&weight), doubles(&b));
        let (res64, gy64) = (doubles(&res), doubles(&gy));
        let mut want_y = vec![0.0; gy.len()];
        let mut want_gx = vec![0.0; x.len()];
        let (mut want_gw, mut want_gb) = (vec![0.0; weight.len()], vec![0.0; outputs]);
        for r in 0..rows {
            let position = if axis == Axis::Height { r / w % h } else { r % w } as i64;
            for o in 0..outputs {
                let g = gy64[r * outputs + o];
                let mut y = if with_bias { b64[o] } else { 0.0 };
                for i in 0..inputs {
                    let s = (i / inputs.div_ceil(5)) as i64 - 2;
                    if !(0..i64::from(p.length)).contains(&(position - s)) {
                        continue;
                    }
                    let from = (r as i64 - s * i64::from(p.step)) as usize;
                    y += x64[from * inputs + i] * w64[i * outputs + o];
                    want_gx[from * inputs + i] += g * w64[i * outputs + o];
                    want_gw[i * outputs + o] += g * x64[from * inputs + i];
                }
                want_y[r * outputs + o] = y + if with_residual { res64[r * outputs + o] } else { 0.0 };
                want_gb[o] += g;
            }
        }
        let (mut y, mut gx) = (vec![0.0; gy.len()], vec![0.0; x.len()]);
        let (mut gw, mut gb) = (vec![0.0; weight.len()], vec![0.0; outputs]);
        let (bias, residual) = (with_bias.then_some(b64.as_slice()), with_residual.then_some(res64.as_slice()));
        forward(&p, &x64, &w64, bias, residual, &mut y);
        backward_input(&p, &gy64, &w64, &mut gx);
        backward_weight(&p, &x64, &gy64, &mut gw, Some(&mut gb));
        let pairs = [
            ("twin forward", y, &want_y),
            ("twin backward_input", gx, &want_gx),
            ("twin backward_weight", gw, &want_gw),
            ("twin backward_weight bias", gb, &want_gb),
        ];
        for (entry, twin, naive) in pairs {
            checks.twin(entry, &twin, naive);
        }

        let x = checks.image(device, shape, &x)?;
        let weight = device.tensor(OP, [inputs, outputs], &weight)?;
        let b = device.tensor(OP, [outputs], &b)?;
        let res = checks.image(device, [n, h, w, outputs], &res)?;
        let gy = checks.image(device, [n, h, w, outputs], &gy)?;
        let (bias, residual) = (with_bias.then_some(&b), with_residual.then_some(&res));

        // What the op itself chooses.
        let tape = Tape::new();
        let (input, w_in, b_in) = (tape.watch_input(&x), tape.watch_input(&weight), tape.watch_input(&b));
        let r_in = tape.watch_input(&res);
        let y = ops::shifted_linear(&input, &w_in, with_bias.then_some(&b_in), axis, with_residual.then_some(&r_in))?;
        let grads = tape.backward_from(&y, &gy)?;
        let of = |tensor| grads.of(tensor).expect("watched");
        checks.compare("forward", "selected", &y, &want_y, SUMS)?;
        checks.compare("backward_input", "selected", of(&input), &want_gx, SUMS)?;
        checks.compare("backward_weight", "selected", of(&w_in), &want_gw, SUMS)?;
        if with_bias {
            checks.compare("backward_weight bias", "selected", of(&b_in), &want_gb, SUMS)?;
        }
        if with_residual {
            checks.compare("backward_input residual", "selected", of(&r_in), &gy64, SUMS)?;
        }
        if matches!(device, Device::Cpu(_)) {
            return Ok(()); // one version
        }

        for kernel in ops::shifted_linear::kernels(device, n * h * w, inputs, outputs) {
            let y = ops::shifted_linear::forward(&x, &weight, bias, axis, residual, kernel)?;
            checks.compare("forward", &kernel.to_string(), &y, &want_y, SUMS)?;
        }
        // Both gradients, and each alone.
        for kernel in ops::shifted_linear::gradient_kernels(device, n * h * w, inputs, outputs) {
            for [of_x, of_weight] in [[true, true], [true, false], [false, true]] {
                let gx = checks.image(device, shape, &vec![f32::NAN; x.len()])?;
                let nothing = |shape: Shape| device.tensor(OP, shape, &vec![f32::NAN; shape.len()]);
                let (gw, gb) = (nothing(weight.shape())?, nothing([outputs].into())?);
                let places = Gradients {
                    gx: of_x.then_some(&gx),
                    gw: of_weight.then_some(&gw),
                    gb: (of_weight && with_bias).then_some(&gb),
                };
                ops::shifted_linear::backward(&p, [&x, &weight, &gy], places, kernel)?;
                let name = kernel.to_string();
                if of_x {
                    checks.compare("backward_input", &name, &gx, &want_gx, SUMS)?;
                }
                if of_weight {
                    checks.compare("backward_weight", &name, &gw, &want_gw, SUMS)?;
                }
                if of_weight && with_bias {
                    checks.compare("backward_weight bias", &name, &gb, &want_gb, SUMS)?;
                }
            }
        }
        Ok(())
    })
}

pub fn gradients() -> Vec<GradientCase> {
    let of = |shape: [usize; 4], outputs: usize, axis: Axis| {
        let p = params(shape, outputs, axis, true, true);
        let rows = p.rows as usize;
        let x = doubles(&numbers("finite x", shape.iter().product()));
        let w = doubles(&numbers("finite w", shape[3] * outputs));
        let b = doubles(&numbers("finite b", outputs));
        let residual = doubles(&numbers("finite residual", rows * outputs));
        let gy = doubles(&numbers("finite gy", rows * outputs));
        let (mut gx, mut gw, mut gb) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; outputs]);
        backward_input(&p, &gy, &w, &mut gx);
        backward_weight(&p, &x, &gy, &mut gw, Some(&mut gb));
        GradientCase {
            name: format!("{OP} x, weight, bias, residual {shape:?} -> {outputs} {axis:?}"),
            inputs: vec![x, w, b, residual],
            gradients: vec![gx, gw, gb, gy.clone()],
            value: Box::new(move |inputs| {
                let mut y = vec![0.0; gy.len()];
                forward(&p, &inputs[0], &inputs[1], Some(&inputs[2]), Some(&inputs[3]), &mut y);
                y.iter().zip(&gy).map(|(y, g)| y * g).sum()
            }),
            tolerance: 1e-8,
        }
    };
    vec![of([1, 1, 1, 1], 1, Axis::Height), of([2, 4, 3, 7], 5, Axis::Height), of([2, 3, 4, 11], 4, Axis::Width)]
}
