//! One case list, three uses: the tests, `shadegrad check` on any card, and the benches take their shapes from it.
//!
//! A case makes its inputs from a formula, runs the op forward and backward on a device, and compares every entry
//! point and version with the plain-Rust twin in f64 on the same f32 inputs.

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

use shadegrad::ops::Version;
use shadegrad::tensor::random::Stream;
use shadegrad::{DType, Device, Result, Shape, Tensor};

/// A case of one op.
pub struct Case {
    /// The op, as its files are called.
    pub op: &'static str,
    /// What is special about it, and its sizes.
    pub name: String,
    /// Whether it makes sense with images of 16-bit floats too.
    half: bool,
    run: Box<Run>,
}

/// Ops that work on parameters and their gradients, which are always f32.
const WITHOUT_IMAGES: [&str; 7] = ["adam", "clip_norm", "ema", "sgd", "sum_chunks", "transpose_weights", "unscale"];

/// What a case does on a device.
type Run = dyn Fn(&Device, &mut Checks) -> Result<()> + Send + Sync;

impl Case {
    /// A case that `run` performs.
    pub fn new(
        op: &'static str,
        name: impl Into<String>,
        run: impl Fn(&Device, &mut Checks) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let half = !WITHOUT_IMAGES.contains(&op);
        Self { op, name: name.into(), half, run: Box::new(run) }
    }

    /// The same, for f32 only: its numbers mean nothing as 16-bit floats.
    #[allow(dead_code, reason = "for the cases that need it")]
    pub fn f32_only(self) -> Self {
        Self { half: false, ..self }
    }

    /// Whether [`run_half`](Self::run_half) has something to run on a device.
    pub fn has_half(&self, device: &Device) -> bool {
        self.half && device.has_f16()
    }

    /// Runs the case on a device.
    ///
    /// # Errors
    /// What the op reports; a wrong result is not an error but an [`Outcome`] that is not ok.
    pub fn run(&self, device: &Device) -> Result<Vec<Outcome>> {
        self.run_as(device, DType::F32)
    }

    /// Runs the case with images of 16-bit floats.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_half(&self, device: &Device) -> Result<Vec<Outcome>> {
        self.run_as(device, DType::F16)
    }

    fn run_as(&self, device: &Device, images: DType) -> Result<Vec<Outcome>> {
        let mut checks = Checks { images, outcomes: Vec::new() };
        (self.run)(device, &mut checks)?;
        Ok(checks.outcomes)
    }
}

/// How far a result may be from the f64 reference.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Bound of sum((got - want)^2) / sum(want^2).
    pub nmse: f64,
    /// Bound of |got - want|, times the largest |want| or 1, whichever is larger.
    pub absolute: f64,
}

impl Tolerance {
    /// Both together.
    fn and(self, more: Self) -> Self {
        Self { nmse: self.nmse + more.nmse, absolute: self.absolute + more.absolute }
    }
}

/// For results that are copies, sums of a few terms or one rounding: a few units in the last place.
pub const EXACT: Tolerance = Tolerance { nmse: 0.0, absolute: 0.0 };
/// For pointwise formulas with a few roundings (2^-24 = 6e-8 each).
pub const POINTWISE: Tolerance = Tolerance { nmse: 1e-13, absolute: 1e-6 };
/// What rounding to 16-bit floats (2^-11 of a number) adds: once for the result, and once for what an op adds to or reads
/// again.
const HALF: Tolerance = Tolerance { nmse: 9.6e-7, absolute: 1e-3 };
/// The same for a sum of rounded numbers, which may cancel.
const SUM_OF_HALVES: Tolerance = Tolerance { nmse: 4e-6, absolute: 4e-3 };
/// f64 against f64.
const TWIN: Tolerance = Tolerance { nmse: 0.0, absolute: 1e-11 };
/// For sums of many products: errors grow with the square root of their number.
pub const SUMS: Tolerance = Tolerance { nmse: 1e-12, absolute: 5e-6 };

/// One comparison.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The entry point.
    pub entry: &'static str,
    /// `v1`, `v2`, ... or `plain` on the CPU device.
    pub version: String,
    /// Normalised mean square error.
    pub nmse: f64,
    /// Largest absolute difference.
    pub max_abs: f64,
    /// What `nmse` must not exceed.
    pub tolerance: f64,
    /// Whether the result is right.
    pub ok: bool,
    /// The first wrong elements: index, got, wanted.
    pub first_wrong: Vec<(usize, f32, f64)>,
}

