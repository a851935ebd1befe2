//! 2-D convolution and its gradients. The twin of `shaders/conv2d.wgsl`.
//!
//! Forward and the input gradient are one gather (see `gather`): a small tile of pixels times 16 output channels
//! stays in registers while the loop walks over kernel positions and input channels. In the weight gradient a tile of
//! input channels times 16 output channels does, while the loop walks over pixels.

use std::ops::Range;

use rayon::prelude::*;

use super::{LANES, Lanes, Real, uniform};

uniform! {
    /// Sizes of a convolution, seen as a gather: source position = (o * multiply + k - pad) / divide.
    Conv2dParams {
        /// Images.
        batch: u32,
        /// Rows of the source.
        in_h: u32,
        /// Columns of the source.
        in_w: u32,
        /// Channels of the source.
        in_c: u32,
        /// Rows of the result.
        out_h: u32,
        /// Columns of the result.
        out_w: u32,
        /// Channels of the result.
        out_c: u32,
        /// Rows of the kernel.
        kernel_h: u32,
        /// Columns of the kernel.
        kernel_w: u32,
        /// The stride in forward, 1 in the input gradient.
        multiply: u32,
        /// 1 in forward, the stride in the input gradient.
        divide: u32,
        /// Rows of zeros above.
        pad_h: i32,
        /// Columns of zeros to the left.
        pad_w: i32,
        /// 1 if there is a bias.
        has_bias: u32,
        /// 1 if the input gradient is added to what stands in its place.
        accumulate: u32,
        /// Weight gradient: image rows of a chunk.
        chunk_rows: u32,
        /// Weight gradient: image rows between two additions to the partial sum.
        block_rows: u32,
        /// Weight gradient: chunks before this launch's.
        first_chunk: u32,
        /// Both gradients in one launch: 1 if these are the sizes of the input gradient.
        turned: u32,
        /// Weight gradient: 1 if the place of the bias is for the sum of x instead of gy.
        sums_x: u32,
        /// Channels of the first part of an x that is two tensors side by side.
        split: u32,
        /// With a batch norm before or behind it: normalised numbers below this are 0.
        floor: f32,
        /// With a batch norm behind it: 1 / its pixels, or 0 in eval mode.
        inverse_count: f32,
        /// Sums that a workgroup leaves of its pixels: chunks before this launch's.
        sums_first: u32,
        /// The same: chunks of all launches.
        sums_chunks: u32,
    }
}

impl Conv2dParams {
    /// Sizes of a convolution of `x [N, H, W, C]` with `weight [kh, kw, C, out]`.
    pub fn forward(x: [usize; 4], weight: [usize; 4], stride: usize, pad: usize, has_bias: bool) -> Self {
        let out = |extent: usize, kernel: usize| ((extent + 2 * pad - kernel) / stride + 1) as u32;
        Self {
            batch: x[0] as u32,
            in_h: x[1] as u32,
            in_w: x[2] as u32,
            in_c: x[3] as u32,
            out_h: out(x[1], weight[0]),
            out_w: out(x[2], weight[1]),
            out_c: weight[3] as u32,
            kernel_h: weight[0] as u32,
            kernel_w: weight[1] as u32,
            multiply: stride as u32,
            divide: 1,
            pad_h: pad as i32,
            pad_w: pad as i32,
            has_bias: u32::from(has_bias),
            accumulate: 0,
            chunk_rows: 0,
            block_rows: 0,
            first_chunk: 0,
            turned: 0,
            sums_x: 0,
            split: 0,
            floor: f32::MIN,
            inverse_count: 0.0,
            sums_first: 0,
            sums_chunks: 0,
        }
    }

    /// The gather that is the input gradient: from gy to gx, with flipped weights.
    pub fn input_gradient(&self) -> Self {
        Self {
            in_h: self.out_h,
            in_w: self.out_w,
            in_c: self.out_c,
            out_h: self.in_h,
            out_w: self.in_w,
            out_c: self.in_c,
            multiply: self.divide,
            divide: self.multiply,
            pad_h: self.kernel_h as i32 - 1 - self.pad_h,
            pad_w: self.kernel_w as i32 - 1 - self.pad_w,
            has_bias: 0,
            ..*self
        }
    }

