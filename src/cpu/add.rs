//! Sum of two tensors with broadcasting, and its gradient. The twin of `shaders/add.wgsl`.

use rayon::prelude::*;

use super::{Real, uniform};

/// Elements that one task works on where a task is not a row.
const BLOCK: usize = 16 * 1024;

/// The longest chain of additions in [`reduce`].
pub const CHAIN: usize = 64;

uniform! {
    /// Extents of y `[N, H, W, C]` and strides of both operands; a stride is 0 where the operand is broadcast.
    AddParams {
        /// Rows of y.
        height: u32,
        /// Columns of y.
        width: u32,
        /// Channels of y.
        channels: u32,
        /// Elements of a from image to image.
        a_batch: u32,
        /// Elements of a from row to row.
        a_row: u32,
        /// Elements of a from column to column.
        a_column: u32,
        /// Elements of a from channel to channel.
        a_channel: u32,
        /// Elements of b from image to image.
        b_batch: u32,
        /// Elements of b from row to row.
        b_row: u32,
        /// Elements of b from column to column.
        b_column: u32,
        /// Elements of b from channel to channel.
        b_channel: u32,
    }
}

uniform! {
    /// Sizes of one stage of the sum over broadcast axes: gy `[outer, count, inner]` -> g `[outer, parts, inner]`.
    ReduceParams {
        /// Elements to add up, of the merged broadcast axes.
        count: u32,
        /// Elements of the axes behind them.
        inner: u32,
        /// Partial sums kept of each `count`.
        parts: u32,
    }
}

/// `y[n,y,x,c] = a[..] + b[..]`, each operand read with its own strides.
pub fn forward<T: Real>(p: &AddParams, a: &[T], b: &[T], y: &mut [T]) {
    let (height, width, channels) = (p.height as usize, p.width as usize, p.channels as usize);
    let [a_batch, a_row, a_column, a_channel] = [p.a_batch, p.a_row, p.a_column, p.a_channel].map(|s| s as usize);
    let [b_batch, b_row, b_column, b_channel] = [p.b_batch, p.b_row, p.b_column, p.b_channel].map(|s| s as usize);
    y.par_chunks_mut(width * channels).enumerate().for_each(|(row, y)| {
        let (n, iy) = (row / height, row % height);
        for (x, y) in y.chunks_exact_mut(channels).enumerate() {
            let a = &a[n * a_batch + iy * a_row + x * a_column..];
            let b = &b[n * b_batch + iy * b_row + x * b_column..];
            for (c, y) in y.iter_mut().enumerate() {
                *y = a[c * a_channel] + b[c * b_channel];
            }
        }
    });
}

/// `y = a + b` for operands of the same shape.
pub fn forward_same<T: Real>(a: &[T], b: &[T], y: &mut [T]) {
    y.par_chunks_mut(BLOCK).zip(a.par_chunks(BLOCK)).zip(b.par_chunks(BLOCK)).for_each(|((y, a), b)| {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = *a + *b;
        }
    });
}

/// `sum = sum + added`.
pub fn assign<T: Real>(sum: &mut [T], added: &[T]) {
    sum.par_chunks_mut(BLOCK).zip(added.par_chunks(BLOCK)).for_each(|(sum, added)| {
        for (sum, added) in sum.iter_mut().zip(added) {
            *sum += *added;
        }
    });
}

/// `g[o,part,i]` = sum over k = part, part + parts, .. < count of `gy[o,k,i]`.
pub fn reduce<T: Real>(p: &ReduceParams, gy: &[T], g: &mut [T]) {
    let (count, inner, parts) = (p.count as usize, p.inner as usize, p.parts as usize);
    g.par_chunks_mut(inner).enumerate().for_each(|(row, g)| {
        let (o, part) = (row / parts, row % parts);
        g.fill(T::zero());
        for k in (part..count).step_by(parts) {
            for (g, gy) in g.iter_mut().zip(&gy[(o * count + k) * inner..]) {
                *g += *gy;
            }
        }
    });
}
