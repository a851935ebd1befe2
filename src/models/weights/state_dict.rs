//! The tensors of a weight file by name, whatever the file's format: safetensors or PyTorch's own.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors};

use super::{published, torch};
use crate::{Error, Result};

/// How a file stores numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
}

impl Kind {
    /// Bytes of a number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// Little-endian numbers as f32; of integers only counters are kept, and those are small.
pub(super) fn decode(kind: Kind, bytes: &[u8]) -> Vec<f32> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|bytes| value(*bytes)).collect()
    }
    match kind {
        Kind::F64 => each(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
        Kind::F32 => each(bytes, f32::from_le_bytes),
        Kind::F16 => each(bytes, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Kind::Bf16 => each(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        Kind::I64 => each(bytes, |bytes| i64::from_le_bytes(bytes) as f32),
        Kind::I32 => each(bytes, |bytes| i32::from_le_bytes(bytes) as f32),
    }
}

/// A tensor of a file, in PyTorch's layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// The extents, as PyTorch has them.
    pub shape: Vec<usize>,
    /// The numbers in row-major order. f16, bf16, f64 and integers are converted.
    pub values: Vec<f32>,
}

/// All tensors of a weight file.
#[derive(Debug)]
pub struct StateDict {
    /// The file, for messages.
    pub path: PathBuf,
    /// Name and tensor, in the file's order.
    pub tensors: Vec<(String, Array)>,
    /// What a file of ours says about itself (`config`: the run's settings); empty for files of others.
    pub about: HashMap<String, String>,
    /// What was done to the names, for people: "prefix module. taken off"; empty for files of ours.
    pub notes: Vec<String>,
}

/// Put before every name by wrappers: `DataParallel`, `torch.compile`, Lightning.
const PREFIXES: [&str; 5] = ["module.", "_orig_mod.", "model.", "net.", "network."];

impl StateDict {
    /// Reads a file: safetensors, or a state dict that `torch.save` wrote, in either of its formats. The format is told
    /// by the first bytes, not by the name. Nothing in the file is executed.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Weights`] with one sentence that names the file, the tensor or the Python object in
    /// question, and what to do.
    pub fn read(path: &Path) -> Result<Self> {
        let mut head = Vec::new();
        let opened = File::open(path).and_then(|file| file.take(9).read_to_end(&mut head));
        opened.map_err(Error::io("read", path))?;
        let mut dict = match head.as_slice() {
            [b'P', b'K', ..] => torch::read_zip(path)?,
            // Safetensors start with a length and a brace.
            [0x80, 1..=5, .., last] if *last != b'{' => torch::read_legacy(path)?,
            _ => {
                let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
                Self::from_safetensors(&bytes, path)?
            }
        };
        dict.strip_prefixes();
        published::rename(&mut dict)?;
        Ok(dict)
    }

    /// The tensors of a safetensors file.
    pub(super) fn from_safetensors(bytes: &[u8], path: &Path) -> Result<Self> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| not_weights(path, &error))?;
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| not_weights(path, &error))?;
        let text = metadata.metadata().as_ref().and_then(|map| map.get("shadegrad"));
        let about = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let mut tensors = Vec::with_capacity(file.len());
        for (name, view) in file.iter() {
            let kind = match view.dtype() {
                Dtype::F64 => Kind::F64,
                Dtype::F32 => Kind::F32,
                Dtype::F16 => Kind::F16,
                Dtype::BF16 => Kind::Bf16,
                Dtype::I64 => Kind::I64,
                Dtype::I32 => Kind::I32,
                other => {
                    let message = format!("{name} holds {other:?} numbers; save it as float32");
                    return Err(Error::weights(path, message));
                }
            };
            let array = Array { shape: view.shape().to_vec(), values: decode(kind, view.data()) };
            tensors.push((name.to_owned(), array));
        }
        Ok(Self { path: path.to_owned(), tensors, about, notes: Vec::new() })
    }

    /// A tensor.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.tensors.iter().find(|(own, _)| own == name).map(|(_, array)| array)
    }

    /// An extent of a tensor; `None` if there is no such tensor or axis.
    pub fn extent(&self, name: &str, axis: usize) -> Option<usize> {
        self.get(name)?.shape.get(axis).copied()
    }

    fn strip_prefixes(&mut self) {
        let shared =
            |prefix: &&str, tensors: &[(String, Array)]| tensors.iter().all(|(name, _)| name.starts_with(*prefix));
        while let Some(prefix) =
            PREFIXES.iter().find(|prefix| !self.tensors.is_empty() && shared(prefix, &self.tensors))
        {
            for (name, _) in &mut self.tensors {
                name.drain(..prefix.len());
            }
            self.notes.push(format!("the prefix {prefix} is taken off every name"));
        }
    }
}

fn not_weights(path: &Path, error: &safetensors::SafeTensorError) -> Error {
    Error::weights(
        path,
        format!(
            "this is neither a complete safetensors file nor a state dict of torch.save ({error}); \
             give a .safetensors, .pth or .pt file"
        ),
    )
}

/// Names for a message: at most five, then how many more.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 5;
    let names: Vec<&str> = names.into_iter().collect();
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
