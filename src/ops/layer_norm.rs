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
//! In v2 `columns` invocations share a row, a workgroup takes 64 / columns rows. In the gradient the rows of the table walk
//! down a chunk of rows, so that one pass over x and gy makes gx and the partial sums of gw and gb.
//!
//! Shapes: x, y `[.., C]`, weight and bias `[C]`.
//!
//! Versions: v1 (a row per invocation), v2 (invocations share a row).
//!
//! Launches: 1 forward; backward 1 (v1: 1 for x, 1 for weight and bias), and a share in those of
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
use super::{Version, choice, filling_invocations};
use crate::autograd::{Backward, Setting, Wanted, record};
use crate::cpu::layer_norm::{self as plain, LayerNormParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes, WORKGROUP};
use crate::tensor::{Device, Shape, Tensor};
use crate::{Error, Result};

const OP: &str = "layer_norm";
pub(super) const SHADER: Shader = shader!("layer_norm");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[("_v2", "the channels divide by 4 and are 2048 at most")],
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

/// Vectors of a row that an invocation keeps, as in the shader.
const VECTORS: usize = 8;

/// Whether the channels divide into vectors, and a workgroup holds those of a row.
pub fn takes_v2(channels: usize) -> bool {
    channels.is_multiple_of(4) && channels <= 4 * VECTORS * WORKGROUP
}

fn usual(channels: usize) -> Version {
    if takes_v2(channels) { Version::V2 } else { Version::V1 }
}

