//! Max pooling over 2x2 windows with stride 2. The twin of `shaders/max_pool2d.wgsl`.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// Sizes of a max pooling. An odd last row or column is dropped.
    MaxPool2dParams {
        /// Images.
        batch: u32,
        /// Rows of x.
        in_h: u32,
        /// Columns of x.
        in_w: u32,
        /// Rows of y: `in_h / 2`.
        out_h: u32,
        /// Columns of y: `in_w / 2`.
        out_w: u32,
        /// Channels.
        channels: u32,
        /// 1 if the gradient is added to what stands in its place, on the GPU.
        accumulate: u32,
    }
}

uniform! {
    /// Sizes of a max pooling that normalises what it reads, on the GPU; rows and columns of x are even.
    MaxPool2dNormedParams {
        /// Windows of a launch.
        windows: u32,
        /// Columns of y.
        out_w: u32,
        /// Channels.
        channels: u32,
        /// What is below becomes 0: the ReLU of the batch norm.
        floor: f32,
        /// Gradient: 1 if it is added to what stands in its place.
        accumulate: u32,
        /// Gradient: windows of a chunk.
        chunk: u32,
        /// Gradient: chunks of all launches.
        chunks: u32,
        /// Gradient: chunks before this launch's.
        first_chunk: u32,
        /// Gradient: vectors of channels that a workgroup takes side by side.
        columns: u32,
    }
}

/// `y[n,oy,ox,c]` = max of `x[n,2oy+ky,2ox+kx,c]` for ky, kx in {0, 1}. `winner` gets which (0..4) it was; the first
/// in row order wins a tie.
pub fn forward<T: Real>(p: &MaxPool2dParams, x: &[T], y: &mut [T], winner: &mut [u32]) {
    let (in_w, out_w, channels) = (p.in_w as usize, p.out_w as usize, p.channels as usize);
    let row_len = out_w * channels;
    let rows = y.par_chunks_mut(row_len.max(1)).zip(winner.par_chunks_mut(row_len.max(1)));
    rows.enumerate().for_each(|(row, (y, winner))| {
        let (n, oy) = (row / p.out_h as usize, row % p.out_h as usize);
        let top = (n * p.in_h as usize + 2 * oy) * in_w * channels;
        for ox in 0..out_w {
            let corner = top + 2 * ox * channels;
            for c in 0..channels {
                let mut best = x[corner + c];
                let mut which = 0;
                for k in 1..4 {
                    let candidate = x[corner + ((k / 2) * in_w + k % 2) * channels + c];
                    if candidate > best {
                        best = candidate;
                        which = k as u32;
                    }
                }
                y[ox * channels + c] = best;
                winner[ox * channels + c] = which;
            }
        }
    });
}

/// `gx[n,iy,ix,c]` = `gy` of its window if (iy, ix) won there, else 0.
pub fn backward_input<T: Real>(p: &MaxPool2dParams, gy: &[T], winner: &[u32], gx: &mut [T]) {
    let (in_h, out_h, out_w, channels) = (p.in_h as usize, p.out_h as usize, p.out_w as usize, p.channels as usize);
    gx.par_chunks_mut(p.in_w as usize * channels).enumerate().for_each(|(row, gx)| {
        let (n, iy) = (row / in_h, row % in_h);
        gx.fill(T::zero());
        if iy >= 2 * out_h {
            return;
        }
        for ox in 0..out_w {
            let window = ((n * out_h + iy / 2) * out_w + ox) * channels;
            let (winner, gy) = (&winner[window..][..channels], &gy[window..][..channels]);
            for side in 0..2 {
                let which = (iy % 2 * 2 + side) as u32;
                let gx = &mut gx[(2 * ox + side) * channels..][..channels];
                for ((gx, gy), winner) in gx.iter_mut().zip(gy).zip(winner) {
                    *gx = if *winner == which { *gy } else { T::zero() };
                }
            }
        }
    });
}
