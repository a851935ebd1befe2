//! What can be predicted: pictures (`.tif`, `.png`), NIfTI volumes and DICOM series, found below a path and read one volume
//! at a time as bytes `[D, H, W, C]`.
//!
//! **Slices.** A volume is `[depth, height, width]`. Pictures of one patient in one folder are its slices, in the order of
//! their numbers. NIfTI: the third axis as stored ([`nifti`]); DICOM: by position ([`dicom`]).
//!
//! **Intensities.** Networks are trained on bytes, which are then normalised ([`Normalization`](super::Normalization)). A channel
//! of a volume whose values are whole numbers from 0 to 255 keeps them exactly. Any other channel is mapped linearly, its
//! percentiles 0.1 and 99.9 (by rank, over the volume) becoming 0 and 255; what lies outside is clipped to them, and what is
//! not finite becomes 0 and does not count. Where the two percentiles are equal, minimum and maximum take their place.
//! The default normalisation clips to percentiles 10 and 99, so this loses nothing that it would keep but steps finer than
//! 1/255 of the range.
//!
//! **Channels.** Volumes that are named together are the channels of one, in that order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::kaggle::{Stem, holding_folder, mask_for, other_size, walk_files};
use super::{CHANNELS, Geometry, Picture, decode_any, dicom, nifti};
use crate::{Error, Result};

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Pictures, one a slice.
    Png,
    /// Pictures, one a slice, as in Kaggle's set.
    Tiff,
    /// One file a volume.
    Nifti,
}

/// A volume to predict, in memory.
#[derive(Debug, Clone)]
pub struct Volume {
    /// The file or folder it came from.
    pub path: PathBuf,
    /// Depth, height and width.
    pub size: [usize; 3],
    /// Channels.
    pub channels: usize,
    /// `[D, H, W, C]`.
    pub bytes: Vec<u8>,
    /// For each channel the values that became 0 and 255; `None` if they were bytes already and are kept.
    pub mapped: Vec<Option<[f32; 2]>>,
    /// One entry a slice.
    pub slices: Vec<SliceInfo>,
    /// Where its voxels lie.
    pub geometry: Geometry,
}

/// A slice of a [`Volume`].
#[derive(Debug, Clone)]
pub struct SliceInfo {
    /// The picture's file, or that of the volume.
    pub path: PathBuf,
    /// Names the outputs: the picture's name without its ending, or the volume's with `_<slice>`, from 1.
    pub name: String,
    /// `[H, W]`, 1 inside, from a `_mask` file beside.
    pub truth: Option<Vec<u8>>,
}

impl Volume {
    /// Slice `z` as RGB `[H, W, 3]` for a picture: its first three channels; one or two are filled up with their last.
    pub fn rgb(&self, z: usize) -> Vec<u8> {
        let plane = self.size[1] * self.size[2] * self.channels;
        let slice = &self.bytes[z * plane..(z + 1) * plane];
        let pixel = |pixel: &[u8]| [0, 1, 2].map(|channel| pixel[channel.min(pixel.len() - 1)]);
        slice.chunks_exact(self.channels).flat_map(pixel).collect()
    }

    /// The bytes as `channels` channels `[D, H, W, channels]`, as a network wants them. A volume of one channel fills them all.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn with_channels(&self, channels: usize) -> Result<Vec<u8>> {
        self.check_channels(channels)?;
        if self.channels == channels {
            return Ok(self.bytes.clone());
        }
        Ok(self.bytes.iter().flat_map(|byte| std::iter::repeat_n(*byte, channels)).collect())
    }

    /// Whether [`with_channels`](Self::with_channels) has an answer.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn check_channels(&self, channels: usize) -> Result<()> {
        if self.channels == channels || self.channels == 1 {
            return Ok(());
        }
        let message = format!(
            "{} channels, but the network reads {channels}; give {channels} (repeat one in place of a missing sequence) or one",
            self.channels
        );
        Err(Error::data(&self.path, message))
    }

    /// The true mask `[D, H, W]`, if every slice has one.
    pub fn truth(&self) -> Option<Vec<u8>> {
        let masks: Option<Vec<&[u8]>> = self.slices.iter().map(|slice| slice.truth.as_deref()).collect();
        masks.map(|masks| masks.concat())
    }
}

/// A volume that was found but not yet read.
#[derive(Debug, Clone)]
pub struct VolumeSource {
    /// The file or folder.
    pub path: PathBuf,
    /// Names the outputs that are one for the whole volume: the patient, the file without its ending, the series' folder.
    pub name: String,
    parts: Parts,
}

