//! The most that this device can do, measured: bytes copied and multiply-adds per second. A kernel's figure is compared
//! with the lower of the two roofs above it (the roofline of Williams, Waterman and Patterson, 2009).

use std::cell::RefCell;
use std::hint::black_box;

use rayon::prelude::*;
use shadegrad::gpu::Shader;
use shadegrad::{Device, Result, Tensor};

use super::ops::{Cost, Work};
use super::timing::{Effort, time};

/// Kernels that measure; they belong to no op.
pub const PEAKS: Shader = Shader { name: "peaks", source: include_str!("../shaders/peaks.wgsl") };
/// As [`PEAKS`], where the device has f16.
pub const PEAKS_F16: Shader = Shader { name: "peaks_f16", source: include_str!("../shaders/peaks_f16.wgsl") };

/// Numbers of each of the two buffers of a copy: 64 MiB, together more than nearly every cache.
const COPIED: usize = 16 << 20;
/// Invocations of the multiply-adds: they fill the largest GPUs.
const INVOCATIONS: usize = 1 << 18;
/// Numbers of rounds to try, until a run is long enough for any clock.
const ROUNDS: [&[(&str, u32)]; 4] = [&[("ROUNDS", 16)], &[("ROUNDS", 128)], &[("ROUNDS", 1024)], &[("ROUNDS", 16384)]];
/// Seconds that are long enough. Much longer runs are seldom undisturbed on a machine that does other things too.
const LONG: f64 = 2e-3;

/// The roofs.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Peaks {
    /// Bytes read and written per nanosecond by a copy of 64 MiB.
    pub copy_gbps: f64,
    /// f32 operations per nanosecond (a multiply-add is two).
    pub fma_gflops: f64,
    /// The same in f16; `None` where the device has no f16, and on the CPU device, which computes in f32.
    pub fma_f16_gflops: Option<f64>,
}

impl Peaks {
    /// Measures a device: the best of several runs each. What else the machine does can only make them smaller, so the
    /// best of several measurements ([`best_of`](Self::best_of)) is nearer to the truth.
    ///
    /// # Errors
    /// What the device reports.
    pub fn measure(device: &Device) -> Result<Self> {
        let effort = Effort { runs: 500, seconds: 0.2, cold: false };
        let copy = Copy::new(device, COPIED)?;
        let bytes = copy.bytes();
        let copy_gbps = bytes / fastest(Work::Launch(Box::new(move || copy.run())), device, effort)? * 1e-9;
        let Device::Gpu(context) = device else {
            // Short, so that all threads have a core at the same time also where others want them.
            let rounds = 1 << 17;
            let work = Work::Launch(Box::new(move || {
                rayon::broadcast(|_| black_box(multiply_adds(rounds, black_box(0.999), black_box(0.001))));
                Ok(())
            }));
            let flops = (2 * CHAINS * LANES * rounds * rayon::current_num_threads()) as f64;
            let fma_gflops = flops / fastest(work, device, effort)? * 1e-9;
            return Ok(Self { copy_gbps, fma_gflops, fma_f16_gflops: None });
        };
        let fma_gflops = fma(&PEAKS, 64.0, device, effort)?;
        let fma_f16_gflops = if context.has_f16() { Some(fma(&PEAKS_F16, 128.0, device, effort)?) } else { None };
        Ok(Self { copy_gbps, fma_gflops, fma_f16_gflops })
    }

    /// Those of a result ([`Line`](super::line::Line)).
    pub fn from_json(line: &serde_json::Value) -> Option<Self> {
        serde::Deserialize::deserialize(line).ok()
    }

    /// The higher ones of two measurements.
    #[must_use]
    pub fn best_of(self, other: Self) -> Self {
        Self {
            copy_gbps: self.copy_gbps.max(other.copy_gbps),
            fma_gflops: self.fma_gflops.max(other.fma_gflops),
            fma_f16_gflops: self.fma_f16_gflops.zip(other.fma_f16_gflops).map(|(a, b)| a.max(b)),
        }
    }

