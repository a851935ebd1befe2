//! Bringing slices to the size that a network is trained at, and its answers back.
//!
//! Shrinking averages over the pixels that fall together, growing interpolates linearly (the `Triangle` filter of the
//! crate `image`). A mask's pixel is inside where at least half of its area is.

use std::ops::Deref;

use image::imageops::{self, FilterType};
use image::{ImageBuffer, Luma, Pixel, Rgb};

use crate::{Error, Result};

/// A picture `[from[0], from[1], channels]`, interleaved, at the size `to`.
///
/// # Errors
/// [`Error::Shape`] if the bytes do not make such a picture.
pub fn bytes(picture: &[u8], channels: usize, from: [usize; 2], to: [usize; 2]) -> Result<Vec<u8>> {
    if channels == 3 {
        return scaled::<Rgb<u8>, _>(picture, from, to);
    }
    let planes = (0..channels).map(|c| {
        let plane: Vec<u8> = picture.iter().copied().skip(c).step_by(channels).collect();
        scaled::<Luma<u8>, _>(plane, from, to)
    });
    let planes = planes.collect::<Result<Vec<_>>>()?;
    Ok((0..to[0] * to[1]).flat_map(|pixel| planes.iter().map(move |plane| plane[pixel])).collect())
}

/// A mask `[from[0], from[1]]` of 0 and 1 at the size `to`.
///
/// # Errors
/// As [`bytes`].
pub fn mask(mask: &[u8], from: [usize; 2], to: [usize; 2]) -> Result<Vec<u8>> {
    let inside: Vec<u8> = mask.iter().map(|pixel| 255 * pixel).collect();
    Ok(bytes(&inside, 1, from, to)?.iter().map(|share| u8::from(*share >= 128)).collect())
}

/// Logits `[from[0], from[1]]` at the size `to`.
///
/// # Errors
/// As [`bytes`].
pub fn logits(values: &[f32], from: [usize; 2], to: [usize; 2]) -> Result<Vec<f32>> {
    // The crate cuts off below 0 and above 1.
    let (low, high) =
        values.iter().fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    let span = (high - low).max(f32::MIN_POSITIVE);
    let shares: Vec<f32> = values.iter().map(|value| (value - low) / span).collect();
    Ok(scaled::<Luma<f32>, _>(shares, from, to)?.iter().map(|share| share * span + low).collect())
}

fn scaled<P, C>(values: C, from: [usize; 2], to: [usize; 2]) -> Result<Vec<P::Subpixel>>
where
    P: Pixel + 'static,
    P::Subpixel: 'static,
    C: Deref<Target = [P::Subpixel]>,
{
    let [height, width] = from.map(|side| side as u32);
    let count = values.len();
    let picture = ImageBuffer::<P, C>::from_raw(width, height, values).filter(|picture| {
        picture.as_raw().len() == count && count == from[0] * from[1] * usize::from(P::CHANNEL_COUNT)
    });
    let picture = picture.ok_or_else(|| {
        Error::shape("resize", format!("{count} numbers do not make {} rows of {}", from[0], from[1]))
    })?;
    Ok(imageops::resize(&picture, to[1] as u32, to[0] as u32, FilterType::Triangle).into_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_averages_and_doubling_interpolates() -> Result<()> {
        for channels in 1..5 {
            assert_eq!(bytes(&vec![40; 16 * channels], channels, [4, 4], [2, 2])?, vec![40; 4 * channels]);
        }
        // A step from 0 to 200: the new pixels lie a quarter and three quarters of the way between the centres.
        assert_eq!(bytes(&[0, 200], 1, [1, 2], [1, 4])?, [0, 50, 150, 200]);
        assert_eq!(logits(&[-1.0, 1.0], [1, 2], [1, 4])?, [-1.0, -0.5, 0.5, 1.0]);
        Ok(())
    }

    #[test]
    fn a_mask_stays_one_and_keeps_its_area() -> Result<()> {
        let disc = |side: usize| -> Vec<u8> {
            let half = side as f64 / 2.0;
            let inside = |at: usize| {
                let [y, x] = [at / side, at % side].map(|v| v as f64 + 0.5 - half);
                u8::from(y.hypot(x) < 0.4 * side as f64)
            };
            (0..side * side).map(inside).collect()
        };
        let small = mask(&disc(64), [64, 64], [32, 32])?;
        assert!(small.iter().all(|pixel| *pixel <= 1));
        let area = |mask: &[u8]| mask.iter().map(|pixel| usize::from(*pixel)).sum::<usize>() as f64;
        assert!((area(&small) / area(&disc(32)) - 1.0).abs() < 0.02, "{} of {}", area(&small), area(&disc(32)));
        Ok(())
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert!(bytes(&[0; 9], 2, [2, 2], [1, 1]).is_err() && bytes(&[0; 11], 3, [2, 2], [1, 1]).is_err());
    }
}
