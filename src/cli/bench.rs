//! `shadegrad bench`: time, GFLOP/s and GB/s of every kernel on this device. The work is done by `bench/harness.rs`.

use serde_json::json;
use shadegrad::gpu::plan::PlanEvent;
use shadegrad::{Device, Error, Result};

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
    for case in ops::cases().iter().filter(|case| case.op == options.ops[0]) {
        if !launches_replaced(case, &theirs)? {
            continue;
        }
        let runs = options.runs as usize;
        let (ours, theirs) = (harness::time(case, &ours, runs)?, harness::time(case, &theirs, runs)?);
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

/// Whether a case launches an entry point that is replaced on a device. Asked of a device that only plans.
fn launches_replaced(case: &ops::BenchCase, on: &Device) -> Result<bool> {
    let replaced = gpu_of(on, "--shader")?.replacement(case.op);
    let planned = Device::plan(None)?;
    let mut work = (case.prepare)(&planned)?;
    work()?;
    let launched = gpu_of(&planned, "--shader")?.take_plan();
    Ok(replaced.is_some_and(|replaced| {
        launched.iter().any(|event| match event {
            PlanEvent::Launched(launch) => {
                launch.shader == case.op && replaced.entries().iter().any(|e| e == launch.entry)
            }
            _ => false,
        })
    }))
}
