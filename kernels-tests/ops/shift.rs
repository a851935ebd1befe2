//! Cases of the shifted tokens: one to five groups, groups that do not divide by 4, images of one and two pixels.

use shadegrad::cpu::shift::{ShiftParams, forward};
use shadegrad::ops::{Axis, Version};
use shadegrad::{Tape, ops};

use super::{Case, EXACT, GradientCase, doubles, numbers};

const OP: &str = "shift";

fn params([_, h, w, c]: [usize; 4], axis: Axis, direction: i32) -> ShiftParams {
    let (length, inner) = if axis == Axis::Height { (h, w * c) } else { (w, c) };
    ShiftParams {
        length: length as u32,
        inner: inner as u32,
        channels: c as u32,
        chunk: c.div_ceil(5) as u32,
        direction,
    }
}

/// The definition, as the network's source has it: pad with two zeros, roll each group, cut the padding off.
fn pad_and_roll([n, h, w, c]: [usize; 4], axis: Axis, x: &[f64]) -> Vec<f64> {
    let length = if axis == Axis::Height { h } else { w };
    let padded = length + 4;
    let mut y = vec![0.0; x.len()];
    for (at, y) in y.iter_mut().enumerate() {
        let (channel, ix, iy, image) = (at % c, at / c % w, at / (c * w) % h, at / (c * w * h));
        assert!(image < n);
        let amount = (channel / c.div_ceil(5)) as i64 - 2;
        let position = if axis == Axis::Height { iy } else { ix } as i64 + 2;
        let from = (position - amount).rem_euclid(padded as i64) - 2;
        if (0..length as i64).contains(&from) {
            let (fy, fx) = if axis == Axis::Height { (from as usize, ix) } else { (iy, from as usize) };
            *y = x[((image * h + fy) * w + fx) * c + channel];
        }
    }
    y
}

pub fn cases() -> Vec<Case> {
    let shapes = [
        [1, 1, 1, 1],
        [2, 6, 4, 5],
        [1, 5, 7, 6],
        [1, 5, 4, 7],
        [2, 5, 6, 12],
        [2, 5, 6, 16],
        [1, 1, 2, 20],
        [3, 17, 3, 28],
        [2, 8, 8, 128],
        [1, 3, 3, 160],
    ];
    let mut cases = Vec::new();
    for shape in shapes {
        for axis in [Axis::Height, Axis::Width] {
            cases.push(case(shape, axis));
        }
    }
    cases
}

fn case(shape: [usize; 4], axis: Axis) -> Case {
    let name = format!("{shape:?} {axis:?}");
    Case::new(OP, name, move |device, checks| {
        let elements = shape.iter().product();
        let [x, gy] = ["x", "gy"].map(|name| checks.stored(numbers(name, elements)));
        let mut want_gx = vec![0.0; elements];
        forward(&params(shape, axis, -1), &doubles(&gy), &mut want_gx);
        let want_y = pad_and_roll(shape, axis, &doubles(&x));
        let wide = shape[3].is_multiple_of(4) && shape[3] >= 12;
        let versions: &[Version] = if wide { &[Version::V1, Version::V2] } else { &[Version::V1] };
        for &version in versions {
            let tape = Tape::new();
            let input = tape.watch_input(&checks.image(device, shape, &x)?);
            let y = ops::shift::forward(&input, axis, version)?;
            let grads = tape.backward_from(&y, &checks.image(device, shape, &gy)?)?;
            checks.compare("forward", version.name(), &y, &want_y, EXACT)?;
            let gx = grads.of(&input).expect("watched");
            checks.compare("backward", version.name(), gx, &want_gx, EXACT)?;
        }
        Ok(())
    })
}

pub fn gradients() -> Vec<GradientCase> {
    let shape = [2, 4, 3, 7];
    let elements = shape.iter().product();
    let of = |axis| {
        let (x, gy) = (doubles(&numbers("finite", elements)), doubles(&numbers("finite gy", elements)));
        let mut gx = vec![0.0; elements];
        forward(&params(shape, axis, -1), &gy, &mut gx);
        GradientCase {
            name: format!("{OP} input {axis:?}"),
            inputs: vec![x],
            gradients: vec![gx],
            value: Box::new(move |inputs| {
                let mut y = vec![0.0; elements];
                forward(&params(shape, axis, 1), &inputs[0], &mut y);
                y.iter().zip(&gy).map(|(y, g)| y * g).sum()
            }),
            tolerance: 1e-8,
        }
    };
    vec![of(Axis::Height), of(Axis::Width)]
}
