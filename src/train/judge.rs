//! Judging a network in training on slices: the same numbers as `eval`, with the masks.

use super::Trainer;
use crate::data::{Dataset, resize};
use crate::eval::{Judge, JudgeOptions, Judgement};
use crate::ops::{Mode, Sample, bce_dice};
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Trainer {
    /// Judges slices in their given order, in evaluation mode, and computes the mean loss as the settings define it.
    /// With `flips` the logits are the mean over the image, its two mirror images and the half turn ("test-time
    /// augmentation", four times the work). `dataset` may hold the same slices at another size than the training's: then
    /// the logits are brought to it, as `predict` does.
    ///
    /// # Errors
    /// As [`Judge`] and the ops.
    pub fn judge(
        &self,
        dataset: &Dataset,
        part: &[(usize, usize)],
        options: JudgeOptions,
        flips: bool,
    ) -> Result<(Judgement, f64)> {
        let mut judge = Judge::new(dataset, part, options)?;
        let mut losses = 0.0;
        for batch in part.chunks(self.config.batch.min(options.batch)) {
            let samples: Vec<Sample> = batch.iter().map(|index| self.sample(*index)).collect();
            let (x, target) = self.load(&samples)?;
            let logits = if flips { self.mean_over_flips(&x)? } else { self.net.forward(&x, Mode::Eval)? };
            let loss = bce_dice(&logits, &target, &self.config.loss())?;
            judge.batch(&self.at_size_of(dataset, logits.to_vec()?)?)?;
            losses += f64::from(loss.to_vec()?[0]) * batch.len() as f64;
        }
        Ok((judge.finish()?, losses / part.len().max(1) as f64))
    }

    /// Logits `[N, H, W]` of the training's size at the size of the set's slices.
    fn at_size_of(&self, dataset: &Dataset, logits: Vec<f32>) -> Result<Vec<f32>> {
        let (from, to) = (self.slices.size(), [dataset.height, dataset.width]);
        if from == to {
            return Ok(logits);
        }
        let slices = logits.chunks_exact(from[0] * from[1]).map(|slice| resize::logits(slice, from, to));
        Ok(slices.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Logits of `x` `[N, H, W, C]`, averaged over the four flips.
    fn mean_over_flips(&self, x: &Tensor) -> Result<Tensor> {
        let [_, h, w, c] = x.shape().nhwc("judge")?;
        let images = x.to_vec()?;
        let mut mean: Vec<f32> = Vec::new();
        let mut shape = x.shape();
        for (upright, leftright) in [(false, false), (false, true), (true, false), (true, true)] {
            let flipped = flip(&images, [h, w, c], upright, leftright);
            let logits = self.net.forward(&x.device().tensor("judge", x.shape(), &flipped)?, Mode::Eval)?;
            shape = logits.shape();
            let [_, out_h, out_w, classes] = shape.nhwc("judge")?;
            if [out_h, out_w] != [h, w] {
                return Err(Error::shape("judge", format!("logits {shape} of images {}", x.shape())));
            }
            let back = flip(&logits.to_vec()?, [h, w, classes], upright, leftright);
            mean.resize(back.len(), 0.0);
            for (mean, logit) in mean.iter_mut().zip(back) {
                *mean += 0.25 * logit;
            }
        }
        x.device().tensor("judge", shape, &mean)
    }
}

/// Images `[N, H, W, C]` with the rows, the columns or both in reverse order.
fn flip(images: &[f32], [h, w, c]: [usize; 3], rows: bool, columns: bool) -> Vec<f32> {
    let mut out = Vec::with_capacity(images.len());
    for image in images.chunks_exact(h * w * c) {
        for y in 0..h {
            for x in 0..w {
                let (from_y, from_x) = (if rows { h - 1 - y } else { y }, if columns { w - 1 - x } else { x });
                out.extend_from_slice(&image[(from_y * w + from_x) * c..][..c]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::flip;

    #[test]
    fn flips_undo_themselves() {
        let rows = flip(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [2, 2, 2], true, false);
        assert_eq!(rows, [5.0, 6.0, 7.0, 8.0, 1.0, 2.0, 3.0, 4.0]);
        let columns = flip(&[1.0, 2.0, 3.0, 4.0], [1, 2, 1], false, true);
        assert_eq!(columns, [2.0, 1.0, 4.0, 3.0]);
        let image: Vec<f32> = (0..30).map(|value| value as f32).collect();
        for (a, b) in [(false, true), (true, false), (true, true)] {
            assert_eq!(flip(&flip(&image, [3, 5, 2], a, b), [3, 5, 2], a, b), image);
        }
    }
}
