//! Batch normalisation, bilinear upsampling by 2, a ReLU and a skip connection in one: the stages of UNeXt's decoder behind
//! their convolutions.
//!
//! # Forward
//! `u[n,oy,ox,c] = sum over the four x around (oy,ox), weighted by their closeness`, by the half-pixel rule of
//! [`upsample_bilinear`](mod@super::upsample_bilinear); `v = (u - mean) * rstd * weight + bias` as in
//! [`batch_norm`](mod@super::batch_norm); `y = v + skip`, or `max(v, 0) + skip`. The weights add up to 1, so upsampling
//! first and normalising then is the same as normalising first: the normalised x never exists.
//!
//! # Backward
//! `gv[n,iy,ix,c] = sum over the (oy,ox) that read (iy,ix) of gy[n,oy,ox,c]` with the same weights, where the ReLU was open
//! (`v > 0`; v is computed again from x, a quarter of its size). The pass over gy that gathers gv also sums up what the
//! batch normalisation wants to know of it: `gb = sum of gv`, `gw = sum of gv * xhat`. Then `gx = weight * rstd * (gv -
//! mean(gv) - xhat * mean(gv * xhat))`; the means are 0 in eval mode. The gradient of skip is gy itself.
//!
//! # Data flow
//! ```text
//! x --> statistics, finalize of batch_norm: mean, variance; with skip --> forward: y
//!
//! gy, x --> backward_sums: gv, sums of each chunk
//! gv, x, these sums --> backward_input of batch_norm: gw, gb, gx
//! ```
//!
//! In v2 one invocation computes four channels of a 2x2 block of y, from 3x3 of x.
//!
//! Shapes: x `[N, H, W, C]` -> y and skip `[N, 2H, 2W, C]`, everything else `[C]`.
//!
//! Versions: v1 (a channel per invocation), v2 (four channels).
//!
//! Launches: 3 forward in train mode (2 after a convolution that left the statistics), 1 in eval mode; 2 backward (v1: 3 if
//! the gradient of x is wanted).
//!
//! # Files
//! - [`shaders/batch_norm_upsample_bilinear.wgsl`](../../../../../shaders/batch_norm_upsample_bilinear.wgsl), below
//! - [`src/ops/batch_norm_upsample_bilinear.rs`](../../../src/shadegrad/ops/batch_norm_upsample_bilinear.rs.html)
//! - [`src/cpu/batch_norm_upsample_bilinear.rs`](../../../src/shadegrad/cpu/batch_norm_upsample_bilinear.rs.html)
//! - [`kernels-tests/ops/batch_norm_upsample_bilinear.rs`](../../../../../kernels-tests/ops/batch_norm_upsample_bilinear.rs)
//! - [`bench/ops/batch_norm_upsample_bilinear.rs`](../../../../../bench/ops/batch_norm_upsample_bilinear.rs)
//!
//! <details><summary>shaders/batch_norm_upsample_bilinear.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/batch_norm_upsample_bilinear.wgsl")]
//! ```
//! </details>

use std::ops::Range;

use super::batch_norm::{self as norm, Affine, BatchNormBackward, BatchNormSettings, Mode, RunningStats};
use super::plan::Plan;
use super::{Version, choice};
use crate::autograd::{Backward, Recipe, Setting, Wanted, record};
use crate::cpu::batch_norm_upsample_bilinear::{self as plain, BatchNormUpsampleBilinearParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "batch_norm_upsample_bilinear";
pub(super) const SHADER: Shader = shader!("batch_norm_upsample_bilinear");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[("_v2", "the channels divide by 4")],
    run: |on| {
        let [n, h, w, c] = on.sizes.shape.nhwc(OP)?;
        let (mean, var) = (on.constant([c])?, on.constant([c])?);
        let running = RunningStats { mean: &mean, var: &var };
        let settings = BatchNormSettings { relu: true, ..BatchNormSettings::new(Mode::Train) };
        let (x, weight, bias) = (on.x()?, on.input([c])?, on.input([c])?);
        let skip = on.input([n, 2 * h, 2 * w, c])?;
        batch_norm_upsample_bilinear(&x, [&weight, &bias], &running, &settings, &skip).map(Some)
    },
};

