//! Masks for a volume of any size: brought to the size of the training if that had one, normalised as there, padded,
//! through the network in batches, cropped and brought back.
//!
//! Rows and columns are padded with black on the bottom and on the right until they divide by the network's
//! [`multiple`](crate::models::ModelConfig::multiple). Slices are computed one by one, so the order of a volume's slices does not
//! change a slice's logits; only the normalisation and the largest component look at the volume as a whole.

use crate::data::{Normalization, Rescale, Volume, resize};
use crate::eval::{JudgeOptions, components};
use crate::models::{ModelConfig, Network};
use crate::nn::Mode;
use crate::tensor::Device;
use crate::{Error, Result};

/// How logits become a mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PredictOptions {
    /// Inside is where the probability is above this; between 0 and 1.
    pub threshold: f64,
    /// Keep only the largest connected piece of the volume (26 neighbours).
    pub largest_component: bool,
    /// Average the logits over the four flips: four times the work.
    pub flips: bool,
    /// Slices computed together.
    pub batch: usize,
    /// Rows and columns that the network was trained at, whatever the files had; 0: those of the files.
    pub size: usize,
}

impl PredictOptions {
    /// The logit above which a pixel is inside, as `eval` has it.
    fn cut(&self) -> Result<f32> {
        JudgeOptions { threshold: self.threshold, ..JudgeOptions::new(self.batch) }.cut()
    }
}

impl Default for PredictOptions {
    fn default() -> Self {
        Self { threshold: 0.5, largest_component: false, flips: false, batch: 8, size: 0 }
    }
}

/// A network's answer for a volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// `[D, H, W]`.
    pub logits: Vec<f32>,
    /// `[D, H, W]`, 1 inside.
    pub mask: Vec<u8>,
}

impl Prediction {
    /// The sigmoid of the logits.
    pub fn probability(&self) -> Vec<f32> {
        self.logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect()
    }
}

/// Predicts a volume. `done` is called with the number of slices after each batch.
///
/// # Errors
/// As [`check`]; [`Error::NonFinite`] for a logit that is no number; else as the ops.
pub fn predict(
    device: &Device,
    net: &dyn Network,
    normalize: Normalization,
    volume: &Volume,
    options: &PredictOptions,
    done: &mut dyn FnMut(usize),
) -> Result<Prediction> {
    check(net.config(), volume, options)?;
    let cut = options.cut()?;
    let config = net.config();
    let channels = config.in_channels;
    let [depth, ..] = volume.size;
    let native = [volume.size[1], volume.size[2]];
    let [height, width] = if options.size == 0 { native } else { [options.size; 2] };
    let mut bytes = volume.with_channels(channels)?;
    if native != [height, width] {
        bytes = each(&bytes, depth, |slice| resize::bytes(slice, channels, native, [height, width]))?;
    }
    let slice_bytes = height * width * channels;
    let order = normalize.channel_order();
    // Row `c` of the table is for the network's channel `c`, which reads the slice's channel `order[c]`.
    let order: Vec<usize> = (0..channels).map(|c| if channels == order.len() { order[c] } else { c }).collect();
    let rows = normalize.rescale_volume(bytes.chunks_exact(slice_bytes.max(1)), channels);
    let full = [height, width].map(|side| side.next_multiple_of(config.multiple()));
    let flips: &[[bool; 2]] =
        if options.flips { &[[false, false], [false, true], [true, false], [true, true]] } else { &[[false, false]] };
    let share = 1.0 / flips.len() as f32;

    let mut logits = vec![0.0f32; depth * height * width];
    let batch = options.batch;
    let places = logits.chunks_mut((batch * height * width).max(1));
    for (slices, place) in bytes.chunks((batch * slice_bytes).max(1)).zip(places) {
        let n = slices.len() / slice_bytes;
        for flip in flips {
            let input = load(slices, [height, width], full, &rows, &order, *flip);
            let x = device.tensor("predict", [n, full[0], full[1], channels], &input)?;
            let answer = net.forward(&x, Mode::Eval)?.to_vec()?;
            for (at, (image, answer)) in
                place.chunks_exact_mut(height * width).zip(answer.chunks_exact(full[0] * full[1])).enumerate()
            {
                for (pixel, logit) in image.iter_mut().enumerate() {
                    let [y, x] = turned([pixel / width, pixel % width], full, *flip);
                    let value = answer[y * full[1] + x];
                    if !value.is_finite() {
                        return Err(Error::NonFinite(format!(
                            "the network's output is {value} in slice {at} of a batch; the weights are damaged or their training diverged"
                        )));
                    }
                    *logit += share * value;
                }
            }
        }
        done(n);
    }
    if native != [height, width] {
        logits = each(&logits, depth, |slice| resize::logits(slice, [height, width], native))?;
    }
    let mut mask: Vec<u8> = logits.iter().map(|logit| u8::from(*logit > cut)).collect();
    if options.largest_component {
        components::keep_largest(&mut mask, volume.size)?;
    }
    Ok(Prediction { logits, mask })
}

