//! Cases of batch normalisation: means far from 0, variances below eps, two values per channel, channels that do and
//! do not divide by 4, from 1 to 1024, several chunks and slabs, images smaller than a chunk; both modes, with and without a
//! ReLU; gradients of the parameters alone.

use shadegrad::cpu::batch_norm::{self as plain, BatchNormParams, Gate};
use shadegrad::ops::batch_norm::{BatchNormSettings, forward, kernels};
use shadegrad::ops::{Mode, RunningStats, Version};
use shadegrad::{Device, Gradients, Result, Tape, Tensor};

use super::{Case, Checks, EXACT, GradientCase, POINTWISE, SUMS, Tolerance, doubles, numbers};

const OP: &str = "batch_norm";
const EPS: f32 = 1e-5;
const MOMENTUM: f32 = 0.1;

/// x = mean + spread * [-1, 1).
#[derive(Clone, Copy)]
struct Spread {
    name: &'static str,
    mean: f32,
    spread: f32,
}

const PLAIN: Spread = Spread { name: "", mean: 0.3, spread: 1.0 };
/// 250 deviations away from 0, as the first layer sees doubly scaled images; f32 holds such a mean to 1.5e-5
/// deviations (half a unit in the last place), and every result inherits that.
const FAR: Spread = Spread { name: " far mean", mean: 100.0, spread: 0.7 };
/// The variance (1.3e-6) is below eps.
const TINY: Spread = Spread { name: " tiny variance", mean: -0.002, spread: 0.002 };

/// From the rounding of the mean, see [`FAR`]: 3e-5 deviations at most, times the largest weight.
const FAR_MEAN: Tolerance = Tolerance { nmse: 1e-8, absolute: 1e-4 };
/// With two values per channel the true gradient is all but 0: eps / variance of what cancels.
const CANCELS: Tolerance = Tolerance { nmse: 1.0, absolute: 1e-5 };

/// Gradients of weight and bias: sums of thousands of numbers of both signs, which may cancel to a hundredth. With few
/// channels nothing else is in the norm that the error is compared with.
pub(super) const PARAMETER: Tolerance = Tolerance { nmse: 1e-11, absolute: 5e-6 };

/// The kernel that sums up the gradients of weight and bias.
pub(super) const SUMS_ENTRY: [&str; 2] = ["backward_sums weight", "backward_sums bias"];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in [Mode::Train, Mode::Eval] {
        for spread in [PLAIN, FAR, TINY] {
            cases.push(case([2, 7, 9, 5], spread, mode, false));
            cases.push(case([4, 32, 32, 16], spread, mode, false));
        }
        for relu in [false, true] {
            cases.push(case([1, 1, 2, 3], PLAIN, mode, relu));
            cases.push(case([2, 1, 1, 160], PLAIN, mode, relu));
            cases.push(case([3, 17, 31, 1], PLAIN, mode, relu));
            cases.push(case([2, 53, 61, 20], PLAIN, mode, relu));
            cases.push(case([1, 37, 41, 132], PLAIN, mode, relu));
            cases.push(case([16, 4, 4, 64], PLAIN, mode, relu));
            cases.push(case([2, 33, 37, 4], PLAIN, mode, relu));
            cases.push(case([2, 5, 7, 1024], PLAIN, mode, relu));
            // More chunks than a workgroup of the gradient has rows, several slabs, and several of them in a range of
            // images where bindings are small.
            cases.push(case([16, 24, 24, 20], PLAIN, mode, relu));
            cases.push(case([24, 8, 8, 160], PLAIN, mode, relu));
        }
    }
    cases.push(case([1, 1, 1, 8], PLAIN, Mode::Eval, false));
    cases.extend([[3, 17, 31, 5], [16, 24, 24, 20]].map(parameters_alone));
    cases.push(refusal());
    cases
}

