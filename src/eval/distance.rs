//! How far two outlines lie apart: the exact Euclidean distance transform, and from it the Hausdorff distance at the
//! 95th percentile.
//!
//! **Definition** (that of MONAI's `compute_hausdorff_distance(percentile = 95)`):
//! - the surface of a mask is every voxel of it with a neighbour outside along some axis; beyond the edge of the volume
//!   is outside (4 neighbours in a slice, 6 in a volume);
//! - from each surface voxel of one mask the distance to the nearest surface voxel of the other is measured between
//!   voxel centres, with a spacing of 1 along every axis;
//! - the 95th percentile (numpy's, linear between neighbours) is taken of each direction, and the larger of the two
//!   counts. medpy's `hd95` takes the percentile of both directions thrown together, a slightly different number.
//!
//! Two empty masks lie 0 apart. If only one is empty there is no distance: the result is `None`, and a mean over
//! patients leaves it out and says over how many it was taken.
//!
//! The transform is Felzenszwalb and Huttenlocher's ("Distance Transforms of Sampled Functions", 2012): axis after axis,
//! the lower envelope of parabolas, linear in the number of voxels. Only the box around both masks is transformed.

use std::ops::Range;

use rayon::prelude::*;

use crate::{Error, Result};

/// The share of surface voxels that are at most that far away.
const PERCENTILE: f64 = 0.95;

/// Hausdorff distance at the 95th percentile, in voxels, between two masks (not 0 inside) of the same `size`: `[H, W]`,
/// or `[D, H, W]` for a volume. `None` if exactly one of them is empty.
///
/// ```
/// use shadegrad::eval::hausdorff_95;
/// # fn main() -> shadegrad::Result<()> {
/// let one = [0, 0, 0, 0, 0, 1, 0, 0]; // row 1, column 1
/// let other = [0, 0, 0, 1, 0, 0, 0, 0]; // row 0, column 3
/// assert_eq!(hausdorff_95(&one, &other, &[2, 4])?, Some(5.0_f64.sqrt()));
/// assert_eq!(hausdorff_95(&one, &[0; 8], &[2, 4])?, None);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if a mask does not have the size's number of voxels.
pub fn hausdorff_95(a: &[u8], b: &[u8], size: &[usize]) -> Result<Option<f64>> {
    let voxels: usize = size.iter().product();
    if size.is_empty() || a.len() != voxels || b.len() != voxels {
        let message = format!("masks of {} and {} voxels do not fit the size {size:?}", a.len(), b.len());
        return Err(Error::shape("hausdorff_95", message));
    }
    let Some(window) = bounds(a, b, size) else { return Ok(Some(0.0)) };
    let (a, b) = (surface(a, size, &window), surface(b, size, &window));
    if a.contains(&true) != b.contains(&true) {
        return Ok(None);
    }
    let size: Vec<usize> = window.iter().map(Range::len).collect();
    Ok(Some(directed(&a, &b, &size).max(directed(&b, &a, &size))))
}

/// Squared distance of every voxel to the nearest `seed`, exact; infinite where there is no seed at all. `size` is the
/// length of each axis, the last one contiguous.
pub fn squared_distances(seeds: &[bool], size: &[usize]) -> Vec<f64> {
    let mut field: Vec<f64> = seeds.iter().map(|&seed| if seed { 0.0 } else { f64::INFINITY }).collect();
    let mut inner = 1; // voxels between neighbours along this axis
    for &length in size.iter().rev() {
        // A block holds `inner` lines that run side by side.
        field.par_chunks_mut((length * inner).max(1)).for_each(|block| {
            let mut line = Line::default();
            for start in 0..inner {
                line.transform(&mut block[start..], inner, length);
            }
        });
        inner *= length;
    }
    field
}

/// Scratch space for one line of the transform.
#[derive(Default)]
struct Line {
    values: Vec<f64>,
    /// Positions of the parabolas that form the lower envelope.
    centers: Vec<usize>,
    /// Where each of them takes over.
    starts: Vec<f64>,
}

impl Line {
    /// Replaces `f(q)` by `min over p of (q - p)^2 + f(p)` for the `length` values that are `stride` apart.
    fn transform(&mut self, field: &mut [f64], stride: usize, length: usize) {
        self.values.clear();
        self.values.extend((0..length).map(|q| field[q * stride]));
        self.centers.clear();
        self.starts.clear();
        for (q, &value) in self.values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            let mut start = f64::NEG_INFINITY;
            while let (Some(&p), Some(&taken)) = (self.centers.last(), self.starts.last()) {
                // Both parabolas are equal here; from there on the one of q is lower.
                let (left, right) = (self.values[p] + (p * p) as f64, value + (q * q) as f64);
                start = (right - left) / (2 * (q - p)) as f64;
                if start > taken {
                    break;
                }
                self.centers.pop();
                self.starts.pop();
                start = f64::NEG_INFINITY;
            }
            self.centers.push(q);
            self.starts.push(start);
        }
        if self.centers.is_empty() {
            return;
        }
        let mut at = 0;
        for q in 0..length {
            while self.starts.get(at + 1).is_some_and(|&start| start < q as f64) {
                at += 1;
            }
            let p = self.centers[at];
            field[q * stride] = (q.abs_diff(p) * q.abs_diff(p)) as f64 + self.values[p];
        }
    }
}

