//! Cases of bilinear upsampling: both rules, one pixel, one row, two pixels (one step of align_corners), odd sizes;
//! alone, with a ReLU, and with a ReLU and a sum after it.

use shadegrad::cpu::upsample_bilinear::{UpsampleBilinearParams, backward_input, forward};
use shadegrad::ops::{UpsampleSettings, Version};
use shadegrad::{Tape, ops};

use super::{Case, EXACT, GradientCase, POINTWISE, doubles, numbers};

const OP: &str = "upsample_bilinear";

/// What follows the upsampling.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    Relu,
    ReluAdd,
}

fn params([_, h, w, c]: [usize; 4], corners: bool, then: Then) -> UpsampleBilinearParams {
    UpsampleBilinearParams {
        in_h: h as u32,
        in_w: w as u32,
        channels: c as u32,
        align_corners: u32::from(corners),
        relu: u32::from(then != Then::Nothing),
        has_skip: u32::from(then == Then::ReluAdd),
    }
}

/// PyTorch's formula: positions as real numbers.
pub fn by_formula([n, h, w, c]: [usize; 4], corners: bool, x: &[f64]) -> Vec<f64> {
    let position = |o: usize, extent: usize| {
        let at = match corners {
            true => o as f64 * (extent - 1) as f64 / (2 * extent - 1) as f64,
            false => ((o as f64 + 0.5) / 2.0 - 0.5).max(0.0),
        };
        let low = (at + 1e-12).floor();
        (low as usize, (low as usize + 1).min(extent - 1), at - low)
    };
    let mut y = Vec::with_capacity(4 * x.len());
    for image in 0..n {
        for oy in 0..2 * h {
            for ox in 0..2 * w {
                for channel in 0..c {
                    let ((top, bottom, down), (left, right, along)) = (position(oy, h), position(ox, w));
                    let at = |iy: usize, ix: usize| x[((image * h + iy) * w + ix) * c + channel];
                    let upper = at(top, left) * (1.0 - along) + at(top, right) * along;
                    let lower = at(bottom, left) * (1.0 - along) + at(bottom, right) * along;
                    y.push(upper * (1.0 - down) + lower * down);
                }
            }
        }
    }
    y
}

pub fn cases() -> Vec<Case> {
    let shapes = [
        [1, 1, 1, 2],
        [1, 1, 1, 4],
        [1, 1, 6, 8],
        [2, 6, 1, 3],
        [1, 2, 2, 4],
        [2, 5, 7, 3],
        [3, 17, 11, 7],
        [2, 3, 5, 20],
        [4, 16, 16, 16],
        [1, 32, 32, 24], // ResUNet's decoder, base 8
    ];
    let mut cases = Vec::new();
    for shape in shapes {
        for corners in [false, true] {
            for then in [Then::Nothing, Then::Relu, Then::ReluAdd] {
                cases.push(case(shape, corners, then));
            }
        }
    }
    cases.push(constant());
    cases
}

fn case(shape: [usize; 4], corners: bool, then: Then) -> Case {
    let after = match then {
        Then::Nothing => "",
        Then::Relu => " relu",
        Then::ReluAdd => " relu add",
    };
    let name = format!("{shape:?}{}{after}", if corners { " align_corners" } else { "" });
    Case::new(OP, name, move |device, checks| {
        let [n, h, w, c] = shape;
        let out_shape = [n, 2 * h, 2 * w, c];
        let x = checks.stored(numbers("x", shape.iter().product()));
        let gy = checks.stored(numbers("gy", out_shape.iter().product()));
        let skip = checks.stored(numbers("skip", gy.len()));
        let mut want_y = by_formula(shape, corners, &doubles(&x));
        if then != Then::Nothing {
            want_y.iter_mut().for_each(|y| *y = y.max(0.0));
        }
        if then == Then::ReluAdd {
            want_y.iter_mut().zip(&skip).for_each(|(y, skip)| *y += f64::from(*skip));
        }
        let mut want_gx = vec![0.0; x.len()];
        backward_input(&params(shape, corners, then), 0.0, &doubles(&x), &doubles(&gy), &mut want_gx);
        let versions: &[Version] = if c.is_multiple_of(4) { &[Version::V1, Version::V2] } else { &[Version::V1] };
        for &version in versions {
            let tape = Tape::new();
            let input = tape.watch_input(&checks.image(device, shape, &x)?);
            let skip = tape.watch_input(&checks.image(device, out_shape, &skip)?);
            let added = (then == Then::ReluAdd).then_some(&skip);
            let settings = UpsampleSettings { align_corners: corners, relu: then != Then::Nothing };
            let y = ops::upsample_bilinear::forward(&input, added, settings, version)?;
            let grads = tape.backward_from(&y, &checks.image(device, out_shape, &gy)?)?;
            checks.compare("forward", version.name(), &y, &want_y, POINTWISE)?;
            let gx = grads.of(&input).expect("watched");
            checks.compare("backward_input", version.name(), gx, &want_gx, POINTWISE)?;
            if then == Then::ReluAdd {
                let gskip = grads.of(&skip).expect("watched");
                checks.compare("backward_input skip", version.name(), gskip, &doubles(&gy), EXACT)?;
            }
        }
        Ok(())
    })
}

/// Weights add up to 1 exactly: an even image stays what it is.
fn constant() -> Case {
    Case::new(OP, "constant", |device, checks| {
        for version in [Version::V1, Version::V2] {
            let x = checks.image(device, [1, 3, 4, 4], &[3.0; 48])?;
            let settings = UpsampleSettings { align_corners: false, relu: false };
            let y = ops::upsample_bilinear::forward(&x, None, settings, version)?;
            checks.compare("forward", version.name(), &y, &[3.0; 192], EXACT)?;
        }
        Ok(())
    })
}

pub fn gradients() -> Vec<GradientCase> {
    let of = |shape: [usize; 4], corners: bool, then: Then| {
        let elements: usize = shape.iter().product();
        let (x, gy) = (doubles(&numbers("finite", elements)), doubles(&numbers("finite gy", 4 * elements)));
        let mut gx = vec![0.0; elements];
        backward_input(&params(shape, corners, then), 0.0, &x, &gy, &mut gx);
        GradientCase {
            name: format!("{OP} input {shape:?} align_corners {corners} {then:?}"),
            inputs: vec![x],
            gradients: vec![gx],
            value: Box::new(move |inputs| {
                let mut y = vec![0.0; 4 * elements];
                forward(&params(shape, corners, then), &inputs[0], None, &mut y);
                y.iter().zip(&gy).map(|(y, g)| y * g).sum()
            }),
            tolerance: 1e-8,
        }
    };
    [[2, 3, 4, 2], [1, 1, 1, 3], [1, 1, 2, 1], [1, 7, 2, 1]]
        .into_iter()
        .flat_map(|shape| [(shape, Then::Nothing), (shape, Then::Relu)])
        .flat_map(|(shape, then)| [of(shape, false, then), of(shape, true, then)])
        .collect()
}
