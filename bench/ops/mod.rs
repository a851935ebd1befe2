//! What is timed: for each op its entry points and versions, on the sizes of a [`Layer`], with the operations and the
//! least bytes of each.

mod adam;
mod add;
mod batch_norm;
mod batch_norm_max_pool2d;
mod batch_norm_upsample_bilinear;
mod bce_dice;
mod clip_norm;
mod concat;
mod conv2d;
mod conv_transpose2d;
mod depthwise_conv2d;
mod ema;
mod gelu;
mod layer_norm;
mod linear;
mod load_batch;
mod max_pool2d;
mod metric_counts;
mod relu;
mod sgd;
mod shift;
mod shifted_linear;
mod sigmoid;
mod softmax;
mod sum_chunks;
mod transpose_weights;
mod unscale;
mod upsample_bilinear;
mod upsample_bilinear_concat;

use std::fmt::Display;

use shadegrad::gpu::Constants;
use shadegrad::gpu::shader::{BLOCK, SPLIT, TOGETHER};
use shadegrad::ops::{Kernel, Version, together};
use shadegrad::{Device, Result, Tape, Tensor};

use super::shapes::Layer;

/// An op that is timed.
pub struct BenchOp {
    /// As its files are called.
    pub name: &'static str,
    /// How its sizes are written ([`Layer::parse`]).
    pub form: &'static str,
    /// Its timed launches on a layer.
    pub cases: fn(&Layer) -> Result<Vec<BenchCase>>,
}

/// One line an op: its form and its cases.
pub const OPS: &[BenchOp] = &[
    BenchOp { name: "adam", form: adam::FORM, cases: adam::cases },
    BenchOp { name: "add", form: add::FORM, cases: add::cases },
    BenchOp { name: "batch_norm", form: batch_norm::FORM, cases: batch_norm::cases },
    BenchOp { name: "batch_norm_max_pool2d", form: batch_norm_max_pool2d::FORM, cases: batch_norm_max_pool2d::cases },
    BenchOp {
        name: "batch_norm_upsample_bilinear",
        form: batch_norm_upsample_bilinear::FORM,
        cases: batch_norm_upsample_bilinear::cases,
    },
    BenchOp { name: "bce_dice", form: bce_dice::FORM, cases: bce_dice::cases },
    BenchOp { name: "clip_norm", form: clip_norm::FORM, cases: clip_norm::cases },
    BenchOp { name: "concat", form: concat::FORM, cases: concat::cases },
    BenchOp { name: "conv2d", form: conv2d::FORM, cases: conv2d::cases },
    BenchOp { name: "conv_transpose2d", form: conv_transpose2d::FORM, cases: conv_transpose2d::cases },
    BenchOp { name: "depthwise_conv2d", form: depthwise_conv2d::FORM, cases: depthwise_conv2d::cases },
    BenchOp { name: "ema", form: ema::FORM, cases: ema::cases },
    BenchOp { name: "gelu", form: gelu::FORM, cases: gelu::cases },
    BenchOp { name: "layer_norm", form: layer_norm::FORM, cases: layer_norm::cases },
    BenchOp { name: "linear", form: linear::FORM, cases: linear::cases },
    BenchOp { name: "load_batch", form: load_batch::FORM, cases: load_batch::cases },
    BenchOp { name: "max_pool2d", form: max_pool2d::FORM, cases: max_pool2d::cases },
    BenchOp { name: "metric_counts", form: metric_counts::FORM, cases: metric_counts::cases },
    BenchOp { name: "relu", form: relu::FORM, cases: relu::cases },
    BenchOp { name: "sgd", form: sgd::FORM, cases: sgd::cases },
    BenchOp { name: "shift", form: shift::FORM, cases: shift::cases },
    BenchOp { name: "shifted_linear", form: shifted_linear::FORM, cases: shifted_linear::cases },
    BenchOp { name: "sigmoid", form: sigmoid::FORM, cases: sigmoid::cases },
    BenchOp { name: "softmax", form: softmax::FORM, cases: softmax::cases },
    BenchOp { name: "sum_chunks", form: sum_chunks::FORM, cases: sum_chunks::cases },
    BenchOp { name: "transpose_weights", form: transpose_weights::FORM, cases: transpose_weights::cases },
    BenchOp { name: "unscale", form: unscale::FORM, cases: unscale::cases },
    BenchOp { name: "upsample_bilinear", form: upsample_bilinear::FORM, cases: upsample_bilinear::cases },
    BenchOp {
        name: "upsample_bilinear_concat",
        form: upsample_bilinear_concat::FORM,
        cases: upsample_bilinear_concat::cases,
    },
];

/// The form of ops that take images and nothing else.
const IMAGES: &str = "NxHxWxC";
/// The form of ops that take a row of numbers.
const COUNT: &str = "COUNT";

/// What a run computes and moves.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Floating-point operations (a multiply-add is two).
    pub flops: f64,
    /// Bytes that must be read or written at least.
    pub bytes: f64,
}

impl Cost {
    /// So many operations, and so many numbers of 4 bytes that are read or written.
    fn of(flops: f64, numbers: f64) -> Self {
        Self { flops, bytes: 4.0 * numbers }
    }

