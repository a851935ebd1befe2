//! Bilinear upsampling by 2 and a skip connection beside it: what a decoder's stage begins with (ResUNet).
//!
//! # Forward
//! `y[n,oy,ox] = (u[n,oy,ox], skip[n,oy,ox])`, channels of the upsampled x first; `u` as in
//! [`upsample_bilinear`](mod@super::upsample_bilinear), by either rule.
//!
//! # Backward
//! `gx[n,iy,ix,c] = sum over the (oy,ox) that read (iy,ix) of gy[n,oy,ox,c]` with the weights of u, a gather over the first
//! channels of gy; `gskip` is the rest of gy.
//!
//! # Data flow
//! ```text
//! x [n, h, w, c]  ----> bilinear --+
//!                                  v
//!                    y [n, 2h, 2w, u | skip]    gy ---> first channels, gathered ---> gx
//!                                      ^           \--> the others ----------------> gskip
//! skip [n, 2h, 2w, s]  ----------------+
//! ```
//!
//! As two ops the upsampled image, four times as large as x, would be written, read and written again, and its gradient too:
//! a third of the traffic of a stage. On a GPU the kernel also leaves the statistics for a batch norm that reads y.
//!
//! Shapes: x `[N, H, W, C]`, skip `[N, 2H, 2W, S]` -> y `[N, 2H, 2W, C + S]`.
//!
//! Versions: v1 (an element per invocation), v2 (tiles of 8 pixels and 8 channels; backward four channels).
//!
//! Launches: 1 forward, 1 backward.
//!
//! # Files
//! - [`shaders/upsample_bilinear_concat.wgsl`](../../../../../shaders/upsample_bilinear_concat.wgsl), below
//! - [`src/ops/upsample_bilinear_concat.rs`](../../../src/shadegrad/ops/upsample_bilinear_concat.rs.html)
//! - [`src/cpu/upsample_bilinear_concat.rs`](../../../src/shadegrad/cpu/upsample_bilinear_concat.rs.html)
//! - [`kernels-tests/ops/upsample_bilinear_concat.rs`](../../../../../kernels-tests/ops/upsample_bilinear_concat.rs)
//! - [`bench/ops/upsample_bilinear_concat.rs`](../../../../../bench/ops/upsample_bilinear_concat.rs)
//!
//! <details><summary>shaders/upsample_bilinear_concat.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/upsample_bilinear_concat.wgsl")]
//! ```
//! </details>

use std::ops::Range;

use super::plan::Plan;
use super::{Chunks, Tile, Version, choice};
use crate::autograd::{Backward, Setting, Wanted, record};
use crate::cpu::upsample_bilinear_concat::{self as plain, UpsampleBilinearConcatParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes, WORKGROUP};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "upsample_bilinear_concat";
pub(super) const SHADER: Shader = shader!("upsample_bilinear_concat");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[
        ("_v2", "the channels of both divide by 8"),
        ("forward_statistics_v2", "the channels of both divide by 8, and a batch norm follows"),
    ],
    run: |on| {
        let [n, h, w, _] = on.sizes.shape.nhwc(OP)?;
        upsample_bilinear_concat(&on.x()?, &on.input([n, 2 * h, 2 * w, on.sizes.out])?, true, false).map(Some)
    },
};

/// Twice the rows and columns of x, and the channels of skip behind its own: `concat(upsample_bilinear(x), skip)` in one op.
///
/// `before_norm`: on a GPU the kernel also leaves what a [`batch_norm`](super::batch_norm()) of the result needs to know.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let x = device.tensor("x", [1, 1, 1, 1], &[3.0])?;
/// let skip = device.tensor("skip", [1, 2, 2, 1], &[10.0, 20.0, 30.0, 40.0])?;
/// let y = shadegrad::ops::upsample_bilinear_concat(&x, &skip, true, false)?;
/// assert_eq!(y.to_vec()?, [3.0, 10.0, 3.0, 20.0, 3.0, 30.0, 3.0, 40.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if x is no image batch, or skip does not have twice its rows and columns.
pub fn upsample_bilinear_concat(x: &Tensor, skip: &Tensor, align_corners: bool, before_norm: bool) -> Result<Tensor> {
    let channels = [x, skip].map(|part| part.shape().last());
    let question = || Sizes { out: channels[1], ..Sizes::of(x.shape()) };
    let version = choice::version(x.device(), OP, question, usual(channels));
    observed(OP, x.device(), |on| forward(&on.read(x)?, &on.read(skip)?, align_corners, before_norm, version))
}

/// Tiles where both parts consist of them.
fn usual(channels: [usize; 2]) -> Version {
    if channels.iter().all(|channels| channels.is_multiple_of(8)) { Version::V2 } else { Version::V1 }
}

