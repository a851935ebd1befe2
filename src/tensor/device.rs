//! Where tensors live.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::storage::{CpuBuffer, Numbers};
use super::{DType, Shape, Tensor};
use crate::debug::Switches;
use crate::gpu::{Context, GpuOptions, PoolReport, adapters};
use crate::{Error, Result};

/// A device. An op decides once, in one place, which implementation runs; nothing above asks.
#[derive(Debug, Clone)]
pub enum Device {
    /// Plain Rust, spread over the cores.
    Cpu(Arc<CpuContext>),
    /// A GPU through wgpu.
    Gpu(Arc<Context>),
}

impl Device {
    /// The plain-Rust device.
    pub fn cpu() -> Self {
        Self::Cpu(Arc::default())
    }

    /// `auto`: the best hardware GPU, or the CPU if there is none. `cpu`: the CPU. Anything else: the first adapter
    /// whose name contains it, software adapters included (`lavapipe`).
    ///
    /// # Errors
    /// [`Error::Adapter`] listing what there is, if nothing matches.
    pub fn open(name: &str) -> Result<Self> {
        match name.trim().to_lowercase().as_str() {
            "cpu" => Self::cpu_as_asked(),
            "auto" | "" => {
                if adapters().iter().all(|adapter| adapter.software) {
                    return Self::cpu_as_asked();
                }
                Context::open(&GpuOptions::default()).map(Self::Gpu)
            }
            name => Context::open(&GpuOptions { name: Some(name.to_owned()), ..Default::default() }).map(Self::Gpu),
        }
    }

    /// A GPU that only plans what its ops would do ([`Context::plan`]).
    ///
    /// # Errors
    /// As [`Context::plan`].
    pub fn plan(adapter: Option<&str>) -> Result<Self> {
        Context::plan(adapter).map(Self::Gpu)
    }

    /// A GPU that does nothing, to time the host ([`Context::idle`]).
    ///
    /// # Errors
    /// As [`Context::idle`].
    pub fn idle() -> Result<Self> {
        Context::idle().map(Self::Gpu)
    }

    /// The plain-Rust device with the switches of the environment.
    fn cpu_as_asked() -> Result<Self> {
        Ok(Self::Cpu(Arc::new(CpuContext::with(Switches::from_env()?.for_cpu()))))
    }

    /// What the environment asked to see when the device was opened.
    pub fn switches(&self) -> &Switches {
        match self {
            Self::Cpu(context) => &context.switches,
            Self::Gpu(context) => &context.switches,
        }
    }

    /// How many kernels the log holds: a place in it for [`kernels_since`](Self::kernels_since).
    pub(crate) fn kernels_mark(&self) -> usize {
        match self {
            Self::Cpu(_) => 0,
            Self::Gpu(context) => context.kernels_log().len(),
        }
    }

    /// Takes the kernels launched since a place out of the log, which exists while ops are checked.
    pub(crate) fn kernels_since(&self, mark: usize) -> Vec<String> {
        match self {
            Self::Cpu(_) => Vec::new(),
            Self::Gpu(context) => {
                let mut log = context.kernels_log();
                let mark = mark.min(log.len());
                log.split_off(mark)
            }
        }
    }