    /// Multiply-adds.
    pub fn macs(&self) -> u64 {
        let extents = [self.batch, self.out_h, self.out_w, self.out_c, self.kernel_h, self.kernel_w, self.in_c];
        extents.into_iter().map(u64::from).product()
    }

    /// The source row or column of output position `o` and kernel position `k`, if it lies inside.
    #[inline(always)]
    fn source(&self, o: usize, k: usize, pad: i32, extent: u32) -> Option<usize> {
        let scaled = (o * self.multiply as usize + k) as i64 - i64::from(pad);
        let divided = scaled / i64::from(self.divide);
        let inside = scaled >= 0 && divided * i64::from(self.divide) == scaled && divided < i64::from(extent);
        inside.then_some(divided as usize)
    }
}

/// Pixels of a gather's register tile, and input channels of the weight gradient's. With [`LANES`] output channels
/// these sums just fit the registers (12 of 16 in AVX2, of 32 in AVX-512; 24 of 32 in NEON) and are enough to keep both
/// units busy while each waits for its last sum. One more row of sums, and LLVM moves them to memory and back in every
/// step: 22 instead of 80 GFLOP/s (measured, AVX2).
const TILE: usize = if cfg!(target_feature = "avx512f") { 12 } else { 6 };

/// Terms of a sum that are added up before they join the total. One chain over all taps and channels (2304 terms in
/// UNeXt) makes losses drift ten times further from f64 within a dozen steps (measured); blocks of 64 let the golden first
/// epoch of seed1 drift 1e-4 away from PyTorch in f64, blocks of 32 1e-5.
const SUM_TERMS: usize = 32;

/// Pixels of a gather's task, if its rows are short: they share what they read of the weights. Fewer if there would not
/// be tasks for all threads; no number depends on it.
const TASK_PIXELS: usize = 256;

/// `y[n,oy,ox,co]` = `bias[co]` + sum over ky, kx, ci of `x[n, oy*s+ky-p, ox*s+kx-p, ci] * w[ky,kx,ci,co]`.
pub fn forward<T: Real>(p: &Conv2dParams, x: &[T], weight: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let [in_c, out_w, out_c] = [p.in_c, p.out_w, p.out_c].map(|extent| extent as usize);
    let start = bias.map_or_else(|| vec![T::zero(); out_w * out_c], |bias| bias.repeat(out_w));
    gather(p, x, &pack(p, |tap| (&weight[tap * in_c * out_c..], out_c, 1)), Some(&start), y);
}

/// `gx`: the gather over gy with flipped weights `v[ky,kx,co,ci]` = `w[kh-1-ky,kw-1-kx,ci,co]`; with `accumulate`
/// added to what stands there. `p` are forward's sizes.
pub fn backward_input<T: Real>(p: &Conv2dParams, gy: &[T], weight: &[T], gx: &mut [T]) {
    let start = (p.accumulate == 0).then(|| vec![T::zero(); (p.in_w * p.in_c) as usize]);
    let (taps, in_c, out_c) = ((p.kernel_h * p.kernel_w) as usize, p.in_c as usize, p.out_c as usize);
    let turned = p.input_gradient();
    let packed = pack(&turned, |tap| (&weight[(taps - 1 - tap) * in_c * out_c..], 1, out_c));
    gather(&turned, gy, &packed, start.as_deref(), gx);
}

