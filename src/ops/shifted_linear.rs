//! Linear layer over shifted tokens (UNeXt), with a residual: [`shift`](mod@super::shift), [`linear`](mod@super::linear) and
//! [`add`](mod@super::add) in one launch.
//!
//! # Forward
//! `y[r,o] = bias[o] + residual[r,o] + sum over i of x[r - step * s(i), i] * w[i,o]`;  `s(i) = i / chunk - 2`, groups of `chunk =
//! ceil(in/5)` channels; rows r are pixels, and neighbours along the axis are `step` rows apart.
//!
//! x is 0 outside of the image.
//!
//! # Backward
//! `gx[r,i] = sum over o of gy[r + step * s(i), o] * w[i,o]`, 0 where that row lies outside;  the residual's gradient is gy.
//!
//! `gw[i,o] = sum over r of x[r - step * s(i), i] * gy[r,o]`;  `gb[o] = sum over r of gy[r,o]`: partial sums over chunks of
//! rows, which a second stage adds up in order. The gradients have a shader of their own, below too.
//!
//! # Data flow
//! ```text
//!            group:  0  1  2  3  4
//! row i - 2                      x
//! row i - 1                   x       what row i of the result multiplies with w:
//! row i                    x          the tile engine takes a group for a tap,
//! row i + 1             x             as a convolution has one for each position
//! row i + 2          x                of its kernel
//! ```
//!
//! The shifted tensor is neither written nor read: the shift is a part of the address.
//!
//! Shapes: x `[N, H, W, in]`, weight `[in, out]`, bias `[out]`, residual `[N, H, W, out]` -> y `[N, H, W, out]`.
//!
//! Versions: `v1` one element per invocation; `v2` register tiles, channels that divide by 8.
//!
//! Launches: 1 forward; backward 1 for x, weight and bias (2 in v1), and a share in those of
//! [`sum_chunks`](mod@super::sum_chunks).
//!
//! # Files
//! - [`shaders/shifted_linear.wgsl`](../../../../../shaders/shifted_linear.wgsl), below
//! - [`src/ops/shifted_linear.rs`](../../../src/shadegrad/ops/shifted_linear.rs.html)
//! - [`src/cpu/shifted_linear.rs`](../../../src/shadegrad/cpu/shifted_linear.rs.html)
//! - [`kernels-tests/ops/shifted_linear.rs`](../../../../../kernels-tests/ops/shifted_linear.rs)
//! - [`bench/ops/shifted_linear.rs`](../../../../../bench/ops/shifted_linear.rs)
//!
//! <details><summary>shaders/shifted_linear.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/shifted_linear.wgsl")]
//! ```
//! </details>
//!
//! <details><summary>shaders/shifted_linear_backward.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/shifted_linear_backward.wgsl")]
//! ```
//! </details>

use super::choice::{Kernel, Product, choose, worth_trying};
use super::plan::Plan;
use super::{Axis, RowChunks, Tile, Version};
use crate::autograd::{Backward, Setting, Wanted, record};
use crate::cpu::shifted_linear::{self as plain, ShiftedLinearParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Part, Question, Shader, Sizes, WORKGROUP};
use crate::tensor::{Device, Shape, Tensor};
use crate::{Error, Result};

const OP: &str = "shifted_linear";
pub(super) const SHADER: Shader = shader!("shifted_linear");
pub(super) const BACKWARD: Shader = shader!("shifted_linear_backward");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[
        ("forward_v2", "the channels of the result divide by 8"),
        ("_v2", "the channels of x and of the result divide by 8"),
    ],
    run: |on| {
        let Sizes { shape, out, .. } = on.sizes;
        let (weight, bias) = (on.input([shape.last(), out])?, on.input([out])?);
        shifted_linear(&on.x()?, &weight, Some(&bias), Axis::Width, None).map(Some)
    },
};

