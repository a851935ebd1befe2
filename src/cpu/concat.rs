//! Two tensors side by side along the channels, and the gradients. The twin of `shaders/concat.wgsl`.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// Channels of the two parts.
    ConcatParams {
        /// Of a, which comes first.
        a_channels: u32,
        /// Of b.
        b_channels: u32,
    }
}

impl ConcatParams {
    fn channels(&self) -> [usize; 2] {
        [self.a_channels as usize, self.b_channels as usize]
    }
}

/// Rows that one task copies.
const ROWS: usize = 256;

/// `y[r,c]` = `a[r,c]` for the first channels, `b` for the others.
pub fn forward<T: Real>(p: &ConcatParams, a: &[T], b: &[T], y: &mut [T]) {
    let [ca, cb] = p.channels();
    let parts = a.par_chunks(ROWS * ca).zip(b.par_chunks(ROWS * cb));
    y.par_chunks_mut(ROWS * (ca + cb)).zip(parts).for_each(|(y, (a, b))| {
        for ((y, a), b) in y.chunks_exact_mut(ca + cb).zip(a.chunks_exact(ca)).zip(b.chunks_exact(cb)) {
            y[..ca].copy_from_slice(a);
            y[ca..].copy_from_slice(b);
        }
    });
}

/// `ga` and `gb`: the two parts of `gy`.
pub fn backward<T: Real>(p: &ConcatParams, gy: &[T], ga: &mut [T], gb: &mut [T]) {
    let [ca, cb] = p.channels();
    let parts = ga.par_chunks_mut(ROWS * ca).zip(gb.par_chunks_mut(ROWS * cb));
    gy.par_chunks(ROWS * (ca + cb)).zip(parts).for_each(|(gy, (ga, gb))| {
        let rows = ga.chunks_exact_mut(ca).zip(gb.chunks_exact_mut(cb));
        for (gy, (ga, gb)) in gy.chunks_exact(ca + cb).zip(rows) {
            ga.copy_from_slice(&gy[..ca]);
            gb.copy_from_slice(&gy[ca..]);
        }
    });
}
