//! Max pooling, 2x2 windows with stride 2.
//!
//! # Forward
//! `y[n,oy,ox,c] = max of x[n,2oy+ky,2ox+kx,c]` for ky, kx in {0, 1}; an odd last row or column is dropped.
//!
//! # Backward
//! `gx[n,iy,ix,c] = gy` of its window if (iy, ix) won there, else 0. The winner (0..3) is kept, so the gradient
//! gathers: no atomics, the same bits in every run. Ties go to the first in row order, as in PyTorch.
//!
//! # Data flow
//! ```text
//! x, one channel      y          winner        gy        gx
//!  1 4 | 2 2          4 2         1 0          5 7       0 5 | 7 0
//!  3 0 | 1 0    -->                      -->             0 0 | 0 0
//! -----+-----                                           -----+-----
//!  0 9 | 6 8          9 8         1 1          3 2       0 3 | 0 2
//!  5 5 | 6 7                                             0 0 | 0 0
//! ```
//!
//! One invocation computes one element of its output.
//!
//! Shapes: x `[N, H, W, C]` -> y `[N, H/2, W/2, C]` (rounded down).
//!
//! Versions: one (an element per invocation).
//!
//! An x that is the result of a [`batch_norm`](super::batch_norm()) and that nobody has asked for yet is computed in the same
//! launch (`max_pool2d_normed`), if its rows and columns are even and its channels divide by 4: the skip connection of a
//! U-Net and what goes on down come from one pass. The gradient's kernel then also sums up what that of the batch norm begins
//! with.
//!
//! # Files
//! - [`shaders/max_pool2d.wgsl`](../../../../../shaders/max_pool2d.wgsl), below
//! - [`src/ops/max_pool2d.rs`](../../../src/shadegrad/ops/max_pool2d.rs.html)
//! - [`src/cpu/max_pool2d.rs`](../../../src/shadegrad/cpu/max_pool2d.rs.html)
//! - [`kernels-tests/ops/max_pool2d.rs`](../../../../../kernels-tests/ops/max_pool2d.rs)
//! - [`bench/ops/max_pool2d.rs`](../../../../../bench/ops/max_pool2d.rs)
//!
//! <details><summary>shaders/max_pool2d.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/max_pool2d.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/max_pool2d_normed.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/max_pool2d_normed.wgsl")]
//! ```
//! </details>

use std::ops::Range;
use std::sync::Arc;

use super::plan::Plan;
use crate::autograd::{Backward, OnReading, Wanted, record};
use crate::cpu::max_pool2d::{self as plain, MaxPool2dNormedParams, MaxPool2dParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, WORKGROUP};
use crate::tensor::{Device, Summed, Tensor};
use crate::{Error, Result};

const OP: &str = "max_pool2d";
pub(super) const SHADER: Shader = shader!("max_pool2d");
/// The same of an x that it normalises, and writes, in passing.
pub(super) const NORMED: Shader = shader!("max_pool2d_normed");
pub(super) const PLAN: Plan = Plan { op: OP, rules: &[], run: |on| max_pool2d(&on.x()?).map(Some) };

/// The largest value of each 2x2 window; the first in row order wins a tie and gets the gradient, as in PyTorch.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let x = shadegrad::Device::cpu().tensor("x", [1, 2, 2, 1], &[1.0, 4.0, 3.0, 2.0])?;
/// assert_eq!(shadegrad::ops::max_pool2d(&x)?.to_vec()?, [4.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if x is no image batch of at least 2x2 pixels.
pub fn max_pool2d(x: &Tensor) -> Result<Tensor> {
    observed(OP, x.device(), |on| forward(&on.read(x)?))
}

fn forward(x: &Tensor) -> Result<Tensor> {
    let [n, h, w, c] = x.shape().nhwc(OP)?;
    if h < 2 || w < 2 {
        return Err(Error::shape(OP, format!("needs at least 2x2 pixels, got {}", x.shape())));
    }
    let params = MaxPool2dParams {
        batch: n as u32,
        in_h: h as u32,
        in_w: w as u32,
        out_h: (h / 2) as u32,
        out_w: (w / 2) as u32,
        channels: c as u32,
        accumulate: 0,
    };
    let y = x.new_empty(OP, [n, h / 2, w / 2, c])?;
    let norm = Norm::pending(x);
    // Those of a vector of channels share a word where the pooling normalises.
    let words = if norm.is_some() { c / 4 } else { c };
    let winner = x.device().empty_u32(OP, y.shape().with_last(words))?;
    match (x.device(), &norm) {
        (Device::Gpu(_), Some(norm)) => x.fill(&norm.forward([&y, &winner])?),
        (Device::Gpu(_), None) => {
            for images in x.device().image_ranges(OP, &[x, &y, &winner])? {
                let (x, y, winner) = (x.images(&images), y.images(&images), winner.images(&images));
                let elements = y.len();
                SHADER.entry("forward").params(&of(&params, &images)).reads([x]).writes([y, winner]).over(elements)?;
            }
        }
        (Device::Cpu(_), _) => plain::forward(&params, &x.f32s(), &mut y.f32s_mut(), &mut winner.u32s_mut()),
    }
    record(y, &[Some(x)], || MaxPool2dBackward { winner, params, norm })
}