/// Moves each fifth of the channels along an axis as [`shift`](super::shift()) does, multiplies the last axis with a matrix,
/// adds a bias and a residual.
///
/// ```
/// # use shadegrad::ops::{Axis, shifted_linear};
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// // One row of two pixels with five channels, summed.
/// let x = device.tensor("x", [1, 1, 2, 5], &[1., 2., 3., 4., 5., 6., 7., 8., 9., 10.])?;
/// let ones = device.tensor("w", [5, 1], &[1.0; 5])?;
/// assert_eq!(shifted_linear(&x, &ones, None, Axis::Width, None)?.to_vec()?, [7. + 3., 8. + 4.]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if x is no image batch, the channels differ, or the residual has not the result's shape.
pub fn shifted_linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    axis: Axis,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let kernel = select(x, weight.shape().last(), Part::Forward);
    observed(OP, x.device(), |on| {
        let (bias, residual) = (on.maybe(bias)?, on.maybe(residual)?);
        forward(&on.read(x)?, &on.read(weight)?, bias.as_ref(), axis, residual.as_ref(), kernel)
    })
}

/// The kernel for the result of a layer, or for its gradients ([`Part::BackwardInput`]).
fn select(x: &Tensor, outputs: usize, part: Part) -> Kernel {
    let (inputs, forward) = (x.shape().last(), part == Part::Forward);
    let tiled = outputs.is_multiple_of(8) && (forward || inputs.is_multiple_of(8));
    let (device, rows) = (x.device(), x.len() / inputs);
    let [from, to] = if forward { [inputs, outputs] } else { [outputs, inputs] };
    choose(
        device,
        || Some(question(x, outputs, part)),
        Kernel::usual(device, Product::of_layer(rows, from, to), tiled),
        || {
            let all = if forward { kernels } else { gradient_kernels };
            worth_trying(device, all(device, rows, inputs, outputs), Kernel::has_blocks)
        },
    )
}

/// All kernels that a device has for a layer of so many rows with these channels.
pub fn kernels(device: &Device, rows: usize, inputs: usize, outputs: usize) -> Vec<Kernel> {
    let product = Product::of_layer(rows, inputs, outputs);
    Kernel::all(device, &SHADER, |kernel| outputs.is_multiple_of(8) && product.takes(device, kernel))
}

/// All kernels that a device has for the gradients of such a layer.
pub fn gradient_kernels(device: &Device, rows: usize, inputs: usize, outputs: usize) -> Vec<Kernel> {
    match outputs.is_multiple_of(8) {
        true => kernels(device, rows, outputs, inputs),
        false => vec![Version::V1.into()],
    }
}

fn question(x: &Tensor, outputs: usize, part: Part) -> Question {
    Question { op: OP, part, sizes: Sizes { out: outputs, ..Sizes::of(x.shape()) } }
}

/// [`shifted_linear`] with a chosen kernel.
///
/// # Errors
/// As [`shifted_linear`], and if the kernel does not take these channels.
pub fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    axis: Axis,
    residual: Option<&Tensor>,
    kernel: impl Into<Kernel>,
) -> Result<Tensor> {
    let params = sizes(x, weight, bias, axis, residual)?;
    let [n, h, w, _] = x.shape().nhwc(OP)?;
    let y = x.new_empty(OP, [n, h, w, params.outputs as usize])?;
    match x.device() {
        Device::Gpu(_) => multiply(&params, [x, weight], bias, residual, &y, kernel.into())?,
        Device::Cpu(_) => {
            let (bias, residual) = (bias.map(Tensor::f32s), residual.map(Tensor::f32s));
            let (x, weight) = (x.f32s(), weight.f32s());
            plain::forward(&params, &x, &weight, bias.as_deref(), residual.as_deref(), &mut y.f32s_mut());
        }
    }
    record(y, &[Some(x), Some(weight), bias, residual], || ShiftedLinearBackward {
        x: x.detach(),
        weight: weight.detach(),
        params,
        axis,
    })
}

