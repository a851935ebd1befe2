//! Version 3 of the 3x3 convolution with stride 1, and of its input gradient: Winograd's F(4x2, 3x3).
//!
//! 4x2 pixels of the result take 24 products for each pair of channels, where the plain sum takes 72:
//! `y = A^T [(G g G^T) * (B^T d B)] A + bias`, with the 3x3 weights g, the 6x4 pixels d under them, and an element-wise
//! product that is summed over the input channels: twenty-four matrix products. (The matrices on the left are those of
//! F(4, 3), those on the right of F(2, 3).)
//!
//! Three launches for each slab: `transform_input` (and, once, the weights), `forward_v3`, `transform_output`. What stands
//! between them is three times as large as x and y; slabs of tiles keep it below [`scratch_bytes`]. The rounding errors are
//! 1.7 to 3 times those of the plain sum (root mean square, 256 to 16 channels). F(2x2, 3x3) would all but halve them for a third
//! more of products and memory; F(4x4, 3x3) would double them for a quarter less.
//!
//! The products read as other matrix products do: each invocation for itself, or with its neighbours (`TOGETHER`), or through workgroup
//! memory (`BLOCK` above 1, `shaders/lib/gemm_block.wgsl`), which is for GPUs.
//!
//! <details><summary>shaders/winograd.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/winograd.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/lib/winograd.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/lib/winograd.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/lib/winograd_tall.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/lib/winograd_tall.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/lib/winograd_product.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/lib/winograd_product.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/lib/winograd_product_block.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/lib/winograd_product_block.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/lib/winograd_forward.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/lib/winograd_forward.wgsl")]
//! ```
//! </details>

use super::choice::{Product, all_lanes};
use super::conv2d::{Gather, GatherKernel, Source};
use super::{Kernel, Tile};
use crate::cpu::conv2d::Conv2dParams;
use crate::cpu::uniform;
use crate::gpu::shader::shader;
use crate::gpu::{Constants, Context, Shader};
use crate::tensor::Device;
use crate::{Error, Result};

const OP: &str = "conv2d";
pub(super) const SHADER: Shader = shader!("winograd");

/// The transformed tiles of a slab and their products take at most so much, as long as that leaves eight tiles. On a
/// processor they then stay in its last cache. A large GPU is filled by no less: on an H200, weight gradients of 64 to 512 channels
/// took 5 to 1.3 times as long with 32 MiB (bench/results/2026-11-27-h200.md).
pub fn scratch_bytes(context: &Context) -> usize {
    if context.facts().software { 32 << 20 } else { 256 << 20 }
}

/// Products for one tile and pair of channels.
pub(super) const FREQUENCIES: usize = 24;
/// Rows of pixels of a tile, which has two columns.
pub(super) const TILE_ROWS: usize = 4;
/// Tiles of a group: the rows of a tile of the products.
const GROUP: usize = 8;

uniform! {
    /// Sizes of the gather, and of the slab that a launch works on.
    WinogradParams {
        /// Rows of the source.
        in_h: u32,
        /// Columns of the source.
        in_w: u32,
        /// Channels of the source.
        in_c: u32,
        /// Rows of the result.
        out_h: u32,
        /// Columns of the result.
        out_w: u32,
        /// Channels of the result.
        out_c: u32,
        /// Rows of zeros above.
        pad_h: i32,
        /// Columns of zeros to the left.
        pad_w: i32,
        /// 1 if there is a bias.
        has_bias: u32,
        /// 1 if the result is added to what stands there.
        accumulate: u32,
        /// Rows of tiles of an image.
        tiles_y: u32,
        /// Quads (four tiles side by side) of a row of tiles.
        quads_x: u32,
        /// Quads before the slab.
        first_quad: u32,
        /// Quads of the launch.
        quads: u32,
        /// Groups (two quads) of the slab.
        groups: u32,
        /// Pairs of channels whose weights are transformed.
        kernels: u32,
        /// 1 if x is normalised where it is read.
        normed: u32,
        /// Channels of the first part of a joined x; else all.
        split: u32,
        /// Normalised numbers below this are 0.
        floor: f32,
        /// Of the statistics that a workgroup leaves of its pixels: chunks before this launch's.
        sums_first: u32,
        /// And those of all launches.
        sums_chunks: u32,
    }
}

