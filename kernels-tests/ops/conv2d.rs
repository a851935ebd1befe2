//! Cases of the convolution: kernels of 1, 2, 3 and 7 with strides 1, 2 and 4, odd and prime sizes, one-pixel images,
//! channels that divide by 8 and that do not, with and without bias, a long reduction, several images per binding.
//!
//! Every kernel that takes the shape is compared, whether or not `select` would choose it. The f64 twin is blocked
//! code, so small cases also compare it with [`naive`] loops that share nothing with it.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;

use shadegrad::cpu::conv2d::{Conv2dParams, backward_input, backward_weight, forward};
use shadegrad::ops::conv2d::{GatherKernel, WeightKernel};
use shadegrad::ops::matrix::MatrixKernel;
use shadegrad::ops::{BatchNormSettings, Kernel, Mode, RunningStats, conv2d_few};
use shadegrad::{Device, Result, Tape, Tensor, ops};

use super::{Case, Checks, GradientCase, SUMS, Tolerance, batch_norm, doubles, numbers};

const OP: &str = "conv2d";

/// What the gradients of a batch norm's weight and bias are called where it is part of a convolution.
const SUMMED: [&str; 2] = ["backward_input norm weight", "backward_input norm bias"];

/// Shape of x, kernel, channels of y, stride, padding, bias.
type Sizes = ([usize; 4], [usize; 2], usize, usize, usize, bool);

