//! A synthetic head with a tumour: trains and tests everything where the real images may not go.
//!
//! A patient is a formula in space: ellipsoids and bands (scalp, skull, fluid, brain, ventricles), folded and textured by
//! smooth noise, sampled once for each pixel of each slice. Axes: `x` to the right, `y` down (the face looks up), `z` from
//! the bottom slice (-1) to the top (1); the picture spans -1..1 along `x` and `y`.
//!
//! **A brightness threshold must fail**, as it does on the real set: the tumour's FLAIR is that of scalp, fat and harmless
//! white-matter spots. What tells it apart is context: inside the brain, dark before contrast, without the folds of the
//! cortex. [`best_threshold`] measures how far a threshold gets.
//!
//! Randomness is a hash of (seed, patient, place), so a patient does not depend on how many others are made.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use tiff::encoder::colortype::{ColorType, Gray8, RGB8};
use tiff::encoder::{Compression, DeflateLevel, Predictor, TiffEncoder};

use super::{CHANNELS, Dataset, FLAIR, Patient, Slice};
use crate::{Error, Result};

/// How many heads to make, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhantomSettings {
    /// Patients, at least 1.
    pub patients: usize,
    /// Slices of each patient, at least 3: the first and the last never show tumour.
    pub slices: usize,
    /// Rows and columns of a slice, at least 32.
    pub size: usize,
    /// The same seed gives the same bytes (on one platform: the system's `sin` and `ln` may differ in the last bit).
    pub seed: u64,
}

impl Default for PhantomSettings {
    fn default() -> Self {
        Self { patients: 6, slices: 24, size: 128, seed: 0 }
    }
}

impl PhantomSettings {
    fn check(&self) -> Result<()> {
        if self.patients < 1 || self.slices < 3 || self.size < 32 || self.patients > 9999 || self.size > 4096 {
            return Err(Error::Config(format!(
                "a phantom needs 1 to 9999 patients, at least 3 slices and a size of 32 to 4096; got {} patients, {} \
                 slices, size {}",
                self.patients, self.slices, self.size
            )));
        }
        Ok(())
    }

    /// The folder's name of a patient.
    fn name(&self, patient: usize) -> String {
        format!("PHANTOM_S{}_{:04}_20000101", self.seed, patient + 1)
    }
}

/// Writes the set to `dir/kaggle_3m` in Kaggle's layout and returns that folder. It appears complete or not at all.
/// `progress(done, total)` counts patients.
///
/// # Errors
/// `dir/kaggle_3m` already holds something, settings out of range, or a file that cannot be written.
pub fn write_phantom(
    dir: &Path,
    settings: &PhantomSettings,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<PathBuf> {
    settings.check()?;
    let root = dir.join("kaggle_3m");
    if fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_some()) || root.is_file() {
        return Err(Error::data(&root, "this already exists and is not overwritten; name another folder or remove it"));
    }
    let partial = dir.join(".kaggle_3m.partial");
    if partial.exists() {
        // Left by a run that was killed.
        fs::remove_dir_all(&partial).map_err(Error::io("remove", &partial))?;
    }
    let done = AtomicUsize::new(0);
    (0..settings.patients).into_par_iter().try_for_each(|index| {
        let patient = phantom_patient(settings, index)?;
        let folder = partial.join(&patient.name);
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        for slice in &patient.slices {
            let stem = format!("{}_{}", patient.name, slice.number);
            let mask: Vec<u8> = slice.mask.iter().map(|&inside| inside * 255).collect();
            write_tiff::<RGB8>(&folder.join(format!("{stem}.tif")), settings.size, &slice.image)?;
            write_tiff::<Gray8>(&folder.join(format!("{stem}_mask.tif")), settings.size, &mask)?;
        }
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, settings.patients);
        Ok(())
    })?;
    if root.is_dir() {
        fs::remove_dir(&root).map_err(Error::io("replace", &root))?;
    }
    fs::rename(&partial, &root).map_err(Error::io("write", &root))?;
    Ok(root)
}

/// Writes a square 8-bit picture.
fn write_tiff<C: ColorType<Inner = u8>>(path: &Path, size: usize, pixels: &[u8]) -> Result<()> {
    let failed = |source: tiff::TiffError| Error::io("encode", path)(std::io::Error::other(source));
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes)
        .map_err(failed)?
        .with_compression(Compression::Deflate(DeflateLevel::Balanced))
        .with_predictor(Predictor::Horizontal);
    encoder.write_image::<C>(size as u32, size as u32, pixels).map_err(failed)?;
    fs::write(path, bytes.into_inner()).map_err(Error::io("write", path))
}

