//! UNeXt's shifted tokens, and their gradient. The twin of `shaders/shift.wgsl`.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// Sizes of a shift along one axis of `[N, H, W, C]`.
    ShiftParams {
        /// Extent of the moved axis.
        length: u32,
        /// Elements behind the moved axis: `W * C` for rows, `C` for columns.
        inner: u32,
        /// Channels.
        channels: u32,
        /// Channels of a group: a fifth, rounded up. There are fewer than five groups if that leaves none for the last.
        chunk: u32,
        /// 1 forward, -1 for the gradient.
        direction: i32,
    }
}

/// `y[o,i,r,c] = x[o, i - s, r, c]` where 0 <= i - s < length, else 0, with `s = direction * (c / chunk - 2)`.
pub fn forward<T: Real>(p: &ShiftParams, x: &[T], y: &mut [T]) {
    let (length, inner) = (p.length as usize, p.inner as usize);
    y.par_chunks_mut(inner).enumerate().for_each(|(row, y)| {
        let (o, i) = (row / length, row % length);
        for (pixel, y) in y.chunks_exact_mut(p.channels as usize).enumerate() {
            for (g, y) in y.chunks_mut(p.chunk as usize).enumerate() {
                let from = i as i64 - i64::from(p.direction) * (g as i64 - 2);
                if (0..length as i64).contains(&from) {
                    let at = (o * length + from as usize) * inner + pixel * p.channels as usize + g * p.chunk as usize;
                    y.copy_from_slice(&x[at..at + y.len()]);
                } else {
                    y.fill(T::zero());
                }
            }
        }
    });
}
