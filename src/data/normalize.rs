//! Bringing brightness to one scale: `value = clamp(x, low, high) * scale + shift`, with `x` the byte as f32.
//!
//! Four numbers for each patient and channel ([`Rescale`]) say everything, so the device can normalise while it loads a
//! batch and the slices stay bytes until then. Four ways to choose the numbers:
//!
//! | name | what | for |
//! | --- | --- | --- |
//! | `per_volume` | clip each channel of a patient's volume to its percentiles 10 and 99, then mean 0 and variance 1 | the default: MR brightness has no unit and differs by patient |
//! | `foreground` | of the bytes brighter than the channel's mean over the volume: mean 0 and variance 1; nothing is clipped | heads of different size in the picture: the background does not count |
//! | `imagenet` | `(x/255 - mean) / std` with ImageNet's constants, RGB order | pretrained habits |
//! | `unext` | `((x/255 - mean) / std) / 255`, **BGR** order | comparing with UNeXt-pytorch, whose data path divides twice |

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{CHANNELS, Patient};
use crate::{Error, Result};

/// ImageNet's mean, by position in the network's input: after the BGR swap of `unext` 0.485 meets post-contrast.
const MEAN: [f64; CHANNELS] = [0.485, 0.456, 0.406];
/// ImageNet's standard deviation, by position.
const STD: [f64; CHANNELS] = [0.229, 0.224, 0.225];

/// How bytes become the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// Percentiles 10 and 99 of the patient's volume, then mean 0 and variance 1, for each channel.
    #[default]
    PerVolume,
    /// Mean 0 and variance 1 of what is brighter than the volume's mean, for each channel.
    Foreground,
    /// ImageNet's mean and standard deviation, RGB.
    Imagenet,
    /// UNeXt-pytorch's input: ImageNet's constants on BGR, and once more divided by 255.
    Unext,
}

/// `value = clamp(x, low, high) * scale + shift`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rescale {
    /// Bytes below count as this.
    pub low: f32,
    /// Bytes above count as this.
    pub high: f32,
    /// Factor.
    pub scale: f32,
    /// Summand, after the factor.
    pub shift: f32,
}

impl Rescale {
    /// The network's value of one byte.
    pub fn apply(&self, byte: u8) -> f32 {
        f32::from(byte).clamp(self.low, self.high) * self.scale + self.shift
    }
}

impl Normalization {
    /// All of them, in the order in which help lists them.
    pub const ALL: [Self; 4] = [Self::PerVolume, Self::Foreground, Self::Imagenet, Self::Unext];

    /// The name in flags and configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Self::PerVolume => "per_volume",
            Self::Foreground => "foreground",
            Self::Imagenet => "imagenet",
            Self::Unext => "unext",
        }
    }

    /// The slice's channel that each channel of the network reads.
    pub fn channel_order(&self) -> [usize; CHANNELS] {
        match self {
            Self::PerVolume | Self::Foreground | Self::Imagenet => [0, 1, 2],
            Self::Unext => [2, 1, 0],
        }
    }

    /// One row for each channel of the **network**; row `c` applies to the slice's channel `channel_order()[c]`.
    pub fn rescale(&self, patient: &Patient, channels: usize) -> Vec<Rescale> {
        self.rescale_volume(patient.slices.iter().map(|slice| slice.image.as_slice()), channels)
    }

    /// [`Self::rescale`] for the images of one patient that are in no data set: `height * width * channels` bytes each.
    pub fn rescale_volume<'a>(&self, images: impl Iterator<Item = &'a [u8]>, channels: usize) -> Vec<Rescale> {
        match self {
            Self::PerVolume => return histograms(images, channels).iter().map(clip_and_standardize).collect(),
            Self::Foreground => return histograms(images, channels).iter().map(standardize_foreground).collect(),
            Self::Imagenet | Self::Unext => {}
        }
        let divisor = if *self == Self::Unext { 255.0 } else { 1.0 };
        let row = |at: usize| {
            let (mean, std) = (MEAN[at % CHANNELS], STD[at % CHANNELS]);
            Rescale {
                low: 0.0,
                high: 255.0,
                scale: (1.0 / (255.0 * std * divisor)) as f32,
                shift: (-mean / (std * divisor)) as f32,
            }
        };
        (0..channels).map(row).collect()
    }
}

impl fmt::Display for Normalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Normalization {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|known| known.name() == name);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::Config(format!("unknown normalization {name:?}; known are {known}"))
        })
    }
}

