//! Augmentation: what happens to each sample of each epoch, drawn on the host and done in the kernel that loads the
//! batch ([`load_batch`](crate::ops::load_batch())).
//!
//! A draw is a formula of (seed, epoch, index of the sample), so it needs no state and a resumed run goes on with the
//! same ones. Every setting has its own random numbers: switching one on leaves the others' draws as they were.
//!
//! Each kind has an amount (0 switches it off) and a probability `..._p` with which a sample gets it. An amount is
//! drawn evenly; factors are drawn evenly on the log scale from `1 / (1 + amount)` to `1 + amount`. Grey values change
//! between the patient's black and white, the limits of the normalisation, so a setting means the same with every
//! `normalize`: noise first, then brightness (distance from black), contrast (distance from what the network sees as 0,
//! with `per_volume` the volume's mean), cut off at black and white, then gamma. That is nnU-Net's order. Each channel
//! draws its own amounts, since the sequences are taken one after the other.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::ops::load_batch::{Elastic, Sample, Tone};
use crate::tensor::random::Stream;
use crate::{Error, Result};

/// The `[augment]` table of `config.toml`. In its place may stand the name of a preset, or `true` (`basic`) and
/// `false` (`none`). Missing keys are as in `basic`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Flips and quarter turns.
    pub turns: Turns,
    /// Largest angle of a free rotation, in degrees, either way.
    pub rotate: f64,
    /// Share of the samples that are rotated.
    pub rotate_p: f64,
    /// Zoom: a factor up to 1 + this, or down to its inverse.
    pub scale: f64,
    /// Share of the samples that are zoomed.
    pub scale_p: f64,
    /// Largest shift along each axis, as a share of that side.
    pub shift: f64,
    /// Share of the samples that are shifted.
    pub shift_p: f64,
    /// Largest angle of shear, in degrees, either way.
    pub shear: f64,
    /// Share of the samples that are sheared.
    pub shear_p: f64,
    /// Elastic deformation: most that a control point moves along each axis, as a share of the longer side.
    pub elastic: f64,
    /// Cells of the control grid along the longer side. `elastic * elastic_cells` must stay below 0.48: beyond, the
    /// slice could fold over itself.
    pub elastic_cells: u32,
    /// Share of the samples that are deformed.
    pub elastic_p: f64,
    /// Largest standard deviation of the noise, as a share of the range from black to white.
    pub noise: f64,
    /// Share of the samples that get noise.
    pub noise_p: f64,
    /// Brightness: a factor up to 1 + this, or down to its inverse.
    pub brightness: f64,
    /// Share of the samples that are brightened or darkened.
    pub brightness_p: f64,
    /// Contrast: a factor up to 1 + this, or down to its inverse.
    pub contrast: f64,
    /// Share of the samples with another contrast.
    pub contrast_p: f64,
    /// Gamma: an exponent up to 1 + this, or down to its inverse.
    pub gamma: f64,
    /// Share of the samples with another gamma.
    pub gamma_p: f64,
    /// Share of the samples that lose their pre- or their post-contrast sequence. FLAIR, which shows the tumour, stays.
    pub drop_p: f64,
    /// What is in the place of a lost sequence.
    pub drop_fill: DropFill,
}

/// Which flips and quarter turns there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turns {
    /// None.
    None,
    /// Left and right swapped in half of the samples.
    Mirror,
    /// All eight ways to lay down a square (transposition is one of them), each equally often; of other slices the four
    /// that keep their sides.
    All,
    /// As UNeXt's training script: `RandomRotate90` (half of the samples, by 0 to 3 quarters), then `Flip` (half of the
    /// samples, both ways, up-down or left-right).
    Albumentations,
}

/// What is in the place of a lost sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropFill {
    /// FLAIR, as in the LGG set where a patient lacks a sequence.
    Flair,
    /// 0 in the network's scale.
    Zero,
}

/// The random numbers of one sample. Their places never change: a new kind takes new ones.
struct Chance {
    stream: Stream,
    first: u64,
}

impl Chance {
    const PER_SAMPLE: u64 = 64;

    /// Uniform in (0, 1).
    fn share(&self, place: u64) -> f64 {
        self.stream.open01(self.first + place)
    }

    /// Uniform in (-most, most).
    fn within(&self, place: u64, most: f64) -> f64 {
        (2.0 * self.share(place) - 1.0) * most
    }