pub fn cases() -> Vec<Case> {
    let sizes: [Sizes; 48] = [
        // 3x3, stride 1, padding 1
        ([1, 1, 1, 1], [3, 3], 1, 1, 1, true),
        ([1, 1, 1, 8], [3, 3], 8, 1, 1, true),
        ([2, 7, 5, 3], [3, 3], 16, 1, 1, true),
        ([1, 13, 11, 5], [3, 3], 7, 1, 1, true),
        ([2, 5, 9, 8], [3, 3], 8, 1, 1, false),
        ([1, 17, 19, 7], [3, 3], 8, 1, 1, true),
        ([1, 6, 6, 16], [3, 3], 5, 1, 1, false),
        ([3, 9, 1, 24], [3, 3], 24, 1, 1, true),
        ([1, 8, 8, 64], [3, 3], 64, 1, 1, true),
        ([1, 6, 5, 72], [3, 3], 80, 1, 1, true), // more channels than the tile engine adds up at a time
        // 3x3, stride 2, padding 1
        ([1, 1, 1, 8], [3, 3], 8, 2, 1, true),
        ([2, 9, 7, 3], [3, 3], 8, 2, 1, true),
        ([1, 8, 10, 16], [3, 3], 24, 2, 1, true),
        ([2, 11, 13, 5], [3, 3], 1, 2, 1, false),
        ([1, 16, 16, 24], [3, 3], 64, 2, 1, true),
        // 1x1
        ([1, 1, 1, 3], [1, 1], 5, 1, 0, true),
        ([2, 7, 7, 16], [1, 1], 1, 1, 0, true),
        ([2, 5, 7, 64], [1, 1], 16, 1, 0, false),
        ([1, 7, 9, 8], [1, 1], 16, 2, 0, true),
        ([1, 5, 4, 8], [1, 1], 1024, 1, 0, false), // more column tiles than a workgroup has
        ([2, 8, 6, 7], [1, 1], 3, 2, 0, false),
        // 7x7, stride 4, padding 3
        ([1, 23, 17, 3], [7, 7], 8, 4, 3, true),
        ([1, 32, 32, 8], [7, 7], 16, 4, 3, true),
        ([2, 1, 2, 5], [7, 7], 7, 4, 3, true),
        // 2x2, stride 2: with rows and columns that no window sees
        ([2, 8, 6, 8], [2, 2], 16, 2, 0, true),
        ([1, 7, 5, 3], [2, 2], 5, 2, 0, false),
        // blocks of the input gradient whose pixels see some taps, or none; and as many classes as 3x3
        ([2, 33, 31, 16], [1, 1], 8, 2, 0, true),
        ([1, 34, 35, 8], [5, 5], 16, 3, 1, false),
        // More padding than the kernel needs, and kernels that are not square
        ([1, 3, 4, 8], [1, 3], 8, 1, 3, true),
        ([1, 5, 4, 3], [3, 5], 8, 2, 4, true),
        // v3: without padding, with so much that its input gradient cuts edges off, and more tiles than a slab holds
        ([2, 9, 11, 5], [3, 3], 16, 1, 0, true),
        ([1, 7, 6, 16], [3, 3], 8, 1, 2, true),
        ([1, 4, 3, 8], [3, 3], 8, 1, 4, false),
        ([1, 419, 421, 8], [3, 3], 8, 1, 1, true),
        // v7: more channels than a slab, and blocks that are not full, of more than one in each direction
        ([1, 12, 34, 9], [3, 3], 36, 1, 1, true),
        ([3, 6, 24, 9], [3, 3], 36, 1, 1, true), // with statistics
        // v6: runs of 64 pixels, one that is shorter, and padding that its input gradient cuts off
        ([1, 3, 70, 4], [3, 3], 8, 1, 1, true),
        ([2, 3, 128, 3], [3, 3], 12, 1, 1, true),
        ([1, 2, 64, 2], [3, 3], 8, 1, 2, false),
        ([2, 4, 66, 1], [3, 3], 16, 1, 0, true),
        ([1, 5, 66, 8], [3, 3], 2, 1, 1, true),
        ([1, 257, 260, 1], [3, 3], 64, 1, 1, true), // chunks of two rows, summed one at a time
        // Long sums, and several images per binding
        ([2, 128, 128, 8], [3, 3], 8, 1, 1, true),
        ([6, 32, 32, 8], [3, 3], 16, 1, 1, true),
        ([8, 32, 32, 16], [3, 3], 8, 2, 1, false),
        ([16, 16, 16, 16], [1, 1], 3, 1, 0, true),
        ([7, 31, 33, 16], [1, 1], 8, 1, 0, true), // and chunks that would lie in two launches
        ([8, 32, 32, 24], [1, 1], 40, 1, 0, true),
    ];
    // x is the result of a batch norm, which the kernels compute where they read it.
    let normed: [Sizes; 15] = [
        ([2, 7, 9, 8], [3, 3], 16, 1, 1, true),
        ([2, 16, 16, 16], [3, 3], 16, 1, 1, false), // v3 and its gradients
        ([2, 13, 19, 24], [3, 3], 16, 1, 0, true),
        ([1, 9, 11, 16], [3, 3], 24, 2, 1, true),
        ([2, 26, 33, 16], [3, 3], 8, 2, 1, true), // blocks of pixels that see the same taps
        ([2, 9, 7, 16], [1, 1], 3, 1, 0, true),
        ([2, 5, 7, 64], [1, 1], 16, 1, 0, false),
        ([2, 7, 9, 5], [3, 3], 16, 1, 1, true), // the weight gradient needs x written
        ([1, 23, 17, 3], [7, 7], 7, 4, 3, true),
        ([2, 5, 64, 4], [3, 3], 8, 1, 1, true), // v6 needs x written
        ([1, 6, 5, 72], [3, 3], 80, 1, 1, true),
        ([2, 128, 128, 8], [3, 3], 8, 1, 1, true), // several images per binding
        ([6, 32, 32, 8], [3, 3], 16, 1, 1, false),
        ([7, 31, 33, 8], [1, 1], 16, 1, 0, false), // and chunks that would lie in two launches
        ([1, 5, 4, 1024], [1, 1], 8, 1, 0, false), // more column tiles of the input gradient than a workgroup has
    ];
    let modes = [(Mode::Train, true), (Mode::Train, false), (Mode::Eval, true)];
    let normed = normed.into_iter().flat_map(|sizes| modes.map(|(mode, relu)| after_norm(sizes, mode, relu)));
    // x is two tensors side by side, which the kernels read where they are.
    let joined = [
        ([2, 7, 9, 8], 16, [3, 3], 16, 1),   // stride 1
        ([2, 16, 16, 16], 8, [3, 3], 16, 1), // v3 and its gradients
        ([1, 9, 11, 24], 8, [3, 3], 8, 2),
        ([2, 5, 7, 8], 64, [1, 1], 16, 1),
        ([1, 6, 5, 8], 8, [3, 3], 5, 1), // written after all
        ([2, 7, 5, 5], 3, [3, 3], 16, 1),
        ([2, 128, 128, 8], 8, [3, 3], 8, 1), // several images per binding
    ];
    let first = [([2, 7, 9, 3], 8), ([6, 32, 32, 3], 16), ([1, 5, 6, 4], 32)];
    let first =
        first.into_iter().flat_map(|(shape, out)| modes.map(|(mode, relu)| first_layer(shape, out, mode, relu)));
    let joined = joined.into_iter().map(|(a, b, kernel, out, stride)| of_two(a, b, kernel, out, stride));
    sizes
        .into_iter()
        .map(case)
        .chain([blocks([1, 64, 128, 128]), blocks([2, 256, 5, 128])])
        .chain(normed)
        .chain(first)
        .chain(joined)
        .collect()
}

