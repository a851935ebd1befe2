//! Cases of the linear layer: 1, 7, 129 and 1000 rows, one channel to 160, with and without bias, tokens and tables.
//!
//! Every kernel that takes the channels is compared, whether or not `select` would choose it. The reference is three
//! plain loops, not the twin: the twin is the convolution's blocked code, and is compared with them too.

use shadegrad::cpu::linear::{LinearParams, backward_input, backward_weight, forward};
use shadegrad::{Device, Tape, ops};

use super::{Case, GradientCase, SUMS, doubles, numbers};

const OP: &str = "linear";

pub fn cases() -> Vec<Case> {
    vec![
        case(&[1, 1], 1, true),
        case(&[1, 8], 8, true),
        case(&[1, 64], 5, false),
        case(&[7, 3], 8, true),
        case(&[7, 16], 24, true),
        case(&[7, 5], 7, false),
        case(&[129, 24], 16, true),
        case(&[129, 7], 8, true),
        case(&[129, 8], 1, true),
        case(&[1000, 8], 8, true),
        case(&[1000, 16], 64, false),
        case(&[1000, 3], 5, true),
        case(&[2, 5, 7, 16], 8, true),
        case(&[3, 43, 24], 24, false),
        case(&[2, 16, 16, 160], 160, true),
        case(&[8, 16, 16, 32], 64, true),
        case(&[6, 16, 16, 48], 5, true),
        case(&[8192, 16], 8, true),
    ]
}

fn params(rows: usize, inputs: usize, outputs: usize, bias: bool) -> LinearParams {
    LinearParams {
        rows: rows as u32,
        inputs: inputs as u32,
        outputs: outputs as u32,
        has_bias: u32::from(bias),
        ..bytemuck::Zeroable::zeroed()
    }
}

fn case(shape: &'static [usize], outputs: usize, with_bias: bool) -> Case {
    let name = format!("{shape:?} -> {outputs}{}", if with_bias { " bias" } else { "" });
    Case::new(OP, name, move |device, checks| {
        let inputs = shape[shape.len() - 1];
        let rows = shape.iter().product::<usize>() / inputs;
        let p = params(rows, inputs, outputs, with_bias);
        let out_shape: Vec<usize> = shape[..shape.len() - 1].iter().copied().chain([outputs]).collect();
        let (x, gy) = (checks.stored(numbers("x", rows * inputs)), checks.stored(numbers("gy", rows * outputs)));
        let (w, b) = (numbers("w", inputs * outputs), numbers("b", outputs));

        let (x64, w64, b64, gy64) = (doubles(&x), doubles(&w), doubles(&b), doubles(&gy));
        let mut want_y = vec![0.0; gy.len()];
        let mut want_gx = vec![0.0; x.len()];
        let (mut want_gw, mut want_gb) = (vec![0.0; w.len()], vec![0.0; outputs]);
        for r in 0..rows {
            for o in 0..outputs {
                let g = gy64[r * outputs + o];
                let mut y = if with_bias { b64[o] } else { 0.0 };
                for i in 0..inputs {
                    y += x64[r * inputs + i] * w64[i * outputs + o];
                    want_gx[r * inputs + i] += g * w64[i * outputs + o];
                    want_gw[i * outputs + o] += g * x64[r * inputs + i];
                }
                want_y[r * outputs + o] = y;
                want_gb[o] += g;
            }
        }
        let (mut y, mut gx) = (vec![0.0; gy.len()], vec![0.0; x.len()]);
        let (mut gw, mut gb) = (vec![0.0; w.len()], vec![0.0; outputs]);
        forward(&p, &x64, &w64, with_bias.then_some(b64.as_slice()), &mut y);
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

        let x = checks.image(device, shadegrad::Shape::new(shape)?, &x)?;
        let w = device.tensor(OP, [inputs, outputs], &w)?;
        let b = device.tensor(OP, [outputs], &b)?;
        let gy = checks.image(device, shadegrad::Shape::new(&out_shape)?, &gy)?;

        // What the op itself chooses.
        let tape = Tape::new();
        let (input, weight, bias) = (tape.watch_input(&x), tape.watch_input(&w), tape.watch_input(&b));
        let y = ops::linear(&input, &weight, with_bias.then_some(&bias))?;
        let grads = tape.backward_from(&y, &gy)?;
        let of = |tensor| grads.of(tensor).expect("watched");
        checks.compare("forward", "selected", &y, &want_y, SUMS)?;
        checks.compare("backward_input", "selected", of(&input), &want_gx, SUMS)?;
        checks.compare("backward_weight", "selected", of(&weight), &want_gw, SUMS)?;
        if with_bias {
            checks.compare("backward_weight bias", "selected", of(&bias), &want_gb, SUMS)?;
        }
        if matches!(device, Device::Cpu(_)) {
            return Ok(()); // one version
        }

        for kernel in ops::linear::kernels(device, rows, inputs, outputs) {
            let y = ops::linear::forward(&x, &w, with_bias.then_some(&b), kernel)?;
            checks.compare("forward", &kernel.to_string(), &y, &want_y, SUMS)?;
        }
        for kernel in ops::linear::kernels(device, rows, outputs, inputs) {
            let gx = checks.image(device, x.shape(), &vec![f32::NAN; x.len()])?;
            ops::linear::backward_input(&p, &gy, &w, &gx, kernel)?;
            checks.compare("backward_input", &kernel.to_string(), &gx, &want_gx, SUMS)?;
        }
        for kernel in ops::linear::weight_kernels(device, rows, inputs, outputs) {
            let gw = device.tensor(OP, w.shape(), &vec![f32::NAN; w.len()])?;
            let gb = device.tensor(OP, [outputs], &vec![f32::NAN; outputs])?;
            ops::linear::backward_weight(&p, &x, &gy, &gw, with_bias.then_some(&gb), kernel)?;
            checks.compare("backward_weight", &kernel.to_string(), &gw, &want_gw, SUMS)?;
            if with_bias {
                checks.compare("backward_weight bias", &kernel.to_string(), &gb, &want_gb, SUMS)?;
            }
        }
        Ok(())
    })
}

pub fn gradients() -> Vec<GradientCase> {
    let of = |rows: usize, inputs: usize, outputs: usize| {
        let p = params(rows, inputs, outputs, true);
        let x = doubles(&numbers("finite x", rows * inputs));
        let w = doubles(&numbers("finite w", inputs * outputs));
        let b = doubles(&numbers("finite b", outputs));
        let gy = doubles(&numbers("finite gy", rows * outputs));
        let (mut gx, mut gw, mut gb) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; outputs]);
        backward_input(&p, &gy, &w, &mut gx);
        backward_weight(&p, &x, &gy, &mut gw, Some(&mut gb));
        GradientCase {
            name: format!("{OP} x, weight, bias {rows}x{inputs} -> {outputs}"),
            inputs: vec![x, w, b],
            gradients: vec![gx, gw, gb],
            value: Box::new(move |inputs| {
                let mut y = vec![0.0; gy.len()];
                forward(&p, &inputs[0], &inputs[1], Some(&inputs[2]), &mut y);
                y.iter().zip(&gy).map(|(y, g)| y * g).sum()
            }),
            tolerance: 1e-8,
        }
    };
    vec![of(1, 1, 1), of(7, 3, 5), of(5, 9, 17)]
}
