//! 2-D convolution (as in networks: a correlation), any kernel, stride and padding.
//!
//! # Forward
//! `y[n,oy,ox,co] = bias[co] + sum over ky,kx,ci of x[n, oy*s+ky-p, ox*s+kx-p, ci] * w[ky,kx,ci,co]`
//!
//! x is 0 outside of the image.
//!
//! # Backward
//! `gx[n,iy,ix,ci] = sum over ky,kx,co of gy[n, (iy+p-ky)/s, (ix+p-kx)/s, co] * w[ky,kx,ci,co]`, where s divides: the
//! same gather over gy with flipped weights.
//!
//! `gw[ky,kx,ci,co] = sum over n,oy,ox of x[n, oy*s+ky-p, ox*s+kx-p, ci] * gy[n,oy,ox,co]`;  `gb[co] = sum of gy`:
//! partial sums over chunks of image rows, with a second stage that adds the chunks up in order.
//!
//! # Picture of the tile
//! ```text
//!                      co: 8 columns
//!                    +----+----+
//!    8 pixels        | v4 | v4 |     for each kernel position (tap) and input channel k:
//!    (n, oy, ox)     | v4 | v4 |     acc[pixel][co] += x[pixel, tap, k] * w[tap, k, co]
//!                    | v4 | v4 |
//!                    +----+----+
//! ```
//!
//! In v2 one invocation owns 8 pixels x 8 channels in registers. For each (tap, k) it loads 8 numbers of x and two
//! vectors of w, and adds their outer product. Neighbouring invocations take neighbouring channels, so they read the
//! same x and consecutive w.
//!
//! Shapes: x `[N, H, W, in]`, weight `[kh, kw, in, out]`, bias `[out]` -> y `[N, (H+2p-kh)/s+1, (W+2p-kw)/s+1, out]`.
//!
//! Versions: `v1` one element per invocation, any shape; `v2` register tiles, result channels that divide by 8; weight
//! gradient `v3`, input channels that divide by 8 too, `v4`, one to four of them, `v5`, 3x3 with stride 1 in Winograd's form
//! ([`winograd_weight`]), `v6`, blocks on [`matrix`] units, for images of 16-bit floats. Forward and input gradient `v3`: 3x3 with stride 1 in Winograd's
//! form, 24 products for 4x2 pixels instead of 72 ([`winograd`]); `v5`: tiles on [`matrix`] units, for images of 16-bit floats;
//! `v6`: 3x3 with stride 1 of an x of one to four channels ([`conv2d_few`]); `v7`: Winograd's form in one kernel, through workgroup
//! memory ([`winograd_fused`]), which `tune` may choose. (NVIDIA's cards take forms of Winograd for large 3x3 convolutions without it:
//! `src/ops/priors.rs`.) With `BLOCK` above 1, tiles of `v2`, `v3` and of the weight gradient's `v3` and
//! `v5` read through workgroup memory (`shaders/lib/gemm_block.wgsl`); usual on GPUs for `v2` and the weight gradient's `v3`. With
//! `TOGETHER=8`, those that stand side by side read what they have in common once for all of them, and hand it around in their
//! subgroup (`shaders/lib/lanes_together.wgsl`); usual in software.
//! [`conv2d_with_statistics`] launches `v2`, `v5`, `v6` or `v7` with an epilogue.
//!
//! The input gradient of a strided convolution takes pixels by the kernel positions that they see, so that a block or tile skips the
//! others: 2.25 of 3x3 on average with stride 2 (`shaders/lib/conv2d_order.wgsl`).
//!
//! An x that is the result of a [`batch_norm`](super::batch_norm()) or a [`concat`](super::concat()) and that nobody has
//! asked for yet is made where it is read: `conv2d_normed` and `conv2d_joined` are the same kernels (and
//! `conv2d_normed_backward`, `conv2d_joined_backward`) with another way to read. Two passes over memory fewer, and a tensor
//! less that is kept. A joined x needs tiles and parts whose channels divide by 8; else it is written. The other way round, the
//! weight gradient of a network's first layer makes its gy of the gradient of the batch norm behind it (`conv2d_before_norm`).
//!
//! Launches: 1 forward, 1 for both gradients where their kernels are `v2` and `v3` (else 2; in Winograd's form 3 or 2 for some tiles at
//! a time, and 1 more), and a share in those of [`transpose_weights`](mod@super::transpose_weights) and
//! [`sum_chunks`](mod@super::sum_chunks).
//!
//! # Files
//! - [`shaders/conv2d.wgsl`](../../../../../shaders/conv2d.wgsl), below, and its pieces `shaders/lib/conv2d_*.wgsl`
//! - [`src/ops/conv2d.rs`](../../../src/shadegrad/ops/conv2d.rs.html)
//! - [`src/cpu/conv2d.rs`](../../../src/shadegrad/cpu/conv2d.rs.html)
//! - [`kernels-tests/ops/conv2d.rs`](../../../../../kernels-tests/ops/conv2d.rs)
//! - [`bench/ops/conv2d.rs`](../../../../../bench/ops/conv2d.rs)
//!
//! <details><summary>shaders/conv2d.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/conv2d.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/conv2d_backward.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/conv2d_backward.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/conv2d_normed.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/conv2d_normed.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/conv2d_before_norm.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/conv2d_before_norm.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/conv2d_joined.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/conv2d_joined.wgsl")]
//! ```
//! </details>

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::choice::{Kernel, Product, all_lanes, choose, usual_lanes, worth_trying};
use super::matrix::MatrixKernel;
use super::plan::Plan;
use super::transpose_weights::{by_input, by_output};
use super::{
    Chunks, GPU_PARTIAL_BYTES, MAX_PARTIAL_BYTES, Tile, Version, add, chunks_with_room, concat, conv2d_few,
    filling_invocations, matrix, priors, winograd, winograd_fused, winograd_weight,
};
use crate::autograd::{Backward, Kept, OnReading, Setting, Wanted, record};
use crate::cpu::conv2d::{self as plain, Conv2dParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Constants, Context, Matrix, Part, Question, Shader, Sizes, WORKGROUP};
use crate::tensor::{DType, Device, Shape, Summed, Tensor};
use crate::{Error, Result};

