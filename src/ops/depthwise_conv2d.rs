//! Depthwise 2-D convolution, stride 1: each channel with its own kernel.
//!
//! # Forward
//! `y[n,oy,ox,c] = bias[c] + sum over ky,kx of x[n, oy+ky-p, ox+kx-p, c] * w[ky,kx,c]`
//!
//! # Backward
//! `gx[n,iy,ix,c] = sum over ky,kx of gy[n, iy+p-ky, ix+p-kx, c] * w[ky,kx,c]`: the same sum with the kernel turned
//! round.
//!
//! `gw[ky,kx,c] = sum over n,oy,ox of x[n, oy+ky-p, ox+kx-p, c] * gy[n,oy,ox,c]`;  `gb[c] = sum of gy`.
//!
//! # Data flow
//! ```text
//! x, channel c          w, channel c       y, channel c
//! . . . . .             a b c              . . . .
//! . 1 2 3 .     *       d e f       =      . Y . .      Y = a 1 + b 2 + c 3 + d 4 + .. + i 9
//! . 4 5 6 .             g h i              . . . .
//! . 7 8 9 .
//!
//! gw, gb: chunks of image rows --> a partial sum each for a .. i and the bias --> sum_chunks
//! ```
//!
//! One invocation gathers one element, in v2 of four channels. The chunks are added up in order.
//!
//! Shapes: x `[N, H, W, C]`, weight `[kh, kw, C]`, bias `[C]` -> y `[N, H + 2p - kh + 1, W + 2p - kw + 1, C]`.
//!
//! Versions: v1 (an element per invocation), v2 (four channels).
//!
//! Launches: 1 forward; backward 1 for x, 1 for weight and bias, and a share in those of
//! [`sum_chunks`](mod@super::sum_chunks).
//!
//! # Files
//! - [`shaders/depthwise_conv2d.wgsl`](../../../../../shaders/depthwise_conv2d.wgsl), below
//! - [`src/ops/depthwise_conv2d.rs`](../../../src/shadegrad/ops/depthwise_conv2d.rs.html)
//! - [`src/cpu/depthwise_conv2d.rs`](../../../src/shadegrad/cpu/depthwise_conv2d.rs.html)
//! - [`kernels-tests/ops/depthwise_conv2d.rs`](../../../../../kernels-tests/ops/depthwise_conv2d.rs)
//! - [`bench/ops/depthwise_conv2d.rs`](../../../../../bench/ops/depthwise_conv2d.rs)
//!
//! <details><summary>shaders/depthwise_conv2d.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/depthwise_conv2d.wgsl")]
//! ```
//! </details>

use std::ops::Range;

use super::plan::Plan;
use super::{Version, choice};
use crate::autograd::{Backward, Setting, Wanted, record};
use crate::cpu::depthwise_conv2d::{self as plain, DepthwiseConv2dParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "depthwise_conv2d";
pub(super) const SHADER: Shader = shader!("depthwise_conv2d");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[("_v2", "the channels divide by 4")],
    run: |on| {
        let Sizes { shape, kernel, padding, .. } = on.sizes;
        let weight = on.input([kernel, kernel, shape.last()])?;
        depthwise_conv2d(&on.x()?, &weight, Some(&on.input([shape.last()])?), padding).map(Some)
    },
};

/// Convolves each channel of x `[N, H, W, C]` with its own kernel of weight `[kh, kw, C]`, after `padding` zeros on each
/// side, and adds bias `[C]`. PyTorch's `Conv2d(groups=C)`, whose weights `[C, 1, kh, kw]` are permuted on loading.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let x = device.tensor("x", [1, 1, 3, 1], &[1.0, 2.0, 3.0])?;
/// let weight = device.tensor("w", [1, 3, 1], &[1.0, 10.0, 100.0])?;
/// let y = shadegrad::ops::depthwise_conv2d(&x, &weight, None, 0)?;
/// assert_eq!(y.to_vec()?, [321.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if x is no image batch, weight or bias do not fit its channels, or the kernel is larger than the
/// padded image.
pub fn depthwise_conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, padding: usize) -> Result<Tensor> {
    let version = select(x, weight, padding);
    observed(OP, x.device(), |on| forward(&on.read(x)?, &on.read(weight)?, on.maybe(bias)?.as_ref(), padding, version))
}