    /// A factor between 1 / (1 + most) and 1 + most, evenly on the log scale.
    fn factor(&self, place: u64, most: f64) -> f64 {
        self.within(place, most.ln_1p()).exp()
    }

    /// Whether something of this amount and probability happens.
    fn happens(&self, place: u64, amount: f64, probability: f64) -> bool {
        amount > 0.0 && self.share(place) < probability
    }

    fn word(&self, place: u64) -> u32 {
        (self.stream.bits(self.first + place) >> 32) as u32
    }
}

impl AugmentConfig {
    /// The names of the presets.
    pub const PRESETS: [&'static str; 4] = ["none", "basic", "strong", "unext"];

    /// No augmentation.
    pub fn none() -> Self {
        Self { turns: Turns::None, ..Self::default() }
    }

    /// Everything, in amounts near nnU-Net's.
    pub fn strong() -> Self {
        Self {
            turns: Turns::All,
            rotate: 30.0,
            scale: 0.25,
            shift: 0.06,
            shear: 5.0,
            elastic: 0.04,
            noise: 0.04,
            brightness: 0.25,
            contrast: 0.25,
            gamma: 0.4,
            drop_p: 0.05,
            ..Self::default()
        }
    }

    /// A preset by its name: `none`, `basic`, `strong`, `unext`.
    ///
    /// # Errors
    /// [`Error::Config`] listing the names.
    pub fn preset(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Self::none()),
            "basic" => Ok(Self::default()),
            "strong" => Ok(Self::strong()),
            "unext" => Ok(Self { turns: Turns::Albumentations, ..Self::default() }),
            _ => Err(Error::Config(format!("augment {name:?} is not known; there are {}", Self::PRESETS.join(", ")))),
        }
    }

    /// Augments a sample of slices of `size` (rows, columns): the draw of (seed, epoch, index).
    pub fn apply(&self, sample: &mut Sample, size: [usize; 2], seed: u64, epoch: usize, index: usize) {
        let name = format!("augment/{epoch}");
        let eight = Stream::seeded(seed, &name);
        let first = index as u64 * Chance::PER_SAMPLE;
        let chance = Chance { stream: Stream::seeded(seed, &(name + "/changes")), first };
        (sample.flips, sample.turn) = self.orientation(&chance, eight.below(index as u64, 16) as u32, size);
        sample.affine = self.affine(&chance, size);
        let longer = size[0].max(size[1]) as f64;
        sample.elastic = chance
            .happens(12, self.elastic, self.elastic_p)
            .then_some(Elastic { cells: self.elastic_cells, reach: self.elastic * longer });
        let [noise, brightness, contrast, gamma] = [
            chance.happens(16, self.noise, self.noise_p),
            chance.happens(20, self.brightness, self.brightness_p),
            chance.happens(24, self.contrast, self.contrast_p),
            chance.happens(28, self.gamma, self.gamma_p),
        ];
        for (c, tone) in (1..).zip(&mut sample.tones) {
            let factor = |happens, place, most| if happens { chance.factor(place + c, most) as f32 } else { 1.0 };
            *tone = Tone {
                noise: if noise { (chance.share(16 + c) * self.noise) as f32 } else { 0.0 },
                brightness: factor(brightness, 20, self.brightness),
                contrast: factor(contrast, 24, self.contrast),
                gamma: factor(gamma, 28, self.gamma),
            };
        }
        if chance.happens(32, 1.0, self.drop_p) {
            // Pre- and post-contrast are channels 0 and 2, whichever way round the network takes them.
            let lost = if chance.share(33) < 0.5 { 0 } else { 2 };
            sample.shows[lost] = (self.drop_fill == DropFill::Flair).then_some(super::FLAIR);
        }
        sample.seed = chance.word(34);
    }

    /// Flips and turn. `eight` is even in 0..16.
    fn orientation(&self, chance: &Chance, eight: u32, size: [usize; 2]) -> (u32, u32) {
        let quarters = if size[0] == size[1] { 3 } else { 2 }; // bits of a turn that fit the slice
        match self.turns {
            Turns::None => (0, 0),
            Turns::Mirror => (eight & 1, 0),
            // The four turns of an image and of its mirror image are all there are.
            Turns::All => (eight & 1, eight >> 2 & quarters),
            Turns::Albumentations => {
                let turn = if chance.share(40) < 0.5 { (chance.share(41) * 4.0) as u32 & quarters } else { 0 };
                let flips = if chance.share(42) < 0.5 { 1 + (chance.share(43) * 3.0) as u32 } else { 0 };
                // There the turn comes first, which changes nothing: all three flips are equally likely.
                (flips, turn)
            }
        }
    }

    /// The map from a pixel of the batch to its place in the slice: the inverse of zoom, shear, rotation and shift.
    fn affine(&self, chance: &Chance, [h, w]: [usize; 2]) -> Option<[[f64; 3]; 2]> {
        let rotate = chance.happens(0, self.rotate, self.rotate_p);
        let scale = chance.happens(2, self.scale, self.scale_p);
        let shift = chance.happens(4, self.shift, self.shift_p);
        let shear = chance.happens(8, self.shear, self.shear_p);
        if !(rotate || scale || shift || shear) {
            return None;
        }
        let angle = if rotate { chance.within(1, self.rotate).to_radians() } else { 0.0 };
        let zoom = if scale { chance.factor(3, self.scale) } else { 1.0 };
        let slant = if shear { chance.within(9, self.shear).to_radians().tan() } else { 0.0 };
        let [right, down] = if shift {
            [chance.within(5, self.shift) * w as f64, chance.within(6, self.shift) * h as f64]
        } else {
            [0.0, 0.0]
        };
        // Forward, y downwards: out = zoom * R * S * in + shift, with R = [c s; -s c] (counter-clockwise as seen) and
        // S = [1 slant; 0 1]. Backward: in = S^-1 * R^T / zoom * (out - shift).
        let (sin, cos) = angle.sin_cos();
        let a = [[(cos - slant * sin) / zoom, (-sin - slant * cos) / zoom], [sin / zoom, cos / zoom]];
        Some(a.map(|[x, y]| [x, y, -(x * right + y * down)]))
    }

    /// Each kind that is on, alone and in every sample: to be looked at one by one.
    pub fn kinds(&self) -> Vec<(&'static str, Self)> {
        let Self { turns, rotate, scale, shift, shear, elastic, elastic_cells, .. } = *self;
        let Self { noise, brightness, contrast, gamma, drop_p, drop_fill, .. } = *self;
        let off = || Self { elastic_cells, drop_fill, ..Self::none() };
        let all = [
            ("turns", turns != Turns::None, Self { turns, ..off() }),
            ("rotate", rotate > 0.0, Self { rotate, rotate_p: 1.0, ..off() }),
            ("scale", scale > 0.0, Self { scale, scale_p: 1.0, ..off() }),
            ("shift", shift > 0.0, Self { shift, shift_p: 1.0, ..off() }),
            ("shear", shear > 0.0, Self { shear, shear_p: 1.0, ..off() }),
            ("elastic", elastic > 0.0, Self { elastic, elastic_p: 1.0, ..off() }),
            ("noise", noise > 0.0, Self { noise, noise_p: 1.0, ..off() }),
            ("brightness", brightness > 0.0, Self { brightness, brightness_p: 1.0, ..off() }),
            ("contrast", contrast > 0.0, Self { contrast, contrast_p: 1.0, ..off() }),
            ("gamma", gamma > 0.0, Self { gamma, gamma_p: 1.0, ..off() }),
            ("drop", drop_p > 0.0, Self { drop_p: 1.0, ..off() }),
        ];
        all.into_iter().filter(|(_, on, _)| *on).map(|(name, _, config)| (name, config)).collect()
    }

    /// Refuses amounts and probabilities that make no sense.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn check(&self) -> Result<()> {
        let amounts = [
            ("rotate", self.rotate, 180.0),
            ("scale", self.scale, 1.0),
            ("shift", self.shift, 0.5),
            ("shear", self.shear, 45.0),
            ("elastic", self.elastic, 0.25),
            ("noise", self.noise, 1.0),
            ("brightness", self.brightness, 4.0),
            ("contrast", self.contrast, 4.0),
            ("gamma", self.gamma, 4.0),
            ("rotate_p", self.rotate_p, 1.0),
            ("scale_p", self.scale_p, 1.0),
            ("shift_p", self.shift_p, 1.0),
            ("shear_p", self.shear_p, 1.0),
            ("elastic_p", self.elastic_p, 1.0),
            ("noise_p", self.noise_p, 1.0),
            ("brightness_p", self.brightness_p, 1.0),
            ("contrast_p", self.contrast_p, 1.0),
            ("gamma_p", self.gamma_p, 1.0),
            ("drop_p", self.drop_p, 1.0),
        ];
        for (key, value, most) in amounts {
            if !(0.0..=most).contains(&value) {
                return Err(Error::Config(format!("augment.{key} must be from 0 to {most}, got {value}")));
            }
        }
        let cells = self.elastic_cells;
        if !(1..=64).contains(&cells) {
            return Err(Error::Config(format!("augment.elastic_cells must be from 1 to 64, got {cells}")));
        }
        // Choi and Lee (2000): cubic B-splines do not fold while control points move less than 0.48 of their distance.
        if self.elastic * f64::from(cells) >= 0.48 {
            return Err(Error::Config(format!(
                "augment.elastic {} with elastic_cells {cells} can fold the slice: keep their product below 0.48, that is elastic below {:.3}",
                self.elastic,
                0.48 / f64::from(cells)
            )));
        }
        Ok(())
    }
}

