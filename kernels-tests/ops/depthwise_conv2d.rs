//! Cases of the depthwise convolution: kernels of 1, 3, 5 and 3x5, no padding to more than the kernel needs, images
//! smaller than the kernel, with and without bias, channels that do not divide by 4, several chunks of the sums.

use shadegrad::cpu::depthwise_conv2d::{DepthwiseConv2dParams, backward_input, backward_weight, forward};
use shadegrad::cpu::gelu;
use shadegrad::ops::Version;
use shadegrad::{Tape, ops};

use super::{Case, GradientCase, SUMS, doubles, numbers};

const OP: &str = "depthwise_conv2d";

fn params([n, h, w, c]: [usize; 4], [kh, kw]: [usize; 2], padding: usize, bias: bool) -> DepthwiseConv2dParams {
    let out_h = (h + 2 * padding + 1 - kh) as u32;
    DepthwiseConv2dParams {
        batch: n as u32,
        in_h: h as u32,
        in_w: w as u32,
        out_h,
        out_w: (w + 2 * padding + 1 - kw) as u32,
        channels: c as u32,
        kernel_h: kh as u32,
        kernel_w: kw as u32,
        padding: padding as u32,
        has_bias: u32::from(bias),
        chunk_rows: 3,
        chunks: (n as u32 * out_h).div_ceil(3),
        first_chunk: 0,
    }
}

pub fn cases() -> Vec<Case> {
    vec![
        case([1, 1, 1, 1], [1, 1], 0, true),
        case([1, 1, 1, 4], [3, 3], 1, true),
        case([2, 9, 7, 13], [3, 3], 1, true),
        case([1, 4, 4, 8], [3, 3], 1, false),
        case([2, 6, 5, 3], [3, 3], 0, true),
        case([2, 7, 5, 4], [5, 5], 2, true),
        case([1, 5, 6, 4], [3, 5], 0, false),
        case([2, 3, 4, 4], [3, 3], 4, true),
        case([1, 2, 3, 5], [7, 7], 3, true),
        case([3, 17, 31, 7], [3, 3], 1, true),
        case([4, 16, 16, 64], [3, 3], 1, true),
        case([8, 64, 64, 4], [3, 3], 1, true),
    ]
}

