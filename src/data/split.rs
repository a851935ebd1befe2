//! Dividing a data set into training and validation.
//!
//! **By patient** is the honest way: neighbouring slices of one tumour are nearly the same picture, so a split by slice
//! measures memory. [`Split::by_slice`] exists to compare with published numbers, which often come from such a split;
//! it repeats scikit-learn's `train_test_split` number for number.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use super::{Dataset, write_atomically};
use crate::{Error, Result};

/// Which slices train and which validate, as `(patient index, slice index)` into a [`Dataset`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Slices to train on.
    pub train: Vec<(usize, usize)>,
    /// Slices to validate on, in the order of evaluation.
    pub val: Vec<(usize, usize)>,
    /// No patient is on both sides.
    pub by_patient: bool,
}

impl Split {
    /// Draws `fraction` of the patients (rounded, at least one, not all) for validation.
    ///
    /// # Errors
    /// Fewer than two patients, or a fraction outside of `(0, 1)`.
    pub fn by_patient(dataset: &Dataset, fraction: f64, seed: u64) -> Result<Self> {
        let patients = dataset.patients.len();
        check_fraction(fraction)?;
        if patients < 2 {
            return Err(Error::data(
                &dataset.root,
                format!("{patients} patient(s), but a split by patient needs two; add patients or use --split slice"),
            ));
        }
        let count = ((patients as f64 * fraction).round() as usize).clamp(1, patients - 1);
        // The generator takes 32 bits; folding keeps the whole seed in play.
        let drawn = permutation(patients, (seed ^ (seed >> 32)) as u32);
        Ok(Self::from_patients(dataset, &drawn[..count].iter().copied().collect()))
    }

    /// Validates on the patients named and trains on all others. Case does not matter; a TCGA name may lack its date.
    ///
    /// # Errors
    /// An unknown name (the message lists similar ones), no name, or no patient left to train on.
    pub fn by_names(dataset: &Dataset, names: &[String]) -> Result<Self> {
        let mut chosen = BTreeSet::new();
        for name in names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
            chosen.insert(dataset.find(name).ok_or_else(|| unknown_patient(dataset, name))?);
        }
        if chosen.is_empty() || chosen.len() == dataset.patients.len() {
            let what = if chosen.is_empty() { "no patient is" } else { "all patients are" };
            return Err(Error::Config(format!(
                "{what} named for validation; name some of the {} patients, and leave some to train on",
                dataset.patients.len()
            )));
        }
        Ok(Self::from_patients(dataset, &chosen))
    }

    /// scikit-learn's `train_test_split(range(n), test_size = fraction, random_state = seed)` over all slices in order.
    /// Patients stand on both sides: the numbers are too good.
    ///
    /// # Errors
    /// A fraction that leaves one side empty, or a seed that does not fit into 32 bits (numpy's limit).
    pub fn by_slice(dataset: &Dataset, fraction: f64, seed: u64) -> Result<Self> {
        check_fraction(fraction)?;
        let seed = u32::try_from(seed).map_err(|_| {
            Error::Config(format!("--seed {seed} is too large for a split by slice; use one below 4294967296"))
        })?;
        let slices: Vec<_> = dataset.indices().collect();
        let count = (fraction * slices.len() as f64).ceil() as usize;
        if slices.len() < 2 || count >= slices.len() {
            return Err(Error::data(
                &dataset.root,
                format!(
                    "{} slice(s) cannot be split with the fraction {fraction}; add slices or lower it",
                    slices.len()
                ),
            ));
        }
        let mut order = permutation(slices.len(), seed).into_iter().map(|at| slices[at]);
        let val = order.by_ref().take(count).collect();
        Ok(Self { train: order.collect(), val, by_patient: false })
    }

    /// Reads a `split.csv` (`patient,slice,part` with the part `train` or `val`); the order of the lines is kept.
    /// Slices that it does not list are not used.
    ///
    /// # Errors
    /// A malformed line, a slice that the data set lacks or that is listed twice, or an empty side.
    pub fn read_csv(dataset: &Dataset, path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let mut lines = text.lines().enumerate();
        let header = lines.next().map_or("", |(_, line)| line.trim_start_matches('\u{feff}').trim());
        if header != HEADER {
            return Err(Error::data(path, format!("the first line is {header:?}, not {HEADER:?}")));
        }
        let (mut train, mut val, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (at, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |what: String| Error::data(path, format!("line {}: {what}", at + 1));
            // From the right, because a folder's name may hold a comma.
            let fields: Vec<_> = line.trim().rsplitn(3, ',').collect();
            let &[part, number, name] = fields.as_slice() else {
                return Err(wrong(format!("{line:?} is not {HEADER:?}")));
            };
            let name = unquote(name);
            let patient = dataset.find(&name).ok_or_else(|| wrong(unknown_patient(dataset, &name).to_string()))?;
            let number: u32 = number.trim().parse().map_err(|_| wrong(format!("{number:?} is not a slice number")))?;
            let slices = &dataset.patients[patient].slices;
            let slice = slices.iter().position(|slice| slice.number == number).ok_or_else(|| {
                wrong(format!(
                    "patient {name} has no slice {number} in {}; use the data this file was made for",
                    dataset.root.display()
                ))
            })?;
            if !seen.insert((patient, slice)) {
                return Err(wrong(format!("slice {number} of patient {name} is listed twice; remove one line")));
            }
            match part.trim() {
                "train" => train.push((patient, slice)),
                "val" => val.push((patient, slice)),
                other => {
                    return Err(wrong(format!("the part {other:?} is neither train nor val")));
                }
            }
        }
        if train.is_empty() || val.is_empty() {
            return Err(Error::data(path, "both parts, train and val, need at least one slice"));
        }
        let trained: BTreeSet<_> = train.iter().map(|&(patient, _)| patient).collect();
        let by_patient = val.iter().all(|(patient, _)| !trained.contains(patient));
        Ok(Self { train, val, by_patient })
    }

    /// Writes a `split.csv` that [`Split::read_csv`] reads back equal; the file is complete or not there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_csv(&self, dataset: &Dataset, path: &Path) -> Result<()> {
        let mut text = format!("{HEADER}\n");
        for (part, slices) in [("train", &self.train), ("val", &self.val)] {
            for &at in slices {
                let patient = quote(&dataset.patients[at.0].name);
                text.push_str(&format!("{patient},{},{part}\n", dataset.slice(at).number));
            }
        }
        write_atomically(path, text.as_bytes())
    }

    /// Names of the patients with a slice in validation, sorted.
    pub fn val_patients<'a>(&self, dataset: &'a Dataset) -> Vec<&'a str> {
        let patients: BTreeSet<_> = self.val.iter().map(|&(patient, _)| patient).collect();
        patients.into_iter().map(|patient| dataset.patients[patient].name.as_str()).collect()
    }

    /// Puts the slices of the `val` patients on one side and all others on the other, both in order.
    fn from_patients(dataset: &Dataset, val: &BTreeSet<usize>) -> Self {
        let (val, train) = dataset.indices().partition(|(patient, _)| val.contains(patient));
        Self { train, val, by_patient: true }
    }
}

