//! Sum of two tensors with broadcasting, and the same in place.
//!
//! # Forward
//! `y[n,y,x,c] = a[..] + b[..]`; an operand with extent 1 along an axis is repeated there (its stride is 0). In place:
//! `sum[i] = sum[i] + added[i]`.
//!
//! # Backward
//! `ga = gy` and `gb = gy`, each summed over the axes along which that operand was broadcast.
//!
//! # Data flow
//! ```text
//! a [2,1,2,3]   1 2 3 | 4 5 6   ||  7 8 9 | 0 1 2
//! b       [3]   a b c   a b c       a b c   a b c     a value per channel: strides 0 0 0 1
//!
//! gb [3], sums over the broadcast axes taken as one axis k of gy [o, k, i]:
//!               k = 0, parts, 2 parts, ..   ->  part 0  \
//!               k = 1, parts + 1, ..        ->  part 1   >  and again over these, until
//!               ..                              ..      /   there is one part
//! ```
//!
//! One invocation adds one element, in v2 four. Sums are of at most 64 numbers in a row, in a fixed order.
//!
//! Shapes: axes are aligned at the end and an extent of 1 is repeated, as in PyTorch. In NHWC that makes `[C]` a value
//! per channel and `[H, W, 1]` a value per pixel; `[N]` must be written `[N, 1, 1, 1]`.
//!
//! Versions: v1 (an element per invocation, any shapes), v2 (same shape, four elements per invocation).
//!
//! # Files
//! - [`shaders/add.wgsl`](../../../../../shaders/add.wgsl), below
//! - [`src/ops/add.rs`](../../../src/shadegrad/ops/add.rs.html)
//! - [`src/cpu/add.rs`](../../../src/shadegrad/cpu/add.rs.html)
//! - [`kernels-tests/ops/add.rs`](../../../../../kernels-tests/ops/add.rs)
//! - [`bench/ops/add.rs`](../../../../../bench/ops/add.rs)
//!
//! <details><summary>shaders/add.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/add.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use super::{Version, choice};
use crate::autograd::{Backward, Wanted, record};
use crate::cpu::add::{self as plain, AddParams, CHAIN, ReduceParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes};
use crate::tensor::{DType, Device, Shape, Tensor};
use crate::{Error, Result};

const OP: &str = "add";
pub(super) const SHADER: Shader = shader!("add");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[
        ("forward_v2", "both shapes are the same and their elements divide by 4"),
        ("assign_v2", "the elements divide by 4"),
    ],
    run: |on| add(&on.x()?, &on.x()?).map(Some),
};

/// a + b, with broadcasting.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let images = device.tensor("images", [1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0])?;
/// let per_channel = device.tensor("bias", [2], &[10.0, 20.0])?;
/// assert_eq!(shadegrad::ops::add(&images, &per_channel)?.to_vec()?, [11.0, 22.0, 13.0, 24.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if an axis has two different extents and neither is 1, or if a tensor has no element.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    observed(OP, a.device(), |on| forward(&on.read(a)?, &on.read(b)?, select(a, b)))
}

fn select(a: &Tensor, b: &Tensor) -> Version {
    choice::version(a.device(), OP, || Sizes::of(a.shape()), usual(a.shape(), b.shape()))
}

/// Four at a time where both shapes are the same and divide.
fn usual(a: Shape, b: Shape) -> Version {
    if a == b && a.len().is_multiple_of(4) { Version::V2 } else { Version::V1 }
}

