//! Segmentation metrics, computed from the counts of each slice: `I` pixels that are right, `P` predicted, `T` wanted.
//! `dice = 2I / (P + T)` and `iou = I / (P + T - I)`.
//!
//! **Which Dice** matters more here than anywhere: two of three slices are empty, so a mean over slices that counts "both
//! empty" as 1 gives 0.65 to a network that predicts nothing. The headline is the *volume* Dice, one number a patient;
//! the others stand beside it under their own names, together with what predicting nothing would score.

use serde::{Deserialize, Serialize};

/// What one slice contributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceCounts {
    /// The patient's index.
    pub patient: usize,
    /// Pixels both predicted and wanted.
    pub intersection: u64,
    /// Pixels predicted.
    pub predicted: u64,
    /// Pixels wanted.
    pub target: u64,
    /// Pixels of the slice.
    pub pixels: u64,
}

/// How well a set was segmented; the keys are those of `eval --json`.
///
/// Distances need masks, not counts: [`Metrics::new`] leaves them `None`, [`super::Judge`] fills them in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Patients.
    pub patients: usize,
    /// Slices.
    pub slices: usize,
    /// Slices with a non-empty mask.
    pub tumour_slices: usize,
    /// **The headline**: Dice of each patient's whole volume, mean over patients.
    pub dice_volume_mean: f64,
    /// The same, median over patients.
    pub dice_volume_median: f64,
    /// IoU of each patient's whole volume, mean over patients.
    pub iou_volume_mean: f64,
    /// Dice of all pixels of the set taken as one.
    pub dice_pooled: f64,
    /// Mean over the slices with a non-empty mask; `null` if there is none.
    pub dice_tumour_slices: Option<f64>,
    /// UNeXt-pytorch's IoU: pixels pooled over each batch, mean over batches weighted by their slices. Depends on the
    /// batch size and the order of the slices; an empty batch without a prediction scores 1.
    pub iou_batch: f64,
    /// UNeXt-pytorch's Dice: `2 iou / (1 + iou)` of each batch's IoU, averaged alike.
    pub dice_batch: f64,
    /// What predicting nothing scores as `dice_slices_empty_is_one`: the share of empty slices.
    pub dice_predict_nothing: f64,
    /// Mean Dice over slices where "empty, and nothing predicted" counts as 1. Read it beside `dice_predict_nothing`.
    pub dice_slices_empty_is_one: f64,
    /// Pixels predicted in the whole set; 0 means that the network predicts nothing.
    pub predicted_pixels: u64,
    /// Slices with an empty mask.
    pub empty_slices: usize,
    /// Slices with an empty mask in which at least one pixel is predicted.
    pub empty_slices_with_false_pixels: usize,
    /// Their share of the slices with an empty mask; `null` if there is none.
    pub share_of_empty_slices_with_false_pixels: Option<f64>,
    /// Slices with a non-empty mask of which not one pixel was found.
    pub tumour_slices_missed: usize,
    /// Mean of the patients' `hausdorff_95`, over those that have one; `null` if none has.
    pub hausdorff_95_mean: Option<f64>,
    /// Over how many patients that mean was taken.
    pub hausdorff_95_patients: usize,
    /// Mean of the patients' `hausdorff_95_in_plane`, over those that have one; `null` if none has.
    pub hausdorff_95_in_plane_mean: Option<f64>,
    /// What a network that predicts nothing scores on the same slices.
    pub predict_nothing: Headline,
    /// One entry a patient, in the order of their first slice.
    pub per_patient: Vec<PatientMetrics>,
}

/// The headline figures by themselves, to stand beside others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Headline {
    /// As [`Metrics::dice_volume_mean`].
    pub dice_volume_mean: f64,
    /// As [`Metrics::dice_volume_median`].
    pub dice_volume_median: f64,
    /// As [`Metrics::iou_volume_mean`].
    pub iou_volume_mean: f64,
    /// As [`Metrics::dice_pooled`].
    pub dice_pooled: f64,
    /// As [`Metrics::dice_tumour_slices`].
    pub dice_tumour_slices: Option<f64>,
    /// As [`Metrics::dice_slices_empty_is_one`].
    pub dice_slices_empty_is_one: f64,
    /// As [`Metrics::iou_batch`].
    pub iou_batch: f64,
    /// As [`Metrics::dice_batch`].
    pub dice_batch: f64,
}

