//! Batch normalisation, bilinear upsampling by 2, a ReLU and the sum with a skip connection in one. The twin of
//! `shaders/batch_norm_upsample_bilinear.wgsl`: one after the other, by the plain functions of
//! [`batch_norm`](super::batch_norm) and [`upsample_bilinear`].

use super::upsample_bilinear::{self, UpsampleBilinearParams};
use super::{Real, uniform};

uniform! {
    /// Sizes and settings; the output has twice the rows and columns.
    BatchNormUpsampleBilinearParams {
        /// Images of one launch.
        images: u32,
        /// Rows of x.
        in_h: u32,
        /// Columns of x.
        in_w: u32,
        /// Rows times columns of an image of x.
        image_pixels: u32,
        /// Channels.
        channels: u32,
        /// Pixels of x of a chunk on the GPU.
        chunk: u32,
        /// Chunks of an image.
        image_chunks: u32,
        /// Chunks of all images.
        chunks: u32,
        /// The first chunk of one launch.
        first_chunk: u32,
        /// Vectors of four channels that a workgroup takes side by side (version 2).
        columns: u32,
        /// Added to the variance.
        eps: f32,
        /// A result below this becomes 0 before the sum: 0 with a ReLU, the lowest f32 without.
        floor: f32,
    }
}

impl BatchNormUpsampleBilinearParams {
    fn upsampling(&self) -> UpsampleBilinearParams {
        UpsampleBilinearParams {
            in_h: self.in_h,
            in_w: self.in_w,
            channels: self.channels,
            align_corners: 0,
            relu: u32::from(self.floor == 0.0),
            has_skip: 1,
        }
    }
}

/// What follows the normalisation: `y = max(upsampled v, 0) + skip`, v of x's size.
pub fn upsample<T: Real>(p: &BatchNormUpsampleBilinearParams, v: &[T], skip: &[T], y: &mut [T]) {
    upsample_bilinear::forward(&p.upsampling(), v, Some(skip), y);
}

/// The gradient of v, for [`backward_sums`](super::batch_norm::backward_sums) and
/// [`backward_input`](super::batch_norm::backward_input). `band` is that of [`upsample_bilinear::backward_input`].
pub fn backward_upsample<T: Real>(p: &BatchNormUpsampleBilinearParams, band: f32, v: &[T], gy: &[T], gv: &mut [T]) {
    upsample_bilinear::backward_input(&p.upsampling(), band, v, gy, gv);
}
