//! What naga makes of a kernel for each driver: SPIR-V for Vulkan, MSL for Metal, HLSL for DX12.
//!
//! wgpu does this by itself whenever it makes a pipeline. Here the same back-ends run on demand and without a device:
//! `show kernel` prints what they write, and the tests translate every kernel for drivers that this machine lacks.
//! The checks are those of [`Assembled::compile`](super::Assembled): bounds are checked, workgroup memory is not
//! cleared, and our own loops have no hidden counters.

use naga::back::{hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::ModuleInfo;
use naga::{AddressSpace, Module, ResourceBinding, ShaderStage, StorageAccess};

use super::shader::Assembled;
use crate::{Error, Result};

/// A shader file that has been parsed and validated, ready to be translated entry by entry.
#[derive(Debug)]
pub struct Translator {
    name: String,
    text: String,
    module: Module,
    info: ModuleInfo,
    /// Whether each loop gets a hidden counter, as the shaders of users do.
    bound_loops: bool,
    /// How SPIR-V keeps accesses inside of buffers.
    buffers: BoundsCheckPolicy,
}

/// One entry point with its constants settled and everything removed that it does not use.
struct Part {
    module: Module,
    info: ModuleInfo,
}

/// SPIR-V 1.3 is what Vulkan 1.1 takes, and the first with subgroup operations.
const SPIRV_VERSION: (u8, u8) = (1, 3);
/// MSL 2.4 runs on macOS 12 and later.
const MSL_VERSION: (u8, u8) = (2, 4);
/// The first shader model with 16-bit floats; it needs DXC, as wgpu does for it.
const SHADER_MODEL: hlsl::ShaderModel = hlsl::ShaderModel::V6_2;

impl Translator {
    /// Parses and validates a text. `trusted` as for our own shaders: their loops are proved to end.
    ///
    /// # Errors
    /// [`Error::Shader`] with file and line of the first fault.
    pub fn new(text: &Assembled, trusted: bool) -> Result<Self> {
        let (module, info) = text.validated()?;
        let name = text.origin.first().map_or_else(String::new, |(file, _)| file.clone());
        Ok(Self { name, text: text.text.clone(), module, info, bound_loops: !trusted, buffers: CHECKS.buffer })
    }

    /// SPIR-V as for a driver that keeps accesses inside of buffers itself (robustBufferAccess2): wgpu leaves them to it then.
    #[must_use]
    pub fn robust_driver(self) -> Self {
        Self { buffers: BoundsCheckPolicy::Unchecked, ..self }
    }

    /// What naga understood.
    pub(super) fn module(&self) -> &Module {
        &self.module
    }

    /// Whether an entry point uses a variable, itself or in what it calls.
    pub(super) fn uses(&self, entry: &str, variable: naga::Handle<naga::GlobalVariable>) -> bool {
        let index = self.entries().iter().position(|name| *name == entry);
        index.is_some_and(|index| !self.info.get_entry_point(index)[variable].is_empty())
    }

    /// The line of the whole text, from 1, that a span begins in; `None` for what naga made up itself.
    pub(super) fn line_of(&self, span: naga::Span) -> Option<u32> {
        span.is_defined().then(|| span.location(&self.text).line_number)
    }

    /// The invocations of a workgroup along each axis.
    ///
    /// # Errors
    /// As [`spirv`](Self::spirv).
    pub(super) fn workgroup_size(&self, entry: &str) -> Result<[u32; 3]> {
        Ok(self.part(entry)?.module.entry_points.first().map_or([0; 3], |entry| entry.workgroup_size))
    }

    /// The names of the entry points, in the order of the file.
    pub fn entries(&self) -> Vec<&str> {
        self.module.entry_points.iter().map(|entry| entry.name.as_str()).collect()
    }

    /// The words of a SPIR-V module with this one entry point; names are kept.
    ///
    /// # Errors
    /// [`Error::Shader`] if there is no such entry point, or with what naga cannot say in SPIR-V.
    pub fn spirv(&self, entry: &str) -> Result<Vec<u32>> {
        let part = self.part(entry)?;
        let binding = |at: ResourceBinding| spv::BindingInfo {
            descriptor_set: at.group,
            binding: at.binding,
            binding_array_size: None,
        };
        let options = spv::Options {
            lang_version: SPIRV_VERSION,
            flags: spv::WriterFlags::DEBUG,
            fake_missing_bindings: false,
            binding_map: part.bindings().map(|(at, _)| (at, binding(at))).collect(),
            bounds_check_policies: BoundsCheckPolicies { buffer: self.buffers, ..CHECKS },
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: self.bound_loops,
            ..Default::default()
        };
        let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_owned() };
        spv::write_vec(&part.module, &part.info, &options, Some(&pipeline)).map_err(|error| self.fault(entry, &error))
    }

    /// Metal Shading Language. Buffers have the numbers of their bindings, the sizes of all come after the last.
    ///
    /// # Errors
    /// As [`spirv`](Self::spirv).
    pub fn msl(&self, entry: &str) -> Result<String> {
        let part = self.part(entry)?;
        let mut resources = msl::EntryPointResources::default();
        for (at, written) in part.bindings() {
            let buffer = Some(at.binding as u8);
            resources.resources.insert(at, msl::BindTarget { buffer, mutable: written, ..Default::default() });
        }
        resources.sizes_buffer = Some(part.bindings().map(|(at, _)| at.binding as u8 + 1).max().unwrap_or(0));
        let options = msl::Options {
            lang_version: MSL_VERSION,
            per_entry_point_map: [(entry.to_owned(), resources)].into(),
            fake_missing_bindings: false,
            bounds_check_policies: CHECKS,
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: self.bound_loops,
            ..Default::default()
        };
        let pipeline =
            msl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.to_owned())), ..Default::default() };
        let written = msl::write_string(&part.module, &part.info, &options, &pipeline);
        let (text, info) = written.map_err(|error| self.fault(entry, &error))?;
        match info.entry_point_names.into_iter().next() {
            Some(Err(error)) => Err(self.fault(entry, &error)),
            _ => Ok(text),
        }
    }

    /// HLSL for DXC. Registers have the numbers of the bindings: `b` uniforms, `t` read, `u` written.
    ///
    /// # Errors
    /// As [`spirv`](Self::spirv).
    pub fn hlsl(&self, entry: &str) -> Result<String> {
        let part = self.part(entry)?;
        let target = |at: ResourceBinding| hlsl::BindTarget {
            space: at.group as u8,
            register: at.binding,
            restrict_indexing: true,
            ..Default::default()
        };
        let options = hlsl::Options {
            shader_model: SHADER_MODEL,
            binding_map: part.bindings().map(|(at, _)| (at, target(at))).collect(),
            fake_missing_bindings: false,
            // Where DX12 gets `num_workgroups` from: naga asks for it by name.
            special_constants_binding: Some(hlsl::BindTarget { space: 1, ..Default::default() }),
            zero_initialize_workgroup_memory: false,
            restrict_indexing: true,
            force_loop_bounding: self.bound_loops,
            ..Default::default()
        };
        let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.to_owned())) };
        let mut text = String::new();
        let info = hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(&part.module, &part.info, None)
            .map_err(|error| self.fault(entry, &error))?;
        match info.entry_point_names.into_iter().next() {
            Some(Err(error)) => Err(self.fault(entry, &error)),
            _ => Ok(text),
        }
    }

    /// WGSL again: one entry point, with its constants settled and without what it does not use.
    ///
    /// # Errors
    /// As [`spirv`](Self::spirv).
    pub fn wgsl(&self, entry: &str) -> Result<String> {
        let part = self.part(entry)?;
        naga::back::wgsl::write_string(&part.module, &part.info, naga::back::wgsl::WriterFlags::empty())
            .map_err(|error| self.fault(entry, &error))
    }

    fn part(&self, entry: &str) -> Result<Part> {
        if !self.entries().contains(&entry) {
            let message = format!("there is no entry point {entry}; there are {}", self.entries().join(", "));
            return Err(Error::Shader { file: self.name.clone(), line: 0, message });
        }
        let (module, info) = naga::back::pipeline_constants::process_overrides(
            &self.module,
            &self.info,
            Some((ShaderStage::Compute, entry)),
            &Default::default(),
        )
        .map_err(|error| self.fault(entry, &error))?;
        Ok(Part { module: module.into_owned(), info: info.into_owned() })
    }

    fn fault(&self, entry: &str, error: &dyn std::error::Error) -> Error {
        Error::Shader { file: self.name.clone(), line: 0, message: format!("{entry}: {error}") }
    }
}