/// As [`add`], with the kernel named.
///
/// # Errors
/// As [`add`]; [`Error::Shape`] for [`Version::V2`] if the shapes differ or their elements do not divide by 4.
pub fn forward(a: &Tensor, b: &Tensor, version: Version) -> Result<Tensor> {
    let shape = broadcast(a.shape(), b.shape())?;
    if version == Version::V2 && usual(a.shape(), b.shape()) != Version::V2 {
        let message = format!("v2 needs one shape of 4n elements, got {} and {}", a.shape(), b.shape());
        return Err(Error::shape(OP, message));
    }
    let y = a.new_empty(OP, shape)?;
    match a.device() {
        Device::Gpu(_) if version == Version::V2 => {
            for part in a.device().image_ranges(OP, &[a, b, &y])? {
                let (a, b, y) = (a.images(&part), b.images(&part), y.images(&part));
                let invocations = y.len() / 4;
                SHADER.entry("forward_v2").reads([a, b]).writes([y]).over(invocations)?;
            }
        }
        Device::Gpu(_) => {
            let (a, b, y) = (padded(a)?, padded(b)?, padded(&y)?);
            let params = strides(&a, &b, &y);
            let batch = y.shape().dims()[0];
            // An operand that is the same for all images is bound whole.
            let split: Vec<&Tensor> = [&a, &b, &y].into_iter().filter(|t| t.shape().dims()[0] == batch).collect();
            for part in y.device().image_ranges(OP, &split)? {
                let of = |t: &Tensor| if t.shape().dims()[0] == batch { t.images(&part) } else { t.clone() };
                let y = y.images(&part);
                let elements = y.len();
                SHADER.entry("forward_v1").params(&params).reads([of(&a), of(&b)]).writes([y]).over(elements)?;
            }
        }
        Device::Cpu(_) if a.shape() == b.shape() => plain::forward_same(&a.f32s(), &b.f32s(), &mut y.f32s_mut()),
        Device::Cpu(_) => {
            let params = strides(&padded(a)?, &padded(b)?, &padded(&y)?);
            plain::forward(&params, &a.f32s(), &b.f32s(), &mut y.f32s_mut());
        }
    }
    record(y, &[Some(a), Some(b)], || AddBackward { shapes: [a.shape(), b.shape()] })
}

/// Adds b to a in place, without leaving a trace on a tape. The tensors must not share their numbers.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ.
pub fn add_assign(a: &Tensor, b: &Tensor) -> Result<()> {
    observed(OP, a.device(), |on| assign(&on.change(a)?, &on.read(b)?, select(a, b)))
}

/// As [`add_assign`], with the kernel named.
///
/// # Errors
/// As [`add_assign`]; [`Error::Shape`] for [`Version::V2`] if the elements do not divide by 4.
pub fn assign(a: &Tensor, b: &Tensor, version: Version) -> Result<()> {
    if a.shape() != b.shape() || a.shape().len() == 0 {
        let message = format!("in place needs one shape with elements, got {} += {}", a.shape(), b.shape());
        return Err(Error::shape(OP, message));
    }
    if version == Version::V2 && !a.len().is_multiple_of(4) {
        return Err(Error::shape(OP, format!("v2 needs 4n elements, got {}", a.shape())));
    }
    match a.device() {
        Device::Gpu(_) => {
            let (entry, lanes) = match version {
                Version::V1 => ("assign_v1", 1),
                Version::V2 => ("assign_v2", 4),
            };
            for part in a.device().image_ranges(OP, &[a, b])? {
                let (a, b) = (a.images(&part), b.images(&part));
                let invocations = a.len() / lanes;
                SHADER.entry(entry).reads([b]).writes([a]).over(invocations)?;
            }
        }
        Device::Cpu(_) => plain::assign(&mut a.f32s_mut(), &b.f32s()),
    }
    Ok(())
}

/// The shape of the sum.
fn broadcast(a: Shape, b: Shape) -> Result<Shape> {
    let (wide_a, wide_b) = (extents(a), extents(b));
    let mut dims = [1; 4];
    for axis in 0..4 {
        dims[axis] = match (wide_a[axis], wide_b[axis]) {
            (left, right) if left == right => left,
            (1, extent) | (extent, 1) => extent,
            _ => {
                let message = format!("{a} and {b} do not broadcast: aligned at the end, extents must be equal or 1");
                return Err(Error::shape(OP, message));
            }
        };
    }
    if dims.contains(&0) {
        return Err(Error::shape(OP, format!("needs at least one element, got {a} and {b}")));
    }
    Shape::new(&dims[4 - a.rank().max(b.rank())..])
}

/// Four extents, aligned at the end.
fn extents(shape: Shape) -> [usize; 4] {
    let mut all = [1; 4];
    all[4 - shape.rank()..].copy_from_slice(shape.dims());
    all
}

fn padded(tensor: &Tensor) -> Result<Tensor> {
    tensor.reshape(extents(tensor.shape()))
}

/// Extents of y and strides of a and b, all with four axes.
fn strides(a: &Tensor, b: &Tensor, y: &Tensor) -> AddParams {
    let of = |tensor: &Tensor| {
        let dims = extents(tensor.shape());
        let step = [dims[1] * dims[2] * dims[3], dims[2] * dims[3], dims[3], 1];
        [0, 1, 2, 3].map(|axis| if dims[axis] == 1 { 0 } else { step[axis] as u32 })
    };
    let ([a_batch, a_row, a_column, a_channel], [b_batch, b_row, b_column, b_channel]) = (of(a), of(b));
    let [_, height, width, channels] = extents(y.shape()).map(|extent| extent as u32);
    AddParams { height, width, channels, a_batch, a_row, a_column, a_channel, b_batch, b_row, b_column, b_channel }
}

