//! Single operations against CPU PyTorch in f64: `golden/ops.json` and `golden/ops.safetensors`, whose page is
//! `golden/README.md`. `SHADEGRAD_GOLDENS=DIR` takes them from another folder.
//!
//! The code knows ops, not cases: whatever the files hold is run, and what cannot be run is said on stderr.
//!
//! A tensor is right if its relative L2 difference is at most 20 times what f32 cost PyTorch, plus 1e-6. Where PyTorch
//! itself lost the relative accuracy, or the tensor is all but zero, the largest difference counts instead. Copies are
//! equal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use safetensors::SafeTensors;
use serde_json::Value;
use shadegrad::cpu::{conv2d::Conv2dParams, linear::LinearParams};
use shadegrad::eval::SliceCounts;
use shadegrad::eval::metrics::batch_scores;
use shadegrad::gpu::Constants;
use shadegrad::ops::batch_norm::BatchNormSettings;
use shadegrad::ops::conv2d::{GatherKernel, WeightKernel};
use shadegrad::ops::{self, Adam, Axis, BceDice, Mode, Pooling, RunningStats, Sgd, UpsampleSettings, Version};
use shadegrad::ops::{winograd, winograd_fused, winograd_weight};
use shadegrad::tensor::random::Stream;
use shadegrad::train::{Plateau, Schedule, TrainConfig};
use shadegrad::{Device, Error, Gradients, Result, Shape, Tape, Tensor};

use crate::devices;

/// Where the golden files are.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("SHADEGRAD_GOLDENS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/golden"), PathBuf::from)
}

/// Says what is not tested. The test harness swallows `println!` of tests that pass, so this writes past it.
pub(crate) fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "golden SKIPPED: {what}: {why}");
}

/// Says what a test did, also where it passes.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A `.json` file and the tensors beside it.
pub(crate) struct Golden {
    /// What the `.json` holds.
    pub(crate) json: Value,
    bytes: Vec<u8>,
}

impl Golden {
    /// Both files of that name; `None`, and a line on stderr, if one is missing.
    pub(crate) fn open(label: &str) -> Option<Self> {
        let [json, tensors] = ["json", "safetensors"].map(|end| folder().join(format!("{label}.{end}")));
        for path in [&json, &tensors] {
            if !path.is_file() {
                skipped(label, &format!("{} is missing", path.display()));
                return None;
            }
        }
        let json = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
        Some(Self { json, bytes: std::fs::read(tensors).unwrap() })
    }

    /// The tensors.
    pub(crate) fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    /// The salt of the formula's numbers.
    pub(crate) fn salt(&self) -> &str {
        self.json["salt"].as_str().unwrap()
    }
}

/// Extents and numbers of a stored tensor; `None` if it is not stored.
pub(crate) fn floats(tensors: &SafeTensors<'_>, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
    let view = tensors.tensor(name).ok()?;
    let values = view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    Some((view.shape().to_vec(), values))
}

/// Axis `i` of the result is axis `order[i]` of the argument.
pub(crate) fn permute(shape: &[usize], values: &[f32], order: &[usize]) -> (Vec<usize>, Vec<f32>) {
    let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
    let out: Vec<usize> = order.iter().map(|&axis| shape[axis]).collect();
    let source = |at: usize| {
        let (mut rest, mut from) = (at, 0);
        for axis in (0..out.len()).rev() {
            from += rest % out[axis] * strides[order[axis]];
            rest /= out[axis];
        }
        values[from]
    };
    let moved = (0..values.len()).map(source).collect();
    (out, moved)
}

/// An image batch from PyTorch's `[N, C, H, W]`.
pub(crate) fn nhwc(shape: &[usize], values: &[f32]) -> (Vec<usize>, Vec<f32>) {
    permute(shape, values, &[0, 2, 3, 1])
}

