//! Compiled kernels, one per shader, entry point and set of constants; each compiled once, by whoever asks first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::shader::{Entry, Shader};
use crate::debug::Switches;
use crate::{Error, Result};

/// A compiled entry point.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) id: usize,
    pub(crate) raw: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

type Slot = Arc<OnceLock<std::result::Result<Arc<Pipeline>, String>>>;

#[derive(Debug, Default)]
pub(crate) struct Pipelines {
    slots: Mutex<HashMap<Entry, (usize, Slot)>>,
}

impl Pipelines {
    /// The pipeline of an entry point; compiles it if nobody has. Threads that ask for the same one wait for it,
    /// threads that ask for different ones compile side by side.
    ///
    /// # Errors
    /// [`Error::Shader`] with file and line.
    pub(crate) fn get(
        &self,
        device: &wgpu::Device,
        shader: &Shader,
        key: Entry,
        switches: &Switches,
    ) -> Result<Arc<Pipeline>> {
        let (id, slot) = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let next = slots.len();
            slots.entry(key).or_insert_with(|| (next, Slot::default())).clone()
        };
        // An error is kept as text, so that every caller gets it and a reload can clear it.
        let made = slot.get_or_init(|| compile(device, shader, key, switches, id).map_err(|error| error.to_string()));
        match made {
            Ok(pipeline) => Ok(Arc::clone(pipeline)),
            // Compile errors are rare and final: making the typed error again keeps file and line.
            Err(_) => compile(device, shader, key, switches, id),
        }
    }

    /// Forgets the pipelines of a shader, so that its text is read again.
    pub(crate) fn reload(&self, shader: &str) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, (_, slot)) in slots.iter_mut() {
            if key.shader == shader {
                *slot = Slot::default();
            }
        }
    }
}

fn compile(
    device: &wgpu::Device,
    shader: &Shader,
    key: Entry,
    switches: &Switches,
    id: usize,
) -> Result<Arc<Pipeline>> {
    let text = shader.assemble(switches.shaders.as_deref(), key.constants)?;
    let label = format!("{}.{}", shader.name, key.entry);
    let _span = switches.span("compile", &label);
    switches.say(4, || format!("{label} {:?}\n{}", key.constants, text.text));
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let module = text.compile(device, &label, true);
    let raw = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&label),
        layout: None,
        module: &module,
        entry_point: Some(key.entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    });
    if let Some(error) = pollster::block_on(scope.pop()) {
        text.validate()?;
        let file = format!("{}.wgsl", shader.name);
        return Err(Error::Shader { file, line: 0, message: format!("{label}: {error}") });
    }
    let layout = raw.get_bind_group_layout(0);
    Ok(Arc::new(Pipeline { id, raw, layout }))
}
