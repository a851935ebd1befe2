//! The debug ladder: `SHADEGRAD_CHECK` compares every op of a step and names a planted fault, `SHADEGRAD_NAN` names
//! where a bad number began, `SHADEGRAD_TRACE` writes what happened, and planned memory is the memory of a real step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use shadegrad::debug::{Checks, Switches};
use shadegrad::gpu::{Context, GpuOptions, Shader};
use shadegrad::models::{MemoryPlan, Model, ModelConfig, PlannedStep, build};
use shadegrad::ops::plan::Sizes;
use shadegrad::ops::{
    self, Adam, BceDice, Elastic, Mode, Sample, Sgd, Slices, Tone, adam, bce_dice, clip_norm, ema, metric_counts, sgd,
    unscale,
};
use shadegrad::tensor::CpuContext;
use shadegrad::{DType, Device, Error, Result, Tape, Tensor};

use crate::devices;

/// The GPU of the tests, opened again with these switches.
fn gpu_with(switches: Switches) -> Option<Device> {
    let name = devices::gpu()?.to_string();
    let options = GpuOptions { name: Some(name), ..Default::default() };
    Some(Device::Gpu(Context::open_with(&options, switches).unwrap()))
}

fn configs() -> [ModelConfig; 3] {
    [
        ModelConfig::unext_small(),
        ModelConfig { base: 8, ..ModelConfig::new(Model::Unet) },
        ModelConfig { base: 8, ..ModelConfig::new(Model::Resunet) },
    ]
}

/// A training step with every optimizer, from loaded slices, then a prediction with its counts.
fn step(device: &Device, config: &ModelConfig, images: DType) -> Result<()> {
    let net = build(device, config, 0)?;
    let (size, batch) = (64, 2);
    let bytes: Vec<u8> = (0..3 * size * size * 3).map(|at| (at * at / 11 % 253) as u8).collect();
    let masks: Vec<u8> = (0..3 * size * size).map(|at| u8::from(at % size < size / 3)).collect();
    let slices = Slices::upload(device, [size, size], &bytes, &masks, &[[3.0, 200.0, 0.02, -1.5]; 3], [2, 1, 0])?;
    let mut samples = [Sample { turn: 1, flips: 2, ..Sample::plain(2, 0) }, Sample::plain(0, 0)];
    samples[1].elastic = Some(Elastic { cells: 4, reach: 3.0 });
    samples[1].tones[0] = Tone { noise: 0.1, brightness: 1.1, contrast: 0.9, gamma: 1.3 };
    let x = device.empty_as("x", [batch, size, size, 3], images)?;
    let target = device.zeros("target", [batch, size, size, 1])?;
    ops::load_batch(&slices, &samples, &slices.table(batch)?, &x, &target)?;

    let tape = Tape::new();
    let logits = net.forward(&tape.watch(&x), Mode::Train)?;
    let loss = bce_dice(&logits, &target, &BceDice::batch())?;
    let scale = device.tensor("scale", [3], &[65536.0, 0.0, 0.0])?;
    let gradients = tape.backward_from(&loss, &scale.images(&(0..1)))?;
    // The updates below are too wild for 16-bit floats: then the prediction comes before them.
    let predict = || metric_counts(&net.forward(&x, Mode::Eval)?, &target).map(drop);
    if images == DType::F16 {
        predict()?;
    }
    let parameters = net.parameters();
    parameters.check(&gradients)?;
    let (values, gradients) = (&parameters.values, &parameters.gradients);
    let zeros = || device.zeros("moment", values.shape());
    let settings = Adam::default();
    let rates = device.tensor("step", [4], &settings.step_values(1e-3, 1))?;
    unscale(2000, gradients, &rates, &scale)?;
    clip_norm(0.1, gradients, &rates)?;
    adam(&settings, gradients, &rates, values, &zeros()?, &zeros()?)?;
    let sgd_settings = Sgd { momentum: 0.9, ..Sgd::default() };
    let rates = device.tensor("step", [4], &sgd_settings.step_values(1e-2))?;
    sgd(&sgd_settings, gradients, &rates, values, &zeros()?)?;
    ema(0.9, values, &zeros()?)?;

    if images == DType::F32 { predict() } else { Ok(()) }
}

