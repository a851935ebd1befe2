//! The training loop's parts: one step, one epoch, one evaluation.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::checkpoint::Progress;
use super::optimizer::Optimizer;
use super::{Monitor, Precision, TrainConfig};
use crate::data::{Dataset, Split};
use crate::eval::metrics::batch_scores;
use crate::eval::{JudgeOptions, Metrics, SliceCounts};
use crate::models::{self, ModelConfig, Network, Summary};
use crate::ops::{Mode, Sample, SliceBytes, Slices, bce_dice, load_batch, metric_counts};
use crate::tensor::{DType, Device, Pending, Tensor};
use crate::{Error, Result, Tape};

/// A line of `log.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochLog {
    /// From 0.
    pub epoch: usize,
    /// Mean over the epoch's slices, before each update.
    pub train_loss: f64,
    /// Mean over the validation slices.
    pub val_loss: f64,
    /// UNeXt's batch IoU.
    pub val_iou: f64,
    /// Mean volume Dice of the validation patients.
    pub val_dice: f64,
    /// UNeXt's Dice, pooled by batch: 2 IoU / (1 + IoU) of each batch.
    pub val_dice_batch: f64,
    /// UNeXt's batch IoU while training, where `train_iou` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_iou: Option<f64>,
    /// Whether these weights are the best so far.
    pub best: bool,
    /// Learning rate at the end of the epoch.
    pub lr: f64,
    /// Of training and validation.
    pub seconds: f64,
    /// While training.
    pub images_per_second: f64,
    /// On a GPU: share of the training time that the host, ahead by some steps, waited for the device. Near 1 the device is
    /// always busy and sets the pace; near 0 the host does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_share: Option<f64>,
    /// Pixels predicted as tumour in validation: 0 means that the network predicts nothing.
    pub predicted_pixels: u64,
    /// With mixed precision: what the loss is multiplied by at the end of the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// With mixed precision: steps of the epoch that were skipped because a gradient was infinite or NaN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_steps: Option<u64>,
    /// Whether 16-bit floats were too small for the run, so that it goes on in f32.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fell_back: bool,
}

/// Loss and metrics of some slices, and the predicted masks.
#[derive(Debug)]
pub struct Evaluation {
    /// Mean loss over the slices.
    pub loss: f64,
    /// The metrics.
    pub metrics: Metrics,
    /// Per slice, in the given order: logits > 0, where asked for.
    pub masks: Vec<Vec<u8>>,
}

/// A network in training: its weights, the optimizer's moments and the slices on the device.
#[derive(Debug)]
pub struct Trainer {
    /// The settings.
    pub config: TrainConfig,
    /// The network.
    pub net: Box<dyn Network>,
    /// Where the run stands.
    pub progress: Progress,
    pub(super) optimizer: Optimizer,
    pub(super) slices: Slices,
    /// (patient, slice) -> position on the device.
    places: HashMap<(usize, usize), usize>,
    /// Pixels of tumour of the slice at each place.
    areas: Vec<u32>,
    batch: Batch,
    /// (step, loss) of this epoch's steps that nobody has taken yet.
    losses: Vec<(u64, f64)>,
    /// How long this epoch's training has waited for the device.
    waited: Duration,
    device: Device,
}

/// The tensors that every batch is loaded into.
#[derive(Debug)]
struct Batch {
    table: Tensor,
    x: Tensor,
    target: Tensor,
}

/// What a training batch reports, on its way from the device.
#[derive(Debug)]
struct Measured {
    step: u64,
    loss: Pending,
    /// Per slice, where the settings ask for it.
    counts: Option<Tensor>,
    slices: usize,
    /// Whether it was computed with mixed precision.
    half: bool,
}

/// Losses on their way from the device: few enough to bound memory, enough not to wait.
const IN_FLIGHT: usize = 2;

