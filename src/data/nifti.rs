//! NIfTI-1 volumes, `.nii` and `.nii.gz`: reading voxels as channels, and writing a mask or a probability map with the
//! geometry of the volume that it belongs to.
//!
//! How voxels become slices: exactly as they are stored. A file's first axis runs fastest and is the column `x`, the second
//! is the row `y` (row 0 on top), the third is the slice `z`. Nothing is flipped or turned on account of the affine, so voxel
//! `(x, y, z)` of the output is voxel `(x, y, z)` of the input. A fourth axis (or a fifth after a fourth of length 1, as ITK
//! writes vectors) holds channels; so do RGB24 and RGBA32 voxels, whose alpha is left out.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use nifti::header::{MAGIC_CODE_NI1, MAGIC_CODE_NIP1};
use nifti::volume::inmem::InMemNiftiVolume;
use nifti::{DataElement, NiftiHeader, NiftiType};

use super::volume::{Channel, Decoded};
use super::write_atomically;
use crate::{Error, Result};

/// Bytes of a NIfTI-1 header.
const HEADER: usize = 348;
/// Where our voxels begin: the header and four zero bytes that say "no extensions".
const VOXELS: usize = 352;
/// The `sizeof_hdr` of a NIfTI-2 file.
const NIFTI2: i32 = 540;

/// Where the voxels of a volume lie in the patient. What a NIfTI input says about it (sform, qform, `pixdim`, units) goes
/// into the output field by field, unchanged.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    header: NiftiHeader,
}

impl Geometry {
    /// Nothing is known, as for pictures: codes 0 and voxels of 1 without a unit.
    pub fn unknown() -> Self {
        let header = NiftiHeader { qform_code: 0, sform_code: 0, pixdim: [1.0; 8], ..NiftiHeader::default() };
        Self { header }
    }

    /// From rows of a scanner's affine (voxel `(x, y, z, 1)` to millimetres, right-anterior-superior) and voxel sides.
    pub fn scanner(rows: [[f32; 4]; 3], sides: [f32; 3]) -> Self {
        let mut geometry = Self::unknown();
        let header = &mut geometry.header;
        (header.srow_x, header.srow_y, header.srow_z) = (rows[0], rows[1], rows[2]);
        header.sform_code = 1;
        header.pixdim[1..4].copy_from_slice(&sides);
        header.xyzt_units = 2;
        geometry
    }

    /// The three rows of the affine: voxel `(x, y, z, 1)` to millimetres. The sform if there is one, else the qform.
    pub fn affine(&self) -> Option<[[f64; 4]; 3]> {
        let header = &self.header;
        if header.sform_code > 0 {
            return Some([header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from)));
        }
        if header.qform_code <= 0 {
            return None;
        }
        // The unit quaternion (a, b, c, d) as a rotation; pixdim[0] mirrors the third axis.
        let [b, c, d] = [header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from);
        let a = (1.0 - b * b - c * c - d * d).max(0.0).sqrt();
        let rotation = [
            [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
            [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
            [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ];
        let mirror = if header.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
        let sides = [1, 2, 3].map(|axis| f64::from(header.pixdim[axis]));
        let shift = [header.quatern_x, header.quatern_y, header.quatern_z].map(f64::from);
        let row = |at: usize| {
            let [x, y, z] = rotation[at];
            [x * sides[0], y * sides[1], z * sides[2] * mirror, shift[at]]
        };
        Some([row(0), row(1), row(2)])
    }

    /// Millilitres of one voxel; `None` without an affine. A file that names no unit means millimetres.
    pub fn voxel_ml(&self) -> Option<f64> {
        let [a, b, c] = self.affine()?;
        let volume = a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0])
            + a[2] * (b[0] * c[1] - b[1] * c[0]);
        let millimetres: f64 = match self.header.xyzt_units & 7 {
            1 => 1e3,
            3 => 1e-3,
            _ => 1.0,
        };
        Some(volume.abs() * millimetres.powi(3) / 1000.0)
    }

    /// Whether both place their voxels equally, as far as both know (to a hundredth of a millimetre).
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let (Some(here), Some(there)) = (self.affine(), other.affine()) else { return true };
        here.iter().flatten().zip(there.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-2)
    }
}

/// Whether a file's name is that of a NIfTI volume.
pub(super) fn is_nifti(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    name.ends_with(".nii") || name.ends_with(".nii.gz")
}

/// The name without `.nii` or `.nii.gz`.
pub(super) fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let lower = name.to_ascii_lowercase();
    let ending = if lower.ends_with(".gz") { ".nii.gz".len() } else { ".nii".len() };
    name[..name.len().saturating_sub(ending)].to_owned()
}

