//! Cases of the transposed convolution: kernels that meet (2x2 and 3x3 at their own stride), that overlap and that leave
//! gaps, padding and output padding, odd and prime sizes, one-pixel images, channels that divide by 4 and that do not.
//!
//! The reference is the formula term by term; the twin is the convolution's blocked code, and is compared with it too.

use std::cell::RefCell;

use shadegrad::cpu::conv_transpose2d::{ConvTranspose2dParams, backward_input, backward_weight, forward};
use shadegrad::ops::conv_transpose2d::SpreadKernel;
use shadegrad::ops::{BatchNormSettings, Mode, RunningStats, Version};
use shadegrad::{Device, Tape, ops};

use super::conv2d::{but_some, usual_in_software};
use super::{Case, Checks, GradientCase, SUMS, batch_norm, doubles, numbers};

const OP: &str = "conv_transpose2d";

/// What the gradients of a batch norm's weight and bias are called where it is part of a convolution.
const SUMMED: [&str; 2] = ["backward_input norm weight", "backward_input norm bias"];

/// Shape of x, kernel, channels of y; stride, padding, output padding; bias.
type Sizes = ([usize; 4], [usize; 2], usize, [usize; 3], bool);

pub fn cases() -> Vec<Case> {
    let sizes: [Sizes; 20] = [
        // 2x2, stride 2: the networks
        ([1, 1, 1, 1], [2, 2], 1, [2, 0, 0], true),
        ([1, 1, 1, 8], [2, 2], 4, [2, 0, 0], true),
        ([2, 5, 7, 6], [2, 2], 4, [2, 0, 0], true),
        ([1, 13, 3, 3], [2, 2], 5, [2, 0, 0], false),
        ([3, 7, 11, 16], [2, 2], 8, [2, 0, 0], false),
        ([1, 9, 17, 7], [2, 2], 12, [2, 0, 0], true),
        ([2, 16, 16, 64], [2, 2], 32, [2, 0, 0], true),
        ([8, 32, 32, 16], [2, 2], 8, [2, 0, 0], true),
        // Other kernels that meet
        ([2, 3, 5, 5], [3, 3], 8, [3, 0, 0], true),
        ([1, 4, 3, 8], [1, 1], 8, [1, 0, 0], true),
        // Overlap: the 3x3 of other decoders
        ([1, 6, 7, 5], [3, 3], 3, [2, 1, 1], true),
        ([2, 5, 4, 8], [3, 3], 16, [2, 1, 1], false),
        ([1, 5, 6, 3], [4, 4], 8, [2, 1, 0], true),
        ([2, 1, 3, 4], [5, 3], 7, [1, 0, 0], true),
        // Gaps, and an output padding next to kernels that meet
        ([1, 4, 5, 8], [2, 2], 4, [3, 0, 0], true),
        ([1, 3, 4, 8], [2, 2], 4, [2, 0, 1], true),
        ([1, 1, 2, 3], [1, 1], 5, [4, 0, 3], false),
        // Several images per binding
        ([8, 16, 16, 16], [2, 2], 8, [2, 0, 0], true),
        ([6, 16, 16, 3], [2, 2], 5, [2, 0, 0], false),
        // Padding that cuts most of it off
        ([1, 3, 3, 4], [3, 3], 4, [1, 2, 0], true),
    ];
    // Where the column tiles are a power of two the gradient's kernel also begins that of the batch norm.
    let normed = [24, 32].into_iter().flat_map(|channels| [Mode::Train, Mode::Eval].map(|mode| (channels, mode)));
    sizes.into_iter().map(case).chain(normed.map(|(channels, mode)| after_norm(channels, mode))).collect()
}

