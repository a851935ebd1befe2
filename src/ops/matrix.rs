//! Version 5 of the convolution and of its input gradient: matrix units (tensor cores), for images of 16-bit floats.
//!
//! A matrix unit multiplies two matrices of 16x16 (or 8x8) 16-bit floats and adds the result to a matrix of f32, in a few
//! cycles: 4 to 15 times as many products per second as the rest of a GPU. The matrices lie in the registers of a whole
//! subgroup, the 32 or 64 invocations that a GPU runs in step.
//!
//! # Picture of the tile
//! ```text
//!                      4 * UNIT channels co
//!                    +----+----+----+----+
//!     w  UNIT ci     | w0 | w1 | w2 | w3 |     for each kernel position (tap) and UNIT input channels:
//!                    +----+----+----+----+
//!     x  UNIT ci                                   c[i][j] += x[i] * w[j]
//!       +----+       +----+----+----+----+
//!       | x0 |       | c00| c01| c02| c03|     Each cell is a matrix of UNIT x UNIT. A subgroup has the eight sums c:
//!       +----+       +----+----+----+----+     2 * UNIT pixels x 4 * UNIT channels. A workgroup of 64 invocations has
//!       | x1 |       | c10| c11| c12| c13|     64 pixels x 64 channels, whatever the size of its subgroups.
//!       +----+       +----+----+----+----+
//! ```
//!
//! x is read (and normalised, or put together from two tensors, as in the other versions), rounded to 16 bits and kept in
//! workgroup memory, and so are the weights. That rounding of the weights is the price: 2^-11 of each, as much as every result
//! of mixed precision loses when it is stored. With f32 images nobody has asked for it, so there is no `v5`.
//!
//! # Never by itself
//! Drivers list matrix units that are slow, and some have been seen to add up wrongly. So `v5` is only what `tune
//! --precision f16` found faster, for results of [`LEAST_CHANNELS`] or more; and each time a device is opened,
//! [`fault`] compares two small convolutions with `v2` before the first use. wgpu calls the feature experimental, and has
//! it on Vulkan and Metal, not on DX12.
//!
//! The few lines that multiply are `shaders/lib/matrix_units.wgsl`. `lib/matrix_plain.wgsl` says the same in plain WGSL:
//! so `check` runs all the rest of the kernel on every device that has 16-bit floats ("emulated"). The lines themselves have
//! run on Mesa's software Vulkan from version 26 on, which has units of 8x8, and on an NVIDIA H100, of 16x16: right on both.
//!
//! <details><summary>shaders/lib/gemm_matrix.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/lib/gemm_matrix.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/lib/matrix_units.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/lib/matrix_units.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/lib/matrix_plain.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/lib/matrix_plain.wgsl")]
//! ```
//! </details>

use super::Version;
use super::conv2d::{self, GatherKernel};
use crate::cpu::conv2d::Conv2dParams;
use crate::gpu::Matrix;
use crate::tensor::random::Stream;
use crate::tensor::{DType, Device, Shape, Tensor};
use crate::{Error, Result};

const OP: &str = "matrix";

/// Rows, and columns, of a workgroup's block.
const BLOCK: usize = 64;

/// Channels of a result for which `v5` is worth a try: half of a block.
pub const LEAST_CHANNELS: u32 = 32;

/// Pixels of a chunk of statistics.
pub(super) const CHUNK: usize = BLOCK;

/// Workgroups that cover a result.
pub(super) fn blocks(pixels: usize, channels: usize) -> usize {
    pixels.div_ceil(BLOCK) * channels.div_ceil(BLOCK)
}

/// All forms of `v5` that a device has for a gather of these sizes: emulated ones, and that of its matrix units.
pub fn kernels(device: &Device, p: &Conv2dParams) -> Vec<GatherKernel> {
    let forms = [Some(Matrix::Plain16), Some(Matrix::Plain8), units(device)];
    let takes = device.has_f16() && takes(device, p);
    forms.into_iter().flatten().filter(|_| takes).map(GatherKernel::Matrix).collect()
}