/// The weights in the order in which `gather` reads them: `[co / LANES][ky][kx][ci][LANES]`, zeros beyond the last
/// channel. `matrix` is a kernel position's weights, with the distances between its input and output channels.
///
/// Kernel columns of the same remainder modulo `divide` are neighbours: a pixel of a strided convolution's input
/// gradient sees one such group.
fn pack<'a, T: Real>(p: &Conv2dParams, matrix: impl Fn(usize) -> (&'a [T], usize, usize) + Sync) -> Vec<[T; LANES]> {
    let [in_c, out_c, kernel_w, divide] = [p.in_c, p.out_c, p.kernel_w, p.divide].map(|extent| extent as usize);
    let columns: Vec<usize> = (0..divide).flat_map(|group| (group..kernel_w).step_by(divide)).collect();
    let taps = (p.kernel_h * p.kernel_w) as usize;
    let mut packed = vec![[T::zero(); LANES]; out_c.div_ceil(LANES) * taps * in_c];
    packed.par_chunks_mut(in_c).enumerate().for_each(|(at, rows)| {
        let (co, tap) = (at / taps * LANES, at % taps);
        let (weight, ci_step, co_step) = matrix(tap / kernel_w * kernel_w + columns[tap % kernel_w]);
        for (ci, row) in rows.iter_mut().enumerate() {
            let weight = weight[ci * ci_step + co * co_step..].iter().step_by(co_step);
            row.iter_mut().zip(weight).take(out_c - co).for_each(|(to, from)| *to = *from);
        }
    });
    packed
}

/// Both directions: adds the sums to `start`, a row of the result, or to what stands in y. `packed` are the weights as
/// `pack` leaves them.
///
/// In a source row the kernel columns and channels below a pixel are neighbours: one sum of `kernel_w * in_c` terms
/// for each kernel row.
fn gather<T: Real>(p: &Conv2dParams, x: &[T], packed: &[[T; LANES]], start: Option<&[T]>, y: &mut [T]) {
    let [in_h, out_h, out_w, in_c, out_c] = [p.in_h, p.out_h, p.out_w, p.in_c, p.out_c].map(|extent| extent as usize);
    let [kernel_w, divide, source_row] = [p.kernel_w, p.divide, p.in_w * p.in_c].map(|extent| extent as usize);
    let all_rows = p.batch as usize * out_h;
    let rows = (TASK_PIXELS / out_w).min(all_rows / (4 * rayon::current_num_threads())).max(1);
    y.par_chunks_mut(rows * out_w * out_c).enumerate().for_each(|(task, y)| {
        if let Some(start) = start {
            y.chunks_exact_mut(out_w * out_c).for_each(|y| y.copy_from_slice(start));
        }
        let mut edge = Vec::new();
        for (block, panels) in packed.chunks_exact((p.kernel_h * p.kernel_w) as usize * in_c).enumerate() {
            for (row, y) in (task * rows..).zip(y.chunks_exact_mut(out_w * out_c)) {
                let image = &x[row / out_h * in_h * source_row..][..in_h * source_row];
                let mut end = 0;
                for group in 0..divide.min(kernel_w) {
                    let begin = end;
                    end += (kernel_w - group).div_ceil(divide) * in_c;
                    let line = Line { p, image, panels, oy: row % out_h, group, terms: begin..end, co: block * LANES };
                    line.add_to(y, &mut edge);
                }
            }
        }
    });
}

/// A row of the result: [`LANES`] channels from `co` on of those pixels that see a group of kernel columns. `panels` are
/// the weights of these channels, and `terms` says which of each kernel row's belong to the group.
struct Line<'a, T> {
    p: &'a Conv2dParams,
    image: &'a [T],
    panels: &'a [[T; LANES]],
    oy: usize,
    group: usize,
    terms: Range<usize>,
    co: usize,
}