/// A concatenation and a convolution.
fn of_two(a_shape: [usize; 4], b_channels: usize, kernel: [usize; 2], out: usize, stride: usize) -> Case {
    let [n, h, w, a_channels] = a_shape;
    let (shape, b_shape) = ([n, h, w, a_channels + b_channels], [n, h, w, b_channels]);
    let name = format!("{a_shape:?} and {b_channels} channels, kernel {kernel:?} -> {out} stride {stride}");
    Case::new(OP, name, move |device, checks| {
        let (padding, weight_shape) = (kernel[0] / 2, [kernel[0], kernel[1], shape[3], out]);
        let p = Conv2dParams::forward(shape, weight_shape, stride, padding, true);
        let x = checks.stored(numbers("x", shape.iter().product()));
        let w = numbers("w", weight_shape.iter().product());
        let mut want = Results::zeros(&p);
        let (b, gy) = (numbers("b", out), checks.stored(numbers("gy", want.y.len())));
        let (x64, w64, gy64) = (doubles(&x), doubles(&w), doubles(&gy));
        forward(&p, &x64, &w64, Some(&doubles(&b)), &mut want.y);
        backward_input(&p, &gy64, &w64, &mut want.gx);
        backward_weight(&p, &x64, &gy64, &mut want.gw, Some(&mut want.gb));

        // Channels of a pixel: those of the first tensor, then those of the second.
        fn part<T: Copy>(x: &[T], channels: usize, of: Range<usize>) -> Vec<T> {
            x.chunks(channels).flat_map(|pixel| pixel[of.clone()].to_vec()).collect()
        }
        let (first, second) = (0..a_channels, a_channels..shape[3]);
        let tape = Tape::new();
        let a = tape.watch_input(&checks.image(device, a_shape, &part(&x, shape[3], first.clone()))?);
        let second_of = checks.image(device, b_shape, &part(&x, shape[3], second.clone()))?;
        let second_watched = tape.watch_input(&second_of);
        let weight = tape.watch_input(&device.tensor(OP, weight_shape, &w)?);
        let bias = tape.watch_input(&device.tensor(OP, [out], &b)?);
        let y = ops::conv2d(&ops::concat(&a, &second_watched)?, &weight, Some(&bias), stride, padding)?;
        let grads = tape.backward_from(&y, &checks.image(device, y.shape(), &gy)?)?;
        let of = |tensor| grads.of(tensor).expect("watched");
        checks.compare("forward", "selected", &y, &want.y, SUMS)?;
        checks.compare("backward_input first", "selected", of(&a), &part(&want.gx, shape[3], first), SUMS)?;
        let gx = part(&want.gx, shape[3], second);
        checks.compare("backward_input second", "selected", of(&second_watched), &gx, SUMS)?;
        checks.compare("backward_weight", "selected", of(&weight), &want.gw, SUMS)?;
        checks.compare("backward_weight bias", "selected", of(&bias), &want.gb, SUMS)?;
        if matches!(device, Device::Cpu(_)) {
            return Ok(()); // one version
        }
        let (a, weight, bias) = (a.detach(), weight.detach(), bias.detach());
        for kernel in but_some(device, kernels(device, checks, &p)) {
            let x = ops::concat(&a, &second_of)?;
            let y = ops::conv2d::forward_with_statistics(&x, &weight, Some(&bias), stride, padding, kernel)?;
            let version = format!("{kernel} joined");
            checks.compare("forward", &version, &y, &want.y, SUMS)?;
            compare_statistics(checks, &version, &y, &want.y, SUMS)?;
        }
        let gy = checks.image(device, y.shape(), &gy)?;
        for kernel in but_some(device, weight_kernels(device, checks, &p)) {
            let x = ops::concat(&a, &second_of)?;
            let got = device.tensor(OP, weight_shape, &vec![f32::NAN; w.len()])?;
            ops::conv2d::backward_weight(&p, &x, &gy, &got, None, kernel)?;
            checks.compare("backward_weight", &format!("{kernel} joined"), &got, &want.gw, sums_of(kernel))?;
        }
        Ok(())
    })
}

