//! What the threshold does, and whether the probabilities mean what they say.
//!
//! Both come from one histogram of the predicted probabilities a patient, kept apart for pixels inside and outside of
//! the true mask: 100 bins, so that no probability has to be kept.

use serde::{Deserialize, Serialize};

/// Bins of a histogram: bin `b` holds probabilities in `(b / 100, (b + 1) / 100]`, the first one 0 too.
pub const BINS: usize = 100;

/// Bins of the reliability diagram.
const BARS: usize = 10;

/// How many pixels got which probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    inside: [u64; BINS],
    outside: [u64; BINS],
    /// Sum of the probabilities of each bin.
    sums: [f64; BINS],
}

/// What the set scores with one threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ThresholdPoint {
    /// Predicted where the probability is above this.
    pub threshold: f64,
    /// True positive pixels of the set.
    pub true_positive: u64,
    /// False positive pixels.
    pub false_positive: u64,
    /// False negative pixels.
    pub false_negative: u64,
    /// True negative pixels.
    pub true_negative: u64,
    /// Share of the predicted pixels that are right; `null` if none is predicted.
    pub precision: Option<f64>,
    /// Share of the wanted pixels that were found; `null` if none is wanted.
    pub recall: Option<f64>,
    /// Dice of all pixels as one.
    pub dice_pooled: f64,
    /// Mean volume Dice over the patients.
    pub dice_volume_mean: f64,
}

/// Whether of all pixels predicted with 70 % about 70 % are inside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Ten equal bins of the probability.
    pub bins: Vec<CalibrationBin>,
    /// Expected calibration error: mean distance between probability and truth over the bins, weighted by pixels. Most
    /// pixels are background that nobody could mistake, so it is small for any network.
    pub expected_error: f64,
    /// The same over the pixels with a probability above 1 %, the ones that say something; `null` if there is none.
    pub expected_error_above_1_percent: Option<f64>,
}

/// One bar of the reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// Lower end.
    pub from: f64,
    /// Upper end.
    pub to: f64,
    /// Pixels.
    pub pixels: u64,
    /// Their mean probability; `null` without pixels.
    pub mean_probability: Option<f64>,
    /// The share of them that is inside of the true mask; `null` without pixels.
    pub share_inside: Option<f64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { inside: [0; BINS], outside: [0; BINS], sums: [0.0; BINS] }
    }
}

impl Histogram {
    /// Adds one slice: `logits` and `mask` `[H*W]`, the mask not 0 inside.
    pub fn add(&mut self, logits: &[f32], mask: &[u8]) {
        for (&logit, &wanted) in logits.iter().zip(mask) {
            let probability = 1.0 / (1.0 + (-f64::from(logit)).exp());
            let bin = (probability * BINS as f64).ceil().max(1.0) as usize - 1;
            // A logit just above 0 rounds to 0.5, but counts as predicted everywhere else.
            let bin = if logit > 0.0 { bin.clamp(BINS / 2, BINS - 1) } else { bin.min(BINS / 2 - 1) };
            let count = if wanted != 0 { &mut self.inside } else { &mut self.outside };
            count[bin] += 1;
            self.sums[bin] += probability;
        }
    }

    fn merged<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        parts.into_iter().fold(Self::default(), |mut sum, part| {
            for bin in 0..BINS {
                sum.inside[bin] += part.inside[bin];
                sum.outside[bin] += part.outside[bin];
                sum.sums[bin] += part.sums[bin];
            }
            sum
        })
    }

    /// (right, predicted, wanted) pixels with the threshold `from / 100`.
    fn counts(&self, from: usize) -> (u64, u64, u64) {
        let right: u64 = self.inside[from..].iter().sum();
        (right, right + self.outside[from..].iter().sum::<u64>(), self.inside.iter().sum())
    }

    fn pixels(&self, bin: usize) -> u64 {
        self.inside[bin] + self.outside[bin]
    }
}

/// The scores with the thresholds 0.01, 0.02, ... 0.99, from one histogram a patient.
pub fn threshold_curve(patients: &[Histogram]) -> Vec<ThresholdPoint> {
    let all = Histogram::merged(patients);
    let pixels: u64 = (0..BINS).map(|bin| all.pixels(bin)).sum();
    let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let dice = |(right, predicted, wanted): (u64, u64, u64)| ratio(2 * right, predicted + wanted).unwrap_or(1.0);
    (1..BINS)
        .map(|from| {
            let (right, predicted, wanted) = all.counts(from);
            let volumes: f64 = patients.iter().map(|patient| dice(patient.counts(from))).sum();
            ThresholdPoint {
                threshold: from as f64 / BINS as f64,
                true_positive: right,
                false_positive: predicted - right,
                false_negative: wanted - right,
                true_negative: pixels + right - predicted - wanted,
                precision: ratio(right, predicted),
                recall: ratio(right, wanted),
                dice_pooled: dice((right, predicted, wanted)),
                dice_volume_mean: volumes / patients.len().max(1) as f64,
            }
        })
        .collect()
}