impl Trainer {
    /// Builds the network and puts the slices on the device, once.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::OutOfMemory`], or sizes that the network does not take.
    pub fn new(device: &Device, dataset: &Dataset, config: &TrainConfig) -> Result<Self> {
        config.check()?;
        fits(dataset, &config.network())?;
        has_room(device, dataset, config)?;
        let net = models::build(device, &config.network(), config.seed)?;
        let (h, w) = (dataset.height, dataset.width);
        let places = dataset.indices().enumerate().map(|(place, index)| (index, place)).collect();
        let slices = upload(device, dataset, config)?;
        let areas = dataset.patients.iter().flat_map(|patient| &patient.slices);
        // Without 16-bit floats mixed precision is f32.
        let precision = if device.has_f16() { config.precision } else { Precision::F32 };
        let batch = Batch {
            table: slices.table(config.batch)?,
            x: device.empty_as("batch", [config.batch, h, w, dataset.channels], precision.dtype())?,
            target: device.empty("batch", [config.batch, h, w, 1])?,
        };
        Ok(Self {
            optimizer: Optimizer::new(device, net.parameters(), config, precision == Precision::F16)?,
            slices,
            places,
            areas: areas.map(|slice| slice.mask.iter().map(|inside| u32::from(*inside)).sum()).collect(),
            batch,
            losses: Vec::new(),
            waited: Duration::ZERO,
            net,
            progress: Progress::default(),
            config: config.clone(),
            device: device.clone(),
        })
    }

    /// Where everything is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What activations are made of: what the settings ask for, if the device has it and the run did not outgrow it.
    pub fn precision(&self) -> Precision {
        if self.batch.x.dtype() == DType::F16 { Precision::F16 } else { Precision::F32 }
    }

    /// Gives up mixed precision: from here on everything is f32.
    pub(super) fn fall_back(&mut self) -> Result<()> {
        self.batch.x = self.device.empty("batch", self.batch.x.shape())?;
        self.optimizer.stop_scaling();
        self.progress.fell_back = true;
        Ok(())
    }

    /// The losses that have arrived since the last call, each with the number of its step (from 1). What is not taken
    /// by the start of the next epoch is forgotten.
    pub fn take_losses(&mut self) -> Vec<(u64, f64)> {
        std::mem::take(&mut self.losses)
    }

    /// The sample that shows a slice as it is.
    pub fn sample(&self, index: (usize, usize)) -> Sample {
        Sample::plain(self.places.get(&index).copied().unwrap_or(usize::MAX), index.0)
    }

    /// One update from these samples with this learning rate; returns the loss before it (of the first batch, if the
    /// samples are several), on its way home.
    ///
    /// # Errors
    /// As the ops; [`Error::Config`] if there are no samples.
    pub fn step(&mut self, samples: &[Sample], rate: f64) -> Result<Pending> {
        let first = self.update(samples, rate)?.into_iter().next();
        first.map(|batch| batch.loss).ok_or_else(|| Error::Config("a step needs samples".to_owned()))
    }

    /// One update from the mean gradient of these samples, taken in batches of `config.batch`.
    fn update(&mut self, samples: &[Sample], rate: f64) -> Result<Vec<Measured>> {
        let _span = self.device.switches().span("phase", "step");
        self.progress.step += 1;
        let mut losses = Vec::new();
        self.optimizer.prepare(rate, self.progress.step, samples.len().div_ceil(self.config.batch))?;
        for batch in samples.chunks(self.config.batch) {
            let phase = |name| self.device.switches().span("phase", name);
            let span = phase("load");
            let (x, target) = self.load(batch)?;
            drop(span);
            let span = phase("forward");
            let tape = if self.config.recompute { Tape::recomputing() } else { Tape::new() };
            let logits = self.net.forward(&tape.watch(&x), Mode::Train)?;
            let loss = bce_dice(&logits, &target, &self.config.loss())?;
            let counts = self.config.train_iou.then(|| metric_counts(&logits, &target)).transpose()?;
            drop((logits, span));
            if self.progress.step == 1 {
                self.device.switches().say(5, || tape.to_string());
            }
            let span = phase("backward");
            let gradients = match self.optimizer.seed() {
                Some(scale) => tape.backward_from(&loss, &scale)?,
                None => tape.backward(&loss)?,
            };
            drop(span);
            let parameters = self.net.parameters();
            parameters.check(&gradients)?;
            self.optimizer.collect(parameters, losses.is_empty())?;
            losses.push((loss.detach(), counts, batch.len()));
        }
        let _span = self.device.switches().span("phase", "optimizer");
        self.optimizer.step(self.net.parameters(), self.progress.step)?;
        // Last: to read is to submit what is recorded, and a step of one batch is one submission.
        let (step, half) = (self.progress.step, self.precision() == Precision::F16);
        let measure = |(loss, counts, slices): (Tensor, _, _)| {
            Ok(Measured { step, loss: loss.read_later()?, counts, slices, half })
        };
        losses.into_iter().map(measure).collect()
    }

