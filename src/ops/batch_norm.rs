//! Batch normalisation per channel.
//!
//! # Forward
//! `v = (x - mean) * rstd * weight + bias`;  `rstd = 1 / sqrt(variance + eps)`;  `y = v`, or `max(v, 0)`: a ReLU that
//! follows costs nothing here, and two passes over the tensor as an op of its own. Train mode takes mean and (biased)
//! variance of each channel from x and moves the running statistics towards them: `running = (1 - momentum) * running +
//! momentum * batch`. Eval mode takes the running statistics.
//!
//! # Backward
//! `gv = gy`, but 0 where a ReLU was shut (`v <= 0`; v is computed again from x, which is cheaper than reading y).
//! `gb = sum of gv`;  `gw = sum of gv * xhat`;  `xhat = (x - mean) * rstd`, sums over all pixels of the channel. Train
//! mode, where the gradient goes through the statistics too: `gx = weight * rstd * (gv - mean(gv) - xhat * mean(gv *
//! xhat))`. Eval mode, where they are constants: `gx = weight * rstd * gv`.
//!
//! # Picture of the tile
//! ```text
//!       columns (channels / 4)
//!     +----+----+----+----+
//!     | v4 | v4 | v4 | v4 |  row 0: pixels 0, rows, 2 rows, .. of the chunk
//!     | v4 | v4 | v4 | v4 |  row 1: pixels 1, rows + 1, ..
//!     +----+----+----+----+  ..     then the rows are added up through workgroup memory
//!
//! x --> statistics: mean and squares of each chunk --> finalize: of all chunks --> forward: y
//! ```
//!
//! In v2 a workgroup takes a chunk of pixels: neighbours read neighbouring channels.
//!
//! ```text
//! gy, x --> backward_sums: sums of each chunk --> backward_input: gw, gb, gx
//! ```
//!
//! There is no kernel between these two in v2: each workgroup of backward_input adds up the chunks of its own channels
//! before it walks down its slab of pixels. The chunks are few, at most one in 256 pixels, and the slabs so long that this is
//! at most a tenth of what is read and written anyway.
//!
//! Shapes: x, y `[N, H, W, C]`, everything else `[C]`.
//!
//! Versions: v1 (a channel per invocation), v2 (four channels).
//!
//! A convolution that makes y of x itself also sums up what the gradient of y gives: then `backward_merge`, which adds up its
//! chunks, stands in the place of `backward_sums`.
//!
//! Launches: 3 forward in train mode (2 after a convolution that left the statistics), 2 in eval mode, and 1 less where only
//! convolutions read y, since they make it of x themselves; 2 backward (v1: 3 if the gradient of x is wanted).
//!
//! # Files
//! - [`shaders/batch_norm.wgsl`](../../../../../shaders/batch_norm.wgsl), below
//! - [`src/ops/batch_norm.rs`](../../../src/shadegrad/ops/batch_norm.rs.html)
//! - [`src/cpu/batch_norm.rs`](../../../src/shadegrad/cpu/batch_norm.rs.html)
//! - [`kernels-tests/ops/batch_norm.rs`](../../../../../kernels-tests/ops/batch_norm.rs)
//! - [`bench/ops/batch_norm.rs`](../../../../../bench/ops/batch_norm.rs)
//!
//! <details><summary>shaders/batch_norm.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/batch_norm.wgsl")]
//! ```
//! </details>

use std::ops::Range;
use std::sync::Arc;

use super::choice::{Kernel, choose};
use super::plan::Plan;
use super::{Version, can_wait, filling_invocations};
use crate::autograd::{Backward, OnReading, Recipe, Setting, Wanted, record_with};
use crate::cpu::batch_norm::{self as plain, BatchNormParams, Gate};
use crate::debug::observed;
use crate::gpu::shader::shader;
use crate::gpu::{Part, Question, Shader, Sizes, WORKGROUP};
use crate::tensor::{Device, Shape, Tensor};
use crate::{Error, Result};