    /// Gives recorded work to a GPU without waiting; nothing on the CPU.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn flush(&self) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Gpu(context) => context.flush(),
        }
    }

    /// Waits until all recorded work is done.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn wait(&self) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Gpu(context) => context.wait(),
        }
    }

    /// What the tensors of this device take.
    pub fn memory(&self) -> PoolReport {
        match self {
            Self::Cpu(context) => context.report(),
            Self::Gpu(context) => context.memory(),
        }
    }

    /// Kernel launches since the device was opened; 0 on the CPU.
    pub fn dispatches(&self) -> u64 {
        match self {
            Self::Cpu(_) => 0,
            Self::Gpu(context) => context.dispatches(),
        }
    }

    /// Whether tensors may hold 16-bit floats: on a GPU with the feature, and where a step is only planned.
    pub fn has_f16(&self) -> bool {
        matches!(self, Self::Gpu(context) if context.has_f16() || context.is_planning())
    }

    /// Whether neighbours in a kernel may share what they read: on a GPU with subgroups.
    pub fn has_subgroups(&self) -> bool {
        matches!(self, Self::Gpu(context) if context.has_subgroups())
    }

    /// From now on new tensors of a GPU begin as NaN, until something is written: what a kernel forgets shows, where memory that is
    /// used again would still hold the same kernel's last result. For checks; it takes time.
    pub fn spoil_memory(&self) {
        if let Self::Gpu(context) = self {
            context.spoils_memory.store(true, Ordering::Relaxed);
        }
    }

    /// The driver and its version; empty on the CPU.
    pub fn driver(&self) -> String {
        match self {
            Self::Cpu(_) => String::new(),
            Self::Gpu(context) => context.facts().driver.clone(),
        }
    }

    /// Ranges of images such that each tensor's part fits one binding. Nearly always one range: all of them.
    /// Tensors share their first axis; on the CPU there is no limit.
    ///
    /// # Errors
    /// [`Error::Limit`] if a single image is too large, or if no range starts where the device can bind.
    pub(crate) fn image_ranges(&self, op: &'static str, tensors: &[&Tensor]) -> Result<Vec<Range<usize>>> {
        let images = tensors.first().map_or(1, |tensor| tensor.shape().dims()[0]);
        let Self::Gpu(context) = self else { return Ok(std::iter::once(0..images).collect()) };
        let (limit, align) = (context.max_binding_bytes(), context.offset_alignment());
        let mut per_launch = images;
        let mut unit = 1; // images between two allowed starts
        for tensor in tensors {
            let image_bytes = (tensor.len() / images * tensor.dtype().bytes()) as u64;
            per_launch = per_launch.min((limit / image_bytes) as usize);
            // The smallest number of images whose bytes are a multiple of the alignment.
            unit = lcm(unit, (align / gcd(align, image_bytes)) as usize);
        }
        if per_launch >= images {
            return Ok(std::iter::once(0..images).collect());
        }
        let step = per_launch / unit * unit;
        if step == 0 {
            let shapes: Vec<Shape> = tensors.iter().map(|tensor| tensor.shape()).collect();
            return Err(Error::Limit {
                op: op.to_owned(),
                message: format!(
                    "one image of {shapes:?} is larger than one binding of this device ({limit} bytes); use smaller slices"
                ),
            });
        }
        Ok((0..images).step_by(step).map(|start| start..(start + step).min(images)).collect())
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn lcm(a: usize, b: usize) -> usize {
    a / gcd(a as u64, b as u64) as usize * b
}

impl fmt::Display for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(_) => write!(out, "CPU ({} threads)", rayon::current_num_threads()),
            Self::Gpu(context) => out.write_str(&context.facts().name),
        }
    }
}

/// The plain-Rust device: a pool of vectors, so that a step that repeats itself touches no fresh page.
#[derive(Debug, Default)]
pub struct CpuContext {
    state: Mutex<CpuPool>,
    /// What the environment asked to see.
    pub(crate) switches: Switches,
}

#[derive(Debug, Default)]
struct CpuPool {
    free: HashMap<(usize, DType), Vec<Numbers>>,
    live: u64,
    reserved: u64,
    peak: u64,
}

impl CpuContext {
    /// A device that shows what the switches ask for.
    pub fn with(switches: Switches) -> Self {
        Self { switches, ..Self::default() }
    }

    fn pool(&self) -> MutexGuard<'_, CpuPool> {
        // Plain numbers and lists: a panic elsewhere cannot leave them half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn allocate(self: &Arc<Self>, len: usize, dtype: DType) -> Arc<CpuBuffer> {
        let mut pool = self.pool();
        let numbers = match pool.free.get_mut(&(len, dtype)).and_then(Vec::pop) {
            Some(found) => found,
            None => {
                pool.reserved += len as u64 * 4;
                Numbers::zeros(len, dtype)
            }
        };
        pool.live += len as u64 * 4;
        pool.peak = pool.peak.max(pool.live);
        drop(pool);
        Arc::new(CpuBuffer::new(numbers, Arc::clone(self)))
    }

    pub(crate) fn give_back(&self, numbers: Numbers) {
        let mut pool = self.pool();
        let key = (numbers.len(), numbers.dtype());
        pool.live -= key.0 as u64 * 4;
        pool.free.entry(key).or_default().push(numbers);
    }

    /// What the pool holds; the CPU does not keep track of owners.
    pub fn report(&self) -> PoolReport {
        let pool = self.pool();
        PoolReport { live: pool.live, reserved: pool.reserved, peak: pool.peak, owners: Vec::new() }
    }
}
