//! One result: the keys of `bench --json`, and a row of the table.

use std::process::Command;
use std::time::{Duration, SystemTime};

use shadegrad::ops::text_hash;
use shadegrad::{Device, Result};

use super::ops::BenchCase;
use super::peaks::Peaks;
use super::statistics::Summary;
use super::timing::{Samples, Timer};

/// Where the results come from.
#[derive(Debug, Clone)]
pub struct Machine {
    device: Device,
    adapter: String,
    commit: String,
    build: String,
    /// What it can do at most.
    peaks: Peaks,
}

impl Machine {
    /// Measures the peaks of a device.
    ///
    /// # Errors
    /// What the device reports.
    pub fn of(device: &Device) -> Result<Self> {
        let (device, adapter) = (device.clone(), adapter(device));
        let peaks = Peaks::measure(&device)?;
        Ok(Self { device, adapter, commit: commit(), build: build(), peaks })
    }

    /// Measures the peaks again and keeps the higher ones.
    ///
    /// # Errors
    /// What the device reports.
    pub fn measure_again(&mut self) -> Result<()> {
        self.raise(Some(Peaks::measure(&self.device)?));
        Ok(())
    }

    /// Takes over what another measurement found higher.
    pub fn raise(&mut self, other: Option<Peaks>) {
        self.peaks = other.map_or(self.peaks, |other| self.peaks.best_of(other));
    }

    /// What stands above the table.
    pub fn header(&self) -> String {
        let Peaks { copy_gbps, fma_gflops, fma_f16_gflops } = self.peaks;
        let half = match fma_f16_gflops {
            Some(rate) => format!("{rate:.1} GFLOP/s f16"),
            None => "no f16".to_owned(),
        };
        let matrix = match &self.device {
            Device::Cpu(_) => "none".to_owned(),
            Device::Gpu(context) => match context.facts().matrix_units.as_slice() {
                [] => "none that wgpu shows".to_owned(),
                units => format!("{} (not measured)", units.join(", ")),
            },
        };
        format!(
            "{}, {}\nmeasured peaks: copy {copy_gbps:.1} GB/s, multiply-add {fma_gflops:.1} GFLOP/s f32, {half}; matrix units: {matrix}\n\
             %: share of what the lower of the two roofs allows (copy GB/s, f32 multiply-add); data that stay in a cache can be above 100",
            self.adapter,
            if self.device.driver().is_empty() { "plain Rust".to_owned() } else { self.device.driver() },
        )
    }
}

/// The processor or the adapter, and how it is reached.
fn adapter(device: &Device) -> String {
    match device {
        Device::Gpu(context) => {
            let facts = context.facts();
            format!("{}, {} through {}", facts.name, facts.kind, facts.backend)
        }
        Device::Cpu(_) => {
            let mut system = sysinfo::System::new();
            system.refresh_cpu_all();
            let brand = system.cpus().first().map_or("", |cpu| cpu.brand());
            format!("{}, {} threads", brand.trim(), rayon::current_num_threads())
        }
    }
}

/// The commit of the checkout that this program was built in: `-dirty` with edits, `-later` if it was made after the
/// program, which then is of an older one. Without a checkout the version.
pub fn commit() -> String {
    let git = |words: &[&str]| {
        let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(name) = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]) else {
        return concat!("v", env!("CARGO_PKG_VERSION")).to_owned();
    };
    let made = git(&["log", "-1", "--format=%ct"]).and_then(|seconds| Some(Duration::from_secs(seconds.parse().ok()?)));
    let built = std::env::current_exe().and_then(|path| path.metadata()?.modified()).ok();
    let built = built.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    if built < made { name + "-later" } else { name }
}

/// Names the bytes of this program: the same name, the same code; empty if they cannot be read.
pub fn build() -> String {
    let bytes = std::env::current_exe().and_then(std::fs::read);
    bytes.map_or_else(|_| String::new(), |bytes| format!("{:08x}", crc32c::crc32c(&bytes)))
}

