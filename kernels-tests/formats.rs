//! What `predict` reads and writes: pictures, NIfTI and DICOM. The files are put together here byte by byte from their
//! standards, so that reader and test do not share a mistake.

use std::error::Error;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use shadegrad::data::phantom::{PhantomSettings, phantom_patient, write_phantom};
use shadegrad::data::resize;
use shadegrad::data::{Dataset, Format, Geometry, Normalization, Patient, Volume, find_volumes, nifti};
use shadegrad::eval::predict::{PredictOptions, predict};
use shadegrad::models::{self, Network, weights};
use shadegrad::train::TrainConfig;
use shadegrad::{Device, Result};
use tempfile::TempDir;

use crate::devices;

type Outcome<T = ()> = std::result::Result<T, Box<dyn Error>>;

const SMALL: PhantomSettings = PhantomSettings { patients: 2, slices: 5, size: 64, seed: 11 };

// ---------------------------------------------------------------------------------------------------------------------
// Help for the tests

/// A phantom set on disk, its first patient in memory and that patient's folder.
fn phantom() -> Outcome<(TempDir, Patient, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let root = write_phantom(folder.path(), &SMALL, &|_, _| {})?;
    let patient = phantom_patient(&SMALL, 0)?;
    let path = root.join(&patient.name);
    Ok((folder, patient, path))
}

/// A NIfTI-1 file: `kind` is (datatype code, bits a voxel), `voxels` run x fastest.
struct Nifti<'a> {
    dims: &'a [u16],
    kind: (i16, i16),
    slope: (f32, f32),
    /// sform code and rows.
    sform: (i16, [[f32; 4]; 3]),
    big_endian: bool,
    voxels: Vec<u8>,
}

/// An affine that is neither straight nor symmetric.
const OBLIQUE: [[f32; 4]; 3] = [[-0.9, 0.1, 0.3, 80.5], [0.2, 0.85, -0.4, -71.25], [0.05, 0.15, 3.25, 12.0]];

impl Nifti<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut file = vec![0u8; 352];
        let mut put = |at: usize, little: &[u8]| {
            let mut value = little.to_vec();
            if self.big_endian {
                value.reverse();
            }
            file[at..at + value.len()].copy_from_slice(&value);
        };
        put(0, &348i32.to_le_bytes());
        put(40, &(self.dims.len() as u16).to_le_bytes());
        for at in 0..7 {
            put(42 + 2 * at, &self.dims.get(at).copied().unwrap_or(1).to_le_bytes());
        }
        put(70, &self.kind.0.to_le_bytes());
        put(72, &self.kind.1.to_le_bytes());
        for (at, side) in [-1.0f32, 0.9375, 0.875, 3.25, 2.5, 0.0, 0.0, 0.0].iter().enumerate() {
            put(76 + 4 * at, &side.to_le_bytes());
        }
        put(108, &352.0f32.to_le_bytes());
        put(112, &self.slope.0.to_le_bytes());
        put(116, &self.slope.1.to_le_bytes());
        put(252, &3i16.to_le_bytes()); // qform: MNI, another one than the sform
        put(254, &self.sform.0.to_le_bytes());
        for (at, value) in [0.1f32, -0.2, 0.3, 5.0, 6.0, 7.0].iter().chain(self.sform.1.iter().flatten()).enumerate() {
            put(256 + 4 * at, &value.to_le_bytes());
        }
        file[123] = 10; // millimetres and seconds
        file[344..348].copy_from_slice(b"n+1\0");
        file.extend_from_slice(&self.voxels);
        file
    }
}

/// The patient's slices as a 4D volume of bytes: channel after channel, slice after slice, row after row.
fn as_nifti(patient: &Patient, size: usize) -> Nifti<'static> {
    let planes =
        (0..3).flat_map(|c| patient.slices.iter().flat_map(move |slice| slice.image.iter().skip(c).step_by(3)));
    let dims = vec![size as u16, size as u16, patient.slices.len() as u16, 3].leak();
    Nifti {
        dims,
        kind: (2, 8),
        slope: (0.0, 0.0),
        sform: (1, OBLIQUE),
        big_endian: false,
        voxels: planes.copied().collect(),
    }
}

fn gzip(bytes: &[u8]) -> Outcome<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// One explicit-VR little-endian DICOM element.
fn element(tag: (u16, u16), vr: &str, value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    if value.len() % 2 == 1 {
        value.push(if vr == "UI" || vr == "OB" { 0 } else { b' ' });
    }
    let mut out = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
    out.extend_from_slice(vr.as_bytes());
    if ["OB", "OW"].contains(&vr) {
        out.extend([0, 0]);
        out.extend((value.len() as u32).to_le_bytes());
    } else {
        out.extend((value.len() as u16).to_le_bytes());
    }
    out.extend(value);
    out
}

/// A slice of a DICOM series.
struct Dicom<'a> {
    syntax: &'a str,
    series: &'a str,
    instance: usize,
    position: Option<[f64; 3]>,
    rows: usize,
    columns: usize,
    samples: u16,
    planar: u16,
    bits: u16,
    rescale: Option<(&'a str, &'a str)>,
    pixels: Option<&'a [u8]>,
}