/// x is the result of a batch norm and a ReLU, which the kernels compute where they read it.
fn after_norm(channels: usize, mode: Mode) -> Case {
    let (shape, weight_shape, out) = ([3, 5, 7, channels], [2, 2, 16, channels], 16);
    let name = format!("{shape:?} normed {mode:?}, kernel [2, 2] -> {out} stride 2");
    Case::new(OP, name.clone(), move |device, checks| {
        let p = params(shape, [2, 2], out, [2, 0, 0], true);
        let x = checks.stored(numbers(&name, shape.iter().product()));
        let gy = checks.stored(numbers("gy", Results::zeros(&p).y.len()));
        let [weight, bias, mean] = ["weight", "bias", "mean"].map(|name| numbers(name, shape[3]));
        let var: Vec<f32> = numbers("var", shape[3]).iter().map(|v| 0.5 + 0.25 * v).collect();
        let (w, b) = (numbers("w", weight_shape.iter().product()), numbers("b", out));
        let (w64, b64, gy64) = (doubles(&w), doubles(&b), doubles(&gy));
        let want_w = RefCell::default();
        let want = batch_norm::reference(
            &batch_norm::params(shape, mode, true),
            &doubles(&x),
            [&doubles(&weight), &doubles(&bias)],
            [&doubles(&mean), &doubles(&var)],
            |v| {
                let all = Results::naive(&p, v, &w64, Some(&b64), &gy64);
                want_w.replace(all.gw);
                [all.y, all.gx]
            },
        );
        let (tape, settings) = (Tape::new(), BatchNormSettings { relu: true, ..BatchNormSettings::new(mode) });
        let w = tape.watch_input(&device.tensor(OP, weight_shape, &w)?);
        let b = device.tensor(OP, [out], &b)?;
        // The gradient of what is normalised is an image that nobody sees.
        let parameter = checks.through(batch_norm::PARAMETER);
        let bounds = [SUMS, SUMS, parameter, parameter];
        let (vectors, sums) = ([&weight[..], &bias, &mean, &var], SUMMED);
        let inputs = batch_norm::Inputs { op: OP, sums, shape, x: &x, vectors, gy: &gy, bounds };
        let grads = batch_norm::run(device, tape, checks, &inputs, "selected", &want, |x, [weight, bias], running| {
            let v = ops::batch_norm(x, weight, bias, running, &settings)?;
            ops::conv_transpose2d(&v, &w, Some(&b), 2, 0, 0)
        })?;
        checks.compare("backward_weight", "selected", grads.of(&w).expect("watched"), &want_w.into_inner(), SUMS)?;
        if matches!(device, Device::Cpu(_)) {
            return Ok(()); // one version
        }
        let vector = |values: &[f32]| device.tensor(OP, [channels], values);
        let (x, mean, var) = (checks.image(device, shape, &x)?, vector(&mean)?, vector(&var)?);
        let running = RunningStats { mean: &mean, var: &var };
        for kernel in but_some(device, kernels(device, checks, &p)) {
            // The plain kernel has it written: then others would read that.
            let v = ops::batch_norm(&x, &vector(&weight)?, &vector(&bias)?, &running, &settings)?;
            let y = ops::conv_transpose2d::forward(&v, &w.detach(), Some(&b), 2, 0, 0, kernel)?;
            let bound = if kernel == Version::V1.into() { checks.through(SUMS) } else { SUMS };
            checks.compare("forward", &format!("{kernel} normed"), &y, &want.y, bound)?;
        }
        Ok(())
    })
}

fn params(x: [usize; 4], kernel: [usize; 2], out: usize, settings: [usize; 3], bias: bool) -> ConvTranspose2dParams {
    let [stride, padding, output_padding] = settings;
    let extent = |extent: usize, kernel: usize| ((extent - 1) * stride + kernel + output_padding - 2 * padding) as u32;
    ConvTranspose2dParams {
        batch: x[0] as u32,
        in_h: x[1] as u32,
        in_w: x[2] as u32,
        in_c: x[3] as u32,
        out_h: extent(x[1], kernel[0]),
        out_w: extent(x[2], kernel[1]),
        out_c: out as u32,
        kernel_h: kernel[0] as u32,
        kernel_w: kernel[1] as u32,
        stride: stride as u32,
        padding: padding as u32,
        has_bias: u32::from(bias),
        floor: f32::MIN,
    }
}