/// One result; the keys of `bench --json`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Line {
    /// The op.
    pub op: &'static str,
    /// The entry point.
    pub entry: &'static str,
    /// `v1`, `v2`, ... or `plain` on the CPU device.
    pub version: String,
    /// Where a network uses it, and its sizes.
    pub case: String,
    /// Median of the runs.
    pub median_ms: f64,
    /// Fastest run.
    pub min_ms: f64,
    /// Operations per nanosecond, at the median.
    pub gflops: f64,
    /// The least bytes that must move, per nanosecond, at the median.
    pub gbps: f64,
    /// The time that the lower roof allows ([`Peaks::floor`]), as a share of the median.
    pub percent_of_peak: f64,
    /// The clock.
    pub timer: Timer,
    /// The device.
    pub device: String,
    /// Its driver; empty on the CPU.
    pub driver: String,
    /// The processor or the adapter, and how it is reached.
    pub adapter: String,
    /// Of the checkout that the program was built in.
    pub commit: String,
    /// Names the program.
    pub build: String,
    /// Names the text of the shader; absent on the CPU.
    pub shader_hash: Option<String>,
    /// Between the quartiles of the runs, as a share of the median.
    pub spread: f64,
    /// Whether the caches were emptied before every run.
    pub cold: bool,
    /// Operations.
    pub flops: f64,
    /// Bytes that must move at least.
    pub bytes: f64,
    /// Measured peaks.
    #[serde(flatten)]
    pub peaks: Peaks,
    /// Milliseconds of each run, in order.
    pub samples_ms: Vec<f64>,
}

impl Line {
    /// The result of a case on a device of this machine.
    ///
    /// # Errors
    /// A shader that cannot be read.
    pub fn new(case: &BenchCase, samples: &Samples, cold: bool, device: &Device, machine: &Machine) -> Result<Self> {
        let Summary { median, min, spread } = Summary::of(&samples.seconds);
        let Machine { adapter, commit, build, peaks, .. } = machine;
        let shader_hash = match device {
            Device::Gpu(context) => Some(text_hash(context, case.op)?),
            Device::Cpu(_) => None,
        };
        Ok(Self {
            op: case.op,
            entry: case.entry,
            version: if matches!(device, Device::Cpu(_)) { "plain".to_owned() } else { case.version.clone() },
            case: case.case.clone(),
            median_ms: median * 1e3,
            min_ms: min * 1e3,
            gflops: case.cost.flops / median * 1e-9,
            gbps: case.cost.bytes / median * 1e-9,
            percent_of_peak: 100.0 * peaks.floor(case.cost) / median,
            timer: samples.timer,
            device: device.to_string(),
            driver: device.driver(),
            adapter: adapter.clone(),
            commit: commit.clone(),
            build: build.clone(),
            shader_hash,
            spread,
            cold,
            flops: case.cost.flops,
            bytes: case.cost.bytes,
            peaks: *peaks,
            samples_ms: samples.seconds.iter().map(|seconds| seconds * 1e3).collect(),
        })
    }

    /// The head of the table.
    pub fn heads() -> String {
        format!(
            "{:<18} {:<15} {:<8} {:<40} {:>10} {:>10} {:>7} {:>8} {:>8} {:>5} {:>4}  timer",
            "op", "entry", "version", "case", "median ms", "min ms", "spread", "GFLOP/s", "GB/s", "%", "runs"
        )
    }

    /// Its row.
    pub fn row(&self) -> String {
        format!(
            "{:<18} {:<15} {:<8} {:<40} {:>10.4} {:>10.4} {:>6.1}% {:>8.2} {:>8.2} {:>5.0} {:>4}  {}",
            self.op,
            self.entry,
            self.version,
            self.case,
            self.median_ms,
            self.min_ms,
            100.0 * self.spread,
            self.gflops,
            self.gbps,
            self.percent_of_peak,
            self.samples_ms.len(),
            self.timer
        )
    }
}