/// A batch norm and a convolution.
fn after_norm((shape, kernel, out, stride, padding, with_bias): Sizes, mode: Mode, relu: bool) -> Case {
    let relu_name = if relu { " relu" } else { "" };
    let name =
        format!("{shape:?} normed {mode:?}{relu_name}, kernel {kernel:?} -> {out} stride {stride} padding {padding}");
    Case::new(OP, name.clone(), move |device, checks| {
        let (channels, weight_shape) = (shape[3], [kernel[0], kernel[1], shape[3], out]);
        let p = Conv2dParams::forward(shape, weight_shape, stride, padding, with_bias);
        let y_shape = [shape[0], p.out_h as usize, p.out_w as usize, out];
        let x = checks.stored(numbers(&name, shape.iter().product()));
        let gy = checks.stored(numbers("gy", Results::zeros(&p).y.len()));
        let (weight, bias, mean) = (numbers("weight", channels), numbers("bias", channels), numbers("mean", channels));
        let var: Vec<f32> = numbers("var", channels).iter().map(|v| 0.5 + 0.25 * v).collect();
        let (w, b) = (numbers("w", weight_shape.iter().product()), numbers("b", out));
        let (w64, b64, gy64) = (doubles(&w), doubles(&b), doubles(&gy));

        let parameters = RefCell::new((vec![0.0; w.len()], vec![0.0; out]));
        let want = batch_norm::reference(
            &batch_norm::params(shape, mode, relu),
            &doubles(&x),
            [&doubles(&weight), &doubles(&bias)],
            [&doubles(&mean), &doubles(&var)],
            |v| {
                let mut all = Results::zeros(&p);
                forward(&p, v, &w64, with_bias.then_some(&b64), &mut all.y);
                backward_input(&p, &gy64, &w64, &mut all.gx);
                let (gw, gb) = &mut *parameters.borrow_mut();
                backward_weight(&p, v, &gy64, gw, Some(gb));
                [all.y, all.gx]
            },
        );
        let (want_w, want_b) = parameters.into_inner();

        let (tape, settings) = (Tape::new(), BatchNormSettings { relu, ..BatchNormSettings::new(mode) });
        let w = tape.watch_input(&device.tensor(OP, weight_shape, &w)?);
        let b = tape.watch_input(&device.tensor(OP, [out], &b)?);
        let bias_of = with_bias.then_some(&b);
        // The gradient of what is normalised is an image that nobody sees.
        let parameter = checks.through(batch_norm::PARAMETER);
        let through = checks.through(SUMS); // what reads x written
        let forward_bound = if conv2d_few::takes(&p) { through } else { SUMS };
        let bounds = [forward_bound, SUMS, parameter, parameter];
        let (vectors, sums) = ([&weight[..], &bias, &mean, &var], SUMMED);
        let inputs = batch_norm::Inputs { op: OP, sums, shape, x: &x, vectors, gy: &gy, bounds };
        let normed = |x: &Tensor, [weight, bias]: [&Tensor; 2], running: &RunningStats<'_>| {
            ops::batch_norm(x, weight, bias, running, &settings)
        };
        let grads = batch_norm::run(device, tape, checks, &inputs, "selected", &want, |x, affine, running| {
            ops::conv2d(&normed(x, affine, running)?, &w, bias_of, stride, padding)
        })?;
        let x_is_written = WeightKernel::usual(channels, out) == WeightKernel::V2;
        let bound = if x_is_written { through } else { SUMS };
        checks.compare("backward_weight", "selected", grads.of(&w).expect("watched"), &want_w, bound)?;
        if with_bias {
            checks.compare("backward_weight bias", "selected", grads.of(&b).expect("watched"), &want_b, SUMS)?;
        }
        if matches!(device, Device::Cpu(_)) {
            return Ok(()); // one version
        }
        let vector = |values: &[f32]| device.tensor(OP, [channels], values);
        let (x, affine) = (checks.image(device, shape, &x)?, [vector(&weight)?, vector(&bias)?]);
        let (mean, var) = (vector(&mean)?, vector(&var)?);
        let (w, b) = (w.detach(), b.detach());
        let v = normed(&x, affine.each_ref(), &RunningStats { mean: &mean, var: &var })?;
        for kernel in but_some(device, kernels(device, checks, &p)) {
            let version = format!("{kernel} normed");
            let y = ops::conv2d::forward_with_statistics(&v, &w, with_bias.then_some(&b), stride, padding, kernel)?;
            let bound = if matches!(kernel, GatherKernel::Few(_)) { through } else { SUMS };
            checks.compare("forward", &version, &y, &want.y, bound)?;
            compare_statistics(checks, &version, &y, &want.y, bound)?;
        }
        let gy = checks.image(device, y_shape, &gy)?;
        for kernel in but_some(device, weight_kernels(device, checks, &p)) {
            let v = normed(&x, affine.each_ref(), &RunningStats { mean: &mean, var: &var })?;
            let got = device.tensor(OP, weight_shape, &vec![f32::NAN; want_w.len()])?;
            ops::conv2d::backward_weight(&p, &v, &gy, &got, None, kernel)?;
            // These kernels read x written, or round it to 16 bits to multiply it.
            let rounds = matches!(kernel, WeightKernel::V2 | WeightKernel::V4 | WeightKernel::V6(_));
            let bound = if rounds { through } else { SUMS };
            checks.compare("backward_weight", &format!("{kernel} normed"), &got, &want_w, bound)?;
        }
        Ok(())
    })
}