/// The result and the three gradients.
struct Results {
    y: Vec<f64>,
    gx: Vec<f64>,
    gw: Vec<f64>,
    gb: Vec<f64>,
}

impl Results {
    fn zeros(p: &ConvTranspose2dParams) -> Self {
        let zeros = |extents: [u32; 4]| vec![0.0; extents.iter().product::<u32>() as usize];
        Self {
            y: zeros([p.batch, p.out_h, p.out_w, p.out_c]),
            gx: zeros([p.batch, p.in_h, p.in_w, p.in_c]),
            gw: zeros([p.kernel_h, p.kernel_w, p.out_c, p.in_c]),
            gb: zeros([p.out_c, 1, 1, 1]),
        }
    }

    /// The formula and its derivatives: each x scatters its kernels.
    fn naive(p: &ConvTranspose2dParams, x: &[f64], w: &[f64], bias: Option<&[f64]>, gy: &[f64]) -> Self {
        let mut all = Self::zeros(p);
        let [in_w, in_c, out_w, out_c] = [p.in_w, p.in_c, p.out_w, p.out_c].map(|extent| extent as usize);
        for (at, g) in gy.iter().enumerate() {
            all.y[at] = bias.map_or(0.0, |bias| bias[at % out_c]);
            all.gb[at % out_c] += g;
        }
        for (x_at, x) in x.iter().enumerate() {
            let (ci, pixel) = (x_at % in_c, x_at / in_c);
            let (ix, row) = (pixel % in_w, pixel / in_w);
            let (iy, n) = (row % p.in_h as usize, row / p.in_h as usize);
            for (w_at, w) in w.iter().enumerate().skip(ci).step_by(in_c) {
                let (co, tap) = (w_at / in_c % out_c, w_at / in_c / out_c);
                let (ky, kx) = (tap / p.kernel_w as usize, tap % p.kernel_w as usize);
                let oy = (iy * p.stride as usize + ky).wrapping_sub(p.padding as usize);
                let ox = (ix * p.stride as usize + kx).wrapping_sub(p.padding as usize);
                if oy < p.out_h as usize && ox < out_w {
                    let at = ((n * p.out_h as usize + oy) * out_w + ox) * out_c + co;
                    all.y[at] += x * w;
                    all.gx[x_at] += gy[at] * w;
                    all.gw[w_at] += gy[at] * x;
                }
            }
        }
        all
    }

    fn twin(p: &ConvTranspose2dParams, x: &[f64], w: &[f64], bias: Option<&[f64]>, gy: &[f64]) -> Self {
        let mut all = Self::zeros(p);
        forward(p, x, w, bias, &mut all.y);
        backward_input(p, gy, w, &mut all.gx);
        backward_weight(p, x, gy, &mut all.gw, Some(&mut all.gb));
        all
    }
}

