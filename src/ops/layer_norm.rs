//! Layer normalisation over the last axis.
//!
//! # Forward
//! `y = (x - mean) * rstd * weight + bias`;  `rstd = 1 / sqrt(variance + eps)`. Mean and (biased) variance belong to a
//! row: to one pixel, or token.
//!
//! # Backward
//! `gx = rstd * (g - mean(g) - xhat * mean(g * xhat))` with `g = gy * weight` and `xhat = (x - mean) * rstd`, means
//! over a row.  `gw[c] = sum over rows of gy * xhat`;  `gb[c] = sum over rows of gy`.
//!
//! # Picture of the tile
//! ```text
//!       columns
//!     +----+----+----+----+
//!     | v4 | v4 | v4 | v4 |   row 0: vectors column, column + columns, .. of row 0 of x
//!     +----+----+----+----+
//!     | v4 | v4 | v4 | v4 |   row 1: of row 1 of x
//!     +----+----+----+----+   ..     then the columns are added up through workgroup memory
//! ```
//!
//! In v2 `columns` invocations share a row, a workgroup takes 64 / columns rows. For gw and gb the rows of the table
//! walk down a chunk of rows and are added up; a second launch adds the chunks.
//!
//! Shapes: x, y `[.., C]`, weight and bias `[C]`.
//!
//! Versions: v1 (a row per invocation), v2 (invocations share a row).
//!
//! Launches: 1 forward; backward 1 for x, 1 for weight and bias, and a share in those of
//! [`sum_chunks`](mod@super::sum_chunks).
//!
//! # Files
//! - [`shaders/layer_norm.wgsl`](../../../../../shaders/layer_norm.wgsl), below
//! - [`src/ops/layer_norm.rs`](../../../src/shadegrad/ops/layer_norm.rs.html)
//! - [`src/cpu/layer_norm.rs`](../../../src/shadegrad/cpu/layer_norm.rs.html)
//! - [`kernels-tests/ops/layer_norm.rs`](../../../../../kernels-tests/ops/layer_norm.rs)
//! - [`bench/ops/layer_norm.rs`](../../../../../bench/ops/layer_norm.rs)
//!
//! <details><summary>shaders/layer_norm.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/layer_norm.wgsl")]
//! ```
//! </details>

use std::ops::Range;

use super::plan::Plan;
use super::{Version, choice};
use crate::autograd::{Backward, Setting, Wanted, record};
use crate::cpu::layer_norm::{self as plain, LayerNormParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes};
use crate::tensor::{Device, Shape, Tensor};
use crate::{Error, Result};

const OP: &str = "layer_norm";
pub(super) const SHADER: Shader = shader!("layer_norm");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[("_v2", "the channels divide by 4")],
    run: |on| {
        let c = on.sizes.shape.last();
        layer_norm(&on.x()?, &on.input([c])?, &on.input([c])?, 1e-5).map(Some)
    },
};

/// Normalises each row of the last axis to mean 0 and variance 1, then scales and shifts it by channel.
///
/// x `[.., C]`, weight and bias `[C]`; eps is 1e-5 in PyTorch.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let x = device.tensor("x", [1, 2], &[1.0, 3.0])?;
/// let (one, zero) = (device.tensor("w", [2], &[1.0, 1.0])?, device.zeros("b", [2])?);
/// assert_eq!(shadegrad::ops::layer_norm(&x, &one, &zero, 0.0)?.to_vec()?, [-1.0, 1.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if x is empty or if weight or bias is not `[C]`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let version = select(x);
    observed(OP, x.device(), |on| forward(&on.read(x)?, &on.read(weight)?, &on.read(bias)?, eps, version))
}

fn select(x: &Tensor) -> Version {
    choice::version(x.device(), OP, || Sizes::of(x.shape()), usual(x.shape().last()))
}

/// Four channels at a time wherever they divide.
fn usual(channels: usize) -> Version {
    if channels.is_multiple_of(4) { Version::V2 } else { Version::V1 }
}