fn select(x: &Tensor, weight: &Tensor, padding: usize) -> Version {
    let sizes = || Sizes { kernel: weight.shape().dims()[0], padding, ..Sizes::of(x.shape()) };
    choice::version(x.device(), OP, sizes, usual(x.shape().last()))
}

/// Four channels at a time wherever they divide.
fn usual(channels: usize) -> Version {
    if channels.is_multiple_of(4) { Version::V2 } else { Version::V1 }
}

/// As [`depthwise_conv2d`], with the kernel named; the gradients use the same version.
///
/// # Errors
/// As [`depthwise_conv2d`]; [`Error::Shape`] for [`Version::V2`] if the channels do not divide by 4.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, padding: usize, version: Version) -> Result<Tensor> {
    let params = sizes(x, weight, bias, padding)?;
    if version == Version::V2 && !params.channels.is_multiple_of(4) {
        return Err(Error::shape(OP, format!("v2 needs channels that divide by 4, got x {}", x.shape())));
    }
    let shape = [params.batch, params.out_h, params.out_w, params.channels].map(|extent| extent as usize);
    let y = x.device().empty(OP, shape)?;
    match x.device() {
        Device::Gpu(_) => {
            let (entry, lanes) = match version {
                Version::V1 => ("forward_v1", 1),
                Version::V2 => ("forward_v2", 4),
            };
            for images in x.device().image_ranges(OP, &[x, &y])? {
                let (x, y) = (x.images(&images), y.images(&images));
                // A binding must hold something: without a bias the weight stands in, and is not read.
                let reads = [&x, weight, bias.unwrap_or(weight)];
                SHADER.entry(entry).params(&params).reads(reads).writes([&y]).over(y.len() / lanes)?;
            }
        }
        Device::Cpu(_) => {
            let bias = bias.map(Tensor::f32s);
            plain::forward(&params, &x.f32s(), &weight.f32s(), bias.as_deref(), &mut y.f32s_mut());
        }
    }
    record(y, &[Some(x), Some(weight), bias], || DepthwiseConv2dBackward {
        x: x.detach(),
        weight: weight.detach(),
        params,
        version,
    })
}

/// Checks the shapes. About 256 chunks of image rows keep a GPU busy in `backward_weight`, but none is shorter than 16
/// pixels: each costs a set of partial sums.
fn sizes(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, padding: usize) -> Result<DepthwiseConv2dParams> {
    let [n, h, w, c] = x.shape().nhwc(OP)?;
    let shape = weight.shape();
    let &[kh, kw, kc] = shape.dims() else {
        return Err(Error::shape(OP, format!("weight must be [kh, kw, {c}] for x {}, got {shape}", x.shape())));
    };
    if kc != c || shape.len() == 0 {
        return Err(Error::shape(OP, format!("weight must be [kh, kw, {c}] for x {}, got {shape}", x.shape())));
    }
    if let Some(bias) = bias.filter(|bias| bias.shape().dims() != [c]) {
        return Err(Error::shape(OP, format!("bias must be [{c}] for x {}, got {}", x.shape(), bias.shape())));
    }
    let (padded_h, padded_w) = (h + 2 * padding, w + 2 * padding);
    if kh > padded_h || kw > padded_w {
        let message = format!("kernel {shape} is larger than x {} with padding {padding}", x.shape());
        return Err(Error::shape(OP, message));
    }
    let (out_h, out_w) = (padded_h - kh + 1, padded_w - kw + 1);
    let chunk_pixels = (n * out_h * out_w).div_ceil(256).max(16);
    let chunk_rows = chunk_pixels.div_ceil(out_w);
    Ok(DepthwiseConv2dParams {
        batch: n as u32,
        in_h: h as u32,
        in_w: w as u32,
        out_h: out_h as u32,
        out_w: out_w as u32,
        channels: c as u32,
        kernel_h: kh as u32,
        kernel_w: kw as u32,
        padding: padding as u32,
        has_bias: u32::from(bias.is_some()),
        chunk_rows: chunk_rows as u32,
        chunks: (n * out_h).div_ceil(chunk_rows) as u32,
        first_chunk: 0,
    })
}

