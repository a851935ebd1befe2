//! Kernels that are usual on the cards of a vendor because they were timed there: for those who have not run `tune`, which
//! still has the last word.
//!
//! # NVIDIA
//! Of convolutions 3x3 with stride 1, on an H200 (bench/results/2026-11-27-h200.md): U-Net's step of 8 images of 256x256 takes
//! 57 ms with these instead of 102. Fewer channels and smaller images were not timed; there what is usual everywhere stays.
//!
//! | | usual elsewhere | here |
//! | --- | --- | --- |
//! | 256 channels of the result or more | 27 TFLOP/s, counted as a direct convolution | 41 to 65, `v3` through workgroup memory |
//! | 64 to 255 | 26 to 28 | 41 to 45, `v7`, four quads by sixteen vectors |
//! | weight gradient | 16 to 27 | 26 to 73, `v5` through workgroup memory |
//!
//! With images of 16-bit floats, on matrix units of 16x16, and of transposed convolutions' gradients (2x2 with stride 2), too: 31 ms instead of
//! 96. The best block of each size would be 1.7 % faster, over all sizes.
//!
//! | | usual elsewhere | here |
//! | --- | --- | --- |
//! | 128 channels of the result or more | 27 TFLOP/s | 73 to 189, `v5` by 128 x 128 with 64 of k a slab |
//! | 64 to 127 | 27 | 93 to 109, `v5` by 128 x 64 |
//! | weight gradient, 3x3, 128 channels or more on both sides | 29 | 75 to 107, `v6` by 128 x 128 with 64 of k a slab |
//! | others | 24 to 28 | 48 to 65, `v6` by 64 x 64 |
//! | transposed convolution | | not timed; the same sum as its input gradient, which reaches 65 to 121 by `v5` |

use super::conv2d::{GatherKernel, WeightKernel};
use super::matrix::{self, MatrixKernel};
use super::{conv_transpose2d, winograd, winograd_fused, winograd_weight};
use crate::cpu::conv_transpose2d::ConvTranspose2dParams;
use crate::cpu::conv2d::Conv2dParams;
use crate::gpu::shader::BLOCK;
use crate::gpu::{AdapterFacts, Constants, Matrix, Part};
use crate::tensor::{DType, Device};

/// Channels from which on it was timed, and multiply-adds.
const LEAST_CHANNELS: u32 = 64;
const LEAST_MACS: u64 = 1 << 31;
/// Rows and columns of a large block of matrix units.
const LARGE_BLOCK: u32 = 128;
/// Channels of a result from which on three launches are faster than one.
const MANY_CHANNELS: u32 = 256;

/// The kernel of a gather over such images of a device.
pub(super) fn gather(images: (&Device, DType), p: &Conv2dParams, part: Part) -> Option<GatherKernel> {
    let (device, _) = images;
    if !is_timed(device, p) {
        return None;
    }
    if let Some(kernel) = on_units(device, matrix::offered(images, p, part), gather_block(p)) {
        return Some(GatherKernel::Matrix(kernel));
    }
    if p.out_c >= MANY_CHANNELS {
        return (winograd::takes(p) && winograd::fits(device, p)).then(|| GatherKernel::Winograd(blocks()));
    }
    let constants = Constants::default().with("QUADS", 4).with("VECTORS", 16);
    winograd_fused::runs(device, p, constants).then_some(GatherKernel::Fused(constants))
}

/// The kernel of a weight gradient of such images.
pub(super) fn weight(images: (&Device, DType), p: &Conv2dParams) -> Option<WeightKernel> {
    let (device, _) = images;
    if !is_timed(device, p) {
        return None;
    }
    if let Some(kernel) = on_units(device, matrix::offered(images, p, Part::BackwardWeight), weight_block(p)) {
        return Some(WeightKernel::V6(kernel));
    }
    (winograd_weight::takes(p) && winograd_weight::fits(device, p)).then(|| WeightKernel::V5(blocks()))
}

fn blocks() -> Constants {
    Constants::default().with(BLOCK, 8)
}

/// The kernel of a transposed convolution of such images: as its input gradient, which is the same product of matrices.
pub(super) fn spread(images: (&Device, DType), p: &ConvTranspose2dParams) -> Option<MatrixKernel> {
    let (device, _) = images;
    let timed = is_timed(device, &p.adjoint());
    timed.then(|| on_units(device, conv_transpose2d::offered(images, p), large_block())).flatten()
}