    /// That of both, one after the other.
    fn and(self, other: Self) -> Self {
        Self { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

/// One timed launch.
pub struct BenchCase {
    /// The op.
    pub op: &'static str,
    /// The entry point, as `check` calls it.
    pub entry: &'static str,
    /// `v1`, `v2`, `v2 TOGETHER=8`, ... (`plain` on the CPU device).
    pub version: String,
    /// Where a network uses it, and its sizes as `--shape` takes them.
    pub case: String,
    /// Operations and bytes.
    pub cost: Cost,
    /// Makes the inputs and returns the work to repeat.
    pub prepare: Box<Prepare>,
}

/// Makes the inputs of a case on a device.
pub type Prepare = dyn Fn(&Device) -> Result<Work>;

impl BenchCase {
    fn new(
        layer: &Layer,
        form: &str,
        entry: &'static str,
        version: impl Display,
        cost: Cost,
        prepare: impl Fn(&Device) -> Result<Work> + 'static,
    ) -> Self {
        let case = format!("{}: {}", layer.name, layer.text(form));
        Self { op: layer.op, entry, version: version.to_string(), case, cost, prepare: Box::new(prepare) }
    }

    /// Whether a device has the kernel: neighbours share what they read only where there are subgroups, blocks are nothing for
    /// software, and those whose terms are shared out want more workgroup memory than WebGPU promises.
    pub fn runs_on(&self, device: &Device) -> bool {
        let Device::Gpu(context) = device else {
            return !self.version.contains(TOGETHER) && !self.version.contains(BLOCK);
        };
        let (room, software) = (context.workgroup_bytes() >= 32 << 10, context.facts().software);
        let asks = |constant| self.version.contains(constant);
        (device.has_subgroups() || !asks(TOGETHER)) && !(software && asks(BLOCK)) && (room || !asks(SPLIT))
    }
}

/// What is repeated.
pub enum Work {
    /// All of it is timed.
    Launch(Box<dyn Fn() -> Result<()>>),
    /// A forward pass is recorded, then its gradient is timed alone.
    Gradient {
        /// Records a forward pass; not timed.
        record: Box<dyn Fn() -> Result<(Tape, Tensor)>>,
        /// The gradient of its result.
        gy: Tensor,
    },
}

impl Work {
    fn launch(run: impl Fn() -> Result<()> + 'static) -> Result<Self> {
        Ok(Self::Launch(Box::new(run)))
    }

    fn gradient(gy: Tensor, record: impl Fn(&Tape) -> Result<Tensor> + 'static) -> Result<Self> {
        let record = move || {
            let tape = Tape::new();
            let y = record(&tape)?;
            Ok((tape, y))
        };
        Ok(Self::Gradient { record: Box::new(record), gy })
    }

    /// Does what is not timed, and returns what is.
    ///
    /// # Errors
    /// As the op.
    pub fn ready(&self) -> Result<Box<dyn FnOnce() -> Result<()> + '_>> {
        match self {
            Self::Launch(run) => Ok(Box::new(run)),
            Self::Gradient { record, gy } => {
                let (tape, y) = record()?;
                Ok(Box::new(move || tape.backward_from(&y, gy).map(drop)))
            }
        }
    }
}

/// [`Version::V1`], and [`Version::V2`] where it can be.
fn versions(second: bool) -> &'static [Version] {
    if second { &[Version::V1, Version::V2] } else { &[Version::V1] }
}

/// The cases of an op that takes one number at a time, or four.
fn by_fours(layer: &Layer, case: fn(&Layer, Version) -> BenchCase) -> Result<Vec<BenchCase>> {
    Ok(versions(layer.x.len().is_multiple_of(4)).iter().map(|version| case(layer, *version)).collect())
}

/// [`Version::V1`], and tiles where there can be any: those of `v2`, whose neighbours may share what they read.
fn tiles(second: bool, depth: usize, columns: usize) -> Vec<Kernel> {
    let side = |tile: usize| 1 << (columns / tile).max(1).ilog2().min(3);
    let large = [(BLOCK, side(8))];
    let small = [("TILE_M", 4), ("TILE_N", 1), (BLOCK, side(4)), (SPLIT, 4)];
    let blocks = [Constants::from(&large[..]), Constants::from(&small[..])];
    let blocks = blocks.into_iter().filter(|_| depth.is_multiple_of(4) && columns >= 16);
    let of_tiles = [Constants::default(), together()].into_iter().chain(blocks);
    let of_tiles = of_tiles.map(Kernel::tiled);
    std::iter::once(Version::V1.into()).chain(of_tiles.filter(|_| second)).collect()
}

/// Both directions of an op with one input and one result of the same shape.
fn pointwise(
    layer: &Layer,
    form: &str,
    flops: [f64; 2],
    version: Version,
    forward: fn(&Tensor, Version) -> Result<Tensor>,
) -> [BenchCase; 2] {
    let (x, elements) = (layer.x, layer.elements());
    let cost = Cost::of(flops[0] * elements, 2.0 * elements);
    let down = BenchCase::new(layer, form, "forward", version.name(), cost, move |device| {
        let x = device.zeros("bench", x)?;
        Work::launch(move || forward(&x, version).map(drop))
    });
    // gy, and x or y, are read; gx is written.
    let cost = Cost::of(flops[1] * elements, 3.0 * elements);
    let up = BenchCase::new(layer, form, "backward_input", version.name(), cost, move |device| {
        let x = device.zeros("bench", x)?;
        Work::gradient(x.clone(), move |tape| forward(&tape.watch_input(&x), version))
    });
    [down, up]
}
