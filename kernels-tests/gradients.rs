//! Every gradient of the plain-Rust twins against finite differences in f64.

use shadegrad::gpu::plan::PlanEvent;
use shadegrad::nn::{Linear, Parameters};
use shadegrad::ops::{BatchNormSettings, Mode, RunningStats};
use shadegrad::{Device, Result, Tape, Tensor};

use crate::{devices, ops};

#[test]
fn twins_agree_with_finite_differences() {
    let mut wrong = Vec::new();
    for case in ops::gradients() {
        for (which, gradient) in case.gradients.iter().enumerate() {
            assert_eq!(gradient.len(), case.inputs[which].len(), "{}", case.name);
            let scale = gradient.iter().fold(1e-3_f64, |most, g| most.max(g.abs()));
            for (index, analytic) in gradient.iter().enumerate() {
                let numeric = difference(&case, which, index);
                if (numeric - analytic).abs() > case.tolerance * scale {
                    wrong.push(format!(
                        "{} input {which} [{index}]: {analytic} but differences give {numeric}",
                        case.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

/// Central differences of fourth order: error of the order of step^4.
fn difference(case: &ops::GradientCase, which: usize, index: usize) -> f64 {
    let at = |offset: f64| {
        let mut inputs = case.inputs.clone();
        inputs[which][index] += offset;
        (case.value)(&inputs)
    };
    let step = 1e-4;
    (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step)
}

/// An op of x that does not change its shape, and takes other tensors too.
type SameShape = fn(&Tensor, &dyn Fn(&[usize]) -> Result<Tensor>) -> Result<Tensor>;

/// The ops whose input gradient can be added to another one in place.
const ACCUMULATING: [(&str, SameShape); 4] = [
    ("conv2d", |x, numbers| {
        let c = x.shape().last();
        shadegrad::ops::conv2d(x, &numbers(&[3, 3, c, c])?, None, 1, 1)
    }),
    ("layer_norm", |x, numbers| {
        let c = x.shape().last();
        shadegrad::ops::layer_norm(x, &numbers(&[c])?, &numbers(&[c])?, 1e-5)
    }),
    ("batch_norm", |x, numbers| {
        let c = x.shape().last();
        let (mean, var) = (numbers(&[c])?, numbers(&[c])?);
        let running = RunningStats { mean: &mean, var: &var };
        shadegrad::ops::batch_norm(x, &numbers(&[c])?, &numbers(&[c])?, &running, &BatchNormSettings::new(Mode::Train))
    }),
    ("max_pool2d", |x, _| {
        let halved = shadegrad::ops::max_pool2d(x)?;
        shadegrad::ops::upsample_bilinear(&halved, false)
    }),
];

/// The gradient of x, which an op and a residual connection around it take.
fn residual(device: &Device, shape: [usize; 4], op: SameShape) -> Result<Tensor> {
    let planned = matches!(device, Device::Gpu(context) if context.is_planning());
    let tensor = |dims: &[usize]| {
        let shape = shadegrad::Shape::new(dims)?;
        let values = ops::numbers(&format!("{dims:?}"), shape.len());
        if planned { device.empty("test", shape) } else { device.tensor("test", shape, &values) }
    };
    let tape = Tape::new();
    let x = tape.watch_input(&tensor(&shape)?);
    let y = shadegrad::ops::relu(&shadegrad::ops::add(&shadegrad::ops::relu(&op(&x, &tensor)?)?, &x)?)?;
    let grads = tape.backward_from(&y, &tensor(&shape)?)?;
    Ok(grads.of(&x).expect("watched").clone())
}

/// On the CPU a sum of its own adds the gradients up; on a GPU the op's own kernel does.
#[test]
fn an_input_used_twice_gets_the_sum_of_both_gradients() -> Result<()> {
    for (name, op) in ACCUMULATING {
        for shape in [[2, 6, 8, 8], [2, 6, 8, 3]] {
            let want = residual(&Device::cpu(), shape, op)?.to_vec()?;
            let plan = Device::plan(None)?;
            residual(&plan, shape, op)?;
            let Device::Gpu(context) = &plan else { panic!("a plan is a GPU's") };
            for event in context.take_plan() {
                let PlanEvent::Launched(launch) = event else { continue };
                assert!(!launch.entry.starts_with("assign"), "{name} {shape:?}: {}.{}", launch.shader, launch.entry);
            }
            let Some(device) = devices::gpu() else { continue };
            let got = residual(device, shape, op)?.to_vec()?;
            let scale = want.iter().fold(0.0_f32, |most, g| most.max(g.abs()));
            let worst = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-5 * scale, "{name} {shape:?}: {worst} of {scale}");
        }
    }
    Ok(())
}

/// The end of a residual block, `2 y + conv2d(x)`: the sum and the gradients of y, x, weight and bias. With `held` somebody else has
/// 2 y too, and its numbers come last.
fn added(device: &Device, held: bool) -> Result<Vec<Tensor>> {
    let tensor = |name: &str, dims: &[usize]| {
        let shape = shadegrad::Shape::new(dims)?;
        device.tensor("test", shape, &ops::numbers(name, shape.len()))
    };
    let tape = Tape::new();
    let watched = [("y", &[2, 5, 6, 16][..]), ("x", &[2, 5, 6, 8]), ("weight", &[1, 1, 8, 16]), ("bias", &[16])];
    let watched = watched.map(|(name, dims)| tensor(name, dims).map(|tensor| tape.watch_input(&tensor)));
    let [y, x, weight, bias] = watched;
    let (y, x, weight, bias) = (y?, x?, weight?, bias?);
    let there = shadegrad::ops::add(&y, &y)?; // an op that keeps nothing
    let other = held.then(|| there.clone());
    let sum = shadegrad::ops::conv2d_added(there, &x, &weight, Some(&bias), (1, 0), true)?;
    let grads = tape.backward_from(&sum, &tensor("gradient", &[2, 5, 6, 16])?)?;
    let of = [&y, &x, &weight, &bias].map(|tensor| grads.of(tensor).expect("watched").clone());
    Ok([sum].into_iter().chain(of).chain(other).collect())
}

/// On a GPU the convolution adds its result to what it finds, unless somebody else has that.
#[test]
fn a_convolution_is_added_where_the_sum_stands() -> Result<()> {
    let Some(device) = devices::gpu() else { return Ok(()) };
    for held in [false, true] {
        let (want, got) = (added(&Device::cpu(), held)?, added(device, held)?);
        for (index, (want, got)) in want.iter().zip(&got).enumerate() {
            let (want, got) = (want.to_vec()?, got.to_vec()?);
            let scale = want.iter().fold(0.0_f32, |most, w| most.max(w.abs()));
            let worst = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-5 * scale, "held {held}, tensor {index}: {worst} of {scale}");
        }
        assert_eq!(got.len(), if held { 6 } else { 5 });
        assert_eq!(got[0].statistics().is_some(), !held, "held {held}");
    }
    Ok(())
}

/// The gradients of a linear layer's weight and bias for `rows` rows, from a device's own backward pass, and how many
/// launches added up chunks.
fn linear_gradients(device: &Device, rows: usize, channels: usize) -> Result<(Parameters, usize)> {
    let planned = matches!(device, Device::Gpu(context) if context.is_planning());
    let tensor = |dims: [usize; 2]| match planned {
        true => device.empty("test", dims),
        false => device.tensor("test", dims, &ops::numbers(&format!("{dims:?}"), dims[0] * dims[1])),
    };
    let mut layer = Linear::new(device, channels, channels)?;
    let parameters = Parameters::gather(&mut layer, device)?;
    let tape = Tape::new();
    let y = layer.forward(&tape.watch(&tensor([rows, channels])?))?;
    parameters.check(&tape.backward_from(&y, &tensor([rows, channels])?)?)?;
    let Device::Gpu(context) = device else { return Ok((parameters, 0)) };
    let sums = |event: &PlanEvent| matches!(event, PlanEvent::Launched(launch) if launch.shader == "sum_chunks");
    Ok((parameters, context.take_plan().iter().filter(|event| sums(event)).count()))
}

/// One chunk of rows is the gradient itself, where weight and bias stand one behind the other; else its sums are copied.
#[test]
fn one_chunk_needs_no_second_stage() -> Result<()> {
    for (rows, channels, launches) in [(8, 16, 0), (8, 10, 1), (1000, 16, 1)] {
        let (_, planned) = linear_gradients(&Device::plan(None)?, rows, channels)?;
        assert_eq!(planned, launches, "{rows} rows of {channels}");
        let Some(device) = devices::gpu() else { continue };
        let of = |device| linear_gradients(device, rows, channels)?.0.gradients.to_vec();
        let (want, got) = (of(&Device::cpu())?, of(device)?);
        let scale = want.iter().fold(0.0_f32, |most, g| most.max(g.abs()));
        let worst = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-5 * scale, "{rows} rows of {channels}: {worst} of {scale}");
    }
    Ok(())
}
