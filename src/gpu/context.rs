//! The opened GPU: which adapter, with which limits, and everything that is shared by its tensors.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use rustc_hash::FxHashMap;

use super::launch::WORKGROUP;
use super::pipeline::Pipelines;
use super::plan::PlanEvent;
use super::pool::{Buffer, Pool, PoolReport};
use super::readback::Readback;
use super::recorder::{Dispatch, Recorder, Timing};
use super::replacement::Replacement;
use super::shader::{Matrix, Shader};
use super::tuned::{Question, Tuned};
use crate::debug::Switches;
use crate::{Error, Result};

/// What an adapter is and can do, as `shadegrad devices` prints it.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct AdapterFacts {
    /// The driver's name for the device.
    pub name: String,
    /// `DiscreteGpu`, `IntegratedGpu`, `Cpu` (software), ...
    pub kind: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// Bytes that one shader binding can see.
    pub max_binding_bytes: u64,
    /// Bytes of the largest buffer.
    pub max_buffer_bytes: u64,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Invocations of a workgroup.
    pub workgroup_invocations: u32,
    /// Subgroup sizes, smallest and largest.
    pub subgroup: [u32; 2],
    /// The features that matter here: `f16`, `subgroup`, `timestamps`, `cooperative_matrix`.
    pub features: Vec<&'static str>,
    /// Shapes and types that its matrix units take, as `16x16x16 f16 to f32` (rows x columns x depth).
    pub matrix_units: Vec<String>,
    /// Whether it is software (then it is only used when named).
    pub software: bool,
}

/// How to open a GPU.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// Part of the adapter's name, in any case; `None`: the best hardware adapter.
    pub name: Option<String>,
    /// A smaller binding limit than the device's, to try how tensors larger than one binding are handled.
    pub max_binding_bytes: Option<u64>,
    /// No more than WebGPU promises on every device: its default limits and no features. `SHADEGRAD_LIMITS=webgpu` asks
    /// for the same.
    pub webgpu_only: bool,
}

/// An opened GPU. Shared by all its tensors; all methods take `&self`.
pub struct Context {
    facts: AdapterFacts,
    pub(crate) device: wgpu::Device,
    queue: wgpu::Queue,
    max_binding: u64,
    max_buffer: u64,
    workgroup_bytes: u64,
    offset_alignment: u64,
    timestamps: bool,
    f16: bool,
    subgroups: bool,
    matrix: Option<Matrix>,
    /// What is wrong with the matrix units, once they have been tried.
    matrix_fault: OnceLock<Option<String>>,
    /// Whether memory is filled with NaN before it is handed out.
    pub(crate) spoils_memory: AtomicBool,
    pool: Pool,
    pipelines: Pipelines,
    recorder: Mutex<Recorder>,
    staging: Mutex<HashMap<u64, Vec<wgpu::Buffer>>>,
    status: Arc<Status>,
    /// Holds the number 1, where every backward pass begins.
    one: OnceLock<Arc<Buffer>>,
    /// Names of launched kernels, while ops are checked.
    kernels: Mutex<Vec<String>>,
    /// Answers of `tune`.
    tuned: RwLock<Tuned>,
    /// The kernels that they came to, each of its op's own type.
    chosen: Mutex<FxHashMap<Question, Box<dyn Any + Send>>>,
    /// Lines of the debug ladder that are said once.
    said: Mutex<HashSet<String>>,
    /// Whether nothing really happens ([`plan`](super::plan)).
    planning: bool,
    /// What the environment asked to see.
    pub switches: Switches,
}

/// What the driver told us between calls.
#[derive(Debug, Default)]
struct Status {
    lost: Mutex<Option<String>>,
    error: Mutex<Option<String>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Context").field("adapter", &self.facts.name).finish_non_exhaustive()
    }
}

/// GL would print warnings and costs start-up time.
const BACKENDS: wgpu::Backends = wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

fn enumerate() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    descriptor.backends = BACKENDS;
    let instance = wgpu::Instance::new(descriptor);
    let mut found = pollster::block_on(instance.enumerate_adapters(BACKENDS));
    // Stable: adapters of one kind keep the driver's order.
    found.sort_by_key(|adapter| rank(adapter.get_info().device_type));
    found
}

