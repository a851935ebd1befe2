//! Version 5 of the weight gradient of the 3x3 convolution with stride 1: Winograd's F(4x2, 3x3), as
//! [`winograd`](super::winograd) for the other two thirds of a layer's work.
//!
//! Forward is `y = A^T [(G w G^T) * (B^T d B)] A`, with the 6x4 pixels d under a tile of 4x2 pixels of y. It is linear in w, so its
//! gradient is `gw = G^T [sum over tiles of (A g A^T) * (B^T d B)] G`, with the 4x2 pixels g of gy: 24 products a tile and pair of
//! channels, where the plain sum takes 72. The sums are 24 weight gradients of a
//! [linear](mod@super::linear) layer whose rows are tiles, and the kernels of that layer compute them.
//!
//! Two launches for each slab of tiles (`transform_both`, and `linear`'s `backward_weight_v2` for all of them), and `backward_weight_v5` at
//! the end. What stands between them is three times as large as x and gy; slabs keep it below
//! [`scratch_bytes`](super::winograd::scratch_bytes).
//!
//! <details><summary>shaders/winograd_weight.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/winograd_weight.wgsl")]
//! ```
//! </details>

use std::ops::Range;

use super::choice::{all_lanes, worth_trying};
use super::conv2d::{Source, WeightKernel};
use super::winograd::{FREQUENCIES, TILE_ROWS, is_3x3, slab, tiles};
use super::{GPU_PARTIAL_BYTES, Kernel, MAX_PARTIAL_BYTES, chunks_with_room, linear};
use crate::autograd::Wanted;
use crate::cpu::conv2d::Conv2dParams;
use crate::cpu::linear::LinearParams;
use crate::cpu::uniform;
use crate::gpu::shader::shader;
use crate::gpu::{Constants, Context, Shader};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "conv2d";
pub(super) const SHADER: Shader = shader!("winograd_weight");

/// Tiles summed by one invocation: short chains of additions.
const CHUNK_TILES: usize = 512;
/// The products with the sums of each row of gy at four points, of which the gradient of the bias is made: the first of them.
const OF_BIAS: u32 = 7;
/// And how many.
const POINTS_OF_BIAS: u32 = 4;

uniform! {
    /// Sizes of the convolution, and of the slab that a launch works on.
    WinogradWeightParams {
        /// Rows of x.
        in_h: u32,
        /// Columns of x.
        in_w: u32,
        /// Channels of x.
        in_c: u32,
        /// Rows of gy.
        out_h: u32,
        /// Columns of gy.
        out_w: u32,
        /// Channels of gy.
        out_c: u32,
        /// Rows of zeros above.
        pad_h: i32,
        /// Columns of zeros to the left.
        pad_w: i32,
        /// Rows of tiles of an image.
        tiles_y: u32,
        /// Tiles of a row.
        tiles_x: u32,
        /// Tiles before the slab.
        first_tile: u32,
        /// Tiles of the slab.
        tiles: u32,
        /// And with those that fill its last chunk.
        rows: u32,
        /// Chunks of a slab.
        chunks: u32,
        /// Slabs.
        slabs: u32,
        /// 1 if x is normalised where it is read.
        normed: u32,
        /// Channels of the first part of a joined x; else all.
        split: u32,
        /// Normalised numbers below this are 0.
        floor: f32,
    }
}

/// Whether this is a convolution whose weight gradient it can compute.
pub fn takes(p: &Conv2dParams) -> bool {
    is_3x3(p) && p.in_c.is_multiple_of(8) && p.out_c.is_multiple_of(8)
}

/// Its kernels: one for each way in which a linear layer sums up weights.
pub(super) fn kernels(device: &Device, p: &Conv2dParams) -> Vec<WeightKernel> {
    if !takes(p) || !fits(device, p) {
        return Vec::new();
    }
    let rows = FREQUENCIES * tiles(p);
    let blocks = linear::weight_product(rows, p.in_c as usize, p.out_c as usize).blocks(device);
    let blocks = worth_trying(device, blocks, |_| true); // those of small tiles are checked with the linear layer
    all_lanes(device).chain(blocks).map(WeightKernel::V5).collect()
}

/// Whether the sums of all products fit into one binding. Images that do not fit into one make more slabs.
pub(super) fn fits(device: &Device, p: &Conv2dParams) -> bool {
    let Device::Gpu(context) = device else { return false };
    let image_bytes = 4 * u64::from((p.in_h * p.in_w * p.in_c).max(p.out_h * p.out_w * p.out_c));
    let (batch, most) = (p.batch as usize, (context.max_binding_bytes() / image_bytes).max(1) as usize);
    let ranges = (0..batch).step_by(most).map(|first| first..(first + most).min(batch));
    Cut::new(context, p, ranges.collect()).fits(context)
}

