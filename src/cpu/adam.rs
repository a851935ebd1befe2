//! Adam and AdamW, one step. The twin of `shaders/adam.wgsl`.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// What does not change from step to step.
    AdamParams {
        /// Numbers to update.
        count: u32,
        /// Decay of the first moment.
        beta1: f32,
        /// 1 - beta1, rounded once from f64.
        one_minus_beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// 1 - beta2, rounded once from f64.
        one_minus_beta2: f32,
        /// Added to the root of the second moment, after its bias correction.
        eps: f32,
        /// Added to the gradient, times the parameter (not decoupled: that is AdamW).
        weight_decay: f32,
    }
}

/// Numbers updated by one task.
const BLOCK: usize = 4096;

/// Updates parameters and moments. `step` = [lr / (1 - beta1^t), sqrt(1 - beta2^t), shrink, factor of the gradient];
/// with a factor of 0 nothing changes.
pub fn update<T: Real>(p: &AdamParams, gradient: &[T], step: &[T], parameter: &mut [T], m: &mut [T], v: &mut [T]) {
    let of = |value: f32| T::of(f64::from(value));
    let (beta1, rest1, beta2, rest2) = (of(p.beta1), of(p.one_minus_beta1), of(p.beta2), of(p.one_minus_beta2));
    let (eps, decay) = (of(p.eps), of(p.weight_decay));
    let [size, root, shrink, factor] = [step[0], step[1], step[2], step[3]];
    if factor == T::zero() {
        return;
    }
    let moments = m.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK));
    let blocks = parameter.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK)).zip(moments);
    blocks.for_each(|((parameter, gradient), (m, v))| {
        for (((parameter, gradient), m), v) in parameter.iter_mut().zip(gradient).zip(m).zip(v) {
            let g = factor * *gradient + decay * *parameter;
            *m = beta1 * *m + rest1 * g;
            *v = beta2 * *v + rest2 * g * g;
            *parameter = *parameter - shrink * *parameter - size * *m / (v.sqrt() / root + eps);
        }
    });
}