/// `upsample_bilinear(batch_norm(x)) + skip`, with the ReLU of the settings before the sum, in one op.
///
/// x `[N, H, W, C]`, weight and bias `[C]`, skip `[N, 2H, 2W, C]`; `running` is updated as
/// [`batch_norm`](super::batch_norm()) does.
///
/// ```
/// use shadegrad::ops::{self, BatchNormSettings, Mode, RunningStats};
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let x = device.tensor("x", [1, 1, 2, 1], &[1.0, 3.0])?;
/// let (two, zero) = (device.tensor("w", [1], &[2.0])?, device.zeros("b", [1])?);
/// let (mean, var) = (device.zeros("mean", [1])?, device.tensor("var", [1], &[1.0])?);
/// let running = RunningStats { mean: &mean, var: &var };
/// let settings = BatchNormSettings { eps: 0.0, relu: true, ..BatchNormSettings::new(Mode::Train) };
/// let skip = device.tensor("skip", [1, 2, 4, 1], &[1.0; 8])?;
/// let y = ops::batch_norm_upsample_bilinear(&x, [&two, &zero], &running, &settings, &skip)?;
/// assert_eq!(y.to_vec()?, [1.0, 1.0, 2.0, 3.0, 1.0, 1.0, 2.0, 3.0]); // x becomes -2 and 2
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`batch_norm`](super::batch_norm()); [`Error::Shape`] if skip does not have the shape of the result.
pub fn batch_norm_upsample_bilinear(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    running: &RunningStats<'_>,
    settings: &BatchNormSettings,
    skip: &Tensor,
) -> Result<Tensor> {
    observed(OP, x.device(), |on| {
        let running = RunningStats { mean: &on.change(running.mean)?, var: &on.change(running.var)? };
        let (weight, bias) = (on.read(weight)?, on.read(bias)?);
        forward(&on.read(x)?, [&weight, &bias], &running, settings, &on.read(skip)?, select(x))
    })
}

fn select(x: &Tensor) -> Version {
    choice::version(x.device(), OP, || Sizes::of(x.shape()), Version::by_fours(x.shape().last()))
}

/// As [`batch_norm_upsample_bilinear`], with the kernel named; its gradient uses the same version.
///
/// # Errors
/// As [`batch_norm_upsample_bilinear`]; [`Error::Shape`] for [`Version::V2`] if the channels do not divide by 4.
pub fn forward(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    running: &RunningStats<'_>,
    settings: &BatchNormSettings,
    skip: &Tensor,
    version: Version,
) -> Result<Tensor> {
    let [n, h, w, c] = x.shape().nhwc(OP)?;
    let y = x.new_empty(OP, [n, 2 * h, 2 * w, c])?;
    if skip.shape() != y.shape() {
        return Err(Error::shape(OP, format!("skip must be {} for x {}, got {}", y.shape(), x.shape(), skip.shape())));
    }
    // The ReLU comes later than the normalisation.
    let alone = BatchNormSettings { relu: false, ..*settings };
    let affine = Affine::new(OP, x, [weight, bias], running, &alone, version.into())?;
    let params = sizes(&affine, [n, h, w, c], settings.relu);
    let Affine { mean, variance, .. } = &affine;
    match x.device() {
        Device::Gpu(_) => {
            for images in x.device().image_ranges(OP, &[x, skip, &y])? {
                let (x, skip, y) = (x.images(&images), skip.images(&images), y.images(&images));
                let (entry, invocations) = match version {
                    Version::V1 => ("forward_v1", y.len()),
                    Version::V2 => ("forward_v2", x.len() / 4),
                };
                SHADER
                    .entry(entry)
                    .params(&of(&params, &images))
                    .reads([&x, &skip, weight, bias, mean, variance])
                    .writes([&y])
                    .over(invocations)?;
            }
        }
        Device::Cpu(_) => plain::upsample(&params, &affine.make()?.f32s(), &skip.f32s(), &mut y.f32s_mut()),
    }
    let norm = BatchNormBackward::new(affine);
    record(y, &[Some(x), Some(weight), Some(bias), Some(skip)], || BatchNormUpsampleBilinearBackward {
        norm,
        band: 0.0,
        params,
    })
}

