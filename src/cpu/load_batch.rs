//! From decoded slices to a training batch. The twin of `shaders/load_batch.wgsl`, which says what each step is.
//!
//! Places in a slice are whole numbers of 1/65536 pixel: all devices, f32 and f64 find the same places, masks and
//! bilinear grey values, bit for bit. Only the tones round.

use rayon::prelude::*;

use super::{Real, uniform};

uniform! {
    /// Sizes of a batch.
    LoadBatchParams {
        /// The first row of `samples` to load.
        first_row: u32,
        /// How many rows.
        rows: u32,
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// Channels of the batch.
        channels: u32,
        /// Channels of a slice.
        source_channels: u32,
        /// Which channel of the slice becomes channel 0.
        order0: u32,
        /// Which becomes channel 1.
        order1: u32,
        /// Which becomes channel 2.
        order2: u32,
    }
}

/// Bit of [`SampleRow::changes`]: the pixels are looked up at `to_x`, `to_y`.
pub const WARP: u32 = 1;
/// Bit of [`SampleRow::changes`], only together with [`WARP`]: and displaced by a smooth random field.
pub const ELASTIC: u32 = 2;
/// Bit of [`SampleRow::changes`]: the grey values change.
pub const TONE: u32 = 4;

/// [`SampleRow::shows`] of a sample whose channels are its own.
pub const SHOWS_ITSELF: u32 = 0b10_01_00;

/// A sample of a batch: the twin of the WGSL `Sample`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct SampleRow {
    /// Position in the bound buffer.
    pub slice: u32,
    /// Row of `rescale`.
    pub group: u32,
    /// Position in x.
    pub image: u32,
    /// Quarter turns counter-clockwise, 0 to 3, after the flips.
    pub turn: u32,
    /// Bit 0 left-right, bit 1 top-bottom.
    pub flips: u32,
    /// Two bits a channel: which channel it shows; 3: none, it is 0 everywhere.
    pub shows: u32,
    /// Which changes there are, of [`WARP`], [`ELASTIC`] and [`TONE`].
    pub changes: u32,
    /// Of the random numbers.
    pub seed: u32,
    /// Column in the slice of the pixel (x, y) half pixels from the centre: `[2] + x * [0] + y * [1]`, in 1/65536.
    pub to_x: [i32; 3],
    /// Of the elastic displacement.
    pub reach: i32,
    /// The row, as `to_x`.
    pub to_y: [i32; 3],
    /// Control points of the elastic displacement a pixel, in 1/2^20.
    pub cell: i32,
    /// Noise, brightness, contrast and gamma of each channel.
    pub tones: [[f32; 4]; 3],
}

/// One slice, as the pixels of a sample see it.
struct Slice<'a> {
    image: &'a [u8],
    mask: &'a [u8],
    height: i32,
    width: i32,
    channels: usize,
}

impl Slice<'_> {
    fn pixel(&self, y: i32, x: i32) -> Option<usize> {
        let inside = (0..self.height).contains(&y) && (0..self.width).contains(&x);
        inside.then(|| (y * self.width + x) as usize)
    }

    fn image_byte(&self, y: i32, x: i32, channel: usize) -> u8 {
        self.pixel(y, x).map_or(0, |pixel| self.image[pixel * self.channels + channel])
    }

    fn mask_byte(&self, y: i32, x: i32) -> u8 {
        self.pixel(y, x).map_or(0, |pixel| self.mask[pixel])
    }

    /// The four bytes around a place `[x, y]`, weighted by how near they are, in 1/256 pixel. Exact in f32.
    fn bilinear(&self, place: [i32; 2], channel: usize) -> f32 {
        let [left, top] = place.map(|at| at >> 16);
        let [right, below] = place.map(|at| (at >> 8 & 255) as u32);
        let byte = |y, x| u32::from(self.image_byte(y, x, channel));
        let upper = (256 - right) * byte(top, left) + right * byte(top, left + 1);
        let lower = (256 - right) * byte(top + 1, left) + right * byte(top + 1, left + 1);
        ((256 - below) * upper + below * lower) as f32 / 65536.0
    }
}

