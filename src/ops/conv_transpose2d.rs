//! Transposed 2-D convolution, any kernel, stride and padding: each x pixel adds a scaled kernel to y.
//!
//! # Forward
//! `y[n, iy*s+ky-p, ix*s+kx-p, co] = bias[co] + sum over ky,kx,ci of x[n,iy,ix,ci] * w[ky,kx,co,ci]`
//!
//! # Backward
//! It is the adjoint of a convolution from y to x, so gx is `conv2d` of gy and gw is `conv2d`'s with x and gy
//! exchanged:
//!
//! `gx[n,iy,ix,ci] = sum over ky,kx,co of gy[n, iy*s+ky-p, ix*s+kx-p, co] * w[ky,kx,co,ci]`;
//!
//! `gw[ky,kx,co,ci] = sum over n,iy,ix of gy[n, iy*s+ky-p, ix*s+kx-p, co] * x[n,iy,ix,ci]`;  `gb[co] = sum of gy`. The
//! same kernels, launched from here. That is why the weight has the layout of that convolution.
//!
//! # Picture of the tile
//! ```text
//! x pixel --> | ky0 kx0: co.. | ky0 kx1: co.. | ky1 kx0: co.. | ky1 kx1: co.. |
//!                   |               |               |               |
//!               y[2iy,2ix]      y[2iy,2ix+1]    y[2iy+1,2ix]    y[2iy+1,2ix+1]
//! ```
//!
//! In v2 (here kernel = stride = 2) a row of a matrix product for each x pixel is dealt out to four y pixels that
//! nobody else touches.
//!
//! Shapes: x `[N, H, W, in]`, weight `[kh, kw, out, in]`, bias `[out]` -> y `[N, (H-1)s-2p+kh+op, (W-1)s-2p+kw+op,
//! out]`, op the output padding: rows and columns at the end that no kernel may reach.
//!
//! Versions: `v1` one element per invocation, any sizes; `v2` kernel = stride without padding (U-Net: 2x2, stride 2) as
//! a matrix product, result channels that divide by 4; `v5` the same on [`matrix`] units, for images of 16-bit floats and channels that
//! divide by 8.
//!
//! Launches: forward 1 (v2 and v5 2, the weight is transposed or rounded first); backward 1 for x, 1 each for weight and bias, and a share in
//! those of [`sum_chunks`](mod@super::sum_chunks).
//!
//! # Files
//! - [`shaders/conv_transpose2d.wgsl`](../../../../../shaders/conv_transpose2d.wgsl), below
//! - [`src/ops/conv_transpose2d.rs`](../../../src/shadegrad/ops/conv_transpose2d.rs.html)
//! - [`src/cpu/conv_transpose2d.rs`](../../../src/shadegrad/cpu/conv_transpose2d.rs.html)
//! - [`kernels-tests/ops/conv_transpose2d.rs`](../../../../../kernels-tests/ops/conv_transpose2d.rs)
//! - [`bench/ops/conv_transpose2d.rs`](../../../../../bench/ops/conv_transpose2d.rs)
//!
//! <details><summary>shaders/conv_transpose2d.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/conv_transpose2d.wgsl")]
//! ```
//! </details>
//!
//! An x that is the result of a [`batch_norm`](super::batch_norm()) and that nobody has asked for yet is made where it is
//! read (`conv_transpose2d_normed.wgsl`, `conv_transpose2d_normed_backward.wgsl`), as [`conv2d`](super::conv2d()) does.

use std::fmt;

use super::choice::{Kernel, Product, choose, worth_trying};
use super::conv2d::{BothGradients, Source};
use super::matrix::MatrixKernel;
use super::plan::Plan;
use super::transpose_weights::halves;
use super::{Tile, Version, add, conv2d, matrix, priors};
use crate::autograd::{Backward, Kept, OnReading, Setting, Wanted, record};
use crate::cpu::conv_transpose2d::{self as plain, ConvTranspose2dParams};
use crate::cpu::conv2d::Conv2dParams;
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Matrix, Part, Question, Shader, Sizes, WORKGROUP};
use crate::tensor::{DType, Device, Shape, Tensor};
use crate::{Error, Result};