/// As [`layer_norm`], with a given version of the kernels (also for the gradient). The CPU has only one.
///
/// # Errors
/// As [`layer_norm`]; [`Error::Shape`] for [`Version::V2`] with channels that it does not [take](takes_v2).
pub fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32, version: Version) -> Result<Tensor> {
    let (rows, c) = x.shape().rows(OP)?;
    for (name, tensor) in [("weight", weight), ("bias", bias)] {
        if tensor.shape().dims() != [c] {
            return Err(Error::shape(OP, format!("{name} must be [{c}] for x {}, got {}", x.shape(), tensor.shape())));
        }
    }
    if version == Version::V2 && !takes_v2(c) {
        let message = format!("v2 needs channels that divide by 4 and are 2048 at most, got x {}", x.shape());
        return Err(Error::shape(OP, message));
    }
    let params = sizes(x.device(), [rows, c], eps, version);
    // As a table, so that a tensor larger than one binding is cut between any two rows.
    let table = x.reshape([rows, c])?;
    let y = x.new_empty(OP, x.shape())?;
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

/// Sizes for all rows. In the gradient there are enough chunks of rows to fill the device; no chain of additions is longer
/// than 64 terms.
fn sizes(device: &Device, [rows, channels]: [usize; 2], eps: f32, version: Version) -> LayerNormParams {
    let (columns, height) = match version {
        Version::V1 => (1, 1),
        Version::V2 => {
            let quads = channels / 4;
            let least = quads.div_ceil(VECTORS).next_power_of_two();
            let columns = quads.next_power_of_two().min(8).max(least); // 8: 128 bytes side by side
            (columns, WORKGROUP / columns)
        }
    };
    let chunks = match device {
        Device::Gpu(context) => filling_invocations(context) / WORKGROUP,
        Device::Cpu(_) => 1,
    };
    let chunk = rows.div_ceil(chunks).clamp(height.max(4), 64 * height).next_multiple_of(height);
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
    match version {
        Version::V1 => (p.rows as usize).div_ceil(WORKGROUP),
        Version::V2 => (p.rows as usize).div_ceil(WORKGROUP / p.columns as usize),
    }
}

/// Chunks of so many rows.
fn chunks(p: &LayerNormParams, rows: usize) -> usize {
    rows.div_ceil(p.chunk as usize)
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
    /// gx alone: version 1, and the CPU.
    fn input(&self, gy: &Tensor, gx: &Tensor, accumulate: bool) -> Result<()> {
        let Self { x, weight, statistics, params, version, .. } = self;
        match gy.device() {
            Device::Gpu(_) => {
                for range in gy.device().image_ranges(OP, &[x, gy, statistics, gx])? {
                    let (x, gy) = (x.images(&range), gy.images(&range));
                    let (statistics, gx) = (statistics.images(&range), gx.images(&range));
                    let (rows, accumulate) = (range.len() as u32, accumulate.into());
                    let p = LayerNormParams { rows, accumulate, ..*params };
                    SHADER
                        .entry("backward_input_v1")
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

    /// gw and gb alone: version 1, and the CPU.
    fn sums(&self, gy: &Tensor, [gw, gb]: [&Tensor; 2], wanted: &Wanted<'_>) -> Result<()> {
        let Self { x, statistics, params, .. } = self;
        match gy.device() {
            Device::Gpu(_) => {
                let ranges = gy.device().image_ranges(OP, &[x, gy, statistics])?;
                self.over_chunks(&ranges, [gw, gb], wanted, |range, p, partials| {
                    SHADER
                        .entry("backward_sums_v1")
                        .params(p)
                        .reads([&x.images(range), &gy.images(range), &statistics.images(range)])
                        .writes([partials])
                        .over(chunks(p, range.len()) * p.channels as usize)
                })
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

    /// All three in one pass: version 2.
    fn all(
        &self,
        gy: &Tensor,
        gx: &Tensor,
        accumulate: bool,
        gradients: [&Tensor; 2],
        wanted: &Wanted<'_>,
    ) -> Result<()> {
        let Self { x, weight, statistics, .. } = self;
        let ranges = gy.device().image_ranges(OP, &[x, gy, statistics, gx])?;
        self.over_chunks(&ranges, gradients, wanted, |range, p, partials| {
            SHADER
                .entry("backward_v2")
                .params(&LayerNormParams { accumulate: accumulate.into(), ..*p })
                .reads([&x.images(range), &gy.images(range), &statistics.images(range), weight])
                .writes([&gx.images(range), partials])
                .groups(chunks(p, range.len()))
        })
    }

    /// Calls `launch` for each range of rows, with its sizes and the table of partial sums, which becomes gw and gb.
    fn over_chunks(
        &self,
        ranges: &[Range<usize>],
        [gw, gb]: [&Tensor; 2],
        wanted: &Wanted<'_>,
        launch: impl Fn(&Range<usize>, &LayerNormParams, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let params = &self.params;
        // Each range begins a chunk of its own.
        let total: usize = ranges.iter().map(|range| chunks(params, range.len())).sum();
        let partials = wanted.chunk_table(OP, [total, 2 * params.channels as usize], &[gw, gb])?;
        let mut first_chunk = 0;
        for range in ranges {
            let p = LayerNormParams { rows: range.len() as u32, first_chunk: first_chunk as u32, ..*params };
            launch(range, &p, &partials)?;
            first_chunk += chunks(params, range.len());
        }
        wanted.sum_chunks(&partials, &[gw, gb])
    }
}

impl Backward for LayerNormBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let gy = gy.reshape(self.x.shape())?;
        let device = gy.device();
        let one_pass = self.version == Version::V2 && matches!(device, Device::Gpu(_));
        // One kernel computes several; what nobody wants goes to a place of its own.
        let (gx, accumulate) = match wanted.needs(0) {
            true => wanted.place_to_add(OP, 0, self.shape)?,
            false => (gy.new_empty(OP, self.shape)?, false),
        };
        let mut place = |index: usize| {
            let shape = Shape::from([self.params.channels as usize]);
            if wanted.needs(index) { wanted.empty(OP, index, shape) } else { device.empty(OP, shape) }
        };
        let (gw, gb) = (place(1)?, place(2)?);
        let rows = gx.reshape(self.x.shape())?;
        if one_pass {
            self.all(&gy, &rows, accumulate, [&gw, &gb], wanted)?;
        } else {
            if wanted.needs(0) {
                self.input(&gy, &rows, accumulate)?;
            }
            if wanted.needs(1) || wanted.needs(2) {
                self.sums(&gy, [&gw, &gb], wanted)?;
            }
        }
        let of = |index: usize, gradient: Tensor| wanted.needs(index).then_some(gradient);
        Ok(vec![of(0, gx), of(1, gw), of(2, gb)])
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