/// Fills the images of x `[N, H, W, C]` and target `[N, H, W, 1]` that rows `first_row .. first_row + rows` of
/// `samples` name; `rescale[row, c]` = low, high, scale, shift.
pub fn gather<T: Real>(
    p: &LoadBatchParams,
    images: &[u8],
    masks: &[u8],
    rescale: &[f32],
    samples: &[SampleRow],
    x: &mut [T],
    target: &mut [T],
) {
    let (h, w, channels) = (p.height as usize, p.width as usize, p.channels as usize);
    let source_channels = p.source_channels as usize;
    for sample in &samples[p.first_row as usize..][..p.rows as usize] {
        let first = sample.slice as usize * h * w;
        let slice = Slice {
            image: &images[first * source_channels..][..h * w * source_channels],
            mask: &masks[first..][..h * w],
            height: h as i32,
            width: w as i32,
            channels: source_channels,
        };
        let field = Field::new(p, sample);
        let tables = [0, 1, 2].map(|c| Channel::new(p, rescale, sample, c));
        let image = sample.image as usize;
        let x = x[image * h * w * channels..][..h * w * channels].par_chunks_mut(w * channels);
        let target = target[image * h * w..][..h * w].par_chunks_mut(w);
        x.zip(target).enumerate().for_each(|(py, (x, target))| {
            for px in 0..w {
                let (y, x_in) = undo(p, sample, py, px);
                let x = &mut x[px * channels..][..channels];
                if sample.changes & WARP == 0 {
                    let pixel = (y * slice.width + x_in) as usize;
                    target[px] = T::of(f64::from(slice.mask[pixel]));
                    for (c, x) in x.iter_mut().enumerate() {
                        let grey = f32::from(slice.image[pixel * source_channels + tables[c].order]);
                        *x = tables[c].value(sample, grey, [py, px]);
                    }
                } else {
                    let place = place(sample, &field, [slice.height, slice.width], [y, x_in]);
                    let [column, row] = place.map(|at| (at + 32768) >> 16);
                    target[px] = T::of(f64::from(slice.mask_byte(row, column)));
                    for (c, x) in x.iter_mut().enumerate() {
                        *x = tables[c].value(sample, slice.bilinear(place, tables[c].order), [py, px]);
                    }
                }
            }
        });
    }
}

/// Row and column of a pixel before the turn (only square images are turned by odd quarters) and the flips.
fn undo(p: &LoadBatchParams, sample: &SampleRow, py: usize, px: usize) -> (i32, i32) {
    let (h, w) = (p.height as usize, p.width as usize);
    let (mut y, mut x) = match sample.turn {
        1 => (px, w - 1 - py),
        2 => (h - 1 - py, w - 1 - px),
        3 => (h - 1 - px, py),
        _ => (py, px),
    };
    if sample.flips & 1 != 0 {
        x = w - 1 - x;
    }
    if sample.flips & 2 != 0 {
        y = h - 1 - y;
    }
    (y as i32, x as i32)
}

/// Where in the slice a pixel lies, `[x, y]` in 1/65536 pixel.
fn place(sample: &SampleRow, field: &Field, [h, w]: [i32; 2], [y, x]: [i32; 2]) -> [i32; 2] {
    let half = [2 * x - (w - 1), 2 * y - (h - 1)];
    let mut place = [sample.to_x, sample.to_y].map(|to| to[0] * half[0] + to[1] * half[1] + to[2]);
    if sample.changes & ELASTIC != 0 {
        let moved = field.displacement(sample.cell, y, x).map(|by| ((by >> 15) * sample.reach) >> 8);
        place = [place[0] + moved[0], place[1] + moved[1]];
    }
    place
}

/// The control points of an elastic displacement: computed once a sample here, at each pixel on the GPU.
struct Field {
    columns: usize,
    points: Vec<[i32; 2]>,
}

impl Field {
    fn new(p: &LoadBatchParams, sample: &SampleRow) -> Self {
        if sample.changes & ELASTIC == 0 {
            return Self { columns: 0, points: Vec::new() };
        }
        let [rows, columns] = [p.height, p.width].map(|side| (((side as i32 - 1) * sample.cell) >> 20) as u32 + 4);
        let points = (0..rows).flat_map(|row| {
            (0..columns).map(move |column| {
                let bits = pcg3d([column, row, sample.seed]);
                [bits[0], bits[1]].map(|bits| 2 * (bits >> 24) as i32 - 255)
            })
        });
        Self { columns: columns as usize, points: points.collect() }
    }

