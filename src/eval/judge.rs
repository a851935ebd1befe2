//! From logits to a verdict: everything that is said about a prediction, gathered batch by batch.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::components;
use super::distance::hausdorff_95;
use super::metrics::{Metrics, PatientMetrics, SliceCounts, mean};
use super::thresholds::{Calibration, Histogram, ThresholdPoint, threshold_curve};
use crate::data::Dataset;
use crate::{Error, Result};

/// How predictions are judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgeOptions {
    /// Slices of a batch: the metrics that are pooled by batch depend on it.
    pub batch: usize,
    /// A pixel is predicted where its probability is above this, between 0 and 1.
    pub threshold: f64,
    /// Keep only the largest connected component of each patient's volume (26 neighbours).
    pub largest_component: bool,
}

impl JudgeOptions {
    /// Threshold 0.5, all components.
    pub fn new(batch: usize) -> Self {
        Self { batch, threshold: 0.5, largest_component: false }
    }

    /// The logit above which a pixel is predicted; 0 for the threshold 0.5.
    ///
    /// # Errors
    /// [`Error::Config`] if the threshold does not lie between 0 and 1, or the batch is 0.
    pub fn cut(&self) -> Result<f32> {
        if self.batch == 0 {
            return Err(Error::Config("a batch needs at least one slice".to_owned()));
        }
        if self.threshold > 0.0 && self.threshold < 1.0 {
            return Ok((self.threshold / (1.0 - self.threshold)).ln() as f32);
        }
        Err(Error::Config(format!("--threshold {} must lie between 0 and 1, for example 0.5", self.threshold)))
    }
}

/// All that is known about a prediction.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// The metrics, with distances.
    pub metrics: Metrics,
    /// The loss of UNeXt-pytorch ("per sample", smooth 1e-5) and the recommended one (pooled by batch, smooth 1), in
    /// f64, mean over the slices.
    pub losses: [f64; 2],
    /// Per slice, in the order of evaluation.
    pub counts: Vec<SliceCounts>,
    /// The predicted mask of each slice `[H*W]`, 1 inside.
    pub masks: Vec<Vec<u8>>,
    /// The scores at other thresholds, of the probabilities as they are (before any choice of components).
    pub thresholds: Vec<ThresholdPoint>,
    /// Whether the probabilities mean what they say.
    pub calibration: Calibration,
}

/// Takes in the logits of a set's slices, batch by batch in the order of `part`, and judges them at the end.
///
/// ```
/// use shadegrad::data::phantom::{PhantomSettings, phantom_dataset};
/// use shadegrad::eval::{Judge, JudgeOptions};
///
/// # fn main() -> shadegrad::Result<()> {
/// let dataset = phantom_dataset(&PhantomSettings { patients: 2, slices: 4, size: 32, seed: 1 })?;
/// let part: Vec<_> = dataset.indices().collect();
/// let mut judge = Judge::new(&dataset, &part, JudgeOptions::new(4))?;
/// for batch in part.chunks(4) {
///     judge.batch(&vec![-27.5; batch.len() * 32 * 32])?; // predicts nothing
/// }
/// let verdict = judge.finish()?;
/// assert_eq!((verdict.metrics.predicted_pixels, verdict.metrics.dice_volume_mean), (0, 0.0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Judge<'a> {
    dataset: &'a Dataset,
    part: &'a [(usize, usize)],
    options: JudgeOptions,
    cut: f32,
    masks: Vec<Vec<u8>>,
    histograms: BTreeMap<usize, Histogram>,
    losses: [f64; 2],
}

impl<'a> Judge<'a> {
    /// For these slices of the set, as `(patient, slice)`, in the order in which their logits will come.
    ///
    /// # Errors
    /// As [`JudgeOptions::cut`].
    pub fn new(dataset: &'a Dataset, part: &'a [(usize, usize)], options: JudgeOptions) -> Result<Self> {
        let cut = options.cut()?;
        Ok(Self { dataset, part, options, cut, masks: Vec::new(), histograms: BTreeMap::new(), losses: [0.0; 2] })
    }

