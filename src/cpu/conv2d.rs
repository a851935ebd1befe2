//! 2-D convolution and its gradients. The twin of `shaders/conv2d.wgsl`.
//!
//! Forward and the input gradient are one gather (see `gather`): a small tile of pixels times 16 output channels
//! stays in registers while the loop walks over kernel positions and input channels.

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
        /// Channels of the first part of an x that is two tensors side by side.
        split: u32,
        /// With a batch norm before it: normalised numbers below this are 0.
        floor: f32,
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
            split: 0,
            floor: f32::MIN,
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

/// Terms of the forward sum that are added up before they join the total. One chain over all taps and channels (2304
/// terms in UNeXt) makes losses drift ten times further from f64 within a dozen steps (measured).
const SUM_TERMS: usize = 64;

/// Adds the sums of a block to the total and starts the next block.
#[inline(always)]
fn flush<T: Real, const M: usize, const V: usize>(acc: &mut [[Lanes<T>; V]; M], total: &mut [[Lanes<T>; V]; M]) {
    for (acc, total) in acc.iter_mut().flatten().zip(total.iter_mut().flatten()) {
        for (acc, total) in acc.0.iter_mut().zip(&mut total.0) {
            *total += *acc;
            *acc = T::zero();
        }
    }
}

/// Pixels of a register tile.
const PIXELS: usize = 4; // more, and LLVM no longer keeps the sums in registers: 41 instead of 78 GFLOP/s (measured)
/// `y[n,oy,ox,co]` = `bias[co]` + sum over ky, kx, ci of `x[n, oy*s+ky-p, ox*s+kx-p, ci] * w[ky,kx,ci,co]`.
pub fn forward<T: Real>(p: &Conv2dParams, x: &[T], weight: &[T], bias: Option<&[T]>, y: &mut [T]) {
    gather(p, x, weight, bias, y);
}

/// `gx`: the gather over gy with flipped weights; with `accumulate` added to what stands there. `p` are forward's sizes.
pub fn backward_input<T: Real>(p: &Conv2dParams, gy: &[T], weight: &[T], gx: &mut [T]) {
    let flipped = flip_weight(p, weight);
    if p.accumulate == 0 {
        return gather(&p.input_gradient(), gy, &flipped, None, gx);
    }
    let mut own = vec![T::zero(); gx.len()];
    gather(&p.input_gradient(), gy, &flipped, None, &mut own);
    gx.iter_mut().zip(own).for_each(|(gx, own)| *gx += own);
}

/// `v[ky,kx,co,ci]` = `w[kh-1-ky,kw-1-kx,ci,co]`.
pub fn flip_weight<T: Real>(p: &Conv2dParams, weight: &[T]) -> Vec<T> {
    let (taps, in_c, out_c) = ((p.kernel_h * p.kernel_w) as usize, p.in_c as usize, p.out_c as usize);
    let mut flipped = vec![T::zero(); weight.len()];
    for tap in 0..taps {
        let from = &weight[(taps - 1 - tap) * in_c * out_c..][..in_c * out_c];
        let to = &mut flipped[tap * in_c * out_c..][..in_c * out_c];
        for (ci, row) in from.chunks_exact(out_c).enumerate() {
            for (co, value) in row.iter().enumerate() {
                to[co * in_c + ci] = *value;
            }
        }
    }
    flipped
}

/// Both directions. One task computes one row of the result.
fn gather<T: Real>(p: &Conv2dParams, x: &[T], weight: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let (out_w, out_c) = (p.out_w as usize, p.out_c as usize);
    let nothing = vec![T::zero(); p.in_c as usize]; // what lies outside
    y.par_chunks_mut(out_w * out_c).enumerate().for_each(|(row, y)| {
        let (n, oy) = (row / p.out_h as usize, row % p.out_h as usize);
        let image = &x[n * (p.in_h * p.in_w * p.in_c) as usize..][..(p.in_h * p.in_w * p.in_c) as usize];
        let mut co = 0;
        while co < out_c {
            let bias = bias.map(|bias| &bias[co..]);
            let line = Line { p, image, nothing: &nothing, weight, bias, oy, co };
            co += match (out_c - co) / LANES {
                0 => line.plain(y),
                1 => line.tiles::<1>(y),
                _ => line.tiles::<2>(y),
            };
        }
    });
}

/// One row of the result, from output channel `co` on.
struct Line<'a, T> {
    p: &'a Conv2dParams,
    image: &'a [T],
    nothing: &'a [T],
    weight: &'a [T],
    bias: Option<&'a [T]>,
    oy: usize,
    co: usize,
}