/// The ops that have not been compared yet, each on its own, forward and backward.
fn others(device: &Device, checks: &Checks) -> Result<()> {
    let sizes = Sizes { out: 8, kernel: 3, padding: 1, ..Sizes::of([2, 5, 7, 12].into()) };
    let done = checks.compared();
    for plan in ops::PLANS.iter().filter(|plan| !done.iter().any(|(op, _)| *op == plan.op)) {
        ops::plan::run(plan.op, device, &sizes)?;
    }
    Ok(())
}

#[test]
fn every_op_of_a_step_is_compared() {
    let checks = Arc::new(Checks::default());
    let switches = Switches { checks: Some(Arc::clone(&checks)), ..Switches::default() };
    let Some(device) = gpu_with(switches) else { return };
    for config in configs() {
        step(&device, &config, DType::F32).unwrap();
        if device.has_f16() {
            step(&device, &config, DType::F16).unwrap();
        }
    }
    others(&device, &checks).unwrap();
    let compared: BTreeMap<_, _> = checks.compared().into_iter().collect();
    println!("{compared:?}");
    for shader in ops::SHADERS {
        assert!(compared.contains_key(shader.name), "{} is never compared: {compared:?}", shader.name);
    }
    // Forward and three gradients of each of the 23 convolutions of a U-Net, for a start.
    assert!(compared["conv2d"] > 100, "{compared:?}");
}

/// An op whose author forgot [`observed`](shadegrad::debug) would not be compared.
#[test]
fn every_op_file_is_observed() {
    for shader in ops::SHADERS {
        let path = format!("{}/src/ops/{}.rs", env!("CARGO_MANIFEST_DIR"), shader.name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("observed(OP, "), "{path}: its public function must go through debug::observed");
    }
}

