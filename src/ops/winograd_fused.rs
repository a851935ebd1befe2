//! Version 7 of the 3x3 convolution with stride 1, and of its input gradient: Winograd's F(2x2, 3x3) in one kernel.
//!
//! [`winograd`], version 3, writes the transformed tiles and their products to memory, three times as large as x and y, and
//! reads them again. Here a workgroup has a block of tiles and channels of y, makes the transformed tiles as it goes, a few
//! channels at a time, and keeps the products in registers; both go through workgroup memory only. Of memory it reads x, and
//! writes y. The transformed weights it reads from memory too: they are the same for every block of tiles, and a small launch
//! of its own makes them.
//!
//! On software Vulkan, where there is no workgroup memory, it takes 2.6 times as long as version 3 (measured): it is for
//! GPUs, where `tune` tries it; usual on NVIDIA's for large images (`src/ops/priors.rs`).
//!
//! <details><summary>shaders/winograd_fused.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/winograd_fused.wgsl")]
//! ```
//! </details>

use super::conv2d::{Gather, GatherKernel};
use super::winograd::{self, WinogradParams};
use crate::cpu::conv2d::Conv2dParams;
use crate::gpu::shader::shader;
use crate::gpu::{Constants, Shader};
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "conv2d";
pub(super) const SHADER: Shader = shader!("winograd_fused");

/// Products for one tile and pair of channels.
const FREQUENCIES: usize = 16;
/// Rows of pixels of a tile, which has two columns.
const TILE_ROWS: usize = 2;

/// Whether this is a gather that it can compute.
pub fn takes(p: &Conv2dParams) -> bool {
    winograd::is_3x3(p) && p.out_c.is_multiple_of(4)
}

/// Whether the transformed weights fit a binding of this device.
fn fits(device: &Device, p: &Conv2dParams) -> bool {
    let bytes = 4 * FREQUENCIES as u64 * u64::from(p.in_c) * u64::from(p.out_c);
    matches!(device, Device::Gpu(context) if bytes <= context.max_binding_bytes())
}

/// Whether a device can run a block of these sizes for this gather.
pub(super) fn runs(device: &Device, p: &Conv2dParams, constants: Constants) -> bool {
    takes(p) && fits(device, p) && Block::of(constants).runs_on(device)
}

/// Its kernels for a gather: one for each size of a block.
pub(super) fn kernels(device: &Device, p: &Conv2dParams) -> impl Iterator<Item = GatherKernel> {
    SHADER.variants().into_iter().filter(|constants| runs(device, p, *constants)).map(GatherKernel::Fused)
}

/// What a workgroup computes.
struct Block {
    /// Quads, which are four tiles side by side.
    quads: usize,
    /// Vectors of four channels.
    vectors: usize,
}

impl Block {
    fn of(constants: Constants) -> Self {
        Self { quads: constants.number("QUADS", 8), vectors: constants.number("VECTORS", 8) }
    }

    /// Whether a device has the invocations and the workgroup memory.
    fn runs_on(&self, device: &Device) -> bool {
        let Device::Gpu(context) = device else { return false };
        let bytes = FREQUENCIES * self.vectors * self.quads * 16;
        4 * self.quads * self.vectors <= context.facts().workgroup_invocations as usize
            && bytes <= context.workgroup_bytes() as usize
    }

    /// Pixels of a block of whole quads.
    fn pixels(&self) -> usize {
        16 * self.quads
    }

    /// Blocks that cover a result.
    fn count(&self, quads: usize, channels: usize) -> usize {
        quads.div_ceil(self.quads) * channels.div_ceil(4 * self.vectors)
    }
}

/// Pixels of a chunk of statistics, if it can make those of y: where all quads are whole. A chunk's pixels are no neighbours
/// in memory, which nobody needs them to be.
pub(super) fn chunk(y: &Tensor, constants: Constants) -> Option<usize> {
    let [_, height, width, _] = *y.shape().dims() else { return None };
    (height.is_multiple_of(2) && width.is_multiple_of(8)).then(|| Block::of(constants).pixels())
}