const OP: &str = "batch_norm";
pub(super) const SHADER: Shader = shader!("batch_norm");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[("_v2", "the channels divide by 4")],
    run: |on| {
        let c = on.sizes.shape.last();
        let (mean, var) = (on.constant([c])?, on.constant([c])?);
        let running = RunningStats { mean: &mean, var: &var };
        let settings = BatchNormSettings::new(Mode::Train);
        now_or_later(&on.x()?, [&on.input([c])?, &on.input([c])?], &running, &settings, false).map(Some)
    },
};

/// What `PIXELS` is in the shader's file: pixels per invocation of `forward_v2`.
const PIXELS: usize = 4;

/// What `WIDE` is in `shaders/lib/batch_norm_sums.wgsl`: invocations of a workgroup of the gradient.
const WIDE: usize = 256;

/// Whether a network learns or predicts. An argument of `forward`, not a state of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Batch normalisation uses the statistics of the batch and updates the running ones.
    Train,
    /// Batch normalisation uses the running statistics.
    Eval,
}

/// The running statistics of a batch normalisation; train mode changes them in place.
#[derive(Debug, Clone, Copy)]
pub struct RunningStats<'a> {
    /// Mean, `[C]`; starts at 0.
    pub mean: &'a Tensor,
    /// Unbiased variance, `[C]`; starts at 1.
    pub var: &'a Tensor,
}

/// How to normalise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNormSettings {
    /// Where the statistics come from.
    pub mode: Mode,
    /// Share of the new batch in the running statistics; 0.1 in PyTorch.
    pub momentum: f32,
    /// Added to the variance; 1e-5 in PyTorch.
    pub eps: f32,
    /// Whether a ReLU follows.
    pub relu: bool,
}

impl BatchNormSettings {
    /// PyTorch's momentum and eps; no ReLU.
    pub const fn new(mode: Mode) -> Self {
        Self { mode, momentum: 0.1, eps: 1e-5, relu: false }
    }
}

/// Normalises each channel over all pixels of the batch, then scales and shifts it, then applies a ReLU if asked to.
///
/// x `[N, H, W, C]`, weight and bias `[C]`. In [`Mode::Train`] `running` is updated on the device:
/// `running += momentum * (batch - running)`, its variance with the unbiased one.
///
/// ```
/// use shadegrad::ops::{self, BatchNormSettings, Mode, RunningStats};
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let x = device.tensor("x", [1, 1, 2, 1], &[1.0, 3.0])?;
/// let (one, zero) = (device.tensor("w", [1], &[1.0])?, device.zeros("b", [1])?);
/// let (mean, var) = (device.zeros("mean", [1])?, device.tensor("var", [1], &[1.0])?);
/// let running = RunningStats { mean: &mean, var: &var };
/// let settings = BatchNormSettings { eps: 0.0, ..BatchNormSettings::new(Mode::Train) };
/// let y = ops::batch_norm(&x, &one, &zero, &running, &settings)?;
/// assert_eq!(y.to_vec()?, [-1.0, 1.0]);
/// assert_eq!(mean.to_vec()?, [0.2]); // a tenth of the way to 2
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if x is no image batch, if another shape is not `[C]`, or in train mode if there is only one
/// value per channel.
pub fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running: &RunningStats<'_>,
    settings: &BatchNormSettings,
) -> Result<Tensor> {
    now_or_later(x, [weight, bias], running, settings, true)
}

fn now_or_later(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    running: &RunningStats<'_>,
    settings: &BatchNormSettings,
    later: bool,
) -> Result<Tensor> {
    observed(OP, x.device(), |on| {
        let running = RunningStats { mean: &on.change(running.mean)?, var: &on.change(running.var)? };
        let affine = [&on.read(weight)?, &on.read(bias)?];
        normalise(&on.read(x)?, affine, &running, settings, select(x), later)
    })
}