/// As [`upsample_bilinear_concat`], with the kernel named; its gradient uses the same version.
///
/// # Errors
/// As [`upsample_bilinear_concat`]; [`Error::Shape`] for [`Version::V2`] if the channels do not divide by 8.
pub fn forward(x: &Tensor, skip: &Tensor, align_corners: bool, before_norm: bool, version: Version) -> Result<Tensor> {
    let [n, h, w, c] = x.shape().nhwc(OP)?;
    let s = skip.shape().last();
    if skip.shape() != [n, 2 * h, 2 * w, s].into() || skip.dtype() != x.dtype() {
        return Err(Error::shape(OP, format!("skip must have twice the rows and columns of x {x}, got {skip}")));
    }
    if version == Version::V2 && usual([c, s]) != Version::V2 {
        let message = format!("v2 needs channels that divide by 8, got x {} and skip {}", x.shape(), skip.shape());
        return Err(Error::shape(OP, message));
    }
    let params = UpsampleBilinearConcatParams {
        batch: n as u32,
        in_h: h as u32,
        in_w: w as u32,
        channels: c as u32,
        skip_channels: s as u32,
        align_corners: align_corners.into(),
        sums_first: 0,
        sums_chunks: 0,
    };
    let mut y = x.new_empty(OP, [n, 2 * h, 2 * w, c + s])?;
    match x.device() {
        Device::Gpu(_) => {
            let ranges = x.device().image_ranges(OP, &[x, skip, &y])?;
            let tile = Tile::of(version.into());
            let statistics = match version {
                Version::V2 if before_norm => Chunks::of(OP, &y, tile.group_rows(c + s), ranges.len())?,
                _ => None,
            };
            for images in ranges {
                let mut p = of(&params, &images);
                if let Some(statistics) = &statistics {
                    (p.sums_first, p.sums_chunks) = statistics.of_images(&images);
                }
                let (x, skip, y) = (x.images(&images), skip.images(&images), y.images(&images));
                let entry = match (version, &statistics) {
                    (Version::V1, _) => "forward_v1",
                    (Version::V2, None) => "forward_v2",
                    (Version::V2, Some(_)) => "forward_statistics_v2",
                };
                let groups = match version {
                    Version::V1 => y.len().div_ceil(WORKGROUP),
                    Version::V2 => tile.sums_groups(y.len() / (c + s), c + s),
                };
                let statistics = statistics.as_ref().map(|statistics| &statistics.sums);
                SHADER.entry(entry).params(&p).reads([x, skip]).writes([y]).writes(statistics).groups(groups)?;
            }
            y.summed = statistics.map(Chunks::summed);
        }
        Device::Cpu(_) => plain::forward(&params, &x.f32s(), &skip.f32s(), &mut y.f32s_mut()),
    }
    record(y, &[Some(x), Some(skip)], || UpsampleBilinearConcatBackward { params, version })
}

/// The same sizes for a range of the images.
fn of(params: &UpsampleBilinearConcatParams, images: &Range<usize>) -> UpsampleBilinearConcatParams {
    UpsampleBilinearConcatParams { batch: images.len() as u32, ..*params }
}

/// What the gradient needs: the sizes.
#[derive(Debug)]
struct UpsampleBilinearConcatBackward {
    params: UpsampleBilinearConcatParams,
    version: Version,
}

impl Backward for UpsampleBilinearConcatBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let p = &self.params;
        let [n, h, w, c, s] = [p.batch, p.in_h, p.in_w, p.channels, p.skip_channels].map(|extent| extent as usize);
        let gx = wanted.empty(OP, 0, [n, h, w, c].into())?;
        let gskip = wanted.empty(OP, 1, [n, 2 * h, 2 * w, s].into())?;
        match gy.device() {
            Device::Gpu(_) => {
                let (entry, lanes) = match self.version {
                    Version::V1 => ("backward_v1", 1),
                    Version::V2 => ("backward_v2", 4),
                };
                for images in gy.device().image_ranges(OP, &[gy, &gx, &gskip])? {
                    let (gy, gx, gskip) = (gy.images(&images), gx.images(&images), gskip.images(&images));
                    let invocations = (gx.len() + gskip.len()) / lanes;
                    SHADER.entry(entry).params(&of(p, &images)).reads([gy]).writes([gx, gskip]).over(invocations)?;
                }
            }
            Device::Cpu(_) => plain::backward(p, &gy.f32s(), &mut gx.f32s_mut(), &mut gskip.f32s_mut()),
        }
        Ok(vec![wanted.needs(0).then_some(gx), wanted.needs(1).then_some(gskip)])
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        Vec::new()
    }

    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        vec![("align_corners", Setting::Number(self.params.align_corners.into()))]
    }
}
