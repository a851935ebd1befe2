//! Bilinear upsampling by 2 and a skip connection beside it, and the gradients. The twin of
//! `shaders/upsample_bilinear_concat.wgsl`: here one after the other.

use super::concat::{self, ConcatParams};
use super::upsample_bilinear::{self, UpsampleBilinearParams};
use super::{Real, uniform};

uniform! {
    /// Sizes of x, whose upsampled form has twice the rows and columns, and of what stands beside it.
    UpsampleBilinearConcatParams {
        /// Images.
        batch: u32,
        /// Rows of x.
        in_h: u32,
        /// Columns of x.
        in_w: u32,
        /// Channels of x.
        channels: u32,
        /// Channels of the skip connection.
        skip_channels: u32,
        /// 1: the centres of the corner pixels match. 0: the areas of the pixels match.
        align_corners: u32,
        /// Statistics that a workgroup leaves of its pixels: chunks before this launch's.
        sums_first: u32,
        /// The same: chunks of all launches.
        sums_chunks: u32,
    }
}

impl UpsampleBilinearConcatParams {
    fn upsampling(&self) -> UpsampleBilinearParams {
        let &Self { in_h, in_w, channels, align_corners, .. } = self;
        UpsampleBilinearParams { in_h, in_w, channels, align_corners, relu: 0, has_skip: 0 }
    }

    fn parts(&self) -> ConcatParams {
        ConcatParams { a_channels: self.channels, b_channels: self.skip_channels }
    }

    /// Numbers of the upsampled x.
    fn upsampled(&self) -> usize {
        4 * [self.batch, self.in_h, self.in_w, self.channels].map(|extent| extent as usize).iter().product::<usize>()
    }
}

/// `y[n,oy,ox]` = the upsampled x, then the skip connection.
pub fn forward<T: Real>(p: &UpsampleBilinearConcatParams, x: &[T], skip: &[T], y: &mut [T]) {
    let mut u = vec![T::zero(); p.upsampled()];
    upsample_bilinear::forward(&p.upsampling(), x, None, &mut u);
    concat::forward(&p.parts(), &u, skip, y);
}

/// `gx`: the gradient of the upsampling of the first channels of `gy`; `gskip`: the others.
pub fn backward<T: Real>(p: &UpsampleBilinearConcatParams, gy: &[T], gx: &mut [T], gskip: &mut [T]) {
    let mut gu = vec![T::zero(); p.upsampled()];
    concat::backward(&p.parts(), gy, &mut gu, gskip);
    upsample_bilinear::backward_input(&p.upsampling(), 0.0, &gu, &gu, gx); // without a ReLU x is not read
}