const GREY: Dicom<'static> = Dicom {
    syntax: "1.2.840.10008.1.2.1",
    series: "1.2.3.4",
    instance: 1,
    position: None,
    rows: 0,
    columns: 0,
    samples: 1,
    planar: 0,
    bits: 8,
    rescale: None,
    pixels: None,
};

impl Dicom<'_> {
    fn write(&self, path: &Path) -> Outcome {
        let mut meta = element((2, 1), "OB", &[0, 1]);
        meta.extend(element((2, 2), "UI", b"1.2.840.10008.5.1.4.1.1.4"));
        meta.extend(element((2, 3), "UI", format!("1.2.9.{}", self.instance).as_bytes()));
        meta.extend(element((2, 0x10), "UI", self.syntax.as_bytes()));
        meta.extend(element((2, 0x12), "UI", b"1.2.3"));
        let mut file = vec![0; 128];
        file.extend(b"DICM");
        file.extend(element((2, 0), "UL", &(meta.len() as u32).to_le_bytes()));
        file.extend(meta);
        file.extend(element((8, 0x16), "UI", b"1.2.840.10008.5.1.4.1.1.4"));
        file.extend(element((8, 0x18), "UI", format!("1.2.9.{}", self.instance).as_bytes()));
        file.extend(element((0x18, 0x50), "DS", b"4"));
        file.extend(element((0x20, 0xE), "UI", self.series.as_bytes()));
        file.extend(element((0x20, 0x13), "IS", self.instance.to_string().as_bytes()));
        if let Some([x, y, z]) = self.position {
            file.extend(element((0x20, 0x32), "DS", format!("{x}\\{y}\\{z}").as_bytes()));
            file.extend(element((0x20, 0x37), "DS", b"1\\0\\0\\0\\1\\0"));
        }
        let short = |value: u16| value.to_le_bytes();
        file.extend(element((0x28, 2), "US", &short(self.samples)));
        file.extend(element((0x28, 4), "CS", if self.samples == 3 { b"RGB" } else { b"MONOCHROME2" }));
        if self.samples == 3 {
            file.extend(element((0x28, 6), "US", &short(self.planar)));
        }
        file.extend(element((0x28, 0x10), "US", &short(self.rows as u16)));
        file.extend(element((0x28, 0x11), "US", &short(self.columns as u16)));
        file.extend(element((0x28, 0x30), "DS", b"0.75\\0.5"));
        for (at, value) in [self.bits, self.bits, self.bits - 1, 0].into_iter().enumerate() {
            file.extend(element((0x28, 0x100 + at as u16), "US", &short(value)));
        }
        if let Some((slope, intercept)) = self.rescale {
            file.extend(element((0x28, 0x1052), "DS", intercept.as_bytes()));
            file.extend(element((0x28, 0x1053), "DS", slope.as_bytes()));
        }
        if let Some(pixels) = self.pixels {
            file.extend(element((0x7FE0, 0x10), "OW", pixels));
        }
        Ok(fs::write(path, file)?)
    }
}

/// Reads the only volume at a path.
fn read(path: &Path) -> Result<Volume> {
    let sources = find_volumes(&[path.to_owned()])?;
    assert_eq!(sources.len(), 1, "{sources:?}");
    sources[0].read()
}

fn refusal(paths: &[&Path]) -> String {
    let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
    let read =
        find_volumes(&paths).and_then(|sources| sources.iter().map(|source| source.read()).collect::<Result<Vec<_>>>());
    read.err().map_or_else(|| "no error".into(), |error| error.to_string())
}

fn config() -> TrainConfig {
    TrainConfig { widths: [8, 8, 16, 16, 16], ..TrainConfig::default() }
}

fn network(device: &Device) -> Result<Box<dyn Network>> {
    models::build(device, &config().network(), 5)
}

/// A grey or coloured volume in memory.
fn volume(size: [usize; 3], channels: usize, bytes: Vec<u8>) -> Volume {
    assert_eq!(bytes.len(), size.iter().product::<usize>() * channels);
    let mapped = vec![None; channels];
    Volume { path: "memory".into(), size, channels, bytes, mapped, slices: Vec::new(), geometry: Geometry::unknown() }
}

/// Bytes that look like nothing in particular.
fn noise(count: usize) -> Vec<u8> {
    (0..count as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 21) as u8).collect()
}

fn logits(device: &Device, volume: &Volume, options: &PredictOptions) -> Result<Vec<f32>> {
    let net = network(device)?;
    // A normalisation that does not look at the volume, so that its size may change.
    Ok(predict(device, net.as_ref(), Normalization::Imagenet, volume, options, &mut |_| {})?.logits)
}

// ---------------------------------------------------------------------------------------------------------------------
// Reading

