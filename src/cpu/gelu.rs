//! GELU in its exact form, and its gradient. The twin of `shaders/gelu.wgsl`, which explains the formulas.

use rayon::prelude::*;

use super::Real;

/// Elements that one task works on.
const BLOCK: usize = 4 * 1024;

const DENSITY_AT_0: f64 = 0.398_942_280_401_432_7; // 1 / sqrt(2 pi)

/// `y = x P(x)`, P the distribution function of the standard normal.
pub fn forward<T: Real>(x: &[T], y: &mut [T]) {
    y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| {
        for (y, &x) in y.iter_mut().zip(x) {
            let (ratio, bell) = x.normal_tail();
            // x first, or small P would leave the normal range before y does.
            *y = if x < T::zero() { x * ratio * bell } else { x * (T::one() - ratio * bell) };
        }
    });
}

/// `gx = gy (P(x) + x p(x))`, p the density of the standard normal.
pub fn backward_input<T: Real>(gy: &[T], x: &[T], gx: &mut [T]) {
    let density = T::of(DENSITY_AT_0);
    gx.par_chunks_mut(BLOCK).zip(gy.par_chunks(BLOCK)).zip(x.par_chunks(BLOCK)).for_each(|((gx, gy), x)| {
        for ((gx, &gy), &x) in gx.iter_mut().zip(gy).zip(x) {
            let (ratio, bell) = x.normal_tail();
            // The slopes at t and -t add up to 1. Where bell is 0, t may be infinite.
            let below = if bell > T::zero() { (ratio - x.abs() * density) * bell } else { T::zero() };
            *gx = gy * if x < T::zero() { below } else { T::one() - below };
        }
    });
}

/// `P(-|x|) / exp(-x*x/2)` and `exp(-x*x/2)` in f64, with the library's erfc.
pub(super) fn tail_f64(x: f64) -> (f64, f64) {
    let t = x.abs();
    let bell = (-0.5 * t * t).exp();
    let ratio = 0.5 * libm::erfc(t * std::f64::consts::FRAC_1_SQRT_2) / bell;
    // Beyond t = 37 both are below the normal range; the ratio is p(t) / t to 1e-3 there, and nothing depends on it.
    (if t < 37.0 { ratio } else { DENSITY_AT_0 / t }, bell)
}

/// As [`tail_f64`] in f32, by the shader's formulas: LLVM vectorises them, which it cannot do with a library call.
#[inline(always)]
pub(super) fn tail_f32(x: f32) -> (f32, f32) {
    /// From here on bell is below the normal range: it counts as 0.
    const FAR: f32 = 13.19;
    /// Highest power first.
    const RATIO: [f32; 11] = [
        -7.246_592_7e-5,
        -6.212_748e-5,
        6.930_735_5e-4,
        -3.020_833_2e-4,
        -5.003_933_3e-3,
        1.793_969_6e-2,
        -3.219_744_6e-2,
        2.860_003_3e-2,
        1.399_961_2e-2,
        -9.670_347e-2,
        4.720_532e-1,
    ];
    const EXP: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let t = x.abs().min(FAR);
    let ratio = polynomial(&RATIO, (t - 4.0) / (t + 4.0)) / (1.0 + t);

    let coarse = (t * 128.0).floor() * 0.007_812_5;
    let exponent = -0.5 * coarse * coarse;
    let rest = -0.5 * (t - coarse) * (t + coarse);
    // Rounded by adding 1.5 * 2^23: n then stands in the lowest bits (a cast to i32 would not vectorise).
    let shifted = (exponent + rest) * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = (exponent - n * (355.0 / 512.0)) + n * 2.121_944_4e-4 + rest;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23)); // 2^n
    let bell = (polynomial(&EXP, r) * r * r + r + 1.0) * power;
    (ratio, if x.abs() < FAR { bell } else { 0.0 })
}

#[inline(always)]
fn polynomial<const N: usize>(coefficients: &[f32; N], at: f32) -> f32 {
    let mut sum = coefficients[0];
    for coefficient in &coefficients[1..] {
        sum = sum.fma(at, *coefficient);
    }
    sum
}
