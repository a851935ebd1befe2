//! Pictures of predictions: the FLAIR slice in grey at twice its size, the true outline in green, the predicted one in
//! magenta. The true outline runs along the inside of its border and the predicted one along the outside, so both stay
//! visible where they agree. [`Tile::captioned`] writes below a picture what it shows.

use std::io::Cursor;
use std::path::Path;

use image::{GrayImage, ImageFormat, Rgb, RgbImage};
use tiff::encoder::colortype::{ColorType, Gray8, Gray32Float};
use tiff::encoder::{TiffEncoder, TiffValue};

use crate::data::{CHANNELS, FLAIR, write_atomically};
use crate::{Error, Result};

/// Pixels of the picture for one pixel of the slice, along each side.
pub const ZOOM: usize = 2;
/// Colour of the true outline.
pub const TRUTH: [u8; 3] = [64, 255, 96];
/// Colour of the predicted outline.
pub const PREDICTED: [u8; 3] = [255, 48, 208];
/// Pixels between the tiles of a contact sheet.
const GAP: usize = 6;
/// Colour of the gaps.
const GAP_COLOR: Rgb<u8> = Rgb([40, 40, 46]);

/// A picture in memory: RGB, 8 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `height * width * 3` bytes.
    pub rgb: Vec<u8>,
}

/// Rows and columns of a letter, before it is enlarged.
const LETTER: usize = 8;
/// Columns of a picture for which letters have their original size; in one of twice as many they are twice as large.
const LETTER_AT: usize = 256;
/// Colour of plain captions.
pub const TEXT: [u8; 3] = [226, 228, 232];

impl Tile {
    /// The picture with lines of text in a strip below, each a row of pieces in their colours. Letters that do not fit
    /// are cut off; characters beyond ASCII become `?`.
    pub fn captioned(mut self, lines: &[&[(&str, [u8; 3])]]) -> Self {
        let scale = (self.width / LETTER_AT).max(1);
        let line_height = (LETTER + 3) * scale;
        let strip = lines.len() * line_height + 3 * scale;
        let (top, stride) = (self.height, 3 * self.width);
        self.height += strip;
        self.rgb.extend(std::iter::repeat_n(GAP_COLOR.0, strip * self.width).flatten());
        for (at, line) in lines.iter().enumerate() {
            let mut left = 2 * scale;
            let letters = line.iter().flat_map(|(text, color)| text.chars().map(move |letter| (letter, *color)));
            for (letter, color) in letters {
                if left + LETTER * scale > self.width {
                    break;
                }
                let index = if letter.is_ascii() { letter as usize } else { '?' as usize };
                let rows = font8x8::legacy::BASIC_LEGACY[index];
                for (y, x) in (0..LETTER * scale).flat_map(|y| (0..LETTER * scale).map(move |x| (y, x))) {
                    if (rows[y / scale] >> (x / scale)) & 1 == 1 {
                        let to = (top + 3 * scale + at * line_height + y) * stride + 3 * (left + x);
                        self.rgb[to..to + 3].copy_from_slice(&color);
                    }
                }
                left += LETTER * scale;
            }
        }
        self
    }

    /// The bytes of a PNG file.
    ///
    /// # Errors
    /// A tile whose bytes do not fit its size.
    pub fn png(&self) -> Result<Vec<u8>> {
        let picture = RgbImage::from_raw(self.width as u32, self.height as u32, self.rgb.clone())
            .filter(|_| self.rgb.len() == self.width * self.height * 3);
        let wrong =
            || Error::shape("overlay", format!("{} bytes for {}x{} pixels", self.rgb.len(), self.height, self.width));
        png(&picture.ok_or_else(wrong)?.into())
    }
}