const OP: &str = "conv_transpose2d";
pub(super) const SHADER: Shader = shader!("conv_transpose2d");
/// The same kernels of an x that they normalise themselves.
pub(super) const NORMED: Shader = shader!("conv_transpose2d_normed");
pub(super) const NORMED_BACKWARD: Shader = shader!("conv_transpose2d_normed_backward");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[
        ("forward_v2", "kernel = stride, no padding, the channels of the result divide by 4 and times the kernel by 8"),
        (
            "forward_v5",
            "on matrix units: `tune --precision f16` found it faster, or its gradient was timed on such a card",
        ),
        ("backward_sums_v2", "as backward_v2"),
        ("backward_v2", "x is the result of a batch norm that no other op has read, and both channels divide by 8"),
    ],
    run: |on| {
        let Sizes { shape, out, kernel, stride, padding, .. } = on.sizes;
        let weight = on.input([kernel, kernel, out, shape.last()])?;
        conv_transpose2d(&on.x()?, &weight, Some(&on.input([out])?), stride, padding, 0).map(Some)
    },
};

/// Spreads each pixel of x over a kernel. PyTorch's `conv_transpose2d`; its weights `[in, out, kh, kw]` are permuted on
/// loading.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let x = device.tensor("x", [1, 1, 2, 1], &[1.0, 2.0])?;
/// let weight = device.tensor("w", [1, 2, 1, 1], &[10.0, 1.0])?;
/// assert_eq!(shadegrad::ops::conv_transpose2d(&x, &weight, None, 2, 0, 1)?.to_vec()?[..4], [10.0, 1.0, 20.0, 2.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if the channels differ, the output padding is not below the stride, or the padding leaves nothing.
pub fn conv_transpose2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
    output_padding: usize,
) -> Result<Tensor> {
    let params = sizes(x.shape(), weight.shape(), bias.map(Tensor::shape), [stride, padding, output_padding])?;
    observed(OP, x.device(), |on| {
        launch(&on.read(x)?, &on.read(weight)?, on.maybe(bias)?.as_ref(), params, select(x, &params))
    })
}

/// The kernel of a transposed convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpreadKernel {
    /// The sum as it stands: `v1` and `v2`.
    Direct(Kernel),
    /// `v5`: [`matrix`] units, or what stands in for them.
    Matrix(MatrixKernel),
}

impl<K: Into<Kernel>> From<K> for SpreadKernel {
    fn from(kernel: K) -> Self {
        Self::Direct(kernel.into())
    }
}

impl fmt::Display for SpreadKernel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(kernel) => kernel.fmt(out),
            Self::Matrix(kernel) => write!(out, "v5 {kernel}"),
        }
    }
}

/// For such an x.
fn select(x: &Tensor, p: &ConvTranspose2dParams) -> SpreadKernel {
    let images = (x.device(), x.dtype());
    let (device, _) = images;
    let usual = match priors::spread(images, p) {
        Some(timed) => SpreadKernel::Matrix(timed),
        None => Kernel::usual(device, product(p), takes(p, Version::V2.into())).into(),
    };
    let by_matrix = || offered(images, p);
    let shape = Shape::from([p.batch, p.in_h, p.in_w, p.in_c].map(|extent| extent as usize));
    let question = || {
        let (kernel, stride, padding) = (p.kernel_h as usize, p.stride as usize, p.padding as usize);
        let half = !by_matrix().is_empty();
        let sizes = Sizes { out: p.out_c as usize, kernel, stride, padding, half, ..Sizes::of(shape) };
        (p.kernel_h == p.kernel_w).then_some(Question { op: OP, part: Part::Forward, sizes })
    };
    choose(device, question, usual, || {
        let direct = worth_trying(device, kernels(device, p), Kernel::has_blocks).into_iter().map(Into::into);
        direct.chain(matrix::right(device, by_matrix()).map(SpreadKernel::Matrix)).collect()
    })
}

