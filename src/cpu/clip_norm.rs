//! Gradient clipping by the global norm. The twin of `shaders/clip_norm.wgsl`.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// Sizes and limit.
    ClipNormParams {
        /// Gradients.
        count: u32,
        /// Gradients of a chunk on the GPU.
        chunk: u32,
        /// Chunks.
        chunks: u32,
        /// The largest norm that passes.
        max_norm: f32,
    }
}

/// Numbers added up by one task.
const BLOCK: usize = 4096;

/// Writes the norm of `step[3] * gradient`, and into `step[3]` the factor that clips it.
pub fn clip<T: Real>(p: &ClipNormParams, gradient: &[T], step: &mut [T], norm: &mut [T]) {
    // Collected, then added in order: the same bits with any number of threads.
    let partials: Vec<f64> =
        gradient.par_chunks(BLOCK).map(|chunk| chunk.iter().map(|g| (*g * *g).f64()).sum()).collect();
    let total: f64 = partials.iter().sum();
    // A factor of 0 is kept: the step is skipped, and the sum may be infinite.
    let length = if step[3] == T::zero() { T::zero() } else { step[3] * T::of(total.sqrt()) };
    norm[0] = length;
    step[3] *= (T::of(p.max_norm.into()) / (length + T::of(1e-6))).min(T::one());
}