    /// The images and masks of samples, on the device.
    pub(super) fn load(&self, samples: &[Sample]) -> Result<(Tensor, Tensor)> {
        let range = 0..samples.len();
        let Batch { table, x, target } = &self.batch;
        let (table, x, target) = (table.images(&range), x.images(&range), target.images(&range));
        load_batch(&self.slices, samples, &table, &x, &target)?;
        Ok((x, target))
    }

    /// The samples of an epoch in their seeded order, augmented as the settings say.
    pub fn epoch_samples(&self, epoch: usize, train: &[(usize, usize)]) -> Vec<Sample> {
        let TrainConfig { seed, oversample, augment, .. } = &self.config;
        let samples: Vec<Sample> = train.iter().map(|index| self.sample(*index)).collect();
        let areas: Vec<u32> = samples.iter().map(|sample| self.areas.get(sample.slice).copied().unwrap_or(0)).collect();
        let mut times = vec![0; train.len()];
        let order = oversample.order(*seed, epoch, train, &areas);
        let augmented = order.into_iter().map(|at| {
            let mut sample = samples[at];
            // A slice that comes again is another draw.
            augment.apply(&mut sample, self.slices.size(), *seed, epoch, at + times[at] * train.len());
            times[at] += 1;
            sample
        });
        augmented.collect()
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self, train: usize) -> usize {
        let batch = self.config.batch * self.config.accumulate;
        if self.config.drop_last && train >= batch { train / batch } else { train.div_ceil(batch) }
    }

    /// Trains the rest of the epoch at which the run stands and validates. `watch` is called after each step with
    /// (step of the epoch, steps, latest known loss) and says whether to go on.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when the loss is no number, [`Error::Interrupted`] when `watch` said stop; else as the ops.
    pub fn epoch(
        &mut self,
        split: &Split,
        dataset: &Dataset,
        watch: &mut dyn FnMut(usize, usize, f64) -> bool,
    ) -> Result<EpochLog> {
        let begin = Instant::now();
        let epoch = self.progress.epoch;
        self.losses.clear();
        self.waited = Duration::ZERO;
        let samples = self.epoch_samples(epoch, &split.train);
        let steps = self.steps_per_epoch(samples.len());
        let mut pending: VecDeque<Measured> = VecDeque::new();
        let mut rate = self.config.rate(&self.progress.plateau, epoch, 0, steps);
        let first = self.progress.step_of_epoch;
        let mut seen = 0;
        let per_step = self.config.batch * self.config.accumulate;
        for (step, samples) in samples.chunks(per_step).take(steps).enumerate().skip(first) {
            if self.config.steps > 0 && self.progress.step >= self.config.steps as u64 {
                break;
            }
            rate = self.config.rate(&self.progress.plateau, epoch, step, steps);
            pending.extend(self.update(samples, rate)?);
            seen += samples.len();
            self.progress.step_of_epoch = step + 1;
            let latest = self.settle(&mut pending, IN_FLIGHT)?;
            if !watch(step + 1, steps, latest) {
                self.settle(&mut pending, 0)?;
                return Err(Error::Interrupted);
            }
        }
        self.settle(&mut pending, 0)?;
        let training = begin.elapsed().as_secs_f64();
        let on_gpu = matches!(self.device, Device::Gpu(_));
        let device_share = on_gpu.then(|| (self.waited.as_secs_f64() / training.max(1e-9)).min(1.0));
        let train_loss = self.progress.mean_loss();
        let train_iou = self.config.train_iou.then(|| self.progress.mean_iou());
        self.swap_average()?;
        let evaluation = self.evaluate_epoch(dataset, &split.val);
        self.swap_average()?;
        let evaluation = evaluation?;
        let (value, better) = self.better(&evaluation);
        if better {
            self.progress.best = Some(value);
            self.progress.since_best = 0;
        } else {
            self.progress.since_best += 1;
        }
        self.progress.plateau.step(&self.config, evaluation.loss);
        let scale = self.loss_scale()?;
        self.progress = self.progress.next_epoch();
        Ok(EpochLog {
            epoch,
            train_loss,
            train_iou,
            best: better,
            val_dice_batch: evaluation.metrics.dice_batch,
            val_loss: evaluation.loss,
            val_iou: evaluation.metrics.iou_batch,
            val_dice: evaluation.metrics.dice_volume_mean,
            lr: rate,
            seconds: begin.elapsed().as_secs_f64(),
            images_per_second: seen as f64 / training,
            device_share,
            predicted_pixels: evaluation.metrics.predicted_pixels,
            loss_scale: scale.map(|(scale, _)| scale),
            skipped_steps: scale.map(|(_, skipped)| skipped),
            fell_back: self.progress.fell_back,
        })
    }

