//! Every entry point and version against its f64 twin, on every device.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use shadegrad::cpu::conv2d::Conv2dParams;
use shadegrad::cpu::linear::LinearParams;
use shadegrad::gpu::{Constants, Context, GpuOptions};
use shadegrad::ops::conv2d::{self, GatherKernel, WeightKernel};
use shadegrad::ops::{BatchNormSettings, Kernel, Mode, RunningStats, Sample, Slices, linear, load_batch, together};
use shadegrad::{Device, Error, Shape, Tape};

use crate::{devices, ops};

/// What a comparison was of: op, entry point and which of its results, version.
pub(crate) type Compared = (&'static str, &'static str, String);

/// Runs all cases on the CPU; what they compared. Done once, whoever asks first.
pub(crate) fn compared_on_cpu() -> &'static BTreeSet<Compared> {
    static COMPARED: OnceLock<BTreeSet<Compared>> = OnceLock::new();
    COMPARED.get_or_init(|| run(&Device::cpu()))
}

/// As [`compared_on_cpu`], on the GPU under test; `None` without one.
pub(crate) fn compared_on_gpu() -> Option<&'static BTreeSet<Compared>> {
    static COMPARED: OnceLock<BTreeSet<Compared>> = OnceLock::new();
    devices::gpu().map(|device| COMPARED.get_or_init(|| run(device)))
}

fn run(device: &Device) -> BTreeSet<Compared> {
    let mut wrong = Vec::new();
    let mut kinds = BTreeSet::new();
    let mut compared = 0;
    let cases = ops::cases();
    let halves = cases.iter().filter(|case| case.has_half(device)).map(|case| (case, case.run_half(device)));
    for (case, outcomes) in cases.iter().map(|case| (case, case.run(device))).chain(halves) {
        match outcomes {
            Err(error) => wrong.push(format!("{} {}: {error}", case.op, case.name)),
            Ok(outcomes) => {
                assert!(!outcomes.is_empty(), "{} {} compared nothing", case.op, case.name);
                compared += outcomes.len();
                kinds.extend(outcomes.iter().map(|outcome| (case.op, outcome.entry, outcome.version.clone())));
                for bad in outcomes.into_iter().filter(|outcome| !outcome.ok) {
                    wrong.push(format!(
                        "{} {} {} {}: nmse {:.2e} (bound {:.0e}), largest difference {:.2e}; first wrong (index, got, wanted): {:?}",
                        case.op, bad.entry, bad.version, case.name, bad.nmse, bad.tolerance, bad.max_abs, bad.first_wrong
                    ));
                }
            }
        }
    }
    println!("{device}: {compared} comparisons");
    assert!(wrong.is_empty(), "{} wrong on {device}:\n{}", wrong.len(), wrong.join("\n"));
    kinds
}

#[test]
fn cpu_agrees_with_the_reference() {
    assert!(!compared_on_cpu().is_empty());
}

#[test]
fn gpu_agrees_with_the_reference() {
    assert!(compared_on_gpu().is_none_or(|kinds| !kinds.is_empty()));
}

/// A device of its own on the same adapter, with a smaller binding limit.
fn with_bindings(gpu: &Device, max_binding_bytes: Option<u64>) -> Device {
    let options = GpuOptions { name: Some(gpu.to_string()), max_binding_bytes, ..Default::default() };
    Device::Gpu(Context::open(&options).unwrap())
}

/// Numbers of both signs.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|at| (at * at % 23) as f32 / 7.0 - 1.0).collect()
}

/// With a tiny binding limit, ops launch once per range of images: the results stay right, or the op says that even
/// one image is too large. A case was split if it took more launches than without the limit.
#[test]
fn tensors_larger_than_a_binding_are_split() {
    let Some(device) = devices::gpu() else { return };
    let open = |max_binding_bytes| with_bindings(device, max_binding_bytes);
    // A device of its own to compare with: other tests launch on the shared one meanwhile.
    let (small, whole) = (open(Some(64 * 1024)), open(None));
    let (mut split, mut refused, mut wrong) = (BTreeMap::<&str, usize>::new(), 0, Vec::new());
    for case in ops::cases() {
        let before = small.dispatches();
        match case.run(&small) {
            Err(Error::Limit { .. }) => refused += 1,
            Err(error) => wrong.push(format!("{} {}: {error}", case.op, case.name)),
            Ok(outcomes) => {
                let launches = small.dispatches() - before;
                let before = whole.dispatches();
                case.run(&whole).unwrap();
                if launches > whole.dispatches() - before {
                    *split.entry(case.op).or_default() += 1;
                }
                wrong.extend(outcomes.iter().filter(|outcome| !outcome.ok).map(|bad| {
                    format!("{} {} {} {}: {:?}", case.op, bad.entry, bad.version, case.name, bad.first_wrong)
                }));
            }
        }
    }
    println!("{small} with bindings of 64 KiB: split {split:?}, refused {refused}");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(split.values().sum::<usize>() >= 8, "only {split:?} were split");
    for op in ["conv2d", "linear", "load_batch", "concat", "conv_transpose2d", "softmax"] {
        assert!(split.contains_key(op), "{op}: {split:?}");
    }
}