#[derive(Debug, Clone)]
enum Parts {
    Pictures(Vec<(PathBuf, Stem)>),
    Nifti,
    Dicom(dicom::Series),
    Channels(Vec<VolumeSource>),
}

/// A channel `[D, H, W]` as its file has it.
pub(super) enum Channel {
    Bytes(Vec<u8>),
    Values(Vec<f32>),
}

/// A volume as its file has it.
pub(super) struct Decoded {
    pub(super) size: [usize; 3],
    pub(super) channels: Vec<Channel>,
    pub(super) geometry: Geometry,
}

/// What the files below the inputs are.
#[derive(Default)]
struct Found {
    pictures: Vec<(PathBuf, Stem)>,
    nifti: Vec<PathBuf>,
    dicom: Vec<PathBuf>,
}

impl Found {
    /// Sorts a file in; `false` if it is nothing that can be read.
    fn add(&mut self, path: PathBuf) -> bool {
        if let Some(stem) = Stem::parse(&path) {
            self.pictures.push((path, stem));
        } else if nifti::is_nifti(&path) {
            self.nifti.push(path);
        } else if dicom::is_dicom(&path) {
            self.dicom.push(path);
        } else {
            return false;
        }
        true
    }

    fn below(input: &Path) -> Result<Self> {
        let mut found = Self::default();
        if input.is_dir() {
            walk_files(&holding_folder(input), 0, &mut |path| {
                if !is_output(&path) {
                    found.add(path);
                }
                Ok(())
            })?;
        } else if !input.exists() {
            return Err(Error::data(input, "there is no such file or folder; check the path"));
        } else if is_mask(input) {
            return Err(Error::data(input, "this is a mask; name the image beside it (without _mask)"));
        } else if !found.add(input.to_owned()) {
            return Err(Error::data(
                input,
                "this is neither .tif, .png, .nii, .nii.gz nor DICOM, nor a folder; name an image, a volume or a folder of them",
            ));
        }
        found.pictures.retain(|(_, stem)| !stem.mask);
        found.nifti.retain(|path| !is_mask(path));
        Ok(found)
    }
}

/// The name without ending, in lower case.
fn bare(path: &Path) -> String {
    let name = if nifti::is_nifti(path) {
        nifti::stem(path)
    } else {
        path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    };
    name.to_ascii_lowercase()
}

fn is_mask(path: &Path) -> bool {
    (Stem::parse(path).is_some() || nifti::is_nifti(path)) && bare(path).ends_with("_mask")
}

/// Whether a file looks like what an earlier `predict` wrote beside its mask.
fn is_output(path: &Path) -> bool {
    let name = bare(path);
    name.ends_with("_overlay") || name.ends_with("_probability")
}

/// Finds what can be predicted at or below `inputs`; masks belong to their images. Sorted by name. Several volumes (NIfTI,
/// or folders with one DICOM series) that are named together are the channels of one.
///
/// ```no_run
/// # fn main() -> shadegrad::Result<()> {
/// for source in shadegrad::data::find_volumes(&["lgg/kaggle_3m".into()])? {
///     let volume = source.read()?;
///     assert_eq!(volume.bytes.len(), volume.size.iter().product::<usize>() * volume.channels);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Nothing there, a mask named as the image, a file of no known format, DICOM files that cannot be read, or volumes named
/// together that are not one each.
pub fn find_volumes(inputs: &[PathBuf]) -> Result<Vec<VolumeSource>> {
    let mut pictures = Vec::new();
    let mut volumes: Vec<Vec<VolumeSource>> = Vec::new();
    for input in inputs {
        let found = Found::below(input)?;
        if found.pictures.is_empty() && found.nifti.is_empty() && found.dicom.is_empty() {
            let message =
                "no .tif, .png, .nii, .nii.gz or DICOM image found here; name an image, a volume or a folder of them";
            return Err(Error::data(input, message));
        }
        pictures.extend(found.pictures);
        let mut here: Vec<VolumeSource> = found
            .nifti
            .into_iter()
            .map(|path| VolumeSource { name: nifti::stem(&path), path, parts: Parts::Nifti })
            .collect();
        for series in dicom::series(&found.dicom)? {
            let path = if found.dicom.len() == 1 { series.slices[0].path.clone() } else { series.folder.clone() };
            here.push(VolumeSource { name: series.name.clone(), path, parts: Parts::Dicom(series) });
        }
        if !here.is_empty() {
            volumes.push(here);
        }
    }
    let mut sources = group(pictures);
    if inputs.len() == 1 {
        sources.extend(volumes.into_iter().flatten());
    } else if !volumes.is_empty() {
        if let (Some(picture), Some(volume)) = (sources.first(), volumes.first().and_then(|here| here.first())) {
            let message = format!(
                "is a picture, but {} is a volume; several inputs are either pictures or the channels of one volume",
                volume.path.display()
            );
            return Err(Error::data(&picture.path, message));
        }
        let one = |here: Vec<VolumeSource>| match <[VolumeSource; 1]>::try_from(here) {
            Ok([volume]) => Ok(volume),
            Err(several) => Err(Error::data(
                &several[0].path,
                "is one of several volumes in an input, but several inputs are the channels of one volume; name one file or series each",
            )),
        };
        let channels = volumes.into_iter().map(one).collect::<Result<Vec<_>>>()?;
        let (path, name) = (channels[0].path.clone(), channels[0].name.clone());
        sources.push(VolumeSource { path, name, parts: Parts::Channels(channels) });
    }
    sources.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
    Ok(sources)
}