/// Normalises one slice on the host: `image` `[H, W, C]` bytes -> `[H, W, C]` f32 in the network's channel order.
///
/// # Errors
/// `image` is no multiple of the channels, or `rows` do not match `order`.
pub fn normalize_slice(image: &[u8], rows: &[Rescale], order: &[usize]) -> Result<Vec<f32>> {
    let channels = rows.len();
    if channels == 0
        || order.len() != channels
        || !image.len().is_multiple_of(channels)
        || order.iter().any(|&c| c >= channels)
    {
        return Err(Error::shape(
            "normalize_slice",
            format!("{} bytes, {channels} rows and the channel order {order:?} do not fit together", image.len()),
        ));
    }
    let mut values = Vec::with_capacity(image.len());
    for pixel in image.chunks_exact(channels) {
        values.extend(rows.iter().zip(order).map(|(row, &source)| row.apply(pixel[source])));
    }
    Ok(values)
}

/// How often each byte occurs in each channel of a volume.
fn histograms<'a>(images: impl Iterator<Item = &'a [u8]>, channels: usize) -> Vec<[u64; 256]> {
    let mut counts = vec![[0u64; 256]; channels];
    for image in images {
        for pixel in image.chunks_exact(channels) {
            for (count, &byte) in counts.iter_mut().zip(pixel) {
                count[usize::from(byte)] += 1;
            }
        }
    }
    counts
}

/// Percentiles 10 and 99 as the limits, then mean 0 and variance 1 of the clipped values; a constant channel becomes 0.
fn clip_and_standardize(counts: &[u64; 256]) -> Rescale {
    let (low, high) = (percentile(counts, 0.10), percentile(counts, 0.99));
    standardize(counts, low, high)
}

/// Mean 0 and variance 1 of the bytes brighter than the mean of all; a constant channel becomes 0.
fn standardize_foreground(counts: &[u64; 256]) -> Rescale {
    let mean = mean_of(counts, &|byte| byte as f64);
    let mut foreground = *counts;
    for (byte, count) in foreground.iter_mut().enumerate() {
        if byte as f64 <= mean {
            *count = 0;
        }
    }
    standardize(&foreground, 0.0, 255.0)
}

/// Mean 0 and variance 1 of the bytes that `counts` counts, after they are clipped.
fn standardize(counts: &[u64; 256], low: f64, high: f64) -> Rescale {
    let clipped = |byte: usize| (byte as f64).clamp(low, high);
    let mean = mean_of(counts, &clipped);
    let variance = mean_of(counts, &|byte| (clipped(byte) - mean).powi(2));
    // Bytes are whole numbers: a variance this small is rounding, not contrast.
    let scale = if variance > 1e-12 { 1.0 / variance.sqrt() } else { 0.0 };
    Rescale { low: low as f32, high: high as f32, scale: scale as f32, shift: (-mean * scale) as f32 }
}

/// The mean of a function of the bytes that `counts` counts; 0 if there are none.
fn mean_of(counts: &[u64; 256], value: &dyn Fn(usize) -> f64) -> f64 {
    let total: u64 = counts.iter().sum();
    counts.iter().enumerate().map(|(byte, &count)| count as f64 * value(byte)).sum::<f64>() / total.max(1) as f64
}

/// numpy's `percentile` with linear interpolation, of the sorted values that the histogram stands for; `fraction` in `[0, 1]`.
fn percentile(counts: &[u64; 256], fraction: f64) -> f64 {
    let total: u64 = counts.iter().sum();
    let position = fraction * total.saturating_sub(1) as f64;
    let below = position.floor();
    let lower = value_at(counts, below as u64);
    let upper = value_at(counts, position.ceil() as u64);
    lower + (upper - lower) * (position - below)
}

/// The value at place `rank` (from 0) of the sorted volume.
fn value_at(counts: &[u64; 256], rank: u64) -> f64 {
    let mut seen = 0;
    let found = counts.iter().position(|&count| {
        seen += count;
        seen > rank
    });
    found.unwrap_or(0) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_interpolates_as_numpy_does() {
        // numpy.percentile([0, 10, 20, 255], [10, 50, 99]) = 3, 15, 247.95
        let mut counts = [0; 256];
        for value in [0, 10, 20, 255] {
            counts[value] += 1;
        }
        for (fraction, expected) in [(0.10, 3.0), (0.50, 15.0), (0.99, 247.95)] {
            assert!((percentile(&counts, fraction) - expected).abs() < 1e-9);
        }
    }
}
