//! The second stage of weight gradients: tables of partial sums, one row per chunk of pixels, become gradients. Several
//! layers share a launch.
//!
//! # Forward
//! `gradient[i] = sum over chunks of partial[chunk, first + i]`
//!
//! # Backward
//! No gradient: it is a part of gradients.
//!
//! # Data flow
//! ```text
//! conv2d backward_weight --> table [chunks, weights + biases] --+
//! linear backward_weight --> table [chunks, weights + biases] --+--> sums --> the tensor of all gradients
//! layer_norm backward    --> table [chunks, weights + biases] --+
//! ```
//!
//! A gradient that only the optimizer will read can wait: [`ChunkSums`] collects tables, in one piece of memory, until
//! that is full. It saves a launch, a few microseconds of an idle GPU, for most layers.
//!
//! A table of a single chunk needs no sum, if the gradients stand one after the other as its columns do: then the first
//! stage writes them itself.
//!
//! Shapes: table `[chunks, width]`; gradients one after the other in its columns.
//!
//! Versions: one.
//!
//! Launches: 1 for up to 64 gradients whose tables stand in one buffer.
//!
//! # Files
//! - [`shaders/sum_chunks.wgsl`](../../../../../shaders/sum_chunks.wgsl), below
//! - [`src/ops/sum_chunks.rs`](../../../src/shadegrad/ops/sum_chunks.rs.html)
//! - [`src/cpu/sum_chunks.rs`](../../../src/shadegrad/cpu/sum_chunks.rs.html)
//! - [`kernels-tests/ops/sum_chunks.rs`](../../../../../kernels-tests/ops/sum_chunks.rs)
//! - [`bench/ops/sum_chunks.rs`](../../../../../bench/ops/sum_chunks.rs)
//!
//! <details><summary>shaders/sum_chunks.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/sum_chunks.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use crate::cpu::sum_chunks::{self as plain, Part};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, WORKGROUP};
use crate::tensor::{Device, Shape, Tensor};
use crate::{Error, Result};

const OP: &str = "sum_chunks";
pub(super) const SHADER: Shader = shader!("sum_chunks");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[],
    run: |on| {
        let width = on.sizes.shape.last();
        let table = on.constant([on.sizes.shape.len() / width, width])?;
        sum_chunks(&table, &[&on.constant([width])?]).map(|()| None)
    },
};

/// Parts of one launch, as in the shader.
const PARTS: usize = 64;
/// Columns that an invocation adds up, as in the shader.
const COLUMNS: usize = 4;
/// A binding may begin at any multiple of so many numbers (256 bytes).
const ALIGNMENT: usize = 64;
/// Bytes of the smallest and of the largest piece of memory for tables. Between them it takes a quarter of what is free
/// below the peak: a backward pass begins where most memory is in use, and tables shall not add much to that. The smallest
/// holds all tables of UNeXt but a few.
const ARENA_BYTES: [usize; 2] = [16 << 20, 64 << 20];

/// Adds up the rows of a table `[chunks, width]`. Its columns are dealt out to `gradients`, in their order; a table may be
/// wider than they are together.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let table = device.tensor("table", [2, 3], &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0])?;
/// let (weight, bias) = (device.zeros("gw", [2])?, device.zeros("gb", [1])?);
/// shadegrad::ops::sum_chunks(&table, &[&weight, &bias])?;
/// assert_eq!((weight.to_vec()?, bias.to_vec()?), (vec![11.0, 22.0], vec![33.0]));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if the table has fewer columns than the gradients have numbers; else as the launch.
pub fn sum_chunks(table: &Tensor, gradients: &[&Tensor]) -> Result<()> {
    observed(OP, table.device(), |on| {
        let gradients: Vec<Tensor> = gradients.iter().map(|gradient| on.change(gradient)).collect::<Result<_>>()?;
        let mut sums = ChunkSums::default();
        sums.add(&on.read(table)?, &gradients.iter().collect::<Vec<_>>())?;
        sums.launch()
    })
}

/// The table of one chunk whose columns are these gradients: there is one if they stand one after the other.
pub(crate) fn as_table(width: usize, gradients: &[&Tensor]) -> Option<Tensor> {
    let table = Tensor::span(gradients)?;
    let mut first = 0;
    let follows = |gradient: &&Tensor| {
        let place = table.view(first, gradient.shape());
        first += gradient.len();
        place.same_place(gradient)
    };
    (table.len() == width && gradients.iter().all(follows)).then(|| table.view(0, [1, width].into()))
}

/// Sums that are still to be made, and the memory for their tables.
#[derive(Debug, Default)]
pub struct ChunkSums {
    waiting: Vec<Waiting>,
    /// From the first to the last of their tables, and of their gradients.
    spans: Option<[Tensor; 2]>,
    /// Where the tables stand until they are added up.
    arena: Option<Tensor>,
    /// Numbers of the arena that are taken.
    taken: usize,
}