/// Whether it is usually faster than tiles: on software Vulkan it is where there are enough tiles and channels for what the
/// transforms cost (measured).
pub(super) fn is_usual(device: &Device, p: &Conv2dParams) -> bool {
    let software = matches!(device, Device::Gpu(context) if context.facts().software);
    software && takes(p) && fits(device, p) && pays(p)
}

fn pays(p: &Conv2dParams) -> bool {
    tiles(p) >= 32 && p.in_c.min(p.out_c) >= 16
}

/// How the tiles are cut into slabs, and those into chunks. A range of images that is launched on its own begins a slab of its
/// own.
struct Cut {
    ranges: Vec<Range<usize>>,
    /// Tiles of an image.
    image: usize,
    /// Tiles of a slab at most.
    slab: usize,
    /// Chunks of a slab.
    chunks: usize,
    /// Rows of a chunk.
    chunk_rows: usize,
    /// All slabs.
    slabs: usize,
    /// Sums of a chunk.
    width: usize,
}

impl Cut {
    fn new(context: &Context, p: &Conv2dParams, ranges: Vec<Range<usize>>) -> Self {
        let image = tiles(p) / p.batch as usize;
        let [in_c, out_c] = [p.in_c, p.out_c].map(|channels| channels as usize);
        let most = ranges.iter().map(ExactSizeIterator::len).max().unwrap_or(1) * image;
        let slab = slab(context, most, 1, [in_c, out_c]);
        let slabs = ranges.iter().map(|images| (images.len() * image).div_ceil(slab)).sum();
        let width = (in_c + 1) * out_c;
        let room = if context.facts().software { MAX_PARTIAL_BYTES } else { GPU_PARTIAL_BYTES };
        let most_chunks = chunks_with_room(context, FREQUENCIES * width, slabs, room);
        let chunks = slab.div_ceil(CHUNK_TILES).min(most_chunks);
        Self { ranges, image, slab, chunks, chunk_rows: slab.div_ceil(chunks), slabs, width }
    }

    /// Rows of a slab: its tiles, and those that fill its last chunk.
    fn rows(&self) -> usize {
        self.chunks * self.chunk_rows
    }

    /// Chunks of all slabs and products, and sums of each.
    fn table(&self) -> [usize; 2] {
        [self.slabs * FREQUENCIES * self.chunks, self.width]
    }

    /// Whether the table fits into one binding.
    fn fits(&self, context: &Context) -> bool {
        (4 * self.table().iter().product::<usize>()) as u64 <= context.max_binding_bytes()
    }
}

