//! Times bench cases, for `cargo bench` and for `shadegrad bench`.
//!
//! Which clock is used is said with every number (`timer`):
//! - `timestamps`: the device's own clock around every dispatch of a run, summed. What happens between dispatches (copies,
//!   recording, the driver) is not in it.
//! - `submission`: a GPU without timestamps. Many runs are recorded, the wall time until all are done is divided by their
//!   number; recording is in it.
//! - `wall`: the CPU device, one call.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::collections::HashSet;
use std::time::Instant;

use clap::builder::PossibleValuesParser;
use shadegrad::gpu::Context;
use shadegrad::models::{Model, ModelConfig};
use shadegrad::ops::{Version, add};
use shadegrad::{Device, Error, Result};

use super::models;
use super::ops::{BenchCase, Work, cases};

/// A recorded batch of runs should last this long, so that submitting it does not count.
const LONG: f64 = 0.05;
/// Runs of a batch at most: recording must not fill the memory.
const MOST: usize = 500;
/// From this many operations per byte on, memory is not what limits a kernel.
const MEMORY_BOUND: f64 = 10.0;

/// What is timed, and how it is printed.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Ops to time, or a network: unext, unet, resunet [default: all ops]
    #[arg(value_name = "OP", value_parser = PossibleValuesParser::new(names()), hide_possible_values = true)]
    pub ops: Vec<String>,
    /// auto, cpu, or part of an adapter's name
    #[arg(long, default_value = "auto", env = "SHADEGRAD_DEVICE")]
    pub device: String,
    /// Runs of each case; the median and the least are reported
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Of a network: time a training step instead of inference
    #[arg(long)]
    train: bool,
    /// Of a network: images of a step
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Of a network: rows and columns of an image
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Of U-Net and ResUNet: channels at full size
    #[arg(long, default_value_t = 64)]
    base: usize,
}

/// One result; the keys of `bench --json`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Line {
    /// The op.
    pub op: &'static str,
    /// The entry point.
    pub entry: &'static str,
    /// `v1`, `v2`, ... or `plain` on the CPU device.
    pub version: &'static str,
    /// Shapes.
    pub case: String,
    /// Median of the runs.
    pub median_ms: f64,
    /// Fastest run.
    pub min_ms: f64,
    /// Operations per nanosecond, at the median.
    pub gflops: f64,
    /// The least bytes that must move, per nanosecond, at the median.
    pub gbps: f64,
    /// `gbps` as a share of [`copy_peak`], filled in by [`Line::against`].
    pub percent_of_peak: Option<f64>,
    /// `timestamps`, `submission` or `wall`.
    pub timer: &'static str,
    /// The device.
    pub device: String,
    /// Its driver; empty on the CPU.
    pub driver: String,
    #[serde(skip)]
    intensity: f64,
}

impl Line {
    /// Compares with the memory's speed measured on this device. Honest only for kernels that memory limits: with ten
    /// operations per byte or more there is no answer (`null`), since the peak of the arithmetic is not measured.
    /// Tensors that fit a cache can be above 100.
    #[must_use]
    pub fn against(mut self, copy_peak: f64) -> Self {
        self.percent_of_peak = (self.intensity < MEMORY_BOUND).then(|| 100.0 * self.gbps / copy_peak);
        self
    }
}

/// Ops that have cases, in their order, and the networks.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = cases().iter().map(|case| case.op).collect();
    names.dedup();
    names.extend(Model::ALL.map(Model::name));
    names
}

/// Times a case.
///
/// # Errors
/// What the op or the device reports.
pub fn time(case: &BenchCase, device: &Device, runs: usize) -> Result<Line> {
    let mut work = (case.prepare)(device)?;
    let (mut seconds, timer) = seconds_of(&mut work, device, runs)?;
    seconds.sort_by(f64::total_cmp);
    let median = median(&seconds);
    Ok(Line {
        op: case.op,
        entry: case.entry,
        version: if matches!(device, Device::Cpu(_)) { "plain" } else { case.version },
        case: case.case.clone(),
        median_ms: median * 1e3,
        min_ms: seconds[0] * 1e3,
        gflops: case.flops / median * 1e-9,
        gbps: case.bytes / median * 1e-9,
        percent_of_peak: None,
        timer,
        device: device.to_string(),
        driver: device.driver(),
        intensity: case.flops / case.bytes,
    })
}

/// GB/s of this device's memory: the sum of two tensors of 64 MiB, which no cache holds, read and written.
///
/// # Errors
/// What the device reports.
pub fn copy_peak(device: &Device, runs: usize) -> Result<f64> {
    let shape = [16, 1024, 1024, 1];
    let (a, b) = (device.zeros("bench", shape)?, device.zeros("bench", shape)?);
    let mut work: Work = Box::new(move || add::forward(&a, &b, Version::V2).map(drop));
    let (seconds, _) = seconds_of(&mut work, device, runs)?;
    let fastest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(3.0 * 4.0 * (16 * 1024 * 1024) as f64 / fastest * 1e-9)
}

