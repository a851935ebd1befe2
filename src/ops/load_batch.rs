//! From the decoded slices on the device to a training batch: gathered, normalised, flipped and turned in one kernel.
//!
//! Shapes: slices as bytes `[S, H, W, 3]` and masks `[S, H, W]` -> x `[N, H, W, C]` and target `[N, H, W, 1]`.
//! Not differentiated.  Versions: one (a pixel per invocation).

use crate::cpu::load_batch::{self as plain, LoadBatchParams};
use crate::gpu::Shader;
use crate::gpu::shader::shader;
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "load_batch";
pub(super) const SHADER: Shader = shader!("load_batch");

/// All slices of a data set on the device, as bytes: they are uploaded once.
#[derive(Debug, Clone)]
pub struct Slices {
    images: Tensor,
    masks: Tensor,
    rescale: Tensor,
    count: usize,
    height: usize,
    width: usize,
    channels: usize,
    order: [usize; 3],
}

/// One sample of a batch: which slice, with which normalisation, and how it is flipped and turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Position among the uploaded slices.
    pub slice: usize,
    /// Row of the normalisation table (the patient).
    pub group: usize,
    /// Quarter turns counter-clockwise, 0 to 3, after the flips.
    pub turn: u32,
    /// Bit 0: left-right; bit 1: top-bottom.
    pub flips: u32,
}

impl Slices {
    /// Uploads slices. `images` is `[S, H, W, 3]` and `masks` `[S, H, W]` (0 or 1), both as bytes; `rescale` holds
    /// low, high, scale and shift per (group, channel); `order` says which channel of a slice becomes channel 0, 1, 2.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths do not fit, [`Error::Limit`] if the set is larger than one binding.
    pub fn upload(
        device: &Device,
        size: [usize; 2],
        images: &[u8],
        masks: &[u8],
        rescale: &[[f32; 4]],
        order: [usize; 3],
    ) -> Result<Self> {
        let pixels = size[0] * size[1];
        let count = masks.len() / pixels.max(1);
        if pixels == 0 || count == 0 || masks.len() != count * pixels || images.len() != 3 * masks.len() {
            let message = format!("{} image and {} mask bytes are no slices of {size:?}", images.len(), masks.len());
            return Err(Error::shape(OP, message));
        }
        if rescale.is_empty() || order.iter().any(|channel| *channel > 2) {
            let message = format!("{} rows of rescaling and channels {order:?} do not fit 3 channels", rescale.len());
            return Err(Error::shape(OP, message));
        }
        let rows = bytemuck::cast_slice(rescale);
        Ok(Self {
            images: words(device, images)?,
            masks: words(device, masks)?,
            rescale: device.tensor(OP, [rescale.len(), 4], rows)?,
            count,
            height: size[0],
            width: size[1],
            channels: 3,
            order,
        })
    }

    /// How many slices there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Rows and columns.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }
}

/// Bytes packed four to a word, the first in the lowest bits.
fn words(device: &Device, bytes: &[u8]) -> Result<Tensor> {
    let packed: Vec<u32> = bytes
        .chunks(4)
        .map(|chunk| {
            let mut four = [0; 4];
            four[..chunk.len()].copy_from_slice(chunk);
            u32::from_le_bytes(four)
        })
        .collect();
    device.tensor_u32(OP, [packed.len()], &packed)
}

/// Fills x `[N, H, W, 3]` and target `[N, H, W, 1]` with the samples. `table` is a `[N, 4]` integer tensor that the
/// caller keeps from step to step; it is overwritten.
///
/// # Errors
/// [`Error::Shape`] if a slice does not exist, or a slice that is not square is turned by an odd quarter.
pub fn load_batch(slices: &Slices, samples: &[Sample], table: &Tensor, x: &Tensor, target: &Tensor) -> Result<()> {
    let (h, w) = (slices.height, slices.width);
    let groups = slices.rescale.len() / 4 / slices.channels;
    let mut rows = Vec::with_capacity(4 * samples.len());
    for sample in samples {
        if sample.slice >= slices.count || sample.group >= groups || (h != w && sample.turn % 2 == 1) {
            let message = format!("{sample:?} does not fit {} slices {h}x{w} in {groups} groups", slices.count);
            return Err(Error::shape(OP, message));
        }
        rows.extend([sample.slice as u32, sample.group as u32, sample.turn % 4, sample.flips]);
    }
    let expected = [samples.len() * h * w * slices.channels, samples.len() * h * w];
    if [x.len(), target.len()] != expected {
        return Err(Error::shape(
            OP,
            format!("x {} and target {} do not fit {} samples", x.shape(), target.shape(), samples.len()),
        ));
    }
    table.write_u32(&rows)?;
    let params = LoadBatchParams {
        batch: samples.len() as u32,
        height: h as u32,
        width: w as u32,
        channels: slices.channels as u32,
        source_channels: 3,
        order0: slices.order[0] as u32,
        order1: slices.order[1] as u32,
        order2: slices.order[2] as u32,
    };
    match x.device() {
        Device::Gpu(_) => SHADER
            .entry("gather")
            .params(&params)
            .reads([&slices.images, &slices.masks, &slices.rescale, table])
            .writes([x, target])
            .over(samples.len() * h * w),
        Device::Cpu(_) => {
            let (images, masks) = (slices.images.u32s(), slices.masks.u32s());
            let (images, masks): (&[u8], &[u8]) = (bytemuck::cast_slice(&images), bytemuck::cast_slice(&masks));
            let (mut x, mut target) = (x.f32s_mut(), target.f32s_mut());
            plain::gather(&params, images, masks, &slices.rescale.f32s(), &table.u32s(), &mut x, &mut target);
            Ok(())
        }
    }
}
