//! Counts for Dice and IoU. The twin of `shaders/metric_counts.wgsl`.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// Sizes of the counting.
    MetricCountsParams {
        /// Images of one launch.
        images: u32,
        /// Logits of an image.
        image_len: u32,
        /// Logits of a chunk on the GPU.
        chunk: u32,
        /// Chunks of an image.
        image_chunks: u32,
        /// The first chunk of one launch.
        first_chunk: u32,
        /// Chunks of all images.
        chunks: u32,
    }
}

/// Per image: how many logits are predicted (above 0) and wanted (target above 0.5), how many predicted, how many
/// wanted; `counts [images, 3]`.
pub fn forward<T: Real>(p: &MetricCountsParams, x: &[T], target: &[T], counts: &mut [u32]) {
    let len = p.image_len as usize;
    let half = T::of(0.5);
    counts.par_chunks_mut(3).zip(x.par_chunks(len).zip(target.par_chunks(len))).for_each(|(counts, (x, target))| {
        let (mut both, mut predicted, mut wanted) = (0, 0, 0);
        for (x, t) in x.iter().zip(target) {
            let (positive, tumour) = (*x > T::zero(), *t > half);
            both += u32::from(positive && tumour);
            predicted += u32::from(positive);
            wanted += u32::from(tumour);
        }
        counts.copy_from_slice(&[both, predicted, wanted]);
    });
}