#[test]
fn pictures_become_volumes_by_patient() -> Outcome {
    let (folder, _, path) = phantom()?;
    let set = Dataset::read(folder.path(), &|_, _| {})?;
    let sources = find_volumes(&[folder.path().to_owned()])?;
    assert_eq!(sources.len(), 2);
    for (source, patient) in sources.iter().zip(&set.patients) {
        assert_eq!((&source.name, source.format()), (&patient.name, Some(Format::Tiff)));
        let volume = source.read()?;
        assert_eq!((volume.size, volume.channels), ([5, 64, 64], 3));
        assert_eq!(volume.bytes, patient.slices.iter().flat_map(|slice| slice.image.clone()).collect::<Vec<_>>());
        assert_eq!(volume.truth(), Some(patient.slices.iter().flat_map(|slice| slice.mask.clone()).collect()));
        assert_eq!(volume.slices[1].name, format!("{}_2", patient.name));
    }
    let slice = path.join(format!("{}_3.tif", set.patients[0].name));
    assert_eq!(read(&slice)?.size, [1, 64, 64]);
    // Slices named one by one are the same as their folder, in any order, masks left out.
    let shuffled: Vec<_> = fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    let images: Vec<_> = shuffled.into_iter().filter(|path| !path.to_string_lossy().contains("_mask")).rev().collect();
    assert_eq!(find_volumes(&images)?[0].read()?.bytes, read(&path)?.bytes);

    let other = folder.path().join("other");
    fs::create_dir_all(&other)?;
    image::RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 9])).save(other.join("slice_3.png"))?;
    let picture = read(&other)?;
    assert_eq!((picture.size, picture.bytes[..6].to_vec()), ([1, 3, 5], vec![0, 0, 9, 1, 0, 9]));
    assert_eq!(find_volumes(std::slice::from_ref(&other))?[0].name, "slice_3");
    // Grey is one channel; among RGB slices it fills all three. What predict wrote is no input.
    fs::write(other.join("slice_3_overlay.png"), "not looked at")?;
    image::GrayImage::from_fn(5, 3, |x, _| image::Luma([x as u8])).save(other.join("slice_4.png"))?;
    assert_eq!(read(&other.join("slice_4.png"))?.channels, 1);
    assert_eq!(read(&other)?.bytes[45..51], [0, 0, 0, 1, 1, 1]);
    Ok(())
}

#[test]
fn nifti_slices_are_the_tiff_slices() -> Outcome {
    let (folder, patient, path) = phantom()?;
    let tiff = read(&path)?;
    let plain = as_nifti(&patient, 64);
    let at = |name: &str| folder.path().join(name);
    fs::write(at("plain.nii"), plain.bytes())?;
    fs::write(at("packed.nii.gz"), gzip(&plain.bytes())?)?;
    // The other ways to say the same.
    let mut words = as_nifti(&patient, 64);
    words.kind = (4, 16);
    words.voxels = plain.voxels.iter().flat_map(|byte| (i16::from(*byte) * 4 - 8).to_be_bytes()).collect();
    (words.slope, words.big_endian) = ((0.25, 2.0), true);
    fs::write(at("words.nii"), words.bytes())?;
    let mut floats = as_nifti(&patient, 64);
    floats.kind = (16, 32);
    floats.voxels = plain.voxels.iter().flat_map(|byte| f32::from(*byte).to_le_bytes()).collect();
    fs::write(at("floats.nii"), floats.bytes())?;
    let mut colour = as_nifti(&patient, 64);
    (colour.dims, colour.kind) = (&[64, 64, 5], (128, 24));
    colour.voxels = patient.slices.iter().flat_map(|slice| slice.image.clone()).collect();
    fs::write(at("colour.nii"), colour.bytes())?;
    let mut vector = as_nifti(&patient, 64);
    vector.dims = &[64, 64, 5, 1, 3];
    fs::write(at("vector.nii"), vector.bytes())?;
    for name in ["plain.nii", "packed.nii.gz", "words.nii", "floats.nii", "colour.nii", "vector.nii"] {
        let volume = read(&at(name))?;
        assert_eq!((volume.size, volume.channels), (tiff.size, 3), "{name}");
        assert_eq!(volume.mapped, [None; 3], "{name}");
        assert!(volume.bytes == tiff.bytes, "{name} differs from the TIFF slices");
    }
    // Three files as channels, in the order in which they are named.
    let channel = |c: usize| Nifti {
        dims: &[64, 64, 5],
        voxels: plain.voxels[c * 5 * 4096..][..5 * 4096].to_vec(),
        ..as_nifti(&patient, 64)
    };
    let names = [at("pre.nii"), at("flair.nii"), at("post.nii")];
    for (c, name) in names.iter().enumerate() {
        fs::write(name, channel(c).bytes())?;
    }
    let joined = find_volumes(&names)?;
    assert_eq!((joined.len(), joined[0].name.as_str()), (1, "pre"));
    assert!(joined[0].read()?.bytes == tiff.bytes);
    let mut moved = channel(1);
    moved.sform.1[2][3] += 1.0;
    fs::write(&names[1], moved.bytes())?;
    assert!(refusal(&[&names[0], &names[1]]).contains("its affine is not that of"));
    assert!(refusal(&[&names[0], &path.join(format!("{}_1.tif", patient.name))]).contains("is a picture"));
    Ok(())
}

