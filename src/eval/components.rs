//! Connected pieces of a 3D mask: which voxels hang together, and the largest of them.
//!
//! A volume is `[depth, height, width]` bytes, row-major (`(z * height + y) * width + x`), not 0 inside. Two voxels are
//! neighbours if they share a face, an edge or a corner (26-connectivity, as `scipy.ndimage.label` with a structure of ones).
//! A single slice is a volume of depth 1, where this is 8-connectivity.

use crate::{Error, Result};

/// The connected pieces of a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Components {
    /// `[depth, height, width]`: 0 outside, else 1, 2, ... in the order of each piece's first voxel.
    pub labels: Vec<u32>,
    /// Voxels of piece `label`, at `label - 1`.
    pub voxels: Vec<usize>,
}

impl Components {
    /// The label of the piece with the most voxels, the first of several as large; `None` for an empty mask.
    pub fn largest(&self) -> Option<u32> {
        // `max_by_key` takes the last of equals, so the search runs from the back.
        let (at, _) = self.voxels.iter().enumerate().rev().max_by_key(|(_, voxels)| **voxels)?;
        Some(at as u32 + 1)
    }
}

/// Labels the pieces of `mask` `[depth, height, width]`.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// // Two voxels that touch at a corner of their slices are one piece; the third lies apart.
/// let found = shadegrad::eval::components::label(&[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1], [2, 2, 3])?;
/// assert_eq!(found.voxels, [1, 2]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if the mask's length is not the size's product, or is beyond `u32`.
pub fn label(mask: &[u8], size: [usize; 3]) -> Result<Components> {
    let [depth, height, width] = size;
    if depth.checked_mul(height).and_then(|plane| plane.checked_mul(width)) != Some(mask.len()) {
        return Err(Error::shape("components", format!("{} bytes are no volume of {size:?} voxels", mask.len())));
    }
    if u32::try_from(mask.len()).is_err() {
        return Err(Error::shape("components", format!("{size:?} voxels are more than 32 bits can number")));
    }
    let mut found = Components { labels: vec![0; mask.len()], voxels: Vec::new() };
    let mut waiting: Vec<usize> = Vec::new();
    for start in 0..mask.len() {
        if mask[start] == 0 || found.labels[start] != 0 {
            continue;
        }
        // A flood from the first voxel that no earlier one reached. A voxel is labelled when it is found, so it waits once.
        let label = found.voxels.len() as u32 + 1;
        let mut voxels = 0;
        found.labels[start] = label;
        waiting.push(start);
        while let Some(at) = waiting.pop() {
            voxels += 1;
            let (z, y, x) = (at / (height * width), at / width % height, at % width);
            for z in around(z, depth) {
                for y in around(y, height) {
                    for x in around(x, width) {
                        let next = (z * height + y) * width + x;
                        if mask[next] != 0 && found.labels[next] == 0 {
                            found.labels[next] = label;
                            waiting.push(next);
                        }
                    }
                }
            }
        }
        found.voxels.push(voxels);
    }
    Ok(found)
}

/// Clears everything but the largest piece of `mask` `[depth, height, width]`; returns how many voxels were cleared.
/// Of several pieces as large, the first in row-major order stays.
///
/// # Errors
/// As [`label`].
pub fn keep_largest(mask: &mut [u8], size: [usize; 3]) -> Result<usize> {
    let found = label(mask, size)?;
    let Some(kept) = found.largest() else { return Ok(0) };
    let mut cleared = 0;
    for (voxel, label) in mask.iter_mut().zip(&found.labels) {
        if *label != kept && *voxel != 0 {
            *voxel = 0;
            cleared += 1;
        }
    }
    Ok(cleared)
}

/// `at` and its neighbours within `0..length`.
fn around(at: usize, length: usize) -> std::ops::Range<usize> {
    at.saturating_sub(1)..(at + 2).min(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_26_neighbours_connects_and_nothing_further() -> Result<()> {
        let size = [5, 5, 5];
        for (dz, dy, dx) in (0..125).map(|at| (at / 25, at / 5 % 5, at % 5)) {
            let mut mask = [0u8; 125];
            mask[62] = 1; // the middle, (2, 2, 2)
            mask[(dz * 5 + dy) * 5 + dx] = 7;
            let apart = [dz, dy, dx].iter().any(|at| at.abs_diff(2) > 1);
            assert_eq!(label(&mask, size)?.voxels.len(), 1 + usize::from(apart), "{dz} {dy} {dx}");
        }
        Ok(())
    }

    #[test]
    fn rows_do_not_wrap_around() -> Result<()> {
        // The last column of a row and the first of the next are neighbours in memory only; so are slices.
        assert_eq!(label(&[0, 0, 0, 1, 1, 0, 0, 0], [1, 2, 4])?.voxels, [1, 1]);
        assert_eq!(label(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0], [2, 3, 3])?.voxels, [1, 1]);
        Ok(())
    }

    #[test]
    fn the_largest_stays_and_the_first_of_equals() -> Result<()> {
        let mut mask = [1, 0, 1, 1, 0, 1, 1];
        assert_eq!(keep_largest(&mut mask, [1, 1, 7])?, 3);
        assert_eq!(mask, [0, 0, 1, 1, 0, 0, 0]);
        assert_eq!(keep_largest(&mut [0; 8], [2, 2, 2])?, 0);
        assert_eq!(label(&[], [0, 4, 4])?.largest(), None);
        assert!(keep_largest(&mut mask, [1, 2, 3]).is_err());
        assert!(label(&[], [usize::MAX, 2, 2]).is_err());
        Ok(())
    }

    #[test]
    fn agrees_with_joining_pairs_until_nothing_changes() -> Result<()> {
        // The specification: repeatedly give neighbours the smaller of their two numbers.
        let size = [4, 7, 9];
        let mut state = 1u32;
        let mask: Vec<u8> = (0..4 * 7 * 9)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                u8::from(state >> 24 < 40)
            })
            .collect();
        let at = |place: usize| [place / 63, place / 9 % 7, place % 9];
        let near = |a: usize, b: usize| at(a).iter().zip(at(b)).all(|(a, b)| a.abs_diff(b) <= 1);
        let inside: Vec<usize> = (0..mask.len()).filter(|place| mask[*place] != 0).collect();
        let mut names: Vec<usize> = (0..mask.len()).collect();
        let mut changed = true;
        while changed {
            changed = false;
            for (a, b) in inside.iter().flat_map(|a| inside.iter().map(|b| (*a, *b))) {
                if near(a, b) && names[a] < names[b] {
                    names[b] = names[a];
                    changed = true;
                }
            }
        }
        let found = label(&mask, size)?;
        assert!(found.voxels.len() > 3, "the case must hold several pieces: {:?}", found.voxels);
        assert_eq!(found.voxels.iter().sum::<usize>(), inside.len());
        for (a, b) in inside.iter().flat_map(|a| inside.iter().map(|b| (*a, *b))) {
            assert_eq!(found.labels[a] == found.labels[b], names[a] == names[b]);
        }
        Ok(())
    }
}
