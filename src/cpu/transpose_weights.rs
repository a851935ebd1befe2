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
        /// 1 if the kernel is turned by 180 degrees, else 0.
        by_half_turn: u32,
        /// Fills 32 bytes.
        unused: u32,
    }
}

/// `turned[taps-1-tap, o, i]` = `weights[tap, i, o]`; without the half turn `turned[tap, o, i]`.
pub fn transpose<T: Real>(p: &Part, weights: &[T], turned: &mut [T]) {
    let (taps, inputs, outputs) = (p.taps as usize, p.inputs as usize, p.outputs as usize);
    let matrix = inputs * outputs;
    for at in 0..taps * matrix {
        let (tap, o, i) = (at / matrix, at % matrix / inputs, at % inputs);
        let from = if p.by_half_turn == 1 { taps - 1 - tap } else { tap };
        turned[p.to as usize + at] = weights[p.source as usize + from * matrix + i * outputs + o];
    }
}
