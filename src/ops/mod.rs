//! The operations, each in five files.
//!
//! Each is one idea under one name:
//!
//! | file | holds |
//! | --- | --- |
//! | `shaders/<op>.wgsl` | the kernels |
//! | `src/ops/<op>.rs` | the op: checks shapes, launches, records the gradient |
//! | `src/cpu/<op>.rs` | the same in plain Rust, the judge of the kernels |
//! | `kernels-tests/ops/<op>.rs` | cases, for the tests and `shadegrad check` |
//! | `bench/ops/<op>.rs` | shapes to time |
//!
//! In an op's file the order is the same everywhere: formulas and picture, what `show plan` should know, the op, the
//! struct that holds what its gradient needs, its `Backward`. A module and its function have the same name: the page
//! with the formulas is the module's. How to add an op: [chapter 11](crate::course::ch11_first_kernel).

pub mod adam;
pub mod add;
pub mod batch_norm;
pub mod batch_norm_max_pool2d;
pub mod batch_norm_upsample_bilinear;
pub mod bce_dice;
mod choice;
pub mod clip_norm;
pub mod concat;
pub mod conv2d;
pub mod conv2d_few;
pub mod conv_transpose2d;
pub mod depthwise_conv2d;
pub mod ema;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod load_batch;
pub mod matrix;
pub mod max_pool2d;
pub mod metric_counts;
pub mod plan;
mod priors;
pub mod relu;
pub mod sgd;
pub mod shift;
pub mod shifted_linear;
pub mod sigmoid;
pub mod softmax;
pub mod sum_chunks;
pub mod transpose_weights;
pub mod unscale;
mod updates;
pub mod upsample_bilinear;
pub mod upsample_bilinear_concat;
pub mod winograd;
pub mod winograd_fused;
pub mod winograd_weight;

pub use adam::{Adam, adam};
pub use add::{add, add_assign};
pub use batch_norm::{BatchNormSettings, Mode, RunningStats, batch_norm};
pub use batch_norm_max_pool2d::batch_norm_max_pool2d;
pub use batch_norm_upsample_bilinear::batch_norm_upsample_bilinear;
pub use bce_dice::{BceDice, Pooling, bce_dice};
pub use choice::{Kernel, text_hash, together, use_tuned};
pub use clip_norm::clip_norm;
pub use concat::concat;
pub use conv_transpose2d::conv_transpose2d;
pub use conv2d::{conv2d, conv2d_added, conv2d_with_statistics};
pub use depthwise_conv2d::{depthwise_conv2d, depthwise_conv2d_gelu};
pub use ema::ema;
pub use gelu::gelu;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use load_batch::{Elastic, Sample, SliceBytes, Slices, Tone, load_batch};
pub use max_pool2d::max_pool2d;
pub use metric_counts::metric_counts;
pub use relu::relu;
pub use sgd::{Sgd, sgd};
pub use shift::{Axis, shift};
pub use shifted_linear::shifted_linear;
pub use sigmoid::sigmoid;
pub use softmax::softmax;
pub use sum_chunks::sum_chunks;
pub use transpose_weights::transpose_weights;
pub use unscale::unscale;
pub use upsample_bilinear::{UpsampleSettings, upsample_bilinear, upsample_bilinear_relu};
pub use upsample_bilinear_concat::upsample_bilinear_concat;

use std::ops::Range;
use std::sync::Arc;

use crate::Result;
use crate::gpu::shader::{BLOCK, SPLIT};
use crate::gpu::{Context, Shader, WORKGROUP};
use crate::tensor::{Device, Summed, Tensor};

/// Whether results of this device may be computed later, or never: not where a check looks at each op's own numbers.
fn can_wait(device: &Device) -> bool {
    matches!(device, Device::Gpu(context) if !context.switches.looks_at_results())
}

/// Invocations that keep all of a device busy: a large GPU, or the few cores that software runs on. Weight gradients are
/// summed in no more chunks than that takes, since the partial sums of each are written and read again.
fn filling_invocations(context: &Context) -> usize {
    if context.facts().software { 2048 } else { 32768 }
}

