//! The optimizer of a run: its moments, what it does with the gradients, and the average of the weights.

use serde::{Deserialize, Serialize};

use super::TrainConfig;
use crate::Result;
use crate::nn::Parameters;
use crate::ops::{Adam, Sgd, adam, add_assign, clip_norm, ema, sgd, unscale};
use crate::tensor::{Device, Tensor};

/// Which optimizer (`optimizer` in `config.toml`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam; weight decay is added to the gradient.
    Adam,
    /// Adam with decoupled weight decay.
    AdamW,
    /// Gradient descent with `momentum`, `nesterov`.
    Sgd,
}

/// Moments and settings.
#[derive(Debug)]
pub(super) struct Optimizer {
    kind: OptimizerKind,
    adam: Adam,
    sgd: Sgd,
    clip: f64,
    average_decay: f64,
    step_values: Tensor,
    /// Two moments of Adam, one buffer of SGD.
    moments: Vec<Tensor>,
    /// Gradients of the batches of a step that is made of several.
    collected: Option<Tensor>,
    /// The average of the weights.
    average: Option<Tensor>,
    /// With mixed precision: what the loss is multiplied by, steps since that changed, skipped steps.
    loss_scale: Option<Tensor>,
}

impl Optimizer {
    /// `scaled`: the loss is scaled, as mixed precision needs it.
    pub(super) fn new(device: &Device, parameters: &Parameters, config: &TrainConfig, scaled: bool) -> Result<Self> {
        const OP: &str = "optimizer";
        let shape = parameters.values.shape();
        let moments = if config.optimizer == OptimizerKind::Sgd { 1 } else { 2 };
        let mut average = None;
        if config.ema > 0.0 {
            let copy = device.empty(OP, shape)?;
            copy.copy_from(&parameters.values)?;
            average = Some(copy);
        }
        let decoupled = config.optimizer == OptimizerKind::AdamW;
        Ok(Self {
            kind: config.optimizer,
            adam: Adam { weight_decay: config.weight_decay, decoupled, ..Adam::default() },
            sgd: Sgd { momentum: config.momentum, nesterov: config.nesterov, weight_decay: config.weight_decay },
            clip: config.clip_norm,
            average_decay: config.ema,
            step_values: device.zeros(OP, [4])?,
            moments: (0..moments).map(|_| device.zeros(OP, shape)).collect::<Result<_>>()?,
            collected: (config.accumulate > 1).then(|| device.zeros(OP, shape)).transpose()?,
            average,
            loss_scale: scaled.then(|| device.tensor(OP, [3], &unscale::START)).transpose()?,
        })
    }

    /// The gradient of the loss with which a backward pass begins, `[1]`: the loss scale; `None`: 1.
    pub(super) fn seed(&self) -> Option<Tensor> {
        self.loss_scale.as_ref().map(|scale| scale.view(0, [1].into()))
    }

    /// The loss scale, and how many steps have been skipped because of it. Waits for the device.
    pub(super) fn scale_and_skipped(&self) -> Result<Option<(f64, u64)>> {
        let Some(scale) = &self.loss_scale else { return Ok(None) };
        let values = scale.to_vec()?;
        Ok(Some((values[0].into(), values[2] as u64)))
    }

    /// From here on the loss is not scaled.
    pub(super) fn stop_scaling(&mut self) {
        self.loss_scale = None;
    }

    /// Keeps the gradients of one batch of several; the first one starts anew.
    pub(super) fn collect(&self, parameters: &Parameters, first: bool) -> Result<()> {
        match &self.collected {
            Some(collected) if first => collected.copy_from(&parameters.gradients),
            Some(collected) => add_assign(collected, &parameters.gradients),
            None => Ok(()),
        }
    }

    /// Prepares update number `t` (from 1) with the mean of the gradients of `batches` batches. To be called before anything
    /// of the step is recorded: what the host writes has to wait for nothing then.
    pub(super) fn prepare(&self, rate: f64, t: u64, batches: usize) -> Result<()> {
        let mut values = match self.kind {
            OptimizerKind::Adam | OptimizerKind::AdamW => self.adam.step_values(rate, t),
            OptimizerKind::Sgd => self.sgd.step_values(rate),
        };
        values[3] = 1.0 / batches as f32;
        self.step_values.write(&values)
    }

    /// The update that was prepared.
    pub(super) fn step(&self, parameters: &Parameters, t: u64) -> Result<()> {
        let gradients = self.collected.as_ref().unwrap_or(&parameters.gradients);
        if let Some(scale) = &self.loss_scale {
            unscale(unscale::INTERVAL, gradients, &self.step_values, scale)?;
        }
        if self.clip > 0.0 {
            clip_norm(self.clip, gradients, &self.step_values)?;
        }
        match (self.kind, self.moments.as_slice()) {
            (OptimizerKind::Sgd, [buffer]) => {
                sgd(&self.sgd, gradients, &self.step_values, &parameters.values, buffer)?;
            }
            (_, [m, v]) => adam(&self.adam, gradients, &self.step_values, &parameters.values, m, v)?,
            _ => {}
        }
        match &self.average {
            // The average of the first steps would be the random start: it follows faster then.
            Some(average) => {
                let decay = self.average_decay.min((1.0 + t as f64) / (10.0 + t as f64));
                ema(decay, &parameters.values, average)
            }
            None => Ok(()),
        }
    }

    /// Swaps the weights and their average, for evaluation and saving; twice is as before.
    pub(super) fn swap_average(&self, parameters: &Parameters) -> Result<()> {
        let Some(average) = &self.average else { return Ok(()) };
        let device = average.device();
        let weights = device.empty("optimizer", average.shape())?;
        weights.copy_from(&parameters.values)?;
        parameters.values.copy_from(average)?;
        average.copy_from(&weights)
    }

    /// What a resumed run needs, by name.
    pub(super) fn state(&self) -> Vec<(&'static str, &Tensor)> {
        let names = ["moment1", "moment2"];
        let moments = names.into_iter().zip(&self.moments);
        let average = self.average.iter().map(|average| ("average", average));
        moments.chain(average).chain(self.loss_scale.iter().map(|scale| ("loss_scale", scale))).collect()
    }
}
