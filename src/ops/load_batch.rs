//! From the decoded slices on the device to a training batch: gathered, normalised and augmented in one kernel.
//!
//! # Forward
//! `value = clamp(tone(grey(place)), low, high) * scale + shift`
//!
//! place: where a pixel of the batch lies in its slice (turns and flips undone, then the affine map, then the elastic
//! displacement);  grey: the byte there, bilinear between pixels, the mask's nearest, 0 outside;  tone: noise,
//! brightness, contrast, gamma;  low, high, scale, shift: the patient's normalisation, of each channel.
//!
//! # Backward
//! No gradient: bytes are where a step begins.
//!
//! # Data flow
//! ```text
//! images  u8 [S,H,W,3] ----.
//! masks   u8 [S,H,W]   ----+--> one invocation, one pixel --> x [N,H,W,C], target [N,H,W,1]
//! rescale (patient, c) ----+    of one sample
//! samples (slice, turn, flips, affine map, tones, seed)
//! ```
//!
//! The samples are the only bytes that a step sends to the device.
//!
//! Shapes: slices as bytes `[S, H, W, 3]` and masks `[S, H, W]` -> x `[N, H, W, C]` and target `[N, H, W, 1]`.
//!
//! Versions: one (a pixel per invocation).
//!
//! # Files
//! - [`shaders/load_batch.wgsl`](../../../../../shaders/load_batch.wgsl), below
//! - [`src/ops/load_batch.rs`](../../../src/shadegrad/ops/load_batch.rs.html)
//! - [`src/cpu/load_batch.rs`](../../../src/shadegrad/cpu/load_batch.rs.html)
//! - [`kernels-tests/ops/load_batch.rs`](../../../../../kernels-tests/ops/load_batch.rs)
//! - [`bench/ops/load_batch.rs`](../../../../../bench/ops/load_batch.rs)
//!
//! <details><summary>shaders/load_batch.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/load_batch.wgsl")]
//! ```
//! </details>

use std::ops::Range;

use super::plan::Plan;
use crate::cpu::load_batch::{self as plain, LoadBatchParams, SampleRow};
use crate::debug::{On, observed};
use crate::gpu::Shader;
use crate::gpu::shader::shader;
use crate::tensor::{Device, Tensor};
use crate::{Error, Result};

const OP: &str = "load_batch";
pub(super) const SHADER: Shader = shader!("load_batch");
pub(super) const PLAN: Plan = Plan {
    op: OP,
    rules: &[],
    run: |on| {
        let [n, h, w, _] = on.sizes.shape.nhwc(OP)?;
        let (images, masks) = (vec![0; n * h * w * 3], vec![0; n * h * w]);
        let slices = Slices::upload(on.device, [h, w], &images, &masks, &[[0.0, 1.0, 1.0, 0.0]; 3], [0, 1, 2])?;
        let samples: Vec<Sample> = (0..n).map(|slice| Sample::plain(slice, 0)).collect();
        let (x, target) = (on.constant([n, h, w, 3])?, on.constant([n, h, w, 1])?);
        load_batch(&slices, &samples, &slices.table(n)?, &x, &target).map(|()| None)
    },
};

/// All slices of a data set on the device, as bytes: they are uploaded once. A set larger than one binding lies in
/// several buffers.
#[derive(Debug, Clone)]
pub struct Slices {
    shards: Vec<Shard>,
    /// Slices of every shard but the last, which may hold fewer.
    per_shard: usize,
    rescale: Tensor,
    count: usize,
    height: usize,
    width: usize,
    channels: usize,
    order: [usize; 3],
}

/// Neighbouring slices in one buffer, bytes packed four to a word.
#[derive(Debug, Clone)]
struct Shard {
    images: Tensor,
    masks: Tensor,
}

/// The bytes of one slice.
#[derive(Debug, Clone, Copy)]
pub struct SliceBytes<'a> {
    /// `[H, W, 3]`.
    pub image: &'a [u8],
    /// `[H, W]`, 0 or 1.
    pub mask: &'a [u8],
}

/// Most bytes of a shard's images, also where a binding could be larger: it bounds what is packed on the host at once.
const MAX_SHARD_BYTES: u64 = 128 << 20;

