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

use super::conv2d::{GatherKernel, WeightKernel};
use super::{winograd, winograd_fused, winograd_weight};
use crate::cpu::conv2d::Conv2dParams;
use crate::gpu::shader::BLOCK;
use crate::gpu::{AdapterFacts, Constants};
use crate::tensor::Device;

/// Channels from which on it was timed, and multiply-adds.
const LEAST_CHANNELS: u32 = 64;
const LEAST_MACS: u64 = 1 << 31;
/// Channels of a result from which on three launches are faster than one.
const MANY_CHANNELS: u32 = 256;

/// The kernel of a gather.
pub(super) fn gather(device: &Device, p: &Conv2dParams) -> Option<GatherKernel> {
    if !is_timed(device, p) {
        return None;
    }
    if p.out_c >= MANY_CHANNELS {
        return (winograd::takes(p) && winograd::fits(device, p)).then(|| GatherKernel::Winograd(blocks()));
    }
    let constants = Constants::default().with("QUADS", 4).with("VECTORS", 16);
    winograd_fused::runs(device, p, constants).then_some(GatherKernel::Fused(constants))
}

/// The kernel of a weight gradient.
pub(super) fn weight(device: &Device, p: &Conv2dParams) -> Option<WeightKernel> {
    (is_timed(device, p) && winograd_weight::takes(p) && winograd_weight::fits(device, p))
        .then(|| WeightKernel::V5(blocks()))
}

fn blocks() -> Constants {
    Constants::default().with(BLOCK, 8)
}

fn is_timed(device: &Device, p: &Conv2dParams) -> bool {
    let Device::Gpu(context) = device else { return false };
    is_large(p) && is_nvidia(context.facts())
}

fn is_large(p: &Conv2dParams) -> bool {
    winograd::is_3x3(p) && p.in_c.min(p.out_c) >= LEAST_CHANNELS && p.macs() >= LEAST_MACS
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
        for other in [params([8, 256], 3, [32, 64]), params([8, 16], 3, [128, 160]), params([8, 256], 1, [64, 64])] {
            assert!(!is_large(&other), "{other:?}");
        }
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
        assert!(gather(&device, &p).is_none() && weight(&device, &p).is_none());
        Ok(())
    }
}
