//! What is timed: the shapes that U-Net, ResUNet and UNeXt really use, with their FLOPs and least bytes.

mod adam;
mod add;
mod batch_norm;
mod bce_dice;
mod clip_norm;
mod concat;
mod conv2d;
mod conv_transpose2d;
mod depthwise_conv2d;
mod ema;
mod gelu;
mod layer_norm;
mod linear;
mod load_batch;
mod max_pool2d;
mod metric_counts;
mod relu;
mod sgd;
mod shift;
mod sigmoid;
mod softmax;
mod upsample_bilinear;

use shadegrad::{Device, Result};

/// One timed launch.
pub struct BenchCase {
    /// The op.
    pub op: &'static str,
    /// The entry point.
    pub entry: &'static str,
    /// `v1`, `v2`, ... (`plain` on the CPU device).
    pub version: &'static str,
    /// Shapes, and where a network uses them.
    pub case: String,
    /// Floating-point operations (a multiply-add is two).
    pub flops: f64,
    /// Bytes that must be read or written at least.
    pub bytes: f64,
    /// Makes the inputs and returns the work to repeat.
    pub prepare: Box<Prepare>,
}

/// Makes the inputs of a case on a device.
pub type Prepare = dyn Fn(&Device) -> Result<Work>;

/// The work to repeat.
pub type Work = Box<dyn FnMut() -> Result<()>>;

/// All timed cases.
pub fn cases() -> Vec<BenchCase> {
    let mut all = Vec::new();
    all.extend(adam::cases());
    all.extend(add::cases());
    all.extend(batch_norm::cases());
    all.extend(bce_dice::cases());
    all.extend(clip_norm::cases());
    all.extend(concat::cases());
    all.extend(conv2d::cases());
    all.extend(conv_transpose2d::cases());
    all.extend(depthwise_conv2d::cases());
    all.extend(ema::cases());
    all.extend(gelu::cases());
    all.extend(layer_norm::cases());
    all.extend(linear::cases());
    all.extend(load_batch::cases());
    all.extend(max_pool2d::cases());
    all.extend(metric_counts::cases());
    all.extend(relu::cases());
    all.extend(sgd::cases());
    all.extend(shift::cases());
    all.extend(sigmoid::cases());
    all.extend(softmax::cases());
    all.extend(upsample_bilinear::cases());
    all
}
