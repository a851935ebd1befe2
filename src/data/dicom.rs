//! DICOM series, to predict: every file of one `SeriesInstanceUID` in one folder is a slice of one volume.
//!
//! Slices are ordered along the normal of the image plane by `ImagePositionPatient`, where all have a position; else by
//! `InstanceNumber`; else by file name. A file with several frames is a volume by itself, its frames in stored order.
//! Values are those after the modality rescaling (Hounsfield units, say). `MONOCHROME1` (white is low) counts downwards, so
//! that bright is high everywhere. Uncompressed, deflated and RLE files are read; others name their transfer syntax.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use dicom_object::{DefaultDicomObject, OpenFileOptions, Tag};
use dicom_pixeldata::{PhotometricInterpretation, PixelDecoder, PlanarConfiguration};

use super::kaggle::{folder_name, other_size};
use super::nifti::Geometry;
use super::volume::{Channel, Decoded};
use crate::{Error, Result};

const SERIES_INSTANCE_UID: Tag = Tag(0x0020, 0x000E);
const SERIES_NUMBER: Tag = Tag(0x0020, 0x0011);
const INSTANCE_NUMBER: Tag = Tag(0x0020, 0x0013);
const IMAGE_POSITION: Tag = Tag(0x0020, 0x0032);
const IMAGE_ORIENTATION: Tag = Tag(0x0020, 0x0037);
const SLICE_THICKNESS: Tag = Tag(0x0018, 0x0050);
const PIXEL_SPACING: Tag = Tag(0x0028, 0x0030);
const FRAMES: Tag = Tag(0x0028, 0x0008);
const PIXEL_DATA: Tag = Tag(0x7FE0, 0x0010);

/// The transfer syntaxes that can be read: little endian implicit and explicit, big endian, deflated, RLE.
const READABLE: [&str; 5] = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",
];

/// One file, as far as its header goes.
#[derive(Debug, Clone)]
pub(super) struct SliceHeader {
    pub(super) path: PathBuf,
    series: String,
    number: Option<i64>,
    instance: Option<i64>,
    position: Option<[f64; 3]>,
    /// Direction of a row (from column to column), then of a column.
    orientation: Option<[f64; 6]>,
    /// Millimetres from row to row, then from column to column.
    spacing: Option<[f64; 2]>,
    thickness: Option<f64>,
}

/// The files of one series in one folder, in the order of the volume.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) folder: PathBuf,
    /// Names the outputs: the folder, with the series' number where the folder holds several; a single file's own name.
    pub(super) name: String,
    pub(super) slices: Vec<SliceHeader>,
}

/// Whether a file is DICOM: by its ending, or by the letters at byte 128. `DICOMDIR` is a table of contents, not an image.
pub(super) fn is_dicom(path: &Path) -> bool {
    if path.file_name().is_some_and(|name| name.eq_ignore_ascii_case("DICOMDIR")) {
        return false;
    }
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if ["dcm", "dicom", "ima"].contains(&ending.as_str()) {
        return true;
    }
    let mut start = [0; 132];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start.ends_with(b"DICM")
}

/// Groups DICOM files into series; reads their headers.
///
/// # Errors
/// A file that is no DICOM, or two slices of a series at one position.
pub(super) fn series(files: &[PathBuf]) -> Result<Vec<Series>> {
    let mut groups: BTreeMap<(PathBuf, String), Vec<SliceHeader>> = BTreeMap::new();
    for path in files {
        let header = read_header(path)?;
        let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        groups.entry((folder, header.series.clone())).or_default().push(header);
    }
    let folders: Vec<PathBuf> = groups.keys().map(|(folder, _)| folder.clone()).collect();
    let mut found = Vec::with_capacity(groups.len());
    for (at, ((folder, _), mut slices)) in groups.into_iter().enumerate() {
        sort(&mut slices)?;
        let several = folders.iter().filter(|other| **other == folder).count() > 1;
        let name = match (&slices[..], several, slices[0].number) {
            _ if files.len() == 1 => {
                slices[0].path.file_stem().map_or("slice".into(), |name| name.to_string_lossy().into_owned())
            }
            (_, false, _) => folder_name(&folder),
            (_, true, Some(number)) => format!("{}_{number}", folder_name(&folder)),
            (_, true, None) => format!("{}_series{}", folder_name(&folder), at + 1),
        };
        found.push(Series { folder, name, slices });
    }
    Ok(found)
}

fn damaged(path: &Path, error: &dyn std::error::Error) -> Error {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    Error::data(path, format!("the DICOM file cannot be read ({deepest}); it is damaged or cut off: copy it again"))
}

