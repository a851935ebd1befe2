//! State dicts that `torch.save` wrote (`.pth`, `.pt`), without Python and without running anything of the file.
//!
//! Since PyTorch 1.6 such a file is a zip archive of stored (never compressed) entries:
//!
//! ```text
//! <name>/data.pkl      a pickle: dictionaries, and for each tensor a call that names its storage, offset, size, stride
//! <name>/data/<key>    the storage's bytes, little endian; several tensors may share one
//! <name>/byteorder     "little"
//! ```
//!
//! Before 1.6 (and with `_use_new_zipfile_serialization=False`) it is a chain of pickles: magic number, protocol
//! version, system, the same object, the storages' keys; then for each key the element count (8 bytes) and the bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read as _, Seek};
use std::path::Path;

use zip::ZipArchive;

use super::pickle::{Id, Pickle, Value};
use super::state_dict::{Array, Kind, StateDict, decode, list};
use crate::{Error, Result};

/// What a state dict's pickle may name.
fn allowed(name: &str) -> bool {
    matches!(
        name,
        "collections.OrderedDict"
            | "torch._utils._rebuild_tensor"
            | "torch._utils._rebuild_tensor_v2"
            | "torch._utils._rebuild_parameter"
            | "torch.Size"
    ) || storage(name).is_some()
}

/// The type of a storage's numbers by its name; the inner `None` for those that no weight has.
fn storage(name: &str) -> Option<Option<Kind>> {
    let kind = name.strip_prefix("torch.")?.strip_suffix("Storage")?;
    if !kind.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    Some(match kind {
        "Double" => Some(Kind::F64),
        "Float" => Some(Kind::F32),
        "Half" => Some(Kind::F16),
        "BFloat16" => Some(Kind::Bf16),
        "Long" => Some(Kind::I64),
        "Int" => Some(Kind::I32),
        _ => None,
    })
}

/// Where a tensor's numbers are.
#[derive(Debug)]
struct View {
    name: String,
    key: String,
    kind: Kind,
    /// Elements of the storage.
    storage: usize,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const RESAVE: &str = "save it again with torch.save(model.state_dict(), ...)";

/// Reads the zip format.
pub(super) fn read_zip(path: &Path) -> Result<StateDict> {
    let wrong = |message: String| Error::weights(path, message);
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| {
        wrong(format!("the zip archive is incomplete or damaged ({error}); copy or download the file again"))
    })?;
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let data = names.iter().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let Some(folder) = data.and_then(|name| name.strip_suffix("data.pkl")) else {
        return Err(wrong(format!("this zip archive holds no data.pkl, so torch.save did not write it; {RESAVE}")));
    };
    let held = |name: &str| names.iter().any(|own| own.starts_with(name));
    if held(&format!("{folder}code/")) {
        return Err(wrong(format!("this is a TorchScript program, not a state dict; load it in Python and {RESAVE}")));
    }
    let order = format!("{folder}byteorder");
    if held(&order) && entry(&mut archive, &order, path)? != b"little" {
        return Err(wrong(format!("it was written on a big-endian machine; {RESAVE} on another")));
    }
    let bytes = entry(&mut archive, &format!("{folder}data.pkl"), path)?;
    let pickle = Pickle::read(&bytes, &allowed).map_err(&wrong)?;
    let (views, notes) = views(&pickle).map_err(&wrong)?;
    gather(path, views, notes, &mut |key| entry(&mut archive, &format!("{folder}data/{key}"), path))
}

fn entry<R: std::io::Read + Seek>(archive: &mut ZipArchive<R>, name: &str, path: &Path) -> Result<Vec<u8>> {
    let wrong = |error: String| {
        let message =
            format!("the entry {name} of the zip archive cannot be read ({error}); copy or download it again");
        Error::weights(path, message)
    };
    let mut file = archive.by_name(name).map_err(|error| wrong(error.to_string()))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    Ok(bytes)
}