/// Reads a volume.
pub(super) fn read(path: &Path) -> Result<Decoded> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) { gunzip(path, &bytes)? } else { bytes };
    let header = parse_header(path, &bytes)?;
    let dims = header.dim().map_err(|error| no_nifti(path, &error.to_string()))?;
    let side = |axis: usize| dims.get(axis).map_or(1, |length| usize::from(*length));
    let size = [side(2), side(1), side(0)];
    let mut channels = dims.iter().skip(3).map(|length| usize::from(*length)).filter(|length| *length != 1);
    let layers = channels.next().unwrap_or(1);
    if channels.next().is_some() || layers > MAX_CHANNELS {
        let message = format!(
            "its axes are {dims:?}, but a volume has three, and a fourth of at most {MAX_CHANNELS} channels; extract one volume of the series first"
        );
        return Err(Error::data(path, message));
    }
    let kind = header.data_type().map_err(|error| no_nifti(path, &error.to_string()))?;
    let voxels = size.iter().product::<usize>();
    let expected = voxels * layers * kind.size_of();
    let start = (header.vox_offset as usize).max(VOXELS);
    let held = bytes.len().saturating_sub(start);
    if held < expected {
        let message = format!(
            "the file is cut off: {held} bytes of voxels, but axes {dims:?} of {kind:?} need {expected}; copy it again"
        );
        return Err(Error::data(path, message));
    }
    let data = bytes[start..start + expected].to_vec();
    drop(bytes);
    let channels = decode(path, &header, kind, data, voxels)?;
    Ok(Decoded { size, channels, geometry: Geometry { header } })
}

/// Channels at most: more are time points or directions, not sequences.
const MAX_CHANNELS: usize = 16;

fn gunzip(path: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut out).map_err(|source| {
        Error::data(path, format!("the gzip stream is damaged or cut off ({source}); copy the file again"))
    })?;
    Ok(out)
}

/// The header, once the file is known to be a single-file NIfTI-1.
fn parse_header(path: &Path, bytes: &[u8]) -> Result<NiftiHeader> {
    let Some(first) = bytes.first_chunk::<4>().filter(|_| bytes.len() >= HEADER) else {
        return Err(no_nifti(path, &format!("{} bytes are less than a header", bytes.len())));
    };
    let sizes = [i32::from_le_bytes(*first), i32::from_be_bytes(*first)];
    if sizes.contains(&NIFTI2) {
        return Err(Error::data(path, "this is NIfTI-2; save it as NIfTI-1 (nibabel: nib.Nifti1Image.from_image)"));
    }
    if !sizes.contains(&(HEADER as i32)) {
        return Err(no_nifti(path, "it does not begin with a header of 348 bytes"));
    }
    let header = NiftiHeader::from_reader(bytes).map_err(|error| no_nifti(path, &error.to_string()))?;
    if header.magic == *MAGIC_CODE_NI1 {
        return Err(Error::data(path, "this is the header of a .hdr/.img pair; save the volume as one .nii file"));
    }
    Ok(header)
}

fn no_nifti(path: &Path, why: &str) -> Error {
    Error::data(path, format!("this is no NIfTI-1 volume ({why}); copy or convert it again"))
}

