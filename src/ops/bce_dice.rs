//! The loss: binary cross-entropy plus soft Dice, from logits; with its settings also BCE, Dice, focal and Tversky.
//!
//! # Forward
//! `L = bce_weight * mean(bce) + dice_weight * mean over groups of (1 - (2I + smooth) / (P + T + smooth))`
//!
//! with `bce = -t ln p - (1 - t) ln(1 - p)`, `p = sigmoid(logit)`, `I = sum(p * t)`, `P = sum(p)`, `T = sum(t)` over a
//! group; a group is an image (all its classes) or the batch. The kernel computes it in a form that keeps its digits in
//! f32: `1 - Dice = D / S` with `D = sum(p (1 - t) + (1 - p) t)` and `S = 2I + D + smooth`, a sum of terms that are
//! never negative.
//!
//! # Backward
//! ```text
//! gx = gy * (bce_weight / count * (p - t) + dice_weight / groups * p (1 - p) / S * slope)
//! slope = (1 - 2t) * (2I + smooth) / S - 2t * D / S
//! ```
//!
//! with I, D and S of the logit's group. The target gets no gradient. Focal and Tversky add a weight to each term: see
//! the shader's header.
//!
//! # Data flow
//! ```text
//! logits, target [N,H,W,C]
//!    | sums: a workgroup adds up a chunk of one image
//! partials  I, D, B [group, chunk]                      B: cross-entropy
//!    | finalize: one workgroup, in a fixed order
//! loss [1],  I and D of each group --> backward_input: one invocation, one logit
//! ```
//!
//! Shapes: logits, target `[N, H, W, C]` -> loss `[1]`.
//!
//! Versions: one.
//!
//! Launches: 2 forward, 1 backward.
//!
//! # Files
//! - [`shaders/bce_dice.wgsl`](../../../../../shaders/bce_dice.wgsl), below
//! - [`src/ops/bce_dice.rs`](../../../src/shadegrad/ops/bce_dice.rs.html)
//! - [`src/cpu/bce_dice.rs`](../../../src/shadegrad/cpu/bce_dice.rs.html)
//! - [`kernels-tests/ops/bce_dice.rs`](../../../../../kernels-tests/ops/bce_dice.rs)
//! - [`bench/ops/bce_dice.rs`](../../../../../bench/ops/bce_dice.rs)
//!
//! <details><summary>shaders/bce_dice.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/bce_dice.wgsl")]
//! ```
//! </details>

use std::ops::Range;

use super::plan::Plan;
use crate::autograd::{Backward, Wanted, record};
use crate::cpu::bce_dice::{self as plain, BceDiceParams};
use crate::debug::observed;
use crate::gpu::Shader;
use crate::gpu::shader::shader;
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "bce_dice";
pub(super) const SHADER: Shader = shader!("bce_dice");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[],
    run: |on| bce_dice(&on.x()?, &on.constant(on.sizes.shape)?, &BceDice::batch()).map(Some),
};

/// What Dice is computed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// Each image by itself, then the mean, as UNeXt-pytorch does. An empty mask gives no signal unless `smooth` is
    /// large, and rewards logits of -25 everywhere.
    Sample,
    /// All images of the batch as one.
    Batch,
}

/// The weights of the loss. The constructors are the losses that people know by name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BceDice {
    /// Weight of the mean binary cross-entropy.
    pub bce_weight: f32,
    /// Weight of 1 - Dice.
    pub dice_weight: f32,
    /// Added to both sides of the Dice fraction; above 0.
    pub smooth: f32,
    /// What Dice is computed over.
    pub pooling: Pooling,
    /// Weight of false positives against Dice's: 1, or 2 alpha of Tversky's alpha.
    pub false_positive: f32,
    /// Weight of false negatives against Dice's: 1, or 2 beta of Tversky's beta.
    pub false_negative: f32,
    /// Exponent of the focal weight on the cross-entropy; 0: none. Above 0 targets must be 0 or 1.
    pub focal_gamma: f32,
    /// Weight of the target class in the cross-entropy, 1 - this for the rest; negative: both count alike.
    pub focal_alpha: f32,
}

