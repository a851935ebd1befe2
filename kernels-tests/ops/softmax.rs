//! Cases of the softmax: one channel (always 1), two, a prime, many; rows far apart, far from 0, and all equal.

use shadegrad::cpu::softmax::{SoftmaxParams, backward_input, forward};
use shadegrad::ops::Version;
use shadegrad::{Device, Shape, Tape, ops};

use super::{Case, GradientCase, Tolerance, doubles, numbers};

const OP: &str = "softmax";

/// exp of a GPU may be a few units in the last place off, and every number of a row is divided by their sum.
const SOFT: Tolerance = Tolerance { nmse: 1e-12, absolute: 2e-6 };

pub fn cases() -> Vec<Case> {
    vec![
        case(&[1, 1], 0.0, 1.0),
        case(&[3, 5, 1], 0.0, 1.0),
        case(&[2, 7, 9, 2], 0.0, 5.0),
        case(&[3, 5, 17], 0.0, 1.0),
        case(&[3, 5, 17], 0.0, 90.0),
        case(&[131, 4], 1000.0, 3.0),
        case(&[4, 4, 4, 12], -50.0, 20.0),
        case(&[2, 32, 32, 8], 0.0, 10.0),
        case(&[67, 256], 0.0, 30.0),
        case(&[5, 3], 7.0, 0.0),
    ]
}

fn case(dims: &'static [usize], middle: f32, range: f32) -> Case {
    Case::new(OP, format!("{dims:?} {middle} +- {range}"), move |device, checks| {
        let shape = Shape::new(dims)?;
        let channels = shape.last();
        let p = SoftmaxParams { channels: channels as u32 };
        let x = checks.stored(numbers("x", shape.len()).into_iter().map(|x| middle + range * x).collect());
        let gy = checks.stored(numbers("gy", shape.len()));
        // By the formula, without the largest taken off: f64 holds exp(700).
        let offset = f64::from(middle);
        let exponentials: Vec<f64> = doubles(&x).into_iter().map(|x| (x - offset).exp()).collect();
        let want_y: Vec<f64> = exponentials
            .chunks(channels)
            .flat_map(|row| row.iter().map(|e| e / row.iter().sum::<f64>()).collect::<Vec<_>>())
            .collect();
        let mut want_gx = vec![0.0; x.len()];
        // The gradient is made of y as it is kept.
        let kept = doubles(&checks.stored(want_y.iter().map(|y| *y as f32).collect()));
        backward_input(&p, &doubles(&gy), &kept, &mut want_gx);
        for version in versions(channels) {
            let tape = Tape::new();
            let input = tape.watch_input(&checks.image(device, shape, &x)?);
            let y = ops::softmax::forward(&input, *version)?;
            let grads = tape.backward_from(&y, &checks.image(device, shape, &gy)?)?;
            checks.compare("forward", version.name(), &y, &want_y, SOFT)?;
            checks.compare("backward_input", version.name(), grads.of(&input).expect("watched"), &want_gx, SOFT)?;
            if matches!(device, Device::Cpu(_)) {
                break; // one version
            }
        }
        Ok(())
    })
}

fn versions(channels: usize) -> &'static [Version] {
    if channels.is_multiple_of(4) { &[Version::V1, Version::V2] } else { &[Version::V1] }
}

pub fn gradients() -> Vec<GradientCase> {
    let of = |rows: usize, channels: usize| {
        let p = SoftmaxParams { channels: channels as u32 };
        let x: Vec<f64> = doubles(&numbers("finite", rows * channels)).into_iter().map(|x| 3.0 * x).collect();
        let gy = doubles(&numbers("finite gy", x.len()));
        let (mut y, mut gx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        forward(&p, &x, &mut y);
        backward_input(&p, &gy, &y, &mut gx);
        GradientCase {
            name: format!("{OP} input {rows}x{channels}"),
            inputs: vec![x],
            gradients: vec![gx],
            value: Box::new(move |inputs| {
                let mut y = vec![0.0; gy.len()];
                forward(&p, &inputs[0], &mut y);
                y.iter().zip(&gy).map(|(y, g)| y * g).sum()
            }),
            tolerance: 1e-8,
        }
    };
    vec![of(3, 1), of(4, 2), of(3, 7)]
}