/// Winograd's form works in slabs of tiles, or in ranges of images; more and smaller ones give the same bits.
#[test]
fn slabs_change_no_bit() {
    let Some(gpu) = devices::gpu() else { return };
    let run = |kernel: GatherKernel, max_binding_bytes| {
        let device = with_bindings(gpu, max_binding_bytes);
        let (shape, weight) = ([3, 30, 31, 16], [3, 3, 16, 8]);
        let x = device.tensor("x", shape, &numbers(shape.iter().product())).unwrap();
        let w = device.tensor("w", weight, &numbers(weight.iter().product())).unwrap();
        let gx = device.empty("gx", shape).unwrap();
        let y = conv2d::forward(&x, &w, None, 1, 1, kernel).unwrap();
        let p = Conv2dParams::forward(shape, weight, 1, 1, false);
        conv2d::backward_input(&p, &y, &w, &gx, kernel).unwrap();
        (device.dispatches(), y.to_vec().unwrap(), gx.to_vec().unwrap())
    };
    for (kernel, more) in
        [(GatherKernel::Winograd(Constants::default()), 3), (GatherKernel::Fused(Constants::default()), 1)]
    {
        let (whole, small) = (run(kernel, None), run(kernel, Some(64 * 1024)));
        assert!(small.0 > more * whole.0, "{kernel}: {} launches, then {}", whole.0, small.0);
        assert!(whole.1 == small.1 && whole.2 == small.2, "{kernel}: slabs change bits");
    }
}

/// The weight gradient in Winograd's form adds up its slabs.
#[test]
fn slabs_of_the_weight_gradient_add_up() {
    let Some(gpu) = devices::gpu() else { return };
    let run = |kernel, max_binding_bytes| {
        let device = with_bindings(gpu, max_binding_bytes);
        let tensor = |shape: Shape| device.tensor("x", shape, &numbers(shape.len())).unwrap();
        let p = Conv2dParams::forward([3, 30, 31, 16], [3, 3, 16, 8], 1, 1, true);
        let (x, gy) = (tensor([3, 30, 31, 16].into()), tensor([3, 30, 31, 8].into()));
        let (gw, gb) = (device.empty("gw", [3, 3, 16, 8]).unwrap(), device.empty("gb", [8]).unwrap());
        conv2d::backward_weight(&p, &x, &gy, &gw, Some(&gb), kernel).unwrap();
        (device.dispatches(), [gw.to_vec().unwrap(), gb.to_vec().unwrap()].concat())
    };
    let want = run(WeightKernel::V1, None).1;
    let largest = want.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let kernel = WeightKernel::V5(Constants::default());
    let (whole, small) = (run(kernel, None), run(kernel, Some(128 * 1024)));
    assert!(small.0 >= whole.0 + 8, "{} launches, then {}", whole.0, small.0); // two for each further slab
    for (launches, got) in [whole, small] {
        let off = want.iter().zip(&got).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        // Both round; a slab that is lost or counted twice would be a sixth of the sum.
        assert!(off < 1e-5 * largest, "{launches} launches: {off} of {largest}");
    }
}

/// Neighbours that share what they read compute what each computes alone: groups of eight lanes or as many as a subgroup has, of
/// four, two and one, where 8, 4, 2 and 5 tiles stand side by side; and sums whose length is no multiple of them.
#[test]
fn sharing_changes_no_bit() {
    let Some(device) = devices::gpu() else { return };
    if !device.has_subgroups() {
        println!("NOT TESTED: {device} has no subgroups");
        return;
    }
    let tensor = |shape: Shape| device.tensor("x", shape, &numbers(shape.len())).unwrap();
    let run = |constants: Constants, channels: [usize; 2]| {
        let tiles = Kernel::tiled(constants);
        let (shape, weight) = ([3, 13, 15, channels[0]], [3, 3, channels[0], channels[1]]);
        let p = Conv2dParams::forward(shape, weight, 1, 1, true);
        let (x, w, b) = (tensor(shape.into()), tensor(weight.into()), tensor([channels[1]].into()));
        let mut all = Vec::new();
        for kernel in [GatherKernel::from(tiles), GatherKernel::Winograd(constants)] {
            let y = conv2d::forward_with_statistics(&x, &w, Some(&b), 1, 1, kernel).unwrap();
            let gx = device.empty("gx", shape).unwrap();
            conv2d::backward_input(&p, &y, &w, &gx, kernel).unwrap();
            let (gw, gb) = (device.empty("gw", weight).unwrap(), device.empty("gb", b.shape()).unwrap());
            conv2d::backward_weight(&p, &x, &y, &gw, Some(&gb), WeightKernel::V3(constants)).unwrap();
            all.extend([y.detach(), gx.detach(), gw, gb]);
            let (gw, gb) = (device.empty("gw", weight).unwrap(), device.empty("gb", b.shape()).unwrap());
            conv2d::backward_weight(&p, &x, &y, &gw, Some(&gb), WeightKernel::V5(constants)).unwrap();
            all.extend([gw, gb]);
            let (gw, gb) = (device.empty("gw", weight).unwrap(), device.empty("gb", b.shape()).unwrap());
            conv2d::backward(&p, [&x, &y, &w], &gx, &gw, Some(&gb), tiles).unwrap();
            all.extend([gx, gw, gb]);
        }
        let w = tensor([channels[0], channels[1]].into());
        let y = linear::forward(&x, &w, Some(&b), tiles).unwrap();
        let p = LinearParams {
            rows: (3 * 13 * 15) as u32,
            inputs: channels[0] as u32,
            outputs: channels[1] as u32,
            has_bias: 1,
            ..bytemuck::Zeroable::zeroed()
        };
        let (gw, gb) = (device.empty("gw", w.shape()).unwrap(), device.empty("gb", b.shape()).unwrap());
        linear::backward_weight(&p, &x, &y, &gw, Some(&gb), tiles).unwrap();
        all.extend([y, gw, gb]);
        all.iter().map(|tensor| tensor.to_vec().unwrap()).collect::<Vec<_>>()
    };
    for channels in [[24, 64], [72, 32], [16, 16], [8, 40]] {
        let (alone, shared) = (run(Constants::default(), channels), run(together(), channels));
        assert!(alone.iter().flatten().all(|value| value.is_finite()) && alone[0].iter().any(|value| *value != 0.0));
        for (which, (alone, shared)) in alone.iter().zip(&shared).enumerate() {
            assert!(alone == shared, "{channels:?}: result {which} differs");
        }
    }
}