fn select(x: &Tensor) -> Kernel {
    let channels = x.shape().last();
    let question = || Some(Question { op: OP, part: Part::Both, sizes: Sizes::of(x.shape()) });
    choose(x.device(), question, Version::by_fours(channels).into(), || kernels(x.device(), channels))
}

/// All kernels that take so many channels.
pub fn kernels(device: &Device, channels: usize) -> Vec<Kernel> {
    Kernel::all(device, &SHADER, |_| Version::by_fours(channels) == Version::V2)
}

/// As [`batch_norm`], with a given kernel (also for the gradient). The CPU has only one.
///
/// # Errors
/// As [`batch_norm`]; [`Error::Shape`] for [`Version::V2`] if the channels do not divide by 4.
pub fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running: &RunningStats<'_>,
    settings: &BatchNormSettings,
    kernel: impl Into<Kernel>,
) -> Result<Tensor> {
    normalise(x, [weight, bias], running, settings, kernel.into(), false)
}

/// With `later` the numbers are computed when somebody asks for them, who may be able to make them on reading x.
fn normalise(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    running: &RunningStats<'_>,
    settings: &BatchNormSettings,
    kernel: Kernel,
    later: bool,
) -> Result<Tensor> {
    let mut affine = Affine::new(OP, x, [weight, bias], running, settings, kernel)?;
    let later = later && can_wait(x.device());
    if later {
        affine.table = Some(affine.table()?); // of the statistics as they are now
    }
    let again = Arc::new(affine.clone());
    let y = if later { x.device().later(x.shape(), x.dtype(), again.clone()) } else { affine.make()? };
    record_with(y, &[Some(x), Some(weight), Some(bias)], || BatchNormBackward::new(affine), || Some(again))
}

/// The last step of the forward pass, and all that the gradient needs: x, and what it is normalised with. In eval mode
/// `mean` and `variance` are the running statistics themselves, so a tape must be played before they change.
#[derive(Debug, Clone)]
pub(super) struct Affine {
    pub(super) x: Tensor,
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) mean: Tensor,
    pub(super) variance: Tensor,
    /// `[4, C]`, on a GPU in train mode: center, scale, shift and rstd, for a kernel that normalises what it reads.
    table: Option<Tensor>,
    pub(super) params: BatchNormParams,
    pub(super) kernel: Kernel,
}

impl Affine {
    /// Takes the statistics of x, in train mode; `op` is the one that errors name.
    ///
    /// # Errors
    /// As [`batch_norm`].
    pub(super) fn new(
        op: &'static str,
        x: &Tensor,
        [weight, bias]: [&Tensor; 2],
        running: &RunningStats<'_>,
        settings: &BatchNormSettings,
        kernel: Kernel,
    ) -> Result<Self> {
        let version = kernel.version;
        let [n, h, w, c] = x.shape().nhwc(op)?;
        for (name, tensor) in [("weight", weight), ("bias", bias), ("mean", running.mean), ("var", running.var)] {
            if tensor.shape().dims() != [c] {
                let message = format!("{name} must be [{c}] for x {}, got {}", x.shape(), tensor.shape());
                return Err(Error::shape(op, message));
            }
        }
        if version == Version::V2 && !c.is_multiple_of(4) {
            return Err(Error::shape(op, format!("v2 needs channels that divide by 4, got x {}", x.shape())));
        }
        let train = settings.mode == Mode::Train;
        if train && n * h * w == 1 {
            let message = "train mode needs more than one value per channel; use a larger batch or larger images";
            return Err(Error::shape(op, format!("{message}, got x {}", x.shape())));
        }
        let params = sizes([n, h, w, c], settings, version);
        let device = x.device();
        let (weight, bias) = (weight.detach(), bias.detach());
        let (mean, variance, table) = if train {
            let (mean, variance) = (device.empty(op, [c])?, device.empty(op, [c])?);
            let table = statistics(x, [&weight, &bias], [&mean, &variance], running, &params, version)?;
            (mean, variance, table)
        } else {
            (running.mean.detach(), running.var.detach(), None)
        };
        Ok(Self { x: x.detach(), weight, bias, mean, variance, table, params, kernel })
    }