/// Draws one slice: `rgb` `[H, W, 3]`, `truth` and `predicted` `[H, W]` with values other than 0 inside. The result is [`ZOOM`] times as large.
///
/// # Errors
/// Sizes that do not fit together.
pub fn overlay(rgb: &[u8], height: usize, width: usize, truth: Option<&[u8]>, predicted: &[u8]) -> Result<Tile> {
    let pixels = height * width;
    let fits = |mask: &[u8]| mask.len() == pixels;
    if pixels == 0 || rgb.len() != pixels * CHANNELS || !fits(predicted) || !truth.is_none_or(fits) {
        return Err(Error::shape(
            "overlay",
            format!(
                "{height}x{width} pixels do not fit to {} image bytes, {} predicted and {:?} true mask values",
                rgb.len(),
                predicted.len(),
                truth.map(<[u8]>::len)
            ),
        ));
    }
    let flair: Vec<u8> = rgb.iter().copied().skip(FLAIR).step_by(CHANNELS).collect();
    let white = display_white(&flair);
    let truth = truth.unwrap_or_default();
    let (rows, columns) = (height * ZOOM, width * ZOOM);
    let mut picture = Vec::with_capacity(rows * columns * 3);
    for y in 0..rows {
        for x in 0..columns {
            let color = if on_border(truth, height, width, y, x, true) {
                TRUTH
            } else if on_border(predicted, height, width, y, x, false) {
                PREDICTED
            } else {
                [shade(flair[y / ZOOM * width + x / ZOOM], white); 3]
            };
            picture.extend(color);
        }
    }
    Ok(Tile { height: rows, width: columns, rgb: picture })
}

/// Draws a picture in its colours: `rgb` `[H, W, 3]`, with the outline of `truth` `[H, W]`. The result is [`ZOOM`] times
/// as large.
///
/// # Errors
/// Sizes that do not fit together.
pub fn outlined(rgb: &[u8], height: usize, width: usize, truth: &[u8]) -> Result<Tile> {
    if rgb.len() != 3 * height * width || truth.len() != height * width {
        let message = format!("{} and {} bytes do not fit {height}x{width} pixels", rgb.len(), truth.len());
        return Err(Error::shape("outlined", message));
    }
    let (rows, columns) = (height * ZOOM, width * ZOOM);
    let mut picture = Vec::with_capacity(rows * columns * 3);
    for y in 0..rows {
        for x in 0..columns {
            let at = 3 * (y / ZOOM * width + x / ZOOM);
            let inside = on_border(truth, height, width, y, x, true);
            picture.extend_from_slice(if inside { &TRUTH } else { &rgb[at..at + 3] });
        }
    }
    Ok(Tile { height: rows, width: columns, rgb: picture })
}

/// [`overlay`], written to a PNG file.
///
/// # Errors
/// Sizes that do not fit together, or a file that cannot be written.
pub fn write_overlay(
    path: &Path,
    rgb: &[u8],
    height: usize,
    width: usize,
    truth: Option<&[u8]>,
    predicted: &[u8],
) -> Result<()> {
    contact_sheet(path, &[overlay(rgb, height, width, truth, predicted)?], 1)
}

/// Writes a mask `[H, W]` as a grey picture: 255 where it is not 0. TIFF, as Kaggle's masks, where `path` ends with `.tif`;
/// else PNG.
///
/// # Errors
/// Sizes that do not fit together, or a file that cannot be written.
pub fn write_mask(path: &Path, mask: &[u8], height: usize, width: usize) -> Result<()> {
    let grey: Vec<u8> = mask.iter().map(|&inside| if inside == 0 { 0 } else { 255 }).collect();
    if is_tiff(path) { write_tiff::<Gray8>(path, &grey, height, width) } else { write_grey(path, grey, height, width) }
}

