//! Bilinear upsampling by 2.
//!
//! # Forward
//! `u[n,oy,ox,c] = sum over the four x around the position of (oy,ox), weighted by their closeness`. The position of
//! output o is `max(2o - 1, 0) / 4` (half pixel: the pixels' areas match; UNeXt) or `o * (in - 1) / (out - 1)` (corners
//! on corners; ResUNet). `y = u`, or `max(u, 0)`, or either of them `+ skip`: the stages of UNeXt's decoder end in
//! `relu(upsample(x)) + skip`, which as one op reads and writes the large tensor once.
//!
//! # Backward
//! `gx[n,iy,ix,c] = sum over the (oy,ox) that read (iy,ix) of gu[n,oy,ox,c]` with the same weights: a gather, no
//! atomics. `gu = gy`, but 0 where a ReLU was shut (`u <= 0`; u is computed again from x, a quarter of its size). The
//! gradient of skip is gy itself.
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
//! Shapes: x `[N, H, W, C]` -> y and skip `[N, 2H, 2W, C]`.
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
    let settings = UpsampleSettings { align_corners, relu: false };
    observed(OP, x.device(), |on| forward(&on.read(x)?, None, settings, select(x)))
}

/// `relu(upsample_bilinear(x)) + skip`, or without the sum, in one op.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let x = device.tensor("x", [1, 1, 2, 1], &[-4.0, 4.0])?;
/// let skip = device.tensor("skip", [1, 2, 4, 1], &[1.0; 8])?;
/// let y = shadegrad::ops::upsample_bilinear_relu(&x, false, Some(&skip))?;
/// assert_eq!(y.to_vec()?, [1.0, 1.0, 3.0, 5.0, 1.0, 1.0, 3.0, 5.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if x is no image batch, or skip does not have the shape of the result.
pub fn upsample_bilinear_relu(x: &Tensor, align_corners: bool, skip: Option<&Tensor>) -> Result<Tensor> {
    x.shape().nhwc(OP)?;
    let settings = UpsampleSettings { align_corners, relu: true };
    observed(OP, x.device(), |on| forward(&on.read(x)?, on.maybe(skip)?.as_ref(), settings, select(x)))
}

/// How to upsample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpsampleSettings {
    /// Whether the centres of the corner pixels match, or the areas of the pixels.
    pub align_corners: bool,
    /// Whether a ReLU follows.
    pub relu: bool,
}

fn select(x: &Tensor) -> Version {
    choice::version(x.device(), OP, || Sizes::of(x.shape()), Version::by_fours(x.shape().last()))
}

/// As [`upsample_bilinear_relu`], with the kernel named; its gradient uses the same version.
///
/// # Errors
/// As [`upsample_bilinear_relu`]; [`Error::Shape`] for [`Version::V2`] if the channels do not divide by 4.
pub fn forward(x: &Tensor, skip: Option<&Tensor>, settings: UpsampleSettings, version: Version) -> Result<Tensor> {
    let [n, h, w, c] = x.shape().nhwc(OP)?;
    if version == Version::V2 && Version::by_fours(c) != Version::V2 {
        return Err(Error::shape(OP, format!("v2 needs channels that divide by 4, got {}", x.shape())));
    }
    let params = UpsampleBilinearParams {
        in_h: h as u32,
        in_w: w as u32,
        channels: c as u32,
        align_corners: u32::from(settings.align_corners),
        relu: u32::from(settings.relu),
        has_skip: u32::from(skip.is_some()),
    };
    let y = x.new_empty(OP, [n, 2 * h, 2 * w, c])?;
    if let Some(skip) = skip.filter(|skip| skip.shape() != y.shape()) {
        return Err(Error::shape(OP, format!("skip must be {} for x {}, got {}", y.shape(), x.shape(), skip.shape())));
    }
    match x.device() {
        Device::Gpu(_) => {
            // Without a skip its binding is not read.
            for images in x.device().image_ranges(OP, &[x, skip.unwrap_or(x), &y])? {
                let (x, skip, y) = (x.images(&images), skip.unwrap_or(x).images(&images), y.images(&images));
                let (entry, invocations) = match (version, settings.align_corners) {
                    (Version::V1, _) => ("forward_v1", y.len()),
                    (Version::V2, false) => ("forward_v2", x.len() / 4),
                    (Version::V2, true) => ("forward_corners_v2", y.len() / 4),
                };
                SHADER.entry(entry).params(&params).reads([x, skip]).writes([y]).over(invocations)?;
            }
        }
        Device::Cpu(_) => {
            let skip = skip.map(Tensor::f32s);
            plain::forward(&params, &x.f32s(), skip.as_deref(), &mut y.f32s_mut());
        }
    }
    record(y, &[Some(x), skip], || {
        let x = settings.relu.then(|| x.detach());
        UpsampleBilinearBackward { x, band: 0.0, params, version }
    })
}

/// What the gradient needs: the sizes, and for a ReLU x.
#[derive(Debug)]
struct UpsampleBilinearBackward {
    x: Option<Tensor>,
    /// As in [`plain::backward_input`].
    band: f32,
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
        // The sum hands gy on as it is.
        let gskip = wanted.needs(1).then(|| gy.clone());
        if !wanted.needs(0) {
            return Ok(vec![None, gskip]);
        }
        let gx = wanted.empty(OP, 0, [n, p.in_h as usize, p.in_w as usize, c].into())?;
        let x = self.x.as_ref().unwrap_or(gy); // without a ReLU it is not read
        match gy.device() {
            Device::Gpu(_) => {
                let (entry, lanes) = match (self.version, p.align_corners) {
                    (Version::V1, _) => ("backward_input_v1", 1),
                    (Version::V2, 0) => ("backward_input_v2", 4),
                    (Version::V2, _) => ("backward_input_corners_v2", 4),
                };
                for images in gy.device().image_ranges(OP, &[x, gy, &gx])? {
                    let (x, gy, gx) = (x.images(&images), gy.images(&images), gx.images(&images));
                    let invocations = gx.len() / lanes;
                    SHADER.entry(entry).params(p).reads([x, gy]).writes([gx]).over(invocations)?;
                }
            }
            Device::Cpu(_) => plain::backward_input(p, self.band, &x.f32s(), &gy.f32s(), &mut gx.f32s_mut()),
        }
        Ok(vec![Some(gx), gskip])
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        self.x.iter_mut().collect()
    }

    fn decide_otherwise(&mut self) {
        self.band = 1e-6; // several units in the last place
    }

    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        let UpsampleBilinearParams { align_corners, relu, .. } = self.params;
        vec![("align_corners", Setting::Number(align_corners.into())), ("relu", Setting::Number(relu.into()))]
    }
}