/// Pictures, by patient and folder.
fn group(mut pictures: Vec<(PathBuf, Stem)>) -> Vec<VolumeSource> {
    pictures.sort_by_cached_key(|(path, stem)| (stem.number.unwrap_or(u32::MAX), path.clone()));
    pictures.dedup_by(|a, b| a.0 == b.0);
    let alone = pictures.len() == 1;
    let mut patients: BTreeMap<(PathBuf, String), Vec<(PathBuf, Stem)>> = BTreeMap::new();
    for (path, stem) in pictures {
        let key = (path.parent().unwrap_or(Path::new("")).to_owned(), stem.patient(&path));
        patients.entry(key).or_default().push((path, stem));
    }
    let source = |((folder, name), files): ((PathBuf, String), Vec<(PathBuf, Stem)>)| {
        let (path, name) = if alone { (files[0].0.clone(), files[0].1.name.clone()) } else { (folder, name) };
        VolumeSource { path, name, parts: Parts::Pictures(files) }
    };
    patients.into_iter().map(source).collect()
}

impl VolumeSource {
    /// The format of its files; `None` for DICOM, which is not written.
    pub fn format(&self) -> Option<Format> {
        match &self.parts {
            Parts::Pictures(files)
                if files[0].0.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png")) =>
            {
                Some(Format::Png)
            }
            Parts::Pictures(_) => Some(Format::Tiff),
            Parts::Nifti => Some(Format::Nifti),
            Parts::Dicom(_) => None,
            Parts::Channels(channels) => channels[0].format(),
        }
    }

    /// Its files.
    pub fn files(&self) -> Vec<&Path> {
        match &self.parts {
            Parts::Pictures(files) => files.iter().map(|(path, _)| path.as_path()).collect(),
            Parts::Nifti => vec![&self.path],
            Parts::Dicom(series) => series.slices.iter().map(|slice| slice.path.as_path()).collect(),
            Parts::Channels(channels) => channels.iter().flat_map(Self::files).collect(),
        }
    }

    /// Whether it is pictures, whose slices are files of their own.
    pub fn is_pictures(&self) -> bool {
        matches!(self.parts, Parts::Pictures(_))
    }

    /// The names of its outputs that are known without reading it: the slices of pictures, else [`name`](Self::name).
    pub fn names(&self) -> Vec<&str> {
        match &self.parts {
            Parts::Pictures(files) => files.iter().map(|(_, stem)| stem.name.as_str()).collect(),
            _ => vec![&self.name],
        }
    }

    /// Reads it, with the true mask where one lies beside (`<name>_mask` in the input's own kind of file).
    ///
    /// # Errors
    /// A file that cannot be decoded, slices or channels of several sizes, or channels that do not lie on one grid.
    pub fn read(&self) -> Result<Volume> {
        let decoded = match &self.parts {
            Parts::Pictures(files) => return read_pictures(&self.path, files),
            Parts::Nifti => nifti::read(&self.path)?,
            Parts::Dicom(series) => dicom::read(series)?,
            Parts::Channels(sources) => return self.read_channels(sources),
        };
        let (bytes, mapped): (Vec<_>, Vec<_>) = decoded.channels.into_iter().map(to_bytes).unzip();
        if mapped.iter().flatten().any(|range| range[0].is_nan()) {
            return Err(Error::data(&self.path, "holds no finite value; export it again"));
        }
        let truth = self.volume_truth(decoded.size)?;
        Ok(self.assemble(decoded.size, &bytes, mapped, truth, decoded.geometry))
    }

