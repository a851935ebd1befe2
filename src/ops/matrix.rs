//! Matrix units (tensor cores), for images of 16-bit floats: version 5 of the convolution and of its input gradient, version 6 of
//! its weight gradient.
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
//!       +----+       +----+----+----+----+     2 * UNIT pixels x 4 * UNIT channels. A workgroup has 64 to 256 pixels x 64 or
//!       | x1 |       | c10| c11| c12| c13|     128 channels, whatever the size of its subgroups: an invocation for 64 or 128.
//!       +----+       +----+----+----+----+
//! ```
//!
//! x is read (and normalised, or put together from two tensors, as in the other versions), rounded to 16 bits and kept in
//! workgroup memory. The weights are rounded and turned once, by a launch of [`transpose_weights`](mod@super::transpose_weights), so that
//! they are read as x is: eight neighbouring input channels at a time. For the input gradient, whose channels these are in the weight,
//! they are only rounded. That rounding of the weights is the price: 2^-11 of each, as much
//! as every result of mixed precision loses when it is stored. With f32 images nobody has asked for it, so there is no `v5`.
//!
//! The weight gradient is the same with rows of weights (tap, ci) in the place of pixels, and pixels in the place of ci: x and gy
//! are 16-bit floats anyway, so that only an x that is normalised on the way is rounded once more. Its sums stay f32.
//!
//! # What a unit is fed with
//! A block of 128 x 128 reads a number of x or w from memory for 128 products, one of 64 x 64 for 64. What is read stays as it lies in memory
//! until it is left in workgroup memory, a slab ahead of what is multiplied: nobody waits for it before. Where neighbours in memory are
//! neighbours in k, as in forward, both sides lie by strips, which the units of AMD and NVIDIA take as they are; the weight gradient's
//! lie across, and are turned by the units that load them. They are read eight numbers at a time, and written so where the device takes
//! matrices from arrays of vectors (Vulkan), one by one where it does not (Metal, and so all units of 8x8).
//!
//! # Where they are used
//! Drivers list matrix units that are slow, and some have been seen to add up wrongly. So they are usual only where they were timed
//! (`src/ops/priors.rs`: large convolutions on NVIDIA's cards), and elsewhere what `tune --precision f16` found faster, for results of
//! [`LEAST_CHANNELS`] or more; and each time a device is opened, [`fault`] compares three small convolutions and their weight gradients,
//! with every block, with other kernels before the first use.
//! wgpu calls the feature experimental, and has it on Vulkan and Metal, not on DX12.
//!
//! The few lines that multiply are `shaders/lib/matrix_units.wgsl`. `lib/matrix_plain.wgsl` says the same in plain WGSL:
//! so `check` runs all the rest of the kernel on every device that has 16-bit floats ("emulated"). The lines themselves have
//! run on Mesa's software Vulkan from version 26 on, which has units of 8x8, and on an NVIDIA H100 and H200, of 16x16: right on all.
//! NVIDIA's cut sums of f32 off instead of rounding them: a weight gradient is up to 2^-24 of its terms too small for each sum of a chain.
//!
//! <details><summary>shaders/lib/matrix_block.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/lib/matrix_block.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/lib/gemm_matrix.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/lib/gemm_matrix.wgsl")]
//! ```
//! </details>
//! <details><summary>shaders/lib/weight_matrix.wgsl</summary>
//!
//! ```wgsl
#![doc = include_str!("../../shaders/lib/weight_matrix.wgsl")]
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

use std::fmt;

use super::Version;
use super::conv2d::{self, GatherKernel, WeightKernel};
use crate::cpu::conv2d::Conv2dParams;
use crate::gpu::{Constants, Matrix, Part, WORKGROUP};
use crate::tensor::random::Stream;
use crate::tensor::{DType, Device, Shape, Tensor};
use crate::{Error, Result};

const OP: &str = "matrix";

/// A kernel for matrix units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixKernel {
    /// What multiplies.
    pub matrix: Matrix,
    /// The block of a workgroup: constants of `shaders/lib/matrix_block.wgsl`.
    pub constants: Constants,
}

impl fmt::Display for MatrixKernel {
    /// `16x16`, `16x16 emulated PANE_ROWS=128`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.matrix.fmt(out)?;
        if self.constants == Constants::default() { Ok(()) } else { write!(out, " {}", self.constants) }
    }
}

/// The constants of a block, and their usual numbers.
const CONSTANTS: [(&str, u32); 5] = [("PANE_ROWS", 64), ("PANE_COLS", 64), ("EACH", 1), ("SHARE", 64), ("DEPTH", 32)];
/// The blocks that there are.
const BLOCKS: [[u32; 5]; 6] = [
    [64, 64, 1, 64, 32],
    [128, 64, 1, 64, 32],
    [128, 128, 1, 64, 32],
    [128, 128, 1, 64, 64],
    [256, 128, 2, 128, 32],
    [128, 128, 2, 64, 32],
];

