//! From decoded slices to a training batch. The twin of `shaders/load_batch.wgsl`.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// Sizes of a batch.
    LoadBatchParams {
        /// The first row of `samples` to load.
        first_row: u32,
        /// How many rows.
        rows: u32,
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// Channels of the batch.
        channels: u32,
        /// Channels of a slice.
        source_channels: u32,
        /// Which channel of the slice becomes channel 0.
        order0: u32,
        /// Which becomes channel 1.
        order1: u32,
        /// Which becomes channel 2.
        order2: u32,
    }
}

/// Fills the images of x `[N, H, W, C]` and target `[N, H, W, 1]` that rows `first_row .. first_row + rows` of
/// `samples` name. A row is slice, row of `rescale`, quarter turns (counter-clockwise) + 4 * flips (bit 0 left-right,
/// bit 1 top-bottom; before the turn), image; `rescale[row, c]` = low, high, scale, shift.
pub fn gather<T: Real>(
    p: &LoadBatchParams,
    images: &[u8],
    masks: &[u8],
    rescale: &[f32],
    samples: &[u32],
    x: &mut [T],
    target: &mut [T],
) {
    let (h, w, channels) = (p.height as usize, p.width as usize, p.channels as usize);
    let order = [p.order0, p.order1, p.order2];
    for row in p.first_row..p.first_row + p.rows {
        let [slice, group, orientation, image] = [0, 1, 2, 3].map(|field| samples[4 * row as usize + field] as usize);
        let (turn, flips) = (orientation & 3, orientation >> 2);
        let x = x[image * h * w * channels..][..h * w * channels].par_chunks_mut(w * channels);
        let target = target[image * h * w..][..h * w].par_chunks_mut(w);
        x.zip(target).enumerate().for_each(|(py, (x, target))| {
            for px in 0..w {
                let (mut sy, mut sx) = match turn {
                    1 => (px, w - 1 - py),
                    2 => (h - 1 - py, w - 1 - px),
                    3 => (h - 1 - px, py),
                    _ => (py, px),
                };
                if flips & 1 != 0 {
                    sx = w - 1 - sx;
                }
                if flips & 2 != 0 {
                    sy = h - 1 - sy;
                }
                let pixel = (slice * h + sy) * w + sx;
                for c in 0..channels {
                    let byte = f32::from(images[pixel * p.source_channels as usize + order[c.min(2)] as usize]);
                    let r = &rescale[4 * (group * channels + c)..][..4];
                    let clamped = T::of(f64::from(byte.clamp(r[0], r[1])));
                    x[px * channels + c] = clamped * T::of(f64::from(r[2])) + T::of(f64::from(r[3]));
                }
                target[px] = T::of(f64::from(masks[pixel]));
            }
        });
    }
}
