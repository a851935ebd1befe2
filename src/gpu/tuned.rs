//! What `shadegrad tune` has found: the fastest kernel for each question that ops ask on one adapter and driver.
//!
//! The answers are a file of the user's cache folder, one for each adapter and driver. Each answer holds for one text of
//! its shader: after an edit, or a new release, the op goes back to its usual kernel until `tune` runs again.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::AdapterFacts;
use crate::tensor::Shape;
use crate::{Error, Result};

/// The sizes of an op on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// Of x: images `[N, H, W, C]`, or what else the op takes.
    pub shape: Shape,
    /// Channels of the result, for ops with a weight; of the other tensor, for `concat`.
    pub out: usize,
    /// Rows and columns of the kernel; 0 for ops without one.
    pub kernel: usize,
    /// Of convolutions.
    pub stride: usize,
    /// Of convolutions.
    pub padding: usize,
    /// Whether images are 16-bit floats; said only by ops that have other kernels for them.
    pub half: bool,
}

impl Sizes {
    /// Of an op that has only an input.
    pub fn of(shape: Shape) -> Self {
        Self { shape, out: shape.last(), kernel: 0, stride: 1, padding: 0, half: false }
    }
}

impl fmt::Display for Sizes {
    /// `2x128x128x64 3x3 64 s1 p1`, `2x128x128x64 3x3 64 s1 p1 f16`, `8x64x64x32`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, out: channels, kernel, stride, padding, half } = self;
        let extents: Vec<String> = shape.dims().iter().map(ToString::to_string).collect();
        out.write_str(&extents.join("x"))?;
        match kernel {
            0 if *channels == shape.last() => Ok(()),
            0 => write!(out, " {channels}"),
            _ => write!(out, " {kernel}x{kernel} {channels} s{stride} p{padding}"),
        }?;
        out.write_str(if *half { " f16" } else { "" })
    }
}

/// What of an op a kernel is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The result.
    Forward,
    /// The gradient of its first input.
    BackwardInput,
    /// The gradients of its weight and bias.
    BackwardWeight,
    /// All of it: one version for both directions.
    Both,
}

impl Part {
    /// `forward`, `backward_input`, `backward_weight` or `both`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::BackwardInput => "backward_input",
            Self::BackwardWeight => "backward_weight",
            Self::Both => "both",
        }
    }
}

/// What an op asks: which of its kernels is the fastest for these sizes?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question {
    /// The op, and the shader of its kernels.
    pub op: &'static str,
    /// What of it.
    pub part: Part,
    /// Its sizes.
    pub sizes: Sizes,
}

impl fmt::Display for Question {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {}", self.op, self.part.name(), self.sizes)
    }
}

/// An answer, as the file has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The op.
    pub op: String,
    /// The question, as text.
    pub question: String,
    /// The text of the op's shader (`Assembled::hash`).
    pub shader: String,
    /// The fastest kernel, e.g. `v2 TILE_M=4`.
    pub kernel: String,
    /// Its median time.
    pub ms: f64,
    /// The kernel that the op takes without an answer.
    pub usual: String,
    /// Its median time.
    pub usual_ms: f64,
}

/// The cache file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct File {
    adapter: String,
    driver: String,
    answers: Vec<Answer>,
}

/// The answers for one adapter and driver.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tuned {
    answers: HashMap<String, Answer>,
}

impl Tuned {
    /// The file for an adapter and its driver in a folder; the folder of `None` is the user's cache folder.
    ///
    /// # Errors
    /// [`Error::Config`] if the user has no cache folder.
    pub fn file(folder: Option<&Path>, facts: &AdapterFacts) -> Result<PathBuf> {
        let folder = match folder {
            Some(folder) => folder.to_owned(),
            None => dirs::cache_dir().map(|folder| folder.join("shadegrad")).ok_or_else(|| {
                Error::Config("this user has no cache folder; name one with SHADEGRAD_CACHE=DIR".to_owned())
            })?,
        };
        let plain = |text: &str| -> String {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
            words.collect::<Vec<_>>().join("-").to_lowercase()
        };
        Ok(folder.join(format!("tuned-{}--{}.json", plain(&facts.name), plain(&facts.driver))))
    }

    /// Reads a file; one that does not exist holds no answers.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Config`] for a file that is damaged or belongs to another adapter or driver.
    pub fn read(file: &Path, facts: &AdapterFacts) -> Result<Self> {
        let bytes = match std::fs::read(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read.map_err(Error::io("read", file))?,
        };
        let wrong = |what: &str| {
            Error::Config(format!(
                "the kernel cache {} {what}; the usual kernels are used, and `shadegrad tune` writes it anew",
                file.display()
            ))
        };
        let found: File = serde_json::from_slice(&bytes).map_err(|error| wrong(&format!("is damaged ({error})")))?;
        if found.adapter != facts.name || found.driver != facts.driver {
            return Err(wrong("belongs to another adapter or driver"));
        }
        Ok(Self { answers: found.answers.into_iter().map(|answer| (answer.question.clone(), answer)).collect() })
    }