/// One patient's part of [`Metrics`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PatientMetrics {
    /// The patient's name.
    pub patient: String,
    /// Slices.
    pub slices: usize,
    /// Slices with a non-empty mask.
    pub tumour_slices: usize,
    /// Dice of the volume; 1 if it is empty and nothing is predicted.
    pub dice: f64,
    /// IoU of the volume; 1 if it is empty and nothing is predicted.
    pub iou: f64,
    /// Pixels predicted.
    pub predicted_pixels: u64,
    /// Pixels wanted.
    pub target_pixels: u64,
    /// `100 * (predicted - wanted) / wanted` pixels; `null` if none is wanted.
    pub volume_difference_percent: Option<f64>,
    /// Slices with an empty mask in which at least one pixel is predicted.
    pub empty_slices_with_false_pixels: usize,
    /// Slices with a non-empty mask of which not one pixel was found.
    pub tumour_slices_missed: usize,
    /// [`super::hausdorff_95`] of the volume in voxels, with the spacing 1 along all three axes (the LGG set does not
    /// say how thick its slices are). `null` if one of the two masks is empty, or if the slices are no whole volume.
    pub hausdorff_95: Option<f64>,
    /// [`super::hausdorff_95`] slice by slice, in pixels, mean over the slices where both masks are non-empty; `null` if
    /// there is none. It says how good the outline is where the tumour was found; it does not see missed slices.
    pub hausdorff_95_in_plane: Option<f64>,
}

impl SliceCounts {
    /// Counts one slice: `logits` `[H*W]`, predicted where above 0 (a probability above 0.5); `mask` `[H*W]`, wanted where not 0.
    pub fn from_logits(patient: usize, logits: &[f32], mask: &[u8]) -> Self {
        Self::count(patient, logits.iter().map(|&logit| logit > 0.0), mask)
    }

    /// Counts one slice whose prediction is already a mask: both `[H*W]`, not 0 inside.
    pub fn from_masks(patient: usize, predicted: &[u8], mask: &[u8]) -> Self {
        Self::count(patient, predicted.iter().map(|&inside| inside != 0), mask)
    }

    fn count(patient: usize, predicted: impl Iterator<Item = bool>, mask: &[u8]) -> Self {
        let mut counts = Self { patient, intersection: 0, predicted: 0, target: 0, pixels: mask.len() as u64 };
        for (predicted, &wanted) in predicted.zip(mask) {
            counts.predicted += u64::from(predicted);
            counts.target += u64::from(wanted != 0);
            counts.intersection += u64::from(predicted && wanted != 0);
        }
        counts
    }

    /// Dice of these pixels; 1 if nothing is wanted and nothing predicted.
    pub fn dice(&self) -> f64 {
        match self.predicted + self.target {
            0 => 1.0,
            sum => 2.0 * self.intersection as f64 / sum as f64,
        }
    }

    /// IoU of these pixels; 1 if nothing is wanted and nothing predicted.
    pub fn iou(&self) -> f64 {
        match self.union() {
            0 => 1.0,
            union => self.intersection as f64 / union as f64,
        }
    }

    /// Pixels are predicted, but none is wanted.
    pub fn is_false_alarm(&self) -> bool {
        self.target == 0 && self.predicted > 0
    }

    /// Pixels are wanted, but none of them was found.
    pub fn is_missed(&self) -> bool {
        self.target > 0 && self.intersection == 0
    }

    fn union(&self) -> u64 {
        self.predicted + self.target - self.intersection
    }

    /// The counts of several slices together, as of the first one's patient.
    fn pooled<'a>(slices: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut slices = slices.into_iter();
        let empty = Self { patient: 0, intersection: 0, predicted: 0, target: 0, pixels: 0 };
        let first = slices.next().copied().unwrap_or(empty);
        slices.fold(first, |sum, slice| Self {
            patient: sum.patient,
            intersection: sum.intersection + slice.intersection,
            predicted: sum.predicted + slice.predicted,
            target: sum.target + slice.target,
            pixels: sum.pixels + slice.pixels,
        })
    }
}

/// The `(iou, dice)` of one batch as UNeXt-pytorch's `iou_score` computes them, with its smoothing of 1e-5.
pub fn batch_scores(batch: &[SliceCounts]) -> (f64, f64) {
    let sum = SliceCounts::pooled(batch);
    let iou = (sum.intersection as f64 + 1e-5) / (sum.union() as f64 + 1e-5);
    (iou, 2.0 * iou / (1.0 + iou))
}