#[test]
fn other_ranges_are_mapped_and_say_so() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("signed.nii");
    let values = [-1000i16, -500, 0, 500, 1000, 1000, -1000, 0];
    let file = Nifti {
        dims: &[2, 2, 2],
        kind: (4, 16),
        slope: (0.0, 0.0),
        sform: (1, OBLIQUE),
        big_endian: false,
        voxels: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    };
    fs::write(&path, file.bytes())?;
    let volume = read(&path)?;
    assert_eq!(volume.bytes, [0, 64, 128, 191, 255, 255, 0, 128]);
    assert_eq!(volume.mapped, [Some([-1000.0, 1000.0])]);
    Ok(())
}

#[test]
fn dicom_slices_are_the_tiff_slices() -> Outcome {
    let (folder, patient, path) = phantom()?;
    let tiff = read(&path)?;
    let write = |name: &str, to: &dyn Fn(usize, &[u8]) -> Outcome| -> Outcome<PathBuf> {
        let series = folder.path().join(name);
        fs::create_dir_all(&series)?;
        // Instance numbers and file names run against the position, which decides.
        patient.slices.iter().enumerate().try_for_each(|(z, slice)| to(z, &slice.image))?;
        Ok(series)
    };
    let slice = |z: usize| Dicom {
        instance: 9 - z,
        position: Some([-30.0, -20.0, 4.5 * z as f64 - 7.0]),
        rows: 64,
        columns: 64,
        ..GREY
    };
    let file = |name: &str, z: usize| folder.path().join(name).join(format!("{}.dcm", 9 - z));
    let colour =
        write("rgb", &|z, image| Dicom { samples: 3, pixels: Some(image), ..slice(z) }.write(&file("rgb", z)))?;
    let planar = write("planar", &|z, image| {
        let planes: Vec<u8> = (0..3).flat_map(|c| image.iter().skip(c).step_by(3).copied()).collect();
        // Without an ending: found by the letters at byte 128.
        Dicom { samples: 3, planar: 1, pixels: Some(&planes), ..slice(z) }.write(&file("planar", z).with_extension(""))
    })?;
    for series in [&colour, &planar] {
        let volume = read(series)?;
        assert_eq!((volume.size, volume.channels), ([5, 64, 64], 3));
        assert!(volume.bytes == tiff.bytes, "{}", series.display());
    }
    // Left and back are negative in NIfTI: x = 30 - 0.5 column, y = 20 - 0.75 row, z = -7 + 4.5 slice.
    let expected = [[-0.5, 0.0, 0.0, 30.0], [0.0, -0.75, 0.0, 20.0], [0.0, 0.0, 4.5, -7.0]];
    let affine = read(&colour)?.geometry.affine().ok_or("an affine")?;
    assert!(
        affine.iter().flatten().zip(expected.iter().flatten()).all(|(a, b): (&f64, &f64)| (a - b).abs() < 1e-6),
        "{affine:?}"
    );

    // Three grey series as channels: bytes; 16 bits with a rescaling; and without positions, by instance number.
    let mut grey = Vec::new();
    for (c, name) in ["pre", "flair", "post"].into_iter().enumerate() {
        grey.push(write(name, &|z, image| {
            let bytes: Vec<u8> = image.iter().skip(c).step_by(3).copied().collect();
            let words: Vec<u8> = bytes.iter().flat_map(|byte| (u16::from(*byte) * 2 + 50).to_le_bytes()).collect();
            let wide = Dicom { bits: 16, rescale: Some(("0.5", "-25")), pixels: Some(&words), ..slice(z) };
            let plain = Dicom { pixels: Some(&bytes), ..slice(z) };
            let numbered = Dicom { position: None, instance: z + 1, ..plain };
            match c {
                0 => plain.write(&file(name, z)),
                1 => wide.write(&file(name, z)),
                _ => numbered.write(&file(name, z)),
            }
        })?);
    }
    let joined = find_volumes(&grey)?;
    assert_eq!((joined.len(), joined[0].format()), (1, None));
    assert!(joined[0].read()?.bytes == tiff.bytes);

    // A slice twice is refused; two series in one folder are two volumes.
    fs::copy(file("pre", 2), colour.join("other.dcm"))?;
    assert!(refusal(&[&colour]).contains("lies at the same position as"));
    let other = Dicom { series: "1.2.3.5", pixels: Some(&[7; 4096]), ..slice(0) };
    other.write(&colour.join("other.dcm"))?;
    assert_eq!(find_volumes(&[colour])?.len(), 2);
    Ok(())
}