impl<T: Real> Line<'_, T> {
    fn add_to(&self, y: &mut [T], edge: &mut Vec<T>) {
        let p = self.p;
        let [out_w, out_c, step, apart] = [p.out_w, p.out_c, p.multiply, p.divide].map(|extent| extent as usize);
        // The first pixel that sees the group, and the first source column below it.
        let first = (p.pad_w - self.group as i32).rem_euclid(p.divide as i32);
        let below = (first + self.group as i32 - p.pad_w) / p.divide as i32;
        let pixels = out_w.saturating_sub(first as usize).div_ceil(apart);
        let most = TILE * size_of::<f32>() / size_of::<T>(); // f64: half as many numbers in a register
        let mut done = 0;
        while done < pixels {
            let y = &mut y[(first as usize + done * apart) * out_c + self.co..];
            let below = below + (done * step) as i32;
            done += match (pixels - done).min(most) {
                TILE.. => self.tile::<TILE>(below, y, edge),
                4.. => self.tile::<4>(below, y, edge),
                2.. => self.tile::<2>(below, y, edge),
                _ => self.tile::<1>(below, y, edge),
            };
        }
    }

    /// `M` pixels, the first of which sees the source from column `below` on; returns `M`.
    fn tile<const M: usize>(&self, below: i32, y: &mut [T], edge: &mut Vec<T>) -> usize {
        let p = self.p;
        let [in_w, in_c, step, kernel_w] = [p.in_w, p.in_c, p.multiply, p.kernel_w].map(|extent| extent as usize);
        let terms = self.terms.len();
        let block = terms.div_ceil(terms.div_ceil(SUM_TERMS));
        let width = (M - 1) * step + terms / in_c;
        let end = below + width as i32;
        let mut sums = [Lanes::zero(); M];
        for (ky, panel) in self.panels.chunks_exact(kernel_w * in_c).enumerate() {
            let Some(iy) = p.source(self.oy, ky, p.pad_h, p.in_h) else { continue };
            let x = &self.image[iy * in_w * in_c..][..in_w * in_c];
            let x = if below >= 0 && end <= in_w as i32 {
                &x[below as usize * in_c..end as usize * in_c]
            } else {
                // A copy with zeros for what lies outside.
                edge.clear();
                edge.resize(width * in_c, T::zero());
                let [from, to] = [below, end].map(|column| column.clamp(0, in_w as i32));
                if from < to {
                    let inside = &x[from as usize * in_c..to as usize * in_c];
                    edge[(from - below) as usize * in_c..][..inside.len()].copy_from_slice(inside);
                }
                &*edge
            };
            for (at, panel) in panel[self.terms.clone()].chunks(block).enumerate() {
                add_block(&x[at * block..], step * in_c, panel, &mut sums);
            }
        }
        let lanes = LANES.min(p.out_c as usize - self.co);
        for (m, sum) in sums.iter().enumerate() {
            sum.add_to(&mut y[m * (p.divide * p.out_c) as usize..][..lanes]);
        }
        M
    }
}

/// `sums[m]` += sum over k of `x[m * step + k] * panel[k]`. A function of its own, so that its sums get all registers.
#[inline(never)]
fn add_block<T: Real, const M: usize>(x: &[T], step: usize, panel: &[[T; LANES]], sums: &mut [Lanes<T>; M]) {
    let mut acc = [Lanes::zero(); M];
    let x: [&[T]; M] = std::array::from_fn(|m| &x[m * step..][..panel.len()]);
    for (k, weight) in panel.iter().enumerate() {
        for m in 0..M {
            acc[m] = acc[m].add_scaled(x[m][k], weight);
        }
    }
    for (sum, acc) in sums.iter_mut().zip(acc) {
        acc.add_to(&mut sum.0);
    }
}

/// Tasks of a weight gradient, about: enough for the cores, few enough that their sums are soon added up. Not a matter
/// of the number of threads, because the order of the sums depends on it.
const WEIGHT_TASKS: usize = 32;
/// Input channels of a weight gradient's task, so that its sums stay in the cache.
const WEIGHT_CHANNELS: usize = 48;
/// Least pixels of a weight gradient's task.
const WEIGHT_PIXELS: usize = 1024;

/// The sums of a register tile of the weight gradient.
type WeightTile<T> = [Lanes<T>; TILE];

