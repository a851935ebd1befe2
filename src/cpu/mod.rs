//! The operations in plain loops, generic over `f32` and `f64`.
//!
//! In `f64` this is the judge of every kernel (and is itself judged by finite differences); in `f32`, spread over
//! the cores, it is the device for machines without a GPU. Everything here knows slices and sizes, never wgpu.
//!
//! Each file also declares the sizes that its shader gets as a uniform (`uniform!`): the twin of the WGSL `Params`.

pub mod adam;
pub mod add;
pub mod batch_norm;
pub mod batch_norm_max_pool2d;
pub mod batch_norm_upsample_bilinear;
pub mod bce_dice;
pub mod clip_norm;
pub mod concat;
pub mod conv2d;
pub mod conv_transpose2d;
pub mod depthwise_conv2d;
pub mod ema;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod load_batch;
pub mod max_pool2d;
pub mod metric_counts;
pub mod relu;
pub mod sgd;
pub mod shift;
pub mod shifted_linear;
pub mod sigmoid;
pub mod softmax;
pub mod sum_chunks;
pub mod transpose_weights;
pub mod unscale;
pub mod upsample_bilinear;
pub mod upsample_bilinear_concat;

use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{AddAssign, MulAssign, SubAssign};

/// `f32` or `f64`.
pub trait Real:
    num_traits::Float + AddAssign + SubAssign + MulAssign + Sum + Default + Debug + Display + Send + Sync + 'static
{
    /// The nearest value of this type.
    fn of(value: f64) -> Self;
    /// The value as `f64`, exactly.
    fn f64(self) -> f64;
    /// `self * a + b`, in one rounding where the machine has an instruction for it.
    fn fma(self, a: Self, b: Self) -> Self;
    /// For `gelu`: the standard normal's share beyond |self| divided by exp(-self^2/2), and that exponential.
    fn normal_tail(self) -> (Self, Self);
}

impl Real for f32 {
    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        // Without the instruction `mul_add` is a slow library call.
        if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { self.mul_add(a, b) } else { self * a + b }
    }
    #[inline(always)]
    fn normal_tail(self) -> (Self, Self) {
        gelu::tail_f32(self)
    }
}

impl Real for f64 {
    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { self.mul_add(a, b) } else { self * a + b }
    }
    fn normal_tail(self) -> (Self, Self) {
        gelu::tail_f64(self)
    }
}

/// Sixteen neighbouring numbers, handled by value so that the compiler keeps them in vector registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lanes<T>(pub(crate) [T; LANES]);

/// Numbers in [`Lanes`].
pub(crate) const LANES: usize = 16;

impl<T: Real> Lanes<T> {
    #[inline(always)]
    pub(crate) fn zero() -> Self {
        Self([T::zero(); LANES])
    }

    /// `self + a * b`, number by number.
    #[inline(always)]
    pub(crate) fn add_scaled(self, a: T, b: &[T; LANES]) -> Self {
        let mut sum = self.0;
        for (sum, b) in sum.iter_mut().zip(b) {
            *sum = a.fma(*b, *sum);
        }
        Self(sum)
    }

    /// Adds the first of these numbers to `totals`, which may be fewer.
    #[inline(always)]
    pub(crate) fn add_to(&self, totals: &mut [T]) {
        match totals.as_mut_array::<LANES>() {
            Some(totals) => totals.iter_mut().zip(&self.0).for_each(|(total, sum)| *total += *sum),
            None => totals.iter_mut().zip(&self.0).for_each(|(total, sum)| *total += *sum),
        }
    }
}

/// Declares the sizes of an op once, as the Rust twin of the WGSL struct: plain 4-byte fields in the same order.
/// `FIELDS` lets a test compare both.
macro_rules! uniform {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ident),* $(,)? }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind),* }

        impl $name {
            /// Name and type of each field, in order; each takes 4 bytes.
            pub const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), stringify!($kind))),*];
        }
    };
}
pub(crate) use uniform;