const OP: &str = "conv2d";
/// Pixels of a side up to which kernels find their places (`source` in `shaders/lib/conv2d_sizes.wgsl`).
const LONGEST_SIDE: usize = 1 << 20;
pub(super) const SHADER: Shader = shader!("conv2d");
pub(super) const BACKWARD: Shader = shader!("conv2d_backward");
/// The same kernels of an x that is two tensors side by side.
pub(super) const JOINED: Shader = shader!("conv2d_joined");
pub(super) const JOINED_BACKWARD: Shader = shader!("conv2d_joined_backward");
/// The same kernels of an x that they normalise themselves.
pub(super) const NORMED: Shader = shader!("conv2d_normed");
pub(super) const NORMED_BACKWARD: Shader = shader!("conv2d_normed_backward");
/// The weight gradient of a convolution whose gy it makes of a batch norm's itself.
pub(super) const BEFORE_NORM: Shader = shader!("conv2d_before_norm");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[
        ("forward_v2", "the channels of the result divide by 8"),
        (
            "forward_v3",
            "a 3x3 kernel has stride 1, the device is software, and tiles of 4x2 pixels times channels in and out are 65536 or more",
        ),
        ("forward_v5", "on matrix units: `tune --precision f16` found it faster, or it was timed on such a card"),
        ("forward_statistics_v5", "as forward_v5, and a batch norm follows"),
        (
            "forward_v6",
            "a 3x3 kernel has stride 1, x one to four channels, the result a multiple of 4, and rows are 16 pixels or longer",
        ),
        ("forward_v7", "`tune` found it faster"),
        (
            "forward_statistics_v7",
            "`tune` found it faster, images are of an even height and a width of a multiple of 8, and a batch norm follows",
        ),
        ("forward_statistics_v6", "as forward_v6, of rows of a multiple of 64 pixels, and a batch norm follows"),
        ("forward_statistics_v2", "as forward_v2, and a batch norm follows"),
        ("backward_weight_v3", "the channels of x and of the result divide by 8"),
        ("backward_weight_v2", "the channels of the result divide by 8, those of x do not"),
        ("backward_weight_v4", "as forward_v6, the channels of the result divide by 8, and the device is software"),
        ("backward_weight_v6", "as forward_v5"),
        (
            "backward_weight_v5",
            "a 3x3 kernel has stride 1, the device is software, 32 tiles of 4x2 pixels and 16 channels or more",
        ),
        ("backward_v2", "both gradients are wanted, by v2 and v3; in software of small convolutions only"),
        ("backward_sums_v2", "so it is, and x is a batch norm's"),
    ],
    run: |on| {
        let Sizes { shape, out, kernel, stride, padding, .. } = on.sizes;
        let weight = on.input([kernel, kernel, shape.last(), out])?;
        conv2d(&on.x()?, &weight, Some(&on.input([out])?), stride, padding).map(Some)
    },
};

/// Convolves images with a bank of kernels.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let x = device.tensor("x", [1, 1, 3, 1], &[1.0, 2.0, 3.0])?;
/// let weight = device.tensor("w", [1, 1, 1, 1], &[10.0])?;
/// assert_eq!(shadegrad::ops::conv2d(&x, &weight, None, 1, 0)?.to_vec()?, [10.0, 20.0, 30.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if the channels differ, the stride is 0, or the kernel is larger than the padded image.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, stride: usize, padding: usize) -> Result<Tensor> {
    let params = sizes(x.shape(), weight.shape(), bias.map(Tensor::shape), stride, padding)?;
    let kernel = select(x, &params, Part::Forward);
    observed(OP, x.device(), |on| {
        forward(&on.read(x)?, &on.read(weight)?, on.maybe(bias)?.as_ref(), stride, padding, kernel)
    })
}

/// As [`conv2d`]. On a GPU the kernel also leaves what a [`batch_norm`](super::batch_norm()) of the result needs to know of
/// its chunks, where the shape allows it: then batch norm need not read the result for that.
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_with_statistics(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let params = sizes(x.shape(), weight.shape(), bias.map(Tensor::shape), stride, padding)?;
    let kernel = select(x, &params, Part::Forward);
    observed(OP, x.device(), |on| {
        forward_with_statistics(&on.read(x)?, &on.read(weight)?, on.maybe(bias)?.as_ref(), stride, padding, kernel)
    })
}

/// As [`conv2d`], added to `y`: `y + conv2d(x)`, the end of a residual block. On a GPU the sum stands where y was, and the kernel
/// adds on its way, where nobody else holds y. With `before_norm` the sum has statistics as from [`conv2d_with_statistics`].
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let (x, y) = (device.tensor("x", [1, 1, 2, 1], &[1.0, 2.0])?, device.tensor("y", [1, 1, 2, 1], &[0.5, 0.25])?);
/// let weight = device.tensor("w", [1, 1, 1, 1], &[10.0])?;
/// assert_eq!(shadegrad::ops::conv2d_added(y, &x, &weight, None, (1, 0), false)?.to_vec()?, [10.5, 20.25]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`conv2d`]; [`Error::Shape`] if y does not have the shape of the result.
pub fn conv2d_added(
    y: Tensor,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    (stride, padding): (usize, usize),
    before_norm: bool,
) -> Result<Tensor> {
    let params = sizes(x.shape(), weight.shape(), bias.map(Tensor::shape), stride, padding)?;
    y.settle()?;
    // A check looks at what each op reads: y must still be there then. CPU ops do not add.
    let in_place =
        matches!(y.device(), Device::Gpu(_)) && y.is_sole_owner() && !y.device().switches().looks_at_results();
    if !in_place {
        return add::add(&y, &conv2d(x, weight, bias, stride, padding)?);
    }
    let kernel = select(x, &params, Part::Forward);
    observed(OP, x.device(), |on| {
        let (x, weight, bias) = (on.read(x)?, on.read(weight)?, on.maybe(bias)?);
        run([&x, &weight], bias.as_ref(), params, kernel, before_norm, Some(on.read(&y)?))
    })
}

/// [`conv2d_added`] with a chosen kernel of a GPU, in place whoever holds y.
///
/// # Errors
/// As [`conv2d_added`] and [`forward`]; [`Error::Shape`] on the CPU, which does not add.
pub fn forward_added(
    y: Tensor,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    (stride, padding): (usize, usize),
    kernel: impl Into<GatherKernel>,
) -> Result<Tensor> {
    let params = sizes(x.shape(), weight.shape(), bias.map(Tensor::shape), stride, padding)?;
    run([x, weight], bias, params, kernel.into(), true, Some(y))
}

/// The kernel of the gather of forward and of the input gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatherKernel {
    /// The sum as it stands: `v1` and `v2`.
    Direct(Kernel),
    /// `v3`: [`winograd`], for the shapes that it takes, with these constants.
    Winograd(Constants),
    /// `v5`: [`matrix`] units, or what stands in for them.
    Matrix(MatrixKernel),
    /// `v6`: [`conv2d_few`], for the shapes that it takes, with these constants.
    Few(Constants),
    /// `v7`: [`winograd_fused`], for the shapes that it takes, with these constants.
    Fused(Constants),
}

impl<K: Into<Kernel>> From<K> for GatherKernel {
    fn from(kernel: K) -> Self {
        Self::Direct(kernel.into())
    }
}

impl fmt::Display for GatherKernel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(kernel) => kernel.fmt(out),
            Self::Winograd(constants) => named(out, "v3", *constants),
            Self::Matrix(kernel) => write!(out, "v5 {kernel}"),
            Self::Few(constants) => named(out, "v6", *constants),
            Self::Fused(constants) => named(out, "v7", *constants),
        }
    }
}

