//! Depthwise 2-D convolution, stride 1: each channel with its own kernel. GELU can be a part of it.
//!
//! # Forward
//! `z[n,oy,ox,c] = bias[c] + sum over ky,kx of x[n, oy+ky-p, ox+kx-p, c] * w[ky,kx,c]`;  `y = z`, or `gelu(z)`
//! ([`depthwise_conv2d_gelu`]).
//!
//! # Backward
//! `gz = gy`, or gy times the slope of [`gelu`](mod@super::gelu) at z.
//!
//! `gx[n,iy,ix,c] = sum over ky,kx of gz[n, iy+p-ky, ix+p-kx, c] * w[ky,kx,c]`: the same sum with the kernel turned
//! round.
//!
//! `gw[ky,kx,c] = sum over n,oy,ox of x[n, oy+ky-p, ox+kx-p, c] * gz[n,oy,ox,c]`;  `gb[c] = sum of gz`.
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
//! One invocation gathers one element, in v2 of four channels. The chunks are added up in order. With GELU, in v2 and for
//! kernels up to 3x3, one invocation sums all positions of the kernel: so it makes each gz once, and stores it for gx.
//!
//! Shapes: x `[N, H, W, C]`, weight `[kh, kw, C]`, bias `[C]` -> y `[N, H + 2p - kh + 1, W + 2p - kw + 1, C]`.
//!
//! Versions: v1 (an element per invocation), v2 (four channels).
//!
//! Launches: 1 forward; backward 1 for x, 1 for weight and bias, and a share in those of
//! [`sum_chunks`](mod@super::sum_chunks); GELU costs one more in v1 and for larger kernels.
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
use super::{Version, choice, gelu};
use crate::autograd::{Backward, Setting, Wanted, record};
use crate::cpu::depthwise_conv2d::{self as plain, DepthwiseConv2dParams};
use crate::cpu::gelu as plain_gelu;
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "depthwise_conv2d";
pub(super) const SHADER: Shader = shader!("depthwise_conv2d");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[
        ("backward_weight_gelu_v2", "GELU follows, the channels divide by 4, the kernel is 3x3 or smaller"),
        ("_v2", "the channels divide by 4"),
    ],
    run: |on| {
        let Sizes { shape, kernel, padding, .. } = on.sizes;
        let weight = on.input([kernel, kernel, shape.last()])?;
        depthwise_conv2d(&on.x()?, &weight, Some(&on.input([shape.last()])?), padding).map(Some)
    },
};

/// What `SIDE` is in the shader's file: the largest kernel whose weight gradient is fused with GELU's.
const SIDE: u32 = 3;

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

/// [`gelu`](super::gelu()) of [`depthwise_conv2d`], in one op: the convolution writes both, and the gradient of GELU is made
/// where the weight's is.
///
/// # Errors
/// As [`depthwise_conv2d`].
pub fn depthwise_conv2d_gelu(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, padding: usize) -> Result<Tensor> {
    let version = select(x, weight, padding);
    observed(OP, x.device(), |on| {
        forward_gelu(&on.read(x)?, &on.read(weight)?, on.maybe(bias)?.as_ref(), padding, version)
    })
}

fn select(x: &Tensor, weight: &Tensor, padding: usize) -> Version {
    let sizes = || Sizes { kernel: weight.shape().dims()[0], padding, ..Sizes::of(x.shape()) };
    choice::version(x.device(), OP, sizes, Version::by_fours(x.shape().last()))
}

/// As [`depthwise_conv2d`], with the kernel named; the gradients use the same version.
///
/// # Errors
/// As [`depthwise_conv2d`]; [`Error::Shape`] for [`Version::V2`] if the channels do not divide by 4.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, padding: usize, version: Version) -> Result<Tensor> {
    run([x, weight], bias, padding, false, version)
}

/// As [`depthwise_conv2d_gelu`], with the kernel named.
///
/// # Errors
/// As [`forward`].
pub fn forward_gelu(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    padding: usize,
    version: Version,
) -> Result<Tensor> {
    run([x, weight], bias, padding, true, version)
}