    /// Writes the file: a new one takes the place of the old one, so that no reader sees half of it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, file: &Path, facts: &AdapterFacts) -> Result<()> {
        let mut answers: Vec<Answer> = self.answers.values().cloned().collect();
        answers.sort_by(|a, b| a.question.cmp(&b.question));
        let content = File { adapter: facts.name.clone(), driver: facts.driver.clone(), answers };
        let text = serde_json::to_string_pretty(&content).map_err(|error| Error::Config(format!("JSON: {error}")))?;
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        let fresh = file.with_extension(format!("{}.new", std::process::id()));
        std::fs::write(&fresh, text + "\n").map_err(Error::io("write", &fresh))?;
        std::fs::rename(&fresh, file).map_err(Error::io("replace", file))
    }

    /// Keeps the answers for shaders whose text is still the same.
    #[must_use]
    pub fn current(mut self, hash: impl Fn(&str) -> Option<String>) -> Self {
        let mut known: HashMap<String, Option<String>> = HashMap::new();
        self.answers.retain(|_, answer| {
            let now = known.entry(answer.op.clone()).or_insert_with(|| hash(&answer.op));
            now.as_ref() == Some(&answer.shader)
        });
        self
    }

    /// Adds an answer, or replaces it.
    pub fn insert(&mut self, answer: Answer) {
        self.answers.insert(answer.question.clone(), answer);
    }

    /// The answer to a question.
    pub fn answer(&self, question: &Question) -> Option<&Answer> {
        self.answers.get(&question.to_string())
    }

    /// Question and kernel where it is not the usual one, sorted.
    pub fn changes(&self) -> BTreeMap<&str, &str> {
        let changed = self.answers.values().filter(|answer| answer.kernel != answer.usual);
        changed.map(|answer| (answer.question.as_str(), answer.kernel.as_str())).collect()
    }

    /// Whether there is no answer.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(driver: &str) -> AdapterFacts {
        AdapterFacts { name: "A card (1.0)".to_owned(), driver: driver.to_owned(), ..AdapterFacts::default() }
    }

    fn question(shape: [usize; 4]) -> Question {
        let sizes = Sizes { kernel: 3, padding: 1, ..Sizes::of(shape.into()) };
        Question { op: "conv2d", part: Part::Forward, sizes }
    }

    fn answer(question: &Question) -> Answer {
        Answer {
            op: question.op.to_owned(),
            question: question.to_string(),
            shader: "text".to_owned(),
            kernel: "v2 TILE_M=4".to_owned(),
            ms: 1.0,
            usual: "v2".to_owned(),
            usual_ms: 1.5,
        }
    }

    #[test]
    fn sizes_are_text() {
        assert_eq!(question([2, 8, 8, 4]).to_string(), "conv2d forward 2x8x8x4 3x3 4 s1 p1");
        assert_eq!(Sizes { half: true, ..Sizes::of([2, 8].into()) }.to_string(), "2x8 f16");
        assert_eq!(Sizes::of([2, 8].into()).to_string(), "2x8");
        assert_eq!(Sizes { out: 3, ..Sizes::of([2, 8].into()) }.to_string(), "2x8 3");
    }

    #[test]
    fn answers_come_back_from_the_file_of_their_adapter_only() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("shadegrad-tuned-{}", std::process::id()));
        let (mine, other) = (facts("driver 1"), facts("driver 2"));
        let file = Tuned::file(Some(&folder), &mine)?;
        assert!(file.ends_with("tuned-a-card-1-0--driver-1.json"), "{}", file.display());
        assert!(Tuned::read(&file, &mine)?.is_empty());
        let asked = question([2, 8, 8, 4]);
        let mut tuned = Tuned::default();
        tuned.insert(answer(&asked));
        tuned.write(&file, &mine)?;
        let read = Tuned::read(&file, &mine)?;
        assert_eq!(read, tuned);
        assert_eq!(read.answer(&asked).map(|answer| answer.kernel.as_str()), Some("v2 TILE_M=4"));
        assert!(read.answer(&question([1, 8, 8, 4])).is_none());
        assert_eq!(read.clone().current(|_| Some("text".to_owned())).changes().len(), 1);
        assert!(read.current(|_| Some("another text".to_owned())).is_empty());
        assert!(Tuned::read(&file, &other).is_err());
        std::fs::write(&file, "{\"adapter\": ").map_err(Error::io("write", &file))?;
        let damaged = Tuned::read(&file, &mine);
        std::fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
        let Err(error) = damaged else { panic!("a damaged file was taken") };
        assert!(error.to_string().contains("is damaged"), "{error}");
        Ok(())
    }
}
