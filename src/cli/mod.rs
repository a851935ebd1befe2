//! Commands, and what they share: choosing a device, progress bars, exit codes.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what the command line is for")]

mod bench;
mod check;
mod completions;
mod data;
mod demo;
mod devices;
mod eval;
mod export;
mod import;
mod network;
mod own_shader;
mod predict;
mod report;
mod show;
mod train;
mod tune;
mod watch;
mod weights;

use std::error::Error as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use shadegrad::{Device, Error, Result, ops};

/// Trains and runs segmentation networks on any vendor's GPU, through hand-written WGSL kernels.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = AFTER)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "Examples:
  shadegrad demo                                        a trained network on phantom data in a few minutes
  shadegrad train --data lgg/kaggle_3m --out runs/lgg   train on the LGG set
  shadegrad eval --run runs/lgg --data lgg/kaggle_3m    honest metrics
  shadegrad predict --weights runs/lgg/best.safetensors --input patient/ --out masks/

Environment:
  SHADEGRAD_DEVICE=NAME   as --device; every other flag has its own too, see its help
  SHADEGRAD_DEBUG=1..5    1 adapter and limits, 2 each dispatch with time and rate, 3 kernel version and why,
                          4 final WGSL, 5 the tape; each with those before it, on stderr
  SHADEGRAD_CHECK=1       every op of the run also on the CPU reference, forward and backward; stops at the first
                          difference with op, shape, index and both values
  SHADEGRAD_NAN=1         stops at the first result that is not finite
  SHADEGRAD_TRACE=FILE    Chrome trace of host and device; open it in ui.perfetto.dev or chrome://tracing
  SHADEGRAD_TUNE=0        the usual kernels instead of those that tune found
  SHADEGRAD_CACHE=DIR     where tune keeps what it found
  SHADEGRAD_SHADERS=DIR   read shaders there instead of the built-in ones
  SHADEGRAD_LIMITS=webgpu ask the adapter for no more than WebGPU promises everywhere";

#[derive(Debug, Subcommand)]
enum Command {
    // No doc comments here: they would hide those of the arguments, with their examples.
    Demo(demo::DemoArgs),
    Devices(devices::DevicesArgs),
    Train(train::TrainArgs),
    Eval(eval::EvalArgs),
    Predict(predict::PredictArgs),
    Report(report::ReportArgs),
    Check(check::CheckArgs),
    Bench(bench::BenchArgs),
    Watch(watch::WatchArgs),
    Tune(tune::TuneArgs),
    Data(data::DataArgs),
    Show(show::ShowArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    Completions(completions::CompletionsArgs),
}

/// Parses the arguments, runs the command and turns its result into an exit code:
/// 0 done, 1 failed, 2 wrong usage, 130 interrupted after saving.
pub(crate) fn run() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo(args) => demo::run(&args).map(right),
        Command::Devices(args) => devices::run(args).map(right),
        Command::Train(args) => train::run(&args).map(right),
        Command::Eval(args) => eval::run(&args).map(right),
        Command::Predict(args) => predict::run(&args).map(right),
        Command::Report(args) => report::run(&args).map(right),
        Command::Check(args) => check::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Watch(args) => watch::run(&args).map(right),
        Command::Tune(args) => tune::run(&args).map(right),
        Command::Data(args) => data::run(args).map(right),
        Command::Show(args) => show::run(&args).map(right),
        Command::Import(args) => import::run(&args).map(right),
        Command::Export(args) => export::run(&args).map(right),
        Command::Completions(args) => completions::run(&args).map(right),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE, // the command has said what is wrong
        Err(Error::Interrupted) => {
            eprintln!("interrupted; go on with --resume");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(deeper) = cause {
                eprintln!("  because: {deeper}");
                cause = deeper.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// Of a command that judges nothing.
fn right((): ()) -> bool {
    true
}

/// Opens a device with the kernels that `tune` has found for it. A cache that cannot be used is said, in one line.
///
/// # Errors
/// As [`Device::open`].
pub(crate) fn open(name: &str) -> Result<Device> {
    let device = Device::open(name)?;
    if let Err(error) = ops::use_tuned(&device) {
        eprintln!("warning: {error}");
    }
    Ok(device)
}

/// A bar on stderr; hidden where the output is for machines.
pub(crate) fn bar(what: &'static str, hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0).with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{msg:28} {wide_bar} {pos}/{len} [{elapsed_precise} left {eta}]") {
        bar.set_style(style);
    }
    bar
}

/// Creates a folder for results.
///
/// # Errors
/// [`Error::Io`] naming it.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// Writes a small text file.
///
/// # Errors
/// [`Error::Io`] naming it.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::io("write", path))
}

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C asks the training to stop after its step.
pub(crate) fn catch_interrupt() {
    // A second handler (in tests) is refused; the first goes on working.
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
}

/// Whether Ctrl-C was pressed.
pub(crate) fn interrupted() -> bool {
    STOP.load(Ordering::Relaxed)
}
