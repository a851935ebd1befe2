//! Batch normalisation over the pixels of all images, per channel, alone or followed by a ReLU. The twin of `shaders/batch_norm.wgsl`.
//!
//! Sums run over fixed chunks of pixels, so a result does not depend on the number of threads. Within a chunk a
//! short row of accumulators (`tiled`) is as long as several vector registers even if there are few channels.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// Sizes and settings of a batch normalisation.
    BatchNormParams {
        /// Images of one launch.
        images: u32,
        /// Rows times columns of an image.
        image_pixels: u32,
        /// Channels.
        channels: u32,
        /// Pixels of a chunk on the GPU.
        chunk: u32,
        /// Chunks of an image.
        image_chunks: u32,
        /// Chunks of all images.
        chunks: u32,
        /// The first chunk of one launch.
        first_chunk: u32,
        /// Vectors of four channels that a workgroup takes side by side (version 2).
        columns: u32,
        /// Pixels of a slab: what a workgroup of the gradient of x takes (version 2).
        slab: u32,
        /// 1 if the rows of such a workgroup take turns, 0 if each has a part of the slab of its own.
        turns: u32,
        /// Share of the new batch in the running statistics.
        momentum: f32,
        /// Added to the variance.
        eps: f32,
        /// 1 / pixels where the statistics come from x (train), 0 where they are constants (eval).
        inverse_count: f32,
        /// 1 if the gradient of x is added to what stands in its place, on the GPU.
        accumulate: u32,
        /// A result below this becomes 0: 0 with a ReLU, the lowest f32 without.
        floor: f32,
    }
}

/// Elements of a chunk: 64 KiB of f32, so that the second pass over it finds it in the cache.
const CHUNK: usize = 16384;

/// Shortest row of accumulators.
const ROW: usize = 128;

/// Pixels whose channels make a row of at least [`ROW`] numbers.
fn row_pixels(channels: usize) -> usize {
    ROW.div_ceil(channels)
}

/// Numbers of a chunk: whole rows of whole pixels.
fn chunk_len(channels: usize) -> usize {
    let row = row_pixels(channels) * channels;
    (CHUNK / row).max(1) * row
}

/// A value per channel, repeated for every pixel of a row.
fn tiled<T: Real>(channels: usize, value: impl Fn(usize) -> T) -> Vec<T> {
    (0..row_pixels(channels) * channels).map(|at| value(at % channels)).collect()
}

/// Adds up what a row of accumulators holds for each channel; in f64, like everything after the chunks.
fn folded<T: Real>(channels: usize, row: &[T]) -> Vec<f64> {
    (0..channels).map(|c| row[c..].iter().step_by(channels).map(|sum| sum.f64()).sum()).collect()
}

pub(super) fn rstd<T: Real>(eps: f32, variance: T) -> T {
    (variance + T::of(eps.into())).sqrt().recip()
}

/// `mean[c]` and `variance[c]` (biased) of x, in two passes over each chunk; chunks are merged around the total mean.
pub fn statistics<T: Real>(p: &BatchNormParams, x: &[T], mean: &mut [T], variance: &mut [T]) {
    let channels = p.channels as usize;
    let chunks: Vec<(f64, Vec<f64>, Vec<f64>)> = x
        .par_chunks(chunk_len(channels))
        .map(|chunk| {
            let pixels = (chunk.len() / channels) as f64;
            // Around the first pixel: the mean of numbers far from 0 is then as exact as T can hold it.
            let origin = tiled(channels, |c| chunk[c]);
            let mut sums = vec![T::zero(); origin.len()];
            for row in chunk.chunks(origin.len()) {
                for ((sum, x), origin) in sums.iter_mut().zip(row).zip(&origin) {
                    *sum += *x - *origin;
                }
            }
            let sums = folded(channels, &sums);
            let means: Vec<f64> = sums.iter().zip(chunk).map(|(sum, x)| x.f64() + sum / pixels).collect();
            let center: Vec<T> = tiled(channels, |c| T::of(means[c]));
            let mut squares = vec![T::zero(); center.len()];
            for row in chunk.chunks(center.len()) {
                for ((square, x), center) in squares.iter_mut().zip(row).zip(&center) {
                    let off = *x - *center;
                    *square += off * off;
                }
            }
            (pixels, means, folded(channels, &squares))
        })
        .collect();
    let count = (x.len() / channels) as f64;
    for c in 0..channels {
        let total: f64 = chunks.iter().map(|(pixels, means, _)| pixels * means[c]).sum();
        let center = total / count;
        let squares: f64 =
            chunks.iter().map(|(pixels, means, squares)| squares[c] + pixels * (means[c] - center).powi(2)).sum();
        mean[c] = T::of(center);
        variance[c] = T::of(squares / count);
    }
}

/// `running_mean[c]` moves towards the batch's mean.
pub fn update_mean<T: Real>(p: &BatchNormParams, mean: &[T], running_mean: &mut [T]) {
    update(p, mean, 1.0, running_mean);
}

/// `running_var[c]` moves towards the batch's unbiased variance, n / (n - 1) times the biased one.
pub fn update_var<T: Real>(p: &BatchNormParams, variance: &[T], running_var: &mut [T]) {
    let count = f64::from(p.images) * f64::from(p.image_pixels);
    update(p, variance, count / (count - 1.0), running_var);
}

fn update<T: Real>(p: &BatchNormParams, batch: &[T], factor: f64, running: &mut [T]) {
    let momentum = T::of(p.momentum.into());
    // A step whose numbers are none is a skipped one.
    for (running, batch) in running.iter_mut().zip(batch).filter(|(_, batch)| batch.is_finite()) {
        *running += momentum * (T::of(factor) * *batch - *running);
    }
}