/// Collects the comparisons of a case.
pub struct Checks {
    /// What images are made of.
    images: DType,
    outcomes: Vec<Outcome>,
}

#[allow(dead_code, reason = "not every user of this file needs it")]
impl Checks {
    /// Compares a twin in f64 with loops that share nothing with it; once is enough, so not in a half run.
    pub fn twin(&mut self, entry: &'static str, twin: &[f64], naive: &[f64]) {
        if self.images == DType::F32 {
            let difference: Vec<f32> = twin.iter().zip(naive).map(|(a, b)| (a - b) as f32).collect();
            self.values(entry, "f64", &difference, &vec![0.0; twin.len()], TWIN);
        }
    }

    /// Whether images are made of 16-bit floats.
    pub fn is_half(&self) -> bool {
        self.images == DType::F16
    }

    /// The numbers as an image holds them.
    pub fn stored(&self, mut values: Vec<f32>) -> Vec<f32> {
        if self.images == DType::F16 {
            values.iter_mut().for_each(|value| *value = half::f16::from_f32(*value).to_f32());
        }
        values
    }

    /// The bound of an f32 result that is a sum over an image which is written and read again on the way.
    pub fn through(&self, bound: Tolerance) -> Tolerance {
        if self.images == DType::F16 { bound.and(SUM_OF_HALVES) } else { bound }
    }

    /// A tensor for an image or its gradient.
    ///
    /// # Errors
    /// As [`Device::tensor`].
    pub fn image(&self, device: &Device, shape: impl Into<Shape>, values: &[f32]) -> Result<Tensor> {
        let image = device.empty_as("case", shape, self.images)?;
        image.write(values)?;
        Ok(image)
    }

    /// An image of [`numbers`] on a device, and the same numbers in f64.
    ///
    /// # Errors
    /// As [`Device::tensor`].
    pub fn input(&self, device: &Device, name: &str, shape: impl Into<Shape>) -> Result<(Tensor, Vec<f64>)> {
        let shape = shape.into();
        let values = self.stored(numbers(name, shape.len()));
        Ok((self.image(device, shape, &values)?, doubles(&values)))
    }

    /// Compares a result with the reference. `version` is the kernel's; on the CPU device it is called `plain`.
    ///
    /// # Errors
    /// What reading the tensor reports.
    pub fn compare(
        &mut self,
        entry: &'static str,
        version: &str,
        got: &Tensor,
        want: &[f64],
        tolerance: Tolerance,
    ) -> Result<()> {
        let version = if matches!(got.device(), Device::Cpu(_)) { "plain" } else { version };
        let tolerance = if got.dtype() == DType::F16 { tolerance.and(HALF) } else { tolerance };
        let got = got.to_vec()?;
        self.values(entry, version, &got, want, tolerance);
        Ok(())
    }

    /// As [`compare`](Self::compare), for numbers already read.
    pub fn values(&mut self, entry: &'static str, version: &str, got: &[f32], want: &[f64], tolerance: Tolerance) {
        let scale = want.iter().fold(1.0_f64, |most, w| most.max(w.abs()));
        let bound = tolerance.absolute * scale;
        let (mut squares, mut norm, mut worst) = (0.0, 0.0, 0.0_f64);
        let mut first_wrong = Vec::new();
        for (index, (g, w)) in got.iter().zip(want).enumerate() {
            let difference = (f64::from(*g) - w).abs();
            squares += difference * difference;
            norm += w * w;
            // NaN is worse than anything; `max` would drop it.
            worst = if difference.is_nan() { f64::INFINITY } else { worst.max(difference) };
            if (difference > bound || difference.is_nan()) && first_wrong.len() < 3 {
                first_wrong.push((index, *g, *w));
            }
        }
        let nmse = if squares == 0.0 { 0.0 } else { squares / norm.max(f64::MIN_POSITIVE) };
        let same_length = got.len() == want.len();
        // Where the reference is all but zero a relative bound means nothing: then the absolute one decides.
        let ok = same_length && worst <= bound && (nmse <= tolerance.nmse || norm < 1e-12);
        self.outcomes.push(Outcome {
            entry,
            version: if self.images == DType::F16 { format!("{version} f16") } else { version.to_owned() },
            nmse,
            max_abs: worst,
            tolerance: tolerance.nmse,
            ok,
            first_wrong,
        });
    }
}