/// Smaller is better.
fn rank(kind: wgpu::DeviceType) -> u8 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

/// All adapters that wgpu finds, best first. No driver at all is an empty list.
pub fn adapters() -> Vec<AdapterFacts> {
    enumerate().iter().map(facts_of).collect()
}

fn facts_of(adapter: &wgpu::Adapter) -> AdapterFacts {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let available = adapter.features();
    let features = [
        ("f16", wgpu::Features::SHADER_F16),
        ("subgroup", wgpu::Features::SUBGROUP),
        ("timestamps", wgpu::Features::TIMESTAMP_QUERY),
        ("cooperative_matrix", wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
    ];
    AdapterFacts {
        name: info.name,
        kind: format!("{:?}", info.device_type),
        backend: format!("{:?}", info.backend).to_lowercase(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        subgroup: [info.subgroup_min_size, info.subgroup_max_size],
        features: features.iter().filter(|(_, bit)| available.contains(*bit)).map(|(name, _)| *name).collect(),
        matrix_units: adapter.cooperative_matrix_properties().iter().map(matrix_unit).collect(),
        software: info.device_type == wgpu::DeviceType::Cpu,
    }
}

/// wgpu's adapter that does nothing.
fn noop() -> Result<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::NOOP;
    descriptor.backend_options.noop.enable = true;
    let instance = wgpu::Instance::new(descriptor);
    let found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::NOOP)).into_iter().next();
    found.ok_or_else(|| Error::Adapter("wgpu was built without its noop backend".to_owned()))
}

/// As of a GPU without features; it calls itself a processor.
fn facts_of_noop(noop: &wgpu::Adapter) -> AdapterFacts {
    AdapterFacts { features: Vec::new(), software: false, ..facts_of(noop) }
}

impl AdapterFacts {
    /// The matrix units that our kernels can use, if it has them.
    pub fn matrix(&self) -> Option<Matrix> {
        let has = |feature: &&str| self.features.contains(feature);
        // A workgroup of 64 invocations has to be whole subgroups.
        if !["f16", "subgroup", "cooperative_matrix"].iter().all(has) || self.subgroup[1] > WORKGROUP as u32 {
            return None;
        }
        let shapes = [("16x16x16 f16 to f32", Matrix::Units16), ("8x8x8 f16 to f32", Matrix::Units8)];
        let found = shapes.into_iter().find(|(shape, _)| self.matrix_units.iter().any(|unit| unit == shape));
        found.map(|(_, matrix)| matrix)
    }
}

/// `16x16x16 f16 to f32`.
fn matrix_unit(unit: &wgpu::CooperativeMatrixProperties) -> String {
    let wgpu::CooperativeMatrixProperties { m_size, n_size, k_size, ab_type, cr_type, .. } = unit;
    format!("{m_size}x{n_size}x{k_size} {ab_type:?} to {cr_type:?}").to_lowercase()
}