/// A convolution of an image that nobody differentiates, a batch norm and another convolution: the gradient between the first
/// two is never written.
fn first_layer(shape: [usize; 4], out: usize, mode: Mode, relu: bool) -> Case {
    let relu_name = if relu { " relu" } else { "" };
    Case::new(OP, format!("{shape:?} -> {out} before a norm {mode:?}{relu_name}"), move |device, checks| {
        let [n, h, w, c] = shape;
        let (inner, first, second) = ([n, h, w, out], [3, 3, c, out], [3, 3, out, 8]);
        let (p, q) =
            (Conv2dParams::forward(shape, first, 1, 1, false), Conv2dParams::forward(inner, second, 1, 1, false));
        let x = checks.stored(numbers("x", shape.iter().product()));
        let gy = checks.stored(numbers("gy", n * h * w * 8));
        let [a, b] = [first, second].map(|shape| numbers("weights", shape.iter().product()));
        let [weight, bias, mean] = ["weight", "bias", "mean"].map(|name| numbers(name, out));
        let var: Vec<f32> = numbers("var", out).iter().map(|v| 0.5 + 0.25 * v).collect();

        let mut inner_of = vec![0.0; inner.iter().product()];
        forward(&p, &doubles(&x), &doubles(&a), None, &mut inner_of);
        // As they are stored: half a unit in the last place of an f16 decides for many of them whether the ReLU is shut.
        let inner_of = doubles(&checks.stored(inner_of.iter().map(|y| *y as f32).collect()));
        let want = batch_norm::reference(
            &batch_norm::params(inner, mode, relu),
            &inner_of,
            [&doubles(&weight), &doubles(&bias)],
            [&doubles(&mean), &doubles(&var)],
            |v| {
                let mut all = Results::zeros(&q);
                forward(&q, v, &doubles(&b), None, &mut all.y);
                backward_input(&q, &doubles(&gy), &doubles(&b), &mut all.gx);
                [all.y, all.gx]
            },
        );
        let mut want_a = vec![0.0; a.len()];
        backward_weight(&p, &doubles(&x), &want.gx, &mut want_a, None);

        let tape = Tape::new();
        let input = tape.watch(&checks.image(device, shape, &x)?);
        let vector = |values: &[f32]| device.tensor(OP, [out], values);
        // Both gradients of the second convolution are wanted: its kernel of both begins that of the batch norm.
        let a = tape.watch_input(&device.tensor(OP, first, &a)?);
        let b = tape.watch_input(&device.tensor(OP, second, &b)?);
        let (weight, bias) = (tape.watch_input(&vector(&weight)?), tape.watch_input(&vector(&bias)?));
        let running = RunningStats { mean: &vector(&mean)?, var: &vector(&var)? };
        let settings = BatchNormSettings { relu, ..BatchNormSettings::new(mode) };
        let y = ops::conv2d_with_statistics(&input, &a, None, 1, 1)?;
        let y = ops::conv2d(&ops::batch_norm(&y, &weight, &bias, &running, &settings)?, &b, None, 1, 1)?;
        let grads = tape.backward_from(&y, &checks.image(device, y.shape(), &gy)?)?;
        // Three images that nobody sees are between what is given and what is compared.
        let (sums, parameter) = (checks.through(SUMS), checks.through(batch_norm::PARAMETER));
        let of = |tensor| grads.of(tensor).expect("watched");
        checks.compare("forward before norm", "selected", &y, &want.y, sums)?;
        checks.compare("backward_weight before norm", "selected", of(&a), &want_a, sums)?;
        checks.compare("backward_weight before norm weight", "selected", of(&weight), &want.gw, parameter)?;
        checks.compare("backward_weight before norm bias", "selected", of(&bias), &want.gb, parameter)
    })
}

/// So many pixels and weights that a chunk of the weight gradient is longer than the block that is summed at a time.
/// Only a few pixels of gy are not 0, so that the plain loops are done soon. Rows may be shorter than what a kernel reads at a time, and a
/// chunk may go on in the next image.
fn blocks(shape: [usize; 4]) -> Case {
    let weight_shape = [3, 3, 128, 128];
    Case::new(OP, format!("{shape:?} kernel [3, 3] -> 128: blocks within a chunk"), move |device, checks| {
        let p = Conv2dParams::forward(shape, weight_shape, 1, 1, true);
        let x = checks.stored(numbers("x", shape.iter().product()));
        let mut gy = checks.stored(numbers("gy", x.len()));
        gy.iter_mut().enumerate().filter(|(at, _)| at / 128 % 23 != 0).for_each(|(_, g)| *g = 0.0);
        let (mut gw, mut gb) = (vec![0.0; 9 * 128 * 128], vec![0.0; 128]);
        for (at, g) in gy.iter().enumerate().filter(|(_, g)| **g != 0.0) {
            gb[at % 128] += f64::from(*g);
            each_term(&p, at, |w_at, x_at| gw[w_at] += f64::from(*g) * f64::from(x[x_at]));
        }
        let (x, gy) = (checks.image(device, shape, &x)?, checks.image(device, shape, &gy)?);
        for kernel in weight_kernels(device, checks, &p).into_iter().filter(|kernel| *kernel != WeightKernel::V1) {
            let got_w = device.tensor(OP, weight_shape, &vec![f32::NAN; gw.len()])?;
            let got_b = device.tensor(OP, [128], &[f32::NAN; 128])?;
            ops::conv2d::backward_weight(&p, &x, &gy, &got_w, Some(&got_b), kernel)?;
            checks.compare("backward_weight", &kernel.to_string(), &got_w, &gw, sums_of(kernel))?;
            checks.compare("backward_weight bias", &kernel.to_string(), &got_b, &gb, SUMS)?;
            if matches!(device, Device::Cpu(_)) {
                break; // one version
            }
        }
        Ok(())
    })
}

