//! Batch normalisation, a ReLU and max pooling in one. The twin of `shaders/batch_norm_max_pool2d.wgsl`. Statistics and
//! sums are those of [`batch_norm`](super::batch_norm).

use rayon::prelude::*;

use super::batch_norm::rstd;
use super::max_pool2d::{self, MaxPool2dParams};
use super::{Real, uniform};

uniform! {
    /// Sizes and settings. An odd last row or column is dropped by the pooling.
    BatchNormMaxPool2dParams {
        /// Images of one launch.
        images: u32,
        /// Rows of x.
        in_h: u32,
        /// Columns of x.
        in_w: u32,
        /// Windows of an image: pixels of y.
        image_pixels: u32,
        /// Channels.
        channels: u32,
        /// Windows of a chunk on the GPU.
        chunk: u32,
        /// Chunks of an image.
        image_chunks: u32,
        /// Chunks of all images.
        chunks: u32,
        /// The first chunk of one launch.
        first_chunk: u32,
        /// Vectors of four channels that a workgroup takes side by side (version 2).
        columns: u32,
        /// Windows of a slab: what a workgroup of the gradient of x takes (version 2).
        slab: u32,
        /// 1 if the rows of such a workgroup take turns, 0 if each has a part of the slab of its own.
        turns: u32,
        /// Added to the variance.
        eps: f32,
        /// 1 / pixels of x where the statistics come from x (train), 0 where they are constants (eval).
        inverse_count: f32,
        /// A result below this becomes 0: 0 with a ReLU, the lowest f32 without.
        floor: f32,
    }
}

/// 1, -1, or 0 for 0.
fn sign<T: Real>(value: T) -> T {
    if value == T::zero() { value } else { value.signum() }
}

/// `y[n,oy,ox,c]` = max of v over the window, or of that and 0, with `v = (x - mean) * rstd * weight + bias`. `winner`
/// gets the pixel (0..4) with the largest `sign(weight) * x`, which has the largest v; the first in row order wins a tie.
pub fn forward<T: Real>(
    p: &BatchNormMaxPool2dParams,
    x: &[T],
    [weight, bias]: [&[T]; 2],
    [mean, variance]: [&[T]; 2],
    y: &mut [T],
    winner: &mut [u32],
) {
    let (in_h, in_w, channels) = (p.in_h as usize, p.in_w as usize, p.channels as usize);
    let (out_h, out_len) = (in_h / 2, in_w / 2 * channels);
    let direction: Vec<T> = weight.iter().map(|weight| sign(*weight)).collect();
    let scale: Vec<T> = weight.iter().zip(variance).map(|(weight, var)| *weight * rstd(p.eps, *var)).collect();
    let floor = T::of(p.floor.into());
    // As long as the pixels: then the loop over channels has no further bounds.
    let [direction, scale, mean, bias] = [&direction, &scale, mean, bias].map(|values| &values[..channels]);
    y.par_chunks_mut(out_len).zip(winner.par_chunks_mut(out_len)).enumerate().for_each(|(row, (y, winner))| {
        let top = (row / out_h * in_h + 2 * (row % out_h)) * in_w * channels;
        let windows = y.chunks_exact_mut(channels).zip(winner.chunks_exact_mut(channels));
        for (ox, (y, winner)) in windows.enumerate() {
            let pixel = |k: usize| &x[top + (k / 2 * in_w + 2 * ox + k % 2) * channels..][..channels];
            let pixels = [0, 1, 2, 3].map(pixel);
            for c in 0..channels {
                let (mut best, mut which) = (pixels[0][c], 0);
                for (k, pixel) in (1..).zip(&pixels[1..]) {
                    if direction[c] * pixel[c] > direction[c] * best {
                        (best, which) = (pixel[c], k);
                    }
                }
                let v = (best - mean[c]).fma(scale[c], bias[c]);
                y[c] = if v < floor { T::zero() } else { v };
                winner[c] = which;
            }
        }
    });
}

/// The gradient of the pooling alone, `gv` of x's size: gy at the winners, and 0 elsewhere. It goes into
/// [`backward_sums`](super::batch_norm::backward_sums) and [`backward_input`](super::batch_norm::backward_input).
pub fn backward_pool<T: Real>(p: &BatchNormMaxPool2dParams, gy: &[T], winner: &[u32], gv: &mut [T]) {
    let pool = MaxPool2dParams {
        batch: p.images,
        in_h: p.in_h,
        in_w: p.in_w,
        out_h: p.in_h / 2,
        out_w: p.in_w / 2,
        channels: p.channels,
        accumulate: 0,
    };
    max_pool2d::backward_input(&pool, gy, winner, gv);
}
