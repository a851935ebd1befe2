//! Cases of the logistic function: saturated at both ends, both zeros, sizes that do not divide by 4 or by a workgroup.

use shadegrad::cpu::sigmoid::{backward_input, forward};
use shadegrad::ops::Version;
use shadegrad::{Shape, Tape, ops};

use super::{Case, GradientCase, POINTWISE, Tolerance, doubles, numbers};

const OP: &str = "sigmoid";

/// The gradient takes 1 - y of a y rounded to f32: up to 3e-8 wrong however small it is. PyTorch does the same.
const SATURATED: Tolerance = Tolerance { nmse: 1e-12, absolute: 1e-6 };

pub fn cases() -> Vec<Case> {
    let shapes = [(vec![1], 1.0), (vec![2, 7, 33], 1.0), (vec![3, 17, 31, 7], 12.0), (vec![8, 16, 16, 4], 120.0)];
    shapes.into_iter().map(|(dims, range)| case(dims, range)).collect()
}

fn case(dims: Vec<usize>, range: f32) -> Case {
    Case::new(OP, format!("{dims:?} within {range}"), move |device, checks| {
        let shape = Shape::new(&dims)?;
        let mut x: Vec<f32> = numbers("x", shape.len()).into_iter().map(|x| x * range).collect();
        let extremes = [0.0, -0.0, 1e-20, 1000.0, -1000.0, f32::MAX, f32::MIN];
        if x.len() > extremes.len() {
            x[..7].copy_from_slice(&extremes);
        }
        let mut x = checks.stored(x);
        x.iter_mut().filter(|x| x.is_infinite()).for_each(|x| *x = 0.5); // no extremes that an image cannot hold
        let gy = checks.stored(numbers("gy", shape.len()));
        let (mut want_y, mut want_gx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        forward(&doubles(&x), &mut want_y);
        // The gradient is made of y as it is kept.
        let kept = doubles(&checks.stored(want_y.iter().map(|y| *y as f32).collect()));
        backward_input(&doubles(&gy), &kept, &mut want_gx);
        let versions: &[Version] =
            if shape.len().is_multiple_of(4) { &[Version::V1, Version::V2] } else { &[Version::V1] };
        for &version in versions {
            let tape = Tape::new();
            let input = tape.watch_input(&checks.image(device, shape, &x)?);
            let y = ops::sigmoid::forward(&input, version)?;
            let grads = tape.backward_from(&y, &checks.image(device, shape, &gy)?)?;
            checks.compare("forward", version.name(), &y, &want_y, POINTWISE)?;
            let gx = grads.of(&input).expect("watched");
            checks.compare("backward_input", version.name(), gx, &want_gx, SATURATED)?;
        }
        Ok(())
    })
}

pub fn gradients() -> Vec<GradientCase> {
    let x: Vec<f64> = doubles(&numbers("finite", 40)).into_iter().map(|x| 5.0 * x).collect();
    let gy = doubles(&numbers("finite gy", x.len()));
    let (mut y, mut gx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    forward(&x, &mut y);
    backward_input(&gy, &y, &mut gx);
    vec![GradientCase {
        name: format!("{OP} input"),
        inputs: vec![x],
        gradients: vec![gx],
        value: Box::new(move |inputs| {
            let mut y = vec![0.0; gy.len()];
            forward(&inputs[0], &mut y);
            y.iter().zip(&gy).map(|(y, g)| y * g).sum()
        }),
        tolerance: 1e-8,
    }]
}