impl WinogradParams {
    /// Of a launch without quads and kernels, for tiles of so many rows.
    pub(super) fn new(p: &Conv2dParams, source: Source<'_>, tile_rows: usize) -> Self {
        Self {
            in_h: p.in_h,
            in_w: p.in_w,
            in_c: p.in_c,
            out_h: p.out_h,
            out_w: p.out_w,
            out_c: p.out_c,
            pad_h: p.pad_h,
            pad_w: p.pad_w,
            has_bias: p.has_bias,
            accumulate: p.accumulate,
            tiles_y: p.out_h.div_ceil(tile_rows as u32),
            quads_x: p.out_w.div_ceil(8),
            first_quad: 0,
            quads: 0,
            groups: 0,
            kernels: 0,
            normed: source.table().is_some().into(),
            split: source.split(p),
            floor: p.floor,
            sums_first: 0,
            sums_chunks: 0,
        }
    }

    /// Quads of so many images.
    pub(super) fn quads_of(&self, images: usize) -> usize {
        images * (self.tiles_y * self.quads_x) as usize
    }
}

/// Whether this is a 3x3 kernel with stride 1.
pub(super) fn is_3x3(p: &Conv2dParams) -> bool {
    p.kernel_h == 3 && p.kernel_w == 3 && p.multiply == 1 && p.divide == 1
}

/// Whether this is a gather that `v3` can compute.
pub fn takes(p: &Conv2dParams) -> bool {
    is_3x3(p) && p.out_c.is_multiple_of(8)
}

/// Whether the transformed weights and a group of tiles fit into bindings of this device.
pub(super) fn fits(device: &Device, p: &Conv2dParams) -> bool {
    let Device::Gpu(context) = device else { return false };
    let (in_c, out_c) = (p.in_c as usize, p.out_c as usize);
    let largest = 4 * FREQUENCIES * (in_c * out_c).max(GROUP * in_c.max(out_c));
    largest as u64 <= context.max_binding_bytes()
}

/// Whether it is usually faster than register tiles. On software Vulkan it is, up to 2.2 times, where there is enough to
/// multiply that the gain is worth two more launches (measured). On a GPU it moves many
/// bytes: on an H100 it was half as fast as tiles in blocks before its products had blocks, too (those have not been timed there), and
/// [`winograd_fused`](super::winograd_fused), which moves few, three quarters. `tune` finds out.
pub(super) fn is_usual(device: &Device, p: &Conv2dParams) -> bool {
    let software = matches!(device, Device::Gpu(context) if context.facts().software);
    software && takes(p) && fits(device, p) && pays(p)
}

/// Tiles that cover the result.
pub(super) fn tiles(p: &Conv2dParams) -> usize {
    (p.batch * p.out_h.div_ceil(TILE_ROWS as u32) * p.out_w.div_ceil(2)) as usize
}

/// How many of `most` groups of so many tiles a slab has: as few slabs as there is room for, all of one size.
pub(super) fn slab(context: &Context, most: usize, group: usize, [in_c, out_c]: [usize; 2]) -> usize {
    let bytes = |channels: usize| 4 * FREQUENCIES * group * channels;
    let room = scratch_bytes(context) / bytes(in_c + out_c);
    let room = room.min(context.max_binding_bytes() as usize / bytes(in_c.max(out_c))).max(1);
    most.div_ceil(most.div_ceil(room).max(1))
}

fn pays(p: &Conv2dParams) -> bool {
    tiles(p) * p.in_c as usize * p.out_c as usize >= 1 << 16
}

/// Its kernels for a gather: one for each way in which the products read.
pub(super) fn kernels(device: &Device, p: &Conv2dParams) -> Vec<GatherKernel> {
    if !takes(p) || !fits(device, p) {
        return Vec::new();
    }
    let products = Product::of_layer(FREQUENCIES * tiles(p), p.in_c as usize, p.out_c as usize);
    all_lanes(device).chain(products.blocks(device)).map(GatherKernel::Winograd).collect()
}