/// What `ShaderRuntimeChecks::checked` asks for, where the driver itself promises nothing.
const CHECKS: BoundsCheckPolicies = BoundsCheckPolicies {
    index: BoundsCheckPolicy::Restrict,
    buffer: BoundsCheckPolicy::Restrict,
    image_load: BoundsCheckPolicy::Restrict,
    binding_array: BoundsCheckPolicy::Unchecked,
};

impl Part {
    /// Where each buffer is bound, and whether the kernel writes it.
    fn bindings(&self) -> impl Iterator<Item = (ResourceBinding, bool)> {
        self.module.global_variables.iter().filter_map(|(_, variable)| {
            let written =
                matches!(variable.space, AddressSpace::Storage { access } if access.contains(StorageAccess::STORE));
            variable.binding.map(|binding| (binding, written))
        })
    }
}

/// The text of a SPIR-V module, an instruction a line, as `spirv-dis` writes it.
///
/// # Errors
/// [`Error::Gpu`] if the words are no SPIR-V.
pub fn disassemble(words: &[u32]) -> Result<String> {
    use rspirv::binary::Disassemble as _;
    let module = rspirv::dr::load_words(words)
        .map_err(|error| Error::Gpu { op: "SPIR-V".to_owned(), message: error.to_string() })?;
    Ok(module.disassemble())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Shader;

    const DOUBLE: Shader = Shader {
        name: "double",
        source: "override WG: u32 = 64u;
            @group(0) @binding(1) var<storage, read> x: array<f32>;
            @group(0) @binding(2) var<storage, read_write> y: array<f32>;
            @compute @workgroup_size(WG) fn forward(@builtin(global_invocation_id) gid: vec3<u32>) {
                for (var i = 0u; i < 2u; i++) { y[gid.x] += x[gid.x]; }
            }
            @compute @workgroup_size(WG) fn other() {}",
    };

    fn double() -> Result<Translator> {
        Translator::new(&DOUBLE.assemble(None, &[])?, true)
    }

    #[test]
    fn one_entry_point_in_each_language() -> Result<()> {
        let double = double()?;
        assert_eq!(double.entries(), ["forward", "other"]);
        let spirv = disassemble(&double.spirv("forward")?)?;
        assert!(spirv.contains("OpEntryPoint GLCompute") && spirv.contains("\"forward\""), "{spirv}");
        assert!(spirv.contains("LocalSize 64 1 1") && !spirv.contains("\"other\""), "{spirv}");
        let msl = double.msl("forward")?;
        assert!(msl.contains("kernel void forward") && msl.contains("[[buffer(2)]]"), "{msl}");
        let hlsl = double.hlsl("forward")?;
        assert!(hlsl.contains("[numthreads(64, 1, 1)]") && hlsl.contains("register(u2)"), "{hlsl}");
        assert!(double.wgsl("forward")?.contains("@workgroup_size(64"));
        Ok(())
    }

    #[test]
    fn loops_of_users_get_a_counter() -> Result<()> {
        let text = DOUBLE.assemble(None, &[])?;
        let (ours, theirs) = (Translator::new(&text, true)?, Translator::new(&text, false)?);
        assert!(ours.spirv("forward")?.len() < theirs.spirv("forward")?.len());
        assert!(ours.msl("forward")?.len() < theirs.msl("forward")?.len());
        assert!(ours.hlsl("forward")?.len() < theirs.hlsl("forward")?.len());
        Ok(())
    }

    #[test]
    fn an_entry_point_that_does_not_exist_is_refused_with_those_that_do() -> Result<()> {
        let Err(error) = double()?.spirv("backward") else { panic!("translated") };
        assert!(error.to_string().contains("there are forward, other"), "{error}");
        Ok(())
    }
}
