//! Compiled kernels, one per shader, entry point and set of constants; each compiled once, by whoever asks first.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use rustc_hash::{FxHashMap, FxHashSet};

use super::replacement::Replacement;
use super::shader::{Assembled, Entry, Shader};
use crate::debug::Switches;
use crate::{Error, Result};

/// A compiled entry point.
#[derive(Debug)]
pub(crate) struct Pipeline {
    /// No other of this device has the same.
    pub(crate) id: usize,
    /// `shader.entry`.
    pub(crate) label: String,
    pub(crate) raw: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

type Slot = Arc<OnceLock<std::result::Result<Arc<Pipeline>, String>>>;

/// What has been compiled of one text.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<FxHashMap<Entry, Slot>>);

/// Where a compiled entry point is, or will be.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    shader: Shader,
    pub(crate) key: Entry,
    /// The text that stood in for the shader's own when the place was asked for.
    replacement: Option<Arc<Replacement>>,
    slot: Slot,
}

impl Place {
    /// Whether its text is not ours.
    pub(crate) fn is_replaced(&self) -> bool {
        self.replacement.is_some()
    }

    /// Whether it has been compiled, or cannot be.
    pub(crate) fn is_settled(&self) -> bool {
        self.slot.get().is_some()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Pipelines {
    ours: Slots,
    /// Texts that stand in for ours, by shader.
    replaced: Mutex<FxHashMap<&'static str, Arc<Replacement>>>,
    compiled: AtomicUsize,
}

impl Pipelines {
    /// The place of an entry point's pipeline.
    pub(crate) fn place(&self, shader: Shader, key: Entry) -> Place {
        let replacement = self.replacement(shader.name).filter(|replacement| replacement.replaces(&key));
        let slots = replacement.as_deref().map_or(&self.ours, |replacement| &replacement.compiled);
        let slot = slots.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        Place { shader, key, replacement, slot }
    }

    /// Compiles what has not been compiled, on all cores. Whoever asks for one that fails is told why ([`get`](Self::get)).
    ///
    /// The threads are its own: rayon's may be busy with images, and one that waits would begin somebody else's work.
    pub(crate) fn compile(&self, device: &wgpu::Device, places: &[Place], switches: &Switches) {
        let mut seen = FxHashSet::default();
        let missing = |place: &&Place| !place.is_settled() && seen.insert(Arc::as_ptr(&place.slot));
        let missing: Vec<&Place> = places.iter().filter(missing).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(place) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let _ = self.get(device, place, switches);
            }
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 1..cores.min(missing.len()) {
                // Where no thread can be had, those that there are do its work.
                let _ = thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
    }

    /// The pipeline of an entry point; compiles it if nobody has. Threads that ask for the same one wait for it,
    /// threads that ask for different ones compile side by side.
    ///
    /// # Errors
    /// [`Error::Shader`] with file and line.
    pub(crate) fn get(&self, device: &wgpu::Device, place: &Place, switches: &Switches) -> Result<Arc<Pipeline>> {
        let Place { shader, key, replacement, slot } = place;
        let make = || {
            let (text, trusted) = match replacement {
                Some(replacement) => (Cow::Borrowed(replacement.text()), replacement.trusted()),
                None => {
                    let (folder, constants) = (switches.shaders.as_deref(), key.constants.list());
                    (Cow::Owned(shader.assemble_as(folder, &constants, key.form)?), true)
                }
            };
            compile(device, *key, &text, trusted, switches, self.compiled.fetch_add(1, Ordering::Relaxed))
        };
        // An error is kept as text, so that every caller gets it.
        match slot.get_or_init(|| make().map_err(|error| error.to_string())) {
            Ok(pipeline) => Ok(Arc::clone(pipeline)),
            // Compile errors are rare and final: making the typed error again keeps file and line.
            Err(_) => make(),
        }
    }

    /// The text that stands in for a shader's own.
    pub(crate) fn replacement(&self, shader: &str) -> Option<Arc<Replacement>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).get(shader).cloned()
    }

    /// Puts a text in the place of a shader's own, or takes our own back; returns what was there.
    pub(crate) fn replace(&self, shader: &'static str, with: Option<Arc<Replacement>>) -> Option<Arc<Replacement>> {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        match with {
            Some(with) => replaced.insert(shader, with),
            None => replaced.remove(shader),
        }
    }
}

fn compile(
    device: &wgpu::Device,
    key: Entry,
    text: &Assembled,
    trusted: bool,
    switches: &Switches,
    id: usize,
) -> Result<Arc<Pipeline>> {
    let label = key.label();
    let _span = switches.span("compile", &label);
    switches.say(4, || format!("{label} {}\n{}", key.constants, text.text));
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let module = text.compile(device, &label, trusted);
    let raw = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&label),
        layout: None,
        module: &module,
        entry_point: Some(key.entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: !trusted,
            ..Default::default()
        },
        cache: None,
    });
    if let Some(error) = pollster::block_on(scope.pop()) {
        text.validate()?;
        let (file, _) = text.locate(1);
        return Err(Error::Shader { file, line: 0, message: format!("{label}: {error}") });
    }
    let layout = raw.get_bind_group_layout(0);
    Ok(Arc::new(Pipeline { id, label, raw, layout }))
}
