//! Linear layer over the last axis.
//!
//! # Forward
//! `y[r,o] = bias[o] + sum over i of x[r,i] * w[i,o]`;  rows r are everything but the last axis.
//!
//! # Backward
//! `gx[r,i] = sum over o of gy[r,o] * w[i,o]`: the forward kernels with the transposed weight.
//!
//! `gw[i,o] = sum over r of x[r,i] * gy[r,o]`;  `gb[o] = sum over r of gy[r,o]`: partial sums over chunks of rows,
//! which a second stage adds up in order.
//!
//! # Picture of the tile
//! ```text
//!                          w [i, o]
//!                        +----+----+  o: 8
//!                        | v4 | v4 |  i
//!                        +----+----+
//!   x [r, i]   +--+      +----+----+
//!    8 rows    |  |      | v4 | v4 |   y [r, o]
//!              |  |      | v4 | v4 |   acc[r][o] += x[r,i] * w[i,o]
//!              +--+      +----+----+
//! ```
//!
//! In v2 one invocation owns 8 rows x 8 outputs in registers. For each i it loads 8 numbers of x and two vectors of w,
//! and adds their outer product.
//!
//! Shapes: x `[.., in]`, weight `[in, out]`, bias `[out]` -> y `[.., out]`.
//!
//! Versions: `v1` one element per invocation; `v2` register tiles, channels that divide by 8. With `BLOCK` above 1 a workgroup's tiles
//! read through workgroup memory (`shaders/lib/gemm_block.wgsl`): usual on GPUs. With `TOGETHER=8` neighbours of a subgroup share what
//! they read (`shaders/lib/lanes_together.wgsl`): usual in software.
//!
//! # Files
//! - [`shaders/linear.wgsl`](../../../../../shaders/linear.wgsl), below
//! - [`src/ops/linear.rs`](../../../src/shadegrad/ops/linear.rs.html)
//! - [`src/cpu/linear.rs`](../../../src/shadegrad/cpu/linear.rs.html)
//! - [`kernels-tests/ops/linear.rs`](../../../../../kernels-tests/ops/linear.rs)
//! - [`bench/ops/linear.rs`](../../../../../bench/ops/linear.rs)
//!
//! <details><summary>shaders/linear.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/linear.wgsl")]
//! ```
//! </details>

use super::choice::{Kernel, Product, all_lanes, choose, worth_trying};
use super::plan::Plan;
use super::{RowChunks, Tile, Version};
use crate::autograd::{Backward, Wanted, record};
use crate::cpu::linear::{self as plain, LinearParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Part, Question, Shader, Sizes, WORKGROUP};
use crate::tensor::{Device, Shape, Tensor};
use crate::{Error, Result};

const OP: &str = "linear";
pub(super) const SHADER: Shader = shader!("linear");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[
        ("forward_v2", "the channels of the result divide by 8"),
        ("backward_weight_v2", "the channels of x and of the result divide by 8"),
    ],
    run: |on| {
        let Sizes { shape, out, .. } = on.sizes;
        linear(&on.x()?, &on.input([shape.last(), out])?, Some(&on.input([out])?)).map(Some)
    },
};

/// Multiplies the last axis with a matrix and adds a bias.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let x = device.tensor("x", [1, 2], &[1.0, 2.0])?;
/// let weight = device.tensor("w", [2, 1], &[10.0, 1.0])?;
/// assert_eq!(shadegrad::ops::linear(&x, &weight, None)?.to_vec()?, [12.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if the channels differ.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let kernel = select(x, weight.shape().last(), Part::Forward);
    observed(OP, x.device(), |on| forward(&on.read(x)?, &on.read(weight)?, on.maybe(bias)?.as_ref(), kernel))
}

/// The kernel of the product for the result of a layer or for its input gradient.
fn select(x: &Tensor, outputs: usize, part: Part) -> Kernel {
    let inputs = x.shape().last();
    let [from, to] = if part == Part::BackwardInput { [outputs, inputs] } else { [inputs, outputs] };
    let (device, rows) = (x.device(), x.len() / inputs);
    let usual = Kernel::usual(device, Product::of_layer(rows, from, to), to.is_multiple_of(8));
    choose(
        device,
        || Some(question(x, outputs, part)),
        usual,
        || worth_trying(device, kernels(device, rows, from, to), Kernel::has_blocks),
    )
}

/// All kernels of the product that a device has for so many rows with these channels before and after it.
pub fn kernels(device: &Device, rows: usize, inputs: usize, outputs: usize) -> Vec<Kernel> {
    let product = Product::of_layer(rows, inputs, outputs);
    Kernel::all(device, &SHADER, |kernel| product.takes(device, kernel))
}