/// Those for matrix units that may be tried for such images of a device, if the units have no fault.
pub(super) fn offered(images: (&Device, DType), p: &ConvTranspose2dParams) -> Vec<MatrixKernel> {
    let Product { rows, columns, .. } = product(p);
    let result = [rows, columns].map(|extent| extent as u32);
    if p.tiles() { matrix::offered_for(images, [p.in_c, p.out_c], result) } else { Vec::new() }
}

/// The matrix product fits where kernels do not overlap and its columns divide.
fn takes(p: &ConvTranspose2dParams, kernel: Kernel) -> bool {
    let columns = (p.kernel_h * p.kernel_w * p.out_c) as usize;
    p.tiles() && p.out_c.is_multiple_of(4) && columns.is_multiple_of(Tile::of(kernel).columns)
}

/// All kernels that a device has for these sizes; [`matrix_kernels`] has those for 16-bit floats only.
pub fn kernels(device: &Device, p: &ConvTranspose2dParams) -> Vec<Kernel> {
    Kernel::all(device, &SHADER, |kernel| takes(p, kernel) && product(p).takes(device, kernel))
}

/// All kernels for matrix units that a device has for these sizes, emulated ones too.
pub fn matrix_kernels(device: &Device, p: &ConvTranspose2dParams) -> Vec<MatrixKernel> {
    if p.tiles() { matrix::kernels(device, [p.in_c, p.out_c]) } else { Vec::new() }
}

/// Pixels of x times a kernel's worth of pixels of y.
fn product(p: &ConvTranspose2dParams) -> Product {
    let [rows, columns] = [p.batch * p.in_h * p.in_w, p.kernel_h * p.kernel_w * p.out_c].map(|extent| extent as usize);
    Product { rows, columns, terms: p.in_c as usize, depth: p.in_c as usize }
}

/// [`conv_transpose2d`] with a chosen kernel.
///
/// # Errors
/// As [`conv_transpose2d`], and if the kernel does not take these sizes.
pub fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
    output_padding: usize,
    kernel: impl Into<SpreadKernel>,
) -> Result<Tensor> {
    let kernel = kernel.into();
    let params = sizes(x.shape(), weight.shape(), bias.map(Tensor::shape), [stride, padding, output_padding])?;
    let takes = match kernel {
        SpreadKernel::Direct(kernel) => kernel.version == Version::V1 || takes(&params, kernel),
        SpreadKernel::Matrix(_) => !matrix_kernels(x.device(), &params).is_empty(),
    };
    if !takes {
        let message = format!(
            "{kernel} needs kernel = stride, no padding and result channels that divide by 4 (all by 8 on matrix units), got weight {} and \
             stride {stride}",
            weight.shape()
        );
        return Err(Error::shape(OP, message));
    }
    launch(x, weight, bias, params, kernel)
}

fn launch(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    params: ConvTranspose2dParams,
    kernel: SpreadKernel,
) -> Result<Tensor> {
    let p = &params;
    let y = x.new_empty(OP, [p.batch, p.out_h, p.out_w, p.out_c].map(|extent| extent as usize))?;
    match x.device() {
        Device::Gpu(_) => gather(p, x, weight, bias, &y, kernel)?,
        Device::Cpu(_) => {
            let bias = bias.map(Tensor::f32s);
            plain::forward(p, &x.f32s(), &weight.f32s(), bias.as_deref(), &mut y.f32s_mut());
        }
    }
    record(y, &[Some(x), Some(weight), bias], || ConvTranspose2dBackward {
        x: Kept::of(x),
        weight: weight.detach(),
        params,
    })
}