/// A version, and constants that are not those of the file.
fn named(out: &mut fmt::Formatter<'_>, version: &str, constants: Constants) -> fmt::Result {
    if constants == Constants::default() { out.write_str(version) } else { write!(out, "{version} {constants}") }
}

/// The kernel of the gather for the result of a convolution or for its input gradient, which reads such images. `p` are
/// forward's sizes.
pub(super) fn select(images: &Tensor, p: &Conv2dParams, part: Part) -> GatherKernel {
    select_for((images.device(), images.dtype()), p, part)
}

fn select_for(images: (&Device, DType), p: &Conv2dParams, part: Part) -> GatherKernel {
    let (device, _) = images;
    let gather = if part == Part::BackwardInput { p.input_gradient() } else { *p };
    let usual = if let Some(few) = conv2d_few::usual(device, &gather) {
        few
    } else if let Some(timed) = priors::gather(images, &gather, part) {
        timed
    } else if winograd::is_usual(device, &gather) {
        GatherKernel::Winograd(usual_lanes(device))
    } else {
        Kernel::usual(device, product(&gather), gather.out_c.is_multiple_of(8)).into()
    };
    let through_memory = |kernel: &GatherKernel| match kernel {
        GatherKernel::Fused(_) => true,
        GatherKernel::Direct(kernel) => kernel.has_blocks(),
        GatherKernel::Winograd(constants) => Kernel::tiled(*constants).has_blocks(),
        _ => false,
    };
    let by_matrix = || matrix::offered(images, &gather, part);
    let candidates = || {
        let right = matrix::right(device, by_matrix()).map(GatherKernel::Matrix);
        worth_trying(device, kernels(device, &gather), through_memory).into_iter().chain(right).collect()
    };
    choose(device, || question(p, part, !by_matrix().is_empty()), usual, candidates)
}

/// All kernels that a device has for a gather of these sizes; [`matrix::kernels`] has those for 16-bit floats only.
pub fn kernels(device: &Device, p: &Conv2dParams) -> Vec<GatherKernel> {
    let direct = Kernel::all(device, &SHADER, |kernel| product(p).takes(device, kernel));
    let winograd = winograd::kernels(device, p);
    let direct = direct.into_iter().map(Into::into);
    let fused = winograd_fused::kernels(device, p);
    direct.chain(winograd).chain(conv2d_few::kernels(p)).chain(fused).collect()
}

/// The weight gradient of a convolution of these sizes as a product of matrices.
fn weight_product(p: &Conv2dParams) -> Product {
    let pixels = (p.batch * p.out_h * p.out_w) as usize;
    let rows = (p.kernel_h * p.kernel_w * p.in_c) as usize;
    Product::of_weights(rows, p.out_c as usize, pixels, p.in_c as usize)
}

/// The gather as a product of matrices.
fn product(p: &Conv2dParams) -> Product {
    Product {
        rows: (p.batch * p.out_h * p.out_w) as usize,
        columns: p.out_c as usize,
        terms: (p.kernel_h * p.kernel_w * p.in_c) as usize,
        depth: p.in_c as usize,
    }
}

/// What `tune` is asked; it knows square kernels only. `half`: for kernels of which one takes only 16-bit floats.
fn question(p: &Conv2dParams, part: Part, half: bool) -> Option<Question> {
    let square = p.kernel_h == p.kernel_w && p.pad_h == p.pad_w && p.divide == 1;
    let shape = Shape::from([p.batch, p.in_h, p.in_w, p.in_c].map(|extent| extent as usize));
    let (kernel, padding) = (p.kernel_h as usize, usize::try_from(p.pad_h).ok()?);
    let sizes = Sizes { shape, out: p.out_c as usize, kernel, stride: p.multiply as usize, padding, half };
    square.then_some(Question { op: OP, part, sizes })
}

/// [`conv2d`] with a chosen kernel.
///
/// # Errors
/// As [`conv2d`], and if the kernel does not take these channels.
pub fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
    kernel: impl Into<GatherKernel>,
) -> Result<Tensor> {
    let params = sizes(x.shape(), weight.shape(), bias.map(Tensor::shape), stride, padding)?;
    run([x, weight], bias, params, kernel.into(), false, None)
}

/// [`conv2d_with_statistics`] with a chosen kernel.
///
/// # Errors
/// As [`forward`].
pub fn forward_with_statistics(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
    kernel: impl Into<GatherKernel>,
) -> Result<Tensor> {
    let params = sizes(x.shape(), weight.shape(), bias.map(Tensor::shape), stride, padding)?;
    run([x, weight], bias, params, kernel.into(), true, None)
}

/// `there`: what the result is added to, on a GPU.
fn run(
    [x, weight]: [&Tensor; 2],
    bias: Option<&Tensor>,
    mut params: Conv2dParams,
    kernel: GatherKernel,
    with_statistics: bool,
    there: Option<Tensor>,
) -> Result<Tensor> {
    let p = &mut params;
    let shape = Shape::from([p.batch, p.out_h, p.out_w, p.out_c].map(|extent| extent as usize));
    let mut y = match &there {
        Some(there) if there.shape() != shape || there.dtype() != x.dtype() => {
            return Err(Error::shape(OP, format!("the result {shape} cannot be added to {there}")));
        }
        Some(there) if matches!(there.device(), Device::Cpu(_)) => {
            return Err(Error::shape(OP, "only kernels of a GPU add to what stands there".to_owned()));
        }
        Some(there) => there.detach(),
        None => x.new_empty(OP, shape)?,
    };
    match x.device() {
        Device::Gpu(_) => {
            let read = x.on_reading().filter(|_| !matches!(kernel, GatherKernel::Few(_)));
            let tiles = kernel != GatherKernel::from(Version::V1);
            let source = Source::of(read.as_ref(), tiles).unwrap_or(Source::Plain(x));
            source.note(p);
            let statistics = if with_statistics { statistics(source, &y, kernel)? } else { None };
            let p = &Conv2dParams { accumulate: there.is_some().into(), ..*p };
            Gather { bias, statistics: statistics.as_ref(), ..Gather::new(p, source, weight, &y) }.run(kernel)?;
            y.summed = statistics.map(Chunks::summed);
        }
        Device::Cpu(_) => {
            let bias = bias.map(Tensor::f32s);
            plain::forward(p, &x.f32s(), &weight.f32s(), bias.as_deref(), &mut y.f32s_mut());
        }
    }
    let inputs = [Some(x), Some(weight), bias, there.as_ref()];
    let added = there.is_some();
    let inputs = if added { &inputs[..] } else { &inputs[..3] };
    let images = x.dtype();
    record(y, inputs, || Conv2dBackward { x: Kept::of(x), images, weight: weight.detach(), params, added })
}