/// Launches the gather.
pub(super) fn gather(of: &Gather<'_>, constants: Constants) -> Result<()> {
    let Gather { p, source, weight, bias, y, .. } = *of;
    let Device::Gpu(context) = y.device() else {
        return Err(Error::shape(OP, "v3 is no kernel of the CPU".to_owned()));
    };
    if !takes(p) || !fits(y.device(), p) {
        let message = format!(
            "v3 needs a 3x3 kernel, stride 1 and channels that divide by 8, and its weights fit a binding; got {p:?}"
        );
        return Err(Error::shape(OP, message));
    }
    let device = y.device();
    let (in_c, out_c) = (p.in_c as usize, p.out_c as usize);
    let ranges = source.ranges(&[y])?;
    let images = ranges.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
    let sizes = WinogradParams::new(p, source, TILE_ROWS);
    let slab = slab(context, sizes.quads_of(images).div_ceil(2), GROUP, [in_c, out_c]);
    let u = device.empty(OP, [FREQUENCIES, in_c, out_c])?;
    let v = device.empty(OP, [FREQUENCIES, slab, in_c, GROUP])?;
    let m = device.empty(OP, [FREQUENCIES, slab, GROUP, out_c])?;
    let bias = bias.unwrap_or(weight).detach(); // without a bias the binding is not read, nor the table without a norm
    let table = source.table().unwrap_or(weight);
    let tile = Tile::of(Kernel::tiled(constants));
    let mut kernels = in_c * out_c; // to transform
    for images in &ranges {
        let y = y.images(images);
        let x = source.images(images);
        let all = sizes.quads_of(images.len());
        for first in (0..all).step_by(2 * slab) {
            let quads = (all - first).min(2 * slab);
            let groups = quads.div_ceil(2);
            let params = WinogradParams {
                first_quad: first as u32,
                quads: quads as u32,
                groups: groups as u32,
                kernels: kernels as u32,
                ..sizes
            };
            let launch = |entry| SHADER.entry(entry).params(&params);
            launch("transform_input")
                .reads([&x[0], weight, table, x.last().unwrap_or(weight)])
                .writes([&v, &u])
                .over(kernels + quads * in_c)?;
            launch("forward_v3").constants(constants).reads([&v, &u]).writes([&m]).groups(match tile.block {
                1 => tile.groups(FREQUENCIES * GROUP * groups, out_c), // a workgroup may have tiles of two products
                _ => FREQUENCIES * tile.groups(GROUP * groups, out_c),
            })?;
            launch("transform_output").reads([&m, &bias]).writes([&y]).over(4 * quads * out_c / 4)?;
            kernels = 0;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(kernel: usize, stride: usize, [in_c, out_c]: [usize; 2]) -> Conv2dParams {
        Conv2dParams::forward([1, 8, 8, in_c], [kernel, kernel, in_c, out_c], stride, 1, true)
    }

    #[test]
    fn only_3x3_with_stride_1_is_taken() {
        assert!(takes(&params(3, 1, [5, 8])));
        assert!(!takes(&params(1, 1, [8, 8])) && !takes(&params(3, 2, [8, 8])) && !takes(&params(3, 1, [8, 5])));
    }

    #[test]
    fn it_pays_with_much_to_multiply() {
        let of = |batch, channels| Conv2dParams { batch, ..params(3, 1, channels) }; // 8 tiles an image
        assert!(pays(&of(8, [16, 64])) && pays(&of(8, [64, 16]).input_gradient()) && pays(&of(2, [64, 64])));
        assert!(!pays(&of(7, [16, 64])) && !pays(&of(1, [64, 64])) && !pays(&of(8, [8, 64])));
    }

    #[test]
    fn it_is_not_usual_on_a_gpu() -> Result<()> {
        let device = Device::plan(None)?;
        let p = Conv2dParams { batch: 64, ..params(3, 1, [64, 64]) };
        assert!(fits(&device, &p) && pays(&p) && !is_usual(&device, &p));
        Ok(())
    }
}
