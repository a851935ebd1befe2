//! Softmax over the last axis, and its gradient. The twin of `shaders/softmax.wgsl`.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// The row length of a softmax.
    SoftmaxParams {
        /// Channels: the last axis.
        channels: u32,
    }
}

/// Rows that one task works on.
const ROWS: usize = 256;

/// `y[r,c]` = exp(x - m) / its sum over the row, m the row's largest x.
pub fn forward<T: Real>(p: &SoftmaxParams, x: &[T], y: &mut [T]) {
    let channels = p.channels as usize;
    y.par_chunks_mut(ROWS * channels).zip(x.par_chunks(ROWS * channels)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            let largest = x.iter().fold(T::neg_infinity(), |most, x| if *x > most { *x } else { most });
            let mut sum = T::zero();
            for (y, x) in y.iter_mut().zip(x) {
                *y = (*x - largest).exp();
                sum += *y;
            }
            y.iter_mut().for_each(|y| *y = *y / sum);
        }
    });
}

/// `gx[r,c]` = y * (gy - the row's sum of gy * y).
pub fn backward_input<T: Real>(p: &SoftmaxParams, gy: &[T], y: &[T], gx: &mut [T]) {
    let channels = p.channels as usize;
    let inputs = gy.par_chunks(ROWS * channels).zip(y.par_chunks(ROWS * channels));
    gx.par_chunks_mut(ROWS * channels).zip(inputs).for_each(|(gx, (gy, y))| {
        let rows = gy.chunks_exact(channels).zip(y.chunks_exact(channels));
        for (gx, (gy, y)) in gx.chunks_exact_mut(channels).zip(rows) {
            let mean: T = gy.iter().zip(y).map(|(gy, y)| *gy * *y).sum();
            for ((gx, gy), y) in gx.iter_mut().zip(gy).zip(y) {
                *gx = *y * (*gy - mean);
            }
        }
    });
}
