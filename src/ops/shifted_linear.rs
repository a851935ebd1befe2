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
//! rows, which a second stage adds up in order.
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

use super::choice::{Kernel, choose};
use super::plan::Plan;
use super::{Axis, Tile, Version, chunks_with_room};
use crate::autograd::{Backward, Setting, Wanted, record};
use crate::cpu::shifted_linear::{self as plain, ShiftedLinearParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Part, Question, Shader, Sizes};
use crate::tensor::{Device, Shape, Tensor};
use crate::{Error, Result};

const OP: &str = "shifted_linear";
pub(super) const SHADER: Shader = shader!("shifted_linear");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[
        ("forward_v2", "the channels of the result divide by 8"),
        ("backward_input_v2", "the channels of x divide by 8"),
        ("backward_weight_v2", "the channels of x and of the result divide by 8"),
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

/// The kernel of the product for the result of a layer or for its input gradient.
fn select(x: &Tensor, outputs: usize, part: Part) -> Kernel {
    let channels = if part == Part::BackwardInput { x.shape().last() } else { outputs };
    let usual = if channels.is_multiple_of(8) { Version::V2 } else { Version::V1 };
    choose(x.device(), || Some(question(x, outputs, part)), usual.into(), || kernels(channels))
}

/// All kernels of the product that make a result of so many channels.
pub fn kernels(channels: usize) -> Vec<Kernel> {
    Kernel::all(&SHADER, |kernel| channels.is_multiple_of(Tile::of(kernel).columns))
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
    let y = x.device().empty(OP, [n, h, w, params.outputs as usize])?;
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

/// Launches the product of forward and of the input gradient. `p` are the sizes of this product.
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
    let (bias, residual) = (bias.unwrap_or(weight).detach(), residual.unwrap_or(x).detach());
    for images in x.device().image_ranges(OP, &[x, &residual, y])? {
        let (x, residual, y) = (x.images(&images), residual.images(&images), y.images(&images));
        let rows = y.len() / outputs;
        let params = ShiftedLinearParams { rows: rows as u32, ..*p };
        let (entry, invocations) = match (kernel.version, p.scatter) {
            (Version::V1, 0) => ("forward_v1", y.len()),
            (Version::V1, _) => ("backward_input_v1", y.len()),
            (Version::V2, 0) => ("forward_v2", tile.tiles(rows, outputs)),
            (Version::V2, _) => ("backward_input_v2", tile.tiles(rows, outputs)),
        };
        let launch = SHADER.entry(entry).constants(kernel.constants).params(&params).reads([x, weight.detach()]);
        // The tile's kernels are one, and have all bindings.
        let launch = if entry == "backward_input_v1" { launch } else { launch.reads([bias.clone(), residual]) };
        launch.writes([y]).over(invocations)?;
    }
    Ok(())
}

/// gx: the product with the transposed weight, moved back. `p` are forward's sizes.
///
/// # Errors
/// As [`forward`].
pub fn backward_input(
    p: &ShiftedLinearParams,
    gy: &Tensor,
    weight: &Tensor,
    gx: &Tensor,
    kernel: impl Into<Kernel>,
) -> Result<()> {
    input_gradient(p, gy, weight, gx, kernel.into(), &Wanted::alone(gy.device()))
}

/// As [`backward_input`] within a backward pass, which transposes weights ahead of their use.
fn input_gradient(
    p: &ShiftedLinearParams,
    gy: &Tensor,
    weight: &Tensor,
    gx: &Tensor,
    kernel: Kernel,
    wanted: &Wanted<'_>,
) -> Result<()> {
    match gy.device() {
        Device::Gpu(_) => {
            let (inputs, outputs) = (p.outputs, p.inputs);
            let swapped = ShiftedLinearParams { inputs, outputs, has_bias: 0, has_residual: 0, scatter: 1, ..*p };
            multiply(&swapped, [gy, &wanted.turned(weight)?], None, None, gx, kernel)
        }
        Device::Cpu(_) => {
            plain::backward_input(p, &gy.f32s(), &weight.f32s(), &mut gx.f32s_mut());
            Ok(())
        }
    }
}

/// Rows summed by one invocation: short chains, and enough chunks to fill a GPU.
const CHUNK_ROWS: usize = 128;

/// The versions of the weight gradient's kernel for these channels.
pub fn weight_versions(inputs: usize, outputs: usize) -> &'static [Version] {
    let tiles = inputs.is_multiple_of(8) && outputs.is_multiple_of(8);
    if tiles { &[Version::V1, Version::V2] } else { &[Version::V1] }
}