/// A copy of the shaders with one text replaced.
fn planted(folder: &Path, file: &str, right: &str, wrong: &str) {
    let shaders = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    std::fs::create_dir_all(folder.join("lib")).unwrap();
    for part in ["", "lib"] {
        for entry in std::fs::read_dir(shaders.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, folder.join(part).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(right), "{file} does not contain {right:?} any more");
    std::fs::write(&path, text.replace(right, wrong)).unwrap();
}

/// Shader, right text, wrong text, op and pass of the message, what it says.
const FAULTS: &[(&str, &str, &str, &str, &str)] = &[
    (
        "depthwise_conv2d.wgsl",
        "sums[ky * SIDE + kx] += vec4<f32>(x4[x_at]) * g;",
        "sums[ky * SIDE + kx] += vec4<f32>(x4[x_at]) * vec4<f32>(gy_of_x4[g_at]);",
        "depthwise_conv2d backward",
        "gradient of input 1",
    ),
    (
        "batch_norm_max_pool2d.wgsl",
        "y4[at] = Element4(activated4((best - mean4[q])",
        "y4[at] = Element4(activated4((best - mean4[0])",
        "batch_norm_max_pool2d",
        "result [",
    ),
    (
        "batch_norm.wgsl",
        "variance_out[c] = total / count;",
        "variance_out[c] = total / (count - 1.0);",
        "batch_norm_max_pool2d",
        "",
    ),
    (
        "batch_norm.wgsl",
        "(total / (count - 1.0) - running_var[c])",
        "(total / count - running_var[c])",
        "batch_norm_max_pool2d",
        "changed tensor",
    ),
    (
        "batch_norm_max_pool2d.wgsl",
        "winner_out4[at] = winner;",
        "winner_out4[at] = 3u - winner;",
        "batch_norm_max_pool2d",
        "kept tensor 5",
    ),
    (
        "layer_norm.wgsl",
        "{ statistics_out[row] = vec2(mean, rstd); }",
        "{ statistics_out[row] = vec2(rstd, mean); }",
        "layer_norm",
        "kept tensor",
    ),
    ("adam.wgsl", "moment2_4[at] = next.v;", "moment2_4[at] = next.m;", "adam", "changed tensor"),
    (
        "metric_counts.wgsl",
        "counts_out[3u * image + which] = counts[which];",
        "counts_out[3u * image + 2u - which] = counts[which];",
        "metric_counts",
        "result [2, 3]",
    ),
];

#[test]
fn a_planted_fault_is_named() {
    if devices::gpu().is_none() {
        return;
    }
    for (file, right, wrong, op, what) in FAULTS {
        let folder = tempfile::tempdir().unwrap();
        planted(folder.path(), file, right, wrong);
        let switches =
            Switches { checks: Some(Arc::default()), shaders: Some(folder.path().to_owned()), ..Switches::default() };
        let device = gpu_with(switches).unwrap();
        let Err(error) = step(&device, &ModelConfig::unext_small(), DType::F32) else {
            panic!("{file}: {wrong} was not found")
        };
        let message = error.to_string();
        println!("{message}\n");
        assert!(matches!(error, Error::Check { .. }), "{message}");
        assert!(message.starts_with(&format!("SHADEGRAD_CHECK: {op}: {what}")), "{file}: {message}");
        assert!(message.contains(" is ") && message.contains("by the CPU reference"), "{message}");
        assert!(message.contains(&file.replace(".wgsl", ".")), "the kernels are not named: {message}");
    }
}

#[test]
fn an_edited_text_that_does_not_compile_is_named_by_its_op() {
    if devices::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    planted(folder.path(), "relu.wgsl", "fn forward_v1(", "fn forward_v1(oops ");
    let device = gpu_with(Switches { shaders: Some(folder.path().to_owned()), ..Switches::default() }).unwrap();
    let x = device.tensor("x", [1, 1, 1, 3], &[-1.0, 0.5, 2.0]).unwrap();
    for _ in 0..2 {
        let sum = ops::add(&x, &x).unwrap();
        let error = ops::relu(&x).unwrap_err();
        assert!(matches!(&error, Error::Shader { file, line: 24, .. } if file == "relu.wgsl"), "{error}");
        assert_eq!(sum.to_vec().unwrap(), [-2.0, 1.0, 4.0]);
    }
}

/// A kernel as if it were built in.
const DOUBLE: Shader = Shader {
    name: "double",
    source: "@group(0) @binding(1) var<storage, read> x: array<f32>;
        @group(0) @binding(2) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(64)
        fn forward(@builtin(global_invocation_id) gid: vec3<u32>) { y[gid.x] = 2.0 * x[gid.x]; }",
};

/// One that does not compile.
const BROKEN: Shader = Shader { name: "broken", source: "@compute @workgroup_size(64)\nfn forward() { y = 0.0; }" };

fn launched(shader: Shader, x: &Tensor) -> Result<Tensor> {
    let y = x.device().empty(shader.name, x.shape())?;
    shader.entry("forward").reads([x]).writes([&y]).over(x.len())?;
    Ok(y)
}

/// Built-in kernels are compiled when the step is handed over. One that a driver refuses is named then, once for what was
/// launched, and by each op that launches it later; all else is done.
#[test]
fn a_kernel_that_does_not_compile_is_named_when_the_step_is_handed_over() {
    let Some(device) = gpu_with(Switches::default()) else { return };
    let x = device.tensor("x", [64], &[1.5; 64]).unwrap();
    let before = launched(DOUBLE, &x).unwrap();
    launched(BROKEN, &before).unwrap();
    let after = ops::add(&before, &before).unwrap();
    let named = |error: &Error| matches!(error, Error::Shader { file, line: 2, .. } if file == "broken.wgsl");
    let error = after.to_vec().unwrap_err();
    assert!(named(&error), "{error}");
    assert_eq!((before.to_vec().unwrap(), after.to_vec().unwrap()), (vec![3.0; 64], vec![6.0; 64]));
    let error = launched(BROKEN, &before).unwrap_err();
    assert!(named(&error), "{error}");
    assert_eq!(launched(DOUBLE, &after).unwrap().to_vec().unwrap(), [12.0; 64]);
}

/// What is launched before its kernels are compiled keeps its place between writes and copies, and so do buffers that are
/// handed out again.
#[test]
fn a_first_step_keeps_its_order() {
    let Some(device) = gpu_with(Switches::default()) else { return };
    let [x, copy] = ["x", "copy"].map(|name| device.tensor(name, [64], &[1.0; 64]).unwrap());
    let twice = ops::add(&x, &x).unwrap();
    x.write(&[5.0; 64]).unwrap();
    let seven = ops::add(&twice, &x).unwrap();
    copy.copy_from(&seven).unwrap();
    drop(seven);
    let ten = launched(DOUBLE, &x).unwrap(); // in the place of seven
    x.copy_from(&ten).unwrap();
    assert_eq!(ops::relu(&x).unwrap().to_vec().unwrap(), [10.0; 64]);
    assert_eq!((twice.to_vec().unwrap(), copy.to_vec().unwrap()), (vec![2.0; 64], vec![7.0; 64]));
}

/// The gradients of one step.
fn gradients(device: &Device) -> Vec<f32> {
    let net = build(device, &ModelConfig::unext_small(), 0).unwrap();
    let values: Vec<f32> = (0..2 * 64 * 64 * 3).map(|at| (at * at / 7 % 101) as f32 / 50.0 - 1.0).collect();
    let x = device.tensor("x", [2, 64, 64, 3], &values).unwrap();
    let target = device.tensor("target", [2, 64, 64, 1], &values[..2 * 64 * 64]).unwrap();
    let tape = Tape::new();
    let logits = net.forward(&tape.watch(&x), Mode::Train).unwrap();
    let gradients = tape.backward(&bce_dice(&logits, &target, &BceDice::batch()).unwrap()).unwrap();
    net.parameters().check(&gradients).unwrap();
    net.parameters().gradients.to_vec().unwrap()
}

/// First steps at once, on a device each and on one for both, have the bits of a step whose kernels were there before.
#[test]
fn first_steps_at_once_have_the_same_bits() {
    let Some(device) = gpu_with(Switches::default()) else { return };
    let want = (gradients(&device), gradients(&device));
    assert!(want.0 == want.1 && want.0.iter().any(|gradient| *gradient != 0.0));
    let open = || gpu_with(Switches::default()).unwrap();
    let shared = open();
    for devices in [[open(), open()], [shared.clone(), shared]] {
        let found = std::thread::scope(|scope| {
            let threads = devices.each_ref().map(|device| scope.spawn(|| gradients(device)));
            threads.map(|thread| thread.join().unwrap())
        });
        assert!(found.iter().all(|found| *found == want.0));
    }
}

#[test]
fn the_kernels_of_a_first_step_are_compiled_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let Some(device) = gpu_with(Switches::default().with_trace(&path).unwrap()) else { return };
    gradients(&device);
    drop(device);
    let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let compiled = trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["cat"] == "compile");
    let threads: BTreeSet<_> = compiled.map(|event| event["tid"].as_u64()).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(threads.len() >= cores.min(2), "{threads:?}");
}

