//! Stochastic gradient descent, one step. The twin of `shaders/sgd.wgsl`.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// What does not change from step to step.
    SgdParams {
        /// Numbers to update.
        count: u32,
        /// Share of the buffer that stays.
        momentum: f32,
        /// 1: look ahead.
        nesterov: u32,
        /// Added to the gradient, times the parameter.
        weight_decay: f32,
    }
}

/// Numbers updated by one task.
const BLOCK: usize = 4096;

/// Updates parameters and momentum buffer. `step` = [rate, -, -, factor of the gradient];
/// with a factor of 0 nothing changes.
pub fn update<T: Real>(p: &SgdParams, gradient: &[T], step: &[T], parameter: &mut [T], buffer: &mut [T]) {
    let (momentum, decay) = (T::of(p.momentum.into()), T::of(p.weight_decay.into()));
    let (rate, factor) = (step[0], step[3]);
    if factor == T::zero() {
        return;
    }
    let blocks = parameter.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK)).zip(buffer.par_chunks_mut(BLOCK));
    blocks.for_each(|((parameter, gradient), buffer)| {
        for ((parameter, gradient), buffer) in parameter.iter_mut().zip(gradient).zip(buffer) {
            let g = factor * *gradient + decay * *parameter;
            *buffer = momentum * *buffer + g;
            let direction = if p.nesterov == 1 { g + momentum * *buffer } else { *buffer };
            *parameter -= rate * direction;
        }
    });
}