    /// The loss scale and the steps skipped since the last call. A scale below 1 would only make gradients smaller: if they
    /// are infinite even so, the run needs f32.
    fn loss_scale(&mut self) -> Result<Option<(f64, u64)>> {
        let Some((scale, skipped)) = self.optimizer.scale_and_skipped()? else { return Ok(None) };
        let new = skipped - self.progress.skipped;
        self.progress.skipped = skipped;
        if scale < 1.0 {
            self.fall_back()?;
        }
        Ok(Some((scale, new)))
    }

    /// Swaps the weights with their average, if the settings keep one: for evaluation and saving. Twice is as before.
    ///
    /// # Errors
    /// As [`Tensor::copy_from`].
    pub fn swap_average(&self) -> Result<()> {
        self.optimizer.swap_average(self.net.parameters())
    }

    /// Whether the settings end the run here: all epochs or steps are done, or nothing became better for too long.
    pub fn is_done(&self) -> bool {
        let TrainConfig { epochs, steps, patience, .. } = self.config;
        let Progress { epoch, step, since_best, .. } = self.progress;
        epoch >= epochs || (steps > 0 && step >= steps as u64) || (patience > 0 && since_best >= patience)
    }

    /// The monitored figure, and whether it is the best so far (strictly, as UNeXt's script has it).
    fn better(&self, evaluation: &Evaluation) -> (f64, bool) {
        let Metrics { dice_volume_mean, iou_batch, .. } = evaluation.metrics;
        let (value, sign) = match self.config.monitor {
            Monitor::ValDice => (dice_volume_mean, 1.0),
            Monitor::ValIou => (iou_batch, 1.0),
            Monitor::ValLoss => (evaluation.loss, -1.0),
        };
        (value, self.progress.best.is_none_or(|best| sign * value > sign * best))
    }

    /// Takes in losses until at most `left` are under way; returns the last one.
    fn settle(&mut self, pending: &mut VecDeque<Measured>, left: usize) -> Result<f64> {
        while pending.len() > left {
            let Some(Measured { step, loss, counts, slices, half }) = pending.pop_front() else { break };
            let begin = Instant::now();
            let loss = f64::from(loss.wait()?.first().copied().unwrap_or(f32::NAN));
            self.waited += begin.elapsed();
            if !loss.is_finite() && half {
                // Its gradients were no numbers either, so it has changed nothing.
                if self.precision() == Precision::F16 {
                    self.fall_back()?;
                }
                continue;
            }
            if !loss.is_finite() {
                return Err(Error::NonFinite(format!(
                    "the loss is {loss} around step {}; lower --lr (now {}) or look for damaged slices with `shadegrad data inspect`",
                    self.progress.step, self.config.lr
                )));
            }
            self.progress.add(loss, slices);
            self.losses.push((step, loss));
            if let Some(counts) = counts {
                let counts = counts.to_vec_u32()?;
                let of = |n: &[u32]| {
                    let [intersection, predicted, target] = [n[0], n[1], n[2]].map(u64::from);
                    SliceCounts { patient: 0, intersection, predicted, target, pixels: 0 }
                };
                let counts: Vec<_> = counts.chunks_exact(3).map(of).collect();
                self.progress.iou_sum += batch_scores(&counts).0 * slices as f64;
            }
        }
        Ok(self.progress.last_loss)
    }

    /// The evaluation after an epoch: on the device, or of the largest components if the settings want that.
    fn evaluate_epoch(&self, dataset: &Dataset, part: &[(usize, usize)]) -> Result<Evaluation> {
        if !self.config.largest_component {
            return self.evaluate(dataset, part, false);
        }
        let options = JudgeOptions { largest_component: true, ..JudgeOptions::new(self.config.batch) };
        let (judgement, loss) = self.judge(dataset, part, options, false)?;
        Ok(Evaluation { loss, metrics: judgement.metrics, masks: judgement.masks })
    }