#[test]
fn a_number_that_is_not_finite_is_named_where_it_begins() {
    let switches = || Switches { nan: true, ..Switches::default() };
    let cpu = Device::Cpu(Arc::new(CpuContext::with(switches())));
    for device in [Some(cpu), gpu_with(switches())].into_iter().flatten() {
        step(&device, &ModelConfig::unext_small(), DType::F32).unwrap();
        // exp overflows in the layer behind: the first op that makes it is named, not the loss.
        let x = device.tensor("x", [1, 2, 2, 4], &[1e30; 16]).unwrap();
        let weight = device.tensor("w", [1, 1, 4, 8], &[1e30; 32]).unwrap();
        let y = ops::relu(&x).and_then(|x| ops::conv2d(&x, &weight, None, 1, 0)).and_then(|y| ops::relu(&y));
        let message = y.unwrap_err().to_string();
        assert!(message.starts_with("SHADEGRAD_NAN: conv2d: result [1, 2, 2, 8]: element [0, 0, 0, 0]"), "{message}");
        assert!(message.contains("is inf; all its inputs are finite"), "{message}");
        let x = device.tensor("x", [2], &[1.0, f32::NAN]).unwrap();
        let message = ops::gelu(&x).unwrap_err().to_string();
        assert!(message.contains("its input 0 [2] is NaN at [1]"), "{message}");
    }
}

