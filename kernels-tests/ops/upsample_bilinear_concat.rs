//! Cases of the upsampling with a skip connection beside it: both rules, one pixel, one row, odd sizes, channels that divide by
//! 8 and that do not, more column tiles than a power of two, several images per binding. The reference is the formula of the
//! upsampling and a copy, element by element.

use shadegrad::cpu::upsample_bilinear_concat::{UpsampleBilinearConcatParams, backward, forward};
use shadegrad::ops::Version;
use shadegrad::{Device, Tape, ops};

use super::conv2d::compare_statistics;
use super::upsample_bilinear::by_formula;
use super::{Case, EXACT, GradientCase, POINTWISE, doubles, numbers};

const OP: &str = "upsample_bilinear_concat";

pub fn cases() -> Vec<Case> {
    let shapes = [
        ([1, 1, 1, 1], 1),
        ([1, 1, 1, 8], 8),
        ([1, 1, 6, 8], 16),
        ([2, 6, 1, 3], 5),
        ([1, 2, 2, 16], 8),
        ([2, 5, 7, 40], 24),
        ([3, 7, 5, 8], 4),
        ([2, 9, 6, 1024], 8), // 129 column tiles
        ([8, 32, 32, 8], 8),  // several images per binding, whole chunks
        ([9, 31, 33, 16], 8), // and chunks that would lie in two launches
    ];
    let case = |(shape, skip)| [false, true].map(|corners| case(shape, skip, corners));
    shapes.into_iter().flat_map(case).collect()
}

fn params([n, h, w, c]: [usize; 4], skip: usize, corners: bool) -> UpsampleBilinearConcatParams {
    UpsampleBilinearConcatParams {
        batch: n as u32,
        in_h: h as u32,
        in_w: w as u32,
        channels: c as u32,
        skip_channels: skip as u32,
        align_corners: corners.into(),
        sums_first: 0,
        sums_chunks: 0,
    }
}

fn case(shape: [usize; 4], skip_channels: usize, corners: bool) -> Case {
    let name = format!("{shape:?} and {skip_channels}{}", if corners { " align_corners" } else { "" });
    Case::new(OP, name, move |device, checks| {
        let [n, h, w, c] = shape;
        let [skip_shape, out] = [skip_channels, c + skip_channels].map(|channels| [n, 2 * h, 2 * w, channels]);
        let x = checks.stored(numbers("x", shape.iter().product()));
        let skip = checks.stored(numbers("skip", skip_shape.iter().product()));
        let gy = checks.stored(numbers("gy", out.iter().product()));
        // Not the twin: each pixel of the upsampled x, then those of skip.
        let u = by_formula(shape, corners, &doubles(&x));
        let want_y: Vec<f64> = u
            .chunks(c)
            .zip(skip.chunks(skip_channels))
            .flat_map(|(u, skip)| u.iter().copied().chain(skip.iter().map(|s| f64::from(*s))).collect::<Vec<_>>())
            .collect();
        let want_skip: Vec<f64> =
            gy.chunks(out[3]).flat_map(|pixel| pixel[c..].iter().map(|g| f64::from(*g)).collect::<Vec<_>>()).collect();
        let (mut want_x, mut twin_skip) = (vec![0.0; x.len()], vec![0.0; skip.len()]);
        backward(&params(shape, skip_channels, corners), &doubles(&gy), &mut want_x, &mut twin_skip);
        checks.twin("twin backward skip", &twin_skip, &want_skip);

        let versions: &[Version] = if [c, skip_channels].iter().all(|channels| channels.is_multiple_of(8)) {
            &[Version::V1, Version::V2]
        } else {
            &[Version::V1]
        };
        for &version in versions {
            let tape = Tape::new();
            let x = tape.watch_input(&checks.image(device, shape, &x)?);
            let skip = tape.watch_input(&checks.image(device, skip_shape, &skip)?);
            let y = ops::upsample_bilinear_concat::forward(&x, &skip, corners, false, version)?;
            let grads = tape.backward_from(&y, &checks.image(device, out, &gy)?)?;
            let of = |tensor| grads.of(tensor).expect("watched");
            checks.compare("forward", version.name(), &y, &want_y, POINTWISE)?;
            checks.compare("backward x", version.name(), of(&x), &want_x, POINTWISE)?;
            checks.compare("backward skip", version.name(), of(&skip), &want_skip, EXACT)?;
            if matches!(device, Device::Cpu(_)) {
                break; // one version
            }
            let y = ops::upsample_bilinear_concat::forward(&x.detach(), &skip.detach(), corners, true, version)?;
            compare_statistics(checks, version.name(), &y, &want_y, POINTWISE)?;
        }
        Ok(())
    })
}

pub fn gradients() -> Vec<GradientCase> {
    let of = |shape: [usize; 4], skip: usize, corners: bool| {
        let p = params(shape, skip, corners);
        let elements: usize = shape.iter().product();
        let pixels = elements / shape[3] * 4;
        let (x, beside) = (doubles(&numbers("finite x", elements)), doubles(&numbers("finite skip", pixels * skip)));
        let gy = doubles(&numbers("finite gy", pixels * (shape[3] + skip)));
        let (mut gx, mut gskip) = (vec![0.0; x.len()], vec![0.0; beside.len()]);
        backward(&p, &gy, &mut gx, &mut gskip);
        GradientCase {
            name: format!("{OP} x, skip {shape:?} and {skip} align_corners {corners}"),
            inputs: vec![x, beside],
            gradients: vec![gx, gskip],
            value: Box::new(move |inputs| {
                let mut y = vec![0.0; gy.len()];
                forward(&p, &inputs[0], &inputs[1], &mut y);
                y.iter().zip(&gy).map(|(y, g)| y * g).sum()
            }),
            tolerance: 1e-8,
        }
    };
    vec![of([2, 3, 4, 2], 3, true), of([1, 2, 3, 1], 2, false)]
}