/// The whole set in memory, equal to what [`write_phantom`] writes.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// use shadegrad::data::phantom::{PhantomSettings, phantom_dataset};
/// let set = phantom_dataset(&PhantomSettings { patients: 2, slices: 5, size: 32, seed: 7 })?;
/// assert_eq!(set.slice_count(), 10);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Settings out of range.
pub fn phantom_dataset(settings: &PhantomSettings) -> Result<Dataset> {
    settings.check()?;
    let patients = (0..settings.patients).into_par_iter().map(|index| phantom_patient(settings, index));
    Ok(Dataset {
        root: PathBuf::from("phantom"),
        patients: patients.collect::<Result<_>>()?,
        height: settings.size,
        width: settings.size,
        channels: CHANNELS,
    })
}

/// Patient number `index` (from 0) of a set.
///
/// # Errors
/// Settings out of range.
pub fn phantom_patient(settings: &PhantomSettings, index: usize) -> Result<Patient> {
    settings.check()?;
    let name = settings.name(index);
    let head = Head::new(settings, index);
    let slices = (0..settings.slices).map(|at| {
        let (image, mask) = head.slice(settings.size, slice_height(at, settings.slices), at as u64);
        let number = at as u32 + 1;
        Slice { number, path: PathBuf::from(format!("{name}/{name}_{number}.tif")), image, mask }
    });
    Ok(Patient { slices: slices.collect(), name })
}

/// How good a FLAIR threshold can be: for each patient of `part` the best Dice of its volume over all thresholds, **chosen
/// with knowledge of the mask**, then the mean over patients. A network that is not clearly better has learned nothing.
pub fn best_threshold(dataset: &Dataset, part: &[(usize, usize)]) -> f64 {
    // [patient][inside the mask][FLAIR value] -> pixels
    let mut counts = vec![[[0u64; 256]; 2]; dataset.patients.len()];
    let mut present = vec![false; dataset.patients.len()];
    for &at in part {
        present[at.0] = true;
        let slice = dataset.slice(at);
        for (pixel, &inside) in slice.image.chunks_exact(dataset.channels).zip(&slice.mask) {
            counts[at.0][usize::from(inside)][usize::from(pixel[FLAIR])] += 1;
        }
    }
    let best = counts.iter().zip(&present).filter(|(_, present)| **present).map(|([outside, inside], _)| {
        let target: u64 = inside.iter().sum();
        // From the highest threshold down, one more value is predicted each time; 0 would predict everything.
        let (mut right, mut wrong, mut best) = (0, 0, 0f64);
        for value in (1..256).rev() {
            right += inside[value];
            wrong += outside[value];
            let sum = right + wrong + target;
            best = best.max(if sum == 0 { 1.0 } else { 2.0 * right as f64 / sum as f64 });
        }
        best
    });
    let best: Vec<f64> = best.collect();
    best.iter().sum::<f64>() / best.len().max(1) as f64
}

// ---------------------------------------------------------------------------------------------------------------------
// The head

/// Signal of a tissue before contrast, in FLAIR and after contrast; 1 is the brightest fat.
type Signal = [f32; CHANNELS];

const AIR: Signal = [0.0, 0.0, 0.0];
const FAT: Signal = [0.82, 0.72, 0.84];
const BONE: Signal = [0.14, 0.12, 0.16];
const FLUID: Signal = [0.17, 0.10, 0.18];
const GREY: Signal = [0.42, 0.50, 0.47];
const WHITE: Signal = [0.54, 0.41, 0.57];
/// Vessels light up after contrast only.
const VESSEL: Signal = [0.22, 0.16, 0.92];
/// Harmless spots and caps at the ventricles: as bright as tumour in FLAIR, but not dark before contrast.
const SPOT: Signal = [0.50, 0.64, 0.53];
const TUMOUR: Signal = [0.33, 0.59, 0.38];
const TUMOUR_CORE: Signal = [0.23, 0.46, 0.25];
/// The rim around the core takes up contrast.
const TUMOUR_RIM: Signal = [0.35, 0.60, 0.80];

/// Everything that differs between patients.
struct Head {
    seed: u64,
    center: [f32; 2],
    /// Half of the head's width and length, and the sine and cosine of its turn.
    half: [f32; 2],
    turn: [f32; 2],
    scalp: f32,
    ventricle: f32,
    /// Scanner gain of each channel, in bytes for signal 1.
    gain: Signal,
    noise: f32,
    /// Harmless bright spots: centre and radius.
    spots: Vec<([f32; 3], f32)>,
    tumour: Tumour,
}