/// Launches the gather.
pub(super) fn gather(of: &Gather<'_>, constants: Constants) -> Result<()> {
    let Gather { p, source, weight, bias, y, statistics } = *of;
    let device = y.device();
    if !takes(p) || !fits(device, p) {
        let message = format!(
            "v7 needs a 3x3 kernel, stride 1 and channels that divide by 4, and its weights fit a binding; got {p:?}"
        );
        return Err(Error::shape(OP, message));
    }
    let (in_c, out_c) = (p.in_c as usize, p.out_c as usize);
    let sizes = WinogradParams::new(p, source, TILE_ROWS);
    let u = device.empty(OP, [FREQUENCIES, in_c, out_c])?;
    let kernels = in_c * out_c;
    SHADER
        .entry("transform_weights")
        .params(&WinogradParams { kernels: kernels as u32, ..sizes })
        .reads([weight])
        .writes([&u])
        .over(kernels)?;
    // Without a bias that binding is not read, nor the table without a norm, nor the second part of an x without one.
    let (bias, table) = (bias.unwrap_or(weight), source.table().unwrap_or(weight));
    let entry = if statistics.is_some() { "forward_statistics_v7" } else { "forward_v7" };
    for images in source.ranges(&[y])? {
        let x = source.images(&images);
        let quads = sizes.quads_of(images.len());
        let mut params = WinogradParams { quads: quads as u32, ..sizes };
        if let Some(statistics) = statistics {
            (params.sums_first, params.sums_chunks) = statistics.of_images(&images);
        }
        SHADER
            .entry(entry)
            .constants(constants)
            .params(&params)
            .reads([&x[0], &u, table, x.last().unwrap_or(weight), bias])
            .writes([&y.images(&images)])
            .writes(statistics.map(|statistics| &statistics.sums))
            .groups(Block::of(constants).count(quads, out_c))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn params(kernel: usize, stride: usize, [in_c, out_c]: [usize; 2]) -> Conv2dParams {
        Conv2dParams::forward([1, 8, 8, in_c], [kernel, kernel, in_c, out_c], stride, 1, true)
    }

    #[test]
    fn only_3x3_with_stride_1_is_taken() {
        assert!(takes(&params(3, 1, [5, 12])) && takes(&params(3, 1, [4, 5]).input_gradient()));
        assert!(!takes(&params(1, 1, [8, 8])) && !takes(&params(3, 2, [8, 8])) && !takes(&params(3, 1, [8, 6])));
    }

    #[test]
    fn usual_blocks_are_those_of_the_file() {
        let usual: Vec<_> = SHADER.tunables().iter().map(|tunable| (tunable.name, tunable.usual as usize)).collect();
        let block = Block::of(Constants::default());
        assert_eq!(usual, [("QUADS", block.quads), ("VECTORS", block.vectors)]);
    }

    #[test]
    fn a_gpu_may_try_every_size_of_a_block() -> Result<()> {
        let names = |p| -> Result<BTreeSet<_>> {
            Ok(kernels(&Device::plan(None)?, &p).map(|kernel| kernel.to_string()).collect())
        };
        let all =
            ["v7", "v7 VECTORS=4", "v7 QUADS=4", "v7 QUADS=4 VECTORS=4", "v7 QUADS=4 VECTORS=16"].map(str::to_owned);
        assert_eq!(names(params(3, 1, [3, 8]))?, BTreeSet::from(all));
        assert!(names(params(3, 2, [3, 8]))?.is_empty());
        assert!(names(params(3, 1, [2048, 2048]))?.is_empty(), "256 MiB of weights fit no binding");
        Ok(())
    }

    #[test]
    fn blocks_cover_the_result() {
        let small = Constants::from(&[("QUADS", 4), ("VECTORS", 4)][..]);
        assert_eq!(Block::of(Constants::default()).count(17, 40), 3 * 2);
        assert_eq!(Block::of(small).count(17, 40), 5 * 3);
    }

    #[test]
    fn statistics_are_those_of_whole_quads() -> Result<()> {
        let device = Device::plan(None)?;
        let chunk = |shape: [usize; 4]| Ok(chunk(&device.empty(OP, shape)?, Constants::default()));
        let chunks: Result<Vec<_>> = [[3, 6, 24, 8], [3, 6, 20, 8], [3, 5, 24, 8]].into_iter().map(chunk).collect();
        assert_eq!(chunks?, [Some(128), None, None]);
        Ok(())
    }
}
