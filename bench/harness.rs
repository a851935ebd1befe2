//! Times the kernels, for `cargo bench` and for `shadegrad bench`.
//!
//! | part | does |
//! | --- | --- |
//! | `shapes` | the layers of a network, or one given in text |
//! | `ops` | what is timed of each op on a layer |
//! | `timing` | seconds of each run, and by which clock |
//! | `peaks` | what the device can do at most |
//! | `line` | the result as JSON and as a row |
//! | `statistics` | medians and spreads; whether two sets of times differ |
//! | `compare` | two results, case by case |
//! | `plot` | a roofline and bars as pictures |
//! | `models` | whole networks |

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its results")]

pub mod compare;
pub mod line;
pub mod models;
pub mod ops;
pub mod peaks;
pub mod plot;
pub mod shapes;
pub mod statistics;
pub mod timing;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use shadegrad::models::{Model, ModelConfig};
use shadegrad::ops::use_tuned;
use shadegrad::tensor::CpuContext;
use shadegrad::train::Precision;
use shadegrad::{Device, Error, Result};

use compare::{Comparison, Results};
use line::{Line, Machine};
use ops::{BenchCase, OPS};
use peaks::{Copy, Peaks};
use shapes::Layer;
use timing::{Effort, Samples, time};

/// The name of the device that does nothing.
const NOOP: &str = "noop";

/// Rounds after which the peaks are measured again.
const PEAKS_EVERY: usize = 5;

/// What is timed, and how it is printed.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// Ops to time, or a network: unext, unet, resunet [default: all ops]
    #[arg(value_name = "OP", value_parser = PossibleValuesParser::new(names()), hide_possible_values = true)]
    pub ops: Vec<String>,
    /// auto, cpu, or part of an adapter's name; for a network also noop, which does nothing: what is timed is the host
    #[arg(long, default_value = "auto", env = "SHADEGRAD_DEVICE")]
    pub device: String,
    /// The network whose layers are timed
    #[arg(long, value_name = "NETWORK", default_value = "unext", value_parser = PossibleValuesParser::new(Model::ALL.map(Model::name)))]
    shapes: String,
    /// Another shape instead, such as "2x128x128x64 3x3 64" for conv2d; a wrong one is answered with the op's form
    #[arg(long, value_name = "SIZES", requires = "ops")]
    shape: Vec<String>,
    /// Images of a step
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Rows and columns of an image
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Of U-Net and ResUNet: channels at full size
    #[arg(long, default_value_t = 64)]
    base: usize,
    /// Runs of each case at most
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Seconds for each case at most, inputs and warm-up included; one run is always made in each start
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Times that the program is started to make its part of the runs: where code and data lie differs from start to
    /// start, and with it the times of small cases
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    starts: u32,
    /// Empty the caches before every run
    #[arg(long)]
    pub cold: bool,
    /// Of a network: time a training step instead of inference
    #[arg(long)]
    train: bool,
    /// Of a network: f32, or f16 for mixed precision
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Compare with this file of an earlier `bench --json`
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Exit with 1 if a case became slower than in the file
    #[arg(long, requires = "compare")]
    fail_on_regression: bool,
    /// Write a roofline and a bar chart there, as SVG and PNG
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    // No doc comments here: they would hide those of the arguments, with their examples.
    Compare(compare::CompareArgs),
    Plot(plot::PlotArgs),
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && f64::is_finite(seconds) => Ok(seconds),
        _ => Err("must be a number above 0".to_owned()),
    }
}

/// Ops that have cases, in their order, and the networks.
pub fn names() -> Vec<&'static str> {
    OPS.iter().map(|op| op.name).chain(Model::ALL.map(Model::name)).collect()
}

/// The cases of an op on those of the layers that are its own.
///
/// # Errors
/// [`Error::Config`] for an op that does not exist; [`Error::Shape`] for a layer that the op does not take.
pub fn cases_of(op: &str, layers: &[Layer]) -> Result<Vec<BenchCase>> {
    let Some(bench) = OPS.iter().find(|known| known.name == op) else {
        return Err(Error::Config(format!("there is no op {op}; there are: {}", names().join(", "))));
    };
    let mut cases = Vec::new();
    for layer in layers.iter().filter(|layer| layer.op == op) {
        cases.extend((bench.cases)(layer)?);
    }
    Ok(cases)
}

