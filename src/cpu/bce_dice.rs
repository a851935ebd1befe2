//! Binary cross-entropy plus soft Dice, from logits. The twin of `shaders/bce_dice.wgsl`, which has the formulas.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// Sizes and weights of the loss.
    BceDiceParams {
        /// Images of one launch.
        images: u32,
        /// Logits of an image.
        image_len: u32,
        /// Logits of a chunk on the GPU.
        chunk: u32,
        /// Chunks of an image.
        image_chunks: u32,
        /// The first image of one launch.
        first_image: u32,
        /// Groups: as many as images, or 1.
        groups: u32,
        /// Images of a group: 1, or all.
        group_images: u32,
        /// Added to both sides of the Dice fraction.
        smoothing: f32,
        /// Weight of the cross-entropy / number of logits.
        bce_scale: f32,
        /// Weight of Dice / number of groups.
        dice_scale: f32,
    }
}

/// Logits of a chunk.
const CHUNK: usize = 4096;

/// sigmoid(x) and sigmoid(-x), both from `e = exp(-|x|)`: neither is 1 minus the other.
#[inline(always)]
fn sigmoids<T: Real>(x: T, e: T) -> (T, T) {
    let larger = (T::one() + e).recip();
    let smaller = e * larger;
    if x >= T::zero() { (larger, smaller) } else { (smaller, larger) }
}

/// The loss (one number), and I, P, T of each group in `group_sums [groups, 3]`.
pub fn forward<T: Real>(p: &BceDiceParams, x: &[T], target: &[T], loss: &mut [T], group_sums: &mut [T]) {
    let group_len = p.image_len as usize * p.group_images as usize;
    let smooth = f64::from(p.smoothing);
    let (mut entropy, mut dice) = (0.0, 0.0);
    for ((x, target), sums) in x.chunks(group_len).zip(target.chunks(group_len)).zip(group_sums.chunks_mut(3)) {
        // Collected, then added in order: the same bits with any number of threads.
        let chunks: Vec<[f64; 5]> =
            x.par_chunks(CHUNK).zip(target.par_chunks(CHUNK)).map(|(x, t)| chunk(x, t)).collect();
        let total = chunks.iter().fold([0.0; 5], |total, chunk| std::array::from_fn(|i| total[i] + chunk[i]));
        let [both, predicted, wanted, missed, bce] = total;
        for (to, sum) in sums.iter_mut().zip([both, predicted, wanted]) {
            *to = T::of(sum);
        }
        entropy += bce;
        dice += missed / (predicted + wanted + smooth);
    }
    loss[0] = T::of(f64::from(p.bce_scale) * entropy + f64::from(p.dice_scale) * dice);
}

/// I, P, T, D, B of some logits.
fn chunk<T: Real>(x: &[T], target: &[T]) -> [f64; 5] {
    let mut sums = [0.0; 5];
    for (x, t) in x.iter().zip(target) {
        let e = (-x.abs()).exp();
        let (p, q) = sigmoids(*x, e);
        let wrong = if *x >= T::zero() { T::one() - *t } else { *t };
        let terms = [p * *t, p, *t, p * (T::one() - *t) + q * *t, x.abs() * wrong + e.ln_1p()];
        for (sum, term) in sums.iter_mut().zip(terms) {
            *sum += term.f64();
        }
    }
    sums
}

/// `gx = gy * (bce_scale * (p(1-t) - qt) + dice_scale * pq * ((2I + smooth)/S^2 - 2t/S))` with S = P + T + smooth.
pub fn backward_input<T: Real>(p: &BceDiceParams, x: &[T], target: &[T], group_sums: &[T], gy: &[T], gx: &mut [T]) {
    let group_len = p.image_len as usize * p.group_images as usize;
    let (smooth, two) = (T::of(p.smoothing.into()), T::of(2.0));
    let bce_scale = T::of(p.bce_scale.into()) * gy[0];
    let dice_scale = T::of(p.dice_scale.into()) * gy[0];
    let groups = x.chunks(group_len).zip(target.chunks(group_len)).zip(group_sums.chunks(3));
    for (gx, ((x, target), sums)) in gx.chunks_mut(group_len).zip(groups) {
        let total = sums[1] + sums[2] + smooth;
        let common = (two * sums[0] + smooth) / total;
        let inputs = x.par_chunks(CHUNK).zip(target.par_chunks(CHUNK));
        gx.par_chunks_mut(CHUNK).zip(inputs).for_each(|(gx, (x, target))| {
            for (gx, (x, t)) in gx.iter_mut().zip(x.iter().zip(target)) {
                let (p, q) = sigmoids(*x, (-x.abs()).exp());
                let bce = p * (T::one() - *t) - q * *t;
                let dice = p * q * ((common - two * *t) / total);
                *gx = bce_scale * bce + dice_scale * dice;
            }
        });
    }
}
