//! Rectifier, and its gradient. The twin of `shaders/relu.wgsl`.

use rayon::prelude::*;

use super::Real;

/// Elements that one task works on.
const BLOCK: usize = 16 * 1024;

/// `y = x` where x >= 0, else 0; -0 and NaN stay as they are.
pub fn forward<T: Real>(x: &[T], y: &mut [T]) {
    y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| {
        for (y, x) in y.iter_mut().zip(x) {
            *y = if *x < T::zero() { T::zero() } else { *x };
        }
    });
}

/// `gx = gy` where y > 0, else 0.
pub fn backward_input<T: Real>(gy: &[T], y: &[T], gx: &mut [T]) {
    gx.par_chunks_mut(BLOCK).zip(gy.par_chunks(BLOCK)).zip(y.par_chunks(BLOCK)).for_each(|((gx, gy), y)| {
        for ((gx, gy), y) in gx.iter_mut().zip(gy).zip(y) {
            *gx = if *y <= T::zero() { T::zero() } else { *gy };
        }
    });
}