#[test]
fn the_output_keeps_the_inputs_geometry() -> Outcome {
    let (folder, patient, _) = phantom()?;
    for big_endian in [false, true] {
        let mut input = as_nifti(&patient, 64);
        input.big_endian = big_endian;
        let path = folder.path().join("volume.nii");
        fs::write(&path, input.bytes())?;
        let volume = read(&path)?;
        let mask: Vec<u8> = (0..5 * 4096).map(|voxel| u8::from(voxel % 7 == 0)).collect();
        let out = folder.path().join("out.nii");
        nifti::write_mask(&out, &mask, volume.size, &volume.geometry)?;
        let (written, mut expected) = (fs::read(&out)?, input);
        expected.big_endian = false;
        let expected = expected.bytes();
        // pixdim; units; qform and sform codes, quaternion, offsets and rows.
        for place in [76..108, 123..124, 252..328] {
            assert_eq!(written[place.clone()], expected[place]);
        }
        let short = |at: usize| u16::from_le_bytes([written[at], written[at + 1]]);
        assert_eq!([40, 42, 44, 46, 48, 70, 72].map(short), [3, 64, 64, 5, 1, 2, 8]);
        assert_eq!(&written[344..352], b"n+1\0\0\0\0\0");
        assert!(written[352..] == mask);
        let packed = folder.path().join("out.nii.gz");
        nifti::write_mask(&packed, &mask, volume.size, &volume.geometry)?;
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(fs::File::open(&packed)?), &mut unpacked)?;
        assert!(unpacked == written);
        let float = folder.path().join("p.nii");
        nifti::write_probability(&float, &vec![0.25; mask.len()], volume.size, &volume.geometry)?;
        assert_eq!(fs::read(&float)?[352..356], 0.25f32.to_le_bytes());
    }
    assert!(nifti::write_mask(&folder.path().join("x.nii"), &[1, 2], [1, 1, 3], &Geometry::unknown()).is_err());
    Ok(())
}

#[test]
fn bad_files_are_refused_in_a_sentence() -> Outcome {
    let (folder, patient, path) = phantom()?;
    let at = |name: &str| folder.path().join(name);
    let good = as_nifti(&patient, 64);
    let bytes = good.bytes();
    let case = |name: &str, content: &[u8], words: &str| -> Outcome {
        fs::write(at(name), content)?;
        let message = refusal(&[&at(name)]);
        assert!(message.contains(words) && message.contains(name) && !message.contains('\n'), "{name}: {message}");
        Ok(())
    };
    case("cut.nii", &bytes[..bytes.len() - 1], "the file is cut off")?;
    case("cut_header.nii", &bytes[..200], "less than a header")?;
    case("cut.nii.gz", &gzip(&bytes)?[..3000], "damaged or cut off")?;
    case("text.nii", &b"only text ".repeat(60), "no NIfTI-1 volume")?;
    case("text.txt", b"text", "neither .tif, .png, .nii")?;
    case("text.dcm", &b"only text ".repeat(60), "the DICOM file cannot be read")?;
    case("sixteen.png", &png16()?, "16 bits a channel")?;
    case("text.png", b"text", "damaged or cut off")?;
    let mut second = bytes.clone();
    second[..4].copy_from_slice(&540i32.to_le_bytes());
    case("second.nii", &second, "this is NIfTI-2")?;
    let mut pair = bytes.clone();
    pair[344..348].copy_from_slice(b"ni1\0");
    case("pair.nii", &pair, ".hdr/.img pair")?;
    let series = Nifti { dims: &[8, 8, 2, 40], voxels: vec![0; 5120], ..as_nifti(&patient, 64) };
    case("series.nii", &series.bytes(), "at most 16 channels")?;
    let complex = Nifti { dims: &[2, 2, 2], kind: (32, 64), voxels: vec![0; 64], ..as_nifti(&patient, 64) };
    case("complex.nii", &complex.bytes(), "Complex64 cannot be read")?;
    let unknown = Nifti { dims: &[2, 2, 2], kind: (99, 8), voxels: vec![0; 64], ..as_nifti(&patient, 64) };
    case("unknown.nii", &unknown.bytes(), "datatype")?;
    let empty = Nifti { dims: &[2, 0, 2], voxels: Vec::new(), ..as_nifti(&patient, 64) };
    case("empty.nii", &empty.bytes(), "must be positive")?;
    let huge = Nifti { dims: &[60000, 60000, 60000, 16], voxels: Vec::new(), ..as_nifti(&patient, 64) };
    case("huge.nii", &huge.bytes(), "cut off")?;
    let nan = f32::NAN.to_le_bytes().repeat(8);
    let nan = Nifti { dims: &[2, 2, 2], kind: (16, 32), voxels: nan, ..as_nifti(&patient, 64) };
    case("nan.nii", &nan.bytes(), "no finite value")?;

    fs::create_dir_all(at("nothing"))?;
    assert!(refusal(&[&at("nothing")]).contains("no .tif, .png, .nii, .nii.gz or DICOM image found here"));
    assert!(refusal(&[&at("missing")]).contains("no such file or folder"));
    assert!(refusal(&[&path.join(format!("{}_1_mask.tif", patient.name))]).contains("this is a mask"));
    fs::create_dir_all(at("mixed"))?;
    image::RgbImage::new(8, 8).save(at("mixed/a_1.png"))?;
    image::RgbImage::new(8, 9).save(at("mixed/a_2.png"))?;
    assert!(refusal(&[&at("mixed")]).contains("9x8 pixels, but"));
    image::RgbaImage::new(8, 8).save(at("alpha.png"))?;
    assert!(refusal(&[&at("alpha.png")]).contains("without transparency"));

    let slice = Dicom { rows: 2, columns: 2, pixels: Some(&[1, 2, 3, 4]), ..GREY };
    let dicom = |slice: &Dicom<'_>, words: &str| -> Outcome {
        slice.write(&at("slice.dcm"))?;
        let message = refusal(&[&at("slice.dcm")]);
        assert!(message.contains(words) && message.contains("slice.dcm"), "{message}");
        Ok(())
    };
    dicom(&Dicom { pixels: None, ..slice }, "no pixel data")?;
    dicom(
        &Dicom { syntax: "1.2.840.10008.1.2.4.70", ..slice },
        "lossless JPEG, transfer syntax 1.2.840.10008.1.2.4.70",
    )?;
    dicom(&Dicom { rows: 3, ..slice }, "slice.dcm")?;
    dicom(&Dicom { rows: 0, ..slice }, "slice.dcm")?;
    slice.write(&at("slice.dcm"))?;
    let whole = fs::read(at("slice.dcm"))?;
    fs::write(at("slice.dcm"), &whole[..whole.len() - 10])?;
    assert!(refusal(&[&at("slice.dcm")]).contains("slice.dcm"));
    Ok(())
}

