//! Layer normalisation over the last axis. The twin of `shaders/layer_norm.wgsl`.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// Sizes and settings of a layer normalisation.
    LayerNormParams {
        /// Rows: everything but the last axis taken together.
        rows: u32,
        /// Channels: the last axis.
        channels: u32,
        /// Rows of a chunk on the GPU.
        chunk: u32,
        /// The first chunk of one launch.
        first_chunk: u32,
        /// Invocations that share a row (version 2).
        columns: u32,
        /// 1 if the gradient of x is added to what stands in its place, on the GPU.
        accumulate: u32,
        /// Added to the variance.
        eps: f32,
    }
}

/// Independent accumulators of a sum: two or more vector registers, which LLVM would not split by itself.
const LANES: usize = 16;

/// Numbers of a parallel piece of work.
const CHUNK: usize = 16384;

/// Longest chain of additions in one accumulator: rounding errors grow with it.
const CHAIN: usize = 128;

/// Whole rows of about [`CHUNK`] numbers, at least one.
fn chunk_rows(channels: usize) -> usize {
    (CHUNK / channels).clamp(1, CHAIN)
}

/// The sum of `term` over a row, in [`LANES`] chains.
#[inline(always)]
fn sum<T: Real>(row: &[T], term: impl Fn(T) -> T) -> T {
    let (blocks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [T::zero(); LANES];
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane += term(*x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += term(*x);
    }
    lanes.iter().copied().sum()
}

/// Per row: mean, `rstd = 1 / sqrt(variance + eps)` (kept in `statistics [rows, 2]`) and
/// `y = (x - mean) * rstd * weight + bias`.
pub fn forward<T: Real>(p: &LayerNormParams, x: &[T], weight: &[T], bias: &[T], y: &mut [T], statistics: &mut [T]) {
    let channels = p.channels as usize;
    let count = T::of(f64::from(p.channels));
    let eps = T::of(p.eps.into());
    let rows = chunk_rows(channels);
    let outputs = y.par_chunks_mut(rows * channels).zip(statistics.par_chunks_mut(rows * 2));
    outputs.zip(x.par_chunks(rows * channels)).for_each(|((y, statistics), x)| {
        let rows = y.chunks_mut(channels).zip(x.chunks(channels)).zip(statistics.chunks_mut(2));
        for ((y, x), statistics) in rows {
            // Around the first number: the mean of numbers far from 0 is then as exact as T can hold it.
            let origin = x[0];
            let mean = origin + sum(x, |x| x - origin) / count;
            let variance = sum(x, |x| (x - mean) * (x - mean)) / count;
            let rstd = (variance + eps).sqrt().recip();
            for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                *y = ((*x - mean) * rstd).fma(*weight, *bias);
            }
            statistics[0] = mean;
            statistics[1] = rstd;
        }
    });
}

/// `gx = rstd * (g - mean(g) - xhat * mean(g * xhat))` per row, with `g = gy * weight`, `xhat = (x - mean) * rstd`.
pub fn backward_input<T: Real>(p: &LayerNormParams, x: &[T], gy: &[T], statistics: &[T], weight: &[T], gx: &mut [T]) {
    let channels = p.channels as usize;
    let count = T::of(f64::from(p.channels));
    let rows = chunk_rows(channels);
    let inputs = x.par_chunks(rows * channels).zip(gy.par_chunks(rows * channels)).zip(statistics.par_chunks(rows * 2));
    gx.par_chunks_mut(rows * channels).zip(inputs).for_each(|(gx, ((x, gy), statistics))| {
        let rows = x.chunks(channels).zip(gy.chunks(channels)).zip(statistics.chunks(2));
        for (gx, ((x, gy), statistics)) in gx.chunks_mut(channels).zip(rows) {
            let (mean, rstd) = (statistics[0], statistics[1]);
            // g first, into the output: its two sums and the result then read two slices each.
            for ((gx, gy), weight) in gx.iter_mut().zip(gy).zip(weight) {
                *gx = *gy * *weight;
            }
            let mean_g = sum(gx, |g| g) / count;
            let slope = dot(gx, x, mean) * rstd * rstd / count;
            for (gx, x) in gx.iter_mut().zip(x) {
                *gx = rstd * (*gx - mean_g - (*x - mean) * slope);
            }
        }
    });
}

/// The sum of `g * (x - mean)` over a row, in [`LANES`] chains.
#[inline(always)]
fn dot<T: Real>(g: &[T], x: &[T], mean: T) -> T {
    let ((g, g_rest), (x, x_rest)) = (g.as_chunks::<LANES>(), x.as_chunks::<LANES>());
    let mut lanes = [T::zero(); LANES];
    for (g, x) in g.iter().zip(x) {
        for (lane, (g, x)) in lanes.iter_mut().zip(g.iter().zip(x)) {
            *lane = g.fma(*x - mean, *lane);
        }
    }
    for (lane, (g, x)) in lanes.iter_mut().zip(g_rest.iter().zip(x_rest)) {
        *lane = g.fma(*x - mean, *lane);
    }
    lanes.iter().copied().sum()
}

/// `gw[c]` = sum of gy * xhat over the rows, `gb[c]` = sum of gy; chunks of rows are added up in order.
pub fn backward_sums<T: Real>(p: &LayerNormParams, x: &[T], gy: &[T], statistics: &[T], gw: &mut [T], gb: &mut [T]) {
    let channels = p.channels as usize;
    let rows = chunk_rows(channels);
    let inputs = x.par_chunks(rows * channels).zip(gy.par_chunks(rows * channels)).zip(statistics.par_chunks(rows * 2));
    let chunks: Vec<(Vec<T>, Vec<T>)> = inputs
        .map(|((x, gy), statistics)| {
            let mut products = vec![T::zero(); channels];
            let mut sums = vec![T::zero(); channels];
            let rows = x.chunks(channels).zip(gy.chunks(channels)).zip(statistics.chunks(2));
            for ((x, gy), statistics) in rows {
                let (mean, rstd) = (statistics[0], statistics[1]);
                for ((product, sum), (x, gy)) in products.iter_mut().zip(&mut sums).zip(x.iter().zip(gy)) {
                    *product = gy.fma((*x - mean) * rstd, *product);
                    *sum += *gy;
                }
            }
            (products, sums)
        })
        .collect();
    for c in 0..channels {
        gw[c] = T::of(chunks.iter().map(|(products, _)| products[c].f64()).sum());
        gb[c] = T::of(chunks.iter().map(|(_, sums)| sums[c].f64()).sum());
    }
}