/// What the partial sums of a weight gradient may take.
const MAX_PARTIAL_BYTES: usize = 16 << 20;
/// The same on a GPU for kernels that are done with a block so soon that it takes many to keep it busy: on matrix units, and of Winograd's
/// products, of which each is small.
const GPU_PARTIAL_BYTES: usize = 64 << 20;

/// Chunks that each of `ranges` launches of a weight gradient may sum separately, if a chunk's partial sums are
/// `partial_len` numbers: together they stay within so many bytes and within one binding, as long as that leaves one chunk.
fn chunks_with_room(context: &Context, partial_len: usize, ranges: usize, most_bytes: usize) -> usize {
    let room = most_bytes.min(context.max_binding_bytes() as usize);
    (room / (partial_len * 4) / ranges).max(1)
}

/// How the weight gradient of a linear layer cuts its rows into chunks. A range of images that is launched on its own begins
/// a chunk of its own.
struct RowChunks {
    /// Images of each launch.
    ranges: Vec<Range<usize>>,
    /// Rows of an image.
    per_image: usize,
    /// Rows of a chunk.
    rows: usize,
}

impl RowChunks {
    /// Rows summed by one invocation: short chains, and enough chunks to fill a GPU.
    const ROWS: usize = 128;

    /// For x and gy of `rows` rows, when a chunk's partial sums are `width` numbers: longer chunks where they would not fit.
    fn new(op: &'static str, context: &Context, [x, gy]: [&Tensor; 2], rows: usize, width: usize) -> Result<Self> {
        let ranges = x.device().image_ranges(op, &[x, gy])?;
        let per_image = rows / x.shape().dims()[0];
        let longest = ranges.iter().map(|images| images.len() * per_image).max().unwrap_or(1);
        let most = chunks_with_room(context, width, ranges.len(), MAX_PARTIAL_BYTES);
        Ok(Self { ranges, per_image, rows: Self::ROWS.max(longest.div_ceil(most)) })
    }

    /// Rows of these images.
    fn rows_of(&self, images: &Range<usize>) -> usize {
        images.len() * self.per_image
    }

    /// Chunks of these images.
    fn of(&self, images: &Range<usize>) -> usize {
        self.rows_of(images).div_ceil(self.rows)
    }

    /// All chunks.
    fn total(&self) -> usize {
        self.ranges.iter().map(|images| self.of(images)).sum()
    }
}

/// The shader of each op, for the checks that need no device; [`shaders`] has those of [`MORE_SHADERS`] too.
pub const SHADERS: &[Shader] = &[
    adam::SHADER,
    add::SHADER,
    batch_norm::SHADER,
    batch_norm_max_pool2d::SHADER,
    batch_norm_upsample_bilinear::SHADER,
    bce_dice::SHADER,
    clip_norm::SHADER,
    concat::SHADER,
    conv2d::SHADER,
    conv_transpose2d::SHADER,
    depthwise_conv2d::SHADER,
    ema::SHADER,
    gelu::SHADER,
    layer_norm::SHADER,
    linear::SHADER,
    load_batch::SHADER,
    max_pool2d::SHADER,
    metric_counts::SHADER,
    relu::SHADER,
    sgd::SHADER,
    shift::SHADER,
    shifted_linear::SHADER,
    sigmoid::SHADER,
    softmax::SHADER,
    sum_chunks::SHADER,
    transpose_weights::SHADER,
    unscale::SHADER,
    upsample_bilinear::SHADER,
    upsample_bilinear_concat::SHADER,
];

/// Shaders with further kernels of an op: the op, and the shader.
pub const MORE_SHADERS: &[(&str, Shader)] = &[
    ("conv2d", conv2d::BACKWARD),
    ("conv2d", conv2d::BEFORE_NORM),
    ("conv2d", conv2d_few::SHADER),
    ("conv2d", conv2d::JOINED),
    ("conv2d", conv2d::JOINED_BACKWARD),
    ("conv2d", conv2d::NORMED),
    ("conv2d", conv2d::NORMED_BACKWARD),
    ("conv2d", winograd::SHADER),
    ("conv2d", winograd_fused::SHADER),
    ("conv2d", winograd_weight::SHADER),
    ("conv_transpose2d", conv_transpose2d::NORMED),
    ("conv_transpose2d", conv_transpose2d::NORMED_BACKWARD),
    ("max_pool2d", max_pool2d::NORMED),
    ("shifted_linear", shifted_linear::BACKWARD),
];