/// Columns of a table, and the gradient that is their sum.
#[derive(Debug)]
struct Waiting {
    /// `[chunks, width]`.
    table: Tensor,
    first: usize,
    gradient: Tensor,
}

impl ChunkSums {
    /// A table for [`add`](Self::add), beside the others that wait; makes their sums first if there is no room for it.
    ///
    /// # Errors
    /// As [`Device::empty`] and [`launch`](Self::launch).
    pub fn table(&mut self, device: &Device, shape: [usize; 2]) -> Result<Tensor> {
        let shape = Shape::from(shape);
        let with_room = self.arena.take().filter(|arena| self.taken + shape.len() <= arena.len());
        let arena = match with_room {
            Some(arena) => arena,
            None => {
                self.launch()?;
                let [least, most] = ARENA_BYTES;
                let spare = match device {
                    Device::Gpu(context) => context.spare_bytes() as usize,
                    Device::Cpu(_) => most,
                };
                let usual = (spare / 4).clamp(least, most) / 4; // numbers
                device.empty(OP, [usual.max(shape.len())])?
            }
        };
        let table = arena.view(self.taken, shape);
        self.taken += shape.len().next_multiple_of(ALIGNMENT);
        self.arena = Some(arena);
        Ok(table)
    }

    /// As [`sum_chunks`], but made when a launch is full, or by [`launch`](Self::launch).
    ///
    /// # Errors
    /// As [`sum_chunks`].
    pub fn add(&mut self, table: &Tensor, gradients: &[&Tensor]) -> Result<()> {
        let (_, width) = table.shape().rows(OP)?;
        let mut first = 0;
        for gradient in gradients {
            if first + gradient.len() > width {
                let message =
                    format!("a table {} has too few columns for a gradient {}", table.shape(), gradient.shape());
                return Err(Error::shape(OP, message));
            }
            let next = [table, *gradient];
            let spans = self.spans_with(next);
            if spans.is_none() && !self.waiting.is_empty() {
                self.launch()?;
            }
            self.spans = Some(spans.unwrap_or_else(|| next.map(Tensor::detach)));
            self.waiting.push(Waiting { table: table.detach(), first, gradient: gradient.detach() });
            first += gradient.len();
        }
        Ok(())
    }

    /// The spans with one more sum, if one launch can make it too: its table must lie in the same buffer as the others, and
    /// so must its gradient, each within one binding.
    fn spans_with(&self, [table, gradient]: [&Tensor; 2]) -> Option<[Tensor; 2]> {
        let Device::Gpu(context) = table.device() else { return None };
        let [tables, gradients] = self.spans.as_ref().filter(|_| self.waiting.len() < PARTS)?;
        let fits = |span: &Tensor| span.bytes() <= context.max_binding_bytes();
        let tables = Tensor::span(&[tables, table]).filter(fits)?;
        Some([tables, Tensor::span(&[gradients, gradient]).filter(fits)?])
    }

    /// Makes all sums that wait.
    ///
    /// # Errors
    /// As the launch.
    pub fn launch(&mut self) -> Result<()> {
        // What is launched later may use the memory again: launches run in their order.
        (self.arena, self.taken) = (None, 0);
        let waiting = std::mem::take(&mut self.waiting);
        let Some([tables, sums]) = self.spans.take() else { return Ok(()) };
        let mut parts = [Part { first_group: u32::MAX, ..bytemuck::Zeroable::zeroed() }; PARTS];
        let mut groups = 0;
        for (part, Waiting { table, first, gradient }) in parts.iter_mut().zip(&waiting) {
            let (chunks, width) = table.shape().rows(OP)?;
            let columns = side_by_side(gradient.len(), chunks);
            *part = Part {
                first_group: groups as u32,
                source: (table.distance(&tables) + first) as u32,
                width: width as u32,
                count: gradient.len() as u32,
                chunks: chunks as u32,
                shift: columns.ilog2(),
                to: gradient.distance(&sums) as u32,
                unused: 0,
            };
            groups += gradient.len().div_ceil(COLUMNS * columns);
        }
        match sums.device() {
            Device::Gpu(_) => SHADER.entry("sums").params(&parts).reads([&tables]).writes([&sums]).groups(groups)?,
            Device::Cpu(_) => {
                for part in &parts[..waiting.len()] {
                    plain::sums(part, &tables.f32s(), &mut sums.f32s_mut());
                }
            }
        }
        Ok(())
    }
}

/// Columns that stand side by side in a workgroup, for a part of `count` columns. The lanes below share the chunks: about
/// four chunks each, but no more lanes than leave 8 columns (32 bytes, a sector) or all there are.
fn side_by_side(count: usize, chunks: usize) -> usize {
    let lanes = (chunks / 4).next_power_of_two();
    let least = count.div_ceil(COLUMNS).next_power_of_two().min(8);
    (WORKGROUP / lanes.min(WORKGROUP)).max(least)
}
