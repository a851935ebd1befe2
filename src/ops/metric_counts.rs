//! Counts for Dice and IoU, exact.
//!
//! # Forward
//! Per image: `intersection = sum of (logit > 0 and target > 0.5)`, `predicted = sum of (logit > 0)`, `wanted = sum of
//! (target > 0.5)`. From them `Dice = 2 intersection / (predicted + wanted)`.
//!
//! # Backward
//! No gradient: counts do not change with a small step of a logit.
//!
//! # Data flow
//! ```text
//! logits, target [N,H,W,C]     | chunk | chunk | ..   of one image
//!                                  |       |          count: a workgroup, one chunk, as a tree
//! partials u32 [which, chunk]      .       .  ..
//!                                  \_______/          finalize: a workgroup, one image
//! counts u32 [N,3]
//! ```
//!
//! Shapes: logits, target `[N, H, W, C]` -> counts `[N, 3]` (integers; all classes of an image pooled).
//!
//! Versions: one.
//!
//! Launches: 2.
//!
//! # Files
//! - [`shaders/metric_counts.wgsl`](../../../../../shaders/metric_counts.wgsl), below
//! - [`src/ops/metric_counts.rs`](../../../src/shadegrad/ops/metric_counts.rs.html)
//! - [`src/cpu/metric_counts.rs`](../../../src/shadegrad/cpu/metric_counts.rs.html)
//! - [`kernels-tests/ops/metric_counts.rs`](../../../../../kernels-tests/ops/metric_counts.rs)
//! - [`bench/ops/metric_counts.rs`](../../../../../bench/ops/metric_counts.rs)
//!
//! <details><summary>shaders/metric_counts.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/metric_counts.wgsl")]
//! ```
//! </details>

use super::plan::Plan;
use crate::cpu::metric_counts::{self as plain, MetricCountsParams};
use crate::debug::observed;
use crate::gpu::Shader;
use crate::gpu::shader::shader;
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "metric_counts";
pub(super) const SHADER: Shader = shader!("metric_counts");
pub(super) const PLAN: Plan =
    Plan { op: OP, rules: &[], run: |on| metric_counts(&on.x()?, &on.constant(on.sizes.shape)?).map(|_| None) };

/// Per image: pixels predicted and wanted, predicted, wanted. A logit above 0 is a probability above 0.5.
///
/// Dice of an image is `2 * counts[0] / (counts[1] + counts[2])`. The result stays on the device; read it with
/// [`Tensor::to_vec_u32`]. It is never recorded on a tape.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let logits = device.tensor("logits", [1, 1, 4, 1], &[1.0, 2.0, -1.0, 0.0])?;
/// let target = device.tensor("target", [1, 1, 4, 1], &[1.0, 0.0, 1.0, 1.0])?;
/// assert_eq!(shadegrad::ops::metric_counts(&logits, &target)?.to_vec_u32()?, [1, 2, 3]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if the shapes differ or are no image batch.
pub fn metric_counts(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    observed(OP, logits.device(), |on| forward(&on.read(logits)?, &on.read(target)?))
}

fn forward(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    let [n, h, w, c] = logits.shape().nhwc(OP)?;
    if target.shape() != logits.shape() {
        let message = format!("the target {} must have the shape of the logits {}", target.shape(), logits.shape());
        return Err(Error::shape(OP, message));
    }
    let params = sizes(n, h * w * c);
    let device = logits.device();
    let counts = device.empty_u32(OP, [n, 3])?;
    match device {
        Device::Gpu(_) => {
            let partials = device.empty_u32(OP, [3, params.chunks as usize])?;
            for images in device.image_ranges(OP, &[logits, target])? {
                let first_chunk = images.start as u32 * params.image_chunks;
                let p = MetricCountsParams { images: images.len() as u32, first_chunk, ..params };
                let (x, target) = (logits.images(&images), target.images(&images));
                let chunks = images.len() * params.image_chunks as usize;
                SHADER.entry("count").params(&p).reads([x, target]).writes([&partials]).groups(chunks)?;
            }
            SHADER.entry("finalize").params(&params).reads([&partials]).writes([&counts]).groups(n)?;
        }
        Device::Cpu(_) => plain::forward(&params, &logits.f32s(), &target.f32s(), &mut counts.u32s_mut()),
    }
    Ok(counts)
}

/// Sizes for all images: about 512 chunks keep a GPU busy.
fn sizes(images: usize, image_len: usize) -> MetricCountsParams {
    let chunk = (images * image_len / 512).clamp(256, 4096);
    let image_chunks = image_len.div_ceil(chunk);
    MetricCountsParams {
        images: images as u32,
        image_len: image_len as u32,
        chunk: chunk as u32,
        image_chunks: image_chunks as u32,
        first_chunk: 0,
        chunks: (images * image_chunks) as u32,
    }
}