/// A list of numbers in the `.json`.
pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// A list of extents in the `.json`.
pub(crate) fn extents(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

/// (relative L2, largest difference); NaN is infinitely wrong.
pub(crate) fn distance(got: &[f32], want: &[f32]) -> (f64, f64) {
    if got.len() != want.len() {
        return (f64::INFINITY, f64::INFINITY);
    }
    let (mut squares, mut norm, mut most) = (0.0, 0.0, 0.0_f64);
    for (g, w) in got.iter().zip(want) {
        let difference = (f64::from(*g) - f64::from(*w)).abs();
        if difference.is_nan() {
            return (f64::INFINITY, f64::INFINITY);
        }
        squares += difference * difference;
        norm += f64::from(*w).powi(2);
        most = most.max(difference);
    }
    (if squares == 0.0 { 0.0 } else { (squares / norm.max(1e-300)).sqrt() }, most)
}

/// Comparisons of a test: how many, the worst of each group, and what is wrong.
#[derive(Default)]
pub(crate) struct Report {
    compared: usize,
    /// Group -> (share of its bound, line).
    worst: BTreeMap<String, (f64, String)>,
    wrong: Vec<String>,
}

impl Report {
    /// One comparison: `error` may be at most `bound`.
    pub(crate) fn check(&mut self, group: &str, name: &str, error: f64, bound: f64) {
        self.compared += 1;
        let share = if error == 0.0 { 0.0 } else { error / bound };
        let line = format!("{name}: {error:.1e} (bound {bound:.1e})");
        // Written so that NaN is wrong.
        if !matches!(error.partial_cmp(&bound), Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal)) {
            self.wrong.push(format!("{group} {line}"));
        }
        let worst = self.worst.entry(group.to_owned()).or_insert((-1.0, String::new()));
        if share > worst.0 || share.is_nan() {
            *worst = (share, line);
        }
    }

    /// A tensor by the rule of this file. `deviation` is what f32 cost PyTorch.
    pub(crate) fn tensor(&mut self, group: &str, name: &str, got: &[f32], want: &[f32], deviation: &Value) {
        let (relative, most) = distance(got, want);
        let of = |key: &str| deviation[key].as_f64().unwrap();
        let (f32_relative, f32_most, max) = (of("f32_rel_l2"), of("f32_max_abs"), of("max"));
        let bound = 20.0 * f32_relative + 1e-6;
        if relative > bound && (f32_relative > 1e-4 || max < 1e-6) {
            self.check(group, &format!("{name} (absolute)"), most, 20.0 * f32_most + 1e-7 * max + 1e-12);
        } else {
            self.check(group, name, relative, bound);
        }
    }

    /// A copy: equal numbers.
    fn equal(&mut self, group: &str, name: &str, got: &[f32], want: &[f32]) {
        let (_, most) = distance(got, want);
        self.check(group, &format!("{name} (exact)"), most, 0.0);
    }

    /// Something that should hold.
    pub(crate) fn holds(&mut self, group: &str, name: &str, right: bool) {
        self.check(group, name, if right { 0.0 } else { f64::INFINITY }, 0.0);
    }

    /// Prints the worst of each group and fails the test if anything is wrong.
    pub(crate) fn finish(self, title: &str) {
        let mut text =
            format!("golden: {title}: {} comparisons, {} wrong; the worst:", self.compared, self.wrong.len());
        for (group, (_, line)) in &self.worst {
            let _ = write!(text, "\n  {group:<36} {line}");
        }
        say(&text);
        assert!(self.wrong.is_empty(), "{title}: {} wrong\n{}", self.wrong.len(), self.wrong.join("\n"));
    }
}

/// One case of `ops.json` and its tensors, in our layout.
struct Case<'a> {
    tensors: SafeTensors<'a>,
    name: &'a str,
    op: &'a str,
    about: &'a Value,
    device: &'a Device,
    /// Sizes that v2 does not take are repeated so many times: images, or channels where channels are independent.
    copies: usize,
}

