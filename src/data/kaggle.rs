//! Reading the Kaggle layout of the LGG brain MRI set, and checking a folder before it is used.
//!
//! ```text
//! DIR/kaggle_3m/<patient>/<patient>_<n>.tif         RGB bytes: pre-contrast, FLAIR, post-contrast
//! DIR/kaggle_3m/<patient>/<patient>_<n>_mask.tif    grey bytes: 0, and 255 where the FLAIR abnormality is
//! ```
//! The user may name `DIR`, `kaggle_3m` or any folder above patient folders. Other files (`README.md`, `data.csv`) are skipped.
//!
//! Reading has two steps: `scan` looks at names only and pairs images with masks; decoding then runs on all cores. Each
//! step yields problems as errors that name a file: [`Dataset::read`] returns the first, [`Dataset::inspect`] collects all.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::{CHANNELS, decode_image, decode_mask, resize};
use crate::{Error, Result};

/// One axial slice of a patient with its mask.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The number in the file name; counts from 1 at the bottom of the head.
    pub number: u32,
    /// The image's file.
    pub path: PathBuf,
    /// `height * width * 3` bytes, interleaved: pre-contrast, FLAIR, post-contrast.
    pub image: Vec<u8>,
    /// `height * width` bytes, 1 in the tumour and 0 elsewhere.
    pub mask: Vec<u8>,
}

/// All slices of one person, in ascending order of their numbers.
#[derive(Debug, Clone)]
pub struct Patient {
    /// The folder's name, for example `TCGA_CS_4944_20010208`.
    pub name: String,
    /// The slices, bottom to top.
    pub slices: Vec<Slice>,
}

/// A decoded data set: every slice has the same size.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The folder that was read: `kaggle_3m`, if the named folder holds one.
    pub root: PathBuf,
    /// Sorted by name.
    pub patients: Vec<Patient>,
    /// Rows of every slice.
    pub height: usize,
    /// Columns of every slice.
    pub width: usize,
    /// Channels of every image (3).
    pub channels: usize,
}

/// What [`Dataset::inspect`] found.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Patients with at least one usable slice.
    pub patients: usize,
    /// Slices that can be read, with their mask.
    pub slices: usize,
    /// Slices whose mask is not empty.
    pub tumour_slices: usize,
    /// Mask pixels.
    pub tumour_pixels: u64,
    /// One sentence each, with the file's name and what to do; empty if the set can be used as it is.
    pub problems: Vec<String>,
    /// The sizes that occur, as `(height, width)`; a usable set has one.
    pub sizes: Vec<(usize, usize)>,
    /// One row a patient, sorted by name.
    pub per_patient: Vec<PatientRow>,
}

/// One patient's line in an [`Inspection`].
#[derive(Debug, Clone, Serialize)]
pub struct PatientRow {
    /// The folder's name.
    pub patient: String,
    /// Readable slices.
    pub slices: usize,
    /// Slices whose mask is not empty.
    pub tumour_slices: usize,
    /// Mask pixels.
    pub tumour_pixels: u64,
}

impl Dataset {
    /// Reads all patients below `root`; `progress(done, total)` is called after every slice, from several threads.
    ///
    /// ```no_run
    /// # fn main() -> shadegrad::Result<()> {
    /// let set = shadegrad::data::Dataset::read("data/kaggle_3m".as_ref(), &|_, _| {})?;
    /// assert_eq!(set.patients[0].slices[0].image.len(), set.height * set.width * set.channels);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A missing folder; no pairs; an image or mask without the other; a file that is not 8-bit RGB (8-bit grey for masks)
    /// or is cut off; several sizes; mask values beside 0 and 255; one patient or slice number twice.
    pub fn read(root: &Path, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Self> {
        Self::read_resized(root, 0, progress)
    }

    /// As [`read`](Self::read), and brings every slice to `side` rows and columns; 0: leaves them as they are. The
    /// files may then have several sizes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_resized(root: &Path, side: usize, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Self> {
        let scan = scan(root)?;
        if let Some(problem) = scan.problems.into_iter().next() {
            return Err(problem);
        }
        let total = scan.patients.iter().map(|found| found.pairs.len()).sum();
        let done = AtomicUsize::new(0);
        let mut patients = Vec::with_capacity(scan.patients.len());
        let mut size = None;
        for found in scan.patients {
            // Decoded in parallel, looked at in order: the error reported is the first by name, not the first by time.
            let decoded: Vec<_> = found
                .pairs
                .par_iter()
                .map(|pair| {
                    let slice = pair.decode().and_then(|(slice, size)| resized(slice, size, side));
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
                    slice
                })
                .collect();
            let mut slices = Vec::with_capacity(decoded.len());
            for slice in decoded {
                let (slice, here) = slice?;
                let (first, expected) = size.get_or_insert_with(|| (slice.path.clone(), here));
                if *expected != here {
                    return Err(other_size(&slice.path, here, first, *expected));
                }
                slices.push(slice);
            }
            patients.push(Patient { name: found.name, slices });
        }
        let Some((_, (height, width))) = size else {
            return Err(no_pairs(&scan.root));
        };
        Ok(Self { root: scan.root, patients, height, width, channels: CHANNELS })
    }