fn png16() -> Outcome<Vec<u8>> {
    let mut file = Cursor::new(Vec::new());
    let picture = image::ImageBuffer::<image::Luma<u16>, _>::from_pixel(4, 4, image::Luma([40_000u16]));
    image::DynamicImage::ImageLuma16(picture).write_to(&mut file, image::ImageFormat::Png)?;
    Ok(file.into_inner())
}

// ---------------------------------------------------------------------------------------------------------------------
// Predicting

#[test]
fn any_size_is_padded_with_black_and_cropped() -> Outcome {
    let (h, w) = (37, 50);
    let small = volume([3, h, w], 3, noise(3 * h * w * 3));
    let mut bytes = vec![0; 3 * 64 * 64 * 3];
    for (row, pixels) in small.bytes.chunks_exact(3 * w).enumerate() {
        let at = (row / h * 64 + row % h) * 64 * 3;
        bytes[at..at + 3 * w].copy_from_slice(pixels);
    }
    let padded = volume([3, 64, 64], 3, bytes);
    for device in devices::all() {
        let options = PredictOptions { batch: 2, ..PredictOptions::default() };
        let (part, whole) = (logits(&device, &small, &options)?, logits(&device, &padded, &options)?);
        assert_eq!(part.len(), 3 * h * w);
        for (at, logit) in part.iter().enumerate() {
            let (z, y, x) = (at / (h * w), at / w % h, at % w);
            assert_eq!(*logit, whole[(z * 64 + y) * 64 + x], "{device}: {z} {y} {x}");
        }
    }
    Ok(())
}

#[test]
fn grey_fills_all_channels_and_others_must_fit() -> Outcome {
    let device = Device::cpu();
    let grey = noise(2 * 32 * 32);
    let coloured = grey.iter().flat_map(|byte| [*byte; 3]).collect();
    let options = PredictOptions::default();
    let one = logits(&device, &volume([2, 32, 32], 1, grey), &options)?;
    assert_eq!(one, logits(&device, &volume([2, 32, 32], 3, coloured), &options)?);
    let two = logits(&device, &volume([1, 32, 32], 2, noise(2048)), &options);
    assert!(two.is_err_and(|error| error.to_string().contains("2 channels, but the network reads 3")));
    let wrong = PredictOptions { threshold: 1.5, ..options };
    assert!(logits(&device, &volume([1, 32, 32], 1, noise(1024)), &wrong).is_err());
    Ok(())
}

#[test]
fn flips_are_averaged() -> Outcome {
    let (h, w) = (32, 64);
    let bytes = noise(h * w * 3);
    let flipped = |rows: bool, columns: bool| {
        let source = |at: usize| {
            let (y, x) = (at / w, at % w);
            (if rows { h - 1 - y } else { y }) * w + if columns { w - 1 - x } else { x }
        };
        let image: Vec<u8> = (0..h * w).flat_map(|at| bytes[3 * source(at)..][..3].to_vec()).collect();
        let answer = logits(&Device::cpu(), &volume([1, h, w], 3, image), &PredictOptions::default());
        answer.map(|answer| (0..h * w).map(|at| answer[source(at)]).collect::<Vec<f32>>())
    };
    let four = [flipped(false, false)?, flipped(false, true)?, flipped(true, false)?, flipped(true, true)?];
    let options = PredictOptions { flips: true, ..PredictOptions::default() };
    for device in devices::all() {
        let mean = logits(&device, &volume([1, h, w], 3, bytes.clone()), &options)?;
        for (at, value) in mean.iter().enumerate() {
            let expected = four.iter().map(|answer| answer[at]).sum::<f32>() / 4.0;
            assert!(
                (value - expected).abs() < 1e-3 * (1.0 + expected.abs()),
                "{device}: {value} and {expected} at {at}"
            );
        }
    }
    assert!(four[0] != four[3], "the network must see the difference");
    Ok(())
}

