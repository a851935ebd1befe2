//! Cases of the concatenation: one row, one channel, channels that divide by 4 on one side only, several rows per
//! binding. Results are copies: equal bit for bit.

use shadegrad::cpu::concat::{ConcatParams, backward, forward};
use shadegrad::ops::Version;
use shadegrad::{Device, Shape, Tape, ops};

use super::{Case, EXACT, GradientCase, doubles, numbers};

const OP: &str = "concat";

pub fn cases() -> Vec<Case> {
    vec![
        case(&[1], 1, 1),
        case(&[1, 1, 1], 4, 4),
        case(&[2, 7, 9], 5, 3),
        case(&[3, 5, 7], 4, 3),
        case(&[1, 13, 11], 1, 16),
        case(&[2, 3, 5], 12, 4),
        case(&[17, 31], 7, 2),
        case(&[2, 32, 32], 16, 8),
        case(&[8, 64, 64], 4, 4),
    ]
}

fn case(rows: &'static [usize], ca: usize, cb: usize) -> Case {
    Case::new(OP, format!("{rows:?} x {ca} and {cb}"), move |device, checks| {
        let shape = |channels: usize| Shape::new(&[rows, &[channels]].concat());
        let count: usize = rows.iter().product();
        let (a, b) = (checks.stored(numbers("a", count * ca)), checks.stored(numbers("b", count * cb)));
        let gy = checks.stored(numbers("gy", count * (ca + cb)));
        // Not the twin: what stands where, element by element.
        let part = |at: usize| (at / (ca + cb), at % (ca + cb));
        let want_y: Vec<f64> = (0..gy.len())
            .map(|at| match part(at) {
                (row, c) if c < ca => f64::from(a[row * ca + c]),
                (row, c) => f64::from(b[row * cb + c - ca]),
            })
            .collect();
        let side = |first: bool| -> Vec<f64> {
            (0..gy.len()).filter(|at| (part(*at).1 < ca) == first).map(|at| f64::from(gy[at])).collect()
        };
        for version in versions(ca, cb) {
            let tape = Tape::new();
            let a = tape.watch_input(&checks.image(device, shape(ca)?, &a)?);
            let b = tape.watch_input(&checks.image(device, shape(cb)?, &b)?);
            let y = ops::concat::forward(&a, &b, *version)?;
            let grads = tape.backward_from(&y, &checks.image(device, shape(ca + cb)?, &gy)?)?;
            checks.compare("forward", version.name(), &y, &want_y, EXACT)?;
            checks.compare("backward a", version.name(), grads.of(&a).expect("watched"), &side(true), EXACT)?;
            checks.compare("backward b", version.name(), grads.of(&b).expect("watched"), &side(false), EXACT)?;
            if matches!(device, Device::Cpu(_)) {
                break; // one version
            }
        }
        Ok(())
    })
}

fn versions(ca: usize, cb: usize) -> &'static [Version] {
    if ca.is_multiple_of(4) && cb.is_multiple_of(4) { &[Version::V1, Version::V2] } else { &[Version::V1] }
}

pub fn gradients() -> Vec<GradientCase> {
    let (rows, ca, cb) = (6, 3, 2);
    let p = ConcatParams { a_channels: ca as u32, b_channels: cb as u32 };
    let gy = doubles(&numbers("finite gy", rows * (ca + cb)));
    let (mut ga, mut gb) = (vec![0.0; rows * ca], vec![0.0; rows * cb]);
    backward(&p, &gy, &mut ga, &mut gb);
    vec![GradientCase {
        name: format!("{OP} a, b"),
        inputs: vec![doubles(&numbers("finite a", rows * ca)), doubles(&numbers("finite b", rows * cb))],
        gradients: vec![ga, gb],
        value: Box::new(move |inputs| {
            let mut y = vec![0.0; gy.len()];
            forward(&p, &inputs[0], &inputs[1], &mut y);
            y.iter().zip(&gy).map(|(y, g)| y * g).sum()
        }),
        tolerance: 1e-8,
    }]
}