impl Options {
    /// The ops that are named; all if none is, and none if only networks are.
    pub fn chosen(&self) -> Vec<&'static str> {
        let all = OPS.iter().map(|op| op.name);
        if self.ops.is_empty() { all.collect() } else { all.filter(|op| self.ops.iter().any(|o| o == op)).collect() }
    }

    /// Refuses what would be left undone.
    ///
    /// # Errors
    /// [`Error::Config`] for mixed precision of single kernels, or kernels on a device that does nothing.
    pub fn check(&self) -> Result<()> {
        if self.device == NOOP && !self.chosen().is_empty() {
            let text = "--device noop computes nothing: it times what the host does for a network, e.g. `bench unext --train --device noop`";
            return Err(Error::Config(text.to_owned()));
        }
        if self.precision == Precision::F16 && !self.chosen().is_empty() {
            let text =
                "--precision f16 is for networks, e.g. `bench unext --train --precision f16`; kernels are timed in f32";
            return Err(Error::Config(text.to_owned()));
        }
        Ok(())
    }

    /// The layers to time: those of `--shape`, or the network's.
    ///
    /// # Errors
    /// [`Error::Config`] for a shape or a size that cannot be.
    pub fn layers(&self, ops: &[&'static str]) -> Result<Vec<Layer>> {
        if self.shape.is_empty() {
            let model: Model = self.shapes.parse()?;
            let config = ModelConfig { base: self.base, ..ModelConfig::new(model) };
            return shapes::of_network(&config, self.batch, self.size, ops);
        }
        let mut layers = Vec::new();
        for op in OPS.iter().filter(|op| ops.contains(&op.name)) {
            for text in &self.shape {
                layers.push(Layer::parse(op.name, op.form, text)?);
            }
        }
        Ok(layers)
    }

    /// The options of another process that times a part of the runs.
    fn of_a_start(&self, runs: usize, seconds: f64) -> Vec<String> {
        let ops = self.chosen().into_iter().map(str::to_owned);
        let mut all: Vec<String> = ops.chain(self.shape.iter().map(|shape| format!("--shape={shape}"))).collect();
        all.extend([format!("--device={}", self.device), format!("--shapes={}", self.shapes)]);
        all.extend(
            [("batch", self.batch), ("size", self.size), ("base", self.base), ("runs", runs)]
                .map(|(name, number)| format!("--{name}={number}")),
        );
        all.extend([format!("--seconds={seconds}"), "--starts=1".to_owned(), "--json".to_owned()]);
        if self.cold {
            all.push("--cold".to_owned());
        }
        all
    }

    /// How much of each case is timed.
    pub fn effort(&self) -> Effort {
        Effort { runs: self.runs as usize, seconds: self.seconds, cold: self.cold }
    }
}

/// Times what the options name and prints a line for each case. `words` are what the program is called with before the
/// options: it starts itself again with them.
///
/// # Errors
/// What the ops or the device report.
pub fn run(options: &Options, words: &[&str]) -> Result<()> {
    match &options.command {
        Some(Command::Compare(args)) => return compare::run(args),
        Some(Command::Plot(args)) => return plot::run(args),
        None => {}
    }
    options.check()?;
    // A file that cannot be compared with is found before the time is spent.
    let before = options.compare.as_deref().map(Results::read).transpose()?;
    let device = if options.device == NOOP { Device::idle()? } else { Device::open(&options.device)? };
    if let Err(error) = use_tuned(&device) {
        eprintln!("warning: {error}");
    }
    let mut results = networks(options, &device)?;
    let ops = options.chosen();
    if !ops.is_empty() {
        results.extend(kernels(options, words, &device, &ops)?);
    }
    if let Some(folder) = &options.plot {
        plot::write(folder, &results)?;
    }
    let Some(before) = before else { return Ok(()) };
    let comparison = Comparison::of(&before, &Results::new("now", results)?)?;
    compare::print(&comparison, options.json);
    if options.fail_on_regression { comparison.fail_on_regression() } else { Ok(()) }
}

/// Times and prints the networks among what is named.
fn networks(options: &Options, device: &Device) -> Result<Vec<Value>> {
    let mut results = Vec::new();
    for model in options.ops.iter().filter_map(|name| name.parse::<Model>().ok()) {
        let config = ModelConfig { base: options.base, ..ModelConfig::new(model) };
        let runs = options.runs as usize;
        let line = models::time(device, &config, options.train, options.batch, options.size, options.precision, runs)?;
        if options.json {
            println!("{}", serde_json::to_string(&line).map_err(json_error)?);
        } else {
            println!("{}", line.text());
        }
        results.push(serde_json::to_value(&line).map_err(json_error)?);
    }
    Ok(results)
}

