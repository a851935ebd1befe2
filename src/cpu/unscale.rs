//! Gradients of a scaled loss. The twin of `shaders/unscale.wgsl`.

use super::{Real, uniform};

uniform! {
    /// Sizes, and when the scale grows.
    UnscaleParams {
        /// Chunks of gradients on the GPU.
        chunks: u32,
        /// Steps with finite gradients after which the scale doubles.
        interval: u32,
    }
}

/// Takes the scale out of the factor `step[3]`, or makes that 0 if a gradient is not finite. `scale` = [scale, steps since it
/// changed, skipped steps].
pub fn unscale<T: Real>(p: &UnscaleParams, gradient: &[T], step: &mut [T], scale: &mut [T]) {
    let (one, two) = (T::one(), T::of(2.0));
    if gradient.iter().any(|g| !g.is_finite()) {
        step[3] = T::zero();
        scale[0] = scale[0] / two;
        scale[1] = T::zero();
        scale[2] += one;
        return;
    }
    step[3] = step[3] / scale[0];
    scale[1] += one;
    if scale[1] >= T::of(p.interval.into()) {
        scale[0] *= two;
        scale[1] = T::zero();
    }
}