/// The matrix units that `tune` may try for a gather over these images, if they have no [`fault`].
pub(super) fn offered(images: &Tensor, p: &Conv2dParams) -> Option<Matrix> {
    let device = images.device();
    let takes = images.dtype() == DType::F16 && takes(device, p) && p.out_c >= LEAST_CHANNELS;
    units(device).filter(|_| takes)
}

/// Whether a device has the workgroup memory, and the channels divide.
fn takes(device: &Device, p: &Conv2dParams) -> bool {
    const BYTES: u64 = 18688; // the largest entry point of shaders/lib/gemm_matrix.wgsl
    let room = matches!(device, Device::Gpu(context) if context.workgroup_bytes() >= BYTES);
    room && p.out_c.is_multiple_of(8) && p.in_c.is_multiple_of(4)
}

/// The matrix units of a device.
fn units(device: &Device) -> Option<Matrix> {
    match device {
        Device::Gpu(context) => context.matrix(),
        Device::Cpu(_) => None,
    }
}

/// Why `v5` is not used on a device with matrix units: its results are not those of `v2`. Computed once for each opened
/// device; `None` where they are right, or where there are none.
pub fn fault(device: &Device) -> Option<&str> {
    let Device::Gpu(context) = device else { return None };
    let matrix = context.matrix().filter(|_| !context.is_planning())?;
    context.matrix_fault(|| {
        let wrong = match compare(device, matrix) {
            Ok(None) => return None,
            Ok(Some(wrong)) => wrong,
            Err(error) => error.to_string(),
        };
        Some(format!("the matrix units {matrix} of {device} are not used: {wrong}"))
    })
}

/// What is wrong with a form of `v5`: where its results are not those of `v2`.
///
/// # Errors
/// As the launches.
pub fn compare(device: &Device, matrix: Matrix) -> Result<Option<String>> {
    // Weights are rounded to 2^-11 of them, results too; a wrong product or sum is off by more than this of the largest.
    const BOUND: f32 = 4e-3;
    // Edges in every direction; and a long sum: one vendor's compiler lost parts of those.
    for (name, shape, out) in [("a small one", [2, 9, 11, 40], 72), ("a long sum", [1, 8, 8, 512], 64)] {
        let [x, w] = [Shape::from(shape), [3, 3, shape[3], out].into()];
        let x = numbers(device, "x", x, DType::F16)?;
        let w = numbers(device, "w", w, DType::F32)?;
        let by = |kernel: GatherKernel| conv2d::forward(&x, &w, None, 1, 1, kernel)?.to_vec();
        let (want, got) = (by(Version::V2.into())?, by(GatherKernel::Matrix(matrix))?);
        let largest = want.iter().fold(0.0_f32, |most, y| most.max(y.abs()));
        let close = |(want, got): &(&f32, &f32)| (*want - *got).abs() <= BOUND * largest; // false for NaN
        if let Some((want, got)) = want.iter().zip(&got).find(|pair| !close(pair)) {
            return Ok(Some(format!("in a convolution, {name}, v2 gets {want} where v5 gets {got}")));
        }
    }
    Ok(None)
}

/// Numbers between -1 and 1.
fn numbers(device: &Device, name: &str, shape: Shape, dtype: DType) -> Result<Tensor> {
    let stream = Stream::named(OP, name);
    let values: Vec<f32> = (0..shape.len() as u64).map(|index| stream.unit(index)).collect();
    let tensor = device.empty_as(OP, shape, dtype)?;
    tensor.write(&values)?;
    Ok(tensor)
}

/// What multiplies, if the images are what it takes.
///
/// # Errors
/// [`Error::Shape`] for images of f32.
pub(super) fn for_images(op: &'static str, y: &Tensor, matrix: Matrix) -> Result<Matrix> {
    match y.dtype() {
        DType::F16 => Ok(matrix),
        other => Err(Error::shape(op, format!("v5 needs images of 16-bit floats, got {other:?}"))),
    }
}