/// Every shader.
pub fn shaders() -> impl Iterator<Item = &'static Shader> {
    SHADERS.iter().chain(MORE_SHADERS.iter().map(|(_, shader)| shader))
}

/// The op that a shader belongs to.
fn op_of(shader: &str) -> &str {
    MORE_SHADERS.iter().find(|(_, more)| more.name == shader).map_or(shader, |(op, _)| op)
}

/// What `show plan` and the debug ladder know of each op.
pub const PLANS: &[plan::Plan] = &[
    adam::PLAN,
    add::PLAN,
    batch_norm::PLAN,
    batch_norm_max_pool2d::PLAN,
    batch_norm_upsample_bilinear::PLAN,
    bce_dice::PLAN,
    clip_norm::PLAN,
    concat::PLAN,
    conv2d::PLAN,
    conv_transpose2d::PLAN,
    depthwise_conv2d::PLAN,
    ema::PLAN,
    gelu::PLAN,
    layer_norm::PLAN,
    linear::PLAN,
    load_batch::PLAN,
    max_pool2d::PLAN,
    metric_counts::PLAN,
    relu::PLAN,
    sgd::PLAN,
    shift::PLAN,
    shifted_linear::PLAN,
    sigmoid::PLAN,
    softmax::PLAN,
    sum_chunks::PLAN,
    transpose_weights::PLAN,
    unscale::PLAN,
    upsample_bilinear::PLAN,
    upsample_bilinear_concat::PLAN,
];

/// The fields of a host struct: name and WGSL type, 4 bytes each.
pub type Fields = &'static [(&'static str, &'static str)];

/// Shader, WGSL struct and the host's fields, for the test that compares both.
pub const UNIFORMS: &[(&str, &str, Fields)] = &[
    ("adam", "Params", crate::cpu::adam::AdamParams::FIELDS),
    ("add", "Params", crate::cpu::add::AddParams::FIELDS),
    ("add", "ReduceParams", crate::cpu::add::ReduceParams::FIELDS),
    ("batch_norm", "Params", crate::cpu::batch_norm::BatchNormParams::FIELDS),
    ("batch_norm_max_pool2d", "Params", crate::cpu::batch_norm_max_pool2d::BatchNormMaxPool2dParams::FIELDS),
    (
        "batch_norm_upsample_bilinear",
        "Params",
        crate::cpu::batch_norm_upsample_bilinear::BatchNormUpsampleBilinearParams::FIELDS,
    ),
    ("bce_dice", "Params", crate::cpu::bce_dice::BceDiceParams::FIELDS),
    ("clip_norm", "Params", crate::cpu::clip_norm::ClipNormParams::FIELDS),
    ("concat", "Params", crate::cpu::concat::ConcatParams::FIELDS),
    ("conv2d", "Params", crate::cpu::conv2d::Conv2dParams::FIELDS),
    ("conv2d_backward", "Params", crate::cpu::conv2d::Conv2dParams::FIELDS),
    ("conv2d_before_norm", "Params", crate::cpu::conv2d::Conv2dParams::FIELDS),
    ("conv2d_few", "Params", crate::cpu::conv2d::Conv2dParams::FIELDS),
    ("conv2d_joined", "Params", crate::cpu::conv2d::Conv2dParams::FIELDS),
    ("conv2d_joined_backward", "Params", crate::cpu::conv2d::Conv2dParams::FIELDS),
    ("conv2d_normed", "Params", crate::cpu::conv2d::Conv2dParams::FIELDS),
    ("conv2d_normed_backward", "Params", crate::cpu::conv2d::Conv2dParams::FIELDS),
    ("conv_transpose2d", "Params", crate::cpu::conv_transpose2d::ConvTranspose2dParams::FIELDS),
    ("conv_transpose2d_normed", "Params", crate::cpu::conv_transpose2d::ConvTranspose2dParams::FIELDS),
    ("conv_transpose2d_normed_backward", "Params", crate::cpu::conv2d::Conv2dParams::FIELDS),
    ("depthwise_conv2d", "Params", crate::cpu::depthwise_conv2d::DepthwiseConv2dParams::FIELDS),
    ("ema", "Params", crate::cpu::ema::EmaParams::FIELDS),
    ("layer_norm", "Params", crate::cpu::layer_norm::LayerNormParams::FIELDS),
    ("linear", "Params", crate::cpu::linear::LinearParams::FIELDS),
    ("load_batch", "Params", crate::cpu::load_batch::LoadBatchParams::FIELDS),
    ("max_pool2d", "Params", crate::cpu::max_pool2d::MaxPool2dParams::FIELDS),
    ("max_pool2d_normed", "Params", crate::cpu::max_pool2d::MaxPool2dNormedParams::FIELDS),
    ("metric_counts", "Params", crate::cpu::metric_counts::MetricCountsParams::FIELDS),
    ("sgd", "Params", crate::cpu::sgd::SgdParams::FIELDS),
    ("shift", "Params", crate::cpu::shift::ShiftParams::FIELDS),
    ("shifted_linear", "Params", crate::cpu::shifted_linear::ShiftedLinearParams::FIELDS),
    ("shifted_linear_backward", "Params", crate::cpu::shifted_linear::ShiftedLinearParams::FIELDS),
    ("softmax", "Params", crate::cpu::softmax::SoftmaxParams::FIELDS),
    ("sum_chunks", "Part", crate::cpu::sum_chunks::Part::FIELDS),
    ("transpose_weights", "Part", crate::cpu::transpose_weights::Part::FIELDS),
    ("unscale", "Params", crate::cpu::unscale::UnscaleParams::FIELDS),
    ("upsample_bilinear", "Params", crate::cpu::upsample_bilinear::UpsampleBilinearParams::FIELDS),
    ("upsample_bilinear_concat", "Params", crate::cpu::upsample_bilinear_concat::UpsampleBilinearConcatParams::FIELDS),
    ("winograd", "Params", winograd::WinogradParams::FIELDS),
    ("winograd_fused", "Params", winograd::WinogradParams::FIELDS),
    ("winograd_weight", "Params", winograd_weight::WinogradWeightParams::FIELDS),
];