fn case((shape, kernel, out, stride, padding, with_bias): Sizes) -> Case {
    let bias = if with_bias { " bias" } else { "" };
    let name = format!("{shape:?} kernel {kernel:?} -> {out} stride {stride} padding {padding}{bias}");
    Case::new(OP, name, move |device, checks| {
        let weight_shape = [kernel[0], kernel[1], shape[3], out];
        let p = Conv2dParams::forward(shape, weight_shape, stride, padding, with_bias);
        let out_shape = [shape[0], p.out_h as usize, p.out_w as usize, out];
        let x = checks.stored(numbers("x", shape.iter().product()));
        let gy = checks.stored(numbers("gy", out_shape.iter().product()));
        let (w, b) = (numbers("w", weight_shape.iter().product()), numbers("b", out));

        let mut want = Results::zeros(&p);
        let bias = with_bias.then(|| doubles(&b));
        let (x64, w64, gy64) = (doubles(&x), doubles(&w), doubles(&gy));
        forward(&p, &x64, &w64, bias.as_deref(), &mut want.y);
        backward_input(&p, &gy64, &w64, &mut want.gx);
        backward_weight(&p, &x64, &gy64, &mut want.gw, Some(&mut want.gb));
        if gy.len() * w.len() / out < 2_000_000 {
            let naive = naive(&p, &x64, &w64, bias.as_deref(), &gy64);
            let pairs = [
                ("twin forward", &want.y, naive.y),
                ("twin backward_input", &want.gx, naive.gx),
                ("twin backward_weight", &want.gw, naive.gw),
                ("twin backward_weight bias", &want.gb, naive.gb),
            ];
            for (entry, twin, naive) in pairs {
                checks.twin(entry, twin, &naive);
            }
        }

        let x = checks.image(device, shape, &x)?;
        let w = device.tensor(OP, weight_shape, &w)?;
        let b = device.tensor(OP, [out], &b)?;
        let bias = with_bias.then_some(&b);
        let gy = checks.image(device, out_shape, &gy)?;

        // What the op itself chooses.
        let tape = Tape::new();
        let (input, weight, watched) = (tape.watch_input(&x), tape.watch_input(&w), tape.watch_input(&b));
        let y = ops::conv2d(&input, &weight, with_bias.then_some(&watched), stride, padding)?;
        let grads = tape.backward_from(&y, &gy)?;
        let of = |tensor| grads.of(tensor).expect("watched");
        checks.compare("forward", "selected", &y, &want.y, SUMS)?;
        checks.compare("backward_input", "selected", of(&input), &want.gx, SUMS)?;
        checks.compare("backward_weight", "selected", of(&weight), &want.gw, SUMS)?;
        if with_bias {
            checks.compare("backward_weight bias", "selected", of(&watched), &want.gb, SUMS)?;
        }
        if matches!(device, Device::Cpu(_)) {
            return Ok(()); // one version
        }

        for kernel in kernels(device, checks, &p) {
            let y = ops::conv2d::forward(&x, &w, bias, stride, padding, kernel)?;
            checks.compare("forward", &kernel.to_string(), &y, &want.y, SUMS)?;
            let y = ops::conv2d::forward_with_statistics(&x, &w, bias, stride, padding, kernel)?;
            compare_statistics(checks, &kernel.to_string(), &y, &want.y, SUMS)?;
            // Once more, added to that.
            let there = doubles(&y.to_vec()?);
            let twice: Vec<f64> = want.y.iter().zip(&there).map(|(y, there)| y + there).collect();
            let y = ops::conv2d::forward_added(y, &x, &w, bias, (stride, padding), kernel)?;
            checks.compare("forward added", &kernel.to_string(), &y, &twice, SUMS)?;
            compare_statistics(checks, &kernel.to_string(), &y, &twice, SUMS)?;
        }
        for kernel in kernels(device, checks, &p.input_gradient()) {
            let gx = checks.image(device, shape, &vec![f32::NAN; x.len()])?;
            ops::conv2d::backward_input(&p, &gy, &w, &gx, kernel)?;
            checks.compare("backward_input", &kernel.to_string(), &gx, &want.gx, SUMS)?;
            // Once more, added to what stands there now.
            let there = doubles(&gx.to_vec()?);
            let twice: Vec<f64> = want.gx.iter().zip(&there).map(|(g, there)| g + there).collect();
            ops::conv2d::backward_input(&Conv2dParams { accumulate: 1, ..p }, &gy, &w, &gx, kernel)?;
            checks.compare("backward_input", &kernel.to_string(), &gx, &twice, SUMS)?;
        }
        let both = WeightKernel::all(device, &p).into_iter().filter_map(|kernel| match kernel {
            WeightKernel::V3(constants) => Some(Kernel::tiled(constants)),
            _ => None,
        });
        for kernel in both {
            let gx = checks.image(device, shape, &vec![1.0; x.len()])?;
            let gw = device.tensor(OP, weight_shape, &vec![f32::NAN; w.len()])?;
            let gb = device.tensor(OP, [out], &vec![f32::NAN; out])?;
            let more: Vec<f64> = want.gx.iter().map(|g| g + 1.0).collect();
            let p = Conv2dParams { accumulate: 1, ..p };
            ops::conv2d::backward(&p, [&x, &gy, &w], &gx, &gw, with_bias.then_some(&gb), kernel)?;
            checks.compare("backward x", &kernel.to_string(), &gx, &more, SUMS)?;
            checks.compare("backward weight", &kernel.to_string(), &gw, &want.gw, SUMS)?;
            if with_bias {
                checks.compare("backward bias", &kernel.to_string(), &gb, &want.gb, SUMS)?;
            }
        }
        for kernel in weight_kernels(device, checks, &p) {
            let gw = device.tensor(OP, weight_shape, &vec![f32::NAN; w.len()])?;
            let gb = device.tensor(OP, [out], &vec![f32::NAN; out])?;
            ops::conv2d::backward_weight(&p, &x, &gy, &gw, with_bias.then_some(&gb), kernel)?;
            checks.compare("backward_weight", &kernel.to_string(), &gw, &want.gw, sums_of(kernel))?;
            if with_bias {
                checks.compare("backward_weight bias", &kernel.to_string(), &gb, &want.gb, SUMS)?;
            }
        }
        Ok(())
    })
}