/// Sizes for all images.
fn sizes(of: &Affine, [n, h, w, c]: [usize; 4], relu: bool) -> BatchNormUpsampleBilinearParams {
    let norm = norm::gradient_sizes(of.x.device(), &of.params, of.kernel.version);
    BatchNormUpsampleBilinearParams {
        images: n as u32,
        in_h: h as u32,
        in_w: w as u32,
        image_pixels: norm.image_pixels,
        channels: c as u32,
        chunk: norm.chunk,
        image_chunks: norm.image_chunks,
        chunks: norm.chunks,
        first_chunk: 0,
        columns: norm.columns,
        eps: norm.eps,
        floor: if relu { 0.0 } else { f32::MIN },
    }
}

/// The same for a range of the images.
fn of(params: &BatchNormUpsampleBilinearParams, images: &Range<usize>) -> BatchNormUpsampleBilinearParams {
    let first_chunk = images.start as u32 * params.image_chunks;
    BatchNormUpsampleBilinearParams { images: images.len() as u32, first_chunk, ..*params }
}

/// What the gradient needs: what a batch normalisation keeps.
#[derive(Debug)]
struct BatchNormUpsampleBilinearBackward {
    norm: BatchNormBackward,
    /// As in [`plain::backward_upsample`].
    band: f32,
    params: BatchNormUpsampleBilinearParams,
}

impl BatchNormUpsampleBilinearBackward {
    /// gv, of x's size, and the sums over it by chunks.
    fn sums(&self, gy: &Tensor) -> Result<[Tensor; 2]> {
        let Self { norm: BatchNormBackward { of: affine, .. }, params, .. } = self;
        let Affine { x, weight, bias, mean, variance, kernel, .. } = affine;
        let gv = gy.new_empty(OP, x.shape())?;
        let table = norm::table(OP, gy.device(), params.channels, params.chunks)?;
        let entry = norm::entry(kernel.version, "backward_sums_v1", "backward_sums_v2");
        for images in gy.device().image_ranges(OP, &[x, gy, &gv])? {
            let (x, gy, gv) = (x.images(&images), gy.images(&images), gv.images(&images));
            let p = of(params, &images);
            SHADER
                .entry(entry)
                .params(&p)
                .reads([&x, &gy, weight, bias, mean, variance])
                .writes([&gv, &table])
                .groups(norm::groups(p.images * p.image_chunks, p.channels, p.columns, kernel.version))?;
        }
        Ok([gv, table])
    }
}

impl Backward for BatchNormUpsampleBilinearBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut gradients = match gy.device() {
            Device::Gpu(_) => {
                let [gv, table] = self.sums(gy)?;
                self.norm.finish(&table, wanted, |sums, wanted| self.norm.input(&gv, &table, sums, wanted))?
            }
            Device::Cpu(_) => {
                let (v, gv) = (self.norm.of.make()?, gy.new_empty(OP, self.norm.of.x.shape())?);
                plain::backward_upsample(&self.params, self.band, &v.f32s(), &gy.f32s(), &mut gv.f32s_mut());
                self.norm.on_cpu(&gv, wanted)?
            }
        };
        // The sum hands gy on as it is.
        gradients.push(wanted.needs(3).then(|| gy.clone()));
        Ok(gradients)
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        self.norm.saved()
    }

    fn decide_otherwise(&mut self) {
        self.band = 1e-6; // several units in the last place
    }

    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        let relu = Setting::Number(if self.params.floor == 0.0 { 1.0 } else { 0.0 });
        let of_norm = self.norm.settings().into_iter().filter(|(name, _)| *name != "relu");
        of_norm.chain([("relu", relu)]).collect()
    }
}