    /// `[4, C]`, on a GPU: center, scale, shift and rstd of each channel.
    ///
    /// # Errors
    /// As the launch.
    fn table(&self) -> Result<Tensor> {
        if let Some(table) = &self.table {
            return Ok(table.clone());
        }
        let channels = self.params.channels as usize;
        let table = self.x.device().empty(OP, [4, channels])?;
        SHADER
            .entry("table_of_running")
            .params(&self.params)
            .reads([&self.mean, &self.weight, &self.bias, &self.variance])
            .writes([&table])
            .over(channels)?;
        Ok(table)
    }

    /// Computes the gradient of x on a GPU.
    ///
    /// # Errors
    /// As the launch.
    fn input_gradient(&self, [gy, table]: [&Tensor; 2], sums: &Sums, gx: &Tensor, accumulate: bool) -> Result<()> {
        let Self { x, params, kernel, .. } = self;
        let params = BatchNormParams { chunks: chunks_of(table), ..*params };
        let params = if kernel.version == Version::V2 { in_slabs(gy.device(), &params) } else { params };
        for images in gy.device().image_ranges(OP, &[x, gy, gx])? {
            let p = BatchNormParams { accumulate: accumulate.into(), ..of(&params, &images) };
            let (x, gy, gx) = (x.images(&images), gy.images(&images), gx.images(&images));
            let (entry, groups) = match kernel.version {
                Version::V1 => ("backward_input_v1", x.len().div_ceil(WORKGROUP)),
                Version::V2 => {
                    let pixels = (p.images * p.image_pixels) as usize;
                    ("backward_input_v2", slab_groups(pixels, p.slab, p.channels, p.columns))
                }
            };
            // v1 reads gw and gb, v2 writes them, the same in each launch.
            let places = [&sums.gw, &sums.gb, &gx];
            SHADER.entry(entry).params(&p).reads([&x, &gy, table]).writes(places).groups(groups)?;
        }
        Ok(())
    }
}

impl Recipe for Affine {
    fn make(&self) -> Result<Tensor> {
        let Self { x, weight, bias, mean, variance, params, kernel, .. } = self;
        let device = x.device();
        let y = x.new_empty(OP, x.shape())?;
        match device {
            Device::Gpu(_) => {
                let (table, entry) = (self.table()?, entry(kernel.version, "forward_v1", "forward_v2"));
                for images in device.image_ranges(OP, &[x, &y])? {
                    let (x, y) = (x.images(&images), y.images(&images));
                    let invocations = invocations(&x, *kernel);
                    SHADER
                        .entry(entry)
                        .constants(kernel.constants)
                        .params(&of(params, &images))
                        .reads([&x, &table])
                        .writes([&y])
                        .over(invocations)?;
                }
            }
            Device::Cpu(_) => plain::forward(
                params,
                &x.f32s(),
                [&weight.f32s(), &bias.f32s()],
                [&mean.f32s(), &variance.f32s()],
                &mut y.f32s_mut(),
            ),
        }
        Ok(y)
    }

    fn on_reading(&self) -> Option<OnReading> {
        let (x, floor) = (self.x.clone(), self.params.floor);
        self.table.clone().map(|table| OnReading::Normed { x, table, floor })
    }
}

/// The gradient of x, left to the op that reads it.
#[derive(Debug)]
struct LeftGradient {
    of: Affine,
    gy: Tensor,
    table: Tensor,
    sums: Sums,
}

impl Recipe for LeftGradient {
    fn make(&self) -> Result<Tensor> {
        let gx = self.of.x.new_empty(OP, self.of.x.shape())?;
        self.of.input_gradient([&self.gy, &self.table], &self.sums, &gx, false)?;
        Ok(gx)
    }

