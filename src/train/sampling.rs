//! Which slices an epoch shows, and in which order. Two thirds of the LGG slices hold no tumour, and of those that do
//! most of the pixels do not: showing tumour slices more often is the simplest answer.
//!
//! An order is a formula of (seed, epoch), so a resumed run finds it again. An epoch has as many places as there are
//! training slices, whatever is drawn; slices that come twice are augmented differently.

use serde::{Deserialize, Serialize};

use crate::tensor::random::Stream;
use crate::{Error, Result};

/// How often slices with tumour are shown. In `config.toml` a number or a word.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "oversample must be a share from 0 (as the slices are) to 1, or \"area\"")]
pub enum Oversample {
    /// This share of each batch has tumour, the rest has none; each kind is gone through before a slice comes again.
    /// 0: every slice once, as they are.
    Share(f64),
    /// A weighted draw, with repetition.
    Weighted(Weighted),
}

/// What slices are drawn by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighted {
    /// As Buda's `brain-segmentation-pytorch`: any patient, then one of its slices by area of tumour, with a tenth of
    /// the weight spread evenly.
    Area,
}

impl Oversample {
    /// Refuses a share that is none.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting.
    pub(super) fn check(self) -> Result<()> {
        match self {
            Self::Share(share) if !(0.0..=1.0).contains(&share) => {
                Err(Error::Config(format!("oversample must be from 0 to 1, or \"area\", got {share}")))
            }
            _ => Ok(()),
        }
    }

    /// The order of an epoch: positions in `train`, which holds (patient, slice); `areas` has each slice's pixels of tumour.
    pub(super) fn order(self, seed: u64, epoch: usize, train: &[(usize, usize)], areas: &[u32]) -> Vec<usize> {
        let stream = Stream::seeded(seed, &format!("order/{epoch}"));
        let (tumour, empty): (Vec<usize>, Vec<usize>) = (0..train.len()).partition(|at| areas[*at] > 0);
        match self {
            Self::Share(share) if share > 0.0 && !tumour.is_empty() && !empty.is_empty() => {
                let mut kinds = [("tumour", tumour), ("empty", empty)].map(|(name, slices)| {
                    (0..).flat_map(move |pass| {
                        let stream = Stream::seeded(seed, &format!("order/{epoch}/{name}/{pass}"));
                        let order = stream.permutation(slices.len());
                        order.into_iter().map(|at| slices[at]).collect::<Vec<_>>()
                    })
                });
                // Spread evenly, so that every batch has its share, to the nearest slice.
                let due = |places: usize| (places as f64 * share + 0.5).floor();
                let places = 0..train.len();
                places.filter_map(|place| kinds[usize::from(due(place + 1) <= due(place))].next()).collect()
            }
            Self::Share(_) => stream.permutation(train.len()),
            Self::Weighted(Weighted::Area) => by_area(stream, train, areas),
        }
    }
}

impl Default for Oversample {
    fn default() -> Self {
        Self::Share(0.0)
    }
}

fn by_area(stream: Stream, train: &[(usize, usize)], areas: &[u32]) -> Vec<usize> {
    // For each patient its slices, with the sums of the weights up to and with each.
    let mut patients: Vec<(usize, Vec<(usize, f64)>)> = Vec::new();
    for (at, (patient, _)) in train.iter().enumerate() {
        match patients.iter_mut().find(|(known, _)| known == patient) {
            Some((_, slices)) => slices.push((at, 0.0)),
            None => patients.push((*patient, vec![(at, 0.0)])),
        }
    }
    for (_, slices) in &mut patients {
        let all: f64 = slices.iter().map(|(at, _)| f64::from(areas[*at])).sum();
        let spread = if all > 0.0 { 0.1 * all / slices.len() as f64 } else { 1.0 };
        let mut sum = 0.0;
        for (at, up_to) in slices {
            sum += f64::from(areas[*at]) + spread;
            *up_to = sum;
        }
    }
    let draw = |place: u64| {
        let (_, slices) = &patients[stream.below(2 * place, patients.len())];
        let last = slices.len() - 1;
        let wanted = stream.open01(2 * place + 1) * slices[last].1;
        slices[slices.partition_point(|(_, up_to)| *up_to <= wanted).min(last)].0
    };
    (0..train.len() as u64).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two patients: one with 30 slices of which 10 have tumour, one with 10 without any.
    fn set() -> (Vec<(usize, usize)>, Vec<u32>) {
        let train = (0..40).map(|at| if at < 30 { (7, at) } else { (3, at - 30) }).collect();
        let areas = (0..40).map(|at| if (10..20).contains(&at) { 10 * (at - 9) } else { 0 }).collect();
        (train, areas)
    }

    #[test]
    fn without_it_every_slice_comes_once() {
        let (train, areas) = set();
        let mut order = Oversample::default().order(5, 2, &train, &areas);
        assert_eq!(order, Stream::seeded(5, "order/2").permutation(40), "the order of older runs");
        order.sort_unstable();
        assert_eq!(order, (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn every_batch_has_its_share() {
        let (train, areas) = set();
        for (share, batch, each) in [(0.5, 8, 4), (0.75, 4, 3), (1.0, 8, 8), (0.25, 8, 2)] {
            let order = Oversample::Share(share).order(0, 0, &train, &areas);
            assert_eq!(order.len(), 40);
            for batch in order.chunks_exact(batch) {
                assert_eq!(batch.iter().filter(|at| areas[**at] > 0).count(), each, "share {share}");
            }
            // No slice comes a third time before all of its kind have come twice.
            let times = |at: usize| order.iter().filter(|seen| **seen == at).count();
            for kind in [10..20, 0..10] {
                let times: Vec<usize> = kind.map(times).collect();
                let [fewest, most] = [times.iter().min(), times.iter().max()];
                assert!(most.unwrap_or(&0) - fewest.unwrap_or(&0) <= 1, "share {share}: {times:?}");
            }
        }
        let other = Oversample::Share(0.5).order(0, 1, &train, &areas);
        assert_ne!(other, Oversample::Share(0.5).order(0, 0, &train, &areas), "epochs differ");
    }

    #[test]
    fn areas_weigh_within_a_patient() {
        let (train, areas) = set();
        let mut times = vec![0.0_f64; 40];
        for epoch in 0..500 {
            Oversample::Weighted(Weighted::Area)
                .order(1, epoch, &train, &areas)
                .iter()
                .for_each(|at| times[*at] += 1.0);
        }
        let all: f64 = 500.0 * 40.0;
        // Patient 7 has 550 pixels: slice 19 (100 of them) weighs (100 + 55/30) / 605 of half of the draws.
        for (at, want) in [(19, 0.5 * (100.0 + 55.0 / 30.0) / 605.0), (0, 0.5 * (55.0 / 30.0) / 605.0), (35, 0.05)] {
            let deviation = (want / all).sqrt();
            assert!((times[at] / all - want).abs() < 4.0 * deviation, "slice {at}: {} not {want}", times[at] / all);
        }
    }
}