impl Metrics {
    /// From the counts of all slices **in the order of evaluation**, the batch size they were evaluated with (the last
    /// batch may be smaller), and the name of a patient by index.
    pub fn new<'a>(counts: &[SliceCounts], batch_size: usize, name: impl Fn(usize) -> &'a str) -> Self {
        let per_patient: Vec<_> = by_patient(counts)
            .into_iter()
            .map(|slices| PatientMetrics::new(name(slices[0].patient).to_owned(), &slices))
            .collect();
        let scores = Headline::new(counts, batch_size);
        let nothing: Vec<_> =
            counts.iter().map(|slice| SliceCounts { intersection: 0, predicted: 0, ..*slice }).collect();
        let empty = counts.iter().filter(|slice| slice.target == 0).count();
        let false_alarms = counts.iter().filter(|slice| slice.is_false_alarm()).count();
        Self {
            patients: per_patient.len(),
            slices: counts.len(),
            tumour_slices: counts.len() - empty,
            dice_volume_mean: scores.dice_volume_mean,
            dice_volume_median: scores.dice_volume_median,
            iou_volume_mean: scores.iou_volume_mean,
            dice_pooled: scores.dice_pooled,
            dice_tumour_slices: scores.dice_tumour_slices,
            iou_batch: scores.iou_batch,
            dice_batch: scores.dice_batch,
            dice_predict_nothing: empty as f64 / counts.len().max(1) as f64,
            dice_slices_empty_is_one: scores.dice_slices_empty_is_one,
            predicted_pixels: counts.iter().map(|slice| slice.predicted).sum(),
            empty_slices: empty,
            empty_slices_with_false_pixels: false_alarms,
            share_of_empty_slices_with_false_pixels: (empty > 0).then(|| false_alarms as f64 / empty as f64),
            tumour_slices_missed: counts.iter().filter(|slice| slice.is_missed()).count(),
            hausdorff_95_mean: None,
            hausdorff_95_patients: 0,
            hausdorff_95_in_plane_mean: None,
            predict_nothing: Headline::new(&nothing, batch_size),
            per_patient,
        }
    }

    /// Takes the means over the patients' distances again.
    pub(super) fn summarize_distances(&mut self) {
        let defined: Vec<_> = self.per_patient.iter().filter_map(|patient| patient.hausdorff_95).collect();
        let in_plane: Vec<_> = self.per_patient.iter().filter_map(|patient| patient.hausdorff_95_in_plane).collect();
        self.hausdorff_95_mean = mean(&defined);
        self.hausdorff_95_patients = defined.len();
        self.hausdorff_95_in_plane_mean = mean(&in_plane);
    }
}

impl Headline {
    /// From the counts of all slices in the order of evaluation.
    fn new(counts: &[SliceCounts], batch_size: usize) -> Self {
        let volumes: Vec<_> =
            by_patient(counts).into_iter().map(|slices| SliceCounts::pooled(slices.iter().copied())).collect();
        let volume_dice: Vec<_> = volumes.iter().map(SliceCounts::dice).collect();
        let volume_iou: Vec<_> = volumes.iter().map(SliceCounts::iou).collect();
        let tumour: Vec<_> = counts.iter().filter(|slice| slice.target > 0).map(SliceCounts::dice).collect();
        let batches = counts.chunks(batch_size.max(1)).map(|batch| (batch.len() as f64, batch_scores(batch)));
        let (iou, dice) =
            batches.fold((0.0, 0.0), |sum, (weight, (iou, dice))| (sum.0 + weight * iou, sum.1 + weight * dice));
        let slices = counts.len().max(1) as f64;
        Self {
            dice_volume_mean: mean(&volume_dice).unwrap_or(0.0),
            dice_volume_median: median(volume_dice).unwrap_or(0.0),
            iou_volume_mean: mean(&volume_iou).unwrap_or(0.0),
            dice_pooled: SliceCounts::pooled(counts).dice(),
            dice_tumour_slices: mean(&tumour),
            dice_slices_empty_is_one: counts.iter().map(SliceCounts::dice).sum::<f64>() / slices,
            iou_batch: iou / slices,
            dice_batch: dice / slices,
        }
    }
}

impl PatientMetrics {
    /// From the slices of one patient.
    fn new(patient: String, slices: &[&SliceCounts]) -> Self {
        let volume = SliceCounts::pooled(slices.iter().copied());
        let difference = volume.predicted as f64 - volume.target as f64;
        Self {
            patient,
            slices: slices.len(),
            tumour_slices: slices.iter().filter(|slice| slice.target > 0).count(),
            dice: volume.dice(),
            iou: volume.iou(),
            predicted_pixels: volume.predicted,
            target_pixels: volume.target,
            volume_difference_percent: (volume.target > 0).then(|| 100.0 * difference / volume.target as f64),
            empty_slices_with_false_pixels: slices.iter().filter(|slice| slice.is_false_alarm()).count(),
            tumour_slices_missed: slices.iter().filter(|slice| slice.is_missed()).count(),
            hausdorff_95: None,
            hausdorff_95_in_plane: None,
        }
    }
}

/// The slices of each patient, patients in the order of their first slice.
fn by_patient(counts: &[SliceCounts]) -> Vec<Vec<&SliceCounts>> {
    let mut patients: Vec<Vec<&SliceCounts>> = Vec::new();
    for slice in counts {
        match patients.iter_mut().find(|slices| slices[0].patient == slice.patient) {
            Some(slices) => slices.push(slice),
            None => patients.push(vec![slice]),
        }
    }
    patients
}

pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The middle value, or the mean of the two middle ones.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}