/// `gw[ky,kx,ci,co]` = sum over pixels of `x * gy`; `gb[co]` = sum of `gy`. `p` are forward's sizes.
///
/// A task sums some input channels over some image rows, a few at a time, so that every sum is blocked. Both operands
/// are first copied to the order in which the loops read them.
pub fn backward_weight<T: Real>(p: &Conv2dParams, x: &[T], gy: &[T], gw: &mut [T], gb: Option<&mut [T]>) {
    let [out_w, in_c, out_c] = [p.out_w, p.in_c, p.out_c].map(|extent| extent as usize);
    let (taps, all_rows) = ((p.kernel_h * p.kernel_w) as usize, (p.batch * p.out_h) as usize);
    let groups = in_c.div_ceil(WEIGHT_CHANNELS);
    let chunks = (WEIGHT_TASKS / groups).min(all_rows * out_w / WEIGHT_PIXELS).max(1);
    let rows = all_rows.div_ceil(chunks);
    let tasks: Vec<_> =
        (0..all_rows).step_by(rows).flat_map(|row| (0..groups).map(move |group| (row, group))).collect();
    let sums: Vec<Vec<WeightTile<T>>> = tasks
        .into_par_iter()
        .map(|(row, group)| {
            let ci = group * WEIGHT_CHANNELS;
            let task = WeightTask { p, x, gy, ci, channels: WEIGHT_CHANNELS.min(in_c - ci) };
            task.sums(row, rows.min(all_rows - row))
        })
        .collect();
    gw.par_chunks_mut(out_c).enumerate().for_each(|(row, gw)| {
        gw.fill(T::zero());
        let (tap, ci) = (row / in_c, row % in_c);
        let (group, ci) = (ci / WEIGHT_CHANNELS, ci % WEIGHT_CHANNELS);
        let tiles = WEIGHT_CHANNELS.min(in_c - group * WEIGHT_CHANNELS).div_ceil(TILE);
        for sums in sums.iter().skip(group).step_by(groups) {
            for (block, gw) in gw.chunks_mut(LANES).enumerate() {
                sums[(block * taps + tap) * tiles + ci / TILE][ci % TILE].add_to(gw);
            }
        }
    });
    if let Some(gb) = gb {
        column_sums(gy, gb);
    }
}

/// Some input channels from `ci` on.
struct WeightTask<'a, T> {
    p: &'a Conv2dParams,
    x: &'a [T],
    gy: &'a [T],
    ci: usize,
    channels: usize,
}

impl<T: Real> WeightTask<'_, T> {
    /// The sums over `rows` rows of gy from `first` on: `[co / LANES][ky][kx][ci / TILE]`.
    fn sums(&self, first: usize, rows: usize) -> Vec<WeightTile<T>> {
        let p = self.p;
        let [out_w, out_c, kernel_w, step] = [p.out_w, p.out_c, p.kernel_w, p.multiply].map(|extent| extent as usize);
        let (blocks, tiles) = (out_c.div_ceil(LANES), self.channels.div_ceil(TILE));
        let taps = p.kernel_h as usize * kernel_w;
        let mut sums = vec![[Lanes::zero(); TILE]; blocks * taps * tiles];
        // A row of x in columns that are `step` apart: kernel column kx reads neighbours from its place on.
        let columns = out_w + (kernel_w - 1) / step;
        let width = step.min(kernel_w) * columns;
        let band = (SUM_TERMS / out_w).clamp(1, rows);
        let mut gy = vec![[T::zero(); LANES]; blocks * band * out_w];
        let mut x = vec![[T::zero(); TILE]; tiles * band * width];
        for from in (first..first + rows).step_by(band) {
            let band = band.min(first + rows - from);
            let (gy_apart, x_apart) = (band * out_w, band * width);
            for row in 0..band {
                self.copy_gy(from + row, &mut gy[row * out_w..], gy_apart);
            }
            for ky in 0..p.kernel_h as usize {
                for row in 0..band {
                    let to = &mut x[row * width..(tiles - 1) * x_apart + (row + 1) * width];
                    self.copy_x(from + row, ky, columns, to, x_apart);
                }
                for (block, gy) in gy.chunks_exact(gy_apart).take(blocks).enumerate() {
                    for kx in 0..kernel_w {
                        let sums = &mut sums[(block * taps + ky * kernel_w + kx) * tiles..][..tiles];
                        for (tile, (sums, x)) in sums.iter_mut().zip(x.chunks_exact(x_apart)).enumerate() {
                            let x = &x[kx % step * columns + kx / step..];
                            match self.channels - tile * TILE {
                                5.. => add_products::<T, TILE>(x, width, gy, out_w, sums),
                                3.. => add_products::<T, 4>(x, width, gy, out_w, sums),
                                _ => add_products::<T, 2>(x, width, gy, out_w, sums),
                            }
                        }
                    }
                }
            }
        }
        sums
    }

    /// A row of gy, `[co / LANES][ox][LANES]`; blocks are `apart` from each other.
    fn copy_gy(&self, row: usize, to: &mut [[T; LANES]], apart: usize) {
        let (out_w, out_c) = (self.p.out_w as usize, self.p.out_c as usize);
        let gy = &self.gy[row * out_w * out_c..][..out_w * out_c];
        for (ox, gy) in gy.chunks_exact(out_c).enumerate() {
            for (block, gy) in gy.chunks(LANES).enumerate() {
                let to = &mut to[block * apart + ox];
                match gy.as_array() {
                    Some(gy) => *to = *gy,
                    None => to.iter_mut().zip(gy).for_each(|(to, gy)| *to = *gy),
                }
            }
        }
    }

    /// The row of x that kernel row ky sees from row `row` of gy, `[ci / TILE][column][TILE]`.
    fn copy_x(&self, row: usize, ky: usize, columns: usize, to: &mut [[T; TILE]], apart: usize) {
        let p = self.p;
        let [in_w, in_c, out_h, step] = [p.in_w, p.in_c, p.out_h, p.multiply].map(|extent| extent as usize);
        let source = p.source(row % out_h, ky, p.pad_h, p.in_h).map(|iy| (row / out_h * p.in_h as usize + iy) * in_w);
        for group in 0..step.min(p.kernel_w as usize) {
            for column in 0..columns {
                let to = to[group * columns + column..].iter_mut().step_by(apart);
                let ix = (column * step + group) as i64 - i64::from(p.pad_w);
                match source {
                    Some(source) if (0..in_w as i64).contains(&ix) => {
                        let x = &self.x[(source + ix as usize) * in_c + self.ci..];
                        for (to, ci) in to.zip((0..self.channels).step_by(TILE)) {
                            // Beyond the last channel anything may stand: these sums are not read.
                            match x[ci..].first_chunk() {
                                Some(x) => *to = *x,
                                None => to.iter_mut().zip(&x[ci..]).for_each(|(to, x)| *to = *x),
                            }
                        }
                    }
                    _ => to.for_each(|to| *to = [T::zero(); TILE]),
                }
            }
        }
    }
}