/// Splits voxel data into channels of `[D, H, W]`; bytes that need no scaling stay bytes.
fn decode(path: &Path, header: &NiftiHeader, kind: NiftiType, data: Vec<u8>, voxels: usize) -> Result<Vec<Channel>> {
    let interleaved = |step: usize| {
        (0..3).map(|at| Channel::Bytes(data.iter().skip(at).step_by(step).copied().collect())).collect::<Vec<_>>()
    };
    let (slope, shift) = match (header.scl_slope, header.scl_inter) {
        (slope, shift) if slope != 0.0 && slope.is_finite() && shift.is_finite() => {
            (f64::from(slope), f64::from(shift))
        }
        _ => (1.0, 0.0),
    };
    match kind {
        NiftiType::Rgb24 | NiftiType::Rgba32 if data.len() != voxels * kind.size_of() => {
            Err(Error::data(path, "RGB voxels and a fourth axis together; save one or the other"))
        }
        NiftiType::Rgb24 => Ok(interleaved(3)),
        NiftiType::Rgba32 => Ok(interleaved(4)),
        NiftiType::Uint8 if (slope, shift) == (1.0, 0.0) => {
            Ok(data.chunks_exact(voxels).map(|layer| Channel::Bytes(layer.to_vec())).collect())
        }
        _ => {
            let volume = InMemNiftiVolume::from_raw_data(header, data);
            let numbers = volume.and_then(|volume| match kind {
                NiftiType::Uint8 => numbers::<u8>(volume, f64::from),
                NiftiType::Int8 => numbers::<i8>(volume, f64::from),
                NiftiType::Uint16 => numbers::<u16>(volume, f64::from),
                NiftiType::Int16 => numbers::<i16>(volume, f64::from),
                NiftiType::Uint32 => numbers::<u32>(volume, f64::from),
                NiftiType::Int32 => numbers::<i32>(volume, f64::from),
                NiftiType::Uint64 => numbers::<u64>(volume, |value| value as f64),
                NiftiType::Int64 => numbers::<i64>(volume, |value| value as f64),
                NiftiType::Float32 => numbers::<f32>(volume, f64::from),
                NiftiType::Float64 => numbers::<f64>(volume, |value| value),
                other => Err(nifti::NiftiError::UnsupportedDataType(other)),
            });
            let numbers = numbers.map_err(|error| {
                Error::data(path, format!("voxels of type {kind:?} cannot be read ({error}); save them as float32"))
            })?;
            let scaled = |layer: &[f64]| layer.iter().map(|value| (value * slope + shift) as f32).collect();
            Ok(numbers.chunks_exact(voxels).map(|layer| Channel::Values(scaled(layer))).collect())
        }
    }
}

fn numbers<T: DataElement>(volume: InMemNiftiVolume, to: impl Fn(T) -> f64) -> nifti::Result<Vec<f64>> {
    Ok(volume.into_nifti_typed_data::<T>()?.into_iter().map(to).collect())
}

/// Writes a mask `[D, H, W]` as bytes 0 and 1, with the geometry of its volume; compressed where `path` ends with `.gz`.
///
/// # Errors
/// A length that does not fit, a side beyond what NIfTI-1 can say (32767), or a file that cannot be written.
pub fn write_mask(path: &Path, mask: &[u8], size: [usize; 3], geometry: &Geometry) -> Result<()> {
    let bytes: Vec<u8> = mask.iter().map(|inside| u8::from(*inside != 0)).collect();
    write(path, &bytes, NiftiType::Uint8, size, geometry)
}

/// Writes probabilities `[D, H, W]` as f32, as [`write_mask`] does.
///
/// # Errors
/// As [`write_mask`].
pub fn write_probability(path: &Path, probability: &[f32], size: [usize; 3], geometry: &Geometry) -> Result<()> {
    let bytes: Vec<u8> = probability.iter().flat_map(|value| value.to_le_bytes()).collect();
    write(path, &bytes, NiftiType::Float32, size, geometry)
}

fn write(path: &Path, voxels: &[u8], kind: NiftiType, size: [usize; 3], geometry: &Geometry) -> Result<()> {
    let [depth, height, width] = size;
    if voxels.len() != depth * height * width * kind.size_of() {
        return Err(Error::shape("write_nifti", format!("{} bytes of {kind:?} are no volume {size:?}", voxels.len())));
    }
    let source = &geometry.header;
    let axes = if source.dim[0] == 2 && depth == 1 { 2 } else { 3 };
    let mut dim = [1u16; 8];
    dim[0] = axes;
    for (place, side) in dim[1..].iter_mut().zip([width, height, depth]) {
        *place = u16::try_from(side)
            .ok()
            .filter(|side| *side <= i16::MAX as u16)
            .ok_or_else(|| Error::data(path, format!("{side} voxels along an axis, but NIfTI-1 allows 32767")))?;
    }
    let mut header = NiftiHeader {
        dim,
        datatype: kind as i16,
        bitpix: (8 * kind.size_of()) as i16,
        vox_offset: VOXELS as f32,
        scl_slope: 1.0,
        cal_max: 1.0,
        regular: b'r',
        magic: *MAGIC_CODE_NIP1,
        ..source.clone()
    };
    // What described the input's values and time, not where they are.
    (header.scl_inter, header.cal_min, header.toffset, header.slice_duration) = (0.0, 0.0, 0.0, 0.0);
    (header.intent_code, header.intent_p1, header.intent_p2, header.intent_p3) = (0, 0.0, 0.0, 0.0);
    (header.intent_name, header.aux_file, header.slice_code) = ([0; 16], [0; 24], 0);
    (header.slice_start, header.slice_end) = (0, 0);
    let text = format!("shadegrad {}", env!("CARGO_PKG_VERSION"));
    header.descrip = text.bytes().chain(std::iter::repeat(0)).take(80).collect();

    let mut file = header_bytes(&header);
    file.resize(VOXELS, 0);
    file.extend_from_slice(voxels);
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz")) {
        // No name and no time in the gzip header: the same mask gives the same bytes.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let packed = encoder.write_all(&file).and_then(|()| encoder.finish());
        file = packed.map_err(Error::io("compress", path))?;
    }
    write_atomically(path, &file)
}

