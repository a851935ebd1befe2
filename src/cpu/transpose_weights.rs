//! Weights as input gradients read them. The twin of `shaders/transpose_weights.wgsl`.

use super::{Real, uniform};

uniform! {
    /// Where a weight stands, where it goes, and its sizes.
    Part {
        /// The first workgroup on the GPU.
        first_group: u32,
        /// Place of its first number.
        source: u32,
        /// Place of the first number of the result.
        to: u32,
        /// Kernel positions.
        taps: u32,
        /// Input channels.
        inputs: u32,
        /// Output channels.
        outputs: u32,
        /// Fills 32 bytes.
        unused_0: u32,
        /// Fills 32 bytes.
        unused_1: u32,
    }
}

/// `turned[taps-1-tap, o, i]` = `weights[tap, i, o]`.
pub fn transpose<T: Real>(p: &Part, weights: &[T], turned: &mut [T]) {
    let (taps, inputs, outputs) = (p.taps as usize, p.inputs as usize, p.outputs as usize);
    let matrix = inputs * outputs;
    for at in 0..taps * matrix {
        let (tap, o, i) = (at / matrix, at % matrix / inputs, at % inputs);
        turned[p.to as usize + at] = weights[p.source as usize + (taps - 1 - tap) * matrix + i * outputs + o];
    }
}
