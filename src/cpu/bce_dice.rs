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
        /// Weight of false positives in D: 1 for Dice, 2 alpha for Tversky.
        false_positive: f32,
        /// Weight of false negatives in D: 1 for Dice, 2 beta for Tversky.
        false_negative: f32,
        /// Exponent of the focal weight; 0: none.
        focal_gamma: f32,
        /// Weight of the target class in the focal term, 1 - this of the others; below 0: none.
        focal_alpha: f32,
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

/// Cross-entropy of one logit and its weight `w * m^gamma`.
#[inline(always)]
fn entropy<T: Real>(settings: &BceDiceParams, x: T, t: T, e: T) -> (T, T) {
    let rest = e.ln_1p();
    let (wrong, right) = if x >= T::zero() { (T::one() - t, t) } else { (t, T::one() - t) };
    let alpha = T::of(settings.focal_alpha.into());
    let mut weight = T::one();
    if alpha >= T::zero() {
        weight = alpha * t + (T::one() - alpha) * (T::one() - t);
    }
    if settings.focal_gamma > 0.0 {
        weight *= (-T::of(settings.focal_gamma.into()) * (x.abs() * right + rest)).exp();
    }
    (x.abs() * wrong + rest, weight)
}

/// The loss (one number), and I, D of each group in `group_sums [groups, 2]`.
pub fn forward<T: Real>(p: &BceDiceParams, x: &[T], target: &[T], loss: &mut [T], group_sums: &mut [T]) {
    let group_len = p.image_len as usize * p.group_images as usize;
    let smooth = f64::from(p.smoothing);
    let (mut entropy, mut dice) = (0.0, 0.0);
    for ((x, target), sums) in x.chunks(group_len).zip(target.chunks(group_len)).zip(group_sums.chunks_mut(2)) {
        // Collected, then added in order: the same bits with any number of threads.
        let chunks: Vec<[f64; 3]> =
            x.par_chunks(CHUNK).zip(target.par_chunks(CHUNK)).map(|(x, t)| chunk(p, x, t)).collect();
        let total = chunks.iter().fold([0.0; 3], |total, chunk| std::array::from_fn(|i| total[i] + chunk[i]));
        let [both, missed, bce] = total;
        sums[0] = T::of(both);
        sums[1] = T::of(missed);
        entropy += bce;
        dice += missed / (2.0 * both + missed + smooth);
    }
    loss[0] = T::of(f64::from(p.bce_scale) * entropy + f64::from(p.dice_scale) * dice);
}

/// I, D, B of some logits.
fn chunk<T: Real>(settings: &BceDiceParams, x: &[T], target: &[T]) -> [f64; 3] {
    let (a, b) = (T::of(settings.false_positive.into()), T::of(settings.false_negative.into()));
    let mut sums = [0.0; 3];
    for (x, t) in x.iter().zip(target) {
        let e = (-x.abs()).exp();
        let (p, q) = sigmoids(*x, e);
        let (bce, weight) = entropy(settings, *x, *t, e);
        let terms = [p * *t, a * p * (T::one() - *t) + b * q * *t, weight * bce];
        for (sum, term) in sums.iter_mut().zip(terms) {
            *sum += term.f64();
        }
    }
    sums
}

/// `gx` of the loss, as the shader's header has it, times `gy`.
pub fn backward_input<T: Real>(
    settings: &BceDiceParams,
    x: &[T],
    target: &[T],
    group_sums: &[T],
    gy: &[T],
    gx: &mut [T],
) {
    let group_len = settings.image_len as usize * settings.group_images as usize;
    let (one, two) = (T::one(), T::of(2.0));
    let (a, b) = (T::of(settings.false_positive.into()), T::of(settings.false_negative.into()));
    let gamma = T::of(settings.focal_gamma.into());
    let weighted = settings.focal_gamma > 0.0 || settings.focal_alpha >= 0.0;
    let bce_scale = T::of(settings.bce_scale.into()) * gy[0];
    let dice_scale = T::of(settings.dice_scale.into()) * gy[0];
    let groups = x.chunks(group_len).zip(target.chunks(group_len)).zip(group_sums.chunks(2));
    for (gx, ((x, target), sums)) in gx.chunks_mut(group_len).zip(groups) {
        let hit = two * sums[0] + T::of(settings.smoothing.into());
        let total = hit + sums[1];
        let (hit, missed) = (hit / total, sums[1] / total);
        let inputs = x.par_chunks(CHUNK).zip(target.par_chunks(CHUNK));
        gx.par_chunks_mut(CHUNK).zip(inputs).for_each(|(gx, (x, target))| {
            for (gx, (&x, &t)) in gx.iter_mut().zip(x.iter().zip(target)) {
                let e = (-x.abs()).exp();
                let (p, q) = sigmoids(x, e);
                let mut bce = p * (one - t) - q * t;
                if weighted {
                    let (entropy, weight) = entropy(settings, x, t, e);
                    if gamma > T::zero() {
                        let (m, right) = (p * (one - t) + q * t, q * (one - t) + p * t);
                        bce = (one - two * t) * (gamma * right * entropy + m);
                    }
                    bce = weight * bce;
                }
                let dice = p * q * (((a * (one - t) - b * t) * hit - two * t * missed) / total);
                *gx = bce_scale * bce + dice_scale * dice;
            }
        });
    }
}
