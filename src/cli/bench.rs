//! `shadegrad bench`: time, GFLOP/s and GB/s of every kernel on this device. The work is done by `bench/harness.rs`.

use serde_json::json;
use shadegrad::gpu::plan::PlanEvent;
use shadegrad::{Device, Error, Result};

use harness::line::{Line, Machine};
use harness::ops::BenchCase;
use harness::statistics::Summary;
use harness::{cases_of, side_by_side};

use super::own_shader::{OwnShader, gpu_of};
use super::{bar, check};

#[allow(unreachable_pub, reason = "shared with `cargo bench`")]
#[path = "../../bench/harness.rs"]
pub(super) mod harness;

/// Time the kernels on the shapes that a network uses, beside what this device can do at most.
///
/// Examples:
///   shadegrad bench
///   shadegrad bench conv2d linear --shapes unet --base 16 --batch 2
///   shadegrad bench conv2d --shape "2x128x128x64 3x3 64" --cold
///   shadegrad bench unext --train --batch 8 --size 256
///   shadegrad bench add relu --device lavapipe --json
///   shadegrad bench --compare before.jsonl --fail-on-regression
///   shadegrad bench --plot pictures
///   shadegrad bench max_pool2d --shader my_pool.wgsl    checked first; timed beside ours if it is right
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    options: harness::Options,
    #[command(flatten)]
    own: OwnShader,
}

/// Runs `shadegrad bench`; false if a kernel given with `--shader` is wrong.
///
/// # Errors
/// What the ops or the device report; a shader file that does not fit.
pub(crate) fn run(args: BenchArgs) -> Result<bool> {
    if args.own.given() {
        return beside_ours(&args);
    }
    harness::run(&args.options, &["bench"]).map(|()| true)
}

/// Checks a user's kernel over all cases of its op and, if it is right, times it beside ours.
fn beside_ours(args: &BenchArgs) -> Result<bool> {
    let BenchArgs { options, own } = args;
    options.check()?;
    let (ours, theirs) = (Device::open(&options.device)?, Device::open(&options.device)?);
    let said = |line: String| {
        if !options.json {
            println!("{line}");
        }
    };
    said(format!("{ours} {}", ours.driver()));
    let Some(of) = own.stand_in(&theirs, &options.ops, said)? else { return Ok(true) };
    let verdict = check::judge(&theirs, &options.ops, &of, false, &bar("checking", options.json), |_| ())?;
    for line in &verdict.wrong {
        if options.json {
            println!("{}", json!({ "op": options.ops[0], "ok": false, "error": line }));
        } else {
            println!("WRONG {line}");
        }
    }
    if !verdict.ok() {
        return Ok(false);
    }
    said(format!("right: {} comparisons with the f64 reference", verdict.passed));
    let machine = Machine::of(&ours)?;
    said(format!(
        "{:<15} {:<8} {:<40} {:>10} {:>10} {:>8}  timer",
        "entry", "version", "case", "ours ms", "yours ms", "change"
    ));
    let op = options.ops[0].as_str();
    let replaced = gpu_of(&theirs, "--shader")?.replacement(op);
    let entries: Vec<&str> = replaced.iter().flat_map(|own| own.entries()).map(String::as_str).collect();
    let layers = options.layers(&options.chosen())?;
    for case in cases_launching(cases_of(op, &layers)?, &entries)? {
        let devices = [&ours, &theirs];
        let samples = side_by_side(&case, devices, options.effort())?;
        if options.json {
            for ((samples, device), whose) in samples.iter().zip(devices).zip(["ours", of.trim_start_matches(" of ")]) {
                let line = Line::new(&case, samples, options.cold, device, &machine)?;
                let mut object = serde_json::to_value(line).map_err(|error| Error::Config(format!("JSON: {error}")))?;
                object["shader"] = json!(whose);
                println!("{object}");
            }
        } else {
            let [ours, theirs] = [&samples[0], &samples[1]].map(|samples| 1e3 * Summary::of(&samples.seconds).median);
            let change = 100.0 * (theirs / ours - 1.0);
            println!(
                "{:<15} {:<8} {:<40} {ours:>10.4} {theirs:>10.4} {change:>+7.1}%  {}",
                case.entry, case.version, case.case, samples[0].timer
            );
        }
    }
    Ok(true)
}

/// Those of the cases that launch one of these entry points of their op's shader while they are timed. Asked of a
/// device that only plans.
///
/// # Errors
/// What the ops report.
pub(super) fn cases_launching(cases: Vec<BenchCase>, entries: &[&str]) -> Result<Vec<BenchCase>> {
    let device = Device::plan(None)?;
    let context = gpu_of(&device, "a plan")?;
    let mut launching = Vec::new();
    for case in cases {
        let work = (case.prepare)(&device)?;
        let timed = work.ready()?;
        context.take_plan();
        timed()?;
        let launched = |event: PlanEvent| match event {
            PlanEvent::Launched(launch) => launch.shader == case.op && entries.contains(&launch.entry),
            _ => false,
        };
        if context.take_plan().into_iter().any(launched) {
            launching.push(case);
        }
    }
    Ok(launching)
}