/// Writes probabilities `[H, W]`: as they are (32-bit float TIFF) where `path` ends with `.tif`, else as a grey PNG in which
/// 0 is black and 1 is white.
///
/// # Errors
/// Sizes that do not fit together, or a file that cannot be written.
pub fn write_probability(path: &Path, probability: &[f32], height: usize, width: usize) -> Result<()> {
    if is_tiff(path) {
        return write_tiff::<Gray32Float>(path, probability, height, width);
    }
    let grey = probability.iter().map(|&p| (p.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    write_grey(path, grey, height, width)
}

fn is_tiff(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tif") || ending.eq_ignore_ascii_case("tiff"))
}

/// Encodes in memory first, as [`write_png`].
fn write_tiff<C: ColorType>(path: &Path, values: &[C::Inner], height: usize, width: usize) -> Result<()>
where
    [C::Inner]: TiffValue,
{
    if values.is_empty() || values.len() != height * width {
        return Err(Error::shape("write_mask", format!("{} values for {height}x{width} pixels", values.len())));
    }
    let mut bytes = Cursor::new(Vec::new());
    TiffEncoder::new(&mut bytes)
        .and_then(|mut encoder| encoder.write_image::<C>(width as u32, height as u32, values))
        .map_err(|source| Error::io("encode", path)(std::io::Error::other(source)))?;
    write_atomically(path, &bytes.into_inner())
}

/// Writes several tiles as one PNG with small gaps, `columns` in a row; a single tile has no frame.
///
/// # Errors
/// No tile, a tile whose bytes do not fit its size, or a file that cannot be written.
pub fn contact_sheet(path: &Path, tiles: &[Tile], columns: usize) -> Result<()> {
    let columns = columns.clamp(1, tiles.len().max(1));
    let (cell_height, cell_width) =
        tiles.iter().fold((0, 0), |(height, width), tile| (tile.height.max(height), tile.width.max(width)));
    if cell_height == 0 || cell_width == 0 || tiles.iter().any(|tile| tile.rgb.len() != tile.height * tile.width * 3) {
        return Err(Error::shape("contact_sheet", format!("{} tiles that are empty or lack bytes", tiles.len())));
    }
    let frame = if tiles.len() == 1 { 0 } else { GAP };
    let side = |cells: usize, cell: usize| (cells * (cell + frame) + frame) as u32;
    let rows = tiles.len().div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(side(columns, cell_width), side(rows, cell_height), GAP_COLOR);
    for (at, tile) in tiles.iter().enumerate() {
        let (top, left) = (frame + at / columns * (cell_height + frame), frame + at % columns * (cell_width + frame));
        for (offset, color) in tile.rgb.chunks_exact(3).enumerate() {
            let (y, x) = (top + offset / tile.width, left + offset % tile.width);
            sheet.put_pixel(x as u32, y as u32, Rgb([color[0], color[1], color[2]]));
        }
    }
    write_png(path, &sheet.into())
}

fn write_grey(path: &Path, grey: Vec<u8>, height: usize, width: usize) -> Result<()> {
    let values = grey.len();
    let picture =
        GrayImage::from_raw(width as u32, height as u32, grey).filter(|_| height * width == values && values > 0);
    let picture =
        picture.ok_or_else(|| Error::shape("write_mask", format!("{values} values for {height}x{width} pixels")))?;
    write_png(path, &picture.into())
}

/// Encodes in memory first, so that the file is complete or not there.
fn write_png(path: &Path, picture: &image::DynamicImage) -> Result<()> {
    write_atomically(path, &png(picture)?)
}

/// The bytes of a PNG file.
fn png(picture: &image::DynamicImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    picture
        .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
        .map_err(|source| Error::io("encode", "a picture")(std::io::Error::other(source)))?;
    Ok(bytes)
}

/// The FLAIR channel of `rgb` `[H, W, 3]` as a grey PNG file's bytes, brightened as in the overlays.
///
/// # Errors
/// Sizes that do not fit together.
pub fn grey_png(rgb: &[u8], height: usize, width: usize) -> Result<Vec<u8>> {
    let flair: Vec<u8> = rgb.iter().copied().skip(FLAIR).step_by(CHANNELS).collect();
    let white = display_white(&flair);
    let grey = flair.iter().map(|&value| shade(value, white)).collect();
    let picture =
        GrayImage::from_raw(width as u32, height as u32, grey).filter(|_| rgb.len() == height * width * CHANNELS);
    let picture =
        picture.ok_or_else(|| Error::shape("grey_png", format!("{} bytes for {height}x{width} pixels", rgb.len())))?;
    png(&picture.into())
}

/// A FLAIR value as a grey, where `white` and above are white.
fn shade(value: u8, white: f32) -> u8 {
    (f32::from(value) / white * 255.0).min(255.0) as u8
}

/// Whether the zoomed pixel `(y, x)` lies on the mask's border, just inside or just outside of it.
fn on_border(mask: &[u8], height: usize, width: usize, y: usize, x: usize, inside: bool) -> bool {
    if mask.is_empty() {
        return false;
    }
    let at = |y: usize, x: usize| mask[y / ZOOM * width + x / ZOOM] != 0;
    if at(y, x) != inside {
        return false;
    }
    let rows = y.saturating_sub(1)..=(y + 1).min(height * ZOOM - 1);
    let columns = x.saturating_sub(1)..=(x + 1).min(width * ZOOM - 1);
    rows.into_iter().any(|row| columns.clone().any(|column| at(row, column) != inside))
}

/// The FLAIR value shown as white: the 99.5th percentile of the slice's head, since brightness differs by patient.
fn display_white(flair: &[u8]) -> f32 {
    let mut sorted: Vec<u8> = flair.iter().copied().filter(|&value| value > 0).collect();
    sorted.sort_unstable();
    let white = sorted.get(sorted.len().saturating_sub(1) * 995 / 1000).copied().unwrap_or(255);
    // A nearly black slice stays dark instead of showing its noise.
    f32::from(white.max(48))
}