fn read_header(path: &Path) -> Result<SliceHeader> {
    let opened = OpenFileOptions::new().read_until(PIXEL_DATA).open_file(path);
    let object = opened.map_err(|error| match error {
        dicom_object::ReadError::OpenFile { source, .. } => Error::io("read", path)(source),
        other => damaged(path, &other),
    })?;
    let text = |tag: Tag| object.get(tag).and_then(|element| element.to_str().ok().map(|text| text.trim().to_owned()));
    let whole = |tag: Tag| object.get(tag).and_then(|element| element.to_int::<i64>().ok());
    Ok(SliceHeader {
        path: path.to_owned(),
        series: text(SERIES_INSTANCE_UID).unwrap_or_default(),
        number: whole(SERIES_NUMBER),
        instance: whole(INSTANCE_NUMBER),
        position: numbers(&object, IMAGE_POSITION),
        orientation: numbers(&object, IMAGE_ORIENTATION),
        spacing: numbers(&object, PIXEL_SPACING),
        thickness: numbers::<1>(&object, SLICE_THICKNESS).map(|[value]| value),
    })
}

/// `N` finite numbers of an attribute, if it has just these.
fn numbers<const N: usize>(object: &DefaultDicomObject, tag: Tag) -> Option<[f64; N]> {
    let values = object.get(tag)?.to_multi_float64().ok()?;
    values.iter().all(|value| value.is_finite()).then(|| values.try_into().ok())?
}

/// Brings the slices of a series into order.
fn sort(slices: &mut [SliceHeader]) -> Result<()> {
    slices.sort_by(|a, b| a.path.cmp(&b.path));
    let depth = |slice: &SliceHeader, normal: [f64; 3]| slice.position.map(|position| dot(position, normal));
    let normal = slices[0].orientation.map(|orientation| cross(along_row(orientation), along_column(orientation)));
    match normal {
        Some(normal) if slices.iter().all(|slice| slice.position.is_some()) => {
            slices.sort_by(|a, b| depth(a, normal).partial_cmp(&depth(b, normal)).unwrap_or(std::cmp::Ordering::Equal));
            let same = |pair: &&[SliceHeader]| {
                let [a, b] = [&pair[0], &pair[1]].map(|slice| depth(slice, normal).unwrap_or_default());
                (a - b).abs() < 1e-3
            };
            if let Some(pair) = slices.windows(2).find(same) {
                let message = format!(
                    "lies at the same position as {}; the series holds several volumes (times, echoes): leave one of them in the folder",
                    pair[0].path.display()
                );
                return Err(Error::data(&pair[1].path, message));
            }
        }
        _ if slices.iter().all(|slice| slice.instance.is_some()) => slices.sort_by_key(|slice| slice.instance),
        _ => {}
    }
    Ok(())
}

/// Reads the slices of a series into one volume.
pub(super) fn read(series: &Series) -> Result<Decoded> {
    let mut frames = 0;
    let mut first: Option<(PathBuf, [usize; 2], usize)> = None;
    let mut channels: Vec<Vec<f32>> = Vec::new();
    for slice in &series.slices {
        let (size, count, values) = read_pixels(&slice.path)?;
        match &first {
            None => {
                channels = vec![Vec::new(); values.len()];
                first = Some((slice.path.clone(), size, values.len()));
            }
            Some((path, expected, _)) if *expected != size => {
                return Err(other_size(&slice.path, (size[0], size[1]), path, (expected[0], expected[1])));
            }
            Some((path, _, expected)) if *expected != values.len() => {
                let message = format!(
                    "has {} channels, but {} has {expected}; a series has one kind",
                    values.len(),
                    path.display()
                );
                return Err(Error::data(&slice.path, message));
            }
            Some(_) => {}
        }
        frames += count;
        for (channel, values) in channels.iter_mut().zip(values) {
            channel.extend(values);
        }
    }
    let Some((_, [height, width], _)) = first else {
        return Err(Error::data(&series.folder, "the series has no slice"));
    };
    let geometry = if frames == series.slices.len() { geometry(&series.slices) } else { Geometry::unknown() };
    let channels = channels.into_iter().map(Channel::Values).collect();
    Ok(Decoded { size: [frames, height, width], channels, geometry })
}

/// Pixels of a file: `([rows, columns], frames, a plane of frames * rows * columns values for each channel)`.
type Pixels = ([usize; 2], usize, Vec<Vec<f32>>);

