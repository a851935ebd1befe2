//! Cases of GELU: ordinary inputs, both zeros, and the far negative tail, where y is tiny and must still be right in
//! relation to itself.

use shadegrad::cpu::gelu::{backward_input, forward};
use shadegrad::ops::Version;
use shadegrad::{Shape, Tape, ops};

use super::{Case, GradientCase, POINTWISE, Tolerance, doubles, numbers};

const OP: &str = "gelu";

/// For got / want against 1: 1e-6 is 8 units in the last place (2^-23 each); WGSL allows 2.5 for each of two divisions.
const RELATIVE: Tolerance = Tolerance { nmse: 1e-13, absolute: 1e-6 };

pub fn cases() -> Vec<Case> {
    let shapes = [(vec![1], 1.0), (vec![2, 7, 33], 1.0), (vec![3, 17, 31, 7], 12.0), (vec![8, 16, 16, 4], 40.0)];
    let mut cases: Vec<Case> = shapes.into_iter().map(|(dims, range)| case(dims, range)).collect();
    cases.push(sweep());
    cases
}

fn case(dims: Vec<usize>, range: f32) -> Case {
    Case::new(OP, format!("{dims:?} within {range}"), move |device, checks| {
        let shape = Shape::new(&dims)?;
        let mut x: Vec<f32> = numbers("x", shape.len()).into_iter().map(|x| x * range).collect();
        let extremes = [0.0, -0.0, 1e-20, -1e-20, 1e30, -1e30];
        if x.len() > extremes.len() {
            x[..6].copy_from_slice(&extremes);
        }
        let mut x = checks.stored(x);
        x.iter_mut().filter(|x| x.is_infinite()).for_each(|x| *x = 0.5); // no extremes that an image cannot hold
        let gy = checks.stored(numbers("gy", shape.len()));
        let (mut want_y, mut want_gx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        forward(&doubles(&x), &mut want_y);
        backward_input(&doubles(&gy), &doubles(&x), &mut want_gx);
        let versions: &[Version] =
            if shape.len().is_multiple_of(4) { &[Version::V1, Version::V2] } else { &[Version::V1] };
        for &version in versions {
            let tape = Tape::new();
            let input = tape.watch_input(&checks.image(device, shape, &x)?);
            let y = ops::gelu::forward(&input, version)?;
            let grads = tape.backward_from(&y, &checks.image(device, shape, &gy)?)?;
            checks.compare("forward", version.name(), &y, &want_y, POINTWISE)?;
            let gx = grads.of(&input).expect("watched");
            checks.compare("backward_input", version.name(), gx, &want_gx, POINTWISE)?;
        }
        Ok(())
    })
}

/// 64 Ki points from -13.1, where y is 1e-37, to 13.1: each against its own size. The slope is left out near its zero
/// at -0.75, and where it leaves the normal range. 16-bit floats end at 6e-8.
fn sweep() -> Case {
    Case::new(OP, "relative, -13.1 to 13.1", |device, checks| {
        let count = 1 << 16;
        let x: Vec<f32> = (0..count).map(|index| (index as f32 / (count - 1) as f32 * 2.0 - 1.0) * 13.1).collect();
        let (mut want_y, mut want_gx) = (vec![0.0; count], vec![0.0; count]);
        forward(&doubles(&x), &mut want_y);
        backward_input(&vec![1.0; count], &doubles(&x), &mut want_gx);
        for version in [Version::V1, Version::V2] {
            let tape = Tape::new();
            let input = tape.watch_input(&device.tensor(OP, [count], &x)?);
            let y = ops::gelu::forward(&input, version)?;
            let grads = tape.backward_from(&y, &device.tensor(OP, [count], &vec![1.0; count])?)?;
            let gx = grads.of(&input).expect("watched").to_vec()?;
            let near_zero = |index: usize| (x[index] + 0.75).abs() < 0.3;
            for (entry, got, want) in [("forward", y.to_vec()?, &want_y), ("backward_input", gx, &want_gx)] {
                let quotients: Vec<f32> = (0..count)
                    .filter(|&index| entry == "forward" || !near_zero(index))
                    .map(|index| (f64::from(got[index]) / want[index]) as f32)
                    .collect();
                checks.values(entry, version.name(), &quotients, &vec![1.0; quotients.len()], RELATIVE);
            }
        }
        Ok(())
    })
    .f32_only()
}

pub fn gradients() -> Vec<GradientCase> {
    let x: Vec<f64> = doubles(&numbers("finite", 40)).into_iter().map(|x| 5.0 * x).collect();
    let gy = doubles(&numbers("finite gy", x.len()));
    let mut gx = vec![0.0; x.len()];
    backward_input(&gy, &x, &mut gx);
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