/// Numbers in [-1, 1) that belong to a name: the same on every machine.
pub fn numbers(name: &str, count: usize) -> Vec<f32> {
    let stream = Stream::named("case", name);
    (0..count as u64).map(|index| stream.unit(index)).collect()
}

/// A tensor of [`numbers`] on a device, and the same numbers in f64.
///
/// # Errors
/// As [`Device::tensor`].
#[allow(dead_code, reason = "not every user of this file needs it")]
pub fn input(device: &Device, name: &str, shape: impl Into<Shape>) -> Result<(Tensor, Vec<f64>)> {
    let shape = shape.into();
    let values = numbers(name, shape.len());
    Ok((device.tensor("case", shape, &values)?, doubles(&values)))
}

/// The versions of an op that takes one number an invocation, or four.
pub fn by_fours(count: usize) -> &'static [Version] {
    if count.is_multiple_of(4) { &[Version::V1, Version::V2] } else { &[Version::V1] }
}

/// The same numbers in f64.
pub fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// A function of several inputs to one number.
pub type Scalar = dyn Fn(&[Vec<f64>]) -> f64;

/// A differentiable function in f64, for finite differences: inputs, the function to one number, its gradients.
#[allow(dead_code, reason = "only the tests differentiate; `check` shares this file")]
pub struct GradientCase {
    /// What is differentiated.
    pub name: String,
    /// The inputs that are varied.
    pub inputs: Vec<Vec<f64>>,
    /// The function, reduced to one number (usually the sum of y * gy).
    pub value: Box<Scalar>,
    /// The twin's gradients, one per input.
    pub gradients: Vec<Vec<f64>>,
    /// Relative tolerance of the comparison.
    pub tolerance: f64,
}

/// All cases of all ops.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(adam::cases());
    all.extend(add::cases());
    all.extend(batch_norm::cases());
    all.extend(batch_norm_max_pool2d::cases());
    all.extend(batch_norm_upsample_bilinear::cases());
    all.extend(bce_dice::cases());
    all.extend(clip_norm::cases());
    all.extend(concat::cases());
    all.extend(conv2d::cases());
    all.extend(conv_transpose2d::cases());
    all.extend(depthwise_conv2d::cases());
    all.extend(ema::cases());
    all.extend(gelu::cases());
    all.extend(layer_norm::cases());
    all.extend(linear::cases());
    all.extend(load_batch::cases());
    all.extend(max_pool2d::cases());
    all.extend(metric_counts::cases());
    all.extend(relu::cases());
    all.extend(sgd::cases());
    all.extend(shift::cases());
    all.extend(shifted_linear::cases());
    all.extend(sigmoid::cases());
    all.extend(softmax::cases());
    all.extend(sum_chunks::cases());
    all.extend(transpose_weights::cases());
    all.extend(unscale::cases());
    all.extend(upsample_bilinear::cases());
    all.extend(upsample_bilinear_concat::cases());
    all
}

/// All gradients that are compared with finite differences.
#[allow(dead_code, reason = "only the tests differentiate; `check` shares this file")]
pub fn gradients() -> Vec<GradientCase> {
    let mut all = Vec::new();
    all.extend(add::gradients());
    all.extend(batch_norm::gradients());
    all.extend(batch_norm_max_pool2d::gradients());
    all.extend(batch_norm_upsample_bilinear::gradients());
    all.extend(bce_dice::gradients());
    all.extend(concat::gradients());
    all.extend(conv2d::gradients());
    all.extend(conv_transpose2d::gradients());
    all.extend(depthwise_conv2d::gradients());
    all.extend(gelu::gradients());
    all.extend(layer_norm::gradients());
    all.extend(linear::gradients());
    all.extend(max_pool2d::gradients());
    all.extend(relu::gradients());
    all.extend(shift::gradients());
    all.extend(shifted_linear::gradients());
    all.extend(sigmoid::gradients());
    all.extend(softmax::gradients());
    all.extend(upsample_bilinear::gradients());
    all.extend(upsample_bilinear_concat::gradients());
    all
}
