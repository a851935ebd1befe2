//! What lives when: the device memory of a step, op by op, without a GPU.
//!
//! Nothing here knows a network or an op. A step runs on a device that only plans ([`Context::plan`]): every buffer
//! that the pool hands out or takes back is an event, and so is the end of every op. A real step makes the same
//! requests in the same order, so the peak is that of the pool.

use std::collections::HashMap;

use serde::Serialize;

use super::{ModelConfig, build};
use crate::gpu::Context;
use crate::gpu::plan::{PlanEvent, PlannedLaunch};
use crate::nn::Mode;
use crate::ops::{Adam, BceDice, adam, bce_dice, unscale};
use crate::{DType, Device, Error, Result, Tape};

/// The memory of one step, in bytes of the pool's size classes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryPlan {
    /// The network.
    pub model: &'static str,
    /// Images of a step.
    pub batch: usize,
    /// Rows and columns.
    pub size: usize,
    /// A training step with Adam, or a prediction.
    pub train: bool,
    /// Whose limits were taken.
    pub device: String,
    /// Kernel launches of the step.
    pub launches: usize,
    /// Bytes of all tensors that they bind: what they read and write at least, if each reads its tensors once.
    pub traffic_bytes: u64,
    /// In use before the step: parameters, gradients, moments, images and masks.
    pub before_bytes: u64,
    /// Most in use at once.
    pub peak_bytes: u64,
    /// The point at which that is.
    pub peak_point: usize,
    /// The ops in their order, forward and backward.
    pub points: Vec<MemoryPoint>,
    /// What is in use at the peak, the largest first.
    pub at_peak: Vec<LiveBuffer>,
    /// The kernels of the step, those that bind most bytes first.
    pub kernels: Vec<KernelTraffic>,
}

/// All launches of one kernel in a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelTraffic {
    /// The shader's name.
    pub shader: &'static str,
    /// The entry point.
    pub entry: &'static str,
    /// How many.
    pub launches: usize,
    /// Bytes of all tensors that they bind.
    pub bytes: u64,
}

/// An op of the step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryPoint {
    /// Position in the step.
    pub point: usize,
    /// `forward`, `backward` or `update`.
    pub pass: &'static str,
    /// The stage of the network, where it has one.
    pub stage: String,
    /// The op.
    pub op: &'static str,
    /// Its result; in the backward pass what it is the gradient of.
    pub shape: Vec<usize>,
    /// Bytes in use when it is done.
    pub live_bytes: u64,
    /// Most bytes in use while it ran.
    pub peak_bytes: u64,
}

/// A buffer that is in use at the peak.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LiveBuffer {
    /// Bytes.
    pub bytes: u64,
    /// Who asked for it.
    pub op: &'static str,
    /// The point that made it; `None`: it was there before.
    pub made_at: Option<usize>,
    /// The point in which it is given back; `None`: it stays.
    pub freed_at: Option<usize>,
    /// The pool's number.
    #[serde(skip)]
    number: u64,
}

/// What a [`MemoryPlan`] is for.
#[derive(Debug, Clone, Copy)]
pub struct PlannedStep {
    /// Images of the step.
    pub batch: usize,
    /// Rows and columns of an image.
    pub size: usize,
    /// A training step with Adam; else a prediction.
    pub train: bool,
    /// On a [recomputing](Tape::recomputing) tape.
    pub recompute: bool,
    /// What images, activations and their gradients are made of: `F16` with mixed precision.
    pub images: DType,
}

impl Default for PlannedStep {
    /// A training step of eight images 256x256 in f32.
    fn default() -> Self {
        Self { batch: 8, size: 256, train: true, recompute: false, images: DType::F32 }
    }
}

