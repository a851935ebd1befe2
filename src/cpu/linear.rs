//! Linear layer over the last axis. The twin of `shaders/linear.wgsl`.
//!
//! A linear layer is a 1x1 convolution whose pixels are the rows, so the loops are those of `conv2d`:
//! one place to make fast.

use super::conv2d::{self, Conv2dParams};
use super::{Real, uniform};

uniform! {
    /// Sizes of a linear layer.
    LinearParams {
        /// Everything but the last axis.
        rows: u32,
        /// Channels of x.
        inputs: u32,
        /// Channels of y.
        outputs: u32,
        /// 1 if there is a bias.
        has_bias: u32,
        /// Weight gradient: rows of a chunk.
        chunk_rows: u32,
        /// Weight gradient: chunks before this launch's.
        first_chunk: u32,
        /// Weight gradient: of this launch's chunks, the first whose gy is summed up, too, for the bias.
        bias_from: u32,
        /// And the first after them.
        bias_to: u32,
    }
}

/// Pixels of a row of the equivalent image: what one task computes.
const ROW: usize = 64;

/// The equivalent 1x1 convolution: an image of rows of up to [`ROW`] pixels.
fn as_conv(p: &LinearParams) -> Conv2dParams {
    let rows = p.rows as usize;
    let width = (1..=ROW.min(rows)).rev().find(|width| rows.is_multiple_of(*width)).unwrap_or(1);
    let image = [1, rows / width, width, p.inputs as usize];
    Conv2dParams::forward(image, [1, 1, p.inputs as usize, p.outputs as usize], 1, 0, p.has_bias == 1)
}

/// `y[r,o]` = `bias[o]` + sum over i of `x[r,i] * w[i,o]`.
pub fn forward<T: Real>(p: &LinearParams, x: &[T], weight: &[T], bias: Option<&[T]>, y: &mut [T]) {
    conv2d::forward(&as_conv(p), x, weight, bias, y);
}

/// `gx[r,i]` = sum over o of `gy[r,o] * w[i,o]`.
pub fn backward_input<T: Real>(p: &LinearParams, gy: &[T], weight: &[T], gx: &mut [T]) {
    conv2d::backward_input(&as_conv(p), gy, weight, gx);
}

/// `gw[i,o]` = sum over r of `x[r,i] * gy[r,o]`; `gb[o]` = sum over r of `gy[r,o]`.
pub fn backward_weight<T: Real>(p: &LinearParams, x: &[T], gy: &[T], gw: &mut [T], gb: Option<&mut [T]>) {
    conv2d::backward_weight(&as_conv(p), x, gy, gw, gb);
}