/// Each of the `depth` slices that lie one after the other, resized.
fn each<T: Copy>(values: &[T], depth: usize, resize: impl Fn(&[T]) -> Result<Vec<T>>) -> Result<Vec<T>> {
    let slices = values.chunks_exact((values.len() / depth.max(1)).max(1)).map(resize);
    Ok(slices.collect::<Result<Vec<_>>>()?.concat())
}

/// Refuses what [`predict`] would, without computing anything.
///
/// # Errors
/// [`Error::Config`] for a threshold outside 0 to 1 or a network of several classes, [`Error::Data`] for channels that the
/// network does not read.
pub fn check(config: &ModelConfig, volume: &Volume, options: &PredictOptions) -> Result<()> {
    options.cut()?;
    if config.num_classes != 1 {
        let message = format!("the network has {} classes, but predict writes masks of one", config.num_classes);
        return Err(Error::Config(message));
    }
    volume.check_channels(config.in_channels)
}

/// Where pixel `[y, x]` of the padded image lies after a flip of `[rows, columns]`; the same way back.
fn turned([y, x]: [usize; 2], [height, width]: [usize; 2], [rows, columns]: [bool; 2]) -> [usize; 2] {
    [if rows { height - 1 - y } else { y }, if columns { width - 1 - x } else { x }]
}

/// Slices `[N, H, W, C]` as bytes -> the network's values, padded to `full` and flipped.
fn load(
    slices: &[u8],
    size: [usize; 2],
    full: [usize; 2],
    rows: &[Rescale],
    order: &[usize],
    flip: [bool; 2],
) -> Vec<f32> {
    let ([height, width], channels) = (size, rows.len());
    let black: Vec<f32> = rows.iter().map(|row| row.apply(0)).collect();
    // All 256 values of each channel: looked up instead of computed for each pixel.
    let values: Vec<[f32; 256]> = rows.iter().map(|row| std::array::from_fn(|byte| row.apply(byte as u8))).collect();
    let count = slices.len() / (height * width * channels);
    let mut out = black.repeat(count * full[0] * full[1]);
    for (slice, out) in
        slices.chunks_exact(height * width * channels).zip(out.chunks_exact_mut(full[0] * full[1] * channels))
    {
        for (at, pixel) in slice.chunks_exact(channels).enumerate() {
            let [y, x] = turned([at / width, at % width], full, flip);
            let place = &mut out[(y * full[1] + x) * channels..][..channels];
            for ((place, values), source) in place.iter_mut().zip(&values).zip(order) {
                *place = values[usize::from(pixel[*source])];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_black_and_a_flip_moves_it() {
        let rows = [Rescale { low: 0.0, high: 255.0, scale: 2.0, shift: -1.0 }];
        let plain = load(&[1, 2], [1, 2], [2, 3], &rows, &[0], [false, false]);
        assert_eq!(plain, [1.0, 3.0, -1.0, -1.0, -1.0, -1.0]);
        let flipped = load(&[1, 2], [1, 2], [2, 3], &rows, &[0], [true, true]);
        assert_eq!(flipped, [-1.0, -1.0, -1.0, -1.0, 3.0, 1.0]);
    }

    #[test]
    fn channels_follow_the_order() {
        let row = |scale| Rescale { low: 0.0, high: 255.0, scale, shift: 0.0 };
        let values = load(&[1, 2, 3], [1, 1], [1, 1], &[row(1.0), row(10.0), row(100.0)], &[2, 1, 0], [false, false]);
        assert_eq!(values, [3.0, 20.0, 100.0]);
    }
}