/// The place for the statistics of y, if the kernel can make them.
fn statistics(source: Source<'_>, y: &Tensor, kernel: GatherKernel) -> Result<Option<Chunks>> {
    let channels = y.shape().last();
    let pixels = match kernel {
        GatherKernel::Direct(kernel) if kernel.version == Version::V1 => return Ok(None),
        GatherKernel::Direct(kernel) => Tile::of(kernel).group_rows(channels),
        GatherKernel::Matrix(_) => matrix::CHUNK,
        GatherKernel::Few(_) if conv2d_few::leaves_statistics(y) => conv2d_few::RUN,
        GatherKernel::Fused(constants) => match winograd_fused::chunk(y, constants) {
            Some(pixels) => pixels,
            None => return Ok(None),
        },
        GatherKernel::Winograd(_) | GatherKernel::Few(_) => return Ok(None),
    };
    Chunks::of(OP, y, pixels, source.ranges(&[y])?.len())
}

/// Of the image that a gather reads or makes, the larger one.
///
/// # Errors
/// [`Error::Shape`] for a side on which kernels do not find their places.
pub(super) fn check_sides(op: &'static str, sides: [usize; 2], padding: usize) -> Result<()> {
    let longest = sides[0].max(sides[1]) + 2 * padding;
    if longest <= LONGEST_SIDE {
        return Ok(());
    }
    let message =
        format!("an image with a padded side of {longest} pixels: {LONGEST_SIDE} are most; cut it into smaller ones");
    Err(Error::shape(op, message))
}

fn sizes(x: Shape, weight: Shape, bias: Option<Shape>, stride: usize, padding: usize) -> Result<Conv2dParams> {
    let image = x.nhwc(OP)?;
    let kernel = weight.nhwc(OP).map_err(|_| {
        Error::shape(OP, format!("the weight must be [kernel height, kernel width, in, out], got {weight}"))
    })?;
    if kernel[2] != image[3] {
        let message = format!("x {x} has {} channels but the weight {weight} takes {}", image[3], kernel[2]);
        return Err(Error::shape(OP, message));
    }
    check_sides(OP, [image[1], image[2]], padding)?;
    if stride == 0 || image[1] + 2 * padding < kernel[0] || image[2] + 2 * padding < kernel[1] {
        let message = format!("stride {stride} and padding {padding} leave no result for x {x} and weight {weight}");
        return Err(Error::shape(OP, message));
    }
    match bias {
        Some(bias) if bias != Shape::from([kernel[3]]) => {
            Err(Error::shape(OP, format!("the bias must be [{}], got {bias}", kernel[3])))
        }
        _ => Ok(Conv2dParams::forward(image, kernel, stride, padding, bias.is_some())),
    }
}

/// What a convolution reads on a GPU.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// Numbers.
    Plain(&'a Tensor),
    /// The input of a batch norm, which is applied where it is read: its table `[4, C]`, and the floor of its ReLU.
    Normed(&'a Tensor, &'a Tensor, f32),
    /// Two tensors side by side, each with channels that divide by 8.
    Joined([&'a Tensor; 2]),
}

impl<'a> Source<'a> {
    /// What stands for numbers that nobody has computed, if there is a kernel that takes it; `tiles`: whether it works on
    /// tiles.
    fn of(read: Option<&'a OnReading>, tiles: bool) -> Option<Self> {
        match read? {
            OnReading::NormGradient { .. } => None,
            OnReading::Normed { x, table, floor } => Some(Self::Normed(x, table, *floor)),
            OnReading::Joined(parts) => {
                let takes = tiles && parts.iter().all(|part| part.shape().last().is_multiple_of(8));
                takes.then_some(Self::Joined(parts.each_ref()))
            }
        }
    }

    /// Tells the kernel.
    fn note(self, p: &mut Conv2dParams) {
        match self {
            Self::Plain(_) => {}
            Self::Normed(_, _, floor) => p.floor = floor,
            Self::Joined([a, _]) => p.split = a.shape().last() as u32,
        }
    }

    /// The images.
    pub(super) fn parts(self) -> Vec<&'a Tensor> {
        match self {
            Self::Plain(x) | Self::Normed(x, ..) => vec![x],
            Self::Joined(parts) => parts.to_vec(),
        }
    }

    /// Channels of the first part of two; else all.
    pub(super) fn split(self, p: &Conv2dParams) -> u32 {
        match self {
            Self::Joined([a, _]) => a.shape().last() as u32,
            _ => p.in_c,
        }
    }

    pub(super) fn table(self) -> Option<&'a Tensor> {
        match self {
            Self::Normed(_, table, _) => Some(table),
            _ => None,
        }
    }

    pub(super) fn images(self, range: &Range<usize>) -> Vec<Tensor> {
        self.parts().iter().map(|part| part.images(range)).collect()
    }

    /// Ranges of images whose part of every tensor fits one binding.
    pub(super) fn ranges(self, others: &[&Tensor]) -> Result<Vec<Range<usize>>> {
        let all: Vec<&Tensor> = self.parts().into_iter().chain(others.iter().copied()).collect();
        all[0].device().image_ranges(OP, &all)
    }

    /// The kernels that read it: one gradient at a time, and both.
    fn shaders(self) -> [Shader; 2] {
        match self {
            Self::Plain(_) => [SHADER, BACKWARD],
            Self::Normed(..) => [NORMED, NORMED_BACKWARD],
            Self::Joined(_) => [JOINED, JOINED_BACKWARD],
        }
    }
}

/// A gather on a GPU: that of forward and of the input gradient; also the input gradient of `conv_transpose2d`.
#[derive(Clone, Copy)]
pub(super) struct Gather<'a> {
    pub(super) p: &'a Conv2dParams,
    pub(super) source: Source<'a>,
    /// `[kh, kw, in, out]`; for matrix units, as 16-bit floats, already `[kh, kw, out, in]`.
    pub(super) weight: &'a Tensor,
    pub(super) bias: Option<&'a Tensor>,
    pub(super) y: &'a Tensor,
    /// The place for the statistics of y.
    pub(super) statistics: Option<&'a Chunks>,
}

impl<'a> Gather<'a> {
    /// Without bias and statistics.
    pub(super) fn new(p: &'a Conv2dParams, source: Source<'a>, weight: &'a Tensor, y: &'a Tensor) -> Self {
        Self { p, source, weight, bias: None, y, statistics: None }
    }