    fn on_reading(&self) -> Option<OnReading> {
        let Self { of: Affine { x, params, .. }, gy, table, .. } = self;
        let (gy, x, table) = (gy.clone(), x.clone(), table.clone());
        Some(OnReading::NormGradient { gy, x, table, floor: params.floor, inverse_count: params.inverse_count })
    }
}

/// Mean and variance of x, and the step of the running statistics. On a GPU also the table of [`Affine`].
fn statistics(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    [mean, variance]: [&Tensor; 2],
    running: &RunningStats<'_>,
    params: &BatchNormParams,
    version: Version,
) -> Result<Option<Tensor>> {
    let channels = params.channels as usize;
    match x.device() {
        Device::Gpu(_) => {
            let (partials, params) = match x.statistics() {
                Some((partials, chunk)) => (partials.clone(), of_chunks(params, chunk)),
                None => (partial_statistics(x, params, version)?, *params),
            };
            let table = x.device().empty(OP, [4, channels])?;
            SHADER
                .entry("finalize")
                .params(&params)
                .reads([&partials, weight, bias])
                .writes([mean, variance, running.mean, running.var, &table])
                .groups(channels)?;
            Ok(Some(table))
        }
        Device::Cpu(_) => {
            plain::statistics(params, &x.f32s(), &mut mean.f32s_mut(), &mut variance.f32s_mut());
            // One at a time: both may be ranges of one buffer, which is locked as a whole.
            plain::update_mean(params, &mean.f32s(), &mut running.mean.f32s_mut());
            plain::update_var(params, &variance.f32s(), &mut running.var.f32s_mut());
            Ok(None)
        }
    }
}

/// Mean and sum of squares of each chunk of x, `[2, C, chunks]`.
fn partial_statistics(x: &Tensor, params: &BatchNormParams, version: Version) -> Result<Tensor> {
    let partials = x.device().empty(OP, [2, params.channels as usize, params.chunks as usize])?;
    let entry = entry(version, "statistics_v1", "statistics_v2");
    for images in x.device().image_ranges(OP, &[x])? {
        let p = of(params, &images);
        let x = x.images(&images);
        SHADER.entry(entry).params(&p).reads([&x]).writes([&partials]).groups(chunk_groups(&p, version))?;
    }
    Ok(partials)
}

/// Sizes for merging the chunks that another kernel has made: they go through all pixels as if these were one image.
fn of_chunks(params: &BatchNormParams, chunk: usize) -> BatchNormParams {
    let (chunk, pixels) = (chunk as u32, params.images * params.image_pixels);
    let chunks = pixels.div_ceil(chunk);
    BatchNormParams { images: 1, image_pixels: pixels, chunk, image_chunks: chunks, chunks, ..*params }
}

pub(super) fn entry(version: Version, v1: &'static str, v2: &'static str) -> &'static str {
    match version {
        Version::V1 => v1,
        Version::V2 => v2,
    }
}

/// Sizes for all images, with the chunks of the statistics: about 1024, to keep a GPU busy.
fn sizes([n, h, w, c]: [usize; 4], settings: &BatchNormSettings, version: Version) -> BatchNormParams {
    let columns = match version {
        Version::V1 => 1,
        Version::V2 => (c / 4).next_power_of_two().min(8), // 128 bytes side by side
    };
    let train = settings.mode == Mode::Train;
    let pixels = n * h * w;
    let whole = BatchNormParams {
        images: n as u32,
        image_pixels: (h * w) as u32,
        channels: c as u32,
        chunk: 0,
        image_chunks: 0,
        chunks: 0,
        first_chunk: 0,
        columns: columns as u32,
        slab: 0,
        turns: 0,
        momentum: settings.momentum,
        eps: settings.eps,
        inverse_count: if train { 1.0 / pixels as f32 } else { 0.0 },
        accumulate: 0,
        floor: if settings.relu { 0.0 } else { f32::MIN },
    };
    in_chunks(&whole, 1024, if version == Version::V1 { 1 } else { WORKGROUP / columns })
}