    /// Loss and metrics of slices in their given order, in evaluation mode; the predicted masks too if asked for.
    ///
    /// # Errors
    /// As the ops.
    pub fn evaluate(&self, dataset: &Dataset, part: &[(usize, usize)], keep_masks: bool) -> Result<Evaluation> {
        let _span = self.device.switches().span("phase", "evaluate");
        let mut counts = Vec::with_capacity(part.len());
        let mut masks = Vec::new();
        let mut losses = 0.0;
        let pixels = (dataset.height * dataset.width) as u64;
        for batch in part.chunks(self.config.batch) {
            let samples: Vec<Sample> = batch.iter().map(|index| self.sample(*index)).collect();
            let (x, target) = self.load(&samples)?;
            let logits = self.net.forward(&x, Mode::Eval)?;
            let loss = bce_dice(&logits, &target, &self.config.loss())?;
            let numbers = metric_counts(&logits, &target)?.to_vec_u32()?;
            losses += f64::from(loss.to_vec()?[0]) * batch.len() as f64;
            for (index, n) in batch.iter().zip(numbers.chunks_exact(3)) {
                let [intersection, predicted, target] = [n[0], n[1], n[2]].map(u64::from);
                counts.push(SliceCounts { patient: index.0, intersection, predicted, target, pixels });
            }
            if keep_masks {
                let logits = logits.to_vec()?;
                masks.extend(
                    logits
                        .chunks_exact(pixels as usize)
                        .map(|image| image.iter().map(|logit| u8::from(*logit > 0.0)).collect()),
                );
            }
        }
        let name = |patient: usize| dataset.patients[patient].name.as_str();
        let metrics = Metrics::new(&counts, self.config.batch, name);
        Ok(Evaluation { loss: losses / part.len().max(1) as f64, metrics, masks })
    }
}

/// Whether a network takes a data set's slices, and gives the one class that their masks have.
fn fits(dataset: &Dataset, network: &ModelConfig) -> Result<()> {
    let (model, multiple) = (network.model, network.multiple());
    let message = if !dataset.height.is_multiple_of(multiple) || !dataset.width.is_multiple_of(multiple) {
        format!(
            "the slices are {}x{}, but {model} needs sides that divide by {multiple}; give --size, e.g. --size {}",
            dataset.height,
            dataset.width,
            dataset.height.max(dataset.width).next_multiple_of(multiple)
        )
    } else if dataset.channels != network.in_channels {
        format!("the slices have {} channels; set in_channels to it (now {})", dataset.channels, network.in_channels)
    } else if network.num_classes != 1 {
        format!("the masks have one class; set num_classes to 1 (now {})", network.num_classes)
    } else {
        return Ok(());
    };
    Err(Error::data(&dataset.root, message))
}

/// Refuses a batch whose activations alone are more than the machine's free memory: the CPU device would be killed
/// instead of failing. A GPU's allocations fail by themselves.
fn has_room(device: &Device, dataset: &Dataset, config: &TrainConfig) -> Result<()> {
    if !matches!(device, Device::Cpu(_)) {
        return Ok(());
    }
    let size = [dataset.height, dataset.width];
    let multiple = config.network().multiple();
    let tiles = (size[0] / multiple * (size[1] / multiple)) as u64;
    // At least half of the outputs are alive when the backward pass begins.
    let image = Summary::new(&config.network(), multiple)?.activation_bytes * tiles / 2;
    let needed = image.saturating_mul(config.batch as u64);
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let free = system.available_memory();
    if free == 0 || needed <= free {
        return Ok(());
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    Err(Error::Config(format!(
        "a batch of {} slices {}x{} needs at least {:.1} GiB, but {:.1} GiB are free; lower --batch to {} or less \
         (with --set accumulate=N for the same update)",
        config.batch,
        size[0],
        size[1],
        gib(needed),
        gib(free),
        (free / image.max(1)).max(1)
    )))
}

/// All slices as bytes, with their patients' normalisation.
fn upload(device: &Device, dataset: &Dataset, config: &TrainConfig) -> Result<Slices> {
    let slices = dataset.patients.iter().flat_map(|patient| &patient.slices);
    let slices: Vec<_> = slices.map(|slice| SliceBytes { image: &slice.image, mask: &slice.mask }).collect();
    let mut rescale = Vec::new();
    for patient in &dataset.patients {
        let rows = config.normalize.rescale(patient, dataset.channels);
        rescale.extend(rows.iter().map(|row| [row.low, row.high, row.scale, row.shift]));
    }
    let order = config.normalize.channel_order();
    Slices::upload_each(device, [dataset.height, dataset.width], &slices, &rescale, order)
}