    /// Takes in the logits `[n*H*W]` of the next `n` slices.
    ///
    /// # Errors
    /// [`Error::Shape`] if they are no whole slices or too many, [`Error::NonFinite`] if one is no number.
    pub fn batch(&mut self, logits: &[f32]) -> Result<()> {
        let pixels = self.dataset.height * self.dataset.width;
        let n = logits.len() / pixels.max(1);
        let first = self.masks.len();
        if n == 0 || logits.len() != n * pixels || first + n > self.part.len() {
            let message = format!("{} logits do not fit the slices of {pixels} pixels that are left", logits.len());
            return Err(Error::shape("judge", message));
        }
        let part = &self.part[first..first + n];
        let wanted: Vec<&[u8]> = part.iter().map(|&index| self.dataset.slice(index).mask.as_slice()).collect();
        for ((&index, logits), wanted) in part.iter().zip(logits.chunks_exact(pixels)).zip(&wanted) {
            if let Some(at) = logits.iter().position(|logit| !logit.is_finite()) {
                let path = self.dataset.slice(index).path.display();
                let message = format!("the network's output for {path} is {} at pixel {at}", logits[at]);
                return Err(Error::NonFinite(message));
            }
            self.histograms.entry(index.0).or_default().add(logits, wanted);
            self.masks.push(logits.iter().map(|&logit| u8::from(logit > self.cut)).collect());
        }
        for (sum, loss) in self.losses.iter_mut().zip(losses(logits, &wanted, pixels)) {
            *sum += loss * n as f64;
        }
        Ok(())
    }

    /// The verdict.
    ///
    /// # Errors
    /// [`Error::Shape`] if slices are missing, [`Error::Config`] if whole volumes are needed and not there.
    pub fn finish(mut self) -> Result<Judgement> {
        if self.masks.len() != self.part.len() {
            let message = format!("logits of {} slices came, {} were to be judged", self.masks.len(), self.part.len());
            return Err(Error::shape("judge", message));
        }
        let volumes = self.volumes();
        if self.options.largest_component {
            self.keep_largest_components(&volumes)?;
        }
        let counts: Vec<_> = self
            .part
            .iter()
            .zip(&self.masks)
            .map(|(&index, mask)| SliceCounts::from_masks(index.0, mask, &self.dataset.slice(index).mask))
            .collect();
        let name = |patient: usize| self.dataset.patients[patient].name.as_str();
        let mut metrics = Metrics::new(&counts, self.options.batch, name);
        // Metrics lists patients by their first slice, as `volumes` does.
        let patients = metrics.per_patient.par_iter_mut().zip(&volumes);
        patients.try_for_each(|(patient, volume)| self.measure(patient, volume))?;
        metrics.summarize_distances();
        let histograms: Vec<_> = self.histograms.into_values().collect();
        Ok(Judgement {
            metrics,
            losses: self.losses.map(|sum| sum / self.part.len().max(1) as f64),
            counts,
            masks: self.masks,
            thresholds: threshold_curve(&histograms),
            calibration: Calibration::new(&histograms),
        })
    }

    /// For each patient, in the order of their first slice: positions in `part`, from the bottom to the top.
    fn volumes(&self) -> Vec<Vec<usize>> {
        let mut volumes: Vec<Vec<usize>> = Vec::new();
        for (position, &(patient, _)) in self.part.iter().enumerate() {
            match volumes.iter_mut().find(|volume| self.part[volume[0]].0 == patient) {
                Some(volume) => volume.push(position),
                None => volumes.push(vec![position]),
            }
        }
        for volume in &mut volumes {
            volume.sort_by_key(|&position| self.part[position].1);
        }
        volumes
    }