/// The smallest of them.
const LEAST_BLOCK: usize = 64;

/// Channels of a result for which matrix units are worth a try: half of a block.
pub const LEAST_CHANNELS: u32 = 32;

/// Pixels of a chunk of statistics.
pub(super) const CHUNK: usize = 64;

/// The constants of all blocks that there are.
pub fn blocks() -> impl Iterator<Item = Constants> {
    BLOCKS.into_iter().map(|numbers| {
        let others = CONSTANTS.into_iter().zip(numbers).filter(|((_, usual), number)| number != usual);
        others.fold(Constants::default(), |constants, ((name, _), number)| constants.with(name, number))
    })
}

impl MatrixKernel {
    /// One of [`CONSTANTS`].
    fn number(self, name: &str) -> usize {
        let usual = CONSTANTS.iter().find(|(known, _)| *known == name).map_or(1, |(_, usual)| *usual);
        self.constants.number(name, usual as usize)
    }

    /// Rows and columns of a workgroup's block.
    fn block(self) -> [usize; 2] {
        ["PANE_ROWS", "PANE_COLS"].map(|name| self.number(name))
    }

    /// Workgroups that cover a result.
    pub(super) fn groups(self, rows: usize, columns: usize) -> usize {
        let [high, wide] = self.block();
        rows.div_ceil(high) * columns.div_ceil(wide)
    }

    /// How many of the smallest blocks a block is.
    pub(super) fn squares(self) -> usize {
        self.block().into_iter().product::<usize>() / (LEAST_BLOCK * LEAST_BLOCK)
    }

    /// Bytes of workgroup memory of the largest entry point, as `shaders/lib/matrix_block.wgsl` and `tile_statistics.wgsl` declare it.
    pub fn memory(self) -> usize {
        let [rows, columns] = self.block();
        let unit = self.matrix.unit();
        let depth = self.number("DEPTH");
        let slots = rows * columns / (8 * unit * unit) / if self.squares() >= 4 { self.squares() } else { 1 };
        let statistics = 2 * 16 * 2 * WORKGROUP;
        2 * (rows + columns) * (depth + 8) + 4 * slots * unit * (2 * unit + 4) + statistics
    }

    /// Whether a device has the invocations and the memory of a workgroup.
    fn fits(self, device: &Device) -> bool {
        let Device::Gpu(context) = device else { return false };
        let invocations = self.block().into_iter().product::<usize>() / self.number("SHARE");
        invocations <= context.facts().workgroup_invocations as usize
            && self.memory() <= context.workgroup_bytes() as usize
    }

    /// If images are what it takes, itself.
    ///
    /// # Errors
    /// [`Error::Shape`] for images of f32.
    pub(super) fn of_images(self, op: &'static str, images: &Tensor) -> Result<Self> {
        match images.dtype() {
            DType::F16 => Ok(self),
            other => {
                Err(Error::shape(op, format!("matrix units multiply 16-bit floats, and these images are {other:?}")))
            }
        }
    }
}

/// All kernels for matrix units that a device has for a gather, a weight gradient or a transposed convolution of so many channels in and
/// out: those of its own units, and emulated ones.
pub fn kernels(device: &Device, channels: [u32; 2]) -> Vec<MatrixKernel> {
    let forms = [Some(Matrix::Plain16), Some(Matrix::Plain8), units(device)];
    let takes = device.has_f16() && takes(channels);
    forms.into_iter().flatten().filter(|_| takes).flat_map(|matrix| fitting(device, matrix)).collect()
}

/// Those that `tune` may try for a gather over such images of a device, or for a weight gradient, if they have no [`fault`].
pub(super) fn offered(images: (&Device, DType), p: &Conv2dParams, part: Part) -> Vec<MatrixKernel> {
    let rows = match part {
        Part::BackwardWeight => p.kernel_h * p.kernel_w * p.in_c,
        _ => p.batch * p.out_h * p.out_w,
    };
    offered_for(images, [p.in_c, p.out_c], [rows, p.out_c])
}

/// The same for so many channels in and out, and a result of so many rows and columns.
pub(super) fn offered_for(
    (device, images): (&Device, DType),
    channels: [u32; 2],
    result: [u32; 2],
) -> Vec<MatrixKernel> {
    if images != DType::F16 || !takes(channels) || result[1] < LEAST_CHANNELS {
        return Vec::new();
    }
    let result = result.map(|extent| extent as usize);
    let useful = |kernel: &MatrixKernel| {
        kernel.block().iter().zip(result).all(|(block, there)| *block == LEAST_BLOCK || *block <= there)
    };
    units(device).into_iter().flat_map(|matrix| fitting(device, matrix)).filter(useful).collect()
}

/// Those of the kernels offered that a device may use.
pub(super) fn right(device: &Device, offered: Vec<MatrixKernel>) -> impl Iterator<Item = MatrixKernel> {
    offered.into_iter().filter(|_| fault(device).is_none())
}