/// Sorted, not empty.
fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

/// Seconds of each run, none of them 0, and the clock that was used.
fn seconds_of(work: &mut Work, device: &Device, runs: usize) -> Result<(Vec<f64>, &'static str)> {
    let runs = runs.max(1);
    // Warm-up: compiles the pipelines and fills the buffer pool.
    for _ in 0..2 {
        work()?;
        device.wait()?;
    }
    match device {
        Device::Cpu(_) => {
            let mut seconds = Vec::with_capacity(runs);
            for _ in 0..runs {
                let start = Instant::now();
                work()?;
                seconds.push(start.elapsed().as_secs_f64().max(1e-9));
            }
            Ok((seconds, "wall"))
        }
        Device::Gpu(context) => {
            if let Some(seconds) = timestamps(work, context, runs)? {
                return Ok((seconds, "timestamps"));
            }
            Ok((submissions(work, device, runs)?, "submission"))
        }
    }
}

/// `None`: the device has no timestamps, or its clock is too coarse for this work.
fn timestamps(work: &mut Work, context: &Context, runs: usize) -> Result<Option<Vec<f64>>> {
    let mut seconds = Vec::with_capacity(runs);
    for _ in 0..runs {
        if !context.start_profile() {
            return Ok(None);
        }
        let done = work();
        // Profiling is switched off even when the work failed.
        let timings = context.stop_profile()?;
        done?;
        let sum: f64 = timings.iter().map(|timing| timing.seconds).sum();
        if sum <= 0.0 {
            return Ok(None);
        }
        seconds.push(sum);
    }
    Ok(Some(seconds))
}

fn submissions(work: &mut Work, device: &Device, runs: usize) -> Result<Vec<f64>> {
    let mut batch = |count: usize| -> Result<f64> {
        device.wait()?;
        let start = Instant::now();
        for _ in 0..count {
            work()?;
        }
        device.wait()?;
        Ok(start.elapsed().as_secs_f64().max(1e-9))
    };
    let once = batch(1)?;
    let count = ((LONG / once).ceil() as usize).clamp(1, MOST);
    (0..runs).map(|_| Ok(batch(count)? / count as f64)).collect()
}

/// Times what the options name and prints a line for each case.
///
/// # Errors
/// What the ops or the device report.
pub fn run(options: &Options) -> Result<()> {
    let device = Device::open(&options.device)?;
    let runs = options.runs as usize;
    let networks: Vec<Model> = options.ops.iter().filter_map(|name| name.parse().ok()).collect();
    for model in &networks {
        let config = ModelConfig { base: options.base, ..ModelConfig::new(*model) };
        let line = models::time(&device, &config, options.train, options.batch, options.size, runs)?;
        let text = if options.json { serde_json::to_string(&line) } else { serde_json::to_string_pretty(&line) };
        println!("{}", text.map_err(|error| Error::Config(format!("JSON: {error}")))?);
    }
    if !networks.is_empty() && networks.len() == options.ops.len() {
        return Ok(());
    }
    let peak = copy_peak(&device, runs)?;
    if !options.json {
        println!("{device} {}", device.driver());
        println!("memory: {peak:.1} GB/s measured (the sum of two tensors of 64 MiB); % is the share of it");
        println!(
            "{:<18} {:<18} {:<7} {:<34} {:>10} {:>10} {:>9} {:>8} {:>6}  timer",
            "op", "entry", "version", "case", "median ms", "min ms", "GFLOP/s", "GB/s", "%"
        );
    }
    let mut plain = HashSet::new();
    for case in cases() {
        if !options.ops.is_empty() && !options.ops.iter().any(|op| op == case.op) {
            continue;
        }
        // The CPU device has one implementation: every version of a kernel would time it again.
        if matches!(device, Device::Cpu(_)) && !plain.insert((case.op, case.entry, case.case.clone())) {
            continue;
        }
        let line = time(&case, &device, runs)?.against(peak);
        if options.json {
            let text = serde_json::to_string(&line).map_err(|error| Error::Config(format!("JSON: {error}")))?;
            println!("{text}");
        } else {
            let percent = line.percent_of_peak.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.0}"));
            println!(
                "{:<18} {:<18} {:<7} {:<34} {:>10.4} {:>10.4} {:>9.2} {:>8.2} {:>6}  {}",
                line.op,
                line.entry,
                line.version,
                line.case,
                line.median_ms,
                line.min_ms,
                line.gflops,
                line.gbps,
                percent,
                line.timer
            );
        }
    }
    Ok(())
}