    fn assemble(
        &self,
        size: [usize; 3],
        channels: &[Vec<u8>],
        mapped: Vec<Option<[f32; 2]>>,
        truth: Option<Vec<u8>>,
        geometry: Geometry,
    ) -> Volume {
        let plane = size[1] * size[2];
        let slices = (0..size[0]).map(|z| SliceInfo {
            path: self.path.clone(),
            name: format!("{}_{}", self.name, z + 1),
            truth: truth.as_ref().map(|truth| truth[z * plane..(z + 1) * plane].to_vec()),
        });
        Volume {
            path: self.path.clone(),
            size,
            channels: channels.len(),
            bytes: interleave(channels),
            mapped,
            slices: slices.collect(),
            geometry,
        }
    }

    /// The mask `<name>_mask.nii` or `.nii.gz` beside a NIfTI volume.
    fn volume_truth(&self, size: [usize; 3]) -> Result<Option<Vec<u8>>> {
        if !matches!(self.parts, Parts::Nifti) {
            return Ok(None);
        }
        let beside = ["nii", "nii.gz"].map(|ending| self.path.with_file_name(format!("{}_mask.{ending}", self.name)));
        let Some(file) = beside.into_iter().find(|file| file.is_file()) else { return Ok(None) };
        let mask = nifti::read(&file)?;
        if mask.size != size || mask.channels.len() != 1 {
            let message =
                format!("the mask has the size {:?}, but the volume beside it {size:?}; remove one", mask.size);
            return Err(Error::data(&file, message));
        }
        let inside = match mask.channels.into_iter().next() {
            Some(Channel::Bytes(bytes)) => bytes.into_iter().map(|value| u8::from(value != 0)).collect(),
            Some(Channel::Values(values)) => values.into_iter().map(|value| u8::from(value != 0.0)).collect(),
            None => return Ok(None),
        };
        Ok(Some(inside))
    }

    /// Volumes of one channel each as the channels of one.
    fn read_channels(&self, sources: &[Self]) -> Result<Volume> {
        let mut volumes = Vec::with_capacity(sources.len());
        for source in sources {
            let volume = source.read()?;
            if volume.channels != 1 {
                let message =
                    format!("holds {} channels, but is itself named as a channel; name it alone", volume.channels);
                return Err(Error::data(&source.path, message));
            }
            volumes.push(volume);
        }
        let first = &volumes[0];
        for other in &volumes[1..] {
            if other.size != first.size {
                let message = format!(
                    "has the size {:?}, but {} {:?}; resample one to the grid of the other",
                    other.size,
                    first.path.display(),
                    first.size
                );
                return Err(Error::data(&other.path, message));
            }
            if !other.geometry.agrees(&first.geometry) {
                let message = format!(
                    "its affine is not that of {}; resample one to the grid of the other",
                    first.path.display()
                );
                return Err(Error::data(&other.path, message));
            }
        }
        let truth = volumes.iter().find_map(Volume::truth);
        let mapped = volumes.iter().flat_map(|volume| volume.mapped.clone()).collect();
        let geometry = first.geometry.clone();
        let size = first.size;
        let channels: Vec<_> = volumes.into_iter().map(|volume| volume.bytes).collect();
        Ok(self.assemble(size, &channels, mapped, truth, geometry))
    }
}

/// Decodes the pictures of one patient, and the masks beside them.
fn read_pictures(path: &Path, files: &[(PathBuf, Stem)]) -> Result<Volume> {
    let decoded: Vec<Result<(Picture, SliceInfo)>> =
        files.par_iter().map(|(path, stem)| read_picture(path, stem)).collect();
    let decoded = decoded.into_iter().collect::<Result<Vec<_>>>()?;
    let Some((first, _)) = decoded.first() else {
        return Err(Error::data(path, "no picture found here"));
    };
    let (height, width) = (first.height, first.width);
    if let Some((other, slice)) = decoded.iter().find(|(other, _)| (other.height, other.width) != (height, width)) {
        return Err(other_size(&slice.path, (other.height, other.width), &decoded[0].1.path, (height, width)));
    }
    let channels = decoded.iter().map(|(picture, _)| picture.channels).max().unwrap_or(CHANNELS);
    let mut bytes = Vec::with_capacity(decoded.len() * height * width * channels);
    let mut slices = Vec::with_capacity(decoded.len());
    for (picture, slice) in decoded {
        // A grey slice among RGB ones.
        let copies = channels / picture.channels;
        bytes.extend(picture.bytes.iter().flat_map(|byte| std::iter::repeat_n(*byte, copies)));
        slices.push(slice);
    }
    let size = [slices.len(), height, width];
    Ok(Volume {
        path: path.to_owned(),
        size,
        channels,
        bytes,
        mapped: vec![None; channels],
        slices,
        geometry: Geometry::unknown(),
    })
}