/// An ellipsoid whose surface is moved by noise.
struct Tumour {
    center: [f32; 3],
    radius: [f32; 3],
    /// Whether it has a core with an enhancing rim.
    rim: bool,
}

/// `z` of a slice: -1 at the bottom, 1 at the top.
fn slice_height(at: usize, slices: usize) -> f32 {
    2.0 * at as f32 / (slices - 1) as f32 - 1.0
}

impl Head {
    fn new(settings: &PhantomSettings, index: usize) -> Self {
        let mut random = Random::new(hash(settings.seed, index as u64 + 1));
        let turn = random.between(-0.12, 0.12);
        let half = [random.between(0.70, 0.78), random.between(0.85, 0.93)];
        let brightness = random.between(0.75, 1.15);
        let gain = [170.0, 185.0, 170.0].map(|gain: f32| gain * brightness * random.between(0.88, 1.12));
        let spots = (0..random.below(5) + 3).map(|_| {
            let angle = random.between(0.0, std::f32::consts::TAU);
            let (far, high) = (random.between(0.2, 0.42), random.between(-0.4, 0.6));
            ([far * angle.cos() * 0.9, far * angle.sin() * 1.2, high], random.between(0.03, 0.065))
        });
        let spots = spots.collect();
        Self {
            seed: random.bits(),
            center: [random.between(-0.04, 0.04), random.between(-0.05, 0.03)],
            half,
            turn: [turn.sin(), turn.cos()],
            scalp: random.between(0.060, 0.095),
            ventricle: random.between(0.7, 1.3),
            gain,
            noise: random.between(0.011, 0.024),
            spots,
            tumour: Tumour::new(&mut random, settings.slices),
        }
    }

    /// One slice: image `[size, size, 3]` and mask `[size, size]`.
    fn slice(&self, size: usize, z: f32, index: u64) -> (Vec<u8>, Vec<u8>) {
        let pixels = size * size;
        let place = |at: usize| {
            let along = |pixel: usize| (2.0 * pixel as f32 + 1.0) / size as f32 - 1.0;
            (along(at % size), along(at / size))
        };
        let voxels: Vec<(Signal, bool)> = (0..pixels)
            .map(|at| {
                let (x, y) = place(at);
                self.tissue(x, y, z)
            })
            .collect();
        let signal = blur(&voxels.iter().map(|voxel| voxel.0).collect::<Vec<_>>(), size);
        let mask = voxels.iter().map(|voxel| u8::from(voxel.1)).collect();
        let mut image = Vec::with_capacity(pixels * CHANNELS);
        for (at, signal) in signal.iter().enumerate() {
            let (x, y) = place(at);
            for (channel, &clean) in signal.iter().enumerate() {
                // The coil's smooth sensitivity, then noise of a magnitude image: the length of a noisy complex number.
                let stream = hash(self.seed, channel as u64);
                let clean = clean * (1.0 + 0.28 * smooth(stream, [x * 0.9, y * 0.9, z * 0.5]));
                let (real, imaginary) = normal_pair(hash(hash(stream, index + 1), at as u64));
                let noisy = (clean + self.noise * real).hypot(self.noise * imaginary);
                image.push((noisy * self.gain[channel]).round().clamp(0.0, 255.0) as u8);
            }
        }
        (image, mask)
    }

    /// The clean signal at a place, and whether it is tumour.
    fn tissue(&self, x: f32, y: f32, z: f32) -> (Signal, bool) {
        let [sine, cosine] = self.turn;
        let (dx, dy) = (x - self.center[0], y - self.center[1]);
        let (x, y) = (cosine * dx + sine * dy, cosine * dy - sine * dx);
        let depth = self.depth(x, y, z);
        let texture = self.layered(1, [x * 9.0, y * 9.0, z * 5.0]);
        let scalp = self.scalp * (1.0 + 0.35 * self.noise_at(2, [x * 2.5, y * 2.5, z * 2.0]) + 0.25 * y);
        let bone = scalp + 0.05;
        let brain = depth - bone - 0.022;
        if depth < 0.0 {
            return (AIR, false);
        }
        if depth < scalp {
            // A thin dark line of skin and muscle strands in the fat.
            let fat = smoothstep(-0.55, 0.1, texture) * smoothstep(0.0, 0.02, depth);
            return (mix(GREY.map(|value| value * 0.6), shade(FAT, 0.18 * texture), fat), false);
        }
        if let Some(face) = self.face(x, y, z, texture) {
            return (face, false);
        }
        if depth < bone {
            let marrow = smoothstep(0.018, 0.0, (depth - scalp - 0.025).abs()) * smoothstep(-0.2, 0.5, texture);
            return (mix(BONE, FAT, 0.45 * marrow), false);
        }
        if brain < 0.0 {
            return (FLUID, false);
        }
        let healthy = self.brain(x, y, z, brain, texture);
        self.with_tumour(healthy, [x, y, z], brain, texture)
    }