/// Checks the shapes.
fn sizes(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    axis: Axis,
    residual: Option<&Tensor>,
) -> Result<ShiftedLinearParams> {
    let [n, h, w, inputs] = x.shape().nhwc(OP)?;
    let outputs = match weight.shape().dims() {
        &[weight_in, outputs] if weight_in == inputs && outputs > 0 => outputs,
        _ => {
            let message = format!("the weight must be [{inputs}, out] for x {}, got {}", x.shape(), weight.shape());
            return Err(Error::shape(OP, message));
        }
    };
    let wanted = [("bias", bias, Shape::from([outputs])), ("residual", residual, Shape::from([n, h, w, outputs]))];
    for (name, tensor, shape) in wanted {
        if let Some(other) = tensor.filter(|tensor| tensor.shape() != shape) {
            return Err(Error::shape(OP, format!("the {name} must be {shape}, got {}", other.shape())));
        }
    }
    let steps = axis.steps([n, h, w, inputs]);
    Ok(ShiftedLinearParams::forward([n, h, w, inputs], outputs, steps, bias.is_some(), residual.is_some()))
}

/// Launches the forward kernel.
fn multiply(
    p: &ShiftedLinearParams,
    [x, weight]: [&Tensor; 2],
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    y: &Tensor,
    kernel: Kernel,
) -> Result<()> {
    let outputs = p.outputs as usize;
    let tile = Tile::of(kernel);
    tile.check(OP, kernel, outputs)?;
    // What there is not is not read.
    let (bias, residual) = (bias.unwrap_or(weight).detach(), residual.unwrap_or(x));
    for images in x.device().image_ranges(OP, &[x, residual, y])? {
        let (x, residual, y) = (x.images(&images), residual.images(&images), y.images(&images));
        let rows = y.len() / outputs;
        let params = ShiftedLinearParams { rows: rows as u32, ..*p };
        let (entry, groups) = match kernel.version {
            Version::V1 => ("forward_v1", y.len().div_ceil(WORKGROUP)),
            Version::V2 => ("forward_v2", tile.groups(rows, outputs)),
        };
        SHADER
            .entry(entry)
            .constants(kernel.constants)
            .params(&params)
            .reads([x, weight.detach(), bias.clone(), residual])
            .writes([y])
            .groups(groups)?;
    }
    Ok(())
}

/// The gradients that are wanted: of x, and of weight and bias.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gradients<'a> {
    /// Shape of x.
    pub gx: Option<&'a Tensor>,
    /// Shape of the weight.
    pub gw: Option<&'a Tensor>,
    /// Shape of the bias; only with that of the weight.
    pub gb: Option<&'a Tensor>,
}

/// The gradients. `p` are forward's sizes; `v2` needs channels of x and of the result that divide by 8.
///
/// # Errors
/// As the launches.
pub fn backward(
    p: &ShiftedLinearParams,
    [x, weight, gy]: [&Tensor; 3],
    gradients: Gradients<'_>,
    kernel: impl Into<Kernel>,
) -> Result<()> {
    make(p, [x, weight, gy], gradients, kernel.into(), &Wanted::alone(x.device()))
}

