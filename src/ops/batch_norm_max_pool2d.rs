//! Batch normalisation, a ReLU and max pooling in one: the stages of UNeXt's encoder behind their convolutions.
//!
//! # Forward
//! `v = (x - mean) * rstd * weight + bias` as in [`batch_norm`](mod@super::batch_norm); `y[n,oy,ox,c] = max of
//! v[n,2oy+ky,2ox+kx,c]` for ky, kx in {0, 1} as in [`max_pool2d`](mod@super::max_pool2d), or of that and 0 with a ReLU
//! (before or behind the pooling: that is the same). v never exists: x is the largest tensor of the network, v would be as
//! large, and only a quarter of it goes on. As v rises with x where weight is above 0 and falls where it is below, the
//! winner of a window is its largest `sign(weight) * x`: rounding decides nothing.
//!
//! # Backward
//! `gv` is gy at the winner of each window if the ReLU was open there (`v > 0`), and 0 at all other pixels. So `gb = sum of
//! gv` and `gw = sum of gv * xhat` are sums over the winners: a quarter of x is read. Then `gx = weight * rstd * (gv -
//! mean(gv) - xhat * mean(gv * xhat))` for every pixel, from gy and the winners; the means are 0 in eval mode. An odd last
//! row or column is in no window, but in the statistics: its gv is 0, its gx is not.
//!
//! # Data flow
//! ```text
//! x --> statistics, finalize of batch_norm: mean, variance --> forward: y, winner
//!
//! gy, winner, x at the winners --> backward_sums: sums of each chunk
//! gy, winner, x, these sums    --> backward_input: gw, gb, gx
//! ```
//!
//! In v2 one invocation computes four channels of y from a window. In the gradient a workgroup adds up the chunks of its
//! channels and then walks down a slab of windows, as in [`batch_norm`](mod@super::batch_norm).
//!
//! Shapes: x `[N, H, W, C]` -> y `[N, H/2, W/2, C]` (rounded down), everything else `[C]`.
//!
//! Versions: v1 (a channel per invocation), v2 (four channels).
//!
//! Launches: 3 forward in train mode (2 after a convolution that left the statistics), 1 in eval mode; 2 backward (v1: 3 if
//! the gradient of x is wanted).
//!
//! # Files
//! - [`shaders/batch_norm_max_pool2d.wgsl`](../../../../../shaders/batch_norm_max_pool2d.wgsl), below
//! - [`src/ops/batch_norm_max_pool2d.rs`](../../../src/shadegrad/ops/batch_norm_max_pool2d.rs.html)
//! - [`src/cpu/batch_norm_max_pool2d.rs`](../../../src/shadegrad/cpu/batch_norm_max_pool2d.rs.html)
//! - [`kernels-tests/ops/batch_norm_max_pool2d.rs`](../../../../../kernels-tests/ops/batch_norm_max_pool2d.rs)
//! - [`bench/ops/batch_norm_max_pool2d.rs`](../../../../../bench/ops/batch_norm_max_pool2d.rs)
//!
//! <details><summary>shaders/batch_norm_max_pool2d.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/batch_norm_max_pool2d.wgsl")]
//! ```
//! </details>

use std::ops::Range;

use super::batch_norm::{self as norm, Affine, BatchNormBackward, BatchNormSettings, Mode, RunningStats, Sums};
use super::plan::Plan;
use super::{Version, choice};
use crate::autograd::{Backward, Setting, Wanted, record};
use crate::cpu::batch_norm::BatchNormParams;
use crate::cpu::batch_norm_max_pool2d::{self as plain, BatchNormMaxPool2dParams};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Shader, Sizes, WORKGROUP};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "batch_norm_max_pool2d";
pub(super) const SHADER: Shader = shader!("batch_norm_max_pool2d");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[("_v2", "the channels divide by 4")],
    run: |on| {
        let c = on.sizes.shape.last();
        let (mean, var) = (on.constant([c])?, on.constant([c])?);
        let running = RunningStats { mean: &mean, var: &var };
        let settings = BatchNormSettings { relu: true, ..BatchNormSettings::new(Mode::Train) };
        batch_norm_max_pool2d(&on.x()?, &on.input([c])?, &on.input([c])?, &running, &settings).map(Some)
    },
};

