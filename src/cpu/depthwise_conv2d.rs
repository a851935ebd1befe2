//! Depthwise 2-D convolution, stride 1, and its gradients. The twin of `shaders/depthwise_conv2d.wgsl`.

use std::ops::Range;

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// Sizes of a depthwise convolution.
    DepthwiseConv2dParams {
        /// Images.
        batch: u32,
        /// Rows of x.
        in_h: u32,
        /// Columns of x.
        in_w: u32,
        /// Rows of y: `in_h + 2 padding - kernel_h + 1`.
        out_h: u32,
        /// Columns of y: `in_w + 2 padding - kernel_w + 1`.
        out_w: u32,
        /// Channels.
        channels: u32,
        /// Rows of the kernel.
        kernel_h: u32,
        /// Columns of the kernel.
        kernel_w: u32,
        /// Zeros around x, on each side.
        padding: u32,
        /// 1 if there is a bias, else 0.
        has_bias: u32,
        /// Image rows (n, oy) of one partial sum of the weight's gradient.
        chunk_rows: u32,
        /// Partial sums of all launches.
        chunks: u32,
        /// Where a launch's partial sums begin.
        first_chunk: u32,
    }
}

impl DepthwiseConv2dParams {
    /// The kernel rows or columns that stay inside the other image (of `extent`) at position `at`, which is
    /// `at + k - padding` (forward).
    fn inside(&self, at: usize, kernel: u32, extent: u32) -> Range<usize> {
        let (padding, extent) = (self.padding as usize, extent as usize);
        padding.saturating_sub(at)..(extent + padding).saturating_sub(at).min(kernel as usize)
    }

    /// As `inside`, for `at + padding - k` (backward).
    fn inside_back(&self, at: usize, kernel: u32, extent: u32) -> Range<usize> {
        let (padding, extent) = (self.padding as usize, extent as usize);
        (at + padding + 1).saturating_sub(extent)..(at + padding + 1).min(kernel as usize)
    }
}

/// `y[n,oy,ox,c] = bias[c]` + sum over ky, kx of `x[n, oy+ky-p, ox+kx-p, c] * w[ky,kx,c]`.
pub fn forward<T: Real>(p: &DepthwiseConv2dParams, x: &[T], weight: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let (in_h, in_w, out_h, out_w) = (p.in_h as usize, p.in_w as usize, p.out_h as usize, p.out_w as usize);
    let (channels, kernel_w, padding) = (p.channels as usize, p.kernel_w as usize, p.padding as usize);
    y.par_chunks_mut(out_w * channels).enumerate().for_each(|(row, y)| {
        let (n, oy) = (row / out_h, row % out_h);
        for (ox, y) in y.chunks_exact_mut(channels).enumerate() {
            match bias {
                Some(bias) => y.copy_from_slice(bias),
                None => y.fill(T::zero()),
            }
            for ky in p.inside(oy, p.kernel_h, p.in_h) {
                for kx in p.inside(ox, p.kernel_w, p.in_w) {
                    let x_at = ((n * in_h + oy + ky - padding) * in_w + ox + kx - padding) * channels;
                    let w_at = (ky * kernel_w + kx) * channels;
                    add_products(y, &x[x_at..][..channels], &weight[w_at..][..channels]);
                }
            }
        }
    });
}

/// `gx[n,iy,ix,c]` = sum over ky, kx of `gy[n, iy+p-ky, ix+p-kx, c] * w[ky,kx,c]`.
pub fn backward_input<T: Real>(p: &DepthwiseConv2dParams, gy: &[T], weight: &[T], gx: &mut [T]) {
    let (in_h, in_w, out_h, out_w) = (p.in_h as usize, p.in_w as usize, p.out_h as usize, p.out_w as usize);
    let (channels, kernel_w, padding) = (p.channels as usize, p.kernel_w as usize, p.padding as usize);
    gx.par_chunks_mut(in_w * channels).enumerate().for_each(|(row, gx)| {
        let (n, iy) = (row / in_h, row % in_h);
        for (ix, gx) in gx.chunks_exact_mut(channels).enumerate() {
            gx.fill(T::zero());
            for ky in p.inside_back(iy, p.kernel_h, p.out_h) {
                for kx in p.inside_back(ix, p.kernel_w, p.out_w) {
                    let gy_at = ((n * out_h + iy + padding - ky) * out_w + ix + padding - kx) * channels;
                    let w_at = (ky * kernel_w + kx) * channels;
                    add_products(gx, &gy[gy_at..][..channels], &weight[w_at..][..channels]);
                }
            }
        }
    });
}

/// `gw[ky,kx,c]` = sum over n, oy, ox of `x[n, oy+ky-p, ox+kx-p, c] * gy[n,oy,ox,c]`, and `gb[c]` = sum of gy: first over
/// chunks of image rows, then over the chunks.
pub fn backward_weight<T: Real>(p: &DepthwiseConv2dParams, x: &[T], gy: &[T], gw: &mut [T], gb: &mut [T]) {
    let (in_h, in_w, out_h, out_w) = (p.in_h as usize, p.in_w as usize, p.out_h as usize, p.out_w as usize);
    let (channels, kernel_w, padding) = (p.channels as usize, p.kernel_w as usize, p.padding as usize);
    let width = gw.len() + channels;
    let rows = p.batch as usize * out_h;
    let mut partials = vec![T::zero(); p.chunks as usize * width];
    partials.par_chunks_mut(width).enumerate().for_each(|(chunk, partial)| {
        // One image row at a time: a blocked sum.
        let mut sums = vec![T::zero(); width];
        let first = chunk * p.chunk_rows as usize;
        for row in first..(first + p.chunk_rows as usize).min(rows) {
            let (n, oy) = (row / out_h, row % out_h);
            sums.fill(T::zero());
            let (weights, bias) = sums.split_at_mut(width - channels);
            for (ox, gy) in gy[row * out_w * channels..][..out_w * channels].chunks_exact(channels).enumerate() {
                for ky in p.inside(oy, p.kernel_h, p.in_h) {
                    for kx in p.inside(ox, p.kernel_w, p.in_w) {
                        let x_at = ((n * in_h + oy + ky - padding) * in_w + ox + kx - padding) * channels;
                        let w_at = (ky * kernel_w + kx) * channels;
                        add_products(&mut weights[w_at..][..channels], &x[x_at..][..channels], gy);
                    }
                }
                for (sum, gy) in bias.iter_mut().zip(gy) {
                    *sum += *gy;
                }
            }
            for (total, sum) in partial.iter_mut().zip(&sums) {
                *total += *sum;
            }
        }
    });
    gw.fill(T::zero());
    gb.fill(T::zero());
    for partial in partials.chunks_exact(width) {
        let (weights, bias) = partial.split_at(gw.len());
        for (g, part) in gw.iter_mut().zip(weights) {
            *g += *part;
        }
        for (g, part) in gb.iter_mut().zip(bias) {
            *g += *part;
        }
    }
}

fn add_products<T: Real>(sums: &mut [T], left: &[T], right: &[T]) {
    for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
        *sum = left.fma(*right, *sum);
    }
}