/// Reads the format before PyTorch 1.6.
pub(super) fn read_legacy(path: &Path) -> Result<StateDict> {
    let wrong = |message: String| Error::weights(path, message);
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let mut rest = bytes.as_slice();
    let mut next = || -> Result<Pickle> {
        let pickle = Pickle::read(rest, &allowed).map_err(&wrong)?;
        rest = &rest[pickle.length..];
        Ok(pickle)
    };
    let magic = next()?;
    if *magic.value(magic.root) != Value::Long(MAGIC.to_vec()) {
        return Err(wrong(format!("this is a pickle, but torch.save did not write it; {RESAVE}")));
    }
    let _version = next()?;
    let system = next()?;
    let little = system.get(system.root, "little_endian").map(|id| system.value(id));
    if little == Some(&Value::Bool(false)) {
        return Err(wrong(format!("it was written on a big-endian machine; {RESAVE} on another")));
    }
    let object = next()?;
    let keys = next()?;
    let (views, notes) = views(&object).map_err(&wrong)?;
    // All storages follow in the order of the keys; their types stand in the object's pickle only.
    let mut places = HashMap::new();
    let kinds = kinds(&object).map_err(&wrong)?;
    for key in keys.members(keys.root).unwrap_or_default() {
        let key = keys.text(*key).unwrap_or_default();
        let width = *kinds.get(key).ok_or_else(|| wrong(format!("its storage {key} has no type; {RESAVE}")))?;
        let cut = || wrong(format!("it ends within the storage {key}; copy or download the file again"));
        let (count, after) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let length = usize::try_from(i64::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(width));
        let (storage, after) = length.and_then(|length| after.split_at_checked(length)).ok_or_else(cut)?;
        places.insert(key.to_owned(), storage);
        rest = after;
    }
    gather(path, views, notes, &mut |key| {
        let place = places.get(key).map(|bytes| bytes.to_vec());
        place.ok_or_else(|| wrong(format!("its storage {key} is missing; {RESAVE}")))
    })
}

/// Bytes of an element of every storage that a pickle names, by key.
fn kinds(pickle: &Pickle) -> std::result::Result<HashMap<String, usize>, String> {
    let mut kinds = HashMap::new();
    for reference in pickle.outside() {
        let (key, name, _) = reference_of(pickle, reference)?;
        let width = match (storage(&name), name.as_str()) {
            (Some(Some(kind)), _) => kind.bytes(),
            (_, "torch.ShortStorage") => 2,
            (_, "torch.CharStorage" | "torch.ByteStorage" | "torch.BoolStorage") => 1,
            _ => return Err(format!("it holds a {name}; {RESAVE}")),
        };
        kinds.insert(key, width);
    }
    Ok(kinds)
}

/// Key, type and element count of a storage: `("storage", torch.FloatStorage, "0", "cpu", 64)`.
fn reference_of(pickle: &Pickle, id: Id) -> std::result::Result<(String, String, usize), String> {
    let parts = pickle.members(id).unwrap_or_default();
    let [kind, name, key, _device, count, view @ ..] = parts else { return Err(unknown("a storage")) };
    if view.iter().any(|view| *pickle.value(*view) != Value::None) {
        return Err(format!("it was written by a PyTorch older than 0.4; {RESAVE}"));
    }
    match (pickle.text(*kind), pickle.value(*name), pickle.text(*key), pickle.count(*count)) {
        (Some("storage"), Value::Global(name), Some(key), Some(count)) => Ok((key.to_owned(), name.clone(), count)),
        _ => Err(unknown("a storage")),
    }
}

fn unknown(what: &str) -> String {
    format!("its pickle describes {what} in a way that is not known; {RESAVE}")
}

/// Wrappers in which training scripts put a state dict.
const WRAPPERS: [&str; 6] = ["state_dict", "model_state_dict", "model", "net", "network", "weights"];

/// The tensors of the state dict in a pickle, and what was done to find it.
fn views(pickle: &Pickle) -> std::result::Result<(Vec<View>, Vec<String>), String> {
    let mut at = pickle.root;
    let mut notes = Vec::new();
    loop {
        let Some(entries) = pickle.entries(at) else { return Err(format!("it holds no state dict; {RESAVE}")) };
        if entries.iter().any(|(_, value)| tensor_call(pickle, *value).is_some()) {
            break;
        }
        let inner = WRAPPERS.iter().find_map(|key| pickle.get(at, key).map(|id| (*key, id)));
        let Some((key, id)) = inner.filter(|_| notes.len() < WRAPPERS.len()) else {
            let keys = list(entries.iter().filter_map(|(key, _)| pickle.text(*key)));
            return Err(format!("it holds no tensors but {keys}; {RESAVE}"));
        };
        notes.push(format!("the weights are taken from its entry {key}"));
        at = id;
    }
    let mut views = Vec::new();
    for (name, value) in pickle.entries(at).unwrap_or_default() {
        let name = pickle.text(*name).ok_or_else(|| unknown("a tensor's name"))?;
        match tensor_call(pickle, *value) {
            Some(arguments) => views.push(view(pickle, name, arguments)?),
            // Some scripts keep settings beside the tensors.
            None => notes.push(format!("{name} is no tensor and is left out")),
        }
    }
    Ok((views, notes))
}

