//! Why an op takes which version of its kernels, and an op of any sizes on its own: for `show plan` and the debug
//! ladder.

use super::{
    Adam, Axis, BceDice, Mode, RunningStats, Sample, Sgd, Slices, adam, add, batch_norm, bce_dice, clip_norm, concat,
    conv_transpose2d, conv2d, depthwise_conv2d, ema, gelu, layer_norm, linear, load_batch, max_pool2d, metric_counts,
    relu, sgd, shift, sigmoid, softmax, upsample_bilinear,
};
use crate::tensor::{Device, Shape, Tensor};
use crate::{Error, Result, Tape};

/// Shader, entry points (all versions of what begins so), and when that version is taken. `_v1` is taken else.
const RULES: &[(&str, &str, &str)] = &[
    ("add", "forward_v2", "both shapes are the same and their elements divide by 4"),
    ("add", "assign_v2", "the elements divide by 4"),
    ("batch_norm", "_v2", "the channels divide by 4"),
    ("concat", "_v2", "the channels of both divide by 4"),
    ("conv2d", "forward_v2", "the channels of the result divide by 8"),
    ("conv2d", "backward_weight_v3", "the channels of x and of the result divide by 8"),
    ("conv2d", "backward_weight_v2", "the channels of the result divide by 8, those of x do not"),
    (
        "conv_transpose2d",
        "forward_v2",
        "kernel = stride, no padding, the channels of the result divide by 4 and times the kernel by 8",
    ),
    ("depthwise_conv2d", "_v2", "the channels divide by 4"),
    ("gelu", "_v2", "the elements divide by 4"),
    ("layer_norm", "_v2", "the channels divide by 4"),
    ("linear", "forward_v2", "the channels of the result divide by 8"),
    ("linear", "backward_weight_v2", "the channels of x and of the result divide by 8"),
    ("relu", "_v2", "the elements divide by 4"),
    ("shift", "_v2", "the channels divide by 4 and are at least 12"),
    ("sigmoid", "_v2", "the elements divide by 4"),
    ("softmax", "_v2", "the channels divide by 4"),
    ("upsample_bilinear", "_v2", "the channels divide by 4"),
];

/// When an op takes this entry point of its shader; `None` for one that has no versions.
///
/// ```
/// use shadegrad::ops::plan::rule;
/// assert_eq!(rule("relu", "forward_v2").as_deref(), Some("the elements divide by 4"));
/// assert_eq!(rule("relu", "forward_v1").as_deref(), Some("not so that: the elements divide by 4"));
/// assert_eq!(rule("max_pool2d", "forward"), None);
/// ```
pub fn rule(shader: &str, entry: &str) -> Option<String> {
    let (stem, version) = entry.rsplit_once("_v").filter(|(_, version)| version.parse::<u32>().is_ok())?;
    let of = |entry: &str| {
        let mut rules = RULES.iter().filter(|(name, _, _)| *name == shader);
        rules.find(|(_, ending, _)| entry.ends_with(ending)).map(|(_, _, rule)| *rule)
    };
    if version != "1" {
        return of(entry).map(str::to_owned);
    }
    let better: Vec<&str> = (2..10).filter_map(|number| of(&format!("{stem}_v{number}"))).collect();
    (!better.is_empty()).then(|| format!("not so that: {}", better.join(", or ")))
}

/// Sizes of an op on its own.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Of x: images `[N, H, W, C]`, or what else the op takes.
    pub shape: Shape,
    /// Channels of the result, for ops with a weight; of the other tensor, for `concat`.
    pub out: usize,
    /// Rows and columns of the kernel.
    pub kernel: usize,
    /// Of convolutions.
    pub stride: usize,
    /// Of convolutions.
    pub padding: usize,
}

/// Runs an op forward and, where it has a gradient, backward, on tensors of these sizes whose numbers are whatever was
/// there; returns its multiply-adds. Made for a planning device ([`Device::plan`]).
///
/// # Errors
/// [`Error::Config`] for an op that does not exist; else as the op.
pub fn run(op: &str, device: &Device, sizes: &Sizes) -> Result<u64> {
    let Sizes { shape, out, kernel, stride, padding } = *sizes;
    let (tape, c) = (Tape::new(), shape.last());
    let made = |shape: Shape| device.empty("plan", shape);
    let input = |shape: Shape| Ok::<Tensor, Error>(tape.watch_input(&made(shape)?));
    let vector = |extent: usize| input([extent].into());
    let x = || input(shape);
    let y = match op {
        "add" => add(&x()?, &x()?)?,
        "batch_norm" => {
            let (mean, var) = (made([c].into())?, made([c].into())?);
            let running = RunningStats { mean: &mean, var: &var };
            batch_norm(&x()?, &vector(c)?, &vector(c)?, &running, Mode::Train, 0.1, 1e-5)?
        }
        "bce_dice" => bce_dice(&x()?, &made(shape)?, &BceDice::batch())?,
        "concat" => {
            let mut dims = shape.dims().to_vec();
            if let Some(last) = dims.last_mut() {
                *last = out;
            }
            concat(&x()?, &input(Shape::new(&dims)?)?)?
        }
        "conv2d" => conv2d(&x()?, &input([kernel, kernel, c, out].into())?, Some(&vector(out)?), stride, padding)?,
        "conv_transpose2d" => {
            let weight = input([kernel, kernel, out, c].into())?;
            conv_transpose2d(&x()?, &weight, Some(&vector(out)?), stride, padding, 0)?
        }
        "depthwise_conv2d" => depthwise_conv2d(&x()?, &input([kernel, kernel, c].into())?, Some(&vector(c)?), padding)?,
        "gelu" => gelu(&x()?)?,
        "layer_norm" => layer_norm(&x()?, &vector(c)?, &vector(c)?, 1e-5)?,
        "linear" => linear(&x()?, &input([c, out].into())?, Some(&vector(out)?))?,
        "max_pool2d" => max_pool2d(&x()?)?,
        "relu" => relu(&x()?)?,
        "shift" => shift(&x()?, Axis::Width)?,
        "sigmoid" => sigmoid(&x()?)?,
        "softmax" => softmax(&x()?)?,
        "upsample_bilinear" => upsample_bilinear(&x()?, false)?,
        _ => return run_without_gradient(op, device, sizes).map(|()| 0),
    };
    let macs = tape.operations().iter().map(|operation| operation.macs).sum();
    let gy = made(y.shape())?;
    tape.backward_from(&y, &gy)?;
    Ok(macs)
}