/// As [`backward`] within a backward pass, which turns weights ahead of their use and may add up the chunks later.
fn make(
    p: &ShiftedLinearParams,
    [x, weight, gy]: [&Tensor; 3],
    Gradients { gx, gw, gb }: Gradients<'_>,
    kernel: Kernel,
    wanted: &Wanted<'_>,
) -> Result<()> {
    let device = x.device();
    let Device::Gpu(context) = device else {
        if let Some(gx) = gx {
            plain::backward_input(p, &gy.f32s(), &weight.f32s(), &mut gx.f32s_mut());
        }
        if let Some(gw) = gw {
            let mut gb = gb.map(Tensor::f32s_mut);
            plain::backward_weight(p, &x.f32s(), &gy.f32s(), &mut gw.f32s_mut(), gb.as_deref_mut());
        }
        return Ok(());
    };
    let (inputs, outputs) = (p.inputs as usize, p.outputs as usize);
    let tile = Tile::of(kernel);
    tile.check(OP, kernel, inputs)?;
    let width = (inputs + 1) * outputs;
    let cut = RowChunks::new(OP, context, [x, gy], p.rows as usize, width)?;
    let sums: Vec<&Tensor> = [gw, gb].into_iter().flatten().collect();
    let table = match gw {
        Some(_) => Some(wanted.chunk_table(OP, [cut.total(), width], &sums)?),
        None => None,
    };
    let turned = if gx.is_some() { wanted.turned(weight)? } else { weight.detach() };
    // A binding of what is not wanted needs a tensor, which is not written.
    let unwritten = if gx.is_none() || gw.is_none() { Some(device.empty(OP, [4])?) } else { None };
    let mut first_chunk = 0;
    for images in &cut.ranges {
        let rows = cut.rows_of(images);
        let params = ShiftedLinearParams { rows: rows as u32, chunk_rows: cut.rows as u32, first_chunk, ..*p };
        let (x, gy, gx) = (x.images(images), gy.images(images), gx.map(|gx| gx.images(images)));
        let chunks = if gw.is_some() { cut.of(images) } else { 0 };
        first_chunk += chunks as u32;
        match kernel.version {
            Version::V1 => {
                if let Some(gx) = &gx {
                    let launch = BACKWARD.entry("backward_input_v1").params(&params);
                    launch.reads([&gy, &turned]).writes([gx]).over(gx.len())?;
                }
                if let Some(table) = &table {
                    let launch = BACKWARD.entry("backward_weight_v1").params(&params);
                    launch.reads([&gy, &x]).writes([table]).over(chunks * width)?;
                }
            }
            Version::V2 => {
                let input_groups = if gx.is_some() { tile.groups(rows, inputs) } else { 0 };
                let params = ShiftedLinearParams { input_groups: input_groups as u32, ..params };
                BACKWARD
                    .entry("backward_v2")
                    .constants(kernel.constants)
                    .params(&params)
                    .reads([&gy, &x, &gy, &turned])
                    .writes(gx.as_ref().or(unwritten.as_ref()))
                    .writes(table.as_ref().or(unwritten.as_ref()))
                    .groups(input_groups + tile.linear_weight_groups(inputs, outputs, chunks))?;
            }
        }
    }
    match table {
        Some(table) => wanted.sum_chunks(&table, &sums),
        None => Ok(()),
    }
}

/// What the gradient needs: x for the weight's, the weight for x's.
#[derive(Debug)]
struct ShiftedLinearBackward {
    x: Tensor,
    weight: Tensor,
    params: ShiftedLinearParams,
    axis: Axis,
}

impl Backward for ShiftedLinearBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let p = &self.params;
        let gx = if wanted.needs(0) { Some(wanted.empty(OP, 0, self.x.shape())?) } else { None };
        let (mut gw, mut gb) = (None, None);
        if wanted.needs(1) || wanted.needs(2) {
            gw = Some(wanted.empty(OP, 1, self.weight.shape())?);
            if p.has_bias == 1 {
                gb = Some(wanted.empty(OP, 2, [p.outputs as usize].into())?);
            }
        }
        let kernel = select(&self.x, p.outputs as usize, Part::BackwardInput);
        let places = Gradients { gx: gx.as_ref(), gw: gw.as_ref(), gb: gb.as_ref() };
        make(p, [&self.x, &self.weight, gy], places, kernel, wanted)?;
        Ok(vec![gx, gw, gb, wanted.needs(3).then(|| gy.clone())])
    }

    fn turns(&self) -> Option<&Tensor> {
        Some(&self.weight)
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        vec![&mut self.x, &mut self.weight]
    }

    fn macs(&self) -> u64 {
        let p = &self.params;
        [p.rows, p.inputs, p.outputs].into_iter().map(u64::from).product()
    }

    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        vec![
            ("axis", Setting::Number(f64::from(self.axis as u8))),
            ("residual", Setting::Number(self.params.has_residual.into())),
        ]
    }
}