impl<T: Real> Line<'_, T> {
    /// Computes `V * LANES` channels of every pixel of the row; returns how many.
    fn tiles<const V: usize>(&self, y: &mut [T]) -> usize {
        let out_w = self.p.out_w as usize;
        let mut ox = 0;
        while ox + PIXELS <= out_w {
            self.tile::<PIXELS, V>(ox, y);
            ox += PIXELS;
        }
        while ox < out_w {
            self.tile::<1, V>(ox, y);
            ox += 1;
        }
        V * LANES
    }

    /// `M` pixels x `V * LANES` channels. A function of its own, so that its sums get all registers.
    #[inline(never)]
    fn tile<const M: usize, const V: usize>(&self, ox: usize, y: &mut [T]) {
        let out_c = self.p.out_c as usize;
        let mut total = [[Lanes::zero(); V]; M];
        let mut acc = total;
        let mut terms = 0;
        self.each_tap::<M>(ox, &mut |below, taps| {
            for (at, taps) in taps.chunks(SUM_TERMS * out_c).enumerate() {
                let channels = taps.len() / out_c;
                let below = below.map(|pixel| &pixel[at * SUM_TERMS..][..channels]);
                for (ci, row) in taps.chunks_exact(out_c).enumerate() {
                    let (vectors, _) = row[self.co..].as_chunks::<LANES>();
                    let Some(w) = vectors.first_chunk::<V>() else { return };
                    for m in 0..M {
                        let a = below[m][ci];
                        for v in 0..V {
                            acc[m][v] = acc[m][v].add_scaled(a, &w[v]);
                        }
                    }
                }
                terms += channels;
                if terms >= SUM_TERMS {
                    flush(&mut acc, &mut total);
                    terms = 0;
                }
            }
        });
        flush(&mut acc, &mut total);
        for (m, acc) in total.iter().enumerate() {
            let out = &mut y[(ox + m) * out_c + self.co..][..V * LANES];
            for (v, lanes) in acc.iter().enumerate() {
                let out = &mut out[v * LANES..][..LANES];
                match self.bias {
                    Some(bias) => {
                        let bias = &bias[v * LANES..];
                        out.iter_mut().zip(lanes.0).zip(bias).for_each(|((out, acc), bias)| *out = acc + *bias);
                    }
                    None => out.copy_from_slice(&lanes.0),
                }
            }
        }
    }

    /// The channels that are left, one pixel at a time; returns how many.
    #[inline(never)]
    fn plain(&self, y: &mut [T]) -> usize {
        let out_c = self.p.out_c as usize;
        let left = out_c - self.co;
        for ox in 0..self.p.out_w as usize {
            let out = &mut y[ox * out_c + self.co..][..left];
            match self.bias {
                Some(bias) => out.copy_from_slice(&bias[..left]),
                None => out.fill(T::zero()),
            }
            self.each_tap::<1>(ox, &mut |below, taps| {
                for (below, taps) in below[0].chunks(SUM_TERMS).zip(taps.chunks(SUM_TERMS * out_c)) {
                    let mut acc = [T::zero(); LANES];
                    for (a, row) in below.iter().zip(taps.chunks_exact(out_c)) {
                        for (acc, w) in acc.iter_mut().zip(&row[self.co..]) {
                            *acc = a.fma(*w, *acc);
                        }
                    }
                    out.iter_mut().zip(acc).for_each(|(out, acc)| *out += acc);
                }
            });
        }
        left
    }

    /// Calls `work` for each kernel position that some of `M` pixels see, with the input channels below each pixel
    /// and that position's weights `[in, out]`.
    #[inline(always)]
    fn each_tap<const M: usize>(&self, ox: usize, work: &mut impl FnMut([&[T]; M], &[T])) {
        let p = self.p;
        let (in_c, out_c) = (p.in_c as usize, p.out_c as usize);
        for ky in 0..p.kernel_h as usize {
            let Some(iy) = p.source(self.oy, ky, p.pad_h, p.in_h) else { continue };
            let source_row = &self.image[iy * p.in_w as usize * in_c..][..p.in_w as usize * in_c];
            for kx in 0..p.kernel_w as usize {
                let mut below = [self.nothing; M];
                let mut any = false;
                for (m, below) in below.iter_mut().enumerate() {
                    if let Some(ix) = p.source(ox + m, kx, p.pad_w, p.in_w) {
                        *below = &source_row[ix * in_c..][..in_c];
                        any = true;
                    }
                }
                if any {
                    let tap = (ky * p.kernel_w as usize + kx) * in_c * out_c;
                    work(below.map(|slice| &slice[..in_c]), &self.weight[tap..][..in_c * out_c]);
                }
            }
        }
    }
}

/// Rows of the weight gradient's register tile.
const WEIGHT_ROWS: usize = 4;

