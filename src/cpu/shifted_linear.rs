//! Linear layer over shifted tokens. The twin of `shaders/shifted_linear.wgsl`.
//!
//! Here the shifted tensor is written: a copy costs little beside the product, whose loops are those of `linear`.

use rayon::prelude::*;

use super::linear::{self, LinearParams};
use super::shift::{self, ShiftParams};
use super::{Real, uniform};

uniform! {
    /// Sizes of a linear layer over shifted tokens.
    ShiftedLinearParams {
        /// Pixels of all images.
        rows: u32,
        /// Channels of x.
        inputs: u32,
        /// Channels of y.
        outputs: u32,
        /// Channels of a group, as in [`ShiftParams`].
        chunk: u32,
        /// Extent of the axis along which the tokens move.
        length: u32,
        /// Pixels between neighbours on that axis.
        step: u32,
        /// 1 if there is a bias.
        has_bias: u32,
        /// 1 if a residual is added.
        has_residual: u32,
        /// Weight gradient: rows of a chunk.
        chunk_rows: u32,
        /// Weight gradient: chunks before this launch's.
        first_chunk: u32,
        /// Both gradients: workgroups for gx.
        input_groups: u32,
    }
}

impl ShiftedLinearParams {
    /// For images `[N, H, W, inputs]` and an axis of `length` pixels that are `step` apart.
    pub fn forward(
        [n, h, w, inputs]: [usize; 4],
        outputs: usize,
        (length, step): (usize, usize),
        has_bias: bool,
        has_residual: bool,
    ) -> Self {
        Self {
            rows: (n * h * w) as u32,
            inputs: inputs as u32,
            outputs: outputs as u32,
            chunk: inputs.div_ceil(5) as u32,
            length: length as u32,
            step: step as u32,
            has_bias: has_bias.into(),
            has_residual: has_residual.into(),
            chunk_rows: 0,
            first_chunk: 0,
            input_groups: 0,
        }
    }

    fn linear(&self) -> LinearParams {
        let Self { rows, inputs, outputs, has_bias, .. } = *self;
        LinearParams { rows, inputs, outputs, has_bias, ..bytemuck::Zeroable::zeroed() }
    }

    fn shifted<T: Real>(&self, x: &[T]) -> Vec<T> {
        let mut moved = vec![T::zero(); x.len()];
        self.shift(1, x, &mut moved);
        moved
    }

    fn shift<T: Real>(&self, direction: i32, x: &[T], moved: &mut [T]) {
        let Self { length, chunk, inputs: channels, .. } = *self;
        shift::forward(&ShiftParams { length, inner: self.step * channels, channels, chunk, direction }, x, moved);
    }
}

/// `y[r,o]` = `bias[o] + residual[r,o]` + sum over i of `x[r - step * s(i), i] * w[i,o]`.
pub fn forward<T: Real>(
    p: &ShiftedLinearParams,
    x: &[T],
    weight: &[T],
    bias: Option<&[T]>,
    residual: Option<&[T]>,
    y: &mut [T],
) {
    linear::forward(&p.linear(), &p.shifted(x), weight, bias, y);
    if let Some(residual) = residual {
        let width = p.outputs as usize;
        y.par_chunks_mut(width).zip(residual.par_chunks(width)).for_each(|(y, residual)| {
            for (y, residual) in y.iter_mut().zip(residual) {
                *y += *residual;
            }
        });
    }
}

/// `gx[r,i]` = sum over o of `gy[r + step * s(i), o] * w[i,o]`.
pub fn backward_input<T: Real>(p: &ShiftedLinearParams, gy: &[T], weight: &[T], gx: &mut [T]) {
    let mut moved = vec![T::zero(); gx.len()];
    linear::backward_input(&p.linear(), gy, weight, &mut moved);
    p.shift(-1, &moved, gx);
}

/// `gw[i,o]` = sum over r of `x[r - step * s(i), i] * gy[r,o]`; `gb[o]` = sum over r of `gy[r,o]`.
pub fn backward_weight<T: Real>(p: &ShiftedLinearParams, x: &[T], gy: &[T], gw: &mut [T], gb: Option<&mut [T]>) {
    linear::backward_weight(&p.linear(), &p.shifted(x), gy, gw, gb);
}