impl Calibration {
    /// From one histogram a patient.
    pub fn new(patients: &[Histogram]) -> Self {
        let all = Histogram::merged(patients);
        let width = BINS / BARS;
        let bins = (0..BARS).map(|bar| {
            let range = bar * width..(bar + 1) * width;
            let pixels: u64 = range.clone().map(|bin| all.pixels(bin)).sum();
            let mean = |sum: f64| (pixels > 0).then(|| sum / pixels as f64);
            CalibrationBin {
                from: bar as f64 / BARS as f64,
                to: (bar + 1) as f64 / BARS as f64,
                pixels,
                mean_probability: mean(all.sums[range.clone()].iter().sum()),
                share_inside: mean(all.inside[range].iter().sum::<u64>() as f64),
            }
        });
        Self {
            bins: bins.collect(),
            expected_error: expected_error(&all, 0, width).unwrap_or(0.0),
            expected_error_above_1_percent: expected_error(&all, 1, width),
        }
    }
}

/// Mean of |probability - truth| over bars of `width` bins, weighted by pixels, from the bin `first` on.
fn expected_error(all: &Histogram, first: usize, width: usize) -> Option<f64> {
    let (mut error, mut total) = (0.0, 0);
    for start in (0..BINS).step_by(width) {
        let range = start.max(first)..start + width;
        error +=
            (all.sums[range.clone()].iter().sum::<f64>() - all.inside[range.clone()].iter().sum::<u64>() as f64).abs();
        total += range.map(|bin| all.pixels(bin)).sum::<u64>();
    }
    (total > 0).then(|| error / total as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The logit of a probability.
    fn logit(p: f64) -> f32 {
        (p / (1.0 - p)).ln() as f32
    }

    #[test]
    fn thresholds_count_pixels_above() {
        let mut histogram = Histogram::default();
        // 0.205 is above 0.20 and not above 0.21.
        histogram.add(&[logit(0.205), logit(0.905), logit(0.605), -200.0, 200.0], &[1, 1, 0, 0, 1]);
        let curve = threshold_curve(&[histogram]);
        let at = |percent: usize| {
            let p = &curve[percent - 1];
            (p.true_positive, p.false_positive, p.false_negative, p.true_negative)
        };
        assert_eq!((at(20), at(21), at(60), at(61)), ((3, 1, 0, 1), (2, 1, 1, 1), (2, 1, 1, 1), (2, 0, 1, 2)));
        assert_eq!(at(99), (1, 0, 2, 2));
        assert_eq!((curve[98].threshold, curve[98].precision, curve[98].recall), (0.99, Some(1.0), Some(1.0 / 3.0)));
        assert!((curve[49].dice_pooled - 4.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn half_is_not_above_half_but_the_next_number_is() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0, f32::MIN_POSITIVE, -f32::MIN_POSITIVE], &[0, 0, 0]);
        assert_eq!(threshold_curve(&[histogram])[49].false_positive, 1);
    }

    #[test]
    fn calibration_is_the_distance_between_probability_and_truth() {
        let mut histogram = Histogram::default();
        // Ten pixels at 75 %, of which 5 are inside; ten at 0, of which none is.
        histogram.add(&[logit(0.75); 10], &[1, 1, 1, 1, 1, 0, 0, 0, 0, 0]);
        histogram.add(&[-300.0; 10], &[0; 10]);
        let calibration = Calibration::new(&[histogram]);
        let bin = &calibration.bins[7];
        assert_eq!((bin.pixels, bin.share_inside), (10, Some(0.5)));
        assert!((bin.mean_probability.unwrap_or(0.0) - 0.75).abs() < 1e-6);
        assert!((calibration.expected_error - 0.125).abs() < 1e-6);
        assert!((calibration.expected_error_above_1_percent.unwrap_or(0.0) - 0.25).abs() < 1e-6);
        assert!(Calibration::new(&[]).expected_error_above_1_percent.is_none());
    }
}
