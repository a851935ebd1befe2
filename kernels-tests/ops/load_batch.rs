//! Cases of the batch loader: all turns and flips, odd widths, slices whose bytes do not fill their last word, groups
//! with their own rescaling, slices taken twice, and sets and batches that a small binding (`kernels.rs`) splits.
//!
//! The reference flips and turns small images step by step, as numpy's `fliplr`, `flipud` and `rot90` do. The
//! augmentations are compared with the twin; what they mean is tested in `src/data/augment.rs`.

use shadegrad::cpu::load_batch::{LoadBatchParams, SampleRow, gather};
use shadegrad::ops::{self, Elastic, Sample, Slices, Tone};
use shadegrad::tensor::random::Stream;

use super::{Case, EXACT, POINTWISE, Tolerance, numbers};

const OP: &str = "load_batch";

pub fn cases() -> Vec<Case> {
    let every: &'static [u32] = &[0, 1, 2, 3];
    let mut all = vec![
        case(1, [1, 1], every),
        case(3, [5, 5], every),
        case(2, [16, 16], every),
        case(3, [7, 7], every),
        case(3, [5, 7], &[0, 2]),
        case(2, [9, 3], &[0, 2]),
        case(5, [1, 13], &[0, 2]),
        case(4, [33, 31], &[0, 2]),
        case(50, [32, 32], every),
        case(500, [7, 7], every),
    ];
    for size in [[1, 1], [3, 17], [37, 41], [64, 64]] {
        all.extend(CHANGES.map(|change| augmented(change, size)));
    }
    all
}

/// Tones: `pow`, `log` and `cos`, whose errors noise multiplies by up to five deviations. Mesa's software Vulkan, which
/// computes them with polynomials, is off by at most 5.2e-6 and 2.8e-14 (NMSE); hardware is about as good. WGSL itself
/// promises only 2^-11 for `cos`.
const TONES: Tolerance = Tolerance { nmse: 1e-12, absolute: 1e-5 };

/// The augmentations one by one, then together.
const CHANGES: [&str; 11] = [
    "identity map",
    "rotation",
    "zoom, shear and shift",
    "elastic",
    "brightness",
    "contrast",
    "gamma",
    "noise",
    "lost channels",
    "outside",
    "everything",
];

