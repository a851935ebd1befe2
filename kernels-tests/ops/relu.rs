//! Cases of the rectifier: both zeros, NaN, extremes, sizes that do not divide by 4 or by a workgroup.

use shadegrad::cpu::relu::{backward_input, forward};
use shadegrad::ops::Version;
use shadegrad::{Shape, Tape, ops};

use super::{Case, EXACT, GradientCase, by_fours, doubles, numbers};

const OP: &str = "relu";

pub fn cases() -> Vec<Case> {
    let shapes = [vec![1], vec![2, 7, 33], vec![3, 17, 31, 7], vec![8, 16, 16, 16]];
    let mut cases: Vec<Case> = shapes.into_iter().map(case).collect();
    cases.push(not_a_number());
    cases
}

fn case(dims: Vec<usize>) -> Case {
    Case::new(OP, format!("{dims:?}"), move |device, checks| {
        let shape = Shape::new(&dims)?;
        let mut x = numbers("x", shape.len());
        let extremes = [0.0, -0.0, 1e-20, -1e-20, f32::MAX, f32::MIN];
        if x.len() > extremes.len() {
            x[..6].copy_from_slice(&extremes);
        }
        let mut x = checks.stored(x);
        x.iter_mut().filter(|x| x.is_infinite()).for_each(|x| *x = 0.5); // no extremes that an image cannot hold
        let gy = checks.stored(numbers("gy", shape.len()));
        let (mut want_y, mut want_gx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        forward(&doubles(&x), &mut want_y);
        backward_input(&doubles(&gy), &want_y, &mut want_gx);
        for &version in by_fours(shape.len()) {
            let tape = Tape::new();
            let input = tape.watch_input(&checks.image(device, shape, &x)?);
            let y = ops::relu::forward(&input, version)?;
            let grads = tape.backward_from(&y, &checks.image(device, shape, &gy)?)?;
            checks.compare("forward", version.name(), &y, &want_y, EXACT)?;
            let gx = grads.of(&input).expect("watched");
            checks.compare("backward_input", version.name(), gx, &want_gx, EXACT)?;
        }
        Ok(())
    })
}

/// A network that diverges must not look healthy: NaN passes, and so does its gradient.
fn not_a_number() -> Case {
    Case::new(OP, "NaN", |device, checks| {
        for version in [Version::V1, Version::V2] {
            let tape = Tape::new();
            let input = tape.watch_input(&checks.image(device, [4], &[f32::NAN, -0.0, -1.0, 1.0])?);
            let y = ops::relu::forward(&input, version)?;
            let grads = tape.backward_from(&y, &checks.image(device, [4], &[1.0; 4])?)?;
            let seen: Vec<f32> = y.to_vec()?.into_iter().map(|y| if y.is_nan() { 7.0 } else { y }).collect();
            checks.values("forward", version.name(), &seen, &[7.0, 0.0, 0.0, 1.0], EXACT);
            let gx = grads.of(&input).expect("watched");
            checks.compare("backward_input", version.name(), gx, &[1.0, 0.0, 0.0, 1.0], EXACT)?;
        }
        Ok(())
    })
}

pub fn gradients() -> Vec<GradientCase> {
    // No number is within a step of the kink.
    let x: Vec<f64> = doubles(&numbers("finite", 40)).into_iter().filter(|x| x.abs() > 0.01).collect();
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