impl Default for AugmentConfig {
    /// `basic`: flips and quarter turns.
    fn default() -> Self {
        Self {
            turns: Turns::All,
            rotate: 0.0,
            rotate_p: 0.5,
            scale: 0.0,
            scale_p: 0.5,
            shift: 0.0,
            shift_p: 0.5,
            shear: 0.0,
            shear_p: 0.3,
            elastic: 0.0,
            elastic_cells: 6,
            elastic_p: 0.3,
            noise: 0.0,
            noise_p: 0.2,
            brightness: 0.0,
            brightness_p: 0.3,
            contrast: 0.0,
            contrast_p: 0.3,
            gamma: 0.0,
            gamma_p: 0.3,
            drop_p: 0.0,
            drop_fill: DropFill::Flair,
        }
    }
}

/// Reads the table, the name of a preset, or what older runs wrote: `augment = true` or `false`.
///
/// # Errors
/// The deserializer's, naming the key.
pub(crate) fn read<'de, D: Deserializer<'de>>(input: D) -> std::result::Result<AugmentConfig, D::Error> {
    struct Any;
    impl<'de> Visitor<'de> for Any {
        type Value = AugmentConfig;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(out, "augment to be true, false, one of {:?}, or a table", AugmentConfig::PRESETS)
        }

        fn visit_bool<E: serde::de::Error>(self, on: bool) -> std::result::Result<Self::Value, E> {
            Ok(if on { AugmentConfig::default() } else { AugmentConfig::none() })
        }

        fn visit_str<E: serde::de::Error>(self, name: &str) -> std::result::Result<Self::Value, E> {
            AugmentConfig::preset(name).map_err(E::custom)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Self::Value, A::Error> {
            AugmentConfig::deserialize(MapAccessDeserializer::new(map))
        }
    }
    input.deserialize_any(Any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::ops::{Slices, load_batch};

    const SIZE: usize = 32;

    type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

    /// x (channel 0 to 2 interleaved) and mask of one sample of a picture of `SIZE` squared, on the CPU; x is byte / 255.
    fn load(pixel: impl Fn(usize, usize) -> u8, change: impl Fn(&mut Sample)) -> Result<(Vec<f32>, Vec<f32>)> {
        let at = |place: usize| pixel(place / SIZE, place % SIZE);
        let masks: Vec<u8> = (0..SIZE * SIZE).map(|place| u8::from(at(place) >= 128)).collect();
        let images: Vec<u8> = (0..SIZE * SIZE).flat_map(|place| [at(place), at(place) / 2, 255 - at(place)]).collect();
        let row = [0.0, 255.0, 1.0 / 255.0, 0.0];
        let device = Device::cpu();
        let slices = Slices::upload(&device, [SIZE; 2], &images, &masks, &[row; 3], [0, 1, 2])?;
        let mut sample = Sample::plain(0, 0);
        change(&mut sample);
        let (x, target) = (device.zeros("x", [1, SIZE, SIZE, 3])?, device.zeros("target", [1, SIZE, SIZE, 1])?);
        load_batch(&slices, &[sample], &slices.table(1)?, &x, &target)?;
        Ok((x.to_vec()?, target.to_vec()?))
    }

    fn draw(config: &AugmentConfig, index: usize) -> Sample {
        let mut sample = Sample::plain(0, 0);
        config.apply(&mut sample, [SIZE; 2], 7, 3, index);
        sample
    }

    /// A picture without symmetry: a bright block left of and above the centre, on a slope.
    fn picture(y: usize, x: usize) -> u8 {
        if (6..12).contains(&y) && (3..14).contains(&x) { 240 } else { (3 * x + y) as u8 }
    }

    /// Mean row and column of a mask, from the centre.
    fn middle(mask: &[f32]) -> [f32; 2] {
        let sum = |of: &dyn Fn(usize) -> f32| mask.iter().enumerate().map(|(at, inside)| inside * of(at)).sum::<f32>();
        let half = (SIZE as f32 - 1.0) / 2.0;
        [sum(&|at| (at / SIZE) as f32 - half) / sum(&|_| 1.0), sum(&|at| (at % SIZE) as f32 - half) / sum(&|_| 1.0)]
    }

    #[test]
    fn a_map_by_quarters_is_a_turn_bit_for_bit() -> Outcome {
        let quarter = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]];
        let mapped = load(picture, |sample| sample.affine = Some(quarter))?;
        assert_eq!(mapped, load(picture, |sample| sample.turn = 1)?);
        let same = load(picture, |sample| sample.affine = Some([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))?;
        assert_eq!(same, load(picture, |_| ())?);
        Ok(())
    }

    #[test]
    fn the_map_moves_as_the_settings_say() -> Outcome {
        let only = AugmentConfig { turns: Turns::None, ..AugmentConfig::none() };
        let before = middle(&load(picture, |_| ())?.1);
        let [mut angles, mut zooms] = [Vec::new(), Vec::new()];
        for index in 0..40 {
            // Rotation: the centre of the block keeps its distance; zoom: it scales.
            let config = AugmentConfig { rotate: 90.0, rotate_p: 1.0, ..only.clone() };
            let after = middle(&load(picture, |sample| *sample = draw(&config, index))?.1);
            let length = |v: [f32; 2]| v[0].hypot(v[1]);
            assert!((length(after) / length(before) - 1.0).abs() < 0.06, "{before:?} {after:?}");
            let cross = before[0] * after[1] - before[1] * after[0];
            angles.push((cross / length(before) / length(after)).asin().to_degrees());
            let config = AugmentConfig { scale: 0.4, scale_p: 1.0, ..only.clone() };
            let after = middle(&load(picture, |sample| *sample = draw(&config, index))?.1);
            zooms.push(length(after) / length(before));
            // Shift: whole or not, the centre moves by at most that share of the side.
            let config = AugmentConfig { shift: 0.1, shift_p: 1.0, ..only.clone() };
            let after = middle(&load(picture, |sample| *sample = draw(&config, index))?.1);
            assert!((0..2).all(|at| (after[at] - before[at]).abs() < 0.1 * SIZE as f32 + 0.5), "{after:?}");
        }
        let span = |values: &[f32]| values.iter().fold([f32::MAX, f32::MIN], |[a, b], v| [a.min(*v), b.max(*v)]);
        let [[least, most], [out, inside]] = [span(&angles), span(&zooms)];
        assert!(least < -60.0 && most > 60.0, "angles {angles:?}");
        assert!((0.68..0.85).contains(&out) && (1.2..1.45).contains(&inside), "zooms {zooms:?}");
        Ok(())
    }

    #[test]
    fn what_comes_from_outside_is_black() -> Outcome {
        let away = [[1.0, 0.0, 2.0 * SIZE as f64], [0.0, 1.0, 0.0]];
        let (x, mask) = load(|_, _| 200, |sample| sample.affine = Some(away))?;
        assert!(x.iter().chain(&mask).all(|value| *value == 0.0));
        Ok(())
    }

    #[test]
    fn elastic_displacement_is_smooth_and_bounded() -> Outcome {
        // Rows tell their place: grey 4y + 60 inside.
        let place = |y: usize, _: usize| (4 * y + 60) as u8;
        let mut farthest: f32 = 0.0;
        for seed in 0..20 {
            let reach = 2.5;
            let (x, _) = load(place, |sample| {
                sample.elastic = Some(Elastic { cells: 6, reach });
                sample.seed = seed;
            })?;
            let row = |y: usize, x_at: usize| (x[3 * (y * SIZE + x_at)] * 255.0 - 60.0) / 4.0;
            for y in 4..SIZE - 4 {
                for x in 4..SIZE - 5 {
                    farthest = farthest.max((row(y, x) - y as f32).abs());
                    assert!((row(y, x + 1) - row(y, x)).abs() < 0.8, "torn at {y} {x}");
                    assert!(row(y, x) - row(y - 1, x) > 0.0, "folded at {y} {x}");
                }
            }
        }
        assert!((0.9..2.5).contains(&farthest), "a reach of 2.5 moved by up to {farthest}");
        Ok(())
    }

    #[test]
    fn tones_follow_their_formulas() -> Outcome {
        let tone = |tone: Tone| load(picture, move |sample| sample.tones[0] = tone);
        let plain = load(picture, |_| ())?.0;
        let check = |got: Vec<f32>, formula: &dyn Fn(f32) -> f32| {
            for (at, (got, plain)) in got.chunks(3).zip(plain.chunks(3)).enumerate() {
                assert!((got[0] - formula(plain[0])).abs() < 1e-5, "pixel {at}: {} from {}", got[0], plain[0]);
                assert_eq!(got[1..], plain[1..], "other channels stay");
            }
        };
        check(tone(Tone { brightness: 1.5, ..Tone::NONE })?.0, &|v| (1.5 * v).min(1.0));
        check(tone(Tone { gamma: 0.5, ..Tone::NONE })?.0, &|v| v.sqrt());
        // The network's 0 is black here, so contrast is brightness; both come before gamma.
        check(tone(Tone { contrast: 0.5, brightness: 0.5, gamma: 2.0, ..Tone::NONE })?.0, &|v| (v / 4.0).powi(2));
        Ok(())
    }

    #[test]
    fn noise_is_normal() -> Outcome {
        let mut all = Vec::new();
        for seed in 0..10 {
            let (x, _) = load(
                |_, _| 128,
                |sample| {
                    sample.seed = 1000 * seed;
                    sample.tones[0].noise = 0.1;
                },
            )?;
            all.extend(x.chunks(3).map(|pixel| (f64::from(pixel[0]) - 128.0 / 255.0) / 0.1));
        }
        let moment = |power: i32| all.iter().map(|value| value.powi(power)).sum::<f64>() / all.len() as f64;
        // 10240 numbers: deviations of the mean, variance and fourth moment (3) are 0.01, 0.014 and 0.1.
        let [mean, variance, fourth] = [moment(1), moment(2), moment(4)];
        assert!(
            mean.abs() < 0.04 && (variance - 1.0).abs() < 0.06 && (fourth - 3.0).abs() < 0.4,
            "{mean} {variance} {fourth}"
        );
        let neighbours = all.windows(2).map(|pair| pair[0] * pair[1]).sum::<f64>() / all.len() as f64;
        assert!(neighbours.abs() < 0.04, "neighbours correlate by {neighbours}");
        Ok(())
    }

    #[test]
    fn a_draw_belongs_to_seed_epoch_and_index() {
        let strong = AugmentConfig::strong();
        assert_eq!(draw(&strong, 5), draw(&strong, 5));
        let mut epoch = Sample::plain(0, 0);
        strong.apply(&mut epoch, [SIZE; 2], 7, 4, 5);
        assert!(draw(&strong, 5) != draw(&strong, 6) && draw(&strong, 5) != epoch);
        // Without one kind the others draw the same.
        let fewer = AugmentConfig { elastic: 0.0, gamma: 0.0, ..strong.clone() };
        for index in 0..50 {
            let (mut all, fewer) = (draw(&strong, index), draw(&fewer, index));
            all.elastic = None;
            all.tones.iter_mut().for_each(|tone| tone.gamma = 1.0);
            assert_eq!(all, fewer);
        }
        // Of "basic" only flips and turns.
        let basic = draw(&AugmentConfig::default(), 3);
        assert_eq!(basic, Sample { turn: basic.turn, flips: basic.flips, seed: basic.seed, ..Sample::plain(0, 0) });
        assert_eq!(draw(&AugmentConfig::none(), 3), Sample { seed: basic.seed, ..Sample::plain(0, 0) });
    }

    #[test]
    fn probabilities_are_kept() {
        let strong = AugmentConfig::strong();
        let draws: Vec<Sample> = (0..4000).map(|index| draw(&strong, index)).collect();
        let share = |of: &dyn Fn(&Sample) -> bool| draws.iter().filter(|draw| of(draw)).count() as f64 / 4000.0;
        for (name, got, want) in [
            ("elastic", share(&|draw| draw.elastic.is_some()), strong.elastic_p),
            ("noise", share(&|draw| draw.tones[2].noise > 0.0), strong.noise_p),
            ("gamma", share(&|draw| draw.tones[1].gamma != 1.0), strong.gamma_p),
            ("pre-contrast lost", share(&|draw| draw.shows[0] != Some(0)), strong.drop_p / 2.0),
            ("FLAIR lost", share(&|draw| draw.shows[1] != Some(1)), 0.0),
        ] {
            assert!((got - want).abs() <= 4.0 * (want * (1.0 - want) / 4000.0).sqrt(), "{name}: {got} of {want}");
        }
    }

    #[test]
    fn unext_turns_as_albumentations() -> Outcome {
        // How often each of the eight pictures must come: a turn (5/8, 1/8, 1/8, 1/8), then a flip (1/2, 1/6, 1/6, 1/6).
        let picture = |turn, flips| load(picture, |sample| (sample.turn, sample.flips) = (turn, flips)).map(|(x, _)| x);
        let mut want: Vec<(Vec<f32>, f64, usize)> = Vec::new();
        let mut class = [[0; 4]; 4];
        for turn in 0..4 {
            for flips in 0..4 {
                let x = picture(turn, flips)?;
                let p = (if turn == 0 { 0.625 } else { 0.125 }) * if flips == 0 { 0.5 } else { 1.0 / 6.0 };
                let known = want.iter().position(|(known, ..)| *known == x).unwrap_or(want.len());
                if known == want.len() {
                    want.push((x, 0.0, 0));
                }
                want[known].1 += p;
                class[turn as usize][flips as usize] = known;
            }
        }
        assert_eq!(want.len(), 8);
        let unext = AugmentConfig::preset("unext")?;
        for index in 0..8000 {
            let drawn = draw(&unext, index);
            want[class[drawn.turn as usize][drawn.flips as usize]].2 += 1;
        }
        for (_, p, times) in want {
            assert!(
                (times as f64 - 8000.0 * p).abs() < 4.0 * (8000.0 * p * (1.0 - p)).sqrt(),
                "{times} of {}",
                8000.0 * p
            );
        }
        Ok(())
    }

    #[test]
    fn slices_that_are_not_square_keep_their_sides() {
        for turns in [Turns::All, Turns::Albumentations, Turns::Mirror] {
            let config = AugmentConfig { turns, ..AugmentConfig::default() };
            for index in 0..100 {
                let mut sample = Sample::plain(0, 0);
                config.apply(&mut sample, [8, 9], 0, 0, index);
                assert_eq!(sample.turn % 2, 0);
            }
        }
    }

    #[test]
    fn a_file_may_name_a_preset() {
        #[derive(Deserialize, Debug)]
        struct File {
            #[serde(deserialize_with = "read")]
            augment: AugmentConfig,
        }
        let read = |text: &str| toml::from_str::<File>(text).map(|file| file.augment);
        for (text, want) in [
            ("augment = true", AugmentConfig::default()),
            ("augment = false", AugmentConfig::none()),
            ("augment = \"strong\"", AugmentConfig::strong()),
            (
                "[augment]\nrotate = 15\nturns = \"mirror\"",
                AugmentConfig { rotate: 15.0, turns: Turns::Mirror, ..AugmentConfig::default() },
            ),
        ] {
            assert_eq!(read(text).as_ref(), Ok(&want), "{text}");
        }
        for (text, told) in
            [("augment = \"all\"", "strong"), ("[augment]\nrotat = 3", "rotat"), ("augment = 3", "true")]
        {
            let message = read(text).map_or_else(|error| error.to_string(), |_| String::new());
            assert!(message.contains(told), "{text}: {message}");
        }
        for preset in AugmentConfig::PRESETS {
            assert!(AugmentConfig::preset(preset).is_ok_and(|config| config.check().is_ok()), "{preset}");
        }
        let told =
            AugmentConfig { elastic: 0.1, ..AugmentConfig::default() }.check().map_err(|error| error.to_string());
        assert!(told.is_err_and(|told| told.contains("augment.elastic 0.1")));
    }
}