/// As [`layer_norm`], with a given version of the kernels (also for the gradient). The CPU has only one.
///
/// # Errors
/// As [`layer_norm`]; [`Error::Shape`] for [`Version::V2`] if the channels do not divide by 4.
pub fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32, version: Version) -> Result<Tensor> {
    let (rows, c) = x.shape().rows(OP)?;
    for (name, tensor) in [("weight", weight), ("bias", bias)] {
        if tensor.shape().dims() != [c] {
            return Err(Error::shape(OP, format!("{name} must be [{c}] for x {}, got {}", x.shape(), tensor.shape())));
        }
    }
    if version == Version::V2 && !c.is_multiple_of(4) {
        return Err(Error::shape(OP, format!("v2 needs channels that divide by 4, got x {}", x.shape())));
    }
    let params = sizes(rows, c, eps, version);
    // As a table, so that a tensor larger than one binding is cut between any two rows.
    let table = x.reshape([rows, c])?;
    let y = x.device().empty(OP, x.shape())?;
    let out = y.reshape([rows, c])?;
    let statistics = x.device().empty(OP, [rows, 2])?;
    match x.device() {
        Device::Gpu(_) => {
            let entry = entry(version, "forward_v1", "forward_v2");
            for range in x.device().image_ranges(OP, &[&table, &out, &statistics])? {
                let (x, y, statistics) = (table.images(&range), out.images(&range), statistics.images(&range));
                let p = LayerNormParams { rows: range.len() as u32, ..params };
                SHADER
                    .entry(entry)
                    .params(&p)
                    .reads([&x, weight, bias])
                    .writes([&y, &statistics])
                    .groups(row_groups(&p, version))?;
            }
        }
        Device::Cpu(_) => plain::forward(
            &params,
            &x.f32s(),
            &weight.f32s(),
            &bias.f32s(),
            &mut y.f32s_mut(),
            &mut statistics.f32s_mut(),
        ),
    }
    record(y, &[Some(x), Some(weight), Some(bias)], || LayerNormBackward {
        x: table,
        shape: x.shape(),
        weight: weight.detach(),
        statistics,
        params,
        version,
    })
}

fn entry(version: Version, v1: &'static str, v2: &'static str) -> &'static str {
    match version {
        Version::V1 => v1,
        Version::V2 => v2,
    }
}

/// Sizes for all rows. About 128 chunks of rows keep a GPU busy in `backward_sums`, where blocks of channels stand
/// side by side; no chain of additions is longer than 64 terms.
fn sizes(rows: usize, channels: usize, eps: f32, version: Version) -> LayerNormParams {
    let (columns, height) = match version {
        Version::V1 => (1, 1),
        Version::V2 => {
            let columns = (channels / 4).next_power_of_two().min(8); // 128 bytes side by side
            (columns, 64 / columns)
        }
    };
    let chunk = (rows / 128).clamp(4 * height, 64 * height);
    LayerNormParams {
        rows: rows as u32,
        channels: channels as u32,
        chunk: chunk as u32,
        first_chunk: 0,
        columns: columns as u32,
        accumulate: 0,
        eps,
    }
}

/// Workgroups of the kernels that compute whole rows.
fn row_groups(p: &LayerNormParams, version: Version) -> usize {
    let workgroup = crate::gpu::WORKGROUP;
    match version {
        Version::V1 => (p.rows as usize).div_ceil(workgroup),
        Version::V2 => (p.rows as usize).div_ceil(workgroup / p.columns as usize),
    }
}

/// Workgroups of the kernels that sum over chunks of rows.
fn chunk_groups(p: &LayerNormParams, version: Version) -> usize {
    let chunks = p.rows.div_ceil(p.chunk) as usize;
    match version {
        Version::V1 => (chunks * p.channels as usize).div_ceil(crate::gpu::WORKGROUP),
        Version::V2 => chunks * (p.channels / 4).div_ceil(p.columns) as usize,
    }
}

/// What the gradient needs: x as a table, mean and rstd of each row.
#[derive(Debug)]
struct LayerNormBackward {
    x: Tensor,
    shape: Shape,
    weight: Tensor,
    statistics: Tensor,
    params: LayerNormParams,
    version: Version,
}