impl BceDice {
    /// `BCEDiceLoss` of UNeXt-pytorch: per image, smooth 1e-5.
    pub fn sample() -> Self {
        Self { smooth: 1e-5, pooling: Pooling::Sample, ..Self::batch() }
    }

    /// Recommended: over the batch, smooth 1, so that empty masks teach too.
    pub fn batch() -> Self {
        Self {
            bce_weight: 0.5,
            dice_weight: 1.0,
            smooth: 1.0,
            pooling: Pooling::Batch,
            false_positive: 1.0,
            false_negative: 1.0,
            focal_gamma: 0.0,
            focal_alpha: -1.0,
        }
    }

    /// Only the cross-entropy (`BCEWithLogitsLoss`).
    pub fn bce() -> Self {
        Self { bce_weight: 1.0, dice_weight: 0.0, ..Self::batch() }
    }

    /// Only Dice, over the batch with smooth 1 (`DiceLoss` of brain-segmentation-pytorch).
    pub fn dice() -> Self {
        Self { bce_weight: 0.0, ..Self::batch() }
    }

    /// Focal loss (Lin et al., arXiv 1708.02002): cross-entropy times `(1 - p_t)^gamma`, with `alpha` as the weight of
    /// the target class (negative: none). The mean over all logits.
    pub fn focal(gamma: f32, alpha: f32) -> Self {
        Self { focal_gamma: gamma, focal_alpha: alpha, ..Self::bce() }
    }

    /// Tversky loss (Salehi et al., arXiv 1706.05721) over the batch: 1 - (I + smooth) / (I + alpha FP + beta FN + smooth).
    pub fn tversky(alpha: f32, beta: f32) -> Self {
        Self { false_positive: 2.0 * alpha, false_negative: 2.0 * beta, smooth: 2.0, ..Self::dice() }
    }
}

/// The loss of logits `[N, H, W, C]` against targets in 0..=1 of the same shape: one number, `[1]`, on the device.
/// Targets get no gradient.
///
/// ```
/// use shadegrad::ops::{BceDice, bce_dice};
/// # fn main() -> shadegrad::Result<()> {
/// let device = shadegrad::Device::cpu();
/// let logits = device.zeros("logits", [1, 1, 2, 1])?; // sigmoid: 0.5, 0.5
/// let target = device.tensor("target", [1, 1, 2, 1], &[1.0, 0.0])?;
/// let loss = bce_dice(&logits, &target, &BceDice::batch())?.to_vec()?[0];
/// assert!((loss - (0.5 * 2.0_f32.ln() + 1.0 - 2.0 / 3.0)).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`] if the shapes differ or are no image batch, [`Error::Config`] if `smooth` is not above 0.
pub fn bce_dice(logits: &Tensor, target: &Tensor, settings: &BceDice) -> Result<Tensor> {
    observed(OP, logits.device(), |on| forward(&on.read(logits)?, &on.read(target)?, settings))
}