/// `gw[ky,kx,ci,co]` = sum over pixels of `x * gy`; `gb[co]` = sum of `gy`. `p` are forward's sizes.
///
/// One task owns some rows of the gradient and walks over all pixels, image row by image row: every sum is blocked
/// and its order does not depend on the number of threads.
pub fn backward_weight<T: Real>(p: &Conv2dParams, x: &[T], gy: &[T], gw: &mut [T], gb: Option<&mut [T]>) {
    let (in_c, out_c) = (p.in_c as usize, p.out_c as usize);
    let blocks = gw.chunks_mut(in_c * out_c).enumerate().flat_map(|(tap, gw)| {
        gw.chunks_mut(WEIGHT_ROWS * out_c).enumerate().map(move |(block, gw)| (tap, block * WEIGHT_ROWS, gw))
    });
    let blocks: Vec<_> = blocks.collect();
    blocks.into_par_iter().for_each(|(tap, ci, gw)| {
        gw.fill(T::zero());
        let rows = gw.len() / out_c;
        let mut co = 0;
        while co < out_c {
            let block = WeightBlock { p, x, gy, tap, ci, co };
            co += match (rows, (out_c - co) / LANES) {
                (WEIGHT_ROWS, 2..) => block.lanes::<WEIGHT_ROWS, 2>(gw),
                (WEIGHT_ROWS, 1) => block.lanes::<WEIGHT_ROWS, 1>(gw),
                (3, 1..) => block.lanes::<3, 1>(gw),
                _ => block.plain(rows, gw),
            };
        }
    });
    if let Some(gb) = gb {
        column_sums(gy, gb);
    }
}

/// Some input channels from `ci` on and some output channels from `co` on, of one kernel position.
struct WeightBlock<'a, T> {
    p: &'a Conv2dParams,
    x: &'a [T],
    gy: &'a [T],
    tap: usize,
    ci: usize,
    co: usize,
}

impl<T: Real> WeightBlock<'_, T> {
    /// `R` input channels x `V * LANES` output channels; returns how many output channels.
    #[inline(never)]
    fn lanes<const R: usize, const V: usize>(&self, gw: &mut [T]) -> usize {
        let out_c = self.p.out_c as usize;
        self.each_row(&mut |x, step, gy| {
            let mut acc = [[Lanes::zero(); V]; R];
            for (x, gy) in x.chunks(step).zip(gy.chunks_exact(out_c)) {
                let (vectors, _) = gy[self.co..].as_chunks::<LANES>();
                let (Some(x), Some(g)) = (x.first_chunk::<R>(), vectors.first_chunk::<V>()) else { return };
                for i in 0..R {
                    for v in 0..V {
                        acc[i][v] = acc[i][v].add_scaled(x[i], &g[v]);
                    }
                }
            }
            for (acc, gw) in acc.iter().zip(gw.chunks_exact_mut(out_c)) {
                for (v, lanes) in acc.iter().enumerate() {
                    let gw = &mut gw[self.co + v * LANES..][..LANES];
                    gw.iter_mut().zip(lanes.0).for_each(|(gw, acc)| *gw += acc);
                }
            }
        });
        V * LANES
    }

    /// The channels that are left, up to [`LANES`]; returns how many.
    #[inline(never)]
    fn plain(&self, rows: usize, gw: &mut [T]) -> usize {
        let out_c = self.p.out_c as usize;
        let left = (out_c - self.co).min(LANES);
        self.each_row(&mut |x, step, gy| {
            for (i, gw) in gw.chunks_exact_mut(out_c).enumerate().take(rows) {
                let mut acc = [T::zero(); LANES];
                for (x, gy) in x.chunks(step).zip(gy.chunks_exact(out_c)) {
                    for (acc, g) in acc.iter_mut().zip(&gy[self.co..self.co + left]) {
                        *acc = x[i].fma(*g, *acc);
                    }
                }
                gw[self.co..self.co + left].iter_mut().zip(acc).for_each(|(gw, acc)| *gw += acc);
            }
        });
        left
    }

    /// Calls `work` for each image row with x from its first pixel that lies inside on, the distance between pixels
    /// in x, and the same pixels of gy.
    #[inline(always)]
    fn each_row(&self, work: &mut impl FnMut(&[T], usize, &[T])) {
        let p = self.p;
        let (in_w, in_c, out_w, out_c) = (p.in_w as usize, p.in_c as usize, p.out_w as usize, p.out_c as usize);
        let (ky, kx) = (self.tap / p.kernel_w as usize, self.tap % p.kernel_w as usize);
        // The columns whose source lies inside.
        let inside = |ox: &usize| p.source(*ox, kx, p.pad_w, p.in_w).is_some();
        let Some(lo) = (0..out_w).find(inside) else { return };
        let hi = (0..out_w).rfind(inside).map_or(lo, |last| last + 1);
        let Some(first_ix) = p.source(lo, kx, p.pad_w, p.in_w) else { return };
        for (row, gy) in self.gy.chunks_exact(out_w * out_c).enumerate() {
            let (n, oy) = (row / p.out_h as usize, row % p.out_h as usize);
            let Some(iy) = p.source(oy, ky, p.pad_h, p.in_h) else { continue };
            let x = &self.x[((n * p.in_h as usize + iy) * in_w + first_ix) * in_c + self.ci..];
            work(x, in_c * p.multiply as usize, &gy[lo * out_c..hi * out_c]);
        }
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