    /// Launches it.
    ///
    /// # Errors
    /// [`Error::Shape`] if the kernel does not take the channels; else as the launch.
    pub(super) fn run(&self, kernel: GatherKernel) -> Result<()> {
        let Self { p, source, weight, bias, y, statistics } = *self;
        let (tiles, entries) = match kernel {
            GatherKernel::Direct(kernel) if kernel.version == Version::V1 => (kernel, ["forward_v1"; 2]),
            GatherKernel::Direct(kernel) => (kernel, ["forward_v2", "forward_statistics_v2"]),
            GatherKernel::Matrix(_) => (Version::V2.into(), ["forward_v5", "forward_statistics_v5"]),
            GatherKernel::Winograd(constants) => return winograd::gather(self, constants),
            GatherKernel::Few(constants) => return conv2d_few::gather(self, constants),
            GatherKernel::Fused(constants) => return winograd_fused::gather(self, constants),
        };
        let channels = p.out_c as usize;
        let tile = Tile::of(tiles);
        tile.check(OP, tiles, channels)?;
        let (matrix, constants) = match kernel {
            GatherKernel::Matrix(kernel) => (kernel.of_images(OP, y)?.matrix, kernel.constants),
            _ => (Matrix::default(), tiles.constants),
        };
        let [shader, _] = source.shaders();
        let bias = bias.unwrap_or(weight); // without a bias the binding is not read
        let weight = match kernel {
            GatherKernel::Matrix(_) if weight.dtype() == DType::F32 => &by_output(weight)?,
            _ => weight,
        };
        for images in source.ranges(&[y])? {
            let y = y.images(&images);
            let mut params = of(p, &images);
            if let Some(statistics) = statistics {
                (params.sums_first, params.sums_chunks) = statistics.of_images(&images);
            }
            let pixels = y.len() / channels;
            let groups = match kernel {
                GatherKernel::Matrix(kernel) => kernel.groups(pixels, channels),
                _ if tiles.version == Version::V1 => y.len().div_ceil(WORKGROUP),
                _ if statistics.is_some() => tile.sums_groups(pixels, channels),
                _ => tile.groups(pixels, channels),
            };
            shader
                .entry(entries[usize::from(statistics.is_some())])
                .constants(constants)
                .matrix(matrix)
                .params(&params)
                .reads(source.images(&images))
                .reads([weight])
                .reads(source.table())
                .reads([bias])
                .writes([&y])
                .writes(statistics.map(|statistics| &statistics.sums))
                .groups(groups)?;
        }
        Ok(())
    }
}

/// The same sizes for a range of the images.
fn of(params: &Conv2dParams, images: &Range<usize>) -> Conv2dParams {
    Conv2dParams { batch: images.len() as u32, ..*params }
}

/// The kernel of the weight gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightKernel {
    /// One weight and chunk per invocation; any shape.
    V1,
    /// Eight weights x eight channels; result channels that divide by 8.
    V2,
    /// As `V2`, and the eight weights are neighbouring input channels, read as vec4; with these constants.
    V3(Constants),
    /// All weights of eight channels: [`conv2d_few`], for the shapes that it takes.
    V4,
    /// [`winograd_weight`], for the shapes that it takes, with these constants of `linear`.
    V5(Constants),
    /// [`matrix`] units, or what stands in for them.
    V6(MatrixKernel),
}

impl WeightKernel {
    /// What is usually the best kernel for these channels.
    pub fn usual(in_c: usize, out_c: usize) -> Self {
        match (in_c.is_multiple_of(8), out_c.is_multiple_of(8)) {
            (true, true) => Self::V3(Constants::default()),
            (false, true) => Self::V2,
            (_, false) => Self::V1,
        }
    }

    /// All that a device has for the sizes of this convolution; [`matrix::kernels`] has those for 16-bit floats only.
    pub fn all(device: &Device, p: &Conv2dParams) -> Vec<Self> {
        let (in8, out8) = (p.in_c.is_multiple_of(8), p.out_c.is_multiple_of(8));
        let of_any = [(Self::V1, true), (Self::V2, out8), (Self::V4, conv2d_few::takes_weights(p))];
        let of_any = of_any.into_iter().filter_map(|(kernel, takes)| takes.then_some(kernel));
        let blocks = weight_product(p).blocks(device);
        let tiles = all_lanes(device).chain(blocks).filter(|_| in8 && out8);
        of_any.chain(tiles.map(Self::V3)).chain(winograd_weight::kernels(device, p)).collect()
    }

    /// The kernel for the weight gradient of a convolution of images such as these.
    pub(super) fn select(images: &Tensor, p: &Conv2dParams) -> Self {
        let device = images.device();
        let (in_c, out_c) = (p.in_c as usize, p.out_c as usize);
        let few = conv2d_few::is_usual_for_weights(device, p);
        let usual = match priors::weight((device, images.dtype()), p).unwrap_or(Self::usual(in_c, out_c)) {
            _ if few => Self::V4,
            timed @ (Self::V5(_) | Self::V6(_)) => timed,
            _ if winograd_weight::is_usual(device, p) => Self::V5(usual_lanes(device)),
            Self::V3(_) => Self::V3(Kernel::usual(device, weight_product(p), true).constants),
            other => other,
        };
        let through_memory = |kernel: &Self| Kernel::tiled(kernel.constants()).has_blocks();
        let by_matrix = || matrix::offered((device, images.dtype()), p, Part::BackwardWeight);
        let candidates = || {
            let right = matrix::right(device, by_matrix()).map(Self::V6);
            worth_trying(device, Self::all(device, p), through_memory).into_iter().chain(right).collect()
        };
        choose(device, || question(p, Part::BackwardWeight, !by_matrix().is_empty()), usual, candidates)
    }

    /// What stands for numbers that nobody has computed, if this kernel takes it.
    fn source(self, read: Option<&OnReading>) -> Option<Source<'_>> {
        match self {
            Self::V2 | Self::V4 => None,
            _ => Source::of(read, self != Self::V1),
        }
    }

    /// `v1`, `v2`, ..
    fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::V3(_) => "v3",
            Self::V4 => "v4",
            Self::V5(_) => "v5",
            Self::V6(_) => "v6",
        }
    }

    fn constants(self) -> Constants {
        match self {
            Self::V3(constants) | Self::V5(constants) => constants,
            Self::V6(kernel) => kernel.constants,
            Self::V1 | Self::V2 | Self::V4 => Constants::default(),
        }
    }
}

impl fmt::Display for WeightKernel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V6(kernel) => write!(out, "{} {kernel}", self.name()),
            _ => named(out, self.name(), self.constants()),
        }
    }
}

/// gx: the gather over gy with turned weights. `p` are forward's sizes; with `accumulate` gx is added to what stands there.
///
/// # Errors
/// As [`forward`].
pub fn backward_input(
    p: &Conv2dParams,
    gy: &Tensor,
    weight: &Tensor,
    gx: &Tensor,
    kernel: impl Into<GatherKernel>,
) -> Result<()> {
    input_gradient(p, gy, weight, gx, kernel.into(), &Wanted::alone(gy.device()))
}

/// As [`backward_input`] within a backward pass, which turns weights ahead of their use.
fn input_gradient(
    p: &Conv2dParams,
    gy: &Tensor,
    weight: &Tensor,
    gx: &Tensor,
    kernel: GatherKernel,
    wanted: &Wanted<'_>,
) -> Result<()> {
    match gy.device() {
        Device::Gpu(_) => {
            let weight = match kernel {
                GatherKernel::Matrix(_) => by_input(weight)?,
                _ => wanted.turned(weight)?,
            };
            Gather::new(&p.input_gradient(), Source::Plain(gy), &weight, gx).run(kernel)
        }
        Device::Cpu(_) => {
            plain::backward_input(p, &gy.f32s(), &weight.f32s(), &mut gx.f32s_mut());
            Ok(())
        }
    }
}