/// The 348 bytes of a header, little endian, in the order of nifti1.h.
fn header_bytes(header: &NiftiHeader) -> Vec<u8> {
    let mut out = Vec::with_capacity(VOXELS);
    let ints = |out: &mut Vec<u8>, values: &[i32]| out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let shorts = |out: &mut Vec<u8>, values: &[i16]| out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let floats = |out: &mut Vec<u8>, values: &[f32]| out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    ints(&mut out, &[HEADER as i32]);
    out.extend_from_slice(&header.data_type);
    out.extend_from_slice(&header.db_name);
    ints(&mut out, &[header.extents]);
    shorts(&mut out, &[header.session_error]);
    out.extend_from_slice(&[header.regular, header.dim_info]);
    out.extend(header.dim.iter().flat_map(|side| side.to_le_bytes()));
    floats(&mut out, &[header.intent_p1, header.intent_p2, header.intent_p3]);
    shorts(&mut out, &[header.intent_code, header.datatype, header.bitpix, header.slice_start]);
    floats(&mut out, &header.pixdim);
    floats(&mut out, &[header.vox_offset, header.scl_slope, header.scl_inter]);
    shorts(&mut out, &[header.slice_end]);
    out.extend_from_slice(&[header.slice_code, header.xyzt_units]);
    floats(&mut out, &[header.cal_max, header.cal_min, header.slice_duration, header.toffset]);
    ints(&mut out, &[header.glmax, header.glmin]);
    out.extend(header.descrip.iter().copied().chain(std::iter::repeat(0)).take(80));
    out.extend_from_slice(&header.aux_file);
    shorts(&mut out, &[header.qform_code, header.sform_code]);
    floats(&mut out, &[header.quatern_b, header.quatern_c, header.quatern_d]);
    floats(&mut out, &[header.quatern_x, header.quatern_y, header.quatern_z]);
    floats(&mut out, &[header.srow_x, header.srow_y, header.srow_z].concat());
    out.extend_from_slice(&header.intent_name);
    out.extend_from_slice(&header.magic);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_348_bytes_and_comes_back() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let mut header = NiftiHeader {
            dim: [3, 7, 5, 2, 1, 1, 1, 1],
            datatype: 16,
            bitpix: 32,
            pixdim: [-1.0, 0.5, 0.75, 3.0, 4.0, 5.0, 6.0, 7.0],
            xyzt_units: 10,
            qform_code: 1,
            sform_code: 2,
            quatern_b: 0.1,
            quatern_d: -0.3,
            quatern_z: 9.0,
            srow_x: [1.0, 2.0, 3.0, 4.0],
            srow_z: [5.0, 6.0, 7.0, 8.0],
            magic: *MAGIC_CODE_NIP1,
            ..NiftiHeader::default()
        };
        header.set_description_str("text")?;
        let bytes = header_bytes(&header);
        assert_eq!(bytes.len(), HEADER);
        assert_eq!(
            NiftiHeader::from_reader(bytes.as_slice())?,
            NiftiHeader { endianness: header.endianness, ..header }
        );
        Ok(())
    }

    #[test]
    fn a_qform_is_the_same_affine_as_its_sform() {
        // nibabel: Nifti1Header with set_qform of a rotation by 90 degrees about z, sides 2, 3, 4, third axis mirrored.
        let half = std::f32::consts::FRAC_1_SQRT_2;
        let header = NiftiHeader {
            qform_code: 1,
            sform_code: 0,
            quatern_d: half,
            quatern_x: 10.0,
            pixdim: [-1.0, 2.0, 3.0, 4.0, 1.0, 1.0, 1.0, 1.0],
            ..NiftiHeader::default()
        };
        let geometry = Geometry { header };
        let affine = geometry.affine().unwrap_or_default();
        let expected = [[0.0, -3.0, 0.0, 10.0], [2.0, 0.0, 0.0, 0.0], [0.0, 0.0, -4.0, 0.0]];
        for (here, wanted) in affine.iter().flatten().zip(expected.iter().flatten()) {
            assert!((here - wanted).abs() < 1e-6, "{affine:?}");
        }
        assert!(geometry.voxel_ml().is_some_and(|ml| (ml - 0.024).abs() < 1e-8));
        assert_eq!(Geometry::unknown().affine(), None);
    }
}