/// A sample with one augmentation; `number(i)` is in [-1, 1).
fn change(sample: &mut Sample, what: &str, size: [usize; 2], number: &dyn Fn(u64) -> f32) {
    let everything = what == "everything";
    let side = size[0].max(size[1]) as f64;
    let [a, b, c] = [0, 1, 2].map(|at| f64::from(number(at)));
    let (sin, cos) = (3.0 * a).sin_cos();
    match what {
        "identity map" => sample.affine = Some([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        "rotation" => sample.affine = Some([[cos, -sin, 0.0], [sin, cos, 0.0]]),
        "outside" => sample.affine = Some([[1.0, 0.0, 2.0 * side], [0.0, 1.0, 0.4 * side]]),
        "zoom, shear and shift" => sample.affine = Some([[1.0 + 0.4 * a, 0.2 * b, 3.3 * c], [0.1 * c, 0.8, -2.7 * b]]),
        "everything" => sample.affine = Some([[0.9 * cos, -sin, 0.7 * b], [sin, 1.1 * cos, 1.9 * c]]),
        _ => {}
    }
    if everything || what == "elastic" {
        sample.elastic = Some(Elastic { cells: 1 + (4.0 + 4.0 * a) as u32, reach: (0.06 * side).min(20.0) });
    }
    for (c, tone) in (3..).step_by(4).zip(&mut sample.tones) {
        let amount = |name: &str, none: f32, value: f32| if everything || what == name { value } else { none };
        *tone = Tone {
            noise: amount("noise", 0.0, 0.1 + 0.1 * number(c)),
            brightness: amount("brightness", 1.0, 1.0 + 0.3 * number(c + 1)),
            contrast: amount("contrast", 1.0, 1.0 + 0.3 * number(c + 2)),
            gamma: amount("gamma", 1.0, 1.1 + 0.5 * number(c + 3)),
        };
    }
    if everything || what == "lost channels" {
        sample.shows =
            [[Some(1), Some(1), None], [Some(0), None, Some(0)], [Some(2), Some(1), Some(1)]][(1.5 + 1.5 * a) as usize];
    }
}

/// One kind of augmentation, in different amounts, turns and flips; compared with the twin in f64.
fn augmented(what: &'static str, size: [usize; 2]) -> Case {
    Case::new(OP, format!("{what}, {size:?}"), move |device, checks| {
        let [h, w] = size;
        let (count, n) = (3, 5);
        let bytes = |name: &str, count: usize| -> Vec<u8> {
            numbers(name, count).iter().map(|value| ((value + 1.0) * 128.0) as u8).collect()
        };
        let images = bytes("images", 3 * count * h * w);
        let masks: Vec<u8> = bytes("masks", count * h * w).iter().map(|byte| byte & 1).collect();
        // One row of a volume that is all the same, whose black is its white.
        let rescale = [[0.0, 200.0, 0.02, -1.5], [3.0, 255.0, 0.013, -0.6], [40.0, 40.0, 0.0, 0.0]];
        let slices = Slices::upload(device, size, &images, &masks, &rescale, [2, 1, 0])?;
        let stream = Stream::named("augmented", what);
        let samples: Vec<Sample> = (0..n)
            .map(|at| {
                let turn = if h == w { at as u32 % 4 } else { 2 * (at as u32 % 2) };
                let seed = stream.bits(1000 + at as u64) as u32;
                let mut sample = Sample { turn, flips: at as u32 / 2, seed, ..Sample::plain(at % count, 0) };
                change(&mut sample, what, size, &|place| stream.unit(100 * at as u64 + place));
                sample
            })
            .collect();
        let rows = samples.iter().enumerate().map(|(image, sample)| {
            Ok(SampleRow { slice: sample.slice as u32, image: image as u32, ..slices.row(sample)? })
        });
        let rows: Vec<SampleRow> = rows.collect::<shadegrad::Result<_>>()?;
        let params = LoadBatchParams {
            first_row: 0,
            rows: n as u32,
            height: h as u32,
            width: w as u32,
            channels: 3,
            source_channels: 3,
            order0: 2,
            order1: 1,
            order2: 0,
        };
        let (mut want_x, mut want_target) = (vec![f64::NAN; n * h * w * 3], vec![f64::NAN; n * h * w]);
        gather(&params, &images, &masks, rescale.as_flattened(), &rows, &mut want_x, &mut want_target);

        let table = slices.table(n)?;
        let x = checks.image(device, [n, h, w, 3], &vec![f32::NAN; n * h * w * 3])?;
        let target = device.tensor(OP, [n, h, w, 1], &vec![f32::NAN; n * h * w])?;
        ops::load_batch(&slices, &samples, &table, &x, &target)?;
        let tolerance = if matches!(what, "gamma" | "noise" | "everything") { TONES } else { POINTWISE };
        checks.compare("augment x", "v1", &x, &want_x, tolerance)?;
        checks.compare("augment target", "v1", &target, &want_target, EXACT)?;
        Ok(())
    })
}

/// An image of pixels, each with its three bytes and its mask.
type Image = Vec<Vec<[u8; 4]>>;

fn fliplr(image: Image) -> Image {
    image.into_iter().map(|row| row.into_iter().rev().collect()).collect()
}

fn flipud(image: Image) -> Image {
    image.into_iter().rev().collect()
}

/// A quarter turn counter-clockwise: the last column becomes the first row.
fn rot90(image: &Image) -> Image {
    (0..image[0].len()).rev().map(|column| image.iter().map(|row| row[column]).collect()).collect()
}

fn case(count: usize, size: [usize; 2], turns: &'static [u32]) -> Case {
    let name = format!("{count} slices of {size:?}, turns {turns:?} and all flips");
    Case::new(OP, name, move |device, checks| {
        let [h, w] = size;
        let pixels = count * h * w;
        let bytes = |name: &str, count: usize| -> Vec<u8> {
            numbers(name, count).iter().map(|value| ((value + 1.0) * 128.0) as u8).collect()
        };
        let images = bytes("images", 3 * pixels);
        let masks: Vec<u8> = bytes("masks", pixels).iter().map(|byte| byte & 1).collect();
        let groups = 2;
        let rescale: Vec<[f32; 4]> = (0..3 * groups)
            .map(|row| [3.0 + row as f32, 200.0 - 7.0 * row as f32, 0.013 * (row + 1) as f32, -1.5 + row as f32])
            .collect();
        let order = [2, 0, 1];
        let samples: Vec<Sample> = turns
            .iter()
            .flat_map(|turn| (0..4).map(move |flips| (*turn, flips)))
            .enumerate()
            .map(|(at, (turn, flips))| Sample { turn, flips, ..Sample::plain((at * 37 + 1) % count, at % groups) })
            .collect();

        let (mut want_x, mut want_target) = (Vec::new(), Vec::new());
        for sample in &samples {
            let pixel = |y: usize, x: usize| {
                let at = (sample.slice * h + y) * w + x;
                [images[3 * at], images[3 * at + 1], images[3 * at + 2], masks[at]]
            };
            let mut image: Image = (0..h).map(|y| (0..w).map(|x| pixel(y, x)).collect()).collect();
            if sample.flips & 1 != 0 {
                image = fliplr(image);
            }
            if sample.flips & 2 != 0 {
                image = flipud(image);
            }
            for _ in 0..sample.turn {
                image = rot90(&image);
            }
            for pixel in image.iter().flatten() {
                for c in 0..3 {
                    let [low, high, scale, shift] = rescale[3 * sample.group + c].map(f64::from);
                    want_x.push(f64::from(pixel[order[c]]).clamp(low, high) * scale + shift);
                }
                want_target.push(f64::from(pixel[3]));
            }
        }

        let slices = Slices::upload(device, size, &images, &masks, &rescale, order)?;
        let n = samples.len();
        let table = slices.table(n)?;
        let x = checks.image(device, [n, h, w, 3], &vec![f32::NAN; n * h * w * 3])?;
        let target = device.tensor(OP, [n, h, w, 1], &vec![f32::NAN; n * h * w])?;
        ops::load_batch(&slices, &samples, &table, &x, &target)?;
        checks.compare("gather x", "v1", &x, &want_x, POINTWISE)?;
        checks.compare("gather target", "v1", &target, &want_target, EXACT)?;
        Ok(())
    })
}