/// The arguments of the call that stands for a tensor.
fn tensor_call(pickle: &Pickle, id: Id) -> Option<&[Id]> {
    match pickle.value(id) {
        Value::Call(name, arguments) if name.starts_with("torch._utils._rebuild_tensor") => pickle.members(*arguments),
        // A parameter: (tensor, requires_grad, hooks)
        Value::Call(name, arguments) if name == "torch._utils._rebuild_parameter" => {
            let data = *pickle.members(*arguments)?.first()?;
            match pickle.value(data) {
                Value::Call(name, arguments) if name.starts_with("torch._utils._rebuild_tensor") => {
                    pickle.members(*arguments)
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// A tensor from `(storage, offset, size, stride, ...)`.
fn view(pickle: &Pickle, name: &str, arguments: &[Id]) -> std::result::Result<View, String> {
    let [storage_id, offset, size, stride, ..] = arguments else { return Err(unknown(name)) };
    let Value::Outside(reference) = pickle.value(*storage_id) else { return Err(unknown(name)) };
    let (key, kind, count) = reference_of(pickle, *reference)?;
    let Some(Some(kind)) = storage(&kind) else {
        return Err(format!("{name} is a {kind}, which holds no weights that are known here; save it as float32"));
    };
    let extents = |id: Id| -> Option<Vec<usize>> {
        // torch.Size((..)) is a call around the same tuple.
        let id = match pickle.value(id) {
            Value::Call(name, arguments) if name == "torch.Size" => *pickle.members(*arguments)?.first()?,
            _ => id,
        };
        pickle.members(id)?.iter().map(|extent| pickle.count(*extent)).collect()
    };
    let (Some(offset), Some(shape), Some(stride)) = (pickle.count(*offset), extents(*size), extents(*stride)) else {
        return Err(unknown(name));
    };
    let view = View { name: name.to_owned(), key, kind, storage: count, offset, shape, stride };
    if !view.fits() {
        return Err(format!("{name} {:?} reaches outside of its storage; copy or download the file again", view.shape));
    }
    Ok(view)
}

impl View {
    /// Whether every element lies in the storage, and no more elements are seen than there are.
    fn fits(&self) -> bool {
        if self.shape.len() != self.stride.len() {
            return false;
        }
        if self.shape.contains(&0) {
            return true;
        }
        let elements = self.shape.iter().try_fold(1_usize, |product, extent| product.checked_mul(*extent));
        let last = self
            .shape
            .iter()
            .zip(&self.stride)
            .try_fold(self.offset, |at, (extent, stride)| at.checked_add((extent - 1).checked_mul(*stride)?));
        elements.is_some_and(|elements| elements <= self.storage) && last.is_some_and(|last| last < self.storage)
    }

    /// The elements in row-major order.
    fn gather(&self, storage: &[f32]) -> Vec<f32> {
        if self.shape.contains(&0) {
            return Vec::new();
        }
        let mut places = vec![self.offset];
        for (extent, stride) in self.shape.iter().zip(&self.stride) {
            places = places.iter().flat_map(|place| (0..*extent).map(move |at| place + at * stride)).collect();
        }
        places.into_iter().map(|place| storage[place]).collect()
    }
}

/// Reads each storage once and takes the tensors out of it.
fn gather(
    path: &Path,
    views: Vec<View>,
    notes: Vec<String>,
    bytes: &mut dyn FnMut(&str) -> Result<Vec<u8>>,
) -> Result<StateDict> {
    let mut uses: HashMap<(String, Kind), usize> = HashMap::new();
    for view in &views {
        *uses.entry((view.key.clone(), view.kind)).or_default() += 1;
    }
    let mut shared: HashMap<(String, Kind), Vec<f32>> = HashMap::new();
    let mut tensors = Vec::with_capacity(views.len());
    for view in views {
        let place = (view.key.clone(), view.kind);
        let storage = match shared.remove(&place) {
            Some(storage) => storage,
            None => decode(view.kind, &bytes(&view.key)?),
        };
        if storage.len() != view.storage {
            let message = format!(
                "the storage of {} has {} numbers instead of {}; copy or download the file again",
                view.name,
                storage.len(),
                view.storage
            );
            return Err(Error::weights(path, message));
        }
        let values = view.gather(&storage);
        if let Some(left) = uses.get_mut(&place) {
            *left -= 1;
            if *left > 0 {
                shared.insert(place, storage);
            }
        }
        tensors.push((view.name, Array { shape: view.shape, values }));
    }
    Ok(StateDict { path: path.to_owned(), tensors, about: HashMap::new(), notes })
}