fn read_picture(path: &Path, stem: &Stem) -> Result<(Picture, SliceInfo)> {
    let picture = decode_any(path)?;
    let beside = ["tif", "tiff", "png"].map(|ending| path.with_file_name(format!("{}_mask.{ending}", stem.name)));
    let truth = match beside.iter().find(|candidate| candidate.is_file()) {
        Some(file) => Some(mask_for(path, (picture.height, picture.width), file)?),
        None => None,
    };
    Ok((picture, SliceInfo { path: path.to_owned(), name: stem.name.clone(), truth }))
}

/// `channels` planes `[D, H, W]` as `[D, H, W, C]`.
fn interleave(channels: &[Vec<u8>]) -> Vec<u8> {
    let voxels = channels.first().map_or(0, Vec::len);
    (0..voxels).flat_map(|voxel| channels.iter().map(move |channel| channel[voxel])).collect()
}

/// A channel as bytes, and the values that became 0 and 255 (NaN if none is finite).
fn to_bytes(channel: Channel) -> (Vec<u8>, Option<[f32; 2]>) {
    let values = match channel {
        Channel::Bytes(bytes) => return (bytes, None),
        Channel::Values(values) => values,
    };
    if values.iter().all(|value| (0.0..=255.0).contains(value) && value.fract() == 0.0) {
        return (values.into_iter().map(|value| value as u8).collect(), None);
    }
    let range = byte_range(&values);
    (values.into_iter().map(|value| byte_of(value, range)).collect(), Some(range))
}

/// The values that become 0 and 255: percentiles 0.1 and 99.9 by rank of what is finite, or the extremes where these are equal.
fn byte_range(values: &[f32]) -> [f32; 2] {
    let mut finite: Vec<f32> = values.iter().copied().filter(|value| value.is_finite()).collect();
    let Some(last) = finite.len().checked_sub(1) else { return [f32::NAN; 2] };
    let [low, high] =
        [last / 1000, last - last / 1000].map(|rank| *finite.select_nth_unstable_by(rank, f32::total_cmp).1);
    if low < high {
        return [low, high];
    }
    finite.iter().fold([low, high], |[low, high], value| [low.min(*value), high.max(*value)])
}

fn byte_of(value: f32, [low, high]: [f32; 2]) -> u8 {
    let span = f64::from(high) - f64::from(low);
    if !value.is_finite() || span <= 0.0 {
        return 0;
    }
    // The cast clips at both ends.
    ((f64::from(value) - f64::from(low)) / span * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(values: &[f32]) -> (Vec<u8>, Option<[f32; 2]>) {
        to_bytes(Channel::Values(values.to_vec()))
    }

    #[test]
    fn whole_numbers_up_to_255_are_kept() {
        let all: Vec<f32> = (0..256).map(|value| value as f32).collect();
        assert_eq!(mapped(&all), ((0..=255).collect(), None));
        assert_eq!(mapped(&[3.0, 0.0]), (vec![3, 0], None));
    }

    #[test]
    fn other_values_are_mapped_linearly() {
        assert_eq!(mapped(&[0.0, 0.5, 1.0]), (vec![0, 128, 255], Some([0.0, 1.0])));
        assert_eq!(mapped(&[-1000.0, 0.0, 1000.0]).0, [0, 128, 255]);
        assert_eq!(mapped(&[256.0, 0.0, 64.0]).0, [255, 0, 64]);
        assert_eq!(mapped(&[7.5, 7.5]), (vec![0, 0], Some([7.5, 7.5])));
        assert_eq!(mapped(&[f32::NAN, 0.25, f32::INFINITY, 0.75]).0, [0, 0, 0, 255]);
        assert!(mapped(&[f32::NAN]).1.is_some_and(|range| range[0].is_nan()));
    }

    #[test]
    fn a_few_outliers_do_not_take_the_range() {
        let mut values: Vec<f32> = (0..10_000).map(|value| value as f32 / 10.0).collect();
        values[17] = 1e9;
        values[18] = -1e9;
        let (bytes, range) = mapped(&values);
        assert!(range.is_some_and(|[low, high]| (0.0..2.0).contains(&low) && (998.0..1000.0).contains(&high)));
        assert_eq!((bytes[17], bytes[18]), (255, 0));
        // Nearly all equal: both percentiles are 0, so the extremes count.
        let mut sparse = vec![0.0; 10_000];
        sparse[5] = 0.5;
        assert_eq!(mapped(&sparse).1, Some([0.0, 0.5]));
    }
}