/// All kernels of the weight gradient that a device has for such a layer.
pub fn weight_kernels(device: &Device, rows: usize, inputs: usize, outputs: usize) -> Vec<Kernel> {
    let blocks = weight_product(rows, inputs, outputs).blocks(device);
    let tiles = all_lanes(device).chain(blocks).filter(|_| weight_tiles(inputs, outputs));
    let tiles = tiles.map(Kernel::tiled);
    std::iter::once(Version::V1.into()).chain(tiles).collect()
}

pub(super) fn weight_product(rows: usize, inputs: usize, outputs: usize) -> Product {
    Product::of_weights(inputs, outputs, rows, inputs)
}

/// Whether tiles of the weight gradient fit these channels.
fn weight_tiles(inputs: usize, outputs: usize) -> bool {
    inputs.is_multiple_of(8) && outputs.is_multiple_of(8)
}

fn question(x: &Tensor, outputs: usize, part: Part) -> Question {
    Question { op: OP, part, sizes: Sizes { out: outputs, ..Sizes::of(x.shape()) } }
}

/// [`linear`] with a chosen kernel.
///
/// # Errors
/// As [`linear`], and if the kernel does not take these channels.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, kernel: impl Into<Kernel>) -> Result<Tensor> {
    let (rows, inputs) = x.shape().rows(OP)?;
    let [weight_in, outputs] = match weight.shape().dims() {
        [i, o] => [*i, *o],
        _ => return Err(Error::shape(OP, format!("the weight must be [in, out], got {}", weight.shape()))),
    };
    if x.shape().rank() < 2 || outputs == 0 {
        let (x, weight) = (x.shape(), weight.shape());
        return Err(Error::shape(OP, format!("needs x [.., in] and a weight [in, out], got {x} and {weight}")));
    }
    if weight_in != inputs {
        let message =
            format!("x {} has {inputs} channels but the weight {} takes {weight_in}", x.shape(), weight.shape());
        return Err(Error::shape(OP, message));
    }
    if let Some(bias) = bias.filter(|bias| bias.shape() != Shape::from([outputs])) {
        return Err(Error::shape(OP, format!("the bias must be [{outputs}], got {}", bias.shape())));
    }
    let params = LinearParams {
        rows: rows as u32,
        inputs: inputs as u32,
        outputs: outputs as u32,
        has_bias: u32::from(bias.is_some()),
        ..bytemuck::Zeroable::zeroed()
    };
    let mut dims = x.shape().dims().to_vec();
    dims[x.shape().rank() - 1] = outputs;
    let y = x.new_empty(OP, Shape::new(&dims)?)?;
    match x.device() {
        Device::Gpu(_) => multiply(&params, x, weight, bias, &y, kernel.into())?,
        Device::Cpu(_) => {
            let bias = bias.map(Tensor::f32s);
            plain::forward(&params, &x.f32s(), &weight.f32s(), bias.as_deref(), &mut y.f32s_mut());
        }
    }
    record(y, &[Some(x), Some(weight), bias], || LinearBackward { x: x.detach(), weight: weight.detach(), params })
}

/// Launches the product of forward and of the input gradient.
fn multiply(
    p: &LinearParams,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    y: &Tensor,
    kernel: Kernel,
) -> Result<()> {
    let outputs = p.outputs as usize;
    let tile = Tile::of(kernel);
    tile.check(OP, kernel, outputs)?;
    let bias = bias.unwrap_or(weight).detach(); // without a bias the binding is not read
    for images in x.device().image_ranges(OP, &[x, y])? {
        let (x, y) = (x.images(&images), y.images(&images));
        let rows = y.len() / outputs;
        let params = LinearParams { rows: rows as u32, ..*p };
        let (entry, groups) = match kernel.version {
            Version::V1 => ("forward_v1", y.len().div_ceil(WORKGROUP)),
            Version::V2 => ("forward_v2", tile.groups(rows, outputs)),
        };
        SHADER
            .entry(entry)
            .constants(kernel.constants)
            .params(&params)
            .reads([x, weight.detach(), bias.clone()])
            .writes([y])
            .groups(groups)?;
    }
    Ok(())
}

/// gx = gy times the transposed weight. `p` are forward's sizes.
///
/// # Errors
/// As [`forward`].
pub fn backward_input(
    p: &LinearParams,
    gy: &Tensor,
    weight: &Tensor,
    gx: &Tensor,
    kernel: impl Into<Kernel>,
) -> Result<()> {
    input_gradient(p, gy, weight, gx, kernel.into(), &Wanted::alone(gy.device()))
}

/// As [`backward_input`] within a backward pass, which transposes weights ahead of their use.
fn input_gradient(
    p: &LinearParams,
    gy: &Tensor,
    weight: &Tensor,
    gx: &Tensor,
    kernel: Kernel,
    wanted: &Wanted<'_>,
) -> Result<()> {
    match gy.device() {
        Device::Gpu(_) => {
            let swapped = LinearParams { inputs: p.outputs, outputs: p.inputs, has_bias: 0, ..*p };
            multiply(&swapped, gy, &wanted.turned(weight)?, None, gx, kernel)
        }
        Device::Cpu(_) => {
            plain::backward_input(p, &gy.f32s(), &weight.f32s(), &mut gx.f32s_mut());
            Ok(())
        }
    }
}