#[test]
fn a_trace_is_written_also_after_an_error() {
    for mut device in devices::all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let switches = Switches::default().with_trace(&path).unwrap();
        let gpu = matches!(device, Device::Gpu(_));
        device = if gpu { gpu_with(switches).unwrap() } else { Device::Cpu(Arc::new(CpuContext::with(switches))) };
        let timestamps = matches!(&device, Device::Gpu(context) if context.has_timestamps());
        step(&device, &ModelConfig::unext_small(), DType::F32).unwrap();
        let x = device.zeros("x", [3]).unwrap();
        assert!(ops::max_pool2d(&x).is_err());
        device.wait().unwrap();
        drop((x, device));
        let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let of = |category: &str, name: &str| {
            events.iter().filter(|event| event["cat"] == category && event["name"] == name).collect::<Vec<_>>()
        };
        assert!(!of("op", "conv2d").is_empty() && !of("backward", "conv2d").is_empty());
        assert!(!of("op", "max_pool2d").is_empty(), "the op that failed is not there");
        for event in events.iter().filter(|event| event["ph"] == "X") {
            assert!(event["ts"].as_f64().unwrap() >= 0.0 && event["dur"].as_f64().unwrap() >= 0.0, "{event}");
        }
        if gpu {
            assert!(!of("gpu", "flush").is_empty() && !of("compile", "conv2d.forward_v2").is_empty());
        }
        if timestamps {
            let forward = of("device", "conv2d.forward_v2");
            assert!(!forward.is_empty() && forward[0]["args"]["what"].as_str().unwrap().contains("GB/s"));
        }
    }
}

/// A second device of the process adds to the trace of the first.
#[test]
fn two_devices_share_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    for _ in 0..2 {
        let device = Device::Cpu(Arc::new(CpuContext::with(Switches::default().with_trace(&path).unwrap())));
        ops::relu(&device.zeros("x", [4]).unwrap()).unwrap();
    }
    let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let relus: Vec<f64> = trace["traceEvents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["name"] == "relu")
        .map(|event| event["ts"].as_f64().unwrap())
        .collect();
    assert_eq!(relus.len(), 2);
    assert!(relus[0] < relus[1], "{relus:?}");
}

/// `show memory` against the pool of a real step.
#[test]
fn planned_memory_is_the_memory_of_a_step() {
    let Some(device) = devices::gpu() else { return };
    let step = PlannedStep { batch: 2, size: 64, ..PlannedStep::default() };
    for config in configs() {
        let plan = MemoryPlan::new(&config, &step, Some(&device.to_string())).unwrap();
        let Some(device) = gpu_with(Switches::default()) else { return };
        let net = build(&device, &config, 0).unwrap();
        let shape = net.parameters().values.shape();
        let moments = [device.zeros("m", shape).unwrap(), device.zeros("v", shape).unwrap()];
        let x = device.zeros("x", [2, 64, 64, 3]).unwrap();
        let target = device.zeros("target", [2, 64, 64, 1]).unwrap();
        let rates = device.zeros("step", [4]).unwrap();
        if let Device::Gpu(context) = &device {
            context.reset_peak();
        }
        let tape = Tape::new();
        let logits = net.forward(&tape.watch(&x), Mode::Train).unwrap();
        let loss = bce_dice(&logits, &target, &BceDice::batch()).unwrap();
        drop(logits);
        let gradients = tape.backward(&loss).unwrap();
        net.parameters().check(&gradients).unwrap();
        let parameters = net.parameters();
        adam(&Adam::default(), &parameters.gradients, &rates, &parameters.values, &moments[0], &moments[1]).unwrap();
        device.wait().unwrap();
        let measured = device.memory().peak;
        println!("{}: planned {} bytes, measured {measured}", config.model, plan.peak_bytes);
        assert_eq!(plan.peak_bytes, measured, "{}", config.model);
    }
}