/// The gradient of a batch normalisation adds up chunks that do not depend on how many images one launch covers, in an order
/// that does not depend on slabs: small bindings change no bit, nor does a second run.
#[test]
fn ranges_of_images_change_no_bit_of_batch_norm() {
    let Some(gpu) = devices::gpu() else { return };
    let run = |max_binding_bytes, pooled: bool| {
        let device = with_bindings(gpu, max_binding_bytes);
        let tensor = |shape: Shape| {
            let values: Vec<f32> = (0..shape.len()).map(|at| (at * at % 23) as f32 / 7.0).collect();
            device.tensor("x", shape, &values).unwrap()
        };
        let tape = Tape::new();
        let [x, weight, bias] =
            [Shape::from([16, 24, 24, 20]), [20].into(), [20].into()].map(|shape| tape.watch_input(&tensor(shape)));
        let (mean, var) = (tensor([20].into()), tensor([20].into()));
        let running = RunningStats { mean: &mean, var: &var };
        let settings = BatchNormSettings { relu: true, ..BatchNormSettings::new(Mode::Train) };
        let op = if pooled { shadegrad::ops::batch_norm_max_pool2d } else { shadegrad::ops::batch_norm };
        let y = op(&x, &weight, &bias, &running, &settings).unwrap();
        let before = device.dispatches();
        let grads = tape.backward_from(&y, &tensor(y.shape())).unwrap();
        let launches = device.dispatches() - before;
        (launches, [&x, &weight, &bias].map(|of| grads.of(of).unwrap().to_vec().unwrap()))
    };
    for pooled in [false, true] {
        let (whole, again, small) = (run(None, pooled), run(None, pooled), run(Some(64 * 1024), pooled));
        assert_eq!((whole.0, small.0), (2, 32), "sums and gradients of all images, then of each image");
        assert!(whole.1 == again.1, "two runs differ");
        assert!(whole.1 == small.1, "ranges of images change bits");
    }
}

/// A data set larger than one binding lies in several buffers; its batches have the bits of one that fits.
#[test]
fn a_data_set_larger_than_a_binding_loads_the_same_bits() {
    let Some(gpu) = devices::gpu() else { return };
    // Twelve slices of 64x64: 144 KiB of images, and a batch of six: 288 KiB.
    let load = |limit| {
        let device = with_bindings(gpu, limit);
        let bytes: Vec<u8> = (0..12 * 64 * 64 * 3_usize).map(|at| (at * at / 7 % 251) as u8).collect();
        let masks: Vec<u8> = bytes.iter().step_by(3).map(|byte| byte & 1).collect();
        let slices =
            Slices::upload(&device, [64, 64], &bytes, &masks, &[[3.0, 200.0, 0.02, -1.5]; 3], [2, 1, 0]).unwrap();
        let samples: Vec<_> = [11, 0, 6, 5, 5, 10]
            .into_iter()
            .map(|slice| Sample { turn: slice as u32 % 4, flips: 1, ..Sample::plain(slice, 0) })
            .collect();
        let table = slices.table(6).unwrap();
        let (x, target) = (device.zeros("x", [6, 64, 64, 3]).unwrap(), device.zeros("target", [6, 64, 64, 1]).unwrap());
        load_batch(&slices, &samples, &table, &x, &target).unwrap();
        (slices.shards(), x.to_vec().unwrap(), target.to_vec().unwrap())
    };
    let (whole, small) = (load(None), load(Some(64 * 1024)));
    assert_eq!((whole.0, small.0), (1, 3));
    assert!(whole.1 == small.1 && whole.2 == small.2, "the split set loads other numbers");
}