impl LayerNormBackward {
    fn input(&self, gy: &Tensor, gx: &Tensor, accumulate: bool) -> Result<()> {
        let Self { x, weight, statistics, params, version, .. } = self;
        match gy.device() {
            Device::Gpu(_) => {
                let entry = entry(*version, "backward_input_v1", "backward_input_v2");
                for range in gy.device().image_ranges(OP, &[x, gy, statistics, gx])? {
                    let (x, gy) = (x.images(&range), gy.images(&range));
                    let (statistics, gx) = (statistics.images(&range), gx.images(&range));
                    let (rows, accumulate) = (range.len() as u32, accumulate.into());
                    let p = LayerNormParams { rows, accumulate, ..*params };
                    SHADER
                        .entry(entry)
                        .params(&p)
                        .reads([&x, &gy, &statistics, weight])
                        .writes([&gx])
                        .groups(row_groups(&p, *version))?;
                }
            }
            Device::Cpu(_) => plain::backward_input(
                params,
                &x.f32s(),
                &gy.f32s(),
                &statistics.f32s(),
                &weight.f32s(),
                &mut gx.f32s_mut(),
            ),
        }
        Ok(())
    }

    fn sums(&self, gy: &Tensor, gw: &Tensor, gb: &Tensor, wanted: &Wanted<'_>) -> Result<()> {
        let Self { x, statistics, params, version, .. } = self;
        match gy.device() {
            Device::Gpu(_) => {
                let channels = params.channels as usize;
                let ranges = gy.device().image_ranges(OP, &[x, gy, statistics])?;
                // Each range begins a chunk of its own.
                let chunks_of = |range: &Range<usize>| (range.len() as u32).div_ceil(params.chunk);
                let chunks: u32 = ranges.iter().map(chunks_of).sum();
                let partials = wanted.chunk_table(OP, [chunks as usize, 2 * channels], &[gw, gb])?;
                let entry = entry(*version, "backward_sums_v1", "backward_sums_v2");
                let mut first_chunk = 0;
                for range in &ranges {
                    let (x, gy, statistics) = (x.images(range), gy.images(range), statistics.images(range));
                    let p = LayerNormParams { rows: range.len() as u32, first_chunk, ..*params };
                    SHADER
                        .entry(entry)
                        .params(&p)
                        .reads([&x, &gy, &statistics])
                        .writes([&partials])
                        .groups(chunk_groups(&p, *version))?;
                    first_chunk += chunks_of(range);
                }
                wanted.sum_chunks(&partials, &[gw, gb])
            }
            Device::Cpu(_) => {
                plain::backward_sums(
                    params,
                    &x.f32s(),
                    &gy.f32s(),
                    &statistics.f32s(),
                    &mut gw.f32s_mut(),
                    &mut gb.f32s_mut(),
                );
                Ok(())
            }
        }
    }
}

impl Backward for LayerNormBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let gy = gy.reshape(self.x.shape())?;
        let gx = if wanted.needs(0) {
            let (gx, accumulate) = wanted.place_to_add(OP, 0, self.shape)?;
            self.input(&gy, &gx.reshape(self.x.shape())?, accumulate)?;
            Some(gx)
        } else {
            None
        };
        if !wanted.needs(1) && !wanted.needs(2) {
            return Ok(vec![gx, None, None]);
        }
        // One kernel computes both; the one that nobody wants goes to a place of its own.
        let shape = Shape::from([self.params.channels as usize]);
        let mut place = |index: usize| {
            if wanted.needs(index) { wanted.empty(OP, index, shape) } else { gy.device().empty(OP, shape) }
        };
        let (gw, gb) = (place(1)?, place(2)?);
        self.sums(&gy, &gw, &gb, wanted)?;
        Ok(vec![gx, wanted.needs(1).then_some(gw), wanted.needs(2).then_some(gb)])
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        vec![&mut self.x, &mut self.weight, &mut self.statistics]
    }

    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        vec![("eps", Setting::Number(self.params.eps.into()))]
    }
}
