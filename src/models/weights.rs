//! Weight files: safetensors with PyTorch's names and layouts, so that both sides can read each other's.
//!
//! A file is written to a temporary name, synced and renamed: it is there whole or not at all.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::tensor::{Dtype, SafeTensors, View};

use crate::nn::{Module, Parameter, Visitor};
use crate::tensor::Tensor;
use crate::{Error, Result};

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

/// The metadata that [`save`] wrote, if the file has it.
///
/// # Errors
/// [`Error::Io`], or [`Error::Weights`] if this is no safetensors file.
pub fn about(path: &Path) -> Result<HashMap<String, String>> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| not_weights(path, &error))?;
    let text = metadata.metadata().as_ref().and_then(|map| map.get("shadegrad"));
    Ok(text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
}

fn not_weights(path: &Path, error: &safetensors::SafeTensorError) -> Error {
    Error::weights(path, format!("this is no complete safetensors file ({error}); give a .safetensors file of a run"))
}

struct Fill<'a> {
    path: &'a Path,
    file: SafeTensors<'a>,
    used: usize,
}

impl Fill<'_> {
    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let Ok(view) = self.file.tensor(name) else {
            return Err(Error::weights(
                self.path,
                format!(
                    "holds no tensor {name}; these are the weights of another model; give weights that were trained with the same widths"
                ),
            ));
        };
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            let message = format!(
                "{name} is {:?} {:?} but the model needs F32 {shape:?}; these are the weights of another model; give weights that were trained with the same widths",
                view.dtype(),
                view.shape()
            );
            return Err(Error::weights(self.path, message));
        }
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let message = format!("{name}[{at}] is {}; the file is damaged or its training diverged", values[at]);
            return Err(Error::weights(self.path, message));
        }
        self.used += 1;
        Ok(values)
    }
}

impl Visitor for Fill<'_> {
    fn param(&mut self, name: &str, parameter: &mut Parameter) -> Result<()> {
        let shape = parameter.tensor.shape();
        let values = self.values(name, &parameter.layout.file_shape(shape))?;
        parameter.tensor.write(&parameter.layout.from_file(shape, &values))
    }
    fn buffer(&mut self, name: &str, tensor: &mut Tensor) -> Result<()> {
        let values = self.values(name, tensor.shape().dims())?;
        tensor.write(&values)
    }
    fn counter(&mut self, name: &str, count: &AtomicU64) -> Result<()> {
        // Published files may lack it.
        if let Ok(view) = self.file.tensor(name) {
            self.used += 1;
            if let Ok(bytes) = <[u8; 8]>::try_from(view.data()) {
                count.store(i64::from_le_bytes(bytes).max(0) as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// Reads weights into a module.
///
/// # Errors
/// [`Error::Weights`] naming the tensor that is missing, has another shape, is not finite, or is left over.
pub fn load(module: &mut dyn Module, path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    load_bytes(module, &bytes, path)
}

/// As [`load`], from the bytes of a file that is already read.
pub(crate) fn load_bytes(module: &mut dyn Module, bytes: &[u8], path: &Path) -> Result<()> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| not_weights(path, &error))?;
    let held = file.len();
    let mut fill = Fill { path, file, used: 0 };
    module.visit("", &mut fill)?;
    if fill.used != held {
        let message =
            format!("holds {held} tensors but the model has {}; these are the weights of another model", fill.used);
        return Err(Error::weights(path, message));
    }
    Ok(())
}
