//! The data set: reading slices ([`kaggle`]), dividing patients into training and validation ([`split`]), bringing
//! brightness to one scale ([`normalize`]), changing samples at random ([`augment`]) and making a synthetic set that needs
//! no download ([`phantom`]). What is only predicted may come in more formats: [`volume`] finds and reads pictures, NIfTI
//! ([`nifti`]) and DICOM ([`dicom`]). [`resize`] brings slices to another size.
//!
//! Slices stay bytes (`height * width * 3`, interleaved) until the device loads a batch. This file holds what all of
//! them share: decoding one picture, and writing one file so that a killed run never leaves half of it.

pub mod augment;
pub mod dicom;
pub mod kaggle;
pub mod nifti;
pub mod normalize;
pub mod phantom;
pub mod resize;
pub mod split;
pub mod volume;

pub use augment::AugmentConfig;
pub use kaggle::{Dataset, Inspection, Patient, PatientRow, Slice};
pub use nifti::Geometry;
pub use normalize::{Normalization, Rescale};
pub use split::Split;
pub use volume::{Format, Volume, VolumeSource, find_volumes};

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult};

use crate::{Error, Result};

/// Channels of a slice: 0 pre-contrast, 1 FLAIR, 2 post-contrast.
pub(crate) const CHANNELS: usize = 3;

/// The channel that shows the abnormality.
pub(crate) const FLAIR: usize = 1;

/// One decoded picture: `channels` interleaved bytes for each of `height * width` pixels, rows from top to bottom.
pub(crate) struct Picture {
    /// Rows.
    pub(crate) height: usize,
    /// Columns.
    pub(crate) width: usize,
    /// 1 (grey) or 3 (RGB).
    pub(crate) channels: usize,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
}

/// Decodes an RGB slice, `.tif` or `.png`.
pub(crate) fn decode_image(path: &Path) -> Result<Picture> {
    decode(path, &[CHANNELS])
}

/// Decodes an image to predict, RGB or grey, `.tif` or `.png`.
pub(crate) fn decode_any(path: &Path) -> Result<Picture> {
    decode(path, &[1, CHANNELS])
}

/// Decodes a mask, `.tif` or `.png`, to bytes 0 (background) and 1 (tumour); the file has 0 and 255, or 0 and 1.
pub(crate) fn decode_mask(path: &Path) -> Result<Picture> {
    let mut mask = decode(path, &[1])?;
    let full = if mask.bytes.contains(&255) { 255 } else { 1 };
    if let Some(at) = mask.bytes.iter().position(|&value| value != 0 && value != full) {
        return Err(Error::data(
            path,
            format!(
                "the mask has the value {} at row {}, column {}, but only 0 and 255 (or 0 and 1) are allowed; \
                 save it again without resampling or lossy compression",
                mask.bytes[at],
                at / mask.width,
                at % mask.width
            ),
        ));
    }
    for value in &mut mask.bytes {
        *value = u8::from(*value != 0);
    }
    Ok(mask)
}

/// Decodes an 8-bit picture whose number of channels (1 or 3) must be among `allowed`.
fn decode(path: &Path, allowed: &[usize]) -> Result<Picture> {
    let file = fs::read(path).map_err(Error::io("read", path))?;
    let is_png = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
    let picture = if is_png { decode_png(path, &file, allowed)? } else { decode_tiff(path, file, allowed)? };
    if picture.bytes.is_empty() || picture.bytes.len() != picture.height * picture.width * picture.channels {
        return Err(Error::data(
            path,
            format!(
                "{} bytes for {}x{} pixels of {} channels; save it with interleaved channels",
                picture.bytes.len(),
                picture.height,
                picture.width,
                picture.channels
            ),
        ));
    }
    Ok(picture)
}

/// Decodes a TIFF in either of the data set's encodings (strips of 11 rows with an over-long last one; one deflated strip).
fn decode_tiff(path: &Path, file: Vec<u8>, allowed: &[usize]) -> Result<Picture> {
    let damaged = |source: tiff::TiffError| {
        Error::data(path, format!("the TIFF cannot be decoded ({source}); it is damaged or cut off: copy it again"))
    };
    let mut decoder = Decoder::new(Cursor::new(file)).map_err(damaged)?;
    let (width, height) = decoder.dimensions().map_err(damaged)?;
    let layout = decoder.colortype().map_err(damaged)?;
    let bits = layout.bit_depth();
    if bits != 8 {
        return Err(wrong_depth(path, bits));
    }
    let channels = match layout {
        ColorType::RGB(_) => 3,
        ColorType::Gray(_) => 1,
        _ => 0,
    };
    if !allowed.contains(&channels) {
        return Err(wrong_channels(path, &format!("{layout:?}"), allowed));
    }
    if decoder.more_images() {
        return Err(Error::data(path, "the TIFF holds several pages; save each slice as a file of its own"));
    }
    match decoder.read_image().map_err(damaged)? {
        DecodingResult::U8(bytes) => Ok(Picture { height: height as usize, width: width as usize, channels, bytes }),
        _ => Err(Error::data(path, "the samples are not unsigned bytes; convert them to 8 bits, 0 to 255")),
    }
}

/// Decodes a PNG.
fn decode_png(path: &Path, file: &[u8], allowed: &[usize]) -> Result<Picture> {
    let decoded = image::load_from_memory_with_format(file, image::ImageFormat::Png).map_err(|source| {
        Error::data(path, format!("the PNG cannot be decoded ({source}); it is damaged or cut off: copy it again"))
    })?;
    let layout = decoded.color();
    let bits = layout.bytes_per_pixel() / layout.channel_count() * 8;
    if bits != 8 {
        return Err(wrong_depth(path, bits));
    }
    let (height, width) = (decoded.height() as usize, decoded.width() as usize);
    let (channels, bytes) = match decoded {
        image::DynamicImage::ImageRgb8(pixels) => (3, pixels.into_raw()),
        image::DynamicImage::ImageLuma8(pixels) => (1, pixels.into_raw()),
        _ => (0, Vec::new()),
    };
    if !allowed.contains(&channels) {
        return Err(wrong_channels(path, &format!("{layout:?}"), allowed));
    }
    Ok(Picture { height, width, channels, bytes })
}

/// The error for samples that are not bytes.
fn wrong_depth(path: &Path, bits: u8) -> Error {
    Error::data(path, format!("{bits} bits a channel, but slices and masks have 8; scale the values to 0..255 first"))
}

/// The error for a picture with another number of channels.
fn wrong_channels(path: &Path, layout: &str, allowed: &[usize]) -> Error {
    let wanted = match allowed {
        [1] => "a mask has one grey channel; save it as 8-bit grey",
        [_] => {
            "a slice is RGB (pre-contrast, FLAIR, post-contrast); save it as 8-bit RGB, with FLAIR in place of a missing sequence"
        }
        _ => "an image to predict is RGB or grey; save it as 8-bit RGB or 8-bit grey, without transparency",
    };
    Error::data(path, format!("the picture is {layout}, but {wanted}"))
}

/// Writes `bytes` beside `path` under a temporary name and renames the result, so that `path` is never half written.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let temporary: PathBuf = path.with_file_name(name);
    let written = fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| {
        // Best effort: the reason that matters is the one above.
        let _ = fs::remove_file(&temporary);
        Error::io("write", path)(source)
    })
}