/// `max_pool2d(batch_norm(x))` with the ReLU of the settings between them, in one op.
///
/// x `[N, H, W, C]`, weight and bias `[C]`; `running` is updated as [`batch_norm`](super::batch_norm()) does.
///
/// ```
/// use shadegrad::ops::{self, BatchNormSettings, Mode, RunningStats};
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let x = device.tensor("x", [1, 2, 2, 1], &[1.0, 3.0, 1.0, 3.0])?;
/// let (minus, half) = (device.tensor("w", [1], &[-1.0])?, device.tensor("b", [1], &[0.5])?);
/// let (mean, var) = (device.zeros("mean", [1])?, device.tensor("var", [1], &[1.0])?);
/// let running = RunningStats { mean: &mean, var: &var };
/// let settings = BatchNormSettings { eps: 0.0, relu: true, ..BatchNormSettings::new(Mode::Train) };
/// let y = ops::batch_norm_max_pool2d(&x, &minus, &half, &running, &settings)?;
/// assert_eq!(y.to_vec()?, [1.5]); // of 1.5 where x is 1, and -0.5 where x is 3
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`batch_norm`](super::batch_norm()); [`Error::Shape`] if x has fewer than 2x2 pixels.
pub fn batch_norm_max_pool2d(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running: &RunningStats<'_>,
    settings: &BatchNormSettings,
) -> Result<Tensor> {
    observed(OP, x.device(), |on| {
        let running = RunningStats { mean: &on.change(running.mean)?, var: &on.change(running.var)? };
        let (weight, bias) = (on.read(weight)?, on.read(bias)?);
        forward(&on.read(x)?, &weight, &bias, &running, settings, select(x))
    })
}

fn select(x: &Tensor) -> Version {
    choice::version(x.device(), OP, || Sizes::of(x.shape()), Version::by_fours(x.shape().last()))
}

/// As [`batch_norm_max_pool2d`], with the kernel named; its gradient uses the same version.
///
/// # Errors
/// As [`batch_norm_max_pool2d`]; [`Error::Shape`] for [`Version::V2`] if the channels do not divide by 4.
pub fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running: &RunningStats<'_>,
    settings: &BatchNormSettings,
    version: Version,
) -> Result<Tensor> {
    let [n, h, w, c] = x.shape().nhwc(OP)?;
    if h < 2 || w < 2 {
        return Err(Error::shape(OP, format!("needs at least 2x2 pixels, got {}", x.shape())));
    }
    let affine = Affine::new(OP, x, [weight, bias], running, settings, version.into())?;
    let params = sizes(&affine, [n, h, w, c]);
    let y = x.new_empty(OP, [n, h / 2, w / 2, c])?;
    let winner = x.device().empty_u32(OP, y.shape())?;
    let Affine { mean, variance, .. } = &affine;
    match x.device() {
        Device::Gpu(_) => {
            let (entry, lanes) = match version {
                Version::V1 => ("forward_v1", 1),
                Version::V2 => ("forward_v2", 4),
            };
            for images in x.device().image_ranges(OP, &[x, &y, &winner])? {
                let (x, y, winner) = (x.images(&images), y.images(&images), winner.images(&images));
                let invocations = y.len() / lanes;
                SHADER
                    .entry(entry)
                    .params(&of(&params, &images))
                    .reads([&x, weight, bias, mean, variance])
                    .writes([&y, &winner])
                    .over(invocations)?;
            }
        }
        Device::Cpu(_) => plain::forward(
            &params,
            &x.f32s(),
            [&weight.f32s(), &bias.f32s()],
            [&mean.f32s(), &variance.f32s()],
            &mut y.f32s_mut(),
            &mut winner.u32s_mut(),
        ),
    }
    let norm = BatchNormBackward::new(affine);
    record(y, &[Some(x), Some(weight), Some(bias)], || BatchNormMaxPool2dBackward { norm, winner, params })
}