/// What one invocation of the tile engine computes (`shaders/lib/gemm_tile.wgsl`, `gemm_block.wgsl`), and how the tiles of a
/// workgroup lie.
#[derive(Debug, Clone, Copy)]
struct Tile {
    rows: usize,
    columns: usize,
    /// Tiles side by side in a block that reads through workgroup memory; 1 where each invocation reads for itself.
    block: usize,
    /// Invocations that share the terms of a tile of a block.
    split: usize,
}

impl Tile {
    /// `TILE_M` rows and `TILE_N` vectors of four columns.
    fn of(kernel: Kernel) -> Self {
        let number = |name, usual| kernel.number(name, usual);
        let (rows, columns) = (number("TILE_M", 8), 4 * number("TILE_N", 2));
        Self { rows, columns, block: number(BLOCK, 1), split: number(SPLIT, 1) }
    }

    /// Workgroups that cover a matrix.
    fn groups(self, rows: usize, columns: usize) -> usize {
        match self.block {
            1 => (rows.div_ceil(self.rows) * (columns / self.columns)).div_ceil(WORKGROUP),
            _ => self.sums_groups(rows, columns),
        }
    }

    /// Blocks that cover the weights of a layer for one chunk, and its bias.
    fn weight_groups(self, rows: usize, columns: usize) -> usize {
        (rows.div_ceil(self.group_rows(columns)) + 1) * self.groups_across(columns)
    }

    /// Workgroups that sum up the weights of a linear layer, and its bias, in so many chunks of its rows.
    fn linear_weight_groups(self, inputs: usize, outputs: usize, chunks: usize) -> usize {
        match self.block {
            1 => (chunks * (inputs / 8 + 1) * (outputs / 8)).div_ceil(WORKGROUP),
            _ => chunks * self.weight_groups(inputs, outputs),
        }
    }

    /// Tiles side by side in a workgroup that sums something up (`shaders/lib/tile_groups.wgsl`), and in a block.
    fn group_side(self, columns: usize) -> usize {
        match self.block {
            1 => (1 << (columns / self.columns).trailing_zeros()).min(WORKGROUP),
            block => block,
        }
    }