    /// Distance below the skin; negative outside of the head.
    fn depth(&self, x: f32, y: f32, z: f32) -> f32 {
        let profile = if z > 0.0 { (1.0 - 0.78 * z * z).sqrt() } else { 1.0 - 0.14 * z * z };
        let (u, v) = ((x / self.half[0]).abs(), (y / self.half[1]).abs());
        // A little squarer than an ellipse.
        let radius = (u.powf(2.2) + v.powf(2.2)).powf(1.0 / 2.2);
        let wobble = 0.02 * self.noise_at(3, [x * 1.6, y * 1.6, z * 1.2]);
        (profile - radius * (1.0 + wobble)) * 0.5 * (self.half[0] + self.half[1])
    }

    /// Eyes, fat behind them and the nose in the lowest slices; `None` elsewhere.
    fn face(&self, x: f32, y: f32, z: f32, texture: f32) -> Option<Signal> {
        // The region's border falls back towards the face as the slices go up.
        let border = -0.26 - 0.9 * (z + 1.0) + 0.06 * self.noise_at(4, [x * 3.0, y * 3.0, z]);
        if y > border || y < -1.0 {
            return None;
        }
        let eye = ((x.abs() - 0.28).hypot(y + 0.52) - 0.13) / 0.02;
        if eye < 1.0 {
            let wall = smoothstep(0.0, -1.0, eye);
            return Some(mix(GREY, FLUID, wall));
        }
        if x.abs() < 0.11 + 0.03 * texture {
            return Some(shade(BONE, 0.8 * texture));
        }
        let fat = smoothstep(0.16, 0.05, (x.abs() - 0.28).abs()) * smoothstep(-0.6, 0.2, texture);
        Some(mix(shade(GREY, 0.3 * texture), FAT, fat))
    }

    /// Healthy brain at `brain` below its surface: white matter under a folded grey cortex, ventricles, deep grey nuclei, spots.
    fn brain(&self, x: f32, y: f32, z: f32, brain: f32, texture: f32) -> Signal {
        // The furrows of the cortex are where a smooth noise crosses zero; the cerebellum's are finer.
        let fine = if z < -0.5 && y > 0.15 { 1.8 } else { 1.0 };
        let fold = self.noise_at(5, [x * 6.5 * fine, y * 6.5 * fine, z * 4.0]).abs()
            + 0.12 * self.noise_at(6, [x * 14.0, y * 14.0, z * 6.0]);
        let near = smoothstep(0.30, 0.12, brain);
        let cortex = smoothstep(0.06, 0.035, brain).max(smoothstep(0.48, 0.30, fold) * near);
        let furrow = smoothstep(0.09, 0.03, fold) * smoothstep(0.22, 0.06, brain);
        let nucleus = ellipsoid([x.abs() - 0.19, y - 0.02, z + 0.02], [0.085, 0.15, 0.30]);
        let grey = cortex.max(0.8 * smoothstep(1.15, 0.85, nucleus));
        let mut signal = mix(shade(WHITE, 0.07 * texture), shade(GREY, 0.09 * texture), grey);

        let (ventricle, horn) = self.ventricle(x, y, z);
        let cap = smoothstep(0.055, 0.0, horn) * smoothstep(0.6, 0.0, (z - 0.15).abs());
        signal = mix(signal, SPOT, 0.9 * cap);
        for &(center, radius) in &self.spots {
            // A slice is thicker than a pixel: spots reach farther along z.
            let far = ellipsoid([x - center[0], y - center[1], z - center[2]], [radius, radius, radius * 2.2]);
            signal = mix(signal, SPOT, smoothstep(1.25, 0.75, far + 0.2 * texture) * (1.0 - grey * 0.5));
        }
        // The gap between the hemispheres: everywhere near the top, else in front and behind.
        let gap = x.abs() + 0.006 * texture;
        let split = smoothstep(0.40, 0.48, y.abs()).max(smoothstep(0.5, 0.62, z)) * smoothstep(-0.45, -0.3, z);
        let fluid = furrow.max(ventricle).max(smoothstep(0.020, 0.008, gap) * split);
        signal = mix(signal, FLUID, fluid);
        let sinus = gap.hypot((brain - 0.01).max(0.0) * 0.6);
        let branch =
            self.noise_at(7, [x * 5.0, y * 5.0, z * 3.0]).abs() + self.noise_at(8, [x * 4.0, y * 4.0, z * 3.0]).abs();
        let vessel = (smoothstep(0.034, 0.016, sinus) * split).max(0.8 * smoothstep(0.10, 0.05, branch));
        mix(signal, VESSEL, vessel)
    }