/// One sample of a batch: which slice, with which normalisation, and how it is augmented.
///
/// The order is: elastic displacement and affine map, flips, turn; and at each pixel the tones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Position among the uploaded slices.
    pub slice: usize,
    /// Row of the normalisation table (the patient).
    pub group: usize,
    /// Quarter turns counter-clockwise, 0 to 3, after the flips.
    pub turn: u32,
    /// Bit 0: left-right; bit 1: top-bottom.
    pub flips: u32,
    /// Where in the slice a pixel lies: `[[xx, xy, x], [yx, yy, y]]` takes (x, y, 1), in pixels right of and below the
    /// centre, to column and row from the centre. Outside of the slice all is black.
    pub affine: Option<[[f64; 3]; 2]>,
    /// Added to where a pixel lies.
    pub elastic: Option<Elastic>,
    /// Brightness and the like of each channel.
    pub tones: [Tone; CHANNELS],
    /// The channel that each channel shows; `None`: it is 0 everywhere.
    pub shows: [Option<usize>; CHANNELS],
    /// Of the noise and the displacement.
    pub seed: u32,
}

/// Channels of a slice and of a batch.
const CHANNELS: usize = 3;

impl Sample {
    /// A slice as it is.
    pub fn plain(slice: usize, group: usize) -> Self {
        Self {
            slice,
            group,
            turn: 0,
            flips: 0,
            affine: None,
            elastic: None,
            tones: [Tone::NONE; CHANNELS],
            shows: [Some(0), Some(1), Some(2)],
            seed: 0,
        }
    }
}

/// A smooth random displacement: control points on a square grid, joined by cubic B-splines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Elastic {
    /// Grid cells along the longer side. Below 0.48 / `cells` of that side, `reach` cannot fold the slice.
    pub cells: u32,
    /// Most that a control point moves along each axis, in pixels; below 127.
    pub reach: f64,
}

/// How the grey values of a channel change between the patient's black and white (the limits of the normalisation).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tone {
    /// Standard deviation of normal noise, as a share of the range from black to white. Comes first.
    pub noise: f32,
    /// Factor of the distance from black.
    pub brightness: f32,
    /// Factor of the distance from what the network sees as 0.
    pub contrast: f32,
    /// Exponent of the grey value, 0 for black to 1 for white. Comes last.
    pub gamma: f32,
}

impl Tone {
    /// No change.
    pub const NONE: Self = Self { noise: 0.0, brightness: 1.0, contrast: 1.0, gamma: 1.0 };
}

impl Slices {
    /// Uploads slices. `images` is `[S, H, W, 3]` and `masks` `[S, H, W]` (0 or 1), both as bytes; `rescale` holds
    /// low, high, scale and shift per (group, channel); `order` says which channel of a slice becomes channel 0, 1, 2.
    ///
    /// # Errors
    /// As [`upload_each`](Self::upload_each).
    pub fn upload(
        device: &Device,
        size: [usize; 2],
        images: &[u8],
        masks: &[u8],
        rescale: &[[f32; 4]],
        order: [usize; 3],
    ) -> Result<Self> {
        let pixels = (size[0] * size[1]).max(1);
        if images.len() != 3 * masks.len() || !masks.len().is_multiple_of(pixels) {
            let message = format!("{} image and {} mask bytes are no slices of {size:?}", images.len(), masks.len());
            return Err(Error::shape(OP, message));
        }
        let parts = images.chunks(3 * pixels).zip(masks.chunks(pixels));
        let slices: Vec<_> = parts.map(|(image, mask)| SliceBytes { image, mask }).collect();
        Self::upload_each(device, size, &slices, rescale, order)
    }