    /// Rows of such a workgroup.
    fn group_rows(self, columns: usize) -> usize {
        self.rows * (WORKGROUP / self.group_side(columns))
    }

    /// Such workgroups side by side.
    fn groups_across(self, columns: usize) -> usize {
        (columns / self.columns).div_ceil(self.group_side(columns))
    }

    /// Such workgroups that cover a matrix.
    fn sums_groups(self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.group_rows(columns)) * self.groups_across(columns)
    }

    /// Bytes of workgroup memory of a block: its slabs, and what it sums up at the end.
    fn memory(self) -> usize {
        let (slab, rows4, columns4) =
            (2 * self.block, WORKGROUP / self.block * self.rows / 4, self.block * self.columns / 4);
        16 * (self.split * (slab + 1) * (rows4 + columns4) + 2 * WORKGROUP * self.columns / 4)
    }

    /// # Errors
    /// [`Error::Shape`](crate::Error) if tiles do not fit the channels.
    fn check(self, op: &'static str, kernel: Kernel, channels: usize) -> crate::Result<()> {
        if kernel.version == Version::V1 || channels.is_multiple_of(self.columns) {
            return Ok(());
        }
        let message = format!("{kernel} needs channels that divide by {}, got {channels}", self.columns);
        Err(crate::Error::shape(op, message))
    }
}

/// Two sums for each channel of an image batch by chunks of pixels, which the workgroups that make it leave
/// (`shaders/lib/tile_groups.wgsl`).
#[derive(Debug)]
struct Chunks {
    /// The place for them: `[2, C, chunks]`.
    sums: Tensor,
    /// Pixels of a chunk.
    pixels: usize,
    /// Pixels of an image.
    image: usize,
}

impl Chunks {
    /// The place for those of chunks of so many pixels; `None` if one of them would have pixels of two launches.
    fn of(op: &'static str, images: &Tensor, pixels: usize, launches: usize) -> Result<Option<Self>> {
        let [n, h, w, c] = images.shape().nhwc(op)?;
        if launches > 1 && !(h * w).is_multiple_of(pixels) {
            return Ok(None);
        }
        let sums = images.device().empty(op, [2, c, (n * h * w).div_ceil(pixels)])?;
        Ok(Some(Self { sums, pixels, image: h * w }))
    }

    /// For a launch of these images: the chunks before it, and all.
    fn of_images(&self, images: &Range<usize>) -> (u32, u32) {
        ((images.start * self.image / self.pixels) as u32, self.sums.shape().last() as u32)
    }

    /// As the statistics of what has been made.
    fn summed(self) -> Arc<Summed> {
        Arc::new(Summed::Statistics { partials: self.sums, chunk: self.pixels })
    }
}

/// Which kernel of an op runs, where there is more than one. `V1` is the naive one, kept because it teaches and
/// because the others are measured against it. An op's own `select` chooses from the shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// The naive kernel; it takes any shape.
    V1,
    /// Reads four channels at a time (`vec4`); the channels must divide by 4.
    V2,
}

impl Version {
    /// Four numbers, or channels, at a time where so many divide by 4.
    pub fn by_fours(count: usize) -> Self {
        if count.is_multiple_of(4) { Self::V2 } else { Self::V1 }
    }

    /// `v1`, `v2`: as in the names of the entry points.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::shader::TOGETHER;

    /// The host counts tiles with the numbers that the shaders have.
    #[test]
    fn usual_tiles_are_those_of_the_file() {
        for shader in [conv2d::SHADER, linear::SHADER, shifted_linear::SHADER, conv_transpose2d::SHADER] {
            let usual: Vec<_> = shader.tunables().iter().map(|tunable| (tunable.name, tunable.usual)).collect();
            let tile = Tile::of(Version::V2.into());
            let [rows, vectors] = [tile.rows, tile.columns / 4].map(|number| number as u32);
            let [block, split] = [tile.block, tile.split].map(|number| number as u32);
            let of_tile = [("TILE_M", rows), ("TILE_N", vectors), (BLOCK, block), (SPLIT, split), (TOGETHER, 1)];
            assert_eq!(usual, of_tile, "{}", shader.name);
        }
    }
}