/// gw, and gb if there is a bias. `p` are forward's sizes; `v2` needs both channels to divide by 8.
///
/// # Errors
/// As the launches.
pub fn backward_weight(
    p: &LinearParams,
    x: &Tensor,
    gy: &Tensor,
    gw: &Tensor,
    gb: Option<&Tensor>,
    kernel: impl Into<Kernel>,
) -> Result<()> {
    weight_gradient(p, [x, gy], gw, gb, kernel.into(), &Wanted::alone(x.device()))
}

/// As [`backward_weight`] within a backward pass, which may add up the chunks later.
fn weight_gradient(
    p: &LinearParams,
    [x, gy]: [&Tensor; 2],
    gw: &Tensor,
    gb: Option<&Tensor>,
    kernel: Kernel,
    wanted: &Wanted<'_>,
) -> Result<()> {
    let gradients: Vec<&Tensor> = [Some(gw), gb].into_iter().flatten().collect();
    match partial_sums(p, [x, gy], &gradients, kernel, wanted)? {
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
    p: &LinearParams,
    [x, gy]: [&Tensor; 2],
    gradients: &[&Tensor],
    kernel: Kernel,
    wanted: &Wanted<'_>,
) -> Result<Option<Tensor>> {
    let device = x.device();
    let Device::Gpu(context) = device else { return Ok(None) };
    let (inputs, outputs) = (p.inputs as usize, p.outputs as usize);
    let width = (inputs + 1) * outputs;
    let cut = RowChunks::new(OP, context, [x, gy], p.rows as usize, width)?;
    let partial = wanted.chunk_table(OP, [cut.total(), width], gradients)?;
    let mut first_chunk = 0;
    for images in &cut.ranges {
        let (rows, chunks) = (cut.rows_of(images) as u32, cut.of(images));
        let bias_to = if p.has_bias == 1 { chunks as u32 } else { 0 };
        let params = LinearParams { rows, chunk_rows: cut.rows as u32, first_chunk, bias_from: 0, bias_to, ..*p };
        first_chunk += chunks as u32;
        sum_weights(&params, [&x.images(images), &gy.images(images)], &partial, kernel)?;
    }
    Ok(Some(partial))
}

/// Launches the sums of a weight gradient over chunks of rows, as `p` cuts them: `[chunk, inputs and the bias, outputs]`.
pub(super) fn sum_weights(p: &LinearParams, [x, gy]: [&Tensor; 2], partial: &Tensor, kernel: Kernel) -> Result<()> {
    let (inputs, outputs) = (p.inputs as usize, p.outputs as usize);
    let chunks = p.rows.div_ceil(p.chunk_rows) as usize;
    let (entry, groups) = match kernel.version {
        Version::V1 => ("backward_weight_v1", (chunks * (inputs + 1) * outputs).div_ceil(WORKGROUP)),
        Version::V2 => ("backward_weight_v2", Tile::of(kernel).linear_weight_groups(inputs, outputs, chunks)),
    };
    SHADER.entry(entry).constants(kernel.constants).params(p).reads([x, gy]).writes([partial]).groups(groups)
}

/// What the gradient needs: x for the weight's, the weight for x's.
#[derive(Debug)]
struct LinearBackward {
    x: Tensor,
    weight: Tensor,
    params: LinearParams,
}

impl Backward for LinearBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let p = &self.params;
        let gx = if wanted.needs(0) {
            let gx = wanted.empty(OP, 0, self.x.shape())?;
            let kernel = select(&self.x, p.outputs as usize, Part::BackwardInput);
            input_gradient(p, gy, &self.weight, &gx, kernel, wanted)?;
            Some(gx)
        } else {
            None
        };
        if !wanted.needs(1) && !wanted.needs(2) {
            return Ok(vec![gx, None, None]);
        }
        let gw = wanted.empty(OP, 1, self.weight.shape())?;
        let gb = match p.has_bias {
            1 => Some(wanted.empty(OP, 2, [p.outputs as usize].into())?),
            _ => None,
        };
        let question = || Some(question(&self.x, p.outputs as usize, Part::BackwardWeight));
        let device = gy.device();
        let (inputs, outputs) = (p.inputs as usize, p.outputs as usize);
        let rows = p.rows as usize;
        let usual = Kernel::usual(device, weight_product(rows, inputs, outputs), weight_tiles(inputs, outputs));
        let kernel = choose(device, question, usual, || {
            worth_trying(device, weight_kernels(device, rows, inputs, outputs), Kernel::has_blocks)
        });
        weight_gradient(p, [&self.x, gy], &gw, gb.as_ref(), kernel, wanted)?;
        Ok(vec![gx, Some(gw), gb])
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
}
