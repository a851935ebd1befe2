//! Logistic function, and its gradient. The twin of `shaders/sigmoid.wgsl`.

use rayon::prelude::*;

use super::Real;

/// Elements that one task works on.
const BLOCK: usize = 4 * 1024;

/// `y = 1 / (1 + exp(-x))`, taking only exp(-|x|), which cannot overflow.
pub fn forward<T: Real>(x: &[T], y: &mut [T]) {
    y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| {
        for (y, x) in y.iter_mut().zip(x) {
            let small = (-x.abs()).exp();
            *y = if *x < T::zero() { small } else { T::one() } / (T::one() + small);
        }
    });
}

/// `gx = gy * y * (1 - y)`.
pub fn backward_input<T: Real>(gy: &[T], y: &[T], gx: &mut [T]) {
    gx.par_chunks_mut(BLOCK).zip(gy.par_chunks(BLOCK)).zip(y.par_chunks(BLOCK)).for_each(|((gx, gy), y)| {
        for ((gx, gy), y) in gx.iter_mut().zip(gy).zip(y) {
            *gx = *gy * *y * (T::one() - *y);
        }
    });
}