impl Case<'_> {
    fn attr(&self, key: &str) -> &Value {
        &self.about["attrs"][key]
    }

    fn size(&self, key: &str) -> usize {
        self.attr(key).as_u64().unwrap() as usize
    }

    fn number(&self, key: &str) -> f64 {
        self.attr(key).as_f64().unwrap()
    }

    fn depthwise(&self) -> bool {
        self.op == "conv2d" && self.size("groups") > 1
    }

    /// A stored tensor in our layout.
    fn get(&self, what: &str) -> (Vec<usize>, Vec<f32>) {
        let name = format!("{}/{what}", self.name);
        let (mut shape, values) = floats(&self.tensors, &name).unwrap_or_else(|| panic!("{name} is not stored"));
        if what.ends_with("weight") {
            return match (self.op, shape.len()) {
                ("conv2d", 4) if self.depthwise() => {
                    let (shape, values) = permute(&shape, &values, &[2, 3, 0, 1]);
                    (shape[..3].to_vec(), values)
                }
                ("conv2d" | "conv_transpose2d", 4) => permute(&shape, &values, &[2, 3, 1, 0]),
                ("linear", 2) => permute(&shape, &values, &[1, 0]),
                _ => (shape, values),
            };
        }
        // Broadcasting counts axes from the right, and in PyTorch the right one is the width.
        while self.op == "add" && shape.len() < 4 {
            shape.insert(0, 1);
        }
        let (mut shape, values) = if shape.len() == 4 { nhwc(&shape, &values) } else { (shape, values) };
        match (self.op, self.copies) {
            (_, 1) => (shape, values),
            ("upsample_bilinear2d", copies) => {
                let values = values.chunks(shape[3]).flat_map(|pixel| pixel.repeat(copies)).collect();
                shape[3] *= copies;
                (shape, values)
            }
            (_, copies) => {
                shape[0] *= copies;
                (shape, values.repeat(copies))
            }
        }
    }

    fn tensor(&self, what: &str) -> Result<Tensor> {
        let (shape, values) = self.get(what);
        self.device.tensor("golden", Shape::new(&shape)?, &values)
    }

    fn has(&self, what: &str) -> bool {
        self.about["inputs"].as_array().unwrap().iter().any(|input| input == what)
    }
}