fn run(
    [x, weight]: [&Tensor; 2],
    bias: Option<&Tensor>,
    padding: usize,
    with_gelu: bool,
    version: Version,
) -> Result<Tensor> {
    let params = sizes(x, weight, bias, padding)?;
    if version == Version::V2 && !params.channels.is_multiple_of(4) {
        return Err(Error::shape(OP, format!("v2 needs channels that divide by 4, got x {}", x.shape())));
    }
    let shape = [params.batch, params.out_h, params.out_w, params.channels].map(|extent| extent as usize);
    let z = x.new_empty(OP, shape)?;
    let activated = if with_gelu { Some(x.new_empty(OP, shape)?) } else { None };
    match x.device() {
        Device::Gpu(_) => {
            let (entry, lanes) = match (version, with_gelu) {
                (Version::V1, false) => ("forward_v1", 1),
                (Version::V1, true) => ("forward_gelu_v1", 1),
                (Version::V2, false) => ("forward_v2", 4),
                (Version::V2, true) => ("forward_gelu_v2", 4),
            };
            for images in x.device().image_ranges(OP, &[x, &z])? {
                let (x, z) = (x.images(&images), z.images(&images));
                let activated = activated.as_ref().map(|activated| activated.images(&images));
                // A binding must hold something: without a bias the weight stands in, and is not read.
                let reads = [&x, weight, bias.unwrap_or(weight)];
                let launch = SHADER.entry(entry).params(&params).reads(reads);
                launch.writes([&z]).writes(&activated).over(z.len() / lanes)?;
            }
        }
        Device::Cpu(_) => {
            let bias = bias.map(Tensor::f32s);
            plain::forward(&params, &x.f32s(), &weight.f32s(), bias.as_deref(), &mut z.f32s_mut());
            if let Some(activated) = &activated {
                plain_gelu::forward(&z.f32s(), &mut activated.f32s_mut());
            }
        }
    }
    let (y, z) = match activated {
        Some(activated) => (activated, Some(z)),
        None => (z, None),
    };
    record(y, &[Some(x), Some(weight), bias], || DepthwiseConv2dBackward {
        x: x.detach(),
        weight: weight.detach(),
        z,
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

/// What the gradient needs: x, the weight, the result before GELU if GELU follows, and the sizes.
#[derive(Debug)]
struct DepthwiseConv2dBackward {
    x: Tensor,
    weight: Tensor,
    z: Option<Tensor>,
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

    /// The gradient of what is before GELU.
    fn before_gelu(&self, gy: &Tensor, z: &Tensor) -> Result<Tensor> {
        let gz = gy.new_empty(OP, gy.shape())?;
        gelu::input_gradient(gy, z, &gz, self.version)?;
        Ok(gz)
    }

    /// Whether one kernel makes the gradients of GELU and of the weight.
    fn fuses_gelu(&self, gy: &Tensor) -> bool {
        let small = self.params.kernel_h.max(self.params.kernel_w) <= SIDE;
        small && self.version == Version::V2 && matches!(gy.device(), Device::Gpu(_))
    }

    /// gw and gb. With `gz`, gy is the gradient behind GELU, and what it is before GELU is written there.
    fn weight(
        &self,
        gy: &Tensor,
        [gw, gb]: [&Tensor; 2],
        gz: Option<(&Tensor, &Tensor)>,
        wanted: &Wanted<'_>,
    ) -> Result<()> {
        let Self { x, params, version, .. } = self;
        match gy.device() {
            Device::Gpu(context) => {
                let positions = (params.kernel_h * params.kernel_w + 1) as usize;
                // What one invocation sums.
                let (entry, sums) = match (version, gz) {
                    (Version::V1, _) => ("backward_weight_v1", 1),
                    (Version::V2, None) => ("backward_weight_v2", 4),
                    (Version::V2, Some(_)) => ("backward_weight_gelu_v2", 4 * positions),
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
                    let (z, gz) = gz.map(|(z, gz)| (z.images(images), gz.images(images))).unzip();
                    let batch = images.len() as u32;
                    let p = DepthwiseConv2dParams { batch, chunk_rows, first_chunk, ..*params };
                    let chunks = chunks_of(images, chunk_rows);
                    SHADER
                        .entry(entry)
                        .params(&p)
                        .reads([&x, &gy])
                        .reads(&z)
                        .writes([&partials])
                        .writes(&gz)
                        .over(chunks as usize * width / sums)?;
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
        let of_weight = wanted.needs(1) || wanted.needs(2);
        let fused = of_weight && self.fuses_gelu(gy);
        let gz = match &self.z {
            None => gy.detach(),
            Some(_) if fused => gy.new_empty(OP, gy.shape())?, // by the weight's kernel
            Some(z) => self.before_gelu(gy, z)?,
        };
        if of_weight {
            let gw = wanted.empty(OP, 1, self.weight.shape())?;
            let gb = wanted.empty(OP, 2, [self.params.channels as usize].into())?;
            match &self.z {
                Some(z) if fused => self.weight(gy, [&gw, &gb], Some((z, &gz)), wanted)?,
                _ => self.weight(&gz, [&gw, &gb], None, wanted)?,
            }
            gradients[1] = wanted.needs(1).then_some(gw);
            gradients[2] = wanted.needs(2).then_some(gb);
        }
        if wanted.needs(0) {
            let gx = wanted.empty(OP, 0, self.x.shape())?;
            self.input(&gz, &gx)?;
            gradients[0] = Some(gx);
        }
        Ok(gradients)
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        [&mut self.x, &mut self.weight].into_iter().chain(&mut self.z).collect()
    }

    fn macs(&self) -> u64 {
        let p = &self.params;
        [p.batch, p.out_h, p.out_w, p.channels, p.kernel_h, p.kernel_w].into_iter().map(u64::from).product()
    }

    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        vec![
            ("padding", Setting::Number(self.params.padding.into())),
            ("gelu", Setting::Number(f64::from(u8::from(self.z.is_some())))),
        ]
    }
}