#[test]
fn a_network_sees_the_size_it_was_trained_at() -> Outcome {
    let large = noise(64 * 96 * 3);
    let small = resize::bytes(&large, 3, [64, 96], [32, 32])?;
    let device = Device::cpu();
    let at_size = PredictOptions { size: 32, ..PredictOptions::default() };
    let wanted = logits(&device, &volume([1, 32, 32], 3, small.clone()), &PredictOptions::default())?;
    let same = logits(&device, &volume([1, 32, 32], 3, small), &at_size)?;
    assert!(same == wanted, "nothing is resized where the size is right");
    let found = logits(&device, &volume([1, 64, 96], 3, large), &at_size)?;
    assert!(found == resize::logits(&wanted, [32, 32], [64, 96])?, "shrunk, computed, and grown back");
    // Neither square nor of the network's multiple.
    assert_eq!(logits(&device, &volume([2, 40, 51], 3, noise(2 * 40 * 51 * 3)), &at_size)?.len(), 2 * 40 * 51);
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// The command

/// Weights of an untrained network, and a threshold near the middle of its probabilities, so that masks are mixed.
fn weights_file(folder: &Path, volume: &Volume) -> Outcome<(PathBuf, String)> {
    let device = Device::cpu();
    let mut net = network(&device)?;
    let found = predict(&device, net.as_ref(), config().normalize, volume, &PredictOptions::default(), &mut |_| {})?;
    let mut probability = found.probability();
    probability.sort_by(f32::total_cmp);
    let path = folder.join("weights.safetensors");
    let about = [("config".to_owned(), toml::to_string(&config())?)].into();
    weights::save(&mut net, &path, &about)?;
    Ok((path, probability[probability.len() / 2].to_string()))
}

fn shadegrad(words: &[&str]) -> std::io::Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shadegrad"));
    command.env_remove("SHADEGRAD_DEVICE").args(words).args(["--device", "cpu"]).output()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The masks of a TIFF folder, slice after slice, 1 inside.
fn tiff_masks(folder: &Path, patient: &str, slices: usize, ending: &str) -> Outcome<Vec<u8>> {
    let mut all = Vec::new();
    for z in 1..=slices {
        let mut decoder =
            tiff::decoder::Decoder::new(fs::File::open(folder.join(format!("{patient}_{z}_mask.{ending}")))?)?;
        let tiff::decoder::DecodingResult::U8(bytes) = decoder.read_image()? else { return Err("bytes".into()) };
        assert!(bytes.iter().all(|value| [0, 255].contains(value)));
        all.extend(bytes.iter().map(|value| value / 255));
    }
    Ok(all)
}

#[test]
fn a_patient_has_the_same_masks_in_every_format() -> Outcome {
    let (folder, patient, path) = phantom()?;
    let at = |name: &str| folder.path().join(name);
    let (weights, threshold) = weights_file(folder.path(), &read(&path)?)?;
    fs::write(at("volume.nii.gz"), gzip(&as_nifti(&patient, 64).bytes())?)?;
    let run = |input: &Path, out: &str, more: &[&str]| -> Outcome<Vec<serde_json::Value>> {
        let fixed =
            ["predict", "--weights", text(&weights), "--input", text(input), "--json", "--threshold", &threshold];
        let done = shadegrad(&[&fixed[..], &["--out", text(&at(out))], more].concat())?;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(String::from_utf8(done.stdout)?.lines().map(serde_json::from_str).collect::<serde_json::Result<_>>()?)
    };
    let lines = run(&path, "tiff", &["--overlay", "--probability"])?;
    let masks = tiff_masks(&at("tiff"), &patient.name, 5, "tif")?;
    assert!(masks.contains(&0) && masks.contains(&1), "a mask of one kind proves nothing");
    assert_eq!(lines.len(), 5);
    for (z, line) in lines.iter().enumerate() {
        assert_eq!(line["image"], text(&path.join(format!("{}_{}.tif", patient.name, z + 1))));
        let plane = &masks[z * 4096..][..4096];
        assert_eq!(line["predicted_pixels"], plane.iter().map(|pixel| usize::from(*pixel)).sum::<usize>());
        assert!(line["dice"].is_number());
        assert!(at("tiff").join(format!("{}_{}_overlay.png", patient.name, z + 1)).is_file());
    }
    let lines = run(&at("volume.nii.gz"), "nifti", &["--probability"])?;
    assert_eq!((lines.len(), &lines[0]["slices"]), (1, &5.into()));
    assert_eq!(lines[0]["mask"], text(&at("nifti/volume_mask.nii.gz")));
    let written = read_nifti_bytes(&at("nifti/volume_mask.nii.gz"))?;
    assert!(written[352..] == masks, "NIfTI and TIFF masks differ");
    assert_eq!(read_nifti_bytes(&at("nifti/volume_probability.nii.gz"))?.len(), 352 + 4 * masks.len());
    run(&at("volume.nii.gz"), "from_nifti", &["--format", "tiff"])?;
    assert!(tiff_masks(&at("from_nifti"), "volume", 5, "tif")? == masks);
    run(&path, "to_nifti", &["--format", "nifti"])?;
    assert!(read_nifti_bytes(&at(&format!("to_nifti/{}_mask.nii.gz", patient.name)))?[352..] == masks);

    // One piece, and the largest.
    run(&path, "largest", &["--largest-component"])?;
    let largest = tiff_masks(&at("largest"), &patient.name, 5, "tif")?;
    let mut expected = masks.clone();
    assert!(shadegrad::eval::components::keep_largest(&mut expected, [5, 64, 64])? > 0, "the case must have specks");
    assert!(largest == expected);

    // Two patients whose slices have the same names get a folder each.
    for name in ["a", "b"] {
        fs::create_dir_all(at("twins").join(name))?;
        fs::copy(path.join(format!("{}_1.tif", patient.name)), at("twins").join(name).join("1.tif"))?;
    }
    run(&at("twins"), "separate", &[])?;
    assert!(at("separate/a/1_mask.tif").is_file() && at("separate/b/1_mask.tif").is_file());
    Ok(())
}

fn read_nifti_bytes(path: &Path) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(fs::File::open(path)?), &mut bytes)?;
    Ok(bytes)
}