/// gw, and gb if there is a bias. `p` are forward's sizes; `v2` needs both channels to divide by 8.
///
/// # Errors
/// As the launches.
pub fn backward_weight(
    p: &ShiftedLinearParams,
    x: &Tensor,
    gy: &Tensor,
    gw: &Tensor,
    gb: Option<&Tensor>,
    version: Version,
) -> Result<()> {
    weight_gradient(p, [x, gy], gw, gb, version, &Wanted::alone(x.device()))
}

/// As [`backward_weight`] within a backward pass, which may add up the chunks later.
fn weight_gradient(
    p: &ShiftedLinearParams,
    [x, gy]: [&Tensor; 2],
    gw: &Tensor,
    gb: Option<&Tensor>,
    version: Version,
    wanted: &Wanted<'_>,
) -> Result<()> {
    let gradients: Vec<&Tensor> = [Some(gw), gb].into_iter().flatten().collect();
    match partial_sums(p, [x, gy], &gradients, version, wanted)? {
        Some(table) => wanted.sum_chunks(&table, &gradients),
        None => {
            let mut gb = gb.map(Tensor::f32s_mut);
            plain::backward_weight(p, &x.f32s(), &gy.f32s(), &mut gw.f32s_mut(), gb.as_deref_mut());
            Ok(())
        }
    }
}

/// The first stage of the weight gradient: a table `[chunks, weights and biases]`; `None` on the CPU, which needs no
/// stages.
fn partial_sums(
    p: &ShiftedLinearParams,
    [x, gy]: [&Tensor; 2],
    gradients: &[&Tensor],
    version: Version,
    wanted: &Wanted<'_>,
) -> Result<Option<Tensor>> {
    let device = x.device();
    let Device::Gpu(context) = device else { return Ok(None) };
    let (inputs, outputs) = (p.inputs as usize, p.outputs as usize);
    let ranges = device.image_ranges(OP, &[x, gy])?;
    let per_image = p.rows as usize / x.shape().dims()[0];
    // Longer chunks where the partial sums would not fit.
    let most = chunks_with_room(context, (inputs + 1) * outputs, ranges.len());
    let longest = ranges.iter().map(|images| images.len() * per_image).max().unwrap_or(1);
    let chunk_rows = CHUNK_ROWS.max(longest.div_ceil(most));
    let chunks: Vec<usize> = ranges.iter().map(|images| (images.len() * per_image).div_ceil(chunk_rows)).collect();
    let total: usize = chunks.iter().sum();
    let partial = wanted.chunk_table(OP, [total, (inputs + 1) * outputs], gradients)?;
    let mut first = 0;
    for (images, chunks) in ranges.iter().zip(chunks) {
        let rows = (images.len() * per_image) as u32;
        let params = ShiftedLinearParams { rows, chunk_rows: chunk_rows as u32, first_chunk: first as u32, ..*p };
        first += chunks;
        let (entry, invocations) = match version {
            Version::V1 => ("backward_weight_v1", chunks * (inputs + 1) * outputs),
            Version::V2 => ("backward_weight_v2", chunks * (inputs / 8 + 1) * (outputs / 8)),
        };
        SHADER
            .entry(entry)
            .params(&params)
            .reads([x.images(images), gy.images(images)])
            .writes([&partial])
            .over(invocations)?;
    }
    Ok(Some(partial))
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
        let mut gradients = vec![None, None, None, wanted.needs(3).then(|| gy.clone())];
        if wanted.needs(0) {
            let gx = wanted.empty(OP, 0, self.x.shape())?;
            let kernel = select(&self.x, p.outputs as usize, Part::BackwardInput);
            input_gradient(p, gy, &self.weight, &gx, kernel, wanted)?;
            gradients[0] = Some(gx);
        }
        if wanted.needs(1) || wanted.needs(2) {
            let gw = wanted.empty(OP, 1, self.weight.shape())?;
            if p.has_bias == 1 {
                gradients[2] = Some(wanted.empty(OP, 2, [p.outputs as usize].into())?);
            }
            let (inputs, outputs) = (p.inputs as usize, p.outputs as usize);
            let versions = weight_versions(inputs, outputs);
            let question = || Some(question(&self.x, outputs, Part::BackwardWeight));
            let version = choose(gy.device(), question, versions[versions.len() - 1], || versions.to_vec());
            weight_gradient(p, [&self.x, gy], &gw, gradients[2].as_ref(), version, wanted)?;
            gradients[1] = Some(gw);
        }
        Ok(gradients)
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