/// What the gradient needs: x, the weight, and the sizes.
#[derive(Debug)]
struct DepthwiseConv2dBackward {
    x: Tensor,
    weight: Tensor,
    params: DepthwiseConv2dParams,
    version: Version,
}

impl DepthwiseConv2dBackward {
    fn input(&self, gy: &Tensor, gx: &Tensor) -> Result<()> {
        let Self { weight, params, version, .. } = self;
        match gy.device() {
            Device::Gpu(_) => {
                let (entry, lanes) = match version {
                    Version::V1 => ("backward_input_v1", 1),
                    Version::V2 => ("backward_input_v2", 4),
                };
                for images in gy.device().image_ranges(OP, &[gy, gx])? {
                    let (gy, gx) = (gy.images(&images), gx.images(&images));
                    SHADER.entry(entry).params(params).reads([&gy, weight]).writes([&gx]).over(gx.len() / lanes)?;
                }
            }
            Device::Cpu(_) => plain::backward_input(params, &gy.f32s(), &weight.f32s(), &mut gx.f32s_mut()),
        }
        Ok(())
    }

    fn weight(&self, gy: &Tensor, gw: &Tensor, gb: &Tensor, wanted: &Wanted<'_>) -> Result<()> {
        let Self { x, params, version, .. } = self;
        match gy.device() {
            Device::Gpu(context) => {
                let (entry, lanes) = match version {
                    Version::V1 => ("backward_weight_v1", 1),
                    Version::V2 => ("backward_weight_v2", 4),
                };
                let ranges = gy.device().image_ranges(OP, &[x, gy])?;
                let width = gw.len() + gb.len();
                // Each range begins a chunk of its own. All partial sums must fit one binding: else longer chunks.
                let chunks_of = |images: &Range<usize>, rows: u32| (images.len() as u32 * params.out_h).div_ceil(rows);
                let chunks_with = |rows: u32| ranges.iter().map(|images| chunks_of(images, rows)).sum::<u32>();
                let room = context.max_binding_bytes() / (4 * width as u64);
                let mut chunk_rows = params.chunk_rows;
                while u64::from(chunks_with(chunk_rows)) > room && chunk_rows < params.batch * params.out_h {
                    chunk_rows *= 2;
                }
                let chunks = chunks_with(chunk_rows);
                let partials = wanted.chunk_table(OP, [chunks as usize, width], &[gw, gb])?;
                let mut first_chunk = 0;
                for images in &ranges {
                    let (x, gy) = (x.images(images), gy.images(images));
                    let batch = images.len() as u32;
                    let p = DepthwiseConv2dParams { batch, chunk_rows, first_chunk, ..*params };
                    let chunks = chunks_of(images, chunk_rows);
                    SHADER
                        .entry(entry)
                        .params(&p)
                        .reads([&x, &gy])
                        .writes([&partials])
                        .over(chunks as usize * width / lanes)?;
                    first_chunk += chunks;
                }
                wanted.sum_chunks(&partials, &[gw, gb])?;
            }
            Device::Cpu(_) => {
                plain::backward_weight(params, &x.f32s(), &gy.f32s(), &mut gw.f32s_mut(), &mut gb.f32s_mut());
            }
        }
        Ok(())
    }
}

impl Backward for DepthwiseConv2dBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut gradients = vec![None, None, None];
        if wanted.needs(0) {
            let gx = wanted.empty(OP, 0, self.x.shape())?;
            self.input(gy, &gx)?;
            gradients[0] = Some(gx);
        }
        if wanted.needs(1) || wanted.needs(2) {
            let gw = wanted.empty(OP, 1, self.weight.shape())?;
            let gb = wanted.empty(OP, 2, [self.params.channels as usize].into())?;
            self.weight(gy, &gw, &gb, wanted)?;
            gradients[1] = wanted.needs(1).then_some(gw);
            gradients[2] = wanted.needs(2).then_some(gb);
        }
        Ok(gradients)
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        vec![&mut self.x, &mut self.weight]
    }

    fn macs(&self) -> u64 {
        let p = &self.params;
        [p.batch, p.out_h, p.out_w, p.channels, p.kernel_h, p.kernel_w].into_iter().map(u64::from).product()
    }

    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        vec![("padding", Setting::Number(self.params.padding.into()))]
    }
}