/// The kernels with each block that a device has; emulated ones with one each, because drivers take many seconds to compile one: the
/// largest, of which some subgroups repeat a panel, and the smallest, whose subgroups take turns. Two panels a subgroup are for
/// workgroups with half as many invocations, or for subgroups that are twice as large.
fn fitting(device: &Device, matrix: Matrix) -> impl Iterator<Item = MatrixKernel> + '_ {
    let large = matches!(device, Device::Gpu(context) if context.facts().subgroup[1] > 32);
    let panels_of_subgroup = move |kernel: &MatrixKernel| kernel.number("SHARE") / 64 * if large { 2 } else { 1 };
    let wanted = move |(at, kernel): &(usize, MatrixKernel)| match matrix {
        Matrix::Plain16 => *at == 2,
        Matrix::Plain8 => *at == 0,
        Matrix::Units16 | Matrix::Units8 => {
            let each = kernel.number("EACH");
            each == 1 || each == panels_of_subgroup(kernel)
        }
    };
    let all = blocks().map(move |constants| MatrixKernel { matrix, constants }).enumerate();
    let kernels = all.filter(wanted).map(|(_, kernel)| kernel);
    kernels.filter(|kernel| kernel.fits(device))
}

/// Whether the channels divide.
fn takes(channels: [u32; 2]) -> bool {
    channels.iter().all(|count| count.is_multiple_of(8))
}

/// The matrix units of a device.
fn units(device: &Device) -> Option<Matrix> {
    match device {
        Device::Gpu(context) => context.matrix(),
        Device::Cpu(_) => None,
    }
}

/// Why matrix units are not used on a device that has them: results by them are not those of other kernels. Computed once for
/// each opened device; `None` where they are right, or where there are none.
pub fn fault(device: &Device) -> Option<&str> {
    let Device::Gpu(context) = device else { return None };
    let matrix = context.matrix()?;
    context.matrix_fault(|| {
        if context.is_planning() {
            return None;
        }
        let wrong = match compare(device, matrix) {
            Ok(None) => return None,
            Ok(Some(wrong)) => wrong,
            Err(error) => error.to_string(),
        };
        let fault = format!("the matrix units {matrix} of {device} are not used: {wrong}");
        device.switches().say(1, || fault.clone());
        Some(fault)
    })
}

/// What is wrong with matrix units, or with what stands in for them: where results are not those of other kernels, with any
/// block.
///
/// # Errors
/// As the launches.
pub fn compare(device: &Device, matrix: Matrix) -> Result<Option<String>> {
    // Weights are rounded to 2^-11 of them, results too; a wrong product or sum is off by more than this of the largest.
    const BOUND: f32 = 4e-3;
    // Edges in every direction; and a long sum: one vendor's compiler lost parts of those.
    // And one whose weight gradient has long sums, too: it cuts pixels into chunks, but no image row.
    let cases =
        [("a small one", [2, 9, 11, 40], 72), ("a long sum", [1, 8, 8, 512], 64), ("a wide one", [1, 3, 300, 32], 64)];
    // All are launched before the first is read: so their kernels are compiled on all cores.
    let mut pairs = Vec::new();
    for (name, shape, out) in cases {
        let weight_shape = [3, 3, shape[3], out];
        let p = Conv2dParams::forward(shape, weight_shape, 1, 1, false);
        let x = numbers(device, "x", shape.into(), DType::F16)?;
        let w = numbers(device, "w", weight_shape.into(), DType::F32)?;
        let gy = numbers(device, "gy", [shape[0], shape[1], shape[2], out].into(), DType::F16)?;
        let y_by = |kernel: GatherKernel| conv2d::forward(&x, &w, None, 1, 1, kernel);
        let gw_by = |kernel: WeightKernel| {
            let gw = device.empty_as(OP, weight_shape, DType::F32)?;
            conv2d::backward_weight(&p, &x, &gy, &gw, None, kernel)?;
            Ok::<Tensor, Error>(gw)
        };
        let y = y_by(Version::V2.into())?;
        let gw = gw_by(WeightKernel::V3(Constants::default()))?;
        for kernel in fitting(device, matrix) {
            let forward = y_by(GatherKernel::Matrix(kernel))?;
            pairs.push((name, "v2", y.clone(), format!("v5 {kernel}"), forward));
            let gradient = gw_by(WeightKernel::V6(kernel))?;
            pairs.push((name, "v3", gw.clone(), format!("v6 {kernel}"), gradient));
        }
    }
    for (name, usual, want, own, got) in pairs {
        let (want, got) = (want.to_vec()?, got.to_vec()?);
        let largest = want.iter().fold(0.0_f32, |most, y| most.max(y.abs()));
        let close = |(want, got): &(&f32, &f32)| (*want - *got).abs() <= BOUND * largest; // false for NaN
        if let Some((want, got)) = want.iter().zip(&got).find(|pair| !close(pair)) {
            return Ok(Some(format!("in a convolution, {name}, {usual} gets {want} where {own} gets {got}")));
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
