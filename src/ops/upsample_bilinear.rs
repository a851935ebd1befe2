//! Bilinear upsampling by 2.
//!
//! # Forward
//! `y[n,oy,ox,c] = sum over the four x around the position of (oy,ox), weighted by their closeness`. The position of
//! output o is `max(2o - 1, 0) / 4` (half pixel: the pixels' areas match; UNeXt) or `o * (in - 1) / (out - 1)` (corners
//! on corners; ResUNet).
//!
//! # Backward
//! `gx[n,iy,ix,c] = sum over the (oy,ox) that read (iy,ix) of gy[n,oy,ox,c]` with the same weights: a gather, no
//! atomics.
//!
//! # Picture of the tile
//! ```text
//! half pixel, along one axis:
//!
//! x    i-1       i       i+1           y[2i]   = 1/4 x[i-1] + 3/4 x[i]
//! y  2i-2 2i-1 | 2i 2i+1 | 2i+2        y[2i+1] = 3/4 x[i]   + 1/4 x[i+1]
//!
//! gx[i] = 1/4 gy[2i-1] + 3/4 gy[2i] + 3/4 gy[2i+1] + 1/4 gy[2i+2]
//! ```
//!
//! In v2 one invocation computes four channels of a 2x2 block of y, from 3x3 of x.
//!
//! Shapes: x `[N, H, W, C]` -> y `[N, 2H, 2W, C]`.
//!
//! Versions: v1 (an element per invocation), v2 (four channels: of a 2x2 block by the half-pixel rule, of a pixel with
//! corners on corners).
//!
//! Launches: 1 forward, 1 backward.
//!
//! # Files
//! - [`shaders/upsample_bilinear.wgsl`](../../../../../shaders/upsample_bilinear.wgsl), below
//! - [`src/ops/upsample_bilinear.rs`](../../../src/shadegrad/ops/upsample_bilinear.rs.html)
//! - [`src/cpu/upsample_bilinear.rs`](../../../src/shadegrad/cpu/upsample_bilinear.rs.html)
//! - [`kernels-tests/ops/upsample_bilinear.rs`](../../../../../kernels-tests/ops/upsample_bilinear.rs)
//! - [`bench/ops/upsample_bilinear.rs`](../../../../../bench/ops/upsample_bilinear.rs)
//!
//! <details><summary>shaders/upsample_bilinear.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/upsample_bilinear.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use super::{Version, choice};
use crate::autograd::{Backward, Setting, Wanted, record};
use crate::cpu::upsample_bilinear::{self as plain, UpsampleBilinearParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "upsample_bilinear";
pub(super) const SHADER: Shader = shader!("upsample_bilinear");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[("_v2", "the channels divide by 4")],
    run: |on| upsample_bilinear(&on.x()?, false).map(Some),
};

/// Twice the rows and columns. With `align_corners` the centres of the corner pixels match (ResUNet), without it the
/// areas of the pixels do (UNeXt): PyTorch's `interpolate(scale_factor=2, mode="bilinear")`.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let x = shadegrad::Device::cpu().tensor("x", [1, 1, 2, 1], &[0.0, 4.0])?;
/// let y = shadegrad::ops::upsample_bilinear(&x, false)?;
/// assert_eq!(y.to_vec()?, [0.0, 1.0, 3.0, 4.0, 0.0, 1.0, 3.0, 4.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if x is no image batch.
pub fn upsample_bilinear(x: &Tensor, align_corners: bool) -> Result<Tensor> {
    x.shape().nhwc(OP)?;
    observed(OP, x.device(), |on| forward(&on.read(x)?, align_corners, select(x)))
}

fn select(x: &Tensor) -> Version {
    choice::version(x.device(), OP, || Sizes::of(x.shape()), usual(x.shape().last()))
}

/// Four channels at a time where they divide.
fn usual(channels: usize) -> Version {
    if channels.is_multiple_of(4) { Version::V2 } else { Version::V1 }
}

/// As [`upsample_bilinear`], with the kernel named; its gradient uses the same version.
///
/// # Errors
/// As [`upsample_bilinear`]; [`Error::Shape`] for [`Version::V2`] if the channels do not divide by 4.
pub fn forward(x: &Tensor, align_corners: bool, version: Version) -> Result<Tensor> {
    let [n, h, w, c] = x.shape().nhwc(OP)?;
    if version == Version::V2 && usual(c) != Version::V2 {
        return Err(Error::shape(OP, format!("v2 needs channels that divide by 4, got {}", x.shape())));
    }
    let params = UpsampleBilinearParams {
        in_h: h as u32,
        in_w: w as u32,
        channels: c as u32,
        align_corners: u32::from(align_corners),
    };
    let y = x.device().empty(OP, [n, 2 * h, 2 * w, c])?;
    match x.device() {
        Device::Gpu(_) => {
            for images in x.device().image_ranges(OP, &[x, &y])? {
                let (x, y) = (x.images(&images), y.images(&images));
                let (entry, invocations) = match (version, align_corners) {
                    (Version::V1, _) => ("forward_v1", y.len()),
                    (Version::V2, false) => ("forward_v2", x.len() / 4),
                    (Version::V2, true) => ("forward_corners_v2", y.len() / 4),
                };
                SHADER.entry(entry).params(&params).reads([x]).writes([y]).over(invocations)?;
            }
        }
        Device::Cpu(_) => plain::forward(&params, &x.f32s(), &mut y.f32s_mut()),
    }
    record(y, &[Some(x)], || UpsampleBilinearBackward { params, version })
}

/// What the gradient needs: the sizes.
#[derive(Debug)]
struct UpsampleBilinearBackward {
    params: UpsampleBilinearParams,
    version: Version,
}

impl Backward for UpsampleBilinearBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let p = &self.params;
        let [n, _, _, c] = gy.shape().nhwc(OP)?;
        let gx = wanted.empty(OP, 0, [n, p.in_h as usize, p.in_w as usize, c].into())?;
        match gy.device() {
            Device::Gpu(_) => {
                let (entry, lanes) = match (self.version, p.align_corners) {
                    (Version::V1, _) => ("backward_input_v1", 1),
                    (Version::V2, 0) => ("backward_input_v2", 4),
                    (Version::V2, _) => ("backward_input_corners_v2", 4),
                };
                for images in gy.device().image_ranges(OP, &[gy, &gx])? {
                    let (gy, gx) = (gy.images(&images), gx.images(&images));
                    let invocations = gx.len() / lanes;
                    SHADER.entry(entry).params(p).reads([gy]).writes([gx]).over(invocations)?;
                }
            }
            Device::Cpu(_) => plain::backward_input(p, &gy.f32s(), &mut gx.f32s_mut()),
        }
        Ok(vec![Some(gx)])
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        Vec::new()
    }

    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        vec![("align_corners", Setting::Number(self.params.align_corners.into()))]
    }
}