/// What a case gave: (name of the golden tensor, numbers).
type Results = Vec<(&'static str, Vec<f32>)>;

/// Why a case is not run, or `None` if we have the op.
fn missing(case: &Case<'_>) -> Option<&'static str> {
    match case.op {
        "conv2d" if case.depthwise() => {
            let (shape, _) = floats(&case.tensors, &format!("{}/weight", case.name)).unwrap();
            let plain = shape[0] == case.size("groups") && shape[1] == 1 && case.size("stride") == 1;
            (!plain).then_some("grouped convolution other than depthwise with stride 1")
        }
        "max_pool2d" => (case.size("kernel") != 2 || case.size("stride") != 2).then_some("pooling other than 2x2"),
        "upsample_bilinear2d" => (case.size("scale") != 2).then_some("scale other than 2"),
        "concat" => (case.attr("axis") != 1).then_some("concatenation along another axis than the channels"),
        "softmax" => (case.attr("axis") != -1).then_some("softmax along another axis than the last"),
        "add" | "adam" | "adamw" | "sgd" | "batch_norm2d" | "bce_dice" | "conv2d" | "conv_transpose2d" | "gelu"
        | "layer_norm" | "linear" | "relu" | "shift_tokens" | "sigmoid" => None,
        _ => Some("no such op yet"),
    }
}

fn versioned(op: &str) -> bool {
    !matches!(op, "max_pool2d" | "bce_dice" | "adam" | "adamw" | "sgd")
}

/// Runs a case with one version of the kernels.
fn run(case: &Case<'_>, version: Version) -> Result<Results> {
    match case.op {
        "adam" | "adamw" => return run_adam(case),
        "sgd" => return run_sgd(case),
        "bce_dice" => return run_loss(case),
        _ => {}
    }
    let tape = Tape::new();
    let watch = |what: &str| Ok::<_, Error>(tape.watch_input(&case.tensor(what)?));
    let bias = if case.has("bias") { Some(watch("bias")?) } else { None };
    let (x, weight) = (|| watch("x"), || watch("weight"));
    let mut extra = Vec::new();
    let (y, inputs) = match case.op {
        "add" => {
            let (a, b) = (watch("a")?, watch("b")?);
            (ops::add::forward(&a, &b, version)?, vec![("grad_a", a), ("grad_b", b)])
        }
        "relu" => {
            let x = x()?;
            (ops::relu::forward(&x, version)?, vec![("grad_x", x)])
        }
        "gelu" => {
            let x = x()?;
            (ops::gelu::forward(&x, version)?, vec![("grad_x", x)])
        }
        "sigmoid" => {
            let x = x()?;
            (ops::sigmoid::forward(&x, version)?, vec![("grad_x", x)])
        }
        "shift_tokens" => {
            let x = x()?;
            let axis = if case.attr("axis") == "H" { Axis::Height } else { Axis::Width };
            (ops::shift::forward(&x, axis, version)?, vec![("grad_x", x)])
        }
        "upsample_bilinear2d" => {
            let x = x()?;
            let settings = UpsampleSettings { align_corners: case.attr("align_corners") == true, relu: false };
            (ops::upsample_bilinear::forward(&x, None, settings, version)?, vec![("grad_x", x)])
        }
        "max_pool2d" => {
            let x = x()?;
            (ops::max_pool2d(&x)?, vec![("grad_x", x)])
        }
        "layer_norm" => {
            let (x, w, b) = (x()?, weight()?, bias.clone().unwrap());
            (
                ops::layer_norm::forward(&x, &w, &b, case.number("eps") as f32, version)?,
                vec![("grad_x", x), ("grad_weight", w)],
            )
        }
        "batch_norm2d" => {
            let (x, w, b) = (x()?, weight()?, bias.clone().unwrap());
            let (mean, var) = (case.tensor("running_mean")?, case.tensor("running_var")?);
            let train = case.attr("train") == true;
            let settings = BatchNormSettings {
                mode: if train { Mode::Train } else { Mode::Eval },
                momentum: case.number("momentum") as f32,
                eps: case.number("eps") as f32,
                relu: false,
            };
            let running = RunningStats { mean: &mean, var: &var };
            let y = ops::batch_norm::forward(&x, &w, &b, &running, &settings, version)?;
            let (_, before) = case.get("running_mean");
            if train {
                extra.push(("running_mean_after", mean.to_vec()?));
                extra.push(("running_var_after", var.to_vec()?));
            } else {
                assert_eq!(mean.to_vec()?, before, "{}: eval mode changed the running mean", case.name);
            }
            (y, vec![("grad_x", x), ("grad_weight", w)])
        }
        "linear" => {
            let (x, w) = (x()?, weight()?);
            (ops::linear::forward(&x, &w, bias.as_ref(), version)?, vec![("grad_x", x), ("grad_weight", w)])
        }
        "concat" => {
            let (a, b) = (watch("a")?, watch("b")?);
            (ops::concat::forward(&a, &b, version)?, vec![("grad_a", a), ("grad_b", b)])
        }
        "softmax" => {
            let x = x()?;
            (ops::softmax::forward(&x, version)?, vec![("grad_x", x)])
        }
        "conv_transpose2d" => {
            let (x, w) = (x()?, weight()?);
            let [stride, padding, extra] = ["stride", "padding", "output_padding"].map(|key| case.size(key));
            let y = ops::conv_transpose2d::forward(&x, &w, bias.as_ref(), stride, padding, extra, version)?;
            (y, vec![("grad_x", x), ("grad_weight", w)])
        }
        "conv2d" if case.depthwise() => {
            let (x, w) = (x()?, weight()?);
            let y = ops::depthwise_conv2d::forward(&x, &w, bias.as_ref(), case.size("padding"), version)?;
            (y, vec![("grad_x", x), ("grad_weight", w)])
        }
        "conv2d" => {
            let (x, w) = (x()?, weight()?);
            let y = ops::conv2d::forward(&x, &w, bias.as_ref(), case.size("stride"), case.size("padding"), version)?;
            (y, vec![("grad_x", x), ("grad_weight", w)])
        }
        other => panic!("{other} is in missing() but not in run()"),
    };
    let mut results = vec![("y", y.to_vec()?)];
    let gradients: Gradients = tape.backward_from(&y, &case.tensor("grad_y")?)?;
    for (what, input) in inputs.into_iter().chain(bias.map(|bias| ("grad_bias", bias))) {
        results.push((what, gradients.of(&input).unwrap().to_vec()?));
    }
    results.extend(extra);
    Ok(results)
}

fn run_loss(case: &Case<'_>) -> Result<Results> {
    let tape = Tape::new();
    let x = tape.watch_input(&case.tensor("x")?);
    let loss = ops::bce_dice(
        &x,
        &case.tensor("target")?,
        &BceDice {
            bce_weight: case.number("bce_weight") as f32,
            dice_weight: case.number("dice_weight") as f32,
            smooth: case.number("smooth") as f32,
            pooling: if case.attr("pooling") == "sample" { Pooling::Sample } else { Pooling::Batch },
            ..BceDice::batch()
        },
    )?;
    let y = loss.to_vec()?;
    Ok(vec![("y", y), ("grad_x", tape.backward(&loss)?.of(&x).unwrap().to_vec()?)])
}

fn run_adam(case: &Case<'_>) -> Result<Results> {
    let betas = numbers(case.attr("betas"));
    let settings = Adam {
        beta1: betas[0],
        beta2: betas[1],
        eps: case.number("eps"),
        weight_decay: case.number("weight_decay"),
        decoupled: case.op == "adamw",
    };
    let p = case.tensor("p0")?;
    let zeros = || case.device.zeros("golden", p.shape());
    let (m, v, step) = (zeros()?, zeros()?, case.device.zeros("golden", [4])?);
    let gradients = case.tensor("grads")?;
    let mut steps = Vec::new();
    for t in 0..gradients.shape().dims()[0] {
        step.write(&settings.step_values(case.number("lr"), t as u64 + 1))?;
        // Not a view of a row: its start would lie at no multiple of 256 bytes, where a GPU cannot bind.
        let row = &gradients.to_vec()?[t * p.len()..(t + 1) * p.len()];
        ops::adam(&settings, &case.device.tensor("golden", p.shape(), row)?, &step, &p, &m, &v)?;
        steps.extend(p.to_vec()?);
    }
    Ok(vec![("p", steps), ("exp_avg", m.to_vec()?), ("exp_avg_sq", v.to_vec()?)])
}

fn run_sgd(case: &Case<'_>) -> Result<Results> {
    let settings = Sgd {
        momentum: case.number("momentum"),
        nesterov: case.attr("nesterov").as_bool().unwrap(),
        weight_decay: case.number("weight_decay"),
    };
    let p = case.tensor("p0")?;
    let (buffer, step) = (case.device.zeros("golden", p.shape())?, case.device.zeros("golden", [4])?);
    let gradients = case.tensor("grads")?.to_vec()?;
    let mut steps = Vec::new();
    for row in gradients.chunks_exact(p.len()) {
        step.write(&settings.step_values(case.number("lr")))?;
        ops::sgd(&settings, &case.device.tensor("golden", p.shape(), row)?, &step, &p, &buffer)?;
        steps.extend(p.to_vec()?);
    }
    let mut results = vec![("p", steps)];
    if settings.momentum > 0.0 {
        results.push(("momentum_buffer", buffer.to_vec()?));
    }
    Ok(results)
}

/// The gradient kernels that `backward` does not choose for a shape: (kernel, results).
fn other_kernels(case: &Case<'_>) -> Result<Vec<(String, Results)>> {
    let mut all = Vec::new();
    if case.depthwise() || !matches!(case.op, "conv2d" | "linear") || matches!(case.device, Device::Cpu(_)) {
        return Ok(all);
    }
    let (x, w, gy) = (case.tensor("x")?, case.tensor("weight")?, case.tensor("grad_y")?);
    let (xs, ws) = (x.shape().dims().to_vec(), w.shape().dims().to_vec());
    let out_c = w.shape().last();
    let in_c = x.shape().last();
    let (in8, out8) = (in_c.is_multiple_of(8), out_c.is_multiple_of(8));
    let empty = |shape: Shape| case.device.empty("golden", shape);
    let bias = || if case.has("bias") { Ok(Some(empty([out_c].into())?)) } else { Ok::<_, Error>(None) };
    let mut weights = |name: String, gw: &Tensor, gb: Option<&Tensor>| -> Result<()> {
        let mut results = vec![("grad_weight", gw.to_vec()?)];
        if let Some(gb) = gb {
            results.push(("grad_bias", gb.to_vec()?));
        }
        all.push((name, results));
        Ok(())
    };
    let inputs = [Some(Version::V1), in8.then_some(Version::V2)];
    let mut gx_all = Vec::new();
    if case.op == "conv2d" {
        let image = [xs[0], xs[1], xs[2], xs[3]];
        let kernel = [ws[0], ws[1], ws[2], ws[3]];
        let p = Conv2dParams::forward(image, kernel, case.size("stride"), case.size("padding"), case.has("bias"));
        for kernel in [
            Some(WeightKernel::V1),
            out8.then_some(WeightKernel::V2),
            (in8 && out8).then_some(WeightKernel::V3(Constants::default())),
            winograd_weight::takes(&p).then_some(WeightKernel::V5(Constants::default())),
        ] {
            let Some(kernel) = kernel else { continue };
            let (gw, gb) = (empty(w.shape())?, bias()?);
            ops::conv2d::backward_weight(&p, &x, &gy, &gw, gb.as_ref(), kernel)?;
            weights(format!("backward_weight {kernel}"), &gw, gb.as_ref())?;
        }
        let direct = inputs.into_iter().flatten().map(GatherKernel::from);
        let winograd = winograd::takes(&p.input_gradient()).then_some(GatherKernel::Winograd(Constants::default()));
        let v7 = GatherKernel::Fused(Constants::default());
        let fused = winograd_fused::takes(&p.input_gradient()).then_some(v7);
        for kernel in direct.chain(winograd).chain(fused) {
            let gx = empty(x.shape())?;
            ops::conv2d::backward_input(&p, &gy, &w, &gx, kernel)?;
            gx_all.push((kernel.to_string(), gx));
        }
        let winograd = winograd::takes(&p).then_some(GatherKernel::Winograd(Constants::default()));
        let fused = winograd_fused::takes(&p).then_some(v7);
        for kernel in winograd.into_iter().chain(fused) {
            let (stride, padding) = (case.size("stride"), case.size("padding"));
            let bias = if case.has("bias") { Some(case.tensor("bias")?) } else { None };
            let y = ops::conv2d::forward(&x, &w, bias.as_ref(), stride, padding, kernel)?;
            all.push((format!("forward {kernel}"), vec![("y", y.to_vec()?)]));
        }
    } else {
        let p = LinearParams {
            rows: (x.len() / in_c) as u32,
            inputs: in_c as u32,
            outputs: out_c as u32,
            has_bias: u32::from(case.has("bias")),
            ..bytemuck::Zeroable::zeroed()
        };
        for version in [Some(Version::V1), (in8 && out8).then_some(Version::V2)].into_iter().flatten() {
            let (gw, gb) = (empty(w.shape())?, bias()?);
            ops::linear::backward_weight(&p, &x, &gy, &gw, gb.as_ref(), version)?;
            weights(format!("backward_weight {}", version.name()), &gw, gb.as_ref())?;
        }
        for version in inputs.into_iter().flatten() {
            let gx = empty(x.shape())?;
            ops::linear::backward_input(&p, &gy, &w, &gx, version)?;
            gx_all.push((version.to_string(), gx));
        }
    }
    for (kernel, gx) in gx_all {
        all.push((format!("backward_input {kernel}"), vec![("grad_x", gx.to_vec()?)]));
    }
    Ok(all)
}

/// Compares what a kernel gave.
fn compare(report: &mut Report, case: &Case<'_>, kernel: &str, results: Results) {
    for (what, got) in results {
        let (group, name) = (format!("{} {what}", case.op), format!("{} {kernel}", case.name));
        let (_, want) = case.get(what);
        let deviation = &case.about["deviation"][what];
        let copies = matches!(case.op, "concat" | "relu" | "shift_tokens" | "max_pool2d")
            || (case.op == "add" && what != "grad_b" && deviation["f32_max_abs"] == 0.0);
        if copies {
            report.equal(&group, &name, &got, &want);
        } else {
            report.tensor(&group, &name, &got, &want, deviation);
        }
    }
}

fn golden_ops(device: &Device) {
    let Some(golden) = Golden::open("ops") else { return };
    let mut report = Report::default();
    // Op -> (cases run, cases that v2 refused).
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for about in golden.json["cases"].as_array().unwrap() {
        let (name, op) = (about["case"].as_str().unwrap(), about["op"].as_str().unwrap());
        let mut case = Case { tensors: golden.tensors(), name, op, about, device, copies: 1 };
        if let Some(why) = missing(&case) {
            skipped(&format!("{op} {name}"), why);
            continue;
        }
        let outputs = about["outputs"].as_array().unwrap();
        let count = counts.entry(op).or_default();
        count.0 += 1;
        let results = run(&case, Version::V1).unwrap_or_else(|error| panic!("{name} v1: {error}"));
        for output in outputs {
            let compared = results.iter().any(|(what, _)| output == what);
            report.holds("every output is compared", &format!("{name} {output}"), compared);
        }
        compare(&mut report, &case, "v1", results);
        if versioned(op) && !matches!(device, Device::Cpu(_)) {
            let mut results = run(&case, Version::V2);
            let repeatable = matches!(op, "add" | "gelu" | "relu" | "sigmoid" | "upsample_bilinear2d");
            if repeatable && matches!(results, Err(Error::Shape { .. })) {
                case.copies = 4;
                results = run(&case, Version::V2);
            }
            match results {
                Ok(results) => compare(&mut report, &case, "v2", results),
                Err(Error::Shape { .. }) => count.1 += 1,
                Err(error) => panic!("{name} v2: {error}"),
            }
            case.copies = 1;
        }
        for (kernel, results) in other_kernels(&case).unwrap_or_else(|error| panic!("{name}: {error}")) {
            compare(&mut report, &case, &kernel, results);
        }
    }
    let gpu = !matches!(device, Device::Cpu(_));
    for (op, (cases, refused)) in counts {
        if gpu && refused > 0 {
            say(&format!("golden: {op}: v2 does not take the sizes of {refused} of {cases} cases; v1 ran all"));
        }
    }
    report.finish(&format!("ops on {device}"));
}

#[test]
fn golden_ops_cpu() {
    golden_ops(&Device::cpu());
}

#[test]
fn golden_ops_gpu() {
    if let Some(device) = devices::gpu() {
        golden_ops(device);
    }
}

/// Ill-conditioned full-size inputs that are rebuilt from the formula. v2 needs four channels: they are repeated.
#[test]
fn golden_formula_cases() {
    let Some(golden) = Golden::open("ops") else { return };
    for device in devices::all() {
        let mut report = Report::default();
        for about in golden.json["formula_cases"].as_array().unwrap() {
            let (name, op) = (about["case"].as_str().unwrap(), about["op"].as_str().unwrap());
            if op != "batch_norm2d" {
                skipped(name, "no formula for this op");
                continue;
            }
            let shape = extents(&about["shape"]);
            let stream = Stream::named(golden.salt(), &format!("{name}/v"));
            let count = shape.iter().product::<usize>();
            let x: Vec<f32> = (0..count as u64).map(|i| stream.unit(i).max(0.0) * 0.0012 + (-0.18)).collect();
            let (shape, x) = nhwc(&shape, &x);
            let channels = shape[3];
            for (version, repeat) in [(Version::V1, 1), (Version::V2, if channels % 4 == 0 { 1 } else { 4 })] {
                let wide: Vec<f32> = x.chunks(channels).flat_map(|pixel| pixel.repeat(repeat)).collect();
                let c = channels * repeat;
                let full = |value: f32| device.tensor("golden", [c], &vec![value; c]).unwrap();
                let (mean, var) = (full(0.0), full(0.0));
                let settings = BatchNormSettings { momentum: 1.0, ..BatchNormSettings::new(Mode::Train) };
                let y = ops::batch_norm::forward(
                    &device.tensor("golden", [shape[0], shape[1], shape[2], c], &wide).unwrap(),
                    &full(1.0),
                    &full(0.0),
                    &RunningStats { mean: &mean, var: &var },
                    &settings,
                    version,
                );
                let y = y.unwrap().to_vec().unwrap();
                let first: Vec<f32> = (0..16).map(|pixel| y[pixel * c]).collect();
                let want: Vec<f32> = numbers(&about["y_first16"]).iter().map(|value| *value as f32).collect();
                let label = format!("{name} {}", version.name());
                report.check("first 16 outputs, relative L2", &label, distance(&first, &want).0, 1e-4);
                let l2 = (y.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / repeat as f64).sqrt();
                report.check("L2 of the output", &label, (l2 / about["y_l2"].as_f64().unwrap() - 1.0).abs(), 1e-4);
                let n = (shape[0] * shape[1] * shape[2]) as f64;
                let (mean, var) = (mean.to_vec().unwrap(), var.to_vec().unwrap());
                let variance = numbers(&about["biased_variance"]);
                for (channel, want) in numbers(&about["mean"]).iter().enumerate() {
                    let label = format!("{label} channel {channel}");
                    report.check("mean", &label, (f64::from(mean[channel]) / want - 1.0).abs(), 1e-6);
                    let unbiased = variance[channel] * n / (n - 1.0);
                    report.check("variance", &label, (f64::from(var[channel]) / unbiased - 1.0).abs(), 1e-4);
                }
            }
        }
        report.finish(&format!("formula cases on {device}"));
    }
}

#[test]
fn golden_metrics() {
    let Some(golden) = Golden::open("ops") else { return };
    for device in devices::all() {
        let mut report = Report::default();
        for about in golden.json["metrics"].as_array().unwrap() {
            let name = about["case"].as_str().unwrap();
            let get = |what: &str| {
                let (shape, values) = floats(&golden.tensors(), &format!("{name}/{what}")).unwrap();
                let (shape, values) = nhwc(&shape, &values);
                device.tensor("golden", Shape::new(&shape).unwrap(), &values).unwrap()
            };
            let (x, target) = (get("x"), get("target"));
            let pixels = (x.len() / x.shape().dims()[0]) as u64;
            let counts = ops::metric_counts(&x, &target).unwrap().to_vec_u32().unwrap();
            let slices: Vec<SliceCounts> = counts
                .chunks(3)
                .map(|c| {
                    let [intersection, predicted, target] = [c[0], c[1], c[2]].map(u64::from);
                    SliceCounts { patient: 0, intersection, predicted, target, pixels }
                })
                .collect();
            let sum = |of: fn(&SliceCounts) -> u64| slices.iter().map(of).sum::<u64>();
            let intersection = sum(|slice| slice.intersection);
            let union = sum(|slice| slice.predicted + slice.target) - intersection;
            report.holds("intersection", name, about["intersection"] == intersection);
            report.holds("union", name, about["union"] == union);
            let (iou, dice) = batch_scores(&slices);
            let mut close = |what: &str, got: f64, want: &Value| {
                let want = want.as_f64().unwrap();
                report.check(what, name, (got - want).abs(), 1e-6 * want.abs());
            };
            close("batch IoU", iou, &about["batch_iou"]);
            close("batch Dice", dice, &about["batch_dice"]);
            let metrics = shadegrad::eval::Metrics::new(&slices, slices.len(), |_| "golden");
            close("volume Dice", metrics.dice_volume_mean, &about["volume_dice"]);
            let tumour: Vec<f64> = slices.iter().filter(|slice| slice.target > 0).map(SliceCounts::dice).collect();
            let want = about["tumour_slice_dice"].as_array().unwrap();
            for (got, want) in tumour.iter().zip(want) {
                close("slice Dice", *got, want);
            }
            report.holds("tumour slices", name, tumour.len() == want.len());
        }
        report.finish(&format!("metrics on {device}"));
    }
}

#[test]
fn golden_schedules() {
    let Some(golden) = Golden::open("ops") else { return };
    let mut report = Report::default();
    for about in golden.json["schedules"].as_array().unwrap() {
        let (name, kind) = (about["case"].as_str().unwrap(), about["kind"].as_str().unwrap());
        let of = |key: &str| about[key].as_f64().unwrap();
        let start = TrainConfig { lr: of("lr"), min_lr: 0.0, warmup_epochs: 0, ..TrainConfig::default() };
        let config = match kind {
            "CosineAnnealingLR" => {
                let epochs = about["t_max"].as_u64().unwrap() as usize;
                TrainConfig { epochs, min_lr: of("eta_min"), schedule: Schedule::Cosine, ..start }
            }
            "ReduceLROnPlateau" => TrainConfig {
                min_lr: of("min_lr"),
                schedule: Schedule::Plateau,
                lr_factor: of("factor"),
                lr_patience: about["patience"].as_u64().unwrap() as usize,
                ..start
            },
            "MultiStepLR" => TrainConfig {
                schedule: Schedule::MultiStep,
                lr_factor: of("gamma"),
                milestones: numbers(&about["milestones"]).into_iter().map(|epoch| epoch as usize).collect(),
                ..start
            },
            _ if kind.starts_with("ConstantLR") => TrainConfig { schedule: Schedule::Constant, ..start },
            _ => {
                skipped(name, &format!("no schedule {kind} yet"));
                continue;
            }
        };
        let losses = about["losses"].as_array().map(|_| numbers(&about["losses"]));
        let mut plateau = Plateau::default();
        for (epoch, want) in numbers(&about["values"]).iter().enumerate() {
            let name = format!("{name} epoch {epoch}");
            report.check(kind, &name, (config.rate(&plateau, epoch, 0, 10) / want - 1.0).abs(), 1e-9);
            if let Some(losses) = &losses {
                plateau.step(&config, losses[epoch]);
            }
        }
    }
    report.finish("schedules");
}
