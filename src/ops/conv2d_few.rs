//! Version 6 of the 3x3 convolution with stride 1, and version 4 of its weight gradient: for an x of one to four channels, as
//! the first layer of a network has it.
//!
//! An invocation keeps the weights of its channels and walks along a row of the image with the part of x under the kernel:
//! each step reads one column of three pixels and makes one pixel of y. The tiles of `v2` find the place of each of the nine
//! taps anew, which nothing pays for where the sum over a tap's channels has three terms. The weight gradient walks in the same
//! way and keeps the sums of its weights.
//!
//! <details><summary>shaders/conv2d_few.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/conv2d_few.wgsl")]
//! ```
//! </details>

use super::conv2d::{Gather, GatherKernel};
use super::{Kernel, Tile, winograd};
use crate::cpu::conv2d::Conv2dParams;
use crate::gpu::shader::shader;
use crate::gpu::{Constants, Shader};
use crate::tensor::{DType, Device, Tensor};
use crate::{Error, Result};

const OP: &str = "conv2d";
pub(super) const SHADER: Shader = shader!("conv2d_few");

/// Pixels of a run, as in the shader.
pub(super) const RUN: usize = 64;
/// Channels of the source at most.
const MOST_CHANNELS: u32 = 4;

/// Whether this is a gather of few channels.
pub fn takes(p: &Conv2dParams) -> bool {
    winograd::is_3x3(p) && p.in_c <= MOST_CHANNELS && p.out_c.is_multiple_of(4)
}

/// Whether this is a convolution of few channels whose weight gradient it can compute.
pub(super) fn takes_weights(p: &Conv2dParams) -> bool {
    takes(p) && (p.out_c as usize).is_multiple_of(columns(Constants::default()))
}

/// Its kernels for a gather: with the shader's eight channels for an invocation, and with four.
pub fn kernels(p: &Conv2dParams) -> impl Iterator<Item = GatherKernel> {
    let all = [Constants::default(), Constants::from(&[("TILE_N", 1)][..])];
    let fits = |constants: &Constants| (p.out_c as usize).is_multiple_of(columns(*constants));
    all.into_iter().filter(|_| takes(p)).filter(fits).map(GatherKernel::Few)
}

/// Channels of an invocation.
fn columns(constants: Constants) -> usize {
    Tile::of(Kernel::tiled(constants)).columns
}

/// The kernel that is usually faster than the others, if one is: where the pixels of a row pay for reading the weights (measured
/// on software Vulkan and on an H100).
///
/// A GPU has 128 to 256 registers for an invocation, and eight channels want 72 of them for each channel of the source: from three on,
/// AMD's compiler has to keep some in memory, or runs few invocations at a time. So there are four then.
pub(super) fn usual(device: &Device, p: &Conv2dParams) -> Option<GatherKernel> {
    const MOST_WEIGHTS: u32 = 144;
    let Device::Gpu(context) = device else { return None };
    let wide = context.facts().software || 9 * p.in_c * columns(Constants::default()) as u32 <= MOST_WEIGHTS;
    let mut fitting = kernels(p).filter(|_| p.out_w >= 16);
    if wide { fitting.next() } else { fitting.last() }
}

/// The same for the weight gradient, which on an H100 takes as long as `v2`.
pub(super) fn is_usual_for_weights(device: &Device, p: &Conv2dParams) -> bool {
    takes_weights(p) && p.out_w >= 16 && matches!(device, Device::Gpu(context) if context.facts().software)
}

/// The shader's constants for these sizes.
pub(super) fn constants(p: &Conv2dParams, tile: Constants) -> Constants {
    Constants::from(&[("IN_C", p.in_c), ("TILE_N", columns(tile) as u32 / 4)][..])
}

/// Whether statistics of y can be made as it is computed: rows are whole runs, and what is stored is what was computed. (Drivers
/// drop a rounding to f16 and back, so that the statistics would be those of other numbers: seen with Mesa's llvmpipe.)
pub(super) fn leaves_statistics(y: &Tensor) -> bool {
    y.dtype() == DType::F32 && y.shape().dims()[2].is_multiple_of(RUN)
}

/// Launches the gather.
pub(super) fn gather(of: &Gather<'_>, constants: Constants) -> Result<()> {
    let Gather { p, source, weight, bias, y, statistics } = *of;
    let columns = columns(constants);
    if !takes(p) || !(p.out_c as usize).is_multiple_of(columns) {
        let message = format!(
            "v6 needs a 3x3 kernel, stride 1, at most {MOST_CHANNELS} channels and a result of a multiple of {columns}; got {p:?}"
        );
        return Err(Error::shape(OP, message));
    }
    let entry = if statistics.is_some() { "forward_statistics_v6" } else { "forward_v6" };
    let bias = bias.unwrap_or(weight); // without a bias the binding is not read
    for images in source.ranges(&[y])? {
        let y = y.images(&images);
        let runs = images.len() * p.out_h as usize * (p.out_w as usize).div_ceil(RUN);
        let mut params = Conv2dParams { batch: images.len() as u32, ..*p };
        if let Some(statistics) = statistics {
            (params.sums_first, params.sums_chunks) = statistics.of_images(&images);
        }
        SHADER
            .entry(entry)
            .constants(self::constants(p, constants))
            .params(&params)
            .reads(source.images(&images))
            .reads([weight, bias])
            .writes([&y])
            .writes(statistics.map(|statistics| &statistics.sums))
            .over(runs * p.out_c as usize / columns)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(kernel: usize, stride: usize, [in_c, out_c]: [usize; 2]) -> Conv2dParams {
        Conv2dParams::forward([1, 32, 32, in_c], [kernel, kernel, in_c, out_c], stride, 1, true)
    }

    #[test]
    fn few_channels_under_a_3x3_kernel_with_stride_1_are_taken() {
        assert!(takes(&params(3, 1, [3, 8])) && takes(&params(3, 1, [1, 12])) && takes(&params(3, 1, [4, 8])));
        assert!(!takes(&params(3, 1, [5, 8])) && !takes(&params(3, 2, [3, 8])) && !takes(&params(1, 1, [3, 8])));
        assert!(!takes(&params(3, 1, [3, 6])) && takes(&params(3, 1, [8, 2]).input_gradient()));
    }

    #[test]
    fn an_invocation_has_channels_that_divide_those_of_the_result() {
        let names = |p| kernels(&p).map(|kernel| kernel.to_string()).collect::<Vec<_>>();
        assert_eq!(names(params(3, 1, [3, 16])), ["v6", "v6 TILE_N=1"]);
        assert_eq!(names(params(3, 1, [3, 12])), ["v6 TILE_N=1"]);
        assert!(names(params(3, 1, [5, 16])).is_empty());
    }

    #[test]
    fn on_a_gpu_it_is_usual_for_long_rows_but_not_for_weights() -> Result<()> {
        let p = params(3, 1, [3, 16]);
        let device = Device::plan(None)?;
        assert!(takes_weights(&p) && !is_usual_for_weights(&device, &p));
        let [long, short] = [16, 15].map(|out_w| usual(&device, &Conv2dParams { out_w, ..p }));
        assert!(short.is_none());
        assert_eq!(long.map(|kernel| kernel.to_string()).as_deref(), Some("v6 TILE_N=1"));
        let two = usual(&device, &params(3, 1, [2, 16]));
        assert_eq!(two.map(|kernel| kernel.to_string()).as_deref(), Some("v6"));
        Ok(())
    }
}