/// The sizes that the twin needs; what only the kernels look at stays 0.
pub(super) fn params([n, h, w, c]: [usize; 4], mode: Mode, relu: bool) -> BatchNormParams {
    BatchNormParams {
        images: n as u32,
        image_pixels: (h * w) as u32,
        channels: c as u32,
        chunk: 0,
        image_chunks: 0,
        chunks: 0,
        first_chunk: 0,
        columns: 0,
        slab: 0,
        turns: 0,
        momentum: MOMENTUM,
        eps: EPS,
        inverse_count: if mode == Mode::Train { 1.0 / (n * h * w) as f32 } else { 0.0 },
        accumulate: 0,
        floor: if relu { 0.0 } else { f32::MIN },
    }
}

/// What an op that begins with a batch normalisation gives.
pub(super) struct Reference {
    pub(super) y: Vec<f64>,
    pub(super) gx: Vec<f64>,
    pub(super) gw: Vec<f64>,
    pub(super) gb: Vec<f64>,
    running: [Vec<f64>; 2],
}

/// Normalises x; `then` takes the normalised numbers v and returns what the op makes of them, and the gradient of v.
pub(super) fn reference(
    p: &BatchNormParams,
    x: &[f64],
    [weight, bias]: [&[f64]; 2],
    running: [&[f64]; 2],
    then: impl Fn(&[f64]) -> [Vec<f64>; 2],
) -> Reference {
    let channels = p.channels as usize;
    let [mut mean, mut variance] = running.map(<[f64]>::to_vec);
    let mut running = running.map(<[f64]>::to_vec);
    if p.inverse_count > 0.0 {
        plain::statistics(p, x, &mut mean, &mut variance);
        plain::update_mean(p, &mean, &mut running[0]);
        plain::update_var(p, &variance, &mut running[1]);
    }
    let mut v = vec![0.0; x.len()];
    plain::forward(p, x, [weight, bias], [&mean, &variance], &mut v);
    let [y, gv] = then(&v);
    let (mut gw, mut gb, mut gx) = (vec![0.0; channels], vec![0.0; channels], vec![0.0; x.len()]);
    let gate = Gate::new(p, 0.0);
    plain::backward_sums(p, gate, x, &gv, [weight, bias, &mean, &variance], &mut gw, &mut gb);
    plain::backward_input(p, gate, x, &gv, [weight, bias, &mean, &variance], [&gw, &gb], &mut gx);
    Reference { y, gx, gw, gb, running }
}

fn values(name: &str, count: usize, spread: Spread) -> Vec<f32> {
    numbers(name, count).iter().map(|v| spread.mean + spread.spread * v).collect()
}

fn case(shape: [usize; 4], spread: Spread, mode: Mode, relu: bool) -> Case {
    let name = format!("{shape:?} {mode:?}{}{}", spread.name, if relu { " relu" } else { "" });
    Case::new(OP, name.clone(), move |device, checks| {
        let channels = shape[3];
        let x = checks.stored(values(&name, shape.iter().product(), spread));
        let weight = values("weight", channels, Spread { name: "", mean: 1.0, spread: 0.5 });
        let bias = numbers("bias", channels);
        // Eval mode meets a batch that its running statistics describe.
        let mean = values("mean", channels, Spread { spread: 0.1 * spread.spread, ..spread });
        let var = values("var", channels, Spread { name: "", mean: 0.5, spread: 0.25 });
        let var: Vec<f32> = var.iter().map(|v| v * spread.spread * spread.spread).collect();
        let gy = checks.stored(numbers("gy", x.len()));
        let want = reference(
            &params(shape, mode, relu),
            &doubles(&x),
            [&doubles(&weight), &doubles(&bias)],
            [&doubles(&mean), &doubles(&var)],
            |v| [v.to_vec(), doubles(&gy)],
        );
        let far = spread.name == FAR.name;
        let cancels = mode == Mode::Train && shape[..3].iter().product::<usize>() == 2;
        let inputs = Inputs {
            op: OP,
            sums: SUMS_ENTRY,
            shape,
            x: &x,
            vectors: [&weight, &bias, &mean, &var],
            gy: &gy,
            bounds: match far {
                true => [FAR_MEAN, FAR_MEAN, FAR_MEAN, PARAMETER],
                false => [POINTWISE, if cancels { CANCELS } else { SUMS }, PARAMETER, PARAMETER],
            },
        };
        for kernel in kernels(device, channels) {
            let settings = BatchNormSettings { mode, momentum: MOMENTUM, eps: EPS, relu };
            let op = |x: &Tensor, [weight, bias]: [&Tensor; 2], running: &RunningStats<'_>| {
                forward(x, weight, bias, running, &settings, kernel)
            };
            run(device, Tape::new(), checks, &inputs, &kernel.to_string(), &want, op)?;
            if matches!(device, Device::Cpu(_)) {
                break; // the plain twin has one version
            }
        }
        Ok(())
    })
}