/// What the gradient needs: the operands' shapes.
#[derive(Debug)]
struct AddBackward {
    shapes: [Shape; 2],
}

impl Backward for AddBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut gradients = Vec::with_capacity(2);
        for (index, shape) in self.shapes.into_iter().enumerate() {
            gradients.push(match wanted.needs(index) {
                false => None,
                true if shape == gy.shape() => Some(gy.clone()),
                true if shape.len() == gy.len() => Some(gy.reshape(shape)?),
                true => {
                    let g = wanted.empty(OP, index, shape)?;
                    sum_to(gy, &g)?;
                    Some(g)
                }
            });
        }
        Ok(gradients)
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        Vec::new()
    }
}

/// Sums gy over every axis along which g has extent 1.
fn sum_to(gy: &Tensor, g: &Tensor) -> Result<()> {
    let (gy, g) = (padded(gy)?, padded(g)?);
    if g.dtype() == DType::F16 {
        let message = format!("the gradient of a broadcast operand {} is a sum and must be f32", g.shape());
        return Err(Error::shape(OP, message));
    }
    let keeps_images = g.shape().dims()[0] == gy.shape().dims()[0];
    let split: &[&Tensor] = if keeps_images { &[&gy, &g] } else { &[&gy] };
    for (number, part) in gy.device().image_ranges(OP, split)?.into_iter().enumerate() {
        let gy = gy.images(&part);
        if keeps_images {
            run_stages(&gy, &g.images(&part))?;
        } else if number == 0 {
            run_stages(&gy, &g)?;
        } else {
            let more = g.device().empty(OP, g.shape())?;
            run_stages(&gy, &more)?;
            add_assign(&g, &more)?;
        }
    }
    Ok(())
}

/// Sums gy `[N, H, W, C]` over all pixels, on a GPU. The last stage may join those of other gradients of the pass.
pub(super) fn sum_pixels(gy: &Tensor, g: &Tensor, wanted: &Wanted<'_>) -> Result<()> {
    let stages = stages(extents(gy.shape()), [1, 1, 1, g.len()]);
    match stages.first() {
        Some((_, params)) if gy.device().image_ranges(OP, &[gy])?.len() == 1 => {
            let table = wanted.chunk_table(OP, [params.parts as usize, g.len()], &[g])?;
            run_stage(params, gy, &table)?;
            wanted.sum_chunks(&table, &[g])
        }
        _ => sum_to(gy, g),
    }
}

fn run_stages(gy: &Tensor, g: &Tensor) -> Result<()> {
    let stages = stages(extents(gy.shape()), extents(g.shape()));
    let Some(last) = stages.len().checked_sub(1) else {
        // Nothing to sum: sums of one number, which may have to become f32.
        return run_stage(&ReduceParams { count: 1, inner: g.len() as u32, parts: 1 }, gy, g);
    };
    let mut from = gy.clone();
    for (number, (outer, params)) in stages.into_iter().enumerate() {
        let (parts, inner) = (params.parts as usize, params.inner as usize);
        let to = if number == last { g.clone() } else { g.device().empty(OP, [outer, parts, inner])? };
        run_stage(&params, &from, &to)?;
        from = to;
    }
    Ok(())
}

fn run_stage(params: &ReduceParams, from: &Tensor, to: &Tensor) -> Result<()> {
    match to.device() {
        Device::Gpu(_) => SHADER.entry("reduce").params(params).reads([from]).writes([to]).over(to.len())?,
        Device::Cpu(_) => plain::reduce(params, &from.f32s(), &mut to.f32s_mut()),
    }
    Ok(())
}

/// The stages of the sum from `dims` to `target`, with the extent in front of the summed axes. Adjacent axes are summed
/// together; the first ones go first because they leave whole rows to be read side by side.
fn stages(mut dims: [usize; 4], target: [usize; 4]) -> Vec<(usize, ReduceParams)> {
    let mut stages = Vec::new();
    for axis in 0..4 {
        if dims[axis] == target[axis] {
            continue;
        }
        let end = (axis..4).find(|&axis| target[axis] != 1).unwrap_or(4);
        let outer = dims[..axis].iter().product();
        let inner: usize = dims[end..].iter().product();
        let mut count: usize = dims[axis..end].iter().product();
        dims[axis..end].fill(1);
        while count > 1 {
            let parts = count.div_ceil(CHAIN);
            stages.push((outer, ReduceParams { count: count as u32, inner: inner as u32, parts: parts as u32 }));
            count = parts;
        }
    }
    stages
}