/// The kernels that take these sizes; with 16-bit floats those with the usual tiles, because compiling all takes minutes.
/// Then there are also those for matrix units.
fn kernels(device: &Device, checks: &Checks, p: &Conv2dParams) -> Vec<GatherKernel> {
    let mut kernels = ops::conv2d::kernels(device, p);
    if checks.is_half() {
        kernels.retain(is_usual);
        kernels.extend(by_matrix(device, p).map(GatherKernel::Matrix));
    }
    kernels
}

/// The kernels of the weight gradient that take these sizes.
fn weight_kernels(device: &Device, checks: &Checks, p: &Conv2dParams) -> Vec<WeightKernel> {
    let mut kernels = WeightKernel::all(device, p);
    if checks.is_half() {
        usual_in_software(device, &mut kernels);
        kernels.extend(by_matrix(device, p).map(WeightKernel::V6));
    }
    kernels
}

/// The bound of a weight gradient. Matrix units may cut off what they add up where other arithmetic rounds, so that the errors of a chain of
/// sums do not cancel: an H200 was 1.0e-12 off after 27 of them, 4.0e-12 after 106 (case 419x421).
fn sums_of(kernel: WeightKernel) -> Tolerance {
    match kernel {
        WeightKernel::V6(kernel) if kernel.matrix.needs_units() => Tolerance { nmse: 1e-11, ..SUMS },
        _ => SUMS,
    }
}

/// The kernels for matrix units, of which the emulated ones take minutes for many pixels.
fn by_matrix(device: &Device, p: &Conv2dParams) -> impl Iterator<Item = MatrixKernel> {
    let few = p.batch * p.out_h * p.out_w < 8192;
    ops::matrix::kernels(device, [p.in_c, p.out_c]).into_iter().filter(move |kernel| few || kernel.matrix.needs_units())
}

/// Whether a kernel has the usual tiles.
fn is_usual<K: Display>(kernel: &K) -> bool {
    ![" TILE_", " SPLIT", " QUADS", " VECTORS"].iter().any(|more| kernel.to_string().contains(more))
}

/// Software takes seconds to compile a kernel: there only those with the usual tiles.
pub fn usual_in_software<K: Display>(device: &Device, kernels: &mut Vec<K>) {
    if matches!(device, Device::Gpu(context) if context.facts().software) {
        kernels.retain(is_usual);
    }
}

/// For an x that is made where it is read, which differs from another x where what multiplies it does not: without one of two emulations,
/// and in software the usual tiles only.
pub fn but_some<K: Display>(device: &Device, mut kernels: Vec<K>) -> Vec<K> {
    kernels.retain(|kernel| !kernel.to_string().contains("8x8 emulated"));
    usual_in_software(device, &mut kernels);
    kernels
}

/// Compares y and the statistics that the kernel left of it, as it is stored, if it did.
pub fn compare_statistics(
    checks: &mut Checks,
    version: &str,
    y: &Tensor,
    want: &[f64],
    bound: Tolerance,
) -> Result<()> {
    let Some((partials, chunk)) = y.statistics() else { return Ok(()) };
    checks.compare("forward_statistics", version, y, want, bound)?;
    let (channels, mut numbers) = (y.shape().last(), doubles(&y.to_vec()?));
    if version.starts_with("v7") {
        numbers = by_quads(&numbers, y.shape().dims()[2], channels);
    }
    let (got, want) = (partials.to_vec()?, statistics(&numbers, channels, chunk));
    for (got, want) in got.chunks(got.len() / 2).zip(&want) {
        checks.values("forward_statistics", version, got, want, SUMS);
    }
    Ok(())
}