/// `y = (x - mean) * rstd * weight + bias` with `rstd = 1 / sqrt(variance + eps)`, then the ReLU if there is one.
pub fn forward<T: Real>(
    p: &BatchNormParams,
    x: &[T],
    [weight, bias]: [&[T]; 2],
    [mean, variance]: [&[T]; 2],
    y: &mut [T],
) {
    let channels = p.channels as usize;
    let center = tiled(channels, |c| mean[c]);
    let scale = tiled(channels, |c| weight[c] * rstd(p.eps, variance[c]));
    let shift = tiled(channels, |c| bias[c]);
    let floor = T::of(p.floor.into());
    let len = chunk_len(channels);
    y.par_chunks_mut(len).zip(x.par_chunks(len)).for_each(|(y, x)| {
        for (y, x) in y.chunks_mut(scale.len()).zip(x.chunks(scale.len())) {
            for ((((y, x), center), scale), shift) in y.iter_mut().zip(x).zip(&center).zip(&scale).zip(&shift) {
                let v = (*x - *center).fma(*scale, *shift);
                *y = if v < floor { T::zero() } else { v };
            }
        }
    });
}

/// Which gradients come through the ReLU: those where its input is above `floor`. What lies within `band` of it counts
/// as on the other side; 0 but for a check that asks what rounding can do.
#[derive(Debug, Clone, Copy)]
pub struct Gate<T> {
    floor: T,
    band: T,
}

impl<T: Real> Gate<T> {
    /// The gate of a batch normalisation.
    pub fn new(p: &BatchNormParams, band: f32) -> Self {
        Self { floor: T::of(p.floor.into()), band: T::of(band.into()) }
    }

    #[inline(always)]
    fn pass(self, gy: T, v: T) -> T {
        let open = (v > self.floor) != ((v - self.floor).abs() < self.band);
        if open { gy } else { T::zero() }
    }
}

/// `gb[c]` = sum of gv, `gw[c]` = sum of gv * xhat, with `xhat = (x - mean) * rstd`. gv is what of gy comes through
/// the gate.
pub fn backward_sums<T: Real>(
    p: &BatchNormParams,
    gate: Gate<T>,
    x: &[T],
    gy: &[T],
    [weight, bias, mean, variance]: [&[T]; 4],
    gw: &mut [T],
    gb: &mut [T],
) {
    let channels = p.channels as usize;
    let center = tiled(channels, |c| mean[c]);
    let scale = tiled(channels, |c| weight[c] * rstd(p.eps, variance[c]));
    let shift = tiled(channels, |c| bias[c]);
    let len = chunk_len(channels);
    let chunks: Vec<(Vec<f64>, Vec<f64>)> = gy
        .par_chunks(len)
        .zip(x.par_chunks(len))
        .map(|(gy, x)| {
            let mut sums = vec![T::zero(); center.len()];
            let mut products = vec![T::zero(); center.len()];
            for (gy, x) in gy.chunks(center.len()).zip(x.chunks(center.len())) {
                let constants = center.iter().zip(&scale).zip(&shift);
                let sums = sums.iter_mut().zip(&mut products).zip(constants);
                for (((sum, product), ((center, scale), shift)), (gy, x)) in sums.zip(gy.iter().zip(x)) {
                    let off = *x - *center;
                    let gv = gate.pass(*gy, off.fma(*scale, *shift));
                    *sum += gv;
                    *product = gv.fma(off, *product);
                }
            }
            (folded(channels, &sums), folded(channels, &products))
        })
        .collect();
    for c in 0..channels {
        let product: f64 = chunks.iter().map(|(_, products)| products[c]).sum();
        gw[c] = T::of(product) * rstd(p.eps, variance[c]);
        gb[c] = T::of(chunks.iter().map(|(sums, _)| sums[c]).sum());
    }
}

/// `gx = weight * rstd * (gv - inverse_count * (gb + xhat * gw))`.
pub fn backward_input<T: Real>(
    p: &BatchNormParams,
    gate: Gate<T>,
    x: &[T],
    gy: &[T],
    [weight, bias, mean, variance]: [&[T]; 4],
    [gw, gb]: [&[T]; 2],
    gx: &mut [T],
) {
    let channels = p.channels as usize;
    // Not the rounded f32: the judge divides in f64.
    let share = if p.inverse_count == 0.0 { T::zero() } else { T::of(channels as f64 / x.len() as f64) };
    let center = tiled(channels, |c| mean[c]);
    let scale = tiled(channels, |c| weight[c] * rstd(p.eps, variance[c]));
    let shift = tiled(channels, |c| bias[c]);
    let mean_gv = tiled(channels, |c| share * gb[c]);
    let slope = tiled(channels, |c| share * gw[c] * rstd(p.eps, variance[c]));
    let (len, row) = (chunk_len(channels), scale.len());
    gx.par_chunks_mut(len).zip(gy.par_chunks(len).zip(x.par_chunks(len))).for_each(|(gx, (gy, x))| {
        for (gx, (gy, x)) in gx.chunks_mut(row).zip(gy.chunks(row).zip(x.chunks(row))) {
            let constants = center.iter().zip(scale.iter().zip(&shift)).zip(mean_gv.iter().zip(&slope));
            for ((gx, (gy, x)), ((center, (scale, shift)), (mean_gv, slope))) in
                gx.iter_mut().zip(gy.iter().zip(x)).zip(constants)
            {
                let off = *x - *center;
                *gx = *scale * (gate.pass(*gy, off.fma(*scale, *shift)) - *mean_gv - off * *slope);
            }
        }
    });
}