fn sizes(
    x: Shape,
    weight: Shape,
    bias: Option<Shape>,
    [stride, padding, output_padding]: [usize; 3],
) -> Result<ConvTranspose2dParams> {
    let [n, h, w, c] = x.nhwc(OP)?;
    let [kh, kw, out, weight_in] = weight.nhwc(OP).map_err(|_| {
        Error::shape(OP, format!("the weight must be [kernel height, kernel width, out, in], got {weight}"))
    })?;
    if weight_in != c {
        return Err(Error::shape(OP, format!("x {x} has {c} channels but the weight {weight} takes {weight_in}")));
    }
    if output_padding >= stride {
        let message = format!("the output padding {output_padding} must be smaller than the stride {stride}");
        return Err(Error::shape(OP, message));
    }
    let extent = |extent: usize, kernel: usize| {
        ((extent - 1) * stride + kernel + output_padding).checked_sub(2 * padding).filter(|out| *out > 0)
    };
    let (Some(out_h), Some(out_w)) = (extent(h, kh), extent(w, kw)) else {
        return Err(Error::shape(OP, format!("padding {padding} leaves no result for x {x} and weight {weight}")));
    };
    conv2d::check_sides(OP, [out_h, out_w], padding)?;
    if let Some(bias) = bias.filter(|bias| *bias != Shape::from([out])) {
        return Err(Error::shape(OP, format!("the bias must be [{out}], got {bias}")));
    }
    Ok(ConvTranspose2dParams {
        batch: n as u32,
        in_h: h as u32,
        in_w: w as u32,
        in_c: c as u32,
        out_h: out_h as u32,
        out_w: out_w as u32,
        out_c: out as u32,
        kernel_h: kh as u32,
        kernel_w: kw as u32,
        stride: stride as u32,
        padding: padding as u32,
        has_bias: u32::from(bias.is_some()),
        floor: f32::MIN,
    })
}

fn gather(
    p: &ConvTranspose2dParams,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    y: &Tensor,
    kernel: SpreadKernel,
) -> Result<()> {
    let by_element = kernel == Version::V1.into();
    let weight = match kernel {
        SpreadKernel::Direct(_) if by_element => weight.detach(),
        SpreadKernel::Direct(_) => {
            let transposed = x.device().empty(OP, weight.shape())?;
            SHADER.entry("transpose_weight").params(p).reads([weight]).writes([&transposed]).over(weight.len())?;
            transposed
        }
        SpreadKernel::Matrix(_) => halves(weight)?,
    };
    let (matrix, constants) = match kernel {
        SpreadKernel::Direct(kernel) => (Matrix::default(), kernel.constants),
        SpreadKernel::Matrix(kernel) => (kernel.of_images(OP, y)?.matrix, kernel.constants),
    };
    let bias = bias.unwrap_or(&weight); // without a bias the binding is not read
    let read = x.on_reading();
    let (shader, x, table, floor) = match &read {
        Some(OnReading::Normed { x, table, floor }) if !by_element => (NORMED, x, Some(table), *floor),
        _ => (SHADER, x, None, f32::MIN),
    };
    for images in x.device().image_ranges(OP, &[x, y])? {
        let (x, y) = (x.images(&images), y.images(&images));
        let params = ConvTranspose2dParams { batch: images.len() as u32, floor, ..*p };
        let (pixels, columns) = (x.len() / p.in_c as usize, (p.kernel_h * p.kernel_w * p.out_c) as usize);
        let (entry, groups) = match kernel {
            SpreadKernel::Direct(_) if by_element => ("forward_v1", y.len().div_ceil(WORKGROUP)),
            SpreadKernel::Direct(kernel) => ("forward_v2", Tile::of(kernel).groups(pixels, columns)),
            SpreadKernel::Matrix(kernel) => ("forward_v5", kernel.groups(pixels, columns)),
        };
        shader
            .entry(entry)
            .constants(constants)
            .matrix(matrix)
            .params(&params)
            .reads([&x, &weight])
            .reads(table)
            .reads([bias])
            .writes([&y])
            .groups(groups)?;
    }
    Ok(())
}

/// What the gradient needs: x for the weight's, the weight for x's.
#[derive(Debug)]
struct ConvTranspose2dBackward {
    x: Kept,
    weight: Tensor,
    params: ConvTranspose2dParams,
}