#[test]
fn the_command_refuses_with_a_sentence_and_1() -> Outcome {
    let (folder, patient, path) = phantom()?;
    let at = |name: &str| folder.path().join(name);
    let (weights, _) = weights_file(folder.path(), &read(&path)?)?;
    let slice = path.join(format!("{}_1.tif", patient.name));
    fs::write(at("text.nii"), "text")?;
    fs::write(at("file"), "in the way")?;
    let refuses = |input: &Path, out: &Path, more: &[&str], words: &[&str]| -> Outcome {
        let fixed = ["predict", "--weights", text(&weights), "--input", text(input), "--out", text(out)];
        let done = shadegrad(&[&fixed[..], more].concat())?;
        let message = String::from_utf8(done.stderr)?;
        assert_eq!(done.status.code(), Some(1), "{message}");
        for word in words {
            assert!(message.contains(word), "{message} lacks {word}");
        }
        assert!(message.starts_with("error: ") && message.lines().count() <= 2, "{message}");
        assert!(!at("out").exists(), "nothing is left behind");
        Ok(())
    };
    refuses(&at("text.nii"), &at("out"), &[], &["text.nii", "no NIfTI-1 volume"])?;
    refuses(&slice, &at("file/out"), &[], &["cannot create", "file/out"])?;
    refuses(&slice, &at("file"), &[], &["cannot create", "file"])?;
    refuses(&slice, &path, &[], &["another --out", &patient.name])?;
    refuses(&slice, &at("out"), &["--threshold", "1"], &["--threshold 1 must lie between 0 and 1"])?;
    refuses(&at("missing"), &at("out"), &[], &["missing", "no such file or folder"])?;
    let two = Nifti { dims: &[32, 32, 1, 2], voxels: noise(2048), ..as_nifti(&patient, 64) };
    fs::write(at("two.nii"), two.bytes())?;
    refuses(&at("two.nii"), &at("out"), &[], &["two.nii", "2 channels, but the network reads 3"])?;
    Ok(())
}

#[test]
fn slices_of_several_sizes_train_with_size_and_are_predicted_at_their_own() -> Outcome {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    for (size, seed) in [(64, 1), (96, 2)] {
        let settings = PhantomSettings { patients: 2, slices: 4, size, seed };
        let root = write_phantom(&at(&size.to_string()), &settings, &|_, _| {})?;
        fs::create_dir_all(at("set"))?;
        for patient in fs::read_dir(root)?.collect::<std::io::Result<Vec<_>>>()? {
            if patient.file_type()?.is_dir() {
                fs::rename(patient.path(), at("set").join(format!("{size}_{}", patient.file_name().display())))?;
            }
        }
    }
    let set = at("set");
    let (data, out) = (text(&set).to_owned(), at("run"));
    let train =
        ["train", "--data", &data, "--out", text(&out), "--epochs", "1", "--batch", "2", "--widths", "4,4,4,4,4"];
    let refused = shadegrad(&train)?;
    assert!(!refused.status.success(), "two sizes cannot be one batch");
    let wrong = shadegrad(&[&train[..], &["--size", "50"]].concat())?;
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("size must divide by 32"));
    let done = shadegrad(&[&train[..], &["--size", "32"]].concat())?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let weights = out.join("best.safetensors");
    for patient in fs::read_dir(&set)?.collect::<std::io::Result<Vec<_>>>()? {
        let side: usize = patient.file_name().to_str().unwrap()[..2].parse()?;
        let masks = at(&format!("masks{}", patient.file_name().display()));
        let args = ["predict", "--weights", text(&weights), "--input", text(&patient.path()), "--out", text(&masks)]
            .map(str::to_owned);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let done = shadegrad(&[&args[..], &["--format", "png"]].concat())?;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let written = fs::read_dir(&masks)?.collect::<std::io::Result<Vec<_>>>()?;
        assert_eq!(written.len(), 4);
        for mask in written {
            assert_eq!(image::image_dimensions(mask.path())?, (side as u32, side as u32));
        }
    }
    Ok(())
}