    /// How much of a place is ventricle (0 to 1), and the distance to the nearest tip of a horn.
    fn ventricle(&self, x: f32, y: f32, z: f32) -> (f32, f32) {
        let height = 1.0 - ((z - 0.12) / 0.42).powi(2);
        let long = 1.0 - (y / 0.36).powi(2);
        // Two bands that bend outwards in front and behind: the butterfly of an axial slice.
        let middle = 0.045 + 0.75 * y * y;
        let width = 0.055 * self.ventricle * height.max(0.0).sqrt() * long.max(0.0).sqrt();
        let lateral = if width > 0.0 { smoothstep(0.008, -0.008, (x.abs() - middle).abs() - width) } else { 0.0 };
        let third = ellipsoid([x, y - 0.02, z + 0.25], [0.016, 0.10, 0.2]);
        let horn = (x.abs() - middle).hypot(y.abs() - 0.37);
        (lateral.max(smoothstep(1.2, 0.8, third)), horn)
    }

    /// Puts the tumour over the healthy signal; it spares the surface of the brain and the ventricles.
    fn with_tumour(&self, healthy: Signal, place: [f32; 3], brain: f32, texture: f32) -> (Signal, bool) {
        let [x, y, z] = place;
        let from = [0, 1, 2].map(|axis| place[axis] - self.tumour.center[axis]);
        let mut far = ellipsoid(from, self.tumour.radius);
        if far > 1.6 {
            return (healthy, false);
        }
        far += 0.42 * self.layered(9, [x * 3.6, y * 3.6, z * 2.2]);
        let free = smoothstep(0.0, 0.03, brain) * (1.0 - self.ventricle(x, y, z).0);
        let inside = smoothstep(1.12, 0.88, far) * free;
        // The dead core has a shape of its own, off the middle.
        let core_far = far + 0.35 * self.layered(12, [x * 6.0, y * 6.0, z * 3.0]);
        let (core, rim) = match self.tumour.rim {
            true => (smoothstep(0.36, 0.26, core_far), smoothstep(0.11, 0.04, (core_far - 0.38).abs())),
            false => (0.0, 0.0),
        };
        // Swollen tissue hides the folds but keeps a soft texture of its own.
        let own = 0.13 * self.noise_at(10, [x * 6.0, y * 6.0, z * 4.0]) + 0.05 * texture;
        let tumour = shade(mix(mix(TUMOUR, TUMOUR_CORE, core), TUMOUR_RIM, rim), own);
        (mix(healthy, tumour, 0.94 * inside), inside > 0.5)
    }

    /// Smooth noise of this patient in -1..1; `stream` numbers the independent fields.
    fn noise_at(&self, stream: u64, place: [f32; 3]) -> f32 {
        smooth(hash(self.seed, 100 + stream), place)
    }

    /// Three octaves of [`Self::noise_at`].
    fn layered(&self, stream: u64, place: [f32; 3]) -> f32 {
        (0..3)
            .map(|octave| {
                let scale = (1 << octave) as f32;
                self.noise_at(stream + 20 * (octave + 1), place.map(|value| value * scale)) / scale
            })
            .sum::<f32>()
            / 1.75
    }
}