/// `sums[i]` += sum over rows and their pixels of `x[i] * gy`, for `M` channels of x. A function of its own, so that
/// its sums get all registers.
#[inline(never)]
fn add_products<T: Real, const M: usize>(
    x: &[[T; TILE]],
    width: usize,
    gy: &[[T; LANES]],
    out_w: usize,
    sums: &mut WeightTile<T>,
) {
    const { assert!(M <= 12, "each! has twelve") };
    let mut acc = [Lanes::zero(); M];
    for (x, gy) in x.chunks(width).zip(gy.chunks_exact(out_w)) {
        for (x, gy) in x.iter().zip(gy) {
            // Written out: of a loop, LLVM makes gathers and scatters across channels for AMD's Zen 4, at a fortieth of the speed.
            macro_rules! each {
                ($($m:literal)*) => { $(if $m < M { acc[$m] = acc[$m].add_scaled(x[$m], gy); })* };
            }
            each!(0 1 2 3 4 5 6 7 8 9 10 11);
        }
    }
    for (sum, acc) in sums.iter_mut().zip(acc) {
        acc.add_to(&mut sum.0);
    }
}

/// Rows summed before they are added to the rest.
const SUM_ROWS: usize = 256;

/// `sums[c]` = sum over rows of `values[row, c]`, in blocks of fixed size.
pub fn column_sums<T: Real>(values: &[T], sums: &mut [T]) {
    let channels = sums.len();
    let partials: Vec<Vec<T>> = values
        .par_chunks(SUM_ROWS * channels)
        .map(|block| {
            let mut part = vec![T::zero(); channels];
            for row in block.chunks_exact(channels) {
                part.iter_mut().zip(row).for_each(|(part, value)| *part += *value);
            }
            part
        })
        .collect();
    sums.fill(T::zero());
    for part in partials {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
}