    /// Looks at every file below `root` and collects all problems instead of stopping at the first.
    pub fn inspect(root: &Path) -> Inspection {
        let mut report = Inspection {
            patients: 0,
            slices: 0,
            tumour_slices: 0,
            tumour_pixels: 0,
            problems: Vec::new(),
            sizes: Vec::new(),
            per_patient: Vec::new(),
        };
        let scan = match scan(root) {
            Ok(scan) => scan,
            Err(problem) => {
                report.problems.push(problem.to_string());
                return report;
            }
        };
        report.problems.extend(scan.problems.iter().map(sentence));
        if scan.patients.is_empty() && report.problems.is_empty() {
            report.problems.push(no_pairs(&scan.root).to_string());
        }
        let mut size = None;
        for found in scan.patients {
            // Pixels are counted and dropped at once: the whole set need not fit into memory to be inspected.
            let counted: Vec<_> = found
                .pairs
                .par_iter()
                .map(|pair| {
                    pair.decode().map(|(slice, size)| {
                        (slice.path, size, slice.mask.iter().map(|&inside| u64::from(inside)).sum::<u64>())
                    })
                })
                .collect();
            let mut row = PatientRow { patient: found.name, slices: 0, tumour_slices: 0, tumour_pixels: 0 };
            for slice in counted {
                match slice {
                    Ok((path, here, pixels)) => {
                        row.slices += 1;
                        row.tumour_slices += usize::from(pixels > 0);
                        row.tumour_pixels += pixels;
                        if !report.sizes.contains(&here) {
                            report.sizes.push(here);
                        }
                        let (first, expected) = size.get_or_insert_with(|| (path.clone(), here));
                        if *expected != here {
                            report.problems.push(other_size(&path, here, first, *expected).to_string());
                        }
                    }
                    Err(problem) => report.problems.push(sentence(&problem)),
                }
            }
            if row.slices > 0 {
                report.patients += 1;
                report.slices += row.slices;
                report.tumour_slices += row.tumour_slices;
                report.tumour_pixels += row.tumour_pixels;
                report.per_patient.push(row);
            }
        }
        report
    }

    /// Slices of all patients together.
    pub fn slice_count(&self) -> usize {
        self.patients.iter().map(|patient| patient.slices.len()).sum()
    }

    /// The index of the patient with this name; case does not matter, and a TCGA name may lack its date.
    pub fn find(&self, name: &str) -> Option<usize> {
        let exact = self.patients.iter().position(|patient| patient.name.eq_ignore_ascii_case(name));
        exact.or_else(|| self.patients.iter().position(|patient| identity(&patient.name) == name.to_ascii_lowercase()))
    }

    /// Every `(patient index, slice index)`, in order.
    pub fn indices(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let per_patient = self.patients.iter().enumerate();
        per_patient.flat_map(|(at, patient)| (0..patient.slices.len()).map(move |slice| (at, slice)))
    }

    /// The slice at `(patient index, slice index)`.
    ///
    /// # Panics
    /// If there is no such slice; indices come from [`Dataset::indices`] or a [`Split`](super::Split) of this set.
    pub fn slice(&self, (patient, slice): (usize, usize)) -> &Slice {
        &self.patients[patient].slices[slice]
    }
}

/// The slice with `side` rows and columns; 0: as it is.
fn resized(slice: Slice, size: (usize, usize), side: usize) -> Result<(Slice, (usize, usize))> {
    if side == 0 || size == (side, side) {
        return Ok((slice, size));
    }
    let (from, to) = ([size.0, size.1], [side, side]);
    let image = resize::bytes(&slice.image, CHANNELS, from, to)?;
    let mask = resize::mask(&slice.mask, from, to)?;
    Ok((Slice { image, mask, ..slice }, (side, side)))
}

/// Decodes the mask in `file` and checks that it has its image's size.
pub(super) fn mask_for(image: &Path, size: (usize, usize), file: &Path) -> Result<Vec<u8>> {
    let mask = decode_mask(file)?;
    if (mask.height, mask.width) != size {
        return Err(other_size(file, (mask.height, mask.width), image, size));
    }
    Ok(mask.bytes)
}