/// Times and prints these ops.
fn kernels(options: &Options, words: &[&str], device: &Device, ops: &[&'static str]) -> Result<Vec<Value>> {
    let layers = options.layers(ops)?;
    let mut cases = Vec::new();
    for op in ops {
        cases.extend(cases_of(op, &layers)?);
    }
    cases.retain(|case| case.runs_on(device));
    if matches!(device, Device::Cpu(_)) {
        // The CPU device has one implementation: every version of a kernel would time it again.
        let mut seen = HashSet::new();
        cases.retain(|case| seen.insert((case.op, case.entry, case.case.clone())));
    }
    let mut machine = Machine::of(device)?;
    let starts = options.starts.min(options.runs) as usize;
    let samples = match starts {
        1 => time_all(&cases, device, options.effort(), &mut machine)?,
        _ => time_in_starts(&cases, options, words, starts, &mut machine)?,
    };
    if !options.json {
        println!("{}\n{}", machine.header(), Line::heads());
    }
    let mut results = Vec::with_capacity(cases.len());
    for (case, samples) in cases.iter().zip(&samples) {
        let line = Line::new(case, samples, options.cold, device, &machine)?;
        if options.json {
            println!("{}", serde_json::to_string(&line).map_err(json_error)?);
        } else {
            println!("{}", line.row());
        }
        results.push(serde_json::to_value(&line).map_err(json_error)?);
    }
    Ok(results)
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn json_error(error: serde_json::Error) -> Error {
    Error::Config(format!("JSON: {error}"))
}

/// Times a case once: inputs, warm-up, samples. Nothing is kept for the next case, which has other sizes.
///
/// # Errors
/// What the op or the device reports.
pub fn time_case(case: &BenchCase, device: &Device, effort: Effort, flusher: Option<&Copy>) -> Result<Samples> {
    match device {
        Device::Cpu(_) => {
            let fresh = Device::Cpu(Arc::new(CpuContext::with(device.switches().clone())));
            time(&(case.prepare)(&fresh)?, &fresh, effort, flusher)
        }
        Device::Gpu(context) => {
            let samples = time(&(case.prepare)(device)?, device, effort, flusher)?;
            context.trim();
            Ok(samples)
        }
    }
}

/// Times a case on two devices in turns, so that what slows the machine down meets both.
///
/// # Errors
/// As [`time_case`].
pub fn side_by_side(case: &BenchCase, devices: [&Device; 2], effort: Effort) -> Result<[Samples; 2]> {
    let mut samples = [Samples::default(), Samples::default()];
    let start = Instant::now();
    for round in 0..effort.runs {
        if round > 0 && start.elapsed().as_secs_f64() >= 2.0 * effort.seconds {
            break;
        }
        for (samples, device) in samples.iter_mut().zip(devices) {
            samples.extend(time_case(case, device, effort.once(), None)?);
        }
    }
    Ok(samples)
}

/// Times all cases here: a run of each, then again a run of each, and so on. What slows the machine down for a while
/// shows as spread instead of as one slow case, and no two samples of a case are of the same moment, which is what the
/// comparison of two results counts on. The peaks are measured again from time to time.
fn time_all(cases: &[BenchCase], device: &Device, effort: Effort, machine: &mut Machine) -> Result<Vec<Samples>> {
    let flusher = if effort.cold { Some(Copy::flusher(device)?) } else { None };
    let progress = ProgressBar::new((effort.runs * cases.len()) as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}") {
        progress.set_style(style);
    }
    let mut samples = vec![Samples::default(); cases.len()];
    let mut spent = vec![0.0; cases.len()];
    for round in 0..effort.runs {
        for ((case, samples), spent) in cases.iter().zip(&mut samples).zip(&mut spent) {
            progress.inc(1);
            if round == 0 || *spent < effort.seconds {
                progress.set_message(format!("{} {}", case.op, case.entry));
                let start = Instant::now();
                samples.extend(time_case(case, device, effort.once(), flusher.as_ref())?);
                *spent += start.elapsed().as_secs_f64();
            }
        }
        if round % PEAKS_EVERY == 0 {
            machine.measure_again()?;
        }
    }
    progress.finish_and_clear();
    Ok(samples)
}

/// Times all cases in other processes of this program, one after the other, each with its part of the runs. `words` are
/// what the program is called with before the options. The peaks are the best that any of them measured.
fn time_in_starts(
    cases: &[BenchCase],
    options: &Options,
    words: &[&str],
    starts: usize,
    machine: &mut Machine,
) -> Result<Vec<Samples>> {
    let program = std::env::current_exe().map_err(Error::io("find", "this program"))?;
    let mut samples = vec![Samples::default(); cases.len()];
    for start in 0..starts {
        // The first ones make a run more where they do not divide.
        let runs = (options.runs as usize + starts - 1 - start) / starts;
        let output = std::process::Command::new(&program)
            .args(words)
            .args(options.of_a_start(runs, options.seconds / starts as f64))
            .stderr(std::process::Stdio::inherit())
            .output()
            .map_err(Error::io("start", &program))?;
        if !output.status.success() {
            return Err(Error::Config(format!("start {} of {starts} failed, {}", start + 1, output.status)));
        }
        let lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str(line).map_err(json_error))
            .collect::<Result<_>>()?;
        if lines.len() != cases.len() {
            let message = format!("start {} of {starts} timed {} of {} cases", start + 1, lines.len(), cases.len());
            return Err(Error::Config(message));
        }
        for (line, samples) in lines.iter().zip(&mut samples) {
            samples.extend(Samples::from_json(line)?);
        }
        machine.raise(lines.first().and_then(Peaks::from_json));
    }
    Ok(samples)
}