    /// x and y in 1/2^22, up to 255.
    fn displacement(&self, cell: i32, y: i32, x: i32) -> [i32; 2] {
        let [x, y] = [(x * cell) >> 10, (y * cell) >> 10];
        let (across, down) = (spline(x & 1023), spline(y & 1023));
        let mut sum = [0, 0];
        for (j, down) in down.into_iter().enumerate() {
            let first = ((y >> 10) as usize + j) * self.columns + (x >> 10) as usize;
            let mut row = [0, 0];
            for (across, point) in across.into_iter().zip(&self.points[first..first + 4]) {
                row = [row[0] + across * point[0], row[1] + across * point[1]];
            }
            sum = [sum[0] + down * row[0], sum[1] + down * row[1]];
        }
        sum
    }
}

/// Weights of four neighbouring control points at f/1024 of the way from the second to the third, in 1/2048.
fn spline(f: i32) -> [i32; 4] {
    let g = 1024 - f;
    let outer = |f: i32| f * f * f / 6;
    let inner = |f: i32| 715_827_883 - 1024 * f * f + f * f * f / 2;
    [outer(g), inner(f), inner(g), outer(f)].map(|weight| weight >> 19)
}

/// How one channel of a sample gets its values.
struct Channel<T> {
    /// Channel of the slice.
    order: usize,
    /// It shows nothing.
    empty: bool,
    low: f32,
    high: f32,
    scale: T,
    shift: T,
    /// What the network sees as 0.
    middle: T,
    tone: [T; 4],
    noise_seed: u32,
}

impl<T: Real> Channel<T> {
    fn new(p: &LoadBatchParams, rescale: &[f32], sample: &SampleRow, c: usize) -> Self {
        let shown = (sample.shows >> (2 * c) & 3) as usize;
        let row = sample.group as usize * p.channels as usize + shown.min(2);
        let [low, high, scale, shift] = [0, 1, 2, 3].map(|at| rescale[4 * row + at]);
        let wide = |value: f32| T::of(f64::from(value));
        Self {
            order: [p.order0, p.order1, p.order2][shown.min(2)] as usize,
            empty: shown == 3,
            low,
            high,
            scale: wide(scale),
            shift: wide(shift),
            middle: if scale > 0.0 { -wide(shift) / wide(scale) } else { wide(low) },
            tone: sample.tones[c].map(wide),
            noise_seed: sample.seed.wrapping_add(1 + c as u32),
        }
    }

    fn value(&self, sample: &SampleRow, grey: f32, [y, x]: [usize; 2]) -> T {
        if self.empty {
            return T::zero();
        }
        let mut value = T::of(f64::from(grey.clamp(self.low, self.high)));
        if sample.changes & TONE != 0 {
            let [low, high] = [self.low, self.high].map(|limit| T::of(f64::from(limit)));
            let grain = if self.tone[0] > T::zero() { normal(y, x, self.noise_seed) } else { T::zero() };
            value = self.toned(value, low, high - low, grain).max(low).min(high);
        }
        value * self.scale + self.shift
    }

    fn toned(&self, grey: T, low: T, span: T, grain: T) -> T {
        let [noise, brightness, contrast, gamma] = self.tone;
        let mut value = grey + noise * span * grain;
        value = low + (value - low) * brightness;
        value = self.middle + (value - self.middle) * contrast;
        if gamma != T::one() && span > T::zero() {
            value = low + span * ((value - low) / span).max(T::zero()).min(T::one()).powf(gamma);
        }
        value
    }
}

/// A normal random number that belongs to a pixel and a seed (Box and Muller, 1958).
fn normal<T: Real>(y: usize, x: usize, seed: u32) -> T {
    let bits = pcg3d([x as u32, y as u32, seed]);
    let uniform01 = T::of((f64::from(bits[0] >> 9) + 0.5) / 8_388_608.0);
    let turn = T::of(f64::from(bits[1] >> 8) / 16_777_216.0 - 0.5);
    (T::of(-2.0) * uniform01.ln()).sqrt() * (T::of(std::f64::consts::TAU) * turn).cos()
}

/// Three random words that belong to three words (Jarzynski and Olano, JCGT 2020).
fn pcg3d(key: [u32; 3]) -> [u32; 3] {
    let mut v = key.map(|word| word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let mut mix = |to: usize, a: usize, b: usize| v[to] = v[to].wrapping_add(v[a].wrapping_mul(v[b]));
    let round = [(0, 1, 2), (1, 2, 0), (2, 0, 1)];
    round.into_iter().for_each(|(to, a, b)| mix(to, a, b));
    v = v.map(|word| word ^ word >> 16);
    let mut mix = |to: usize, a: usize, b: usize| v[to] = v[to].wrapping_add(v[a].wrapping_mul(v[b]));
    round.into_iter().for_each(|(to, a, b)| mix(to, a, b));
    v
}
