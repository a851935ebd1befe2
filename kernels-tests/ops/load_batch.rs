//! Cases of the batch loader: all turns and flips, odd widths, slices whose bytes do not fill their last word, groups
//! with their own rescaling, slices taken twice, and sets and batches that a small binding (`kernels.rs`) splits.
//!
//! The reference flips and turns small images step by step, as numpy's `fliplr`, `flipud` and `rot90` do.

use shadegrad::ops::{self, Sample, Slices};

use super::{Case, EXACT, POINTWISE, numbers};

const OP: &str = "load_batch";

pub fn cases() -> Vec<Case> {
    let every: &'static [u32] = &[0, 1, 2, 3];
    vec![
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
    ]
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
            .map(|(at, (turn, flips))| Sample { slice: (at * 37 + 1) % count, group: at % groups, turn, flips })
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
        let x = device.tensor(OP, [n, h, w, 3], &vec![f32::NAN; n * h * w * 3])?;
        let target = device.tensor(OP, [n, h, w, 1], &vec![f32::NAN; n * h * w])?;
        ops::load_batch(&slices, &samples, &table, &x, &target)?;
        checks.compare("gather x", "v1", &x, &want_x, POINTWISE)?;
        checks.compare("gather target", "v1", &target, &want_target, EXACT)?;
        Ok(())
    })
}