/// Events of a part of the step: pass, stage, what happened.
type Part = (&'static str, String, Vec<PlanEvent>);

impl MemoryPlan {
    /// Plans a step of a network; `adapter` names the GPU whose limits hold.
    ///
    /// # Errors
    /// [`Error::Config`] for a size that the network does not take, [`Error::Adapter`]; else as the ops: what does not
    /// fit the device's limits.
    pub fn new(config: &ModelConfig, step: &PlannedStep, adapter: Option<&str>) -> Result<Self> {
        let PlannedStep { batch, size, train, recompute, images } = *step;
        let multiple = config.multiple();
        if batch == 0 || size == 0 || !size.is_multiple_of(multiple) {
            let message = format!(
                "{} needs a batch above 0 and a size that divides by {multiple}, got {batch} and {size}",
                config.model
            );
            return Err(Error::Config(message));
        }
        let context = Context::plan(adapter)?;
        let device = Device::Gpu(context.clone());
        let net = build(&device, config, 0)?;
        let flat = net.parameters().values.shape();
        let moments = if train { vec![device.empty("moments", flat)?, device.empty("moments", flat)?] } else { vec![] };
        let x = device.empty_as("images", [batch, size, size, config.in_channels], images)?;
        let target = device.empty("masks", [batch, size, size, config.num_classes])?;
        let step_values = device.empty("step", [4])?;
        let scale = (images == DType::F16).then(|| device.empty("step", [3])).transpose()?;
        let before = context.take_plan();

        let mut parts: Vec<Part> = Vec::new();
        let mode = if train { Mode::Train } else { Mode::Eval };
        let tape = if recompute { Tape::recomputing() } else { Tape::new() };
        let images = if train { tape.watch(&x) } else { x.detach() };
        let logits = net.forward_stages(&images, mode, &mut |name, _| {
            parts.push(("forward", name.to_owned(), context.take_plan()));
            Ok(())
        })?;
        parts.push(("forward", "logits".to_owned(), context.take_plan()));
        if let [m, v] = moments.as_slice() {
            let loss = bce_dice(&logits, &target, &BceDice::batch())?;
            drop(logits);
            parts.push(("forward", "loss".to_owned(), context.take_plan()));
            let gradients = tape.backward(&loss)?;
            parts.push(("backward", String::new(), context.take_plan()));
            let parameters = net.parameters();
            parameters.check(&gradients)?;
            if let Some(scale) = &scale {
                unscale(unscale::INTERVAL, &parameters.gradients, &step_values, scale)?;
            }
            adam(&Adam::default(), &parameters.gradients, &step_values, &parameters.values, m, v)?;
            parts.push(("update", String::new(), context.take_plan()));
        }
        let kernels = kernels(parts.iter().flat_map(|(_, _, events)| events));
        let mut plan = Self {
            model: config.model.name(),
            batch,
            size,
            train,
            device: device.to_string(),
            launches: kernels.iter().map(|kernel| kernel.launches).sum(),
            traffic_bytes: kernels.iter().map(|kernel| kernel.bytes).sum(),
            before_bytes: 0,
            peak_bytes: 0,
            peak_point: 0,
            points: Vec::new(),
            at_peak: Vec::new(),
            kernels,
        };
        plan.follow(&before, &parts);
        Ok(plan)
    }

    /// Walks through the events, and once more up to the peak to see what is there.
    fn follow(&mut self, before: &[PlanEvent], parts: &[Part]) {
        let mut ledger = Ledger::default();
        before.iter().for_each(|event| ledger.take(event, None));
        self.before_bytes = ledger.live_bytes;
        (self.peak_bytes, self.at_peak) = (ledger.live_bytes, ledger.buffers());
        let mut stages = Vec::new(); // of the forward ops, for the gradients
        let mut during = ledger.live_bytes;
        for (pass, stage, events) in parts {
            for event in events {
                let point = self.points.len();
                ledger.take(event, Some(point));
                during = during.max(ledger.live_bytes);
                if ledger.live_bytes > self.peak_bytes {
                    (self.peak_bytes, self.peak_point, self.at_peak) = (ledger.live_bytes, point, ledger.buffers());
                }
                if let PlanEvent::Finished { op, backward, result } = event {
                    let stage = match (*pass, backward) {
                        ("forward", _) => {
                            stages.push(stage.clone());
                            stage.clone()
                        }
                        (_, true) => stages.pop().unwrap_or_default(),
                        _ => String::new(),
                    };
                    let shape = result.map(|shape| shape.dims().to_vec()).unwrap_or_default();
                    let (live_bytes, peak_bytes) = (ledger.live_bytes, during);
                    self.points.push(MemoryPoint { point, pass, stage, op, shape, live_bytes, peak_bytes });
                    during = ledger.live_bytes;
                }
            }
        }
        // Each buffer at the peak is told apart from later ones with its number by when it was made.
        for buffer in &mut self.at_peak {
            buffer.freed_at = ledger.freed.get(&(buffer.number, buffer.made_at)).copied();
        }
        self.at_peak.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.made_at.cmp(&b.made_at)));
    }
}

/// Adds up the launches by kernel.
fn kernels<'a>(events: impl Iterator<Item = &'a PlanEvent>) -> Vec<KernelTraffic> {
    let mut kernels: Vec<KernelTraffic> = Vec::new();
    for event in events {
        let PlanEvent::Launched(PlannedLaunch { shader, entry, bytes, .. }) = event else { continue };
        match kernels.iter_mut().find(|kernel| (kernel.shader, kernel.entry) == (shader, entry)) {
            Some(kernel) => (kernel.launches, kernel.bytes) = (kernel.launches + 1, kernel.bytes + bytes),
            None => kernels.push(KernelTraffic { shader, entry, launches: 1, bytes: *bytes }),
        }
    }
    kernels.sort_by_key(|kernel| std::cmp::Reverse(kernel.bytes));
    kernels
}

/// What is in use.
#[derive(Default)]
struct Ledger {
    live: HashMap<u64, LiveBuffer>,
    live_bytes: u64,
    /// (number, made at) -> freed at.
    freed: HashMap<(u64, Option<usize>), usize>,
}

impl Ledger {
    fn take(&mut self, event: &PlanEvent, point: Option<usize>) {
        match event {
            PlanEvent::Allocated { buffer, op, bytes } => {
                self.live_bytes += bytes;
                let made = LiveBuffer { bytes: *bytes, op, made_at: point, freed_at: None, number: *buffer };
                self.live.insert(*buffer, made);
            }
            PlanEvent::Freed { buffer } => {
                if let Some(found) = self.live.remove(buffer) {
                    self.live_bytes -= found.bytes;
                    if let Some(point) = point {
                        self.freed.insert((*buffer, found.made_at), point);
                    }
                }
            }
            PlanEvent::Launched(_) | PlanEvent::Finished { .. } | PlanEvent::Asked { .. } => {}
        }
    }

    fn buffers(&self) -> Vec<LiveBuffer> {
        self.live.values().cloned().collect()
    }
}