/// Cuts the pixels into about so many chunks: long enough to be worth a workgroup with so many rows, and short enough to keep
/// each chain of additions under 64 terms.
fn in_chunks(p: &BatchNormParams, about: usize, rows: usize) -> BatchNormParams {
    let (images, image_pixels) = (p.images as usize, p.image_pixels as usize);
    let chunk = (images * image_pixels / about).clamp(8 * rows, 64 * rows);
    let image_chunks = image_pixels.div_ceil(chunk);
    let (image_chunks, chunks) = (image_chunks as u32, (images * image_chunks) as u32);
    BatchNormParams { chunk: chunk as u32, image_chunks, chunks, ..*p }
}

/// The same with the chunks and slabs of the gradient. In v2 there are few chunks, about 256, since each workgroup that
/// takes a slab reads those of its channels.
pub(super) fn gradient_sizes(device: &Device, p: &BatchNormParams, version: Version) -> BatchNormParams {
    match version {
        Version::V1 => in_chunks(p, 1024, 1),
        Version::V2 => in_slabs(device, &in_chunks(p, 256, WIDE / p.columns as usize)),
    }
}

/// Cuts the pixels into as many slabs as fill the device, unless reading the chunks were more than a tenth of what the launch
/// does: two numbers for each chunk, and three for each pixel.
fn in_slabs(device: &Device, p: &BatchNormParams) -> BatchNormParams {
    let rows = WIDE / p.columns as usize;
    let pixels = (p.images * p.image_pixels) as usize;
    let (filling, software) = match device {
        Device::Gpu(context) => (filling_invocations(context), context.facts().software),
        Device::Cpu(_) => (WORKGROUP, true),
    };
    let enough = filling / WORKGROUP / blocks(p.channels, p.columns);
    let slabs = enough.min(3 * pixels / (20 * p.chunks as usize)).max(1);
    let part = pixels.div_ceil(slabs).div_ceil(rows); // pixels of a row
    let turns = !software || part < 8;
    BatchNormParams { slab: (part * rows) as u32, turns: turns.into(), ..*p }
}

/// Blocks of vectors of channels that different workgroups take.
fn blocks(channels: u32, columns: u32) -> usize {
    (channels / 4).div_ceil(columns) as usize
}

/// Workgroups of `backward_input_v2` for so many pixels or windows.
pub(super) fn slab_groups(places: usize, slab: u32, channels: u32, columns: u32) -> usize {
    places.div_ceil(slab as usize) * blocks(channels, columns)
}

/// The same for a range of the images.
fn of(params: &BatchNormParams, images: &Range<usize>) -> BatchNormParams {
    BatchNormParams { images: images.len() as u32, first_chunk: images.start as u32 * params.image_chunks, ..*params }
}

/// Workgroups of the kernels that sum over chunks.
pub(super) fn groups(chunks: u32, channels: u32, columns: u32, version: Version) -> usize {
    match version {
        Version::V1 => (chunks as usize * channels as usize).div_ceil(WORKGROUP),
        Version::V2 => chunks as usize * blocks(channels, columns),
    }
}

fn chunk_groups(p: &BatchNormParams, version: Version) -> usize {
    groups(p.images * p.image_chunks, p.channels, p.columns, version)
}

/// Invocations of the kernels that write one number for each of x.
fn invocations(x: &Tensor, kernel: Kernel) -> usize {
    let channels = x.shape().last();
    match kernel.version {
        Version::V1 => x.len(),
        Version::V2 => (x.len() / channels).div_ceil(kernel.number("PIXELS", PIXELS)) * (channels / 4),
    }
}

/// The gradient of [`batch_norm`].
#[derive(Debug)]
pub(super) struct BatchNormBackward {
    pub(super) of: Affine,
    /// As in [`Gate`].
    band: f32,
}