    /// Seconds that this much work takes at least.
    pub fn floor(&self, cost: Cost) -> f64 {
        (cost.flops / self.fma_gflops).max(cost.bytes / self.copy_gbps) * 1e-9
    }
}

/// Seconds of the fastest run.
fn fastest(work: Work, device: &Device, effort: Effort) -> Result<f64> {
    Ok(time(&work, device, effort, None)?.seconds.into_iter().fold(f64::INFINITY, f64::min))
}

/// Operations per nanosecond of a kernel with so many in a round.
fn fma(shader: &'static Shader, flops: f64, device: &Device, effort: Effort) -> Result<f64> {
    let x = device.tensor("bench", [2], &[0.999, 0.001])?;
    let y = device.zeros("bench", [INVOCATIONS])?;
    let mut rate = 0.0;
    for constants in ROUNDS {
        let (x, y) = (x.clone(), y.clone());
        let launch =
            move || shader.entry("multiply_add").constants(constants).reads([&x]).writes([&y]).over(INVOCATIONS);
        let seconds = fastest(Work::Launch(Box::new(launch)), device, effort)?;
        rate = flops * f64::from(constants[0].1) * INVOCATIONS as f64 / seconds * 1e-9;
        if seconds >= LONG {
            break;
        }
    }
    Ok(rate)
}

/// A copy from one buffer to another: the memory's speed, and what empties the caches between cold runs.
pub struct Copy {
    buffers: Buffers,
}

enum Buffers {
    Cpu(RefCell<[Vec<f32>; 2]>),
    Gpu(Vec<Tensor>),
}

impl Copy {
    /// Two buffers of so many numbers.
    ///
    /// # Errors
    /// What the device reports.
    pub fn new(device: &Device, numbers: usize) -> Result<Self> {
        let buffers = match device {
            Device::Cpu(_) => Buffers::Cpu(RefCell::new([vec![1.0; numbers], vec![0.0; numbers]])),
            Device::Gpu(_) => Buffers::Gpu(vec![device.zeros("bench", [numbers])?, device.zeros("bench", [numbers])?]),
        };
        Ok(Self { buffers })
    }

    /// What empties the caches: as large as the copy that measures the memory.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn flusher(device: &Device) -> Result<Self> {
        Self::new(device, COPIED)
    }

    /// Bytes read and written.
    fn bytes(&self) -> f64 {
        let numbers = match &self.buffers {
            Buffers::Cpu(buffers) => buffers.borrow()[0].len(),
            Buffers::Gpu(buffers) => buffers[0].len(),
        };
        8.0 * numbers as f64
    }

    /// Copies.
    ///
    /// # Errors
    /// What the device reports.
    pub fn run(&self) -> Result<()> {
        match &self.buffers {
            Buffers::Cpu(buffers) => {
                let [from, to] = &mut *buffers.borrow_mut();
                let part = from.len().div_ceil(rayon::current_num_threads());
                to.par_chunks_mut(part).zip(from.par_chunks(part)).for_each(|(to, from)| to.copy_from_slice(from));
                Ok(())
            }
            Buffers::Gpu(buffers) => {
                let (from, to) = (&buffers[0], &buffers[1]);
                PEAKS.entry("copy").reads([from]).writes([to]).over(from.len().div_ceil(4))
            }
        }
    }
}

/// Numbers of a vector register.
const LANES: usize = if cfg!(target_feature = "avx512f") { 16 } else { 8 };
/// Registers that do not wait for one another: two multiply-adds a cycle take four or five cycles each.
const CHAINS: usize = 10;

/// `s <- s * a + b` in every lane of every chain.
fn multiply_adds(rounds: usize, a: f32, b: f32) -> [[f32; LANES]; CHAINS] {
    let mut sums = [[1.5_f32; LANES]; CHAINS];
    for _ in 0..rounds {
        for lane in sums.as_flattened_mut() {
            // Without the instruction `mul_add` would be a call.
            *lane = if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                lane.mul_add(a, b)
            } else {
                *lane * a + b
            };
        }
    }
    sums
}