/// Leave to use what wgpu calls experimental, of which we use matrix units.
#[allow(unsafe_code, reason = "wgpu gives no access to matrix units without it")]
fn experimental() -> wgpu::ExperimentalFeatures {
    // SAFETY: the caller has to know that there may be bugs in wgpu behind it. It is asked for only where the adapter lists
    // units that we use; only `forward_v5`, `forward_statistics_v5` and `backward_weight_v6` use them, whose every place in memory
    // is computed as in the emulated form that is tested everywhere; and no op takes them before `ops::matrix` has compared their results
    // with another kernel's on the device.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

impl Context {
    /// Opens an adapter.
    ///
    /// # Errors
    /// [`Error::Adapter`] listing what was found when nothing fits, [`Error::Gpu`] when the driver refuses,
    /// [`Error::Config`] if a switch of the environment means nothing.
    pub fn open(options: &GpuOptions) -> Result<Arc<Self>> {
        Self::open_with(options, Switches::from_env()?)
    }

    /// As [`open`](Self::open), with these switches instead of the environment's.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(options: &GpuOptions, switches: Switches) -> Result<Arc<Self>> {
        Self::open_adapter(&Self::choose(&enumerate(), options)?, options, switches)
    }

    /// The adapter of that name, or the best one.
    fn choose(found: &[wgpu::Adapter], options: &GpuOptions) -> Result<wgpu::Adapter> {
        let wanted = options.name.as_deref().map(str::to_lowercase);
        let chosen = found.iter().find(|adapter| {
            let info = adapter.get_info();
            match &wanted {
                // Mesa's software Vulkan calls itself llvmpipe; people know it as lavapipe.
                Some(name) => {
                    info.name.to_lowercase().contains(name)
                        || info.driver.to_lowercase().contains(name)
                        || (name == "lavapipe" && info.name.contains("llvmpipe"))
                }
                None => info.device_type != wgpu::DeviceType::Cpu,
            }
        });
        let Some(adapter) = chosen else {
            let names: Vec<_> = found.iter().map(|adapter| adapter.get_info().name).collect();
            let list = if names.is_empty() {
                "no Vulkan, Metal or DX12 adapter is installed".to_owned()
            } else {
                format!("there are: {}", names.join(", "))
            };
            let what = match &options.name {
                Some(name) => format!("no GPU adapter matches --device {name}"),
                None => "no hardware GPU".to_owned(),
            };
            return Err(Error::Adapter(format!(
                "{what}; {list}; `shadegrad devices` lists them, --device cpu always works"
            )));
        };
        Ok(adapter.clone())
    }

    fn open_adapter(adapter: &wgpu::Adapter, options: &GpuOptions, switches: Switches) -> Result<Arc<Self>> {
        let facts = facts_of(adapter);
        let webgpu_only = options.webgpu_only || switches.webgpu_only;
        let limits = if webgpu_only { wgpu::Limits::default() } else { adapter.limits() };
        let wanted = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
        let used = if webgpu_only { wgpu::Features::empty() } else { adapter.features() & wanted };
        let matrix = facts.matrix().filter(|_| !webgpu_only);
        let units = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let (used, experimental_features) = match matrix {
            Some(_) => (used | units, experimental()),
            None => (used, wgpu::ExperimentalFeatures::disabled()),
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("shadegrad"),
            required_features: used,
            experimental_features,
            required_limits: limits.clone(),
            ..Default::default()
        }))
        .map_err(|error| Error::Gpu { op: format!("opening {}", facts.name), message: error.to_string() })?;

        let status = Arc::new(Status::default());
        let seen = Arc::clone(&status);
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                *seen.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
            }
        });
        let seen = Arc::clone(&status);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            seen.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.to_string());
        }));
        switches.say(1, || format!("{facts:?}{}", if webgpu_only { ", used as WebGPU promises" } else { "" }));
        let mut recorder = Recorder::new(&switches);
        let timestamps = used.contains(wgpu::Features::TIMESTAMP_QUERY);
        if timestamps && switches.times_dispatches() {
            recorder.profile(&device, false);
        }
        Ok(Arc::new(Self {
            max_binding: options.max_binding_bytes.unwrap_or(u64::MAX).min(limits.max_storage_buffer_binding_size),
            max_buffer: limits.max_buffer_size,
            workgroup_bytes: u64::from(limits.max_compute_workgroup_storage_size),
            offset_alignment: u64::from(limits.min_storage_buffer_offset_alignment),
            facts,
            device,
            queue,
            timestamps,
            f16: used.contains(wgpu::Features::SHADER_F16),
            subgroups: used.contains(wgpu::Features::SUBGROUP),
            matrix,
            matrix_fault: OnceLock::new(),
            spoils_memory: AtomicBool::new(false),
            pool: Pool::default(),
            pipelines: Pipelines::default(),
            recorder: Mutex::new(recorder),
            staging: Mutex::default(),
            one: OnceLock::new(),
            status,
            kernels: Mutex::default(),
            tuned: RwLock::default(),
            chosen: Mutex::default(),
            said: Mutex::default(),
            planning: false,
            switches,
        }))
    }

    /// A GPU that only plans what its ops would do, with the limits of the adapter of that name (less if `SHADEGRAD_LIMITS` asks
    /// for less), or of what WebGPU promises everywhere. Its tensors hold no numbers.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn plan(adapter: Option<&str>) -> Result<Arc<Self>> {
        let noop = noop()?;
        let options = GpuOptions { name: adapter.map(str::to_owned), ..Default::default() };
        let (facts, limits) = match adapter {
            Some(_) => {
                let real = Self::choose(&enumerate(), &options)?;
                match Switches::asks_webgpu_only()? {
                    true => (AdapterFacts { features: Vec::new(), ..facts_of(&real) }, wgpu::Limits::default()),
                    false => (facts_of(&real), real.limits()),
                }
            }
            None => {
                let limits = wgpu::Limits::default();
                let name = "any GPU (WebGPU's default limits)".to_owned();
                (AdapterFacts { name, ..facts_of_noop(&noop) }, limits)
            }
        };
        let facts = AdapterFacts {
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            ..facts
        };
        let mut context = Self::plan_as(facts)?;
        if let Some(context) = Arc::get_mut(&mut context) {
            context.offset_alignment = u64::from(limits.min_storage_buffer_offset_alignment);
        }
        Ok(context)
    }

    /// As [`plan`](Self::plan), of a GPU that need not be there: one with these facts.
    ///
    /// # Errors
    /// [`Error::Adapter`] if wgpu's backend that does nothing is missing.
    pub fn plan_as(facts: AdapterFacts) -> Result<Arc<Self>> {
        let mut context = Self::open_adapter(&noop()?, &GpuOptions::default(), Switches::default())?;
        if let Some(context) = Arc::get_mut(&mut context) {
            context.pool = Pool::planning();
            context.planning = true;
            context.max_binding = facts.max_binding_bytes;
            context.max_buffer = facts.max_buffer_bytes;
            context.workgroup_bytes = u64::from(facts.workgroup_bytes);
            context.offset_alignment = u64::from(wgpu::Limits::default().min_storage_buffer_offset_alignment);
            context.matrix = facts.matrix();
            context.subgroups = facts.features.contains(&"subgroup");
            context.facts = facts;
        }
        Ok(context)
    }

    /// A GPU that takes everything and does nothing: a step on it takes the host's time alone, that of its ops and of wgpu.
    /// What its tensors hold means nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn idle() -> Result<Arc<Self>> {
        let noop = noop()?;
        // Its own limits are larger than the tables that wgpu makes of them.
        let options = GpuOptions { webgpu_only: true, ..Default::default() };
        let mut context = Self::open_adapter(&noop, &options, Switches::from_env()?)?;
        if let Some(context) = Arc::get_mut(&mut context) {
            let name = "no device (wgpu's noop backend)".to_owned();
            context.facts = AdapterFacts { name, ..facts_of_noop(&noop) };
        }
        Ok(context)
    }

    /// Whether nothing really happens here ([`Context::plan`]).
    pub fn is_planning(&self) -> bool {
        self.planning
    }

    /// Adds to the plan; does nothing on a device that works.
    pub(crate) fn note(&self, event: impl FnOnce() -> PlanEvent) {
        if self.planning {
            self.pool.note(event);
        }
    }

    /// What ops did on a planning device since the last call.
    pub fn take_plan(&self) -> Vec<PlanEvent> {
        self.pool.take_plan()
    }

    /// What the adapter is and can do.
    pub fn facts(&self) -> &AdapterFacts {
        &self.facts
    }

    /// Bytes that one binding can see.
    pub fn max_binding_bytes(&self) -> u64 {
        self.max_binding
    }

    /// Bytes of memory that a workgroup can have.
    pub fn workgroup_bytes(&self) -> u64 {
        self.workgroup_bytes
    }

    /// Bytes that the start of a bound range must be a multiple of.
    pub fn offset_alignment(&self) -> u64 {
        self.offset_alignment
    }

    /// Whether dispatches can be timed on the device.
    pub fn has_timestamps(&self) -> bool {
        self.timestamps
    }

    /// Whether shaders may compute in f16 (`enable f16;`).
    pub fn has_f16(&self) -> bool {
        self.f16
    }

    /// Whether the invocations of a subgroup may hand numbers to each other.
    pub fn has_subgroups(&self) -> bool {
        self.subgroups
    }

    /// The matrix units that kernels may use.
    pub fn matrix(&self) -> Option<Matrix> {
        self.matrix
    }

    /// What is wrong with them: what `find` says the first time.
    pub(crate) fn matrix_fault(&self, find: impl FnOnce() -> Option<String>) -> Option<&str> {
        self.matrix_fault.get_or_init(find).as_deref()
    }

    /// Takes over what is known to be wrong with the matrix units of another device: for a plan of what that one would do.
    pub fn share_fault(&self, other: &Self) {
        if let Some(known) = other.matrix_fault.get() {
            let _known_already = self.matrix_fault.set(known.clone());
        }
    }

    /// What the buffer pool holds.
    pub fn memory(&self) -> PoolReport {
        self.pool.report()
    }

    /// Bytes by which less is in use than at the high-water mark.
    pub(crate) fn spare_bytes(&self) -> u64 {
        self.pool.spare()
    }

    /// Forgets the memory high-water mark.
    pub fn reset_peak(&self) {
        self.pool.reset_peak();
    }

    /// Bind groups and uniform buffers made since the device was opened: a step that repeats the one before makes none.
    pub fn bindings_made(&self) -> u64 {
        self.recorder().made
    }

    /// Gives unused buffers back to the device, and forgets the bind groups that hold them.
    pub fn trim(&self) {
        self.recorder().forget();
        self.pool.trim();
    }

    /// Dispatches recorded since the device was opened.
    pub fn dispatches(&self) -> u64 {
        self.recorder().dispatches
    }

    /// Bytes of all tensors bound by the dispatches since the device was opened.
    pub fn traffic_bytes(&self) -> u64 {
        self.recorder().traffic
    }

    /// Starts timing every dispatch on the device (each gets a pass of its own). False if the device cannot.
    ///
    /// # Errors
    /// [`Error::Shader`] for a kernel launched before that does not compile.
    pub fn start_profile(&self) -> Result<bool> {
        if self.timestamps {
            self.caught_up()?.profile(&self.device, true);
        }
        Ok(self.timestamps)
    }

    /// Stops timing and returns what was timed, in order.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn stop_profile(&self) -> Result<Vec<Timing>> {
        let flushed = self.flush();
        let timings = self.recorder().profile(&self.device, false);
        flushed.map(|()| timings)
    }

    /// Lets ops take these kernels for the sizes that they are for.
    pub fn use_tuned(&self, tuned: Tuned) {
        *self.tuned.write().unwrap_or_else(PoisonError::into_inner) = tuned;
        self.chosen().clear();
    }

    fn chosen(&self) -> MutexGuard<'_, FxHashMap<Question, Box<dyn Any + Send>>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `find` made of a question when it was first asked: an op asks again in each step, and looking through all kernels
    /// takes a tenth of a millisecond.
    pub(crate) fn choice<K: Copy + Send + 'static>(&self, question: Question, find: impl FnOnce() -> K) -> K {
        let known = self.chosen().get(&question).and_then(|kernel| kernel.downcast_ref::<K>().copied());
        known.unwrap_or_else(|| {
            let kernel = find();
            self.chosen().insert(question, Box::new(kernel));
            kernel
        })
    }

    /// The answers of `tune` that are used.
    pub fn tuned_answers(&self) -> Tuned {
        self.tuned.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether anybody wants to know which kernel an op could take.
    pub(crate) fn hears_questions(&self) -> bool {
        let tuned = || !self.tuned.read().unwrap_or_else(PoisonError::into_inner).is_empty();
        self.planning || self.switches.level >= 3 || tuned()
    }

    /// The kernel that was found fastest; none for a shader whose text is replaced.
    pub(crate) fn tuned(&self, question: &Question) -> Option<String> {
        let tuned = self.tuned.read().unwrap_or_else(PoisonError::into_inner);
        let answer = tuned.answer(question).filter(|_| self.replacement(question.op).is_none());
        answer.map(|answer| answer.kernel.clone())
    }

    /// Lets somebody's own text stand in for entry points of a shader, or takes our own back (`None`). Returns what
    /// was there before, with its compiled pipelines.
    pub fn replace(&self, shader: &'static str, with: Option<Arc<Replacement>>) -> Option<Arc<Replacement>> {
        let before = self.pipelines.replace(shader, with);
        self.chosen().clear();
        self.recorder().forget();
        before
    }

    /// Names the text that a shader's kernels are made of here: ours, or what stands in for it ([`Assembled::hash`]).
    ///
    /// # Errors
    /// [`Error::Io`] if it is read from a folder and cannot be.
    ///
    /// [`Assembled::hash`]: super::Assembled::hash
    pub fn text_hash(&self, shader: &Shader) -> Result<String> {
        match self.replacement(shader.name) {
            Some(own) => Ok(own.text().hash()),
            None => Ok(shader.every_form(self.switches.shaders.as_deref())?.hash()),
        }
    }

    /// The text that stands in for a shader's own.
    pub fn replacement(&self, shader: &str) -> Option<Arc<Replacement>> {
        self.pipelines.replacement(shader)
    }

    pub(crate) fn allocate(&self, op: &'static str, bytes: u64) -> Result<Arc<Buffer>> {
        let buffer = self.pool.take(&self.device, self.max_buffer, op, bytes)?;
        if self.spoils_memory.load(Ordering::Relaxed) {
            self.write(&buffer, 0, &vec![0xff; bytes as usize])?; // NaN, as f32 and as f16
        }
        Ok(buffer)
    }

    /// A buffer that holds the number 1 and is never written again: a step that made its own would have to be submitted in
    /// two parts, because writes from the host come before what is recorded.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub(crate) fn one(&self) -> Result<Arc<Buffer>> {
        if let Some(one) = self.one.get() {
            return Ok(Arc::clone(one));
        }
        let one = self.allocate("backward", 4)?;
        self.write(&one, 0, bytemuck::bytes_of(&1.0_f32))?;
        Ok(Arc::clone(self.one.get_or_init(|| one)))
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        // The recorder's caches and counters stay usable even if a thread panicked while holding it.
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Switches::say`], but only the first time that this text up to its semicolon comes up.
    pub(crate) fn say_once(&self, level: u8, text: impl FnOnce() -> Option<String>) {
        if self.switches.level >= level
            && let Some(text) = text()
            && let Some((key, _)) = text.split_once(';')
            && self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned())
        {
            self.switches.say(level, || text);
        }
    }

    /// The names of launched kernels; only kept while ops are checked.
    pub(crate) fn kernels_log(&self) -> MutexGuard<'_, Vec<String>> {
        self.kernels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a dispatch, or puts it off if its pipeline has not been compiled.
    ///
    /// # Errors
    /// [`Error::Gpu`] naming the op when the driver refuses the bindings, [`Error::Shader`] for a text that somebody edits and
    /// for a kernel that has failed before. What is put off fails when it is recorded.
    pub(crate) fn dispatch(&self, shader: Shader, work: &Dispatch<'_>) -> Result<()> {
        if self.switches.looks_at_results() {
            self.kernels_log().push(work.entry.label());
        }
        let mut recorder = self.recorder();
        if recorder.repeats(work) {
            recorder.count(work);
            return recorder.dispatch(&self.device, &self.queue, None, work);
        }
        drop(recorder); // others may record while this one compiles
        let place = self.pipelines.place(shader, work.entry);
        // What is wrong with a text that somebody edits is for the op that launches it to say: it is compiled at once.
        let at_once = place.is_settled() || place.is_replaced() || self.switches.shaders.is_some();
        let pipeline = at_once.then(|| self.pipelines.get(&self.device, &place, &self.switches)).transpose()?;
        recorder = self.recorder();
        recorder.count(work);
        match pipeline {
            Some(_) if !recorder.puts_off() => recorder.dispatch(&self.device, &self.queue, pipeline, work),
            _ => {
                recorder.put_off(place, work);
                Ok(())
            }
        }
    }

    /// The recorder, with everything recorded that was put off. The pipelines for it are compiled side by side; others may
    /// record meanwhile. A dispatch that fails is left out.
    ///
    /// # Errors
    /// The first [`Error::Shader`], with file and line, or [`Error::Gpu`] naming the op.
    fn caught_up(&self) -> Result<MutexGuard<'_, Recorder>> {
        let mut recorder = self.recorder();
        if !recorder.puts_off() {
            return Ok(recorder);
        }
        let places = recorder.awaited();
        drop(recorder);
        self.pipelines.compile(&self.device, &places, &self.switches);
        recorder = self.recorder();
        let mut done = Ok(());
        for put_off in recorder.take_put_off() {
            let pipeline = self.pipelines.get(&self.device, &put_off.place, &self.switches);
            let record = |pipeline| recorder.dispatch(&self.device, &self.queue, Some(pipeline), &put_off.work());
            done = done.and(pipeline.and_then(record));
        }
        done.map(|()| recorder)
    }

    /// Gives everything recorded to the device; does not wait.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], or [`Error::Gpu`] with what the driver said since the last flush; [`Error::Shader`] for a kernel
    /// that does not compile.
    pub fn flush(&self) -> Result<()> {
        self.caught_up()?.flush(&self.device, &self.queue)?;
        self.fault()
    }

    /// Waits until the device has done everything.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn wait(&self) -> Result<()> {
        self.flush()?;
        self.poll(true)
    }

    /// Lets wgpu deliver finished read-backs; waits for all work if asked to.
    pub(crate) fn poll(&self, wait: bool) -> Result<()> {
        let how = if wait { wgpu::PollType::wait_indefinitely() } else { wgpu::PollType::Poll };
        self.device.poll(how).map_err(|error| Error::DeviceLost(error.to_string()))?;
        self.fault()
    }

    fn fault(&self) -> Result<()> {
        let take = |slot: &Mutex<Option<String>>| slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(message) = take(&self.status.lost) {
            return Err(Error::DeviceLost(message));
        }
        match take(&self.status.error) {
            Some(message) => Err(Error::Gpu { op: self.recorder().last.clone(), message }),
            None => Ok(()),
        }
    }

    /// Writes bytes into a buffer, after everything recorded so far has been given to the device.
    pub(crate) fn write(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.planning {
            return Ok(());
        }
        let mut recorder = self.caught_up()?;
        if recorder.pending() {
            recorder.flush(&self.device, &self.queue)?;
        }
        self.queue.write_buffer(&buffer.raw, offset, bytes);
        Ok(())
    }

    /// Copies bytes between buffers, in order with the dispatches.
    ///
    /// # Errors
    /// [`Error::Shader`] for a kernel launched before that does not compile.
    pub(crate) fn copy(&self, from: (&Buffer, u64), to: (&Buffer, u64), bytes: u64) -> Result<()> {
        if self.planning {
            return Ok(());
        }
        self.copy_raw((&from.0.raw, from.1), (&to.0.raw, to.1), bytes)
    }

    fn copy_raw(&self, from: (&wgpu::Buffer, u64), to: (&wgpu::Buffer, u64), bytes: u64) -> Result<()> {
        self.caught_up()?.copy(&self.device, from, to, bytes);
        Ok(())
    }

    /// Starts bringing bytes home, after everything recorded so far.
    pub(crate) fn read(self: &Arc<Self>, buffer: &Buffer, offset: u64, bytes: u64) -> Result<Readback> {
        if self.planning {
            return Err(Error::Gpu { op: "read".to_owned(), message: "a planned tensor has no numbers".to_owned() });
        }
        // Round up so that few sizes of staging buffers exist.
        let size = bytes.next_power_of_two().max(256);
        let recycled = {
            let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
            staging.get_mut(&size).and_then(Vec::pop)
        };
        let staging = recycled.unwrap_or_else(|| {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("read-back"),
                size,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        self.copy_raw((&buffer.raw, offset), (&staging, 0), bytes)?;
        self.flush()?;
        Ok(Readback::start(self, staging, bytes))
    }

    pub(crate) fn recycle_staging(&self, staging: wgpu::Buffer) {
        let mut kept = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry(staging.size()).or_default().push(staging);
    }
}
