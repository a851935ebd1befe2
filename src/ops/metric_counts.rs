//! Counts for Dice and IoU, exact. Per image: intersection, predicted (logit > 0), wanted (target > 0.5).
//!
//! Shapes: logits, target `[N, H, W, C]` -> counts `[N, 3]` (integers; all classes of an image pooled).
//! Versions: one.  Launches: 2.  No gradient.

use crate::cpu::metric_counts::{self as plain, MetricCountsParams};
use crate::debug::observed;
use crate::gpu::Shader;
use crate::gpu::shader::shader;
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "metric_counts";
pub(super) const SHADER: Shader = shader!("metric_counts");

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