/// Vectors of channels that a workgroup of the gradient takes side by side, at most: 128 bytes.
const COLUMNS: usize = 8;

/// Windows that an invocation of the gradient sums up.
const WINDOWS: usize = 8;

/// The batch norm that x is the result of, if nobody has computed that yet.
#[derive(Debug)]
struct Norm {
    x: Tensor,
    table: Tensor,
    params: MaxPool2dNormedParams,
}

impl Norm {
    /// None where the shape is not for it.
    fn pending(v: &Tensor) -> Option<Self> {
        let OnReading::Normed { x, table, floor } = v.on_reading()? else { return None };
        let [_, h, w, c] = v.shape().nhwc(OP).ok()?;
        let columns = (c / 4).next_power_of_two().min(COLUMNS);
        let params = MaxPool2dNormedParams {
            windows: 0,
            out_w: (w / 2) as u32,
            channels: c as u32,
            floor,
            accumulate: 0,
            chunk: (WINDOWS * WORKGROUP / columns) as u32,
            chunks: 0,
            first_chunk: 0,
            columns: columns as u32,
        };
        let fits = h.is_multiple_of(2) && w.is_multiple_of(2) && c.is_multiple_of(4);
        fits.then_some(Self { x, table, params })
    }

    /// Normalises and pools in one pass; returns what is normalised.
    fn forward(&self, [y, winner]: [&Tensor; 2]) -> Result<Tensor> {
        let Self { x, table, .. } = self;
        let v = x.new_empty("batch_norm", x.shape())?;
        for images in x.device().image_ranges(OP, &[x, &v, y, winner])? {
            let [x, v, y, winner] = [x, &v, y, winner].map(|tensor| tensor.images(&images));
            let params = self.of(&y);
            let launch = NORMED.entry("forward").params(&params).reads([&x, table]);
            launch.writes([&v, &y, &winner]).over(y.len() / 4)?;
        }
        Ok(v)
    }

    /// The gradient of what is normalised, and what that of the batch norm begins with.
    fn backward(&self, gy: &Tensor, winner: &Tensor, gv: &Tensor, accumulate: bool) -> Result<Arc<Summed>> {
        let Self { x, table, .. } = self;
        let ranges = x.device().image_ranges(OP, &[x, gy, winner, gv])?;
        let chunks_of = |p: &MaxPool2dNormedParams| p.windows.div_ceil(p.chunk);
        let chunks = ranges.iter().map(|images| chunks_of(&self.of(&gy.images(images)))).sum();
        let partials = x.device().empty(OP, [2, x.shape().last(), chunks as usize])?;
        let mut first_chunk = 0;
        for images in ranges {
            let [x, gy, winner, gv] = [x, gy, winner, gv].map(|tensor| tensor.images(&images));
            let params = MaxPool2dNormedParams { accumulate: accumulate.into(), chunks, first_chunk, ..self.of(&gy) };
            let blocks = (params.channels / 4).div_ceil(params.columns);
            let launch = NORMED.entry("backward_input").params(&params).reads([&x, table, &gy, &winner]);
            launch.writes([&gv, &partials]).groups((chunks_of(&params) * blocks) as usize)?;
            first_chunk += chunks_of(&params);
        }
        Ok(Arc::new(Summed::Gradient { partials, table: table.detach() }))
    }

    /// The sizes of a launch for some images of y or of its gradient.
    fn of(&self, y: &Tensor) -> MaxPool2dNormedParams {
        MaxPool2dNormedParams { windows: (y.len() / y.shape().last()) as u32, ..self.params }
    }
}

/// The same sizes for a range of the images.
fn of(params: &MaxPool2dParams, images: &Range<usize>) -> MaxPool2dParams {
    MaxPool2dParams { batch: images.len() as u32, ..*params }
}

/// What the gradient needs: where each window's winner was.
#[derive(Debug)]
struct MaxPool2dBackward {
    winner: Tensor,
    params: MaxPool2dParams,
    norm: Option<Norm>,
}

impl Backward for MaxPool2dBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let p = &self.params;
        let shape = [p.batch, p.in_h, p.in_w, p.channels].map(|extent| extent as usize);
        let (mut gx, accumulate) = wanted.place_to_add(OP, 0, shape.into())?;
        match (gy.device(), &self.norm) {
            (Device::Gpu(_), Some(norm)) => {
                gx.summed = Some(norm.backward(gy, &self.winner, &gx, accumulate)?);
            }
            (Device::Gpu(_), None) => {
                for images in gy.device().image_ranges(OP, &[gy, &self.winner, &gx])? {
                    let (gy, winner, gx) = (gy.images(&images), self.winner.images(&images), gx.images(&images));
                    let elements = gx.len();
                    let p = MaxPool2dParams { accumulate: accumulate.into(), ..of(p, &images) };
                    SHADER.entry("backward_input").params(&p).reads([gy, winner]).writes([gx]).over(elements)?;
                }
            }
            (Device::Cpu(_), _) => plain::backward_input(p, &gy.f32s(), &self.winner.u32s(), &mut gx.f32s_mut()),
        }
        Ok(vec![Some(gx)])
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        vec![&mut self.winner]
    }
}