fn case(shape: [usize; 4], kernel: [usize; 2], padding: usize, with_bias: bool) -> Case {
    let name = format!("{shape:?} kernel {kernel:?} padding {padding}{}", if with_bias { " bias" } else { "" });
    Case::new(OP, name, move |device, checks| {
        let p = params(shape, kernel, padding, with_bias);
        let [n, _, _, c] = shape;
        let out_shape = [n, p.out_h as usize, p.out_w as usize, c];
        let weight_shape = [kernel[0], kernel[1], c];
        let x = checks.stored(numbers("x", shape.iter().product()));
        let gy = checks.stored(numbers("gy", out_shape.iter().product()));
        let (w, b) = (numbers("w", weight_shape.iter().product()), numbers("b", c));

        let mut want_y = vec![0.0; gy.len()];
        let mut want_gx = vec![0.0; x.len()];
        let (mut want_gw, mut want_gb) = (vec![0.0; w.len()], vec![0.0; c]);
        let bias = with_bias.then(|| doubles(&b));
        forward(&p, &doubles(&x), &doubles(&w), bias.as_deref(), &mut want_y);
        backward_input(&p, &doubles(&gy), &doubles(&w), &mut want_gx);
        backward_weight(&p, &doubles(&x), &doubles(&gy), &mut want_gw, &mut want_gb);

        // The same with GELU behind it.
        let mut want_activated = vec![0.0; gy.len()];
        let mut gz = vec![0.0; gy.len()];
        gelu::forward(&want_y, &mut want_activated);
        gelu::backward_input(&doubles(&gy), &want_y, &mut gz);
        let mut gelu_gx = vec![0.0; x.len()];
        let (mut gelu_gw, mut gelu_gb) = (vec![0.0; w.len()], vec![0.0; c]);
        backward_input(&p, &gz, &doubles(&w), &mut gelu_gx);
        backward_weight(&p, &doubles(&x), &gz, &mut gelu_gw, &mut gelu_gb);

        let versions: &[Version] = if c.is_multiple_of(4) { &[Version::V1, Version::V2] } else { &[Version::V1] };
        for &version in versions {
            let tape = Tape::new();
            let input = tape.watch_input(&checks.image(device, shape, &x)?);
            let weight = tape.watch_input(&device.tensor(OP, weight_shape, &w)?);
            let bias = tape.watch_input(&device.tensor(OP, [c], &b)?);
            let y = ops::depthwise_conv2d::forward(&input, &weight, with_bias.then_some(&bias), padding, version)?;
            let grads = tape.backward_from(&y, &checks.image(device, out_shape, &gy)?)?;
            let of = |tensor| grads.of(tensor).expect("watched");
            checks.compare("forward", version.name(), &y, &want_y, SUMS)?;
            checks.compare("backward_input", version.name(), of(&input), &want_gx, SUMS)?;
            checks.compare("backward_weight", version.name(), of(&weight), &want_gw, SUMS)?;
            if with_bias {
                checks.compare("backward_weight bias", version.name(), of(&bias), &want_gb, SUMS)?;
            }

            // With all gradients wanted, and with that of x alone: GELU's is made by different kernels.
            for of_weight in [true, false] {
                let tape = Tape::new();
                let (input, weight) = (tape.watch_input(&input.detach()), tape.watch_input(&weight.detach()));
                let bias = tape.watch_input(&bias.detach());
                let (weight, bias) = if of_weight { (weight, bias) } else { (weight.detach(), bias.detach()) };
                let bias_if = with_bias.then_some(&bias);
                let y = ops::depthwise_conv2d::forward_gelu(&input, &weight, bias_if, padding, version)?;
                let grads = tape.backward_from(&y, &checks.image(device, out_shape, &gy)?)?;
                let of = |tensor| grads.of(tensor).expect("watched");
                checks.compare("forward gelu", version.name(), &y, &want_activated, SUMS)?;
                checks.compare("backward_input gelu", version.name(), of(&input), &gelu_gx, SUMS)?;
                if of_weight {
                    let bound = checks.through(SUMS); // what is before GELU is an image too
                    checks.compare("backward_weight gelu", version.name(), of(&weight), &gelu_gw, bound)?;
                    if with_bias {
                        checks.compare("backward_weight gelu bias", version.name(), of(&bias), &gelu_gb, bound)?;
                    }
                }
            }
        }
        Ok(())
    })
}

pub fn gradients() -> Vec<GradientCase> {
    let of = |shape: [usize; 4], kernel: [usize; 2], padding: usize| {
        let p = params(shape, kernel, padding, true);
        let c = shape[3];
        let outputs = (p.batch * p.out_h * p.out_w * p.channels) as usize;
        let x = doubles(&numbers("finite x", shape.iter().product()));
        let w = doubles(&numbers("finite w", kernel[0] * kernel[1] * c));
        let b = doubles(&numbers("finite b", c));
        let gy = doubles(&numbers("finite gy", outputs));
        let (mut gx, mut gw, mut gb) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; c]);
        backward_input(&p, &gy, &w, &mut gx);
        backward_weight(&p, &x, &gy, &mut gw, &mut gb);
        GradientCase {
            name: format!("{OP} x, weight, bias {shape:?} kernel {kernel:?} padding {padding}"),
            inputs: vec![x, w, b],
            gradients: vec![gx, gw, gb],
            value: Box::new(move |inputs| {
                let mut y = vec![0.0; outputs];
                forward(&p, &inputs[0], &inputs[1], Some(&inputs[2]), &mut y);
                y.iter().zip(&gy).map(|(y, g)| y * g).sum()
            }),
            tolerance: 1e-8,
        }
    };
    vec![of([2, 4, 5, 3], [3, 3], 1), of([1, 3, 4, 2], [3, 1], 0), of([1, 2, 2, 1], [3, 3], 3)]
}