    /// As [`upload`](Self::upload), from slices that lie in memory one by one. At most one shard is packed at a time.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths do not fit, [`Error::Limit`] if a single slice is larger than one binding.
    pub fn upload_each(
        device: &Device,
        size: [usize; 2],
        slices: &[SliceBytes<'_>],
        rescale: &[[f32; 4]],
        order: [usize; 3],
    ) -> Result<Self> {
        let pixels = size[0] * size[1];
        if let Some(at) = slices.iter().position(|s| s.mask.len() != pixels || s.image.len() != 3 * pixels) {
            let [image, mask] = [slices[at].image.len(), slices[at].mask.len()];
            let message = format!("slice {at} has {image} image and {mask} mask bytes, but a slice is {size:?}");
            return Err(Error::shape(OP, message));
        }
        if pixels == 0 || slices.is_empty() || rescale.is_empty() || order.iter().any(|channel| *channel > 2) {
            let message = format!(
                "{} slices of {size:?}, {} rows of rescaling and channels {order:?} do not fit together",
                slices.len(),
                rescale.len()
            );
            return Err(Error::shape(OP, message));
        }
        let limit = match device {
            Device::Gpu(context) => context.max_binding_bytes().min(MAX_SHARD_BYTES),
            Device::Cpu(_) => MAX_SHARD_BYTES,
        };
        // Whole words: a slice's bytes need not fill its last one.
        let per_shard = (limit / 4 * 4 / (3 * pixels as u64)) as usize;
        if per_shard == 0 {
            let message = format!("a slice of {size:?} is larger than one binding of this device ({limit} bytes)");
            return Err(Error::Limit { op: OP.to_owned(), message: message + "; use smaller slices" });
        }
        let shards = slices.chunks(per_shard).map(|part| {
            Ok(Shard {
                images: packed(device, part.len() * 3 * pixels, part.iter().map(|slice| slice.image))?,
                masks: packed(device, part.len() * pixels, part.iter().map(|slice| slice.mask))?,
            })
        });
        Ok(Self {
            shards: shards.collect::<Result<_>>()?,
            per_shard,
            rescale: device.tensor(OP, [rescale.len(), 4], rescale.as_flattened())?,
            count: slices.len(),
            height: size[0],
            width: size[1],
            channels: CHANNELS,
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

    /// Buffers that the slices lie in.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Copies of the slices that the samples show, on the CPU, and the samples of the copies.
    fn copied(&self, on: &On<'_>, cpu: &Device, samples: &[Sample]) -> Result<(Self, Vec<Sample>)> {
        let pixels = self.height * self.width;
        let bytes_of = |tensor: &Tensor, start: usize, len: usize| -> Result<Vec<u8>> {
            let (first, end) = (start / 4, (start + len).div_ceil(4));
            let words = tensor.view(first, [end - first].into()).to_vec_u32()?;
            Ok(bytemuck::cast_slice(&words)[start - 4 * first..][..len].to_vec())
        };
        let mut bytes = Vec::new();
        for sample in samples {
            let at = sample.slice % self.per_shard;
            let message = format!("there is no slice {} among {}", sample.slice, self.count);
            let shard = self.shards.get(sample.slice / self.per_shard).filter(|_| sample.slice < self.count);
            let Shard { images, masks } = shard.ok_or_else(|| Error::shape(OP, message))?;
            bytes.push((bytes_of(images, at * 3 * pixels, 3 * pixels)?, bytes_of(masks, at * pixels, pixels)?));
        }
        let slices: Vec<_> = bytes.iter().map(|(image, mask)| SliceBytes { image, mask }).collect();
        let rescale = on.read(&self.rescale)?.to_vec()?;
        let rows: Vec<[f32; 4]> = rescale.chunks_exact(4).map(|row| [row[0], row[1], row[2], row[3]]).collect();
        let copies = Self::upload_each(cpu, self.size(), &slices, &rows, self.order)?;
        let samples = samples.iter().enumerate().map(|(slice, sample)| Sample { slice, ..*sample }).collect();
        Ok((copies, samples))
    }

    /// What the kernel needs of a sample; where its slice and its image lie is left at 0.
    ///
    /// # Errors
    /// [`Error::Shape`] naming what does not fit.
    pub fn row(&self, sample: &Sample) -> Result<SampleRow> {
        let (h, w) = (self.height, self.width);
        let groups = self.rescale.len() / 4 / CHANNELS;
        let shown = |channel: &Option<usize>| channel.is_none_or(|channel| channel < CHANNELS);
        if sample.slice >= self.count
            || sample.group >= groups
            || (h != w && sample.turn % 2 == 1)
            || !sample.shows.iter().all(shown)
        {
            let message = format!("{sample:?} does not fit {} slices {h}x{w} in {groups} groups", self.count);
            return Err(Error::shape(OP, message));
        }
        let (mut changes, [mut to_x, mut to_y], [mut reach, mut cell]) = (0, [[0; 3]; 2], [0; 2]);
        if sample.affine.is_some() || sample.elastic.is_some() {
            changes |= plain::WARP;
            let [x, y] = sample.affine.unwrap_or([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
            [to_x, to_y] = [fixed_point(x, w, [w, h])?, fixed_point(y, h, [w, h])?];
        }
        if let Some(elastic) = sample.elastic {
            let [most, cells] = [elastic.reach, f64::from(elastic.cells)];
            if !(0.0..127.0).contains(&most) || !(1..=64).contains(&elastic.cells) {
                let message = format!("{elastic:?}: the reach must be below 127 pixels and the cells 1 to 64");
                return Err(Error::shape(OP, message));
            }
            changes |= plain::ELASTIC;
            // The field is 255 * 2^22 at most; the kernel drops 15 + 8 bits of its product with this.
            reach = (most * 65536.0 / (255.0 * f64::from(1 << 22)) * f64::from(1 << 23)).round() as i32;
            cell = (cells * f64::from(1 << 20) / h.max(w) as f64) as i32;
        }
        let tones = sample.tones.map(|tone| [tone.noise, tone.brightness, tone.contrast, tone.gamma]);
        if sample.tones != [Tone::NONE; CHANNELS] {
            if !tones.as_flattened().iter().all(|value| value.is_finite() && *value >= 0.0) {
                return Err(Error::shape(OP, format!("{:?}: a tone must not be negative", sample.tones)));
            }
            changes |= plain::TONE;
        }
        let shows = sample.shows.iter().enumerate().map(|(c, shown)| (shown.unwrap_or(3) as u32) << (2 * c)).sum();
        let (turn, flips, group) = (sample.turn % 4, sample.flips % 4, sample.group as u32);
        let seed = sample.seed;
        Ok(SampleRow { slice: 0, group, image: 0, turn, flips, shows, changes, seed, to_x, reach, to_y, cell, tones })
    }

    /// Room for the samples of a batch, to be kept from step to step.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn table(&self, batch: usize) -> Result<Tensor> {
        self.rescale.device().empty_u32(OP, [batch, ROW])
    }
}

/// `bytes` bytes in a row, packed four to a word, the first in the lowest bits.
fn packed<'a>(device: &Device, bytes: usize, parts: impl Iterator<Item = &'a [u8]>) -> Result<Tensor> {
    let mut words = vec![0_u32; bytes.div_ceil(4)];
    let mut rest: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    for part in parts {
        let (place, after) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = after;
    }
    device.tensor_u32(OP, [words.len()], &words)
}

/// Words of a sample in the table.
const ROW: usize = size_of::<SampleRow>() / 4;

/// One row of an affine map about the centre, as the kernel takes it: it counts half pixels, and the result is in
/// 1/65536 pixel from the first column or row of `side`.
fn fixed_point(map: [f64; 3], side: usize, [w, h]: [usize; 2]) -> Result<[i32; 3]> {
    let unit = 65536.0;
    let result = [map[0] * unit / 2.0, map[1] * unit / 2.0, (map[2] + (side as f64 - 1.0) / 2.0) * unit];
    // 127 pixels of displacement come on top.
    let farthest = result[0].abs() * w as f64 + result[1].abs() * h as f64 + result[2].abs() + 128.0 * unit;
    if farthest.is_nan() || farthest >= f64::from(i32::MAX) {
        return Err(Error::shape(OP, format!("the map {map:?} leads too far from a slice {h}x{w}")));
    }
    Ok(result.map(|value| value.round() as i32))
}

/// Samples of one shard whose images lie in one range, for one entry point: one launch.
struct Part {
    shard: usize,
    entry: &'static str,
    images: Range<usize>,
    rows: Range<usize>,
}

/// Fills x `[N, H, W, 3]` and target `[N, H, W, 1]` with the samples. `table` comes from [`Slices::table`] and is
/// overwritten. One launch for each shard that holds samples, with
/// and without augmentation, and range of images that fits a binding.
///
/// # Errors
/// [`Error::Shape`] if a slice does not exist, or a slice that is not square is turned by an odd quarter, or an
/// augmentation is beyond what its fields say.
pub fn load_batch(slices: &Slices, samples: &[Sample], table: &Tensor, x: &Tensor, target: &Tensor) -> Result<()> {
    observed(OP, x.device(), |on| {
        let (x, target) = (on.change(x)?, on.change(target)?);
        match on.cpu() {
            None => gather(slices, samples, table, &x, &target),
            Some(cpu) => {
                let (slices, samples) = slices.copied(on, cpu, samples)?;
                gather(&slices, &samples, &slices.table(samples.len())?, &x, &target)
            }
        }
    })
}

fn gather(slices: &Slices, samples: &[Sample], table: &Tensor, x: &Tensor, target: &Tensor) -> Result<()> {
    let (h, w) = (slices.height, slices.width);
    let known = samples.iter().map(|sample| slices.row(sample)).collect::<Result<Vec<_>>>()?;
    let expected = [samples.len() * h * w * slices.channels, samples.len() * h * w];
    if [x.len(), target.len()] != expected {
        return Err(Error::shape(
            OP,
            format!("x {} and target {} do not fit {} samples", x.shape(), target.shape(), samples.len()),
        ));
    }
    let (mut rows, mut parts) = (Vec::with_capacity(samples.len()), Vec::new());
    for images in x.device().image_ranges(OP, &[x, target])? {
        for shard in 0..slices.shards.len() {
            for (entry, changed) in [("gather", false), ("augment", true)] {
                let first = rows.len();
                for (image, at) in images.clone().enumerate() {
                    let row = known[at];
                    let is_changed = row.changes != 0 || row.shows != plain::SHOWS_ITSELF;
                    if samples[at].slice / slices.per_shard == shard && is_changed == changed {
                        let slice = (samples[at].slice % slices.per_shard) as u32;
                        rows.push(SampleRow { slice, image: image as u32, ..row });
                    }
                }
                let rows = first..rows.len();
                if !rows.is_empty() {
                    parts.push(Part { shard, entry, images: images.clone(), rows });
                }
            }
        }
    }
    table.write_u32(bytemuck::cast_slice(&rows))?;
    parts.iter().try_for_each(|part| launch(slices, part, table, x, target))
}

/// One launch: the rows of a part, from its shard into its range of images.
fn launch(slices: &Slices, part: &Part, table: &Tensor, x: &Tensor, target: &Tensor) -> Result<()> {
    let params = LoadBatchParams {
        first_row: part.rows.start as u32,
        rows: part.rows.len() as u32,
        height: slices.height as u32,
        width: slices.width as u32,
        channels: slices.channels as u32,
        source_channels: 3,
        order0: slices.order[0] as u32,
        order1: slices.order[1] as u32,
        order2: slices.order[2] as u32,
    };
    let Shard { images, masks } = &slices.shards[part.shard];
    let (x, target) = (x.images(&part.images), target.images(&part.images));
    match x.device() {
        Device::Gpu(_) => SHADER
            .entry(part.entry)
            .params(&params)
            .reads([images, masks, &slices.rescale, table])
            .writes([&x, &target])
            .over(part.rows.len() * slices.height * slices.width),
        Device::Cpu(_) => {
            let (images, masks) = (images.u32s(), masks.u32s());
            let (images, masks): (&[u8], &[u8]) = (bytemuck::cast_slice(&images), bytemuck::cast_slice(&masks));
            let (mut x, mut target) = (x.f32s_mut(), target.f32s_mut());
            let table = table.u32s();
            let samples = bytemuck::cast_slice(&table);
            plain::gather(&params, images, masks, &slices.rescale.f32s(), samples, &mut x, &mut target);
            Ok(())
        }
    }
}