/// The kernel with this block among those offered, where the units are those that were timed and have no fault.
fn on_units(device: &Device, mut offered: Vec<MatrixKernel>, block: Constants) -> Option<MatrixKernel> {
    offered.retain(|kernel| *kernel == MatrixKernel { matrix: Matrix::Units16, constants: block });
    matrix::right(device, offered).next()
}

fn gather_block(p: &Conv2dParams) -> Constants {
    if p.out_c >= LARGE_BLOCK { large_block() } else { Constants::default().with("PANE_ROWS", LARGE_BLOCK) }
}

fn weight_block(p: &Conv2dParams) -> Constants {
    if winograd::is_3x3(p) && p.in_c.min(p.out_c) >= LARGE_BLOCK { large_block() } else { Constants::default() }
}

fn large_block() -> Constants {
    Constants::default().with("PANE_ROWS", LARGE_BLOCK).with("PANE_COLS", LARGE_BLOCK).with("DEPTH", 64)
}

/// The input gradient of a transposed convolution.
fn is_2x2_by_2(p: &Conv2dParams) -> bool {
    [p.kernel_h, p.kernel_w, p.multiply, p.divide] == [2, 2, 2, 1]
}

fn is_timed(device: &Device, p: &Conv2dParams) -> bool {
    let Device::Gpu(context) = device else { return false };
    is_of_a_kind(p) && is_large(p) && is_nvidia(context.facts())
}

/// Winograd's kernels take only the first of both.
fn is_of_a_kind(p: &Conv2dParams) -> bool {
    winograd::is_3x3(p) || is_2x2_by_2(p)
}

fn is_large(p: &Conv2dParams) -> bool {
    p.in_c.min(p.out_c) >= LEAST_CHANNELS && p.macs() >= LEAST_MACS
}

/// By the name of the card or of its driver.
fn is_nvidia(facts: &AdapterFacts) -> bool {
    !facts.software && [&facts.name, &facts.driver].iter().any(|text| text.to_ascii_lowercase().contains("nvidia"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params([batch, size]: [usize; 2], kernel: usize, [in_c, out_c]: [usize; 2]) -> Conv2dParams {
        Conv2dParams::forward([batch, size, size, in_c], [kernel, kernel, in_c, out_c], 1, kernel / 2, true)
    }

    #[test]
    fn only_what_was_timed_is_taken() {
        assert!(is_large(&params([8, 256], 3, [64, 64])) && is_large(&params([8, 16], 3, [512, 1024])));
        for other in [params([8, 256], 3, [32, 64]), params([8, 16], 3, [128, 160])] {
            assert!(!is_large(&other), "{other:?}");
        }
        let [one, two] =
            [params([8, 256], 1, [64, 64]), Conv2dParams::forward([8, 256, 256, 64], [2, 2, 64, 128], 2, 0, false)];
        assert!(!is_of_a_kind(&one) && is_of_a_kind(&two) && !winograd_fused::takes(&two) && !winograd::takes(&two));
    }

    #[test]
    fn a_card_is_known_by_its_name_or_driver() {
        let facts = |name: &str, driver: &str, software| AdapterFacts {
            name: name.to_owned(),
            driver: driver.to_owned(),
            software,
            ..AdapterFacts::default()
        };
        assert!(is_nvidia(&facts("NVIDIA H200", "NVIDIA 580.159.04", false)));
        assert!(is_nvidia(&facts("GeForce RTX 4070", "nvidia 32.0.15", false)));
        assert!(!is_nvidia(&facts("AMD Radeon RX 7900", "radv", false)));
        assert!(!is_nvidia(&facts("NVIDIA H200", "llvmpipe", true)));
    }

    #[test]
    fn other_gpus_keep_what_is_usual_everywhere() -> crate::Result<()> {
        let device = Device::plan(None)?;
        let p = params([8, 256], 3, [64, 64]);
        for images in [DType::F32, DType::F16].map(|dtype| (&device, dtype)) {
            assert!(gather(images, &p, Part::Forward).is_none() && weight(images, &p).is_none());
        }
        Ok(())
    }
}