    /// Whether these slices lie on top of each other without a gap.
    fn is_whole(&self, volume: &[usize]) -> bool {
        let number = |position: &usize| self.dataset.slice(self.part[*position]).number;
        volume.windows(2).all(|pair| number(&pair[1]) == number(&pair[0]) + 1)
    }

    /// Clears all but the largest component of each predicted volume.
    fn keep_largest_components(&mut self, volumes: &[Vec<usize>]) -> Result<()> {
        let size = [self.dataset.height, self.dataset.width];
        for volume in volumes {
            if !self.is_whole(volume) {
                let patient = &self.dataset.patients[self.part[volume[0]].0].name;
                return Err(Error::Config(format!(
                    "the largest component needs whole volumes, but slices of {patient} are missing; \
                     leave out --largest-component (in settings largest_component) or judge whole patients with --val"
                )));
            }
            let mut stack: Vec<u8> = volume.iter().flat_map(|&position| &self.masks[position]).copied().collect();
            components::keep_largest(&mut stack, [volume.len(), size[0], size[1]])?;
            for (&position, kept) in volume.iter().zip(stack.chunks_exact(size[0] * size[1])) {
                self.masks[position].copy_from_slice(kept);
            }
        }
        Ok(())
    }

    /// Fills in one patient's distances.
    fn measure(&self, patient: &mut PatientMetrics, volume: &[usize]) -> Result<()> {
        let (height, width) = (self.dataset.height, self.dataset.width);
        let truth = |position: usize| self.dataset.slice(self.part[position]).mask.as_slice();
        let mut in_plane = Vec::new();
        for &position in volume {
            let (predicted, truth) = (self.masks[position].as_slice(), truth(position));
            if predicted.contains(&1) && truth.iter().any(|&pixel| pixel != 0) {
                in_plane.extend(hausdorff_95(predicted, truth, &[height, width])?);
            }
        }
        patient.hausdorff_95_in_plane = mean(&in_plane);
        if self.is_whole(volume) {
            let predicted: Vec<u8> = volume.iter().flat_map(|&position| &self.masks[position]).copied().collect();
            let truth: Vec<u8> = volume.iter().flat_map(|&position| truth(position)).copied().collect();
            patient.hausdorff_95 = hausdorff_95(&predicted, &truth, &[volume.len(), height, width])?;
        }
        Ok(())
    }
}

/// The two losses of one batch, in f64 from the logits: per sample with smooth 1e-5, and pooled with smooth 1.
fn losses(logits: &[f32], wanted: &[&[u8]], pixels: usize) -> [f64; 2] {
    // Of each slice: sum(p * t), sum(p), sum(t) and the sum of the cross-entropies.
    let slices: Vec<[f64; 4]> = logits.par_chunks_exact(pixels).zip(wanted).map(|(x, mask)| sums(x, mask)).collect();
    let total = slices.iter().fold([0.0; 4], |total, sums| std::array::from_fn(|at| total[at] + sums[at]));
    let dice_loss = |[i, p, t, _]: [f64; 4], smooth: f64| 1.0 - (2.0 * i + smooth) / (p + t + smooth);
    let entropy = 0.5 * total[3] / logits.len() as f64;
    let per_sample: f64 = slices.iter().map(|sums| dice_loss(*sums, 1e-5)).sum();
    [entropy + per_sample / slices.len() as f64, entropy + dice_loss(total, 1.0)]
}

fn sums(logits: &[f32], mask: &[u8]) -> [f64; 4] {
    let mut sums = [0.0; 4];
    for (&logit, &inside) in logits.iter().zip(mask) {
        let x = f64::from(logit);
        let target = f64::from(u8::from(inside != 0));
        let p = 1.0 / (1.0 + (-x).exp());
        let entropy = x.max(0.0) - x * target + (-x.abs()).exp().ln_1p();
        for (sum, term) in sums.iter_mut().zip([p * target, p, target, entropy]) {
            *sum += term;
        }
    }
    sums
}