fn case((shape, kernel, out, settings, with_bias): Sizes) -> Case {
    let [stride, padding, output_padding] = settings;
    let bias = if with_bias { " bias" } else { "" };
    let name =
        format!("{shape:?} kernel {kernel:?} -> {out} stride {stride} padding {padding} + {output_padding}{bias}");
    Case::new(OP, name, move |device, checks| {
        let p = params(shape, kernel, out, settings, with_bias);
        let weight_shape = [kernel[0], kernel[1], out, shape[3]];
        let out_shape = [shape[0], p.out_h as usize, p.out_w as usize, out];
        let x = checks.stored(numbers("x", shape.iter().product()));
        let gy = checks.stored(numbers("gy", out_shape.iter().product()));
        let (w, b) = (numbers("w", weight_shape.iter().product()), numbers("b", out));

        let bias = with_bias.then(|| doubles(&b));
        let (x64, w64, gy64) = (doubles(&x), doubles(&w), doubles(&gy));
        let want = Results::naive(&p, &x64, &w64, bias.as_deref(), &gy64);
        let twin = Results::twin(&p, &x64, &w64, bias.as_deref(), &gy64);
        let pairs = [
            ("twin forward", twin.y, &want.y),
            ("twin backward_input", twin.gx, &want.gx),
            ("twin backward_weight", twin.gw, &want.gw),
            ("twin backward_weight bias", twin.gb, &want.gb),
        ];
        for (entry, twin, naive) in pairs {
            checks.twin(entry, &twin, naive);
        }

        let x = checks.image(device, shape, &x)?;
        let w = device.tensor(OP, weight_shape, &w)?;
        let b = device.tensor(OP, [out], &b)?;
        let gy = checks.image(device, out_shape, &gy)?;
        let tape = Tape::new();
        let (input, weight, bias) = (tape.watch_input(&x), tape.watch_input(&w), tape.watch_input(&b));
        let y = ops::conv_transpose2d(&input, &weight, with_bias.then_some(&bias), stride, padding, output_padding)?;
        let grads = tape.backward_from(&y, &gy)?;
        let of = |tensor| grads.of(tensor).expect("watched");
        checks.compare("forward", "selected", &y, &want.y, SUMS)?;
        checks.compare("backward_input", "selected", of(&input), &want.gx, SUMS)?;
        checks.compare("backward_weight", "selected", of(&weight), &want.gw, SUMS)?;
        if with_bias {
            checks.compare("backward_weight bias", "selected", of(&bias), &want.gb, SUMS)?;
        }
        if matches!(device, Device::Cpu(_)) {
            return Ok(()); // one version
        }
        for kernel in kernels(device, checks, &p) {
            let bias = with_bias.then_some(&b);
            let y = ops::conv_transpose2d::forward(&x, &w, bias, stride, padding, output_padding, kernel)?;
            checks.compare("forward", &kernel.to_string(), &y, &want.y, SUMS)?;
        }
        Ok(())
    })
}

/// The kernels that take these sizes; with 16-bit floats also those for matrix units.
fn kernels(device: &Device, checks: &Checks, p: &ConvTranspose2dParams) -> Vec<SpreadKernel> {
    let mut kernels: Vec<SpreadKernel> =
        ops::conv_transpose2d::kernels(device, p).into_iter().map(Into::into).collect();
    if checks.is_half() {
        usual_in_software(device, &mut kernels);
        kernels.extend(ops::conv_transpose2d::matrix_kernels(device, p).into_iter().map(SpreadKernel::Matrix));
    }
    kernels
}

pub fn gradients() -> Vec<GradientCase> {
    let of = |shape: [usize; 4], kernel: [usize; 2], out: usize, settings: [usize; 3]| {
        let p = params(shape, kernel, out, settings, true);
        let zeros = Results::zeros(&p);
        let x = doubles(&numbers("finite x", zeros.gx.len()));
        let w = doubles(&numbers("finite w", zeros.gw.len()));
        let b = doubles(&numbers("finite b", out));
        let gy = doubles(&numbers("finite gy", zeros.y.len()));
        let all = Results::twin(&p, &x, &w, Some(&b), &gy);
        GradientCase {
            name: format!("{OP} x, weight, bias {shape:?} kernel {kernel:?} -> {out} {settings:?}"),
            inputs: vec![x, w, b],
            gradients: vec![all.gx, all.gw, all.gb],
            value: Box::new(move |inputs| {
                let mut y = vec![0.0; gy.len()];
                forward(&p, &inputs[0], &inputs[1], Some(&inputs[2]), &mut y);
                y.iter().zip(&gy).map(|(y, g)| y * g).sum()
            }),
            tolerance: 1e-8,
        }
    };
    vec![
        of([2, 3, 4, 3], [2, 2], 2, [2, 0, 0]),
        of([1, 3, 2, 2], [3, 3], 3, [2, 1, 1]),
        of([1, 2, 3, 1], [3, 2], 2, [1, 0, 0]),
    ]
}
