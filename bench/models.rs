//! Whole networks: a training step, or inference, of a network.

use std::time::Instant;

use shadegrad::models::{self, ModelConfig, Network};
use shadegrad::ops::{Adam, BceDice, Mode, adam, bce_dice, unscale};
use shadegrad::train::Precision;
use shadegrad::{Device, Result, Tape, Tensor};

use super::line::{build, commit};
use super::statistics::Summary;

/// The figures of one network; the JSON keys of `bench unext` and its like.
#[derive(Debug, serde::Serialize)]
pub struct ModelLine {
    /// The network.
    pub model: &'static str,
    /// Parameters.
    pub parameters: usize,
    /// `train` or `infer`.
    pub mode: &'static str,
    /// Images of a step.
    pub batch: usize,
    /// Rows and columns.
    pub size: usize,
    /// `f32` or `f16`.
    pub precision: Precision,
    /// Median wall time of a step.
    pub step_ms: f64,
    /// Shortest wall time of a step.
    pub min_ms: f64,
    /// Wall time of the first step, which compiles the kernels.
    pub first_ms: f64,
    /// Median time until the host has recorded a step, before it waits for the device; on the CPU device the step itself.
    pub encode_ms: f64,
    /// Median time that it then takes to hand over what is recorded, which includes the driver's own work; 0 on the CPU.
    pub submit_ms: f64,
    /// From the median.
    pub images_per_second: f64,
    /// Most bytes in use on the device.
    pub peak_bytes: u64,
    /// Bytes set aside after step 3 and after the last: a difference is a leak.
    pub reserved_bytes: [u64; 2],
    /// Kernel launches of a step (0 on the CPU).
    pub dispatches: u64,
    /// Bytes of all tensors that the launches of a step bind (0 on the CPU).
    pub traffic_bytes: u64,
    /// Where.
    pub device: String,
    /// Its driver.
    pub driver: String,
    /// Of the checkout that the program was built in.
    pub commit: String,
    /// Names the program.
    pub build: String,
    /// Between the quartiles of the steps, as a share of the median.
    pub spread: f64,
    /// Milliseconds of each step, in order.
    pub samples_ms: Vec<f64>,
}

impl ModelLine {
    /// As a few lines to read.
    pub fn text(&self) -> String {
        let Self { model, mode, batch, size, step_ms, min_ms, spread, images_per_second, .. } = self;
        let Self { first_ms, encode_ms, submit_ms, .. } = self;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        format!(
            "{model} {mode}, {batch} images of {size}x{size}, {} parameters, on {} {}\n\
             step {step_ms:.1} ms (median of {}; least {min_ms:.1}, spread {:.1} %): {images_per_second:.1} images a second; recorded in {encode_ms:.2} ms, submitted in {submit_ms:.2}; the first step {first_ms:.0} ms\n\
             peak {:.1} MiB, reserved {:.1} MiB after step 3 and {:.1} after the last; {} launches bind {:.1} MiB a step",
            self.parameters,
            self.device,
            self.driver,
            self.samples_ms.len(),
            100.0 * spread,
            mib(self.peak_bytes),
            mib(self.reserved_bytes[0]),
            mib(self.reserved_bytes[1]),
            self.dispatches,
            mib(self.traffic_bytes)
        )
    }
}

/// Times a network. A step ends when the device has finished it.
///
/// # Errors
/// As the ops.
pub fn time(
    device: &Device,
    config: &ModelConfig,
    train: bool,
    batch: usize,
    size: usize,
    precision: Precision,
    runs: usize,
) -> Result<ModelLine> {
    let net = models::build(device, config, 0)?;
    let flat = net.parameters().values.shape();
    let moments = [device.zeros("bench", flat)?, device.zeros("bench", flat)?];
    let count = batch * size * size;
    let pixels: Vec<f32> = (0..count * config.in_channels).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect();
    let x = device.empty_as("bench", [batch, size, size, config.in_channels], precision.dtype())?;
    x.write(&pixels)?;
    let classes = config.num_classes;
    let disc: Vec<f32> =
        (0..count * classes).map(|i| f32::from(u8::from(i / classes / size % size < size / 4))).collect();
    let target = device.tensor("bench", [batch, size, size, classes], &disc)?;
    let step_values = device.zeros("bench", [4])?;
    let half = precision == Precision::F16;
    let scale = half.then(|| device.tensor("bench", [3], &unscale::START)).transpose()?;
    let (mut times, mut recorded, mut submitted) = (Vec::new(), Vec::new(), Vec::new());
    let mut first_ms = 0.0;
    let mut reserved = [0; 2];
    let before = |device: &Device| (device.dispatches(), traffic(device));
    let mut counts = (0, 0);
    let warm = 3;
    for run in 0..warm + runs {
        device.wait()?;
        let start = before(device);
        let begin = Instant::now();
        if train {
            step(net.as_ref(), [&x, &target], &step_values, scale.as_ref(), &moments, run as u64 + 1)?;
        } else {
            net.forward(&x, Mode::Eval)?;
        }
        let encoded = begin.elapsed();
        device.flush()?;
        let handed_over = begin.elapsed();
        device.wait()?;
        if run == 0 {
            first_ms = begin.elapsed().as_secs_f64() * 1e3;
        }
        if run >= warm {
            recorded.push(encoded.as_secs_f64() * 1e3);
            submitted.push((handed_over - encoded).as_secs_f64() * 1e3);
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        let end = before(device);
        counts = (end.0 - start.0, end.1 - start.1);
        if run + 1 == warm {
            reserved[0] = device.memory().reserved;
        }
    }
    reserved[1] = device.memory().reserved;
    let Summary { median, min, spread } = Summary::of(&times);
    Ok(ModelLine {
        model: config.model.name(),
        parameters: net.parameters().count(),
        mode: if train { "train" } else { "infer" },
        batch,
        size,
        precision,
        step_ms: median,
        min_ms: min,
        first_ms,
        encode_ms: Summary::of(&recorded).median,
        submit_ms: Summary::of(&submitted).median,
        images_per_second: batch as f64 / median * 1e3,
        peak_bytes: device.memory().peak,
        reserved_bytes: reserved,
        dispatches: counts.0,
        traffic_bytes: counts.1,
        device: device.to_string(),
        driver: device.driver(),
        commit: commit(),
        build: build(),
        spread,
        samples_ms: times,
    })
}

fn traffic(device: &Device) -> u64 {
    match device {
        Device::Cpu(_) => 0,
        Device::Gpu(context) => context.traffic_bytes(),
    }
}

fn step(
    net: &dyn Network,
    [x, target]: [&Tensor; 2],
    values: &Tensor,
    scale: Option<&Tensor>,
    moments: &[Tensor; 2],
    t: u64,
) -> Result<()> {
    let settings = Adam::default();
    values.write(&settings.step_values(1e-3, t))?;
    let tape = Tape::new();
    let logits = net.forward(&tape.watch(x), Mode::Train)?;
    let loss = bce_dice(&logits, target, &BceDice::sample())?;
    drop(logits);
    let gradients = match scale {
        Some(scale) => tape.backward_from(&loss, &scale.images(&(0..1)))?,
        None => tape.backward(&loss)?,
    };
    let parameters = net.parameters();
    parameters.check(&gradients)?;
    if let Some(scale) = scale {
        unscale(unscale::INTERVAL, &parameters.gradients, values, scale)?;
    }
    adam(&settings, &parameters.gradients, values, &parameters.values, &moments[0], &moments[1])
}