fn forward(logits: &Tensor, target: &Tensor, settings: &BceDice) -> Result<Tensor> {
    let [n, h, w, c] = logits.shape().nhwc(OP)?;
    if target.shape() != logits.shape() {
        let message = format!("the target {} must have the shape of the logits {}", target.shape(), logits.shape());
        return Err(Error::shape(OP, message));
    }
    if settings.smooth.is_nan() || settings.smooth <= 0.0 {
        let message =
            format!("{OP}: smooth must be above 0 (an empty mask would divide by 0), got {}", settings.smooth);
        return Err(Error::Config(message));
    }
    let BceDice { false_positive, false_negative, focal_gamma, .. } = settings;
    if !(*false_positive >= 0.0 && *false_negative >= 0.0 && *focal_gamma >= 0.0) {
        let message = format!(
            "{OP}: the weights of false positives and negatives and the focal exponent must not be negative, got \
             {false_positive}, {false_negative} and {focal_gamma}"
        );
        return Err(Error::Config(message));
    }
    let params = sizes(n, h * w * c, settings);
    let device = logits.device();
    let loss = device.empty(OP, [1])?;
    let group_sums = device.empty(OP, [params.groups as usize, 2])?;
    match device {
        Device::Gpu(_) => {
            let partials = device.empty(OP, [3, n * params.image_chunks as usize])?;
            for images in device.image_ranges(OP, &[logits, target])? {
                let (x, target) = (logits.images(&images), target.images(&images));
                let chunks = images.len() * params.image_chunks as usize;
                SHADER
                    .entry("sums")
                    .params(&of(&params, &images))
                    .reads([x, target])
                    .writes([&partials])
                    .groups(chunks)?;
            }
            SHADER.entry("finalize").params(&params).reads([&partials]).writes([&loss, &group_sums]).groups(1)?;
        }
        Device::Cpu(_) => {
            plain::forward(&params, &logits.f32s(), &target.f32s(), &mut loss.f32s_mut(), &mut group_sums.f32s_mut())
        }
    }
    record(loss, &[Some(logits)], || BceDiceBackward {
        logits: logits.detach(),
        target: target.detach(),
        group_sums,
        params,
    })
}

/// Sizes for all images: about 512 chunks keep a GPU busy, and no chain of additions is longer than 64 terms.
fn sizes(images: usize, image_len: usize, settings: &BceDice) -> BceDiceParams {
    let chunk = (images * image_len / 512).clamp(256, 4096);
    let (groups, group_images) = match settings.pooling {
        Pooling::Sample => (images, 1),
        Pooling::Batch => (1, images),
    };
    BceDiceParams {
        images: images as u32,
        image_len: image_len as u32,
        chunk: chunk as u32,
        image_chunks: image_len.div_ceil(chunk) as u32,
        first_image: 0,
        groups: groups as u32,
        group_images: group_images as u32,
        smoothing: settings.smooth,
        bce_scale: (f64::from(settings.bce_weight) / (images * image_len) as f64) as f32,
        dice_scale: (f64::from(settings.dice_weight) / groups as f64) as f32,
        false_positive: settings.false_positive,
        false_negative: settings.false_negative,
        focal_gamma: settings.focal_gamma,
        focal_alpha: settings.focal_alpha,
    }
}

/// The same for a range of the images.
fn of(params: &BceDiceParams, images: &Range<usize>) -> BceDiceParams {
    BceDiceParams { images: images.len() as u32, first_image: images.start as u32, ..*params }
}

/// What the gradient needs: the inputs, and I, D of each group.
#[derive(Debug)]
struct BceDiceBackward {
    logits: Tensor,
    target: Tensor,
    group_sums: Tensor,
    params: BceDiceParams,
}

impl Backward for BceDiceBackward {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, gy: &Tensor, wanted: &mut Wanted<'_>) -> Result<Vec<Option<Tensor>>> {
        let Self { logits, target, group_sums, params } = self;
        let gx = wanted.empty(OP, 0, logits.shape())?;
        match gy.device() {
            Device::Gpu(_) => {
                for images in gy.device().image_ranges(OP, &[logits, target, &gx])? {
                    let (x, target, gx) = (logits.images(&images), target.images(&images), gx.images(&images));
                    let elements = gx.len();
                    SHADER
                        .entry("backward_input")
                        .params(&of(params, &images))
                        .reads([&x, &target, group_sums, gy])
                        .writes([&gx])
                        .over(elements)?;
                }
            }
            Device::Cpu(_) => plain::backward_input(
                params,
                &logits.f32s(),
                &target.f32s(),
                &group_sums.f32s(),
                &gy.f32s(),
                &mut gx.f32s_mut(),
            ),
        }
        Ok(vec![Some(gx)])
    }

    fn saved(&mut self) -> Vec<&mut Tensor> {
        vec![&mut self.logits, &mut self.target, &mut self.group_sums]
    }
}
