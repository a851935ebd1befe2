//! Weight files, with PyTorch's names and layouts, so that both sides can read each other's.
//!
//! Written are safetensors, to a temporary name, synced and renamed: a file is there whole or not at all. Read are
//! safetensors and what `torch.save` writes ([`StateDict::read`]); published networks with other names are renamed.

mod pickle;
mod published;
mod recognise;
mod state_dict;
mod torch;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::tensor::{Dtype, View};

use crate::nn::{self, Module, Parameter, Visitor};
use crate::tensor::Tensor;
use crate::{Error, Result};

use state_dict::list;
pub use state_dict::{Array, StateDict};

/// One tensor of a file, as bytes.
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &Entry {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.bytes.as_slice().into()
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

struct Collect(Vec<(String, Entry)>);

impl Visitor for Collect {
    fn param(&mut self, name: &str, parameter: &mut Parameter) -> Result<()> {
        let shape = parameter.tensor.shape();
        let values = parameter.layout.to_file(shape, &parameter.tensor.to_vec()?);
        self.0.push((name.to_owned(), floats(parameter.layout.file_shape(shape), &values)));
        Ok(())
    }
    fn buffer(&mut self, name: &str, tensor: &mut Tensor) -> Result<()> {
        self.0.push((name.to_owned(), floats(tensor.shape().dims().to_vec(), &tensor.to_vec()?)));
        Ok(())
    }
    fn counter(&mut self, name: &str, count: &AtomicU64) -> Result<()> {
        let bytes = (count.load(Ordering::Relaxed) as i64).to_le_bytes().to_vec();
        self.0.push((name.to_owned(), Entry { dtype: Dtype::I64, shape: Vec::new(), bytes }));
        Ok(())
    }
}

fn floats(shape: Vec<usize>, values: &[f32]) -> Entry {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Entry { dtype: Dtype::F32, shape, bytes }
}

/// A module's weights as the bytes of a safetensors file. `about` goes into its metadata (model name, settings).
///
/// # Errors
/// What reading the tensors reports.
pub fn to_bytes(module: &mut dyn Module, about: &HashMap<String, String>) -> Result<Vec<u8>> {
    let mut collect = Collect(Vec::new());
    module.visit("", &mut collect)?;
    let views = collect.0.iter().map(|(name, entry)| (name.clone(), entry));
    // safetensors writes a hash map's entries in its order: with one entry the bytes are always the same.
    let about = if about.is_empty() {
        None
    } else {
        let text = serde_json::to_string(&about.iter().collect::<std::collections::BTreeMap<_, _>>())
            .map_err(|error| Error::Config(error.to_string()))?;
        Some(HashMap::from([("shadegrad".to_owned(), text)]))
    };
    safetensors::tensor::serialize(views, about).map_err(|error| Error::Config(format!("safetensors: {error}")))
}

/// Writes a module's weights.
///
/// # Errors
/// [`Error::Io`]; the previous file stays.
pub fn save(module: &mut dyn Module, path: &Path, about: &HashMap<String, String>) -> Result<()> {
    let bytes = to_bytes(module, about)?;
    crate::data::write_atomically(path, &bytes)
}

struct Fill<'a>(&'a HashMap<&'a str, &'a Array>);

impl Fill<'_> {
    fn values(&self, name: &str) -> Result<&[f32]> {
        // `check` has found them all.
        self.0.get(name).map(|array| array.values.as_slice()).ok_or_else(|| Error::Config(format!("no tensor {name}")))
    }
}

impl Visitor for Fill<'_> {
    fn param(&mut self, name: &str, parameter: &mut Parameter) -> Result<()> {
        let values = parameter.layout.from_file(parameter.tensor.shape(), self.values(name)?);
        parameter.tensor.write(&values)
    }
    fn buffer(&mut self, name: &str, tensor: &mut Tensor) -> Result<()> {
        tensor.write(self.values(name)?)
    }
    fn counter(&mut self, name: &str, count: &AtomicU64) -> Result<()> {
        if let Some([value]) = self.0.get(name).map(|array| array.values.as_slice()) {
            count.store(value.max(0.0) as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Counts that published files may lack.
fn is_counter(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
}

/// Finds what keeps a file's tensors from going into a module, before anything is changed.
fn check(wanted: &[(String, Vec<usize>)], dict: &StateDict, held: &HashMap<&str, &Array>) -> Result<()> {
    let wrong = |message: String| Err(Error::weights(&dict.path, message));
    let missing =
        wanted.iter().map(|(name, _)| name.as_str()).filter(|name| !held.contains_key(name) && !is_counter(name));
    let missing: Vec<&str> = missing.collect();
    let known: HashMap<&str, &[usize]> = wanted.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    let names = dict.tensors.iter().map(|(name, _)| name.as_str());
    let unexpected: Vec<&str> = names.filter(|name| !known.contains_key(name) && !is_counter(name)).collect();
    let advice = "these are the weights of another model; give the --model and widths that they were trained with";
    match (missing.is_empty(), unexpected.is_empty()) {
        (true, true) => {}
        (false, true) => return wrong(format!("lacks {}; {advice}", list(missing))),
        (true, false) => return wrong(format!("holds {}, which the model has not; {advice}", list(unexpected))),
        (false, false) => {
            let (missing, unexpected) = (list(missing), list(unexpected));
            return wrong(format!("lacks {missing}, and holds {unexpected}, which the model has not; {advice}"));
        }
    }
    for (name, array) in &dict.tensors {
        match known.get(name.as_str()) {
            Some(shape) if *shape != array.shape => {
                return wrong(format!("{name} is {:?} but the model needs {shape:?}; {advice}", array.shape));
            }
            _ => {}
        }
        if let Some(at) = array.values.iter().position(|value| !value.is_finite()) {
            let message = format!("{name}[{at}] is {}; the file is damaged or its training diverged", array.values[at]);
            return wrong(message);
        }
    }
    Ok(())
}

/// Reads weights into a module, from safetensors or a state dict of `torch.save`.
///
/// # Errors
/// As [`StateDict::read`], and [`Error::Weights`] naming the tensors that are missing or unexpected, have another shape
/// or are not finite; the module is unchanged then.
pub fn load(module: &mut dyn Module, path: &Path) -> Result<()> {
    load_dict(module, &StateDict::read(path)?)
}

/// As [`load`], from a file that is already read.
///
/// # Errors
/// As [`load`].
pub fn load_dict(module: &mut dyn Module, dict: &StateDict) -> Result<()> {
    let held: HashMap<&str, &Array> = dict.tensors.iter().map(|(name, array)| (name.as_str(), array)).collect();
    check(&nn::names(module)?, dict, &held)?;
    module.visit("", &mut Fill(&held))
}

/// As [`load`], from the bytes of a safetensors file.
pub(crate) fn load_bytes(module: &mut dyn Module, bytes: &[u8], path: &Path) -> Result<()> {
    load_dict(module, &StateDict::from_safetensors(bytes, path)?)
}