impl Backward for ConvTranspose2dBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let Self { x, weight, params } = self;
        let p = params.adjoint(); // of the convolution whose input is gy
        let shapes = [x.shape(), weight.shape(), [params.out_c as usize].into()];
        let mut gradients = [None, None, None];
        for (index, shape) in shapes.into_iter().enumerate() {
            if wanted.needs(index) {
                gradients[index] = Some(wanted.empty(OP, index, shape)?);
            }
        }
        let [gx, gw, gb] = &mut gradients;
        let Device::Gpu(_) = gy.device() else {
            if let Some(gw) = gw {
                let (x, p) = (x.tensor()?, &p);
                conv2d::weight_gradient(p, Source::Plain(gy), &x, (gw, None), conv2d::WeightKernel::V1, wanted)?;
            }
            if let Some(gx) = gx {
                plain::backward_input(params, &gy.f32s(), &weight.f32s(), &mut gx.f32s_mut());
            }
            if let Some(gb) = gb {
                crate::cpu::conv2d::column_sums(&gy.f32s(), &mut gb.f32s_mut());
            }
            return Ok(gradients.into());
        };
        let kernel = conv2d::WeightKernel::select(gy, &p);
        let gather = conv2d::select(gy, &p, Part::Forward);
        let both = BothGradients::take(gy.device(), &p, gather, kernel);
        // The weight's gradient walks over gy anyway. It sums up that of the bias too, where it meets all of gy and has room.
        let with_bias = matches!(kernel, conv2d::WeightKernel::V3(_)) && params.tiles() && p.out_c >= p.in_c;
        let summed_gb = gb.as_ref().filter(|_| with_bias && gw.is_some());
        let read = x.on_reading();
        let (x_read, gy_norm, floor) = match &read {
            Some(OnReading::Normed { x, table, floor }) => (Some(x), Some((NORMED_BACKWARD, table)), *floor),
            _ => (x.numbers(), None, f32::MIN),
        };
        let p = Conv2dParams { floor, sums_x: summed_gb.is_some().into(), ..p };
        if let (Some(gx), Some(gw), Some(both), Some(x)) = (&mut *gx, &*gw, both, x_read) {
            let (p, source, gradients) = (&p, Source::Plain(gy), conv2d::both_of(gw, summed_gb));
            let both_of =
                BothGradients { p, source, gy: x, gy_norm, transposed: true, weight, gx: &[&*gx], accumulate: false };
            gx.summed = both_of.run(both, &gradients, wanted)?;
        } else {
            if let Some(gw) = &*gw {
                conv2d::weight_gradient(&p, Source::Plain(gy), &x.tensor()?, (gw, summed_gb), kernel, wanted)?;
            }
            if let Some(gx) = &*gx {
                conv2d::Gather::new(&p, Source::Plain(gy), weight, gx).run(gather)?;
            }
        }
        if let (None, Some(gb)) = (summed_gb, &*gb) {
            add::sum_pixels(gy, gb, wanted)?;
        }
        Ok(gradients.into())
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        self.x.saved().into_iter().chain([&mut self.weight]).collect()
    }

    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        let p = &self.params;
        let output_padding = p.out_h + 2 * p.padding - (p.in_h - 1) * p.stride - p.kernel_h;
        let settings = [("stride", p.stride), ("padding", p.padding), ("output_padding", output_padding)];
        settings.map(|(name, value)| (name, Setting::Number(value.into()))).to_vec()
    }

    fn macs(&self) -> u64 {
        let p = &self.params;
        [p.batch, p.in_h, p.in_w, p.in_c, p.kernel_h, p.kernel_w, p.out_c].into_iter().map(u64::from).product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_kernels_cannot_find_their_way_on_is_refused() {
        let of = |side: usize| sizes([1, 1, side, 1].into(), [2, 2, 1, 1].into(), None, [2, 0, 0]);
        assert!(of(1 << 19).is_ok());
        let message = of((1 << 19) + 1).expect_err("two too many").to_string();
        assert!(message.contains("a padded side of 1048578 pixels"), "{message}");
    }
}