fn read_pixels(path: &Path) -> Result<Pixels> {
    let object = dicom_object::open_file(path).map_err(|error| damaged(path, &error))?;
    if object.get(PIXEL_DATA).is_none() {
        return Err(Error::data(path, "this DICOM file holds no image (no pixel data); remove it from the folder"));
    }
    let syntax = object.meta().transfer_syntax().trim_end_matches('\0').to_owned();
    if !READABLE.contains(&syntax.as_str()) {
        let message = format!(
            "the pixels are compressed ({}, transfer syntax {syntax}), which is not read here; decompress the series first, e.g. `gdcmconv --raw IN OUT`",
            family(&syntax)
        );
        return Err(Error::data(path, message));
    }
    let pixels = object.decode_pixel_data().map_err(|error| damaged(path, &error))?;
    let (rows, columns) = (pixels.rows() as usize, pixels.columns() as usize);
    let frames = object.get(FRAMES).map_or(1, |_| pixels.number_of_frames() as usize);
    let plane = rows * columns;
    let samples = usize::from(pixels.samples_per_pixel());
    if plane == 0 || frames == 0 {
        return Err(Error::data(path, format!("{rows}x{columns} pixels in {frames} frames; copy the file again")));
    }
    let kind = pixels.photometric_interpretation();
    if samples == 1 && matches!(kind, PhotometricInterpretation::Monochrome1 | PhotometricInterpretation::Monochrome2) {
        let mut values = pixels.to_vec::<f32>().map_err(|error| damaged(path, &error))?;
        if *kind == PhotometricInterpretation::Monochrome1 {
            values.iter_mut().for_each(|value| *value = -*value);
        }
        return Ok(([rows, columns], frames, vec![values]));
    }
    if samples != 3 || *kind != PhotometricInterpretation::Rgb || pixels.bits_allocated() != 8 {
        let message = format!(
            "{kind} with {samples} samples of {} bits; convert it to MONOCHROME2, or to RGB of 8 bits",
            pixels.bits_allocated()
        );
        return Err(Error::data(path, message));
    }
    // RGB bytes, interleaved (0) or plane after plane within each frame (1).
    let bytes = pixels.data();
    if bytes.len() < 3 * plane * frames {
        return Err(Error::data(
            path,
            format!("{} bytes of pixels, but {} are needed", bytes.len(), 3 * plane * frames),
        ));
    }
    let apart = pixels.planar_configuration() == PlanarConfiguration::PixelFirst;
    let channel = |at: usize| {
        let place = move |pixel: usize| if apart { at * plane + pixel } else { 3 * pixel + at };
        let frame = |frame: &[u8]| (0..plane).map(|pixel| f32::from(frame[place(pixel)])).collect::<Vec<_>>();
        bytes.chunks_exact(3 * plane).take(frames).flat_map(frame).collect()
    };
    Ok(([rows, columns], frames, (0..3).map(channel).collect()))
}

/// What a compressed transfer syntax is called.
fn family(syntax: &str) -> &'static str {
    match syntax.strip_prefix("1.2.840.10008.1.2.4.") {
        Some("50" | "51") => "JPEG",
        Some("57" | "70") => "lossless JPEG",
        Some("80" | "81") => "JPEG-LS",
        Some("90" | "91" | "92" | "93") => "JPEG 2000",
        Some("110" | "111" | "112") => "JPEG XL",
        Some("201" | "202" | "203") => "HTJ2K",
        Some(_) => "a video or JPEG codec",
        None => "unknown",
    }
}

/// The affine of the ordered slices. DICOM's x runs to the left and y to the back, NIfTI's to the right and the front.
fn geometry(slices: &[SliceHeader]) -> Geometry {
    let (first, last) = (&slices[0], &slices[slices.len() - 1]);
    let (Some(start), Some(end), Some(orientation), Some([row_step, column_step])) =
        (first.position, last.position, first.orientation, first.spacing)
    else {
        return Geometry::unknown();
    };
    let (x, y) = (along_row(orientation), along_column(orientation));
    let normal = cross(x, y);
    let steps = (slices.len() - 1) as f64;
    let through = [0, 1, 2].map(|axis| match first.thickness {
        _ if steps > 0.0 => (end[axis] - start[axis]) / steps,
        thickness => normal[axis] * thickness.unwrap_or(1.0),
    });
    let row = |axis: usize| {
        let sign = if axis < 2 { -1.0 } else { 1.0 };
        [x[axis] * column_step, y[axis] * row_step, through[axis], start[axis]].map(|value| (sign * value) as f32)
    };
    let sides = [column_step, row_step, dot(through, through).sqrt()].map(|side| side as f32);
    Geometry::scanner([row(0), row(1), row(2)], sides)
}

fn along_row([x, y, z, ..]: [f64; 6]) -> [f64; 3] {
    [x, y, z]
}

fn along_column([.., x, y, z]: [f64; 6]) -> [f64; 3] {
    [x, y, z]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}