/// The sums over all pixels. The gradient of x needs both, so they are computed even where the parameters are frozen.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    pub(super) gw: Tensor,
    pub(super) gb: Tensor,
}

impl Sums {
    /// Places that nobody has written yet.
    fn empty(device: &Device, channels: u32, wanted: &mut Wanted<'_>) -> Result<Self> {
        let shape = Shape::from([channels as usize]);
        let mut place = |index: usize| {
            if wanted.needs(index) { wanted.empty(OP, index, shape) } else { device.empty(OP, shape) }
        };
        Ok(Self { gw: place(1)?, gb: place(2)? })
    }

    /// The gradients in the order of the op's inputs.
    fn gradients(self, gx: Option<Tensor>, wanted: &Wanted<'_>) -> Vec<Option<Tensor>> {
        vec![gx, wanted.needs(1).then_some(self.gw), wanted.needs(2).then_some(self.gb)]
    }
}

/// The place for what `backward_sums` leaves of so many chunks: the table of `shaders/lib/batch_norm_sums.wgsl`.
///
/// # Errors
/// As [`Device::empty`].
pub(super) fn table(op: &'static str, device: &Device, channels: u32, chunks: u32) -> Result<Tensor> {
    device.empty(op, [4 + 2 * chunks as usize, channels as usize])
}

fn chunks_of(table: &Tensor) -> u32 {
    (table.shape().dims()[0] as u32 - 4) / 2
}

impl BatchNormBackward {
    pub(super) fn new(of: Affine) -> Self {
        Self { of, band: 0.0 }
    }

    /// The sums of gv and gv * xhat by chunks, on a GPU.
    fn sums(&self, gy: &Tensor) -> Result<Tensor> {
        let Affine { x, weight, bias, mean, variance, params, kernel, .. } = &self.of;
        let params = gradient_sizes(gy.device(), params, kernel.version);
        let table = table(OP, gy.device(), params.channels, params.chunks)?;
        let entry = entry(kernel.version, "backward_sums_v1", "backward_sums_v2");
        for images in gy.device().image_ranges(OP, &[x, gy])? {
            let p = of(&params, &images);
            let (x, gy) = (x.images(&images), gy.images(&images));
            SHADER
                .entry(entry)
                .params(&p)
                .reads([&x, &gy, mean, variance, weight, bias])
                .writes([&table])
                .groups(chunk_groups(&p, kernel.version))?;
        }
        Ok(table)
    }

    /// The gradients of the parameters and the same table with one chunk, of what the kernel that made gy has summed up.
    fn merged(&self, [partials, norm_table]: [&Tensor; 2], sums: &Sums) -> Result<Tensor> {
        let params = &self.of.params;
        let merged = table(OP, partials.device(), params.channels, 1)?;
        let chunks = partials.len() as u32 / (2 * params.channels);
        SHADER
            .entry("backward_merge")
            .params(&BatchNormParams { chunks, ..*params })
            .reads([partials, norm_table])
            .writes([&merged, &sums.gw, &sums.gb])
            .groups(params.channels as usize)?;
        Ok(merged)
    }