impl Tumour {
    /// Somewhere in the white matter of one side, over about a third of the slices and never in the first or last one.
    fn new(random: &mut Random, slices: usize) -> Self {
        let share = random.between(0.26, 0.42);
        let height = ((slices as f32 * share).round() as usize).clamp(1, slices - 2);
        // Rather in the middle of the head than at its ends, where the brain is small.
        let lowest = ((slices as f32 * 0.22) as usize).clamp(1, slices - 1 - height);
        let highest = ((slices as f32 * 0.86) as usize).saturating_sub(height).clamp(lowest, slices - 1 - height);
        let first = lowest + random.below(highest - lowest + 1);
        let z = 0.5 * (slice_height(first, slices) + slice_height(first + height - 1, slices));
        let spacing = 2.0 / (slices - 1) as f32;
        let side = if random.below(2) == 0 { 1.0 } else { -1.0 };
        let radius = random.between(0.17, 0.28);
        Self {
            center: [side * random.between(0.20, 0.33), random.between(-0.36, 0.34), z],
            // The noise moves the surface by up to a third; half a slice more than the height would touch the ends.
            radius: [
                radius * random.between(0.85, 1.1),
                radius * random.between(0.95, 1.35),
                0.5 * spacing * (height as f32 + 0.2),
            ],
            rim: random.below(2) == 0,
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Small mathematics

/// Moves from `a` to `b` by `part` in 0..1.
fn mix(a: Signal, b: Signal, part: f32) -> Signal {
    [0, 1, 2].map(|channel| a[channel] + (b[channel] - a[channel]) * part)
}

/// Brightens (or darkens) by a fraction.
fn shade(signal: Signal, by: f32) -> Signal {
    signal.map(|value| value * (1.0 + by))
}

/// 0 at `from`, 1 at `to`, smooth between; `from` may be the larger.
fn smoothstep(from: f32, to: f32, value: f32) -> f32 {
    let part = ((value - from) / (to - from)).clamp(0.0, 1.0);
    part * part * (3.0 - 2.0 * part)
}

/// Below 1 inside of an ellipsoid about the origin.
fn ellipsoid(place: [f32; 3], radius: [f32; 3]) -> f32 {
    (0..3).map(|axis| (place[axis] / radius[axis]).powi(2)).sum::<f32>().sqrt()
}

/// The scanner's point spread: weights 1 2 1 along each axis, repeated at the border.
fn blur(signal: &[Signal], size: usize) -> Vec<Signal> {
    let pass = |from: &[Signal], step: usize, along: &dyn Fn(usize) -> usize| -> Vec<Signal> {
        let weigh = |at: usize| {
            let before = if along(at) > 0 { at - step } else { at };
            let after = if along(at) + 1 < size { at + step } else { at };
            [0, 1, 2]
                .map(|channel| 0.25 * from[before][channel] + 0.5 * from[at][channel] + 0.25 * from[after][channel])
        };
        (0..from.len()).map(weigh).collect()
    };
    let rows = pass(signal, 1, &|at| at % size);
    pass(&rows, size, &|at| at / size)
}

/// Value noise in -1..1: random numbers on a lattice, smoothly interpolated.
fn smooth(seed: u64, place: [f32; 3]) -> f32 {
    let cell = place.map(|value| value.floor() as i64);
    let part = [0, 1, 2].map(|axis| smoothstep(0.0, 1.0, place[axis] - cell[axis] as f32));
    let corner = |dx: i64, dy: i64, dz: i64| {
        let key = hash(hash(hash(seed, (cell[0] + dx) as u64), (cell[1] + dy) as u64), (cell[2] + dz) as u64);
        2.0 * unit(key) - 1.0
    };
    let line = |dy, dz| corner(0, dy, dz) + (corner(1, dy, dz) - corner(0, dy, dz)) * part[0];
    let plane = |dz| line(0, dz) + (line(1, dz) - line(0, dz)) * part[1];
    plane(0) + (plane(1) - plane(0)) * part[2]
}

/// Mixes two words into one (the finaliser of SplitMix64).
fn hash(seed: u64, word: u64) -> u64 {
    let mut bits = seed ^ word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number in `[0, 1)`, exact in f32.
fn unit(bits: u64) -> f32 {
    (bits >> 40) as f32 / (1 << 24) as f32
}

/// Two independent normal numbers (Box and Muller).
fn normal_pair(bits: u64) -> (f32, f32) {
    let length = (-2.0 * (1.0 - unit(bits)).ln()).sqrt();
    let angle = std::f32::consts::TAU * unit(hash(bits, 1));
    (length * angle.cos(), length * angle.sin())
}

/// A stream of random numbers for a patient's parameters.
struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    fn bits(&mut self) -> u64 {
        self.drawn += 1;
        hash(self.seed, self.drawn)
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * unit(self.bits())
    }

    /// A whole number below `end`.
    fn below(&mut self, end: usize) -> usize {
        (unit(self.bits()) * end as f32) as usize
    }
}