/// The smallest box that holds both masks; `None` if both are empty.
fn bounds(a: &[u8], b: &[u8], size: &[usize]) -> Option<Vec<Range<usize>>> {
    let mut window: Vec<Range<usize>> = size.iter().map(|&length| length..0).collect();
    for at in (0..a.len()).filter(|&at| a[at] != 0 || b[at] != 0) {
        let mut rest = at;
        for (range, &length) in window.iter_mut().zip(size).rev() {
            let q = rest % length;
            rest /= length;
            *range = range.start.min(q)..range.end.max(q + 1);
        }
    }
    window.iter().all(|range| range.start < range.end).then_some(window)
}

/// The surface voxels of a mask inside of the window, in the window's own order.
fn surface(mask: &[u8], size: &[usize], window: &[Range<usize>]) -> Vec<bool> {
    let voxels: usize = window.iter().map(Range::len).product();
    (0..voxels)
        .into_par_iter()
        .map(|offset| {
            // From the last axis to the first: the voxel's offset in the whole mask, then its neighbours.
            let (mut rest, mut at, mut stride) = (offset, 0, 1);
            for (range, &length) in window.iter().zip(size).rev() {
                at += (range.start + rest % range.len()) * stride;
                rest /= range.len();
                stride *= length;
            }
            if mask[at] == 0 {
                return false;
            }
            let mut stride = 1;
            size.iter().rev().any(|&length| {
                let q = at / stride % length;
                let outside = q == 0 || q + 1 == length || mask[at - stride] == 0 || mask[at + stride] == 0;
                stride *= length;
                outside
            })
        })
        .collect()
}

/// The percentile of the distances from the surface `from` to the surface `to`, of which neither is empty.
fn directed(from: &[bool], to: &[bool], size: &[usize]) -> f64 {
    let squared = squared_distances(to, size);
    let mut distances: Vec<f64> =
        from.iter().zip(squared).filter(|(from, _)| **from).map(|(_, squared)| squared.sqrt()).collect();
    distances.sort_by(f64::total_cmp);
    let rank = PERCENTILE * (distances.len() - 1) as f64;
    let (low, high) = (distances[rank.floor() as usize], distances[rank.ceil() as usize]);
    low + (high - low) * rank.fract()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_and_empty_masks() {
        let full = [1; 12];
        let hausdorff = |a: &[u8], b: &[u8], size: &[usize]| hausdorff_95(a, b, size).ok().flatten();
        assert_eq!(hausdorff(&full, &full, &[3, 4]), Some(0.0));
        assert_eq!(hausdorff(&[0; 12], &[0; 12], &[3, 4]), Some(0.0));
        assert_eq!(hausdorff(&full, &[0; 12], &[3, 4]), None);
        assert!(hausdorff_95(&full, &full, &[3, 5]).is_err());
        assert!(hausdorff_95(&[], &[], &[]).is_err());
        // Opposite corners of a volume.
        let (mut a, mut b) = ([0; 24], [0; 24]);
        (a[0], b[23]) = (1, 1);
        assert_eq!(hausdorff(&a, &b, &[2, 3, 4]), Some(14.0_f64.sqrt()));
        // A ring around a hole: the hole's rim belongs to the surface, the corners of a block of 3 do too, its middle not.
        let window = vec![0..3, 0..3];
        assert_eq!(surface(&[1; 9], &[3, 3], &window).iter().filter(|voxel| **voxel).count(), 8);
    }

    /// Two masks of noise, the same as in the script that the expected numbers come from.
    fn noise(seed: u32, voxels: usize, share: u32) -> [Vec<u8>; 2] {
        let mut state = seed;
        [(); 2].map(|()| {
            let draw = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                u8::from(state >> 24 < share)
            };
            (0..voxels).map(draw).collect()
        })
    }

    /// MONAI 1.6.1's `compute_hausdorff_distance(.., percentile=95)` in f32, the same from scipy 1.17.1's
    /// `binary_erosion` and `distance_transform_edt` and numpy's `percentile` in f64 (equal to 1e-6); the latter is here.
    #[test]
    fn agrees_with_monai() {
        let cases: [(u32, &[usize], u32, f64); 6] = [
            (1, &[9, 11], 60, 3.0),
            (2, &[16, 16], 8, 5.062421073692861),
            (3, &[5, 8, 7], 30, 2.7715865174517376),
            (4, &[6, 9, 11], 3, 5.890541416623321),
            (5, &[12, 10, 14], 200, 1.0),
            (6, &[3, 20, 20], 2, 8.575399046223744),
        ];
        for (seed, size, share, expected) in cases {
            let [a, b] = noise(seed, size.iter().product(), share);
            let found = hausdorff_95(&a, &b, size).ok().flatten().unwrap_or(f64::NAN);
            assert!((found - expected).abs() < 1e-12, "{size:?}: {found} instead of {expected}");
        }
    }

    proptest! {
        /// The transform against all pairs of voxels.
        #[test]
        fn transform_is_exact(
            (size, seeds) in (1..4_usize, 1..6_usize, 1..7_usize).prop_flat_map(|(d, h, w)| {
                (Just([d, h, w]), prop::collection::vec(prop::bool::weighted(0.2), d * h * w))
            })
        ) {
            let at = |offset: usize| [offset / size[2] / size[1], offset / size[2] % size[1], offset % size[2]];
            let brute = |offset: usize| {
                let near = (0..seeds.len()).filter(|&other| seeds[other]).map(|other| {
                    (0..3).map(|axis| (at(offset)[axis].abs_diff(at(other)[axis])).pow(2)).sum::<usize>()
                });
                near.min().map_or(f64::INFINITY, |squared| squared as f64)
            };
            let expected: Vec<f64> = (0..seeds.len()).map(brute).collect();
            prop_assert_eq!(squared_distances(&seeds, &size), expected);
        }
    }
}