/// An image and its mask, by name only.
struct Pair {
    number: u32,
    image: PathBuf,
    mask: PathBuf,
}

impl Pair {
    /// Decodes both files; the second value is `(height, width)`.
    fn decode(&self) -> Result<(Slice, (usize, usize))> {
        let image = decode_image(&self.image)?;
        let size = (image.height, image.width);
        let mask = mask_for(&self.image, size, &self.mask)?;
        Ok((Slice { number: self.number, path: self.image.clone(), image: image.bytes, mask }, size))
    }
}

/// A patient's pairs, before decoding.
struct Found {
    name: String,
    folder: PathBuf,
    pairs: Vec<Pair>,
}

/// The files of one slice number: images, then masks; one of each is right.
type ImagesAndMasks = [Vec<PathBuf>; 2];

/// What the names below a folder say.
struct Scan {
    root: PathBuf,
    patients: Vec<Found>,
    problems: Vec<Error>,
}

/// Pairs images with masks below `root`, without opening a file.
fn scan(root: &Path) -> Result<Scan> {
    if !root.is_dir() {
        let why = if root.exists() {
            "this is a file, not a folder; unpack the archive and name the folder that holds kaggle_3m"
        } else {
            "there is no such folder; name the folder that holds kaggle_3m (data/README.md says where to get the \
             images; `shadegrad data sample` makes synthetic ones)"
        };
        return Err(Error::data(root, why));
    }
    let root = holding_folder(root);
    let mut files = Vec::new();
    walk(&root, &mut files)?;

    // (folder, prefix) -> slice number -> [images, masks]. A folder holds one patient, or several told apart by prefix.
    let mut groups: BTreeMap<(PathBuf, String), BTreeMap<u32, ImagesAndMasks>> = BTreeMap::new();
    let mut prefixes: HashMap<PathBuf, Vec<String>> = HashMap::new();
    for (path, stem) in files {
        let Some(number) = stem.number.filter(|_| !is_png(&path)) else {
            continue;
        };
        let folder = path.parent().unwrap_or(&root).to_owned();
        let prefix = stem.prefix.to_ascii_lowercase();
        let known = prefixes.entry(folder.clone()).or_default();
        if !known.iter().any(|other| other.eq_ignore_ascii_case(&prefix)) {
            known.push(stem.prefix.clone());
        }
        groups.entry((folder, prefix)).or_default().entry(number).or_default()[usize::from(stem.mask)].push(path);
    }

    let mut problems = Vec::new();
    let mut patients = Vec::new();
    for ((folder, prefix), numbers) in groups {
        let several = prefixes[&folder].len() > 1 || prefix.starts_with("tcga_");
        let spelled = prefixes[&folder].iter().find(|spelled| several && spelled.eq_ignore_ascii_case(&prefix));
        let name = spelled.cloned().unwrap_or_else(|| folder_name(&folder));
        let mut pairs = Vec::new();
        for (number, [images, masks]) in numbers {
            match (images.as_slice(), masks.as_slice()) {
                ([image], [mask]) => pairs.push(Pair { number, image: image.clone(), mask: mask.clone() }),
                ([image], []) => problems.push(Error::data(
                    image,
                    "this image has no mask; put one beside it under the same name with _mask, or remove the image",
                )),
                ([], [mask]) => problems.push(Error::data(
                    mask,
                    "this mask has no image; put one beside it under the same name without _mask, or remove the mask",
                )),
                ([_, second, ..], _) | (_, [_, second, ..]) => {
                    problems.push(Error::data(
                        second,
                        format!("slice number {number} occurs twice in this folder; remove or rename one"),
                    ));
                }
                ([], []) => {}
            }
        }
        if !pairs.is_empty() {
            patients.push(Found { name, folder, pairs });
        }
    }
    patients.sort_by(|a, b| (&a.name, &a.folder).cmp(&(&b.name, &b.folder)));
    problems.extend(repeated_patients(&patients));
    Ok(Scan { root, patients, problems })
}

/// An error for each patient who occurs a second time.
fn repeated_patients(patients: &[Found]) -> Vec<Error> {
    let mut first: HashMap<String, &Found> = HashMap::new();
    let mut problems = Vec::new();
    for found in patients {
        if let Some(other) = first.get(&identity(&found.name)) {
            problems.push(Error::data(
                &found.folder,
                format!(
                    "patient {} is also in {}; one person in two folders would be trained on and validated on: remove one, \
                     or name the folder that holds only one copy",
                    found.name,
                    other.folder.display()
                ),
            ));
        } else {
            first.insert(identity(&found.name), found);
        }
    }
    problems
}