/// The weight gradient as a table of one chunk.
///
/// # Errors
/// [`Error::Shape`] if it does not take the sizes; else as the launches.
pub(super) fn table(
    context: &Context,
    p: &Conv2dParams,
    source: Source<'_>,
    gy: &Tensor,
    gradients: &[&Tensor],
    constants: Constants,
    wanted: &Wanted<'_>,
) -> Result<Tensor> {
    let device = gy.device();
    let cut = Cut::new(context, p, source.ranges(&[gy])?);
    if !takes(p) || !cut.fits(context) {
        let message = format!(
            "weight gradient v5 needs a 3x3 kernel, stride 1 and channels that divide by 8, and its sums fit a binding; got {p:?}"
        );
        return Err(Error::shape(OP, message));
    }
    let (in_c, out_c) = (p.in_c as usize, p.out_c as usize);
    let rows = cut.rows();
    let v = device.empty(OP, [FREQUENCIES * rows, in_c])?;
    let n = device.empty(OP, [FREQUENCIES * rows, out_c])?;
    let sums = device.empty(OP, cut.table())?;
    let sizes = WinogradWeightParams {
        in_h: p.in_h,
        in_w: p.in_w,
        in_c: p.in_c,
        out_h: p.out_h,
        out_w: p.out_w,
        out_c: p.out_c,
        pad_h: p.pad_h,
        pad_w: p.pad_w,
        tiles_y: p.out_h.div_ceil(TILE_ROWS as u32),
        tiles_x: p.out_w.div_ceil(2),
        first_tile: 0,
        tiles: 0,
        rows: rows as u32,
        chunks: cut.chunks as u32,
        slabs: cut.slabs as u32,
        normed: source.table().is_some().into(),
        split: source.split(p),
        floor: p.floor,
    };
    let kernel = Kernel::tiled(constants);
    let mut slabs = 0; // before this one
    for images in &cut.ranges {
        let (x, gy) = (source.images(images), gy.images(images));
        let table = source.table().unwrap_or(&gy); // not read without a norm
        let tiles = images.len() * cut.image;
        for first in (0..tiles).step_by(cut.slab) {
            let params =
                WinogradWeightParams { first_tile: first as u32, tiles: (tiles - first).min(cut.slab) as u32, ..sizes };
            SHADER
                .entry("transform_both")
                .params(&params)
                .reads([&x[0], &gy, table, x.last().unwrap_or(&gy)])
                .writes([&v, &n])
                .over(rows * (in_c + out_c) / 4)?;
            let chunks = cut.chunks as u32;
            let of_products = LinearParams {
                rows: (FREQUENCIES * rows) as u32,
                inputs: p.in_c,
                outputs: p.out_c,
                has_bias: p.has_bias,
                chunk_rows: cut.chunk_rows as u32,
                first_chunk: (slabs * FREQUENCIES) as u32 * chunks,
                bias_from: OF_BIAS * chunks,
                bias_to: (OF_BIAS + POINTS_OF_BIAS * p.has_bias) * chunks,
            };
            linear::sum_weights(&of_products, [&v, &n], &sums, kernel)?;
            slabs += 1;
        }
    }
    let partial = wanted.chunk_table(OP, [1, (9 * in_c + 1) * out_c], gradients)?;
    SHADER
        .entry("backward_weight_v5")
        .params(&sizes)
        .reads([&sums])
        .writes([&partial])
        .over((in_c + p.has_bias as usize) * out_c / 4)?;
    Ok(partial)
}

#[cfg(test)]
mod tests {
    use super::super::winograd::scratch_bytes;
    use super::*;

    fn params(kernel: usize, stride: usize, [in_c, out_c]: [usize; 2]) -> Conv2dParams {
        Conv2dParams::forward([2, 16, 16, in_c], [kernel, kernel, in_c, out_c], stride, 1, true)
    }

    #[test]
    fn only_3x3_with_stride_1_and_whole_tiles_is_taken() {
        assert!(takes(&params(3, 1, [8, 16])));
        for other in [params(1, 1, [8, 8]), params(3, 2, [8, 8]), params(3, 1, [4, 8]), params(3, 1, [8, 4])] {
            assert!(!takes(&other), "{other:?}");
        }
    }

    #[test]
    fn it_pays_with_many_channels_and_tiles() {
        let few = Conv2dParams { batch: 1, out_h: 8, out_w: 8, ..params(3, 1, [16, 64]) };
        assert!(pays(&params(3, 1, [16, 64])) && !pays(&params(3, 1, [8, 64])) && !pays(&few));
    }

    #[test]
    fn it_is_not_usual_on_a_gpu() -> Result<()> {
        let device = Device::plan(None)?;
        let p = Conv2dParams { batch: 64, ..params(3, 1, [64, 64]) };
        assert!(fits(&device, &p) && pays(&p) && !is_usual(&device, &p));
        Ok(())
    }

    /// Every tile is in a chunk, chunks are short where there is room, and scratch stays within its bytes.
    #[test]
    fn slabs_and_chunks_hold_all_tiles() -> Result<()> {
        let Device::Gpu(context) = Device::plan(None)? else { unreachable!("a plan is a GPU's") };
        for (batch, size, channels) in [(2, 128, [64, 64]), (8, 16, [512, 512]), (1, 7, [8, 8]), (3, 33, [24, 40])] {
            let image = [batch, size, size, channels[0]];
            let p = Conv2dParams::forward(image, [3, 3, channels[0], channels[1]], 1, 1, true);
            let cut = Cut::new(&context, &p, std::iter::once(0..batch).collect());
            assert!(cut.slabs * cut.slab >= tiles(&p) && (cut.slabs - 1) * cut.slab < tiles(&p), "{p:?}");
            assert!(cut.rows() >= cut.slab && cut.rows() < cut.slab + cut.chunks, "{p:?}");
            assert!(cut.chunk_rows <= CHUNK_TILES, "{p:?}: {} rows", cut.chunk_rows);
            assert!(4 * FREQUENCIES * cut.slab * (channels[0] + channels[1]) <= scratch_bytes(&context), "{p:?}");
        }
        Ok(())
    }
}