/// gw, and gb if there is a bias. `p` are forward's sizes. An x that nobody has computed yet is made where it is read, by kernels
/// that do so.
///
/// # Errors
/// As the launches.
pub fn backward_weight(
    p: &Conv2dParams,
    x: &Tensor,
    gy: &Tensor,
    gw: &Tensor,
    gb: Option<&Tensor>,
    kernel: WeightKernel,
) -> Result<()> {
    let read = x.on_reading();
    let source = kernel.source(read.as_ref()).unwrap_or(Source::Plain(x));
    let mut p = *p;
    source.note(&mut p);
    weight_gradient(&p, source, gy, (gw, gb), kernel, &Wanted::alone(x.device()))
}

/// Both gradients, on a GPU in one launch, by the kernels `v2` and `v3`, with the constants of `kernel`. gx is added to what
/// stands there if `p` says so.
///
/// # Errors
/// As the launch; [`Error::Shape`] if the channels do not divide by 8.
pub fn backward(
    p: &Conv2dParams,
    [x, gy, weight]: [&Tensor; 3],
    gx: &Tensor,
    gw: &Tensor,
    gb: Option<&Tensor>,
    kernel: impl Into<Kernel>,
) -> Result<()> {
    if !matches!(WeightKernel::usual(p.in_c as usize, p.out_c as usize), WeightKernel::V3(_)) {
        return Err(Error::shape(OP, format!("both gradients at once need channels that divide by 8, got {p:?}")));
    }
    if let Device::Cpu(_) = x.device() {
        backward_input(p, gy, weight, gx, Version::V1)?;
        return backward_weight(p, x, gy, gw, gb, WeightKernel::V1);
    }
    let wanted = Wanted::alone(x.device());
    let (source, weight, accumulate) = (Source::Plain(x), &wanted.turned(weight)?, p.accumulate == 1);
    let both = BothGradients { p, source, gy, gy_norm: None, transposed: false, weight, gx: &[gx], accumulate };
    both.run(kernel.into(), &both_of(gw, gb), &wanted).map(|_| ())
}

/// As [`backward_weight`] within a backward pass, which may add up the chunks later.
pub(super) fn weight_gradient(
    p: &Conv2dParams,
    source: Source<'_>,
    gy: &Tensor,
    (gw, gb): (&Tensor, Option<&Tensor>),
    kernel: WeightKernel,
    wanted: &Wanted<'_>,
) -> Result<()> {
    match (gy.device(), source) {
        (Device::Gpu(context), _) => {
            let gradients = both_of(gw, gb);
            let partial = partial_sums(context, p, source, gy, &gradients, kernel, wanted)?;
            wanted.sum_chunks(&partial, &gradients)
        }
        (Device::Cpu(_), Source::Plain(x)) => {
            let mut gb = gb.map(Tensor::f32s_mut);
            plain::backward_weight(p, &x.f32s(), &gy.f32s(), &mut gw.f32s_mut(), gb.as_deref_mut());
            Ok(())
        }
        (Device::Cpu(_), _) => Err(Error::shape(OP, format!("the CPU does not read {source:?}"))),
    }
}

/// The gradients of weight and bias, for the sums that a table of chunks goes into.
pub(super) fn both_of<'a>(gw: &'a Tensor, gb: Option<&'a Tensor>) -> Vec<&'a Tensor> {
    [Some(gw), gb].into_iter().flatten().collect()
}

/// The first stage of the weight gradient on a GPU: a table `[chunks, weights and biases]`.
fn partial_sums(
    context: &Context,
    p: &Conv2dParams,
    source: Source<'_>,
    gy: &Tensor,
    gradients: &[&Tensor],
    kernel: WeightKernel,
    wanted: &Wanted<'_>,
) -> Result<Tensor> {
    let entry = match kernel {
        WeightKernel::V1 => "backward_weight_v1",
        WeightKernel::V2 => "backward_weight_v2",
        WeightKernel::V3(_) => "backward_weight_v3",
        WeightKernel::V4 => "backward_weight_v4",
        WeightKernel::V6(_) => "backward_weight_v6",
        WeightKernel::V5(_) => {
            return winograd_weight::table(context, p, source, gy, gradients, kernel.constants(), wanted);
        }
    };
    let matrix = match kernel {
        WeightKernel::V6(kernel) => kernel.of_images(OP, gy)?.matrix,
        _ => Matrix::default(),
    };
    let left = gy.on_reading();
    let chunks = WeightChunks::new(context, p, source, gy, kernel)?;
    let partial = wanted.chunk_table(OP, chunks.table, gradients)?;
    let [usual, _] = source.shaders();
    // The kernel's text, what it reads as gy, the table of a batch norm before or behind, and the sizes.
    let (shader, gy, table, p) = match (&left, source, kernel) {
        (Some(OnReading::NormGradient { gy, x, table, floor, inverse_count }), Source::Plain(_), WeightKernel::V2) => {
            let p = Conv2dParams { floor: *floor, inverse_count: *inverse_count, ..*p };
            (BEFORE_NORM, vec![gy, x], Some(table), p)
        }
        (_, _, WeightKernel::V4) => (conv2d_few::SHADER, vec![gy], None, *p),
        _ => (usual, vec![gy], source.table(), *p),
    };
    let constants = match kernel {
        WeightKernel::V4 => conv2d_few::constants(&p, Constants::default()),
        _ => kernel.constants(),
    };
    for (images, first) in chunks.ranges() {
        shader
            .entry(entry)
            .constants(constants)
            .matrix(matrix)
            .params(&chunks.of(&p, images, first))
            .reads(source.images(images))
            .reads(gy.iter().map(|gy| gy.images(images)))
            .reads(table)
            .writes([&partial])
            .groups(chunks.groups(images))?;
    }
    Ok(partial)
}

/// How the weight gradient cuts image rows into chunks. A range of images that is launched on its own begins a chunk of its
/// own.
struct WeightChunks {
    ranges: Vec<Range<usize>>,
    /// Image rows of an image, and of a chunk.
    rows: [usize; 2],
    /// Workgroups for so many chunks.
    groups: Groups,
    /// Chunks, and partial sums of a chunk.
    table: [usize; 2],
}