/// Sizes for all images; the chunks are those of a batch normalisation of the pooled size.
fn sizes(of: &Affine, [n, h, w, c]: [usize; 4]) -> BatchNormMaxPool2dParams {
    let windows = BatchNormParams { image_pixels: ((h / 2) * (w / 2)) as u32, ..of.params };
    let windows = norm::gradient_sizes(of.x.device(), &windows, of.kernel.version);
    BatchNormMaxPool2dParams {
        images: n as u32,
        in_h: h as u32,
        in_w: w as u32,
        image_pixels: windows.image_pixels,
        channels: c as u32,
        chunk: windows.chunk,
        image_chunks: windows.image_chunks,
        chunks: windows.chunks,
        first_chunk: 0,
        columns: windows.columns,
        slab: windows.slab,
        turns: windows.turns,
        eps: windows.eps,
        inverse_count: windows.inverse_count,
        floor: windows.floor,
    }
}

/// The same for a range of the images.
fn of(params: &BatchNormMaxPool2dParams, images: &Range<usize>) -> BatchNormMaxPool2dParams {
    let first_chunk = images.start as u32 * params.image_chunks;
    BatchNormMaxPool2dParams { images: images.len() as u32, first_chunk, ..*params }
}

/// What the gradient needs: what a batch normalisation keeps, and where each window's winner was.
#[derive(Debug)]
struct BatchNormMaxPool2dBackward {
    norm: BatchNormBackward,
    winner: Tensor,
    params: BatchNormMaxPool2dParams,
}

impl BatchNormMaxPool2dBackward {
    /// The sums of gv and gv * xhat by chunks of windows.
    fn sums(&self, gy: &Tensor) -> Result<Tensor> {
        let Self { norm: BatchNormBackward { of: affine, .. }, winner, params } = self;
        let Affine { x, weight, bias, mean, variance, kernel, .. } = affine;
        let table = norm::table(OP, gy.device(), params.channels, params.chunks)?;
        let entry = norm::entry(kernel.version, "backward_sums_v1", "backward_sums_v2");
        for images in gy.device().image_ranges(OP, &[x, gy, winner])? {
            let (x, gy, winner) = (x.images(&images), gy.images(&images), winner.images(&images));
            let p = of(params, &images);
            SHADER
                .entry(entry)
                .params(&p)
                .reads([&x, &gy, &winner, mean, variance, weight, bias])
                .writes([&table])
                .groups(norm::groups(p.images * p.image_chunks, p.channels, p.columns, kernel.version))?;
        }
        Ok(table)
    }

    fn input(&self, gy: &Tensor, table: &Tensor, sums: &Sums, wanted: &mut Wanted<'_>) -> Result<Tensor> {
        let Self { norm: BatchNormBackward { of: Affine { x, kernel, .. }, .. }, winner, params } = self;
        let gx = wanted.empty(OP, 0, x.shape())?;
        for images in gy.device().image_ranges(OP, &[x, gy, winner, &gx])? {
            let p = of(params, &images);
            let (x, gy, winner, gx) =
                (x.images(&images), gy.images(&images), winner.images(&images), gx.images(&images));
            let (entry, groups) = match kernel.version {
                Version::V1 => ("backward_input_v1", x.len().div_ceil(WORKGROUP)),
                Version::V2 => {
                    ("backward_input_v2", norm::slab_groups(started_windows(&p), p.slab, p.channels, p.columns))
                }
            };
            // v1 reads gw and gb, v2 writes them, the same in each launch.
            let places = [&sums.gw, &sums.gb, &gx];
            SHADER.entry(entry).params(&p).reads([&x, &gy, &winner, table]).writes(places).groups(groups)?;
        }
        Ok(gx)
    }
}

/// Windows, with those that an odd last row or column begins.
fn started_windows(p: &BatchNormMaxPool2dParams) -> usize {
    let [high, wide] = [p.in_h, p.in_w].map(|extent| extent.div_ceil(2) as usize);
    p.images as usize * high * wide
}

impl Backward for BatchNormMaxPool2dBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let x = &self.norm.of.x;
        if let Device::Cpu(_) = gy.device() {
            let gv = gy.new_empty(OP, x.shape())?;
            plain::backward_pool(&self.params, &gy.f32s(), &self.winner.u32s(), &mut gv.f32s_mut());
            return self.norm.on_cpu(&gv, wanted);
        }
        let table = self.sums(gy)?;
        self.norm.finish(&table, wanted, |sums, wanted| self.input(gy, &table, sums, wanted))
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        let mut saved = self.norm.saved();
        saved.push(&mut self.winner);
        saved
    }

    fn decide_otherwise(&mut self) {
        self.norm.decide_otherwise();
    }

    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        self.norm.settings()
    }
}
