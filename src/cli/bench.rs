//! `shadegrad bench`: time, GFLOP/s and GB/s of every kernel on this device. The work is done by `bench/harness.rs`.

use serde_json::json;
use shadegrad::gpu::plan::PlanEvent;
use shadegrad::{Device, Error, Result};

pub(super) use harness::time;

use super::own_shader::{OwnShader, gpu_of};
use super::{bar, check};

#[allow(unreachable_pub, reason = "shared with `cargo bench`")]
#[path = "../../bench/harness.rs"]
mod harness;
#[allow(unreachable_pub, reason = "shared with `cargo bench`")]
#[path = "../../bench/models.rs"]
mod models;
#[allow(missing_docs, unreachable_pub, reason = "shared with `cargo bench`")]
#[path = "../../bench/ops/mod.rs"]
mod ops;

/// Time the kernels on the shapes that the networks use.
///
/// Examples:
///   shadegrad bench
///   shadegrad bench unext --train --batch 8 --size 256
///   shadegrad bench add relu --device lavapipe --json
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
    harness::run(&args.options).map(|()| true)
}

/// Checks a user's kernel over all cases of its op and, if it is right, times it beside ours.
fn beside_ours(args: &BenchArgs) -> Result<bool> {
    let BenchArgs { options, own } = args;
    let (ours, theirs) = (Device::open(&options.device)?, Device::open(&options.device)?);
    let said = |line: String| {
        if !options.json {
            println!("{line}");
        }
    };
    said(format!("{ours} {}", ours.driver()));
    let Some(of) = own.stand_in(&theirs, &options.ops, said)? else { return Ok(true) };
    let verdict = check::judge(&theirs, &options.ops, &of, &bar("checking", options.json), |_| ())?;
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
    said(format!(
        "{:<18} {:<7} {:<34} {:>10} {:>10} {:>8}  timer",
        "entry", "version", "case", "ours ms", "yours ms", "change"
    ));
    let replaced = gpu_of(&theirs, "--shader")?.replacement(&options.ops[0]);
    let entries: Vec<&str> = replaced.iter().flat_map(|own| own.entries()).map(String::as_str).collect();
    for case in cases_launching(&options.ops[0], &entries)? {
        let runs = options.runs as usize;
        let (ours, theirs) = (time(&case, &ours, runs)?, time(&case, &theirs, runs)?);
        if options.json {
            for (line, whose) in [(&ours, "ours"), (&theirs, of.trim_start_matches(" of "))] {
                let mut object = serde_json::to_value(line).map_err(|error| Error::Config(format!("JSON: {error}")))?;
                object["shader"] = json!(whose);
                println!("{object}");
            }
        } else {
            let change = 100.0 * (theirs.median_ms / ours.median_ms - 1.0);
            println!(
                "{:<18} {:<7} {:<34} {:>10.4} {:>10.4} {change:>+7.1}%  {}",
                ours.entry, ours.version, ours.case, ours.median_ms, theirs.median_ms, ours.timer
            );
        }
    }
    Ok(true)
}

/// The timed cases of an op that launch one of these entry points of its shader. Asked of a device that only plans.
///
/// # Errors
/// What the ops report.
pub(super) fn cases_launching(op: &str, entries: &[&str]) -> Result<Vec<ops::BenchCase>> {
    let device = Device::plan(None)?;
    let context = gpu_of(&device, "a plan")?;
    let mut launching = Vec::new();
    for case in ops::cases().into_iter().filter(|case| case.op == op) {
        (case.prepare)(&device)?()?;
        let launched = |event: PlanEvent| match event {
            PlanEvent::Launched(launch) => launch.shader == op && entries.contains(&launch.entry),
            _ => false,
        };
        if context.take_plan().into_iter().any(launched) {
            launching.push(case);
        }
    }
    Ok(launching)
}