impl WeightChunks {
    fn new(context: &Context, p: &Conv2dParams, x: Source<'_>, gy: &Tensor, kernel: WeightKernel) -> Result<Self> {
        let weight_rows = (p.kernel_h * p.kernel_w * p.in_c) as usize;
        let columns = p.out_c as usize;
        let groups = match kernel {
            WeightKernel::V1 => Groups::Invocations((weight_rows + 1) * columns),
            WeightKernel::V3(constants) if Kernel::tiled(constants).has_blocks() => {
                Groups::Blocks(Tile::of(Kernel::tiled(constants)).weight_groups(weight_rows, columns))
            }
            WeightKernel::V6(kernel) => {
                // And those of the bias, a row of blocks of its own.
                Groups::Blocks(kernel.groups(weight_rows, columns) + kernel.groups(1, columns))
            }
            WeightKernel::V2 | WeightKernel::V3(_) => Groups::Invocations((weight_rows / 8 + 1) * (columns / 8)),
            WeightKernel::V4 => Groups::Invocations(columns / 8),
            WeightKernel::V5(_) => return Err(Error::shape(OP, "v5 cuts tiles into chunks, not rows".to_owned())),
        };
        let ranges = x.ranges(&[gy])?;
        let image_rows = ranges.iter().map(|range| range.len() * p.out_h as usize).max().unwrap_or(1);
        // Enough chunks to fill the device, as long as their partial sums stay small.
        let width = (weight_rows + 1) * p.out_c as usize;
        let room = if matches!(kernel, WeightKernel::V6(_)) { GPU_PARTIAL_BYTES } else { MAX_PARTIAL_BYTES };
        let most = chunks_with_room(context, width, ranges.len(), room);
        let enough = groups.filling(context).clamp(1, most).min(image_rows);
        let mut chunks =
            Self { ranges, rows: [p.out_h as usize, image_rows.div_ceil(enough)], groups, table: [0, width] };
        chunks.table[0] = chunks.ranges.iter().map(|images| chunks.count(images)).sum();
        Ok(chunks)
    }

    /// Chunks of these images.
    fn count(&self, images: &Range<usize>) -> usize {
        (images.len() * self.rows[0]).div_ceil(self.rows[1])
    }

    /// Workgroups for these images.
    fn groups(&self, images: &Range<usize>) -> usize {
        self.groups.of(self.count(images))
    }

    /// The images of each launch, and the chunks before it.
    fn ranges(&self) -> impl Iterator<Item = (&Range<usize>, usize)> {
        let mut before = 0;
        self.ranges.iter().map(move |images| {
            let first = before;
            before += self.count(images);
            (images, first)
        })
    }

    /// The sizes of a launch.
    fn of(&self, p: &Conv2dParams, images: &Range<usize>, first: usize) -> Conv2dParams {
        Conv2dParams {
            chunk_rows: self.rows[1] as u32,
            block_rows: (BLOCK_PIXELS / p.out_w as usize).max(1) as u32,
            first_chunk: first as u32,
            ..of(p, images)
        }
    }
}

/// What a chunk of the weight gradient takes.
#[derive(Debug, Clone, Copy)]
enum Groups {
    /// So many invocations, one after the other.
    Invocations(usize),
    /// So many workgroups of its own.
    Blocks(usize),
}

impl Groups {
    /// Workgroups that keep a large GPU busy: a few for each of its multiprocessors.
    const BUSY: usize = 1024;

    /// Workgroups for so many chunks.
    fn of(self, chunks: usize) -> usize {
        match self {
            Self::Invocations(each) => (chunks * each).div_ceil(WORKGROUP),
            Self::Blocks(each) => chunks * each,
        }
    }

    /// Chunks that fill a device.
    fn filling(self, context: &Context) -> usize {
        match self {
            // Four times as many as elsewhere: they read little, one after the other.
            Self::Invocations(each) if !context.facts().software => 4 * filling_invocations(context) / each.max(1),
            Self::Invocations(each) => filling_invocations(context) / each.max(1),
            Self::Blocks(each) => Self::BUSY / each,
        }
    }
}

/// Both gradients in one launch. `p` are the sizes of the convolution from `source` to `gy` whose weight gradient is wanted.
pub(super) struct BothGradients<'a> {
    pub(super) p: &'a Conv2dParams,
    pub(super) source: Source<'a>,
    pub(super) gy: &'a Tensor,
    /// Of a batch norm that is applied to gy where it is read, and the shader that does so.
    pub(super) gy_norm: Option<(Shader, &'a Tensor)>,
    /// Whether they are the gradients of the transposed convolution from gy to a plain source: then gx is the convolution of
    /// the source, else the gather over gy with a turned weight.
    pub(super) transposed: bool,
    pub(super) weight: &'a Tensor,
    /// One tensor, or two for a joined source.
    pub(super) gx: &'a [&'a Tensor],
    /// Whether gx is added to what stands there.
    pub(super) accumulate: bool,
}

impl BothGradients<'_> {
    /// The kernel of gx, whose constants are those of both, if the launch consists of these two and is worth it. On software Vulkan the code of both in one
    /// kernel runs 1.5 times as long as one after the other (measured): there it is for small convolutions, whose time is
    /// that of their launches.
    pub(super) fn take(
        device: &Device,
        p: &Conv2dParams,
        gather: GatherKernel,
        weight: WeightKernel,
    ) -> Option<Kernel> {
        const SMALL: u64 = 1 << 22; // multiply-adds
        let Device::Gpu(context) = device else { return None };
        match (gather, weight) {
            (GatherKernel::Direct(kernel), WeightKernel::V3(_)) if kernel.version == Version::V2 => {
                (!context.facts().software || p.macs() < SMALL).then_some(kernel)
            }
            _ => None,
        }
    }

    /// The table of the batch norm before it.
    fn table(&self) -> Option<&Tensor> {
        self.source.table().or(self.gy_norm.map(|(_, table)| table))
    }

    /// The place for what the gradient of a batch norm before it begins with, if there is one and gx is not added to anything.
    fn norm_sums(&self, tile: Tile, launches: usize) -> Result<Option<Chunks>> {
        match self.gx {
            [gx] if self.table().is_some() && !self.accumulate => {
                Chunks::of(OP, gx, tile.group_rows(gx.shape().last()), launches)
            }
            _ => Ok(None),
        }
    }

    /// Computes gx, and gw and gb if there is a bias. Returns what it has summed up of gx on the way, if anything.
    ///
    /// # Errors
    /// As the launches.
    pub(super) fn run(
        &self,
        kernel: Kernel,
        gradients: &[&Tensor],
        wanted: &Wanted<'_>,
    ) -> Result<Option<Arc<Summed>>> {
        let Self { p, source, gy, gy_norm, transposed, weight, gx, accumulate } = self;
        let (gather, from) = match (transposed, source) {
            (true, Source::Plain(x)) => (**p, *x),
            _ => (Conv2dParams { turned: 1, accumulate: (*accumulate).into(), ..p.input_gradient() }, *gy),
        };
        let Device::Gpu(context) = gy.device() else { return Err(Error::shape(OP, "not on a GPU".to_owned())) };
        let shader = gy_norm.map_or(source.shaders()[1], |(shader, _)| shader);
        let tile = Tile::of(kernel);
        tile.check(OP, kernel, gather.out_c as usize)?;
        let chunks = WeightChunks::new(context, p, *source, gy, WeightKernel::V3(kernel.constants))?;
        let partial = wanted.chunk_table(OP, chunks.table, gradients)?;
        let sums = self.norm_sums(tile, chunks.ranges.len())?;
        let entry = if sums.is_some() { "backward_sums_v2" } else { "backward_v2" };
        for (images, first) in chunks.ranges() {
            let launch = chunks.of(p, images, first);
            let Conv2dParams { chunk_rows, block_rows, first_chunk, .. } = launch;
            let mut params = Conv2dParams { chunk_rows, block_rows, first_chunk, ..of(&gather, images) };
            let (pixels, channels) = (images.len() * (gather.out_h * gather.out_w) as usize, gather.out_c as usize);
            let gx_groups = match &sums {
                Some(sums) => {
                    (params.sums_first, params.sums_chunks) = sums.of_images(images);
                    tile.sums_groups(pixels, channels)
                }
                None => tile.groups(pixels, channels),
            };
            shader
                .entry(entry)
                .constants(kernel.constants)
                .params(&params)
                .reads([from.images(images)])
                .reads([*weight])
                .reads(source.images(images))
                .reads([gy.images(images)])
                .reads(self.table())
                .writes(gx.iter().map(|gx| gx.images(images)))
                .writes([&partial])
                .writes(sums.as_ref().map(|sums| &sums.sums))
                .groups(gx_groups + chunks.groups(images))?;
        }
        wanted.sum_chunks(&partial, gradients)?;
        let gradient =
            |(sums, table): (Chunks, &Tensor)| Summed::Gradient { partials: sums.sums, table: table.detach() };
        Ok(sums.zip(self.table()).map(|known| Arc::new(gradient(known))))
    }
}

