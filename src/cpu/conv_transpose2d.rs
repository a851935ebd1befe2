//! Transposed 2-D convolution and its gradients. The twin of `shaders/conv_transpose2d.wgsl`.
//!
//! It is the adjoint of a convolution from y to x (`ConvTranspose2dParams::adjoint`), so the loops are those of
//! `conv2d`: one place to make fast.

use rayon::prelude::*;

use super::conv2d::{self, Conv2dParams, column_sums};
use super::{Real, uniform};

uniform! {
    /// Sizes of a transposed convolution.
    ConvTranspose2dParams {
        /// Images.
        batch: u32,
        /// Rows of x.
        in_h: u32,
        /// Columns of x.
        in_w: u32,
        /// Channels of x.
        in_c: u32,
        /// Rows of y.
        out_h: u32,
        /// Columns of y.
        out_w: u32,
        /// Channels of y.
        out_c: u32,
        /// Rows of the kernel.
        kernel_h: u32,
        /// Columns of the kernel.
        kernel_w: u32,
        /// Pixels of y between the kernels of neighbouring x.
        stride: u32,
        /// Rows and columns of y that are cut off on each side.
        padding: u32,
        /// 1 if there is a bias.
        has_bias: u32,
        /// With a batch norm before it: normalised numbers below this are 0.
        floor: f32,
    }
}

impl ConvTranspose2dParams {
    /// The convolution from y to x with the same weights `[kh, kw, out, in]`.
    pub fn adjoint(&self) -> Conv2dParams {
        let [n, h, w, c] = [self.batch, self.out_h, self.out_w, self.out_c].map(|extent| extent as usize);
        let kernel = [self.kernel_h, self.kernel_w, self.out_c, self.in_c].map(|extent| extent as usize);
        Conv2dParams::forward([n, h, w, c], kernel, self.stride as usize, self.padding as usize, false)
    }

    /// Whether kernels meet without overlapping: then each pixel of y has one source.
    pub fn tiles(&self) -> bool {
        let whole = |extent: u32, out: u32| out == extent * self.stride;
        let square = [self.kernel_h, self.kernel_w] == [self.stride; 2];
        square && self.padding == 0 && whole(self.in_h, self.out_h) && whole(self.in_w, self.out_w)
    }
}

/// `y[n, iy*s+ky-p, ix*s+kx-p, co]` = `bias[co]` + sum over ky, kx, ci of `x[n,iy,ix,ci] * w[ky,kx,co,ci]`.
pub fn forward<T: Real>(p: &ConvTranspose2dParams, x: &[T], weight: &[T], bias: Option<&[T]>, y: &mut [T]) {
    if p.tiles() {
        return shuffle(p, x, weight, bias, y);
    }
    conv2d::backward_input(&p.adjoint(), x, weight, y);
    if let Some(bias) = bias {
        y.par_chunks_mut(bias.len()).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, bias)| *y += *bias));
    }
}

/// A 1x1 convolution of each image to all kernel positions at once; its columns are then dealt out to the pixels of y.
fn shuffle<T: Real>(p: &ConvTranspose2dParams, x: &[T], weight: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let [in_h, in_w, in_c, out_c] = [p.in_h, p.in_w, p.in_c, p.out_c].map(|extent| extent as usize);
    let (stride, out_w) = (p.stride as usize, p.out_w as usize);
    let columns = weight.len() / in_c;
    let mut transposed = vec![T::zero(); weight.len()];
    for (ci, row) in transposed.chunks_exact_mut(columns).enumerate() {
        row.iter_mut().zip(weight[ci..].iter().step_by(in_c)).for_each(|(to, from)| *to = *from);
    }
    let pixels = Conv2dParams::forward([1, in_h, in_w, in_c], [1, 1, in_c, columns], 1, 0, false);
    let mut product = vec![T::zero(); in_h * in_w * columns];
    for (x, y) in x.chunks_exact(in_h * in_w * in_c).zip(y.chunks_exact_mut(in_h * in_w * columns)) {
        conv2d::forward(&pixels, x, &transposed, None, &mut product);
        y.par_chunks_mut(out_w * out_c).enumerate().for_each(|(oy, y)| {
            let (row, ky) = (&product[oy / stride * in_w * columns..][..in_w * columns], oy % stride);
            for (y, pixel) in y.chunks_exact_mut(stride * out_c).zip(row.chunks_exact(columns)) {
                y.copy_from_slice(&pixel[ky * stride * out_c..][..stride * out_c]);
            }
            if let Some(bias) = bias {
                y.chunks_exact_mut(out_c).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, bias)| *y += *bias));
            }
        });
    }
}

/// `gx`: the convolution of `gy`.
pub fn backward_input<T: Real>(p: &ConvTranspose2dParams, gy: &[T], weight: &[T], gx: &mut [T]) {
    conv2d::forward(&p.adjoint(), gy, weight, None, gx);
}

/// `gw`: the weight gradient of the convolution, in which x and gy have changed places; `gb[co]` = sum of `gy`.
pub fn backward_weight<T: Real>(p: &ConvTranspose2dParams, x: &[T], gy: &[T], gw: &mut [T], gb: Option<&mut [T]>) {
    conv2d::backward_weight(&p.adjoint(), gy, x, gw, None);
    if let Some(gb) = gb {
        column_sums(gy, gb);
    }
}
