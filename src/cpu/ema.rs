//! Exponential moving average. The twin of `shaders/ema.wgsl`.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// Size and speed of the average.
    EmaParams {
        /// Numbers to update.
        count: u32,
        /// How far the average moves towards the parameter.
        one_minus_decay: f32,
    }
}

/// Numbers updated by one task.
const BLOCK: usize = 4096;

/// `average += (1 - decay) * (parameter - average)`.
pub fn update<T: Real>(p: &EmaParams, parameter: &[T], average: &mut [T]) {
    let share = T::of(p.one_minus_decay.into());
    average.par_chunks_mut(BLOCK).zip(parameter.par_chunks(BLOCK)).for_each(|(average, parameter)| {
        for (average, parameter) in average.iter_mut().zip(parameter) {
            *average += share * (*parameter - *average);
        }
    });
}