/// Pixels summed before they are added to the rest.
const BLOCK_PIXELS: usize = 512;

/// What the gradient needs: x for the weight's, the weight for x's.
#[derive(Debug)]
struct Conv2dBackward {
    x: Kept,
    images: DType,
    weight: Tensor,
    params: Conv2dParams,
    /// Whether the result was added to a further input, which gets the gradient as it is.
    added: bool,
}

impl Conv2dBackward {
    /// Both gradients in one launch; returns gx, that of a joined x in two parts.
    fn both(
        &self,
        p: &Conv2dParams,
        (source, gy): (Source<'_>, &Tensor),
        gradients: Vec<&Tensor>,
        kernel: Kernel,
        wanted: &mut Wanted<'_>,
    ) -> Result<Tensor> {
        let weight = &wanted.turned(&self.weight)?;
        let run = |gx: &[&Tensor], accumulate, wanted: &Wanted<'_>| {
            let both = BothGradients { p, source, gy, gy_norm: None, transposed: false, weight, gx, accumulate };
            both.run(kernel, &gradients, wanted)
        };
        if let Source::Joined([a, b]) = source {
            let parts = [gy.new_empty(OP, a.shape())?, gy.new_empty(OP, b.shape())?];
            run(&parts.each_ref(), false, wanted)?; // of two tensors it sums nothing up
            return Ok(concat::of_gradients(parts));
        }
        let (mut gx, accumulate) = wanted.place_to_add(OP, 0, self.x.shape())?;
        gx.summed = run(&[&gx], accumulate, wanted)?;
        Ok(gx)
    }

    /// Those of x, weight and bias.
    fn gradients(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let p = &self.params;
        let (mut gx, mut gw, mut gb) = (None, None, None);
        if wanted.needs(1) || wanted.needs(2) {
            gw = Some(wanted.empty(OP, 1, self.weight.shape())?);
            if p.has_bias == 1 {
                gb = Some(wanted.empty(OP, 2, [p.out_c as usize].into())?);
            }
        }
        let kernel = WeightKernel::select(gy, p);
        let input_kernel = select(gy, p, Part::BackwardInput);
        let both = BothGradients::take(gy.device(), p, input_kernel, kernel);
        let read = self.x.on_reading();
        let source = self.x.numbers().map(Source::Plain).or_else(|| kernel.source(read.as_ref()));
        let mut p = Conv2dParams { split: 0, floor: f32::MIN, ..*p };
        if let Some(source) = source {
            source.note(&mut p);
        }
        // Not with an x that is computed again: it is gone before gx is made.
        if let (Some(weight), Some(both), true, Some(source)) = (&gw, both, wanted.needs(0), source) {
            let gx = self.both(&p, (source, gy), both_of(weight, gb.as_ref()), both, wanted)?;
            return Ok(vec![Some(gx), gw, gb]);
        }
        if let Some(gw) = &gw {
            let gradients = (gw, gb.as_ref());
            match source {
                Some(source) => weight_gradient(&p, source, gy, gradients, kernel, wanted)?,
                None => weight_gradient(&p, Source::Plain(&self.x.tensor()?), gy, gradients, kernel, wanted)?,
            }
        }
        if wanted.needs(0) {
            let (place, accumulate) = wanted.place_to_add(OP, 0, self.x.shape())?;
            let p = Conv2dParams { accumulate: accumulate.into(), ..p };
            input_gradient(&p, gy, &self.weight, &place, input_kernel, wanted)?;
            gx = Some(place);
        }
        Ok(vec![gx, gw, gb])
    }
}

impl Backward for Conv2dBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut gradients = self.gradients(gy, wanted)?;
        if self.added {
            gradients.push(wanted.needs(3).then(|| gy.clone()));
        }
        Ok(gradients)
    }

    fn turns(&self) -> Option<&Tensor> {
        let kernel = select_for((self.weight.device(), self.images), &self.params, Part::BackwardInput);
        (!matches!(kernel, GatherKernel::Matrix(_))).then_some(&self.weight)
    }

    fn makes_gradient(&self, for_x: bool) -> bool {
        let numbers = self.x.numbers();
        !for_x && !self.added && numbers.is_some_and(|x| WeightKernel::select(x, &self.params) == WeightKernel::V2)
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        self.x.saved().into_iter().chain([&mut self.weight]).collect()
    }

    fn macs(&self) -> u64 {
        self.params.macs()
    }

    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        let added = self.added.then_some(("added", 1));
        let settings =
            [("stride", self.params.multiply as i32), ("padding", self.params.pad_h)].into_iter().chain(added);
        settings.map(|(name, value)| (name, Setting::Number(value.into()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_kernels_cannot_find_their_way_on_is_refused() {
        let of = |side: usize| sizes([1, 1, side, 1].into(), [1, 3, 1, 1].into(), None, 1, 1);
        assert!(of(LONGEST_SIDE - 2).is_ok());
        let message = of(LONGEST_SIDE - 1).expect_err("one too many").to_string();
        assert!(message.contains("a padded side of 1048577 pixels: 1048576 are most"), "{message}");
    }
}