/// What an op that begins with a batch normalisation takes.
pub(super) struct Inputs<'a> {
    pub(super) op: &'static str,
    /// What the gradients of weight and bias are called.
    pub(super) sums: [&'static str; 2],
    pub(super) shape: [usize; 4],
    pub(super) x: &'a [f32],
    /// Weight, bias, running mean and variance.
    pub(super) vectors: [&'a [f32]; 4],
    pub(super) gy: &'a [f32],
    /// For y, the gradient of x, that of the weight and that of the bias.
    pub(super) bounds: [Tolerance; 4],
}

/// Runs the op forward and backward and compares; returns the gradients, for what else the tape watches.
pub(super) fn run(
    device: &Device,
    tape: Tape,
    checks: &mut Checks,
    inputs: &Inputs<'_>,
    version: &str,
    want: &Reference,
    op: impl Fn(&Tensor, [&Tensor; 2], &RunningStats<'_>) -> Result<Tensor>,
) -> Result<Gradients> {
    let vector = |which: usize| device.tensor(inputs.op, [inputs.shape[3]], inputs.vectors[which]);
    let x = tape.watch_input(&checks.image(device, inputs.shape, inputs.x)?);
    let (weight, bias) = (tape.watch_input(&vector(0)?), tape.watch_input(&vector(1)?));
    let (mean, var) = (vector(2)?, vector(3)?);
    let y = op(&x, [&weight, &bias], &RunningStats { mean: &mean, var: &var })?;
    let grads = tape.backward_from(&y, &checks.image(device, y.shape(), inputs.gy)?)?;

    let [pointwise, input, weight_bound, bias_bound] = inputs.bounds;
    checks.compare("forward", version, &y, &want.y, pointwise)?;
    checks.compare("forward running mean", version, &mean, &want.running[0], POINTWISE)?;
    checks.compare("forward running var", version, &var, &want.running[1], POINTWISE)?;
    let mut gradient = |entry, of: &Tensor, want: &[f64], tolerance| match grads.of(of) {
        Some(got) => checks.compare(entry, version, got, want, tolerance),
        None => Err(shadegrad::Error::Tape(format!("{entry}: no gradient"))),
    };
    gradient("backward_input", &x, &want.gx, input)?;
    gradient(inputs.sums[0], &weight, &want.gw, weight_bound)?;
    gradient(inputs.sums[1], &bias, &want.gb, bias_bound)?;
    // The next version gets these buffers again: what it does not write must not be right by chance.
    for result in [Some(&y), grads.of(&x)].into_iter().flatten() {
        result.write(&vec![f32::NAN; result.len()])?;
    }
    Ok(grads)
}

/// Where nobody wants the gradient of x, another kernel makes those of weight and bias.
fn parameters_alone(shape: [usize; 4]) -> Case {
    Case::new(OP, format!("{shape:?} parameters alone"), move |device, checks| {
        let [_, _, _, channels] = shape;
        let vector = |name, mean| device.tensor(OP, [channels], &values(name, channels, Spread { mean, ..PLAIN }));
        let ((x, _), (gy, _)) = (checks.input(device, "alone", shape)?, checks.input(device, "gy", shape)?);
        for kernel in [Version::V1, Version::V2].into_iter().filter(|v| *v == Version::V1 || channels.is_multiple_of(4))
        {
            let gradients = |with_x| {
                let tape = Tape::new();
                let (weight, bias) =
                    (tape.watch_input(&vector("weight", 0.3)?), tape.watch_input(&vector("bias", 0.0)?));
                let x = if with_x { tape.watch_input(&x) } else { x.clone() };
                let running = RunningStats { mean: &vector("mean", 0.0)?, var: &vector("var", 1.5)? };
                let settings = BatchNormSettings { relu: true, ..BatchNormSettings::new(Mode::Train) };
                let grads = tape.backward_from(&forward(&x, &weight, &bias, &running, &settings, kernel)?, &gy)?;
                let of = |tensor| grads.of(tensor).map_or_else(|| Ok(Vec::new()), Tensor::to_vec);
                Ok::<_, shadegrad::Error>([of(&weight)?, of(&bias)?])
            };
            let ([weight, bias], with_x) = (gradients(false)?, gradients(true)?);
            checks.values("backward_sums weight", kernel.name(), &weight, &doubles(&with_x[0]), PARAMETER);
            checks.values("backward_sums bias", kernel.name(), &bias, &doubles(&with_x[1]), PARAMETER);
        }
        Ok(())
    })
}

/// Train mode with one value per channel is an error that says what to do.
fn refusal() -> Case {
    Case::new(OP, "one value per channel is refused", |device, checks| {
        let vector = |value: f32| device.tensor(OP, [3], &[value; 3]);
        let running = RunningStats { mean: &vector(0.0)?, var: &vector(1.0)? };
        let x = checks.image(device, [1, 1, 1, 3], &[0.0; 3])?;
        let settings = BatchNormSettings::new(Mode::Train);
        let result = shadegrad::ops::batch_norm(&x, &vector(1.0)?, &vector(0.0)?, &running, &settings);
        let refused = result.err().is_some_and(|error| error.to_string().contains("larger batch"));
        checks.values("refusal", "v1", &[f32::from(u8::from(refused))], &[1.0], EXACT);
        Ok(())
    })
}

pub fn gradients() -> Vec<GradientCase> {
    let shape = [2, 3, 2, 3];
    let gy = doubles(&numbers("finite gy", shape.iter().product()));
    let modes = [(Mode::Train, false), (Mode::Eval, false), (Mode::Train, true), (Mode::Eval, true)];
    let case = |(mode, relu)| {
        let of_y = gy.clone();
        let name = format!("{OP} {mode:?}{}", if relu { " relu" } else { "" });
        gradient_case(name, shape, params(shape, mode, relu), &gy, move |v| [v.to_vec(), of_y.clone()])
    };
    modes.map(case).into()
}

/// Gradients of x, weight and bias of a [`reference`], to be compared with finite differences.
pub(super) fn gradient_case(
    name: String,
    shape: [usize; 4],
    p: BatchNormParams,
    gy: &[f64],
    then: impl Fn(&[f64]) -> [Vec<f64>; 2] + 'static,
) -> GradientCase {
    let inputs = vec![
        doubles(&numbers("finite", shape.iter().product())),
        doubles(&values("finite weight", 3, Spread { name: "", mean: 1.0, spread: 0.5 })),
        doubles(&numbers("finite bias", 3)),
    ];
    let running = [doubles(&numbers("finite mean", 3)), vec![0.5, 1.0, 1.5]];
    let run = move |i: &[Vec<f64>]| reference(&p, &i[0], [&i[1], &i[2]], [&running[0], &running[1]], &then);
    let result = run(&inputs);
    let gy = gy.to_vec();
    GradientCase {
        name,
        inputs,
        value: Box::new(move |inputs| run(inputs).y.iter().zip(&gy).map(|(y, g)| y * g).sum()),
        gradients: vec![result.gx, result.gw, result.gb],
        tolerance: 1e-6,
    }
}