    /// The gradients on a GPU, once the sums of all chunks are in a [`table`]. `input` computes that of x, and in v2 the
    /// others on its way.
    ///
    /// # Errors
    /// As the launches.
    pub(super) fn finish(
        &self,
        table: &Tensor,
        wanted: &mut Wanted<'_>,
        input: impl FnOnce(&Sums, &mut Wanted<'_>) -> Result<Tensor>,
    ) -> Result<Vec<Option<Tensor>>> {
        let Affine { params, kernel, .. } = &self.of;
        let sums = Sums::empty(table.device(), params.channels, wanted)?;
        if kernel.version == Version::V1 || !wanted.needs(0) {
            SHADER
                .entry("backward_finalize")
                .params(&BatchNormParams { chunks: chunks_of(table), ..*params })
                .reads([table])
                .writes([&sums.gw, &sums.gb])
                .groups(params.channels as usize)?;
        }
        let gx = if wanted.needs(0) { Some(input(&sums, wanted)?) } else { None };
        Ok(sums.gradients(gx, wanted))
    }

    /// The gradients on a GPU, of what the kernel that made gy has summed up.
    fn of_sums(&self, gy: &Tensor, known: [&Tensor; 2], wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let sums = Sums::empty(gy.device(), self.of.params.channels, wanted)?;
        let table = self.merged(known, &sums)?;
        let gx = match (wanted.needs(0), wanted.on_reading()) {
            (false, _) => None,
            (true, false) => Some(self.input(gy, &table, &sums, wanted)?),
            (true, true) => {
                let (of, gy, sums) = (self.of.clone(), gy.detach(), sums.clone());
                let left = LeftGradient { of, gy, table, sums };
                Some(self.of.x.device().later(self.of.x.shape(), self.of.x.dtype(), Arc::new(left)))
            }
        };
        Ok(sums.gradients(gx, wanted))
    }

    /// The gradient of x on a GPU.
    ///
    /// # Errors
    /// As the launch.
    pub(super) fn input(&self, gy: &Tensor, table: &Tensor, sums: &Sums, wanted: &mut Wanted<'_>) -> Result<Tensor> {
        let (gx, accumulate) = wanted.place_to_add(OP, 0, self.of.x.shape())?;
        self.of.input_gradient([gy, table], sums, &gx, accumulate)?;
        Ok(gx)
    }

    /// The gradients on the CPU.
    ///
    /// # Errors
    /// As [`Device::empty`].
    pub(super) fn on_cpu(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let Affine { x, weight, bias, mean, variance, params, .. } = &self.of;
        let sums = Sums::empty(gy.device(), params.channels, wanted)?;
        let gate = Gate::new(params, self.band);
        plain::backward_sums(
            params,
            gate,
            &x.f32s(),
            &gy.f32s(),
            [&weight.f32s(), &bias.f32s(), &mean.f32s(), &variance.f32s()],
            &mut sums.gw.f32s_mut(),
            &mut sums.gb.f32s_mut(),
        );
        let gx = if wanted.needs(0) {
            let gx = wanted.empty(OP, 0, x.shape())?;
            plain::backward_input(
                params,
                gate,
                &x.f32s(),
                &gy.f32s(),
                [&weight.f32s(), &bias.f32s(), &mean.f32s(), &variance.f32s()],
                [&sums.gw.f32s(), &sums.gb.f32s()],
                &mut gx.f32s_mut(),
            );
            Some(gx)
        } else {
            None
        };
        Ok(sums.gradients(gx, wanted))
    }
}

impl Backward for BatchNormBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        match gy.device() {
            Device::Gpu(_) => {
                if let Some(known) = self.of.table.as_ref().and_then(|norm| Some([gy.sums_for(norm)?, norm])) {
                    return self.of_sums(gy, known, wanted);
                }
                let table = self.sums(gy)?;
                self.finish(&table, wanted, |sums, wanted| self.input(gy, &table, sums, wanted))
            }
            Device::Cpu(_) => self.on_cpu(gy, wanted),
        }
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        let Affine { x, weight, bias, mean, variance, .. } = &mut self.of;
        vec![x, weight, bias, mean, variance]
    }

    fn decide_otherwise(&mut self) {
        self.band = 1e-6; // several units in the last place of normalised numbers
    }

    fn settings(&self) -> Vec<(&'static str, Setting<'_>)> {
        vec![
            ("mean", Setting::Tensor(&self.of.mean)),
            ("variance", Setting::Tensor(&self.of.variance)),
            ("eps", Setting::Number(self.of.params.eps.into())),
            ("relu", Setting::Number(if self.of.params.floor == 0.0 { 1.0 } else { 0.0 })),
        ]
    }
}
