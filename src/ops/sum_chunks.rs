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
//! conv2d backward_weight   --> table [chunks, weights + biases] --+
//! linear backward_weight   --> table [chunks, weights + biases] --+--> sums --> the tensor of all gradients
//! layer_norm backward_sums --> table [chunks, weights + biases] --+
//! ```
//!
//! A gradient that only the optimizer will read can wait: [`ChunkSums`] collects tables until a launch is full. That
//! saves a launch, a few microseconds of an idle GPU, for most layers.
//!
//! Shapes: table `[chunks, width]`; gradients one after the other in its columns.
//!
//! Versions: one.
//!
//! Launches: 1 for up to six tables.
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
use crate::tensor::{Device, Tensor};
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

/// Tables of one launch; with the gradients they are the storage buffers that WebGPU promises.
const TABLES: usize = 6;
/// Parts of one launch, as in the shader.
const PARTS: usize = 12;

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

/// Sums that are still to be made.
#[derive(Debug, Default)]
pub struct ChunkSums {
    waiting: Vec<Waiting>,
}

/// Columns of a table, and the gradient that is their sum.
#[derive(Debug)]
struct Waiting {
    table: Tensor,
    first: usize,
    gradient: Tensor,
}

impl ChunkSums {
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
            let next = Waiting { table: table.detach(), first, gradient: gradient.detach() };
            if !self.has_room(&next) {
                self.launch()?;
            }
            self.waiting.push(next);
            first += gradient.len();
        }
        Ok(())
    }

    /// Whether one launch can make this sum too: its gradient must lie in the same buffer as the others, and all of them
    /// within one binding.
    fn has_room(&self, next: &Waiting) -> bool {
        let Some(first) = self.waiting.first() else { return true };
        let places: Vec<&Tensor> = self.waiting.iter().chain([next]).map(|waiting| &waiting.gradient).collect();
        let fits = match (first.table.device(), Tensor::span(&places)) {
            (Device::Gpu(context), Some(span)) => span.bytes() <= context.max_binding_bytes(),
            (Device::Cpu(_), Some(_)) | (_, None) => false,
        };
        let known = self.waiting.iter().any(|waiting| waiting.table.same_place(&next.table));
        fits && self.waiting.len() < PARTS && (known || self.tables().len() < TABLES)
    }

    /// Each table once.
    fn tables(&self) -> Vec<&Tensor> {
        let mut tables: Vec<&Tensor> = Vec::new();
        for Waiting { table, .. } in &self.waiting {
            if !tables.iter().any(|known| known.same_place(table)) {
                tables.push(table);
            }
        }
        tables
    }

    /// Makes all sums that wait.
    ///
    /// # Errors
    /// As the launch.
    pub fn launch(&mut self) -> Result<()> {
        let places: Vec<&Tensor> = self.waiting.iter().map(|waiting| &waiting.gradient).collect();
        let Some(span) = Tensor::span(&places) else { return Ok(()) };
        let tables = self.tables();
        let mut parts = [Part { first_group: u32::MAX, ..bytemuck::Zeroable::zeroed() }; PARTS];
        let mut groups = 0;
        for (part, Waiting { table, first, gradient }) in parts.iter_mut().zip(&self.waiting) {
            let (chunks, width) = table.shape().rows(OP)?;
            let lanes = (chunks / 4).next_power_of_two().min(8); // 8 columns of 4 bytes are a whole sector
            *part = Part {
                first_group: groups as u32,
                source: tables.iter().position(|known| known.same_place(table)).unwrap_or(0) as u32,
                width: width as u32,
                first: *first as u32,
                count: gradient.len() as u32,
                chunks: chunks as u32,
                lanes: lanes as u32,
                to: ((gradient.byte_offset() - span.byte_offset()) / 4) as u32,
            };
            groups += gradient.len().div_ceil(WORKGROUP / lanes);
        }
        match span.device() {
            Device::Gpu(_) => {
                // Bindings that no part reads still need a tensor; one number of it, so that no bytes are counted for them.
                let unread = tables[0].view(0, [1].into());
                let bound = (0..TABLES).map(|index| tables.get(index).copied().unwrap_or(&unread));
                SHADER.entry("sums").params(&parts).reads(bound).writes([&span]).groups(groups)?;
            }
            Device::Cpu(_) => {
                for (part, Waiting { table, .. }) in parts.iter().zip(&self.waiting) {
                    plain::sums(part, &table.f32s(), &mut span.f32s_mut());
                }
            }
        }
        self.waiting.clear();
        Ok(())
    }
}