/// The ops that nobody differentiates: what updates weights, loads batches and counts.
fn run_without_gradient(op: &str, device: &Device, sizes: &Sizes) -> Result<()> {
    let flat = || device.empty("plan", [sizes.shape.len()]);
    let step = device.empty("plan", [4])?;
    match op {
        "adam" => adam(&Adam::default(), &flat()?, &step, &flat()?, &flat()?, &flat()?),
        "clip_norm" => clip_norm(1.0, &flat()?, &step).map(drop),
        "ema" => ema(0.999, &flat()?, &flat()?),
        "sgd" => sgd(&Sgd::default(), &flat()?, &step, &flat()?, &flat()?),
        "metric_counts" => {
            let made = || device.empty("plan", sizes.shape);
            metric_counts(&made()?, &made()?).map(drop)
        }
        "load_batch" => {
            let [n, h, w, _] = sizes.shape.nhwc("load_batch")?;
            let (images, masks) = (vec![0; n * h * w * 3], vec![0; n * h * w]);
            let slices = Slices::upload(device, [h, w], &images, &masks, &[[0.0, 1.0, 1.0, 0.0]; 3], [0, 1, 2])?;
            let samples: Vec<Sample> = (0..n).map(|slice| Sample::plain(slice, 0)).collect();
            let (x, target) = (device.empty("plan", [n, h, w, 3])?, device.empty("plan", [n, h, w, 1])?);
            load_batch(&slices, &samples, &slices.table(n)?, &x, &target)
        }
        _ => {
            let names: Vec<&str> = super::SHADERS.iter().map(|shader| shader.name).collect();
            Err(Error::Config(format!("there is no op {op}; there are {}", names.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::plan::PlanEvent;
    use crate::gpu::translate::Translator;
    use crate::ops::SHADERS;

    #[test]
    fn every_version_says_when_it_is_taken() -> Result<()> {
        let mut used = vec![false; RULES.len()];
        for shader in SHADERS {
            let text = Translator::new(&shader.assemble(None, &[])?, true)?;
            for entry in text.entries() {
                assert_eq!(rule(shader.name, entry).is_some(), entry.contains("_v"), "{} {entry}", shader.name);
                for (index, (name, ending, _)) in RULES.iter().enumerate() {
                    used[index] |= *name == shader.name && entry.ends_with(ending);
                }
            }
        }
        let stale: Vec<_> = RULES.iter().zip(used).filter(|(_, used)| !used).collect();
        assert!(stale.is_empty(), "{stale:?}");
        Ok(())
    }

    /// Launches of an op, as `entry`.
    fn launched(op: &str, shape: Shape, out: usize) -> Result<Vec<&'static str>> {
        let device = Device::plan(None)?;
        let Device::Gpu(context) = &device else { panic!("a plan is a GPU's") };
        run(op, &device, &Sizes { shape, out, kernel: 3, stride: 1, padding: 1 })?;
        let entries = context.take_plan().into_iter().filter_map(|event| match event {
            PlanEvent::Launched(launch) if launch.shader == op => Some(launch.entry),
            _ => None,
        });
        Ok(entries.collect())
    }

    #[test]
    fn every_op_can_be_planned() -> Result<()> {
        for shader in SHADERS {
            assert!(!launched(shader.name, [2, 8, 8, 16].into(), 16)?.is_empty(), "{} launched nothing", shader.name);
        }
        Ok(())
    }

    #[test]
    fn the_rules_of_conv2d_hold() -> Result<()> {
        for (c, out) in [(16, 16), (3, 16), (16, 3), (3, 1)] {
            let entries = launched("conv2d", [1, 8, 8, c].into(), out)?;
            let forward = if out % 8 == 0 { "forward_v2" } else { "forward_v1" };
            let weight = match (c % 8, out % 8) {
                (0, 0) => "backward_weight_v3",
                (_, 0) => "backward_weight_v2",
                _ => "backward_weight_v1",
            };
            assert_eq!(entries.first(), Some(&forward), "{c} -> {out}");
            assert!(entries.contains(&weight), "{c} -> {out}: {entries:?}");
        }
        Ok(())
    }
}