/// Pixels in the order in which v7's blocks have them: 2 rows of 8 are a quad.
fn by_quads(y: &[f64], width: usize, channels: usize) -> Vec<f64> {
    let (row, part) = (width * channels, 8 * channels);
    let quad = |rows: &[f64], at: usize| [&rows[at..at + part], &rows[row + at..row + at + part]].concat();
    y.chunks(2 * row).flat_map(|rows| (0..row).step_by(part).flat_map(move |at| quad(rows, at))).collect()
}

/// Mean, and sum of (y - mean)^2, of each channel and chunk of pixels.
fn statistics(y: &[f64], channels: usize, chunk: usize) -> [Vec<f64>; 2] {
    let (mut means, mut squares) = (Vec::new(), Vec::new());
    for c in 0..channels {
        for pixels in y.chunks(chunk * channels) {
            let of = || pixels.iter().skip(c).step_by(channels);
            let mean = of().sum::<f64>() / of().count() as f64;
            means.push(mean);
            squares.push(of().map(|y| (y - mean).powi(2)).sum());
        }
    }
    [means, squares]
}

/// The result and the three gradients.
struct Results {
    y: Vec<f64>,
    gx: Vec<f64>,
    gw: Vec<f64>,
    gb: Vec<f64>,
}

impl Results {
    fn zeros(p: &Conv2dParams) -> Self {
        let zeros = |extents: [u32; 4]| vec![0.0; extents.iter().product::<u32>() as usize];
        Self {
            y: zeros([p.batch, p.out_h, p.out_w, p.out_c]),
            gx: zeros([p.batch, p.in_h, p.in_w, p.in_c]),
            gw: zeros([p.kernel_h, p.kernel_w, p.in_c, p.out_c]),
            gb: zeros([p.out_c, 1, 1, 1]),
        }
    }
}

/// The formula and its three derivatives, term by term.
fn naive(p: &Conv2dParams, x: &[f64], w: &[f64], bias: Option<&[f64]>, gy: &[f64]) -> Results {
    let mut all = Results::zeros(p);
    for (at, g) in gy.iter().enumerate() {
        let co = at % p.out_c as usize;
        all.gb[co] += g;
        all.y[at] = bias.map_or(0.0, |bias| bias[co]);
        each_term(p, at, |w_at, x_at| {
            all.y[at] += x[x_at] * w[w_at];
            all.gx[x_at] += g * w[w_at];
            all.gw[w_at] += g * x[x_at];
        });
    }
    all
}

/// The products that one element of y is the sum of: where the weight stands, and where the x.
fn each_term(p: &Conv2dParams, at: usize, mut term: impl FnMut(usize, usize)) {
    let stride = p.multiply as usize;
    let [in_h, in_w, in_c, out_c] = [p.in_h, p.in_w, p.in_c, p.out_c].map(|extent| extent as usize);
    let (co, pixel) = (at % out_c, at / out_c);
    let (ox, row) = (pixel % p.out_w as usize, pixel / p.out_w as usize);
    let (oy, n) = (row % p.out_h as usize, row / p.out_h as usize);
    for k in 0..(p.kernel_h * p.kernel_w) as usize * in_c {
        let (ci, tap) = (k % in_c, k / in_c);
        let iy = (oy * stride + tap / p.kernel_w as usize).wrapping_sub(p.pad_h as usize);
        let ix = (ox * stride + tap % p.kernel_w as usize).wrapping_sub(p.pad_w as usize);
        if iy < in_h && ix < in_w {
            term(k * out_c + co, ((n * in_h + iy) * in_w + ix) * in_c + ci);
        }
    }
}

pub fn gradients() -> Vec<GradientCase> {
    let of = |shape: [usize; 4], kernel: [usize; 2], out: usize, stride: usize, padding: usize| {
        let weight_shape = [kernel[0], kernel[1], shape[3], out];
        let p = Conv2dParams::forward(shape, weight_shape, stride, padding, true);
        let mut all = Results::zeros(&p);
        let x = doubles(&numbers("finite x", all.gx.len()));
        let w = doubles(&numbers("finite w", all.gw.len()));
        let b = doubles(&numbers("finite b", out));
        let gy = doubles(&numbers("finite gy", all.y.len()));
        backward_input(&p, &gy, &w, &mut all.gx);
        backward_weight(&p, &x, &gy, &mut all.gw, Some(&mut all.gb));
        GradientCase {
            name: format!(
                "{OP} x, weight, bias {shape:?} kernel {kernel:?} -> {out} stride {stride} padding {padding}"
            ),
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
        of([2, 4, 5, 3], [3, 3], 2, 1, 1),
        of([1, 5, 6, 2], [3, 3], 17, 2, 1),
        of([1, 3, 5, 5], [1, 1], 3, 2, 0),
        of([1, 9, 6, 1], [7, 7], 2, 4, 3),
        of([1, 5, 4, 2], [2, 2], 3, 2, 0),
    ]
}