/// Who a patient is: the name in lower case; of a TCGA name only `tcga_<site>_<id>`, since the date is the scan's.
fn identity(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    match lower.match_indices('_').nth(2) {
        Some((end, _)) if lower.starts_with("tcga_") => lower[..end].to_owned(),
        _ => lower,
    }
}

/// `root/kaggle_3m` if there is one, else `root`. Kaggle's archive holds the set twice, the second time deeper: this takes the first.
pub(super) fn holding_folder(root: &Path) -> PathBuf {
    let inner = root.join("kaggle_3m");
    if inner.is_dir() { inner } else { root.to_owned() }
}

/// Collects the pictures of `folder` and the folders below it, in the order of their names.
fn walk(folder: &Path, files: &mut Vec<(PathBuf, Stem)>) -> Result<()> {
    walk_files(folder, 0, &mut |path| {
        files.extend(Stem::parse(&path).map(|stem| (path, stem)));
        Ok(())
    })
}

/// Shows `found` every file of `folder` and the folders below it, in the order of their names; hidden ones are left out.
pub(super) fn walk_files(folder: &Path, depth: usize, found: &mut dyn FnMut(PathBuf) -> Result<()>) -> Result<()> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
    let mut entries: Vec<_> =
        entries.map_err(Error::io("read", folder))?.into_iter().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        // macOS archives carry a shadow `._name` of every file in `__MACOSX`.
        if hidden || path.ends_with("__MACOSX") {
            continue;
        }
        if path.is_dir() {
            if depth < MAX_DEPTH {
                walk_files(&path, depth + 1, found)?;
            }
        } else {
            found(path)?;
        }
    }
    Ok(())
}

/// Folders below the named one that are looked into: `lgg-mri-segmentation/kaggle_3m/<patient>` needs 3. Ends loops of links.
const MAX_DEPTH: usize = 4;

/// What a picture's file name says: `<prefix>_<number>[_mask].tif`.
#[derive(Debug, Clone)]
pub(super) struct Stem {
    /// The name without ending and without `_mask`.
    pub(super) name: String,
    /// The name before `_<number>`; the whole name if it has no number.
    prefix: String,
    pub(super) number: Option<u32>,
    pub(super) mask: bool,
}

impl Stem {
    /// `None` if the file is no picture.
    pub(super) fn parse(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_string_lossy().to_ascii_lowercase();
        if !["tif", "tiff", "png"].contains(&ending.as_str()) {
            return None;
        }
        let whole = path.file_stem()?.to_string_lossy().into_owned();
        let mask = whole.to_ascii_lowercase().ends_with("_mask");
        let name = whole[..whole.len() - if mask { "_mask".len() } else { 0 }].to_owned();
        let numbered = name
            .rsplit_once('_')
            .filter(|(_, digits)| digits.bytes().all(|digit| digit.is_ascii_digit()))
            .and_then(|(prefix, digits)| Some((prefix.to_owned(), digits.parse().ok()?)));
        Some(match numbered {
            Some((prefix, number)) => Self { name, prefix, number: Some(number), mask },
            None => Self { prefix: name.clone(), name, number: None, mask },
        })
    }

    /// The patient of an image to predict: as in a data set, but told apart by folder and prefix together elsewhere.
    pub(super) fn patient(&self, path: &Path) -> String {
        let folder = folder_name(path.parent().unwrap_or(path));
        let kaggle = self.prefix == folder || self.prefix.to_ascii_lowercase().starts_with("tcga_");
        match self.number {
            None => folder,
            Some(_) if kaggle => self.prefix.clone(),
            Some(_) => format!("{folder}_{}", self.prefix),
        }
    }
}

fn is_png(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"))
}

/// The last part of a folder's path, also for `.`.
pub(super) fn folder_name(folder: &Path) -> String {
    // A file named without a folder lies in this one.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let absolute = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    folder
        .file_name()
        .or(absolute.file_name())
        .map_or_else(|| "patient".into(), |name| name.to_string_lossy().into_owned())
}

fn no_pairs(root: &Path) -> Error {
    Error::data(
        root,
        "no pair <patient>_<n>.tif and <patient>_<n>_mask.tif found here; name the folder that holds kaggle_3m",
    )
}

pub(super) fn other_size(path: &Path, here: (usize, usize), first: &Path, expected: (usize, usize)) -> Error {
    Error::data(
        path,
        format!(
            "{}x{} pixels, but {} has {}x{}; all slices and masks must have one size: resize or remove it",
            here.0,
            here.1,
            first.display(),
            expected.0,
            expected.1
        ),
    )
}

/// An error in one line, with its cause.
fn sentence(problem: &Error) -> String {
    match std::error::Error::source(problem) {
        Some(cause) => format!("{problem}: {cause}"),
        None => problem.to_string(),
    }
}