const HEADER: &str = "patient,slice,part";

fn check_fraction(fraction: f64) -> Result<()> {
    if fraction > 0.0 && fraction < 1.0 {
        return Ok(());
    }
    Err(Error::Config(format!("the validation fraction is {fraction}; it must lie between 0 and 1, for example 0.2")))
}

/// A name as a CSV field: quoted where it must be.
fn quote(name: &str) -> String {
    if name.contains([',', '"']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() }
}

fn unquote(field: &str) -> String {
    match field.trim().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => field.trim().to_owned(),
    }
}

/// The error for a name that is not in the set, with the names that are most like it.
fn unknown_patient(dataset: &Dataset, name: &str) -> Error {
    let wanted = name.to_ascii_lowercase();
    let mut names: HashMap<usize, Vec<&str>> = HashMap::new();
    for patient in &dataset.patients {
        names.entry(edit_distance(&wanted, &patient.name.to_ascii_lowercase())).or_default().push(&patient.name);
    }
    let mut distances: Vec<_> = names.keys().copied().collect();
    distances.sort_unstable();
    let near: Vec<_> = distances.iter().flat_map(|distance| &names[distance]).take(3).copied().collect();
    Error::Config(format!("there is no patient {name:?}; did you mean {}?", near.join(", ")))
}

/// Levenshtein's distance: insertions, deletions and replacements that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// `numpy.random.RandomState(seed).permutation(n)`: a Fisher-Yates shuffle from the top, each index drawn by rejection
/// from as many bits as it needs.
fn permutation(n: usize, seed: u32) -> Vec<usize> {
    let mut random = MersenneTwister::new(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let mask = u32::MAX >> (i as u32).leading_zeros();
        let j = loop {
            let candidate = (random.draw() & mask) as usize;
            if candidate <= i {
                break candidate;
            }
        };
        order.swap(i, j);
    }
    order
}

/// MT19937 with `init_genrand`, the generator behind numpy's legacy `RandomState`.
struct MersenneTwister {
    state: [u32; 624],
    next: usize,
}

impl MersenneTwister {
    fn new(seed: u32) -> Self {
        let mut state = [seed; 624];
        for at in 1..624 {
            let before = state[at - 1];
            state[at] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(at as u32);
        }
        Self { state, next: 624 }
    }

    /// 32 random bits.
    fn draw(&mut self) -> u32 {
        if self.next == 624 {
            for at in 0..624 {
                let mixed = (self.state[at] & 0x8000_0000) | (self.state[(at + 1) % 624] & 0x7fff_ffff);
                let twist = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[at] = self.state[(at + 397) % 624] ^ (mixed >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut bits = self.state[self.next];
        self.next += 1;
        bits ^= bits >> 11;
        bits ^= (bits << 7) & 0x9d2c_5680;
        bits ^= (bits << 15) & 0xefc6_0000;
        bits ^ (bits >> 18)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutation_is_scikit_learns() {
        assert_eq!(permutation(3929, 41)[..4], [1277, 2314, 3615, 351]);
        assert_eq!(permutation(400, 41)[..4], [373, 268, 25, 259]);
    }

    #[test]
    fn edit_distance_counts_changes() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }
}
