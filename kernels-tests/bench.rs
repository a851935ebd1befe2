//! `bench` times everything that `check` checks, and what it times can be run.

use std::collections::BTreeSet;

use shadegrad::models::{Model, ModelConfig};
use shadegrad::ops::SHADERS;
use shadegrad::{Device, Result};

use crate::kernels::{Compared, compared_on_cpu, compared_on_gpu};
use crate::{devices, ops};

#[allow(dead_code, missing_docs, unreachable_pub, reason = "shared with the binary's `bench`")]
#[path = "../bench/harness.rs"]
pub(crate) mod harness;

use harness::ops::{BenchCase, OPS};
use harness::shapes::Layer;

/// The cases of all ops on the layers of a small UNeXt.
fn small_cases() -> Vec<BenchCase> {
    let names: Vec<_> = OPS.iter().map(|op| op.name).collect();
    let mut layers = harness::shapes::of_network(&ModelConfig::new(Model::Unext), 2, 32, &names).unwrap();
    // UNeXt has no 3x3 convolution to few channels, whose input gradient has a kernel of its own.
    let conv2d = OPS.iter().find(|op| op.name == "conv2d").unwrap();
    layers.push(Layer::parse("conv2d", conv2d.form, "2x16x16x8 3x3 4").unwrap());
    names.iter().flat_map(|op| harness::cases_of(op, &layers).unwrap()).collect()
}

#[test]
fn every_op_is_timed() {
    let names = |of: &mut dyn Iterator<Item = &'static str>| of.collect::<BTreeSet<_>>();
    let timed = names(&mut OPS.iter().map(|op| op.name));
    assert_eq!(timed, names(&mut SHADERS.iter().map(|shader| shader.name)));
    assert_eq!(timed, names(&mut ops::cases().iter().map(|case| case.op)));
}

/// An entry point's first word is its name, the rest which of its results was compared.
fn missing(compared: &BTreeSet<Compared>, cases: &[BenchCase]) -> Vec<String> {
    let mut missing = BTreeSet::new();
    for (op, entry, version) in compared {
        let entry = entry.split(' ').next().unwrap_or_default();
        // The CPU twin against plain loops, and refused inputs: no kernel runs.
        // The kernels for matrix units take images of f16 only: they are timed in whole networks.
        let by_matrix = if entry == "backward_weight" { "v6" } else { "v5" };
        let on_units = ["conv2d", "conv_transpose2d"].contains(op) && version.split(' ').next() == Some(by_matrix);
        if matches!(entry, "twin" | "refusal") || on_units {
            continue;
        }
        // The CPU has one implementation, and what an op selects is one of its versions.
        // Other numbers of `// @tune` constants (`v2 TILE_M=4`) are timed by `tune`, and `v2 f16` in whole networks.
        let version = version.split(' ').next().unwrap_or_default();
        let any = matches!(version, "plain" | "selected");
        let timed = |case: &BenchCase| case.op == *op && case.entry == entry && (any || case.version == version);
        if !cases.iter().any(timed) {
            missing.insert(format!("{op} {entry} {version}"));
        }
    }
    missing.into_iter().collect()
}

#[test]
fn everything_checked_is_timed() {
    let mut cases = small_cases();
    let on = [Some(compared_on_cpu()), compared_on_gpu()];
    let absent: Vec<String> = on.into_iter().flatten().flat_map(|compared| missing(compared, &cases)).collect();
    assert!(absent.is_empty(), "checked but not timed: {absent:#?}");
    // The comparison above can fail.
    cases.retain(|case| case.op != "relu" || case.version != "v2");
    if let Some(compared) = compared_on_gpu() {
        assert_eq!(missing(compared, &cases), ["relu backward_input v2", "relu forward v2"]);
    }
}

#[test]
fn what_is_timed_runs() {
    let run = |case: &BenchCase, device: &Device| -> Result<()> {
        let work = (case.prepare)(device)?;
        work.ready()?()?;
        device.wait()
    };
    for device in devices::all() {
        let before = device.dispatches();
        for case in small_cases() {
            assert!(case.cost.bytes > 0.0 && case.cost.flops >= 0.0, "{} {}", case.op, case.entry);
            if let Err(error) = run(&case, &device) {
                panic!("{} {} {} {} on {device}: {error}", case.op, case.entry, case.version, case.case);
            }
        }
        assert!(matches!(device, Device::Cpu(_)) || device.dispatches() > before, "{device} launched nothing");
    }
}
