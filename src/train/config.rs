//! Everything that a run depends on: `config.toml` in its folder is enough to repeat it.

use serde::{Deserialize, Serialize};

use super::Oversample;
use crate::data::{AugmentConfig, Normalization, augment};
use crate::models::{Down, Model, ModelConfig, Preset, Up};
use crate::ops::{Adam, BceDice};
use crate::{Error, Result};

/// The settings of a run. Defaults are the recipe for the LGG set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Which network.
    pub model: Model,
    /// As [`ModelConfig::in_channels`].
    pub in_channels: usize,
    /// As [`ModelConfig::num_classes`].
    pub num_classes: usize,
    /// As [`ModelConfig::widths`].
    pub widths: [usize; 5],
    /// As [`ModelConfig::base`].
    pub base: usize,
    /// As [`ModelConfig::conv_bias`].
    pub conv_bias: bool,
    /// As [`ModelConfig::preset`].
    pub preset: Preset,
    /// As [`ModelConfig::down`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<Down>,
    /// As [`ModelConfig::up`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<Up>,
    /// As [`ModelConfig::shortcut_norm`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortcut_norm: Option<bool>,
    /// Passes over the training slices.
    pub epochs: usize,
    /// Stop after this many steps; 0: no limit.
    pub steps: usize,
    /// Slices of a step.
    pub batch: usize,
    /// Highest learning rate.
    pub lr: f64,
    /// Learning rate that the cosine falls to.
    pub min_lr: f64,
    /// Epochs during which the rate rises linearly.
    pub warmup_epochs: usize,
    /// Weight decay added to the gradient, as Adam in PyTorch does.
    pub weight_decay: f64,
    /// Dice over the whole batch (`batch`, smooth 1) or per slice (`sample`, smooth 1e-5, as UNeXt's code).
    pub dice: DicePooling,
    /// How bytes become numbers.
    pub normalize: Normalization,
    /// How often slices with tumour are shown: a share of each batch, or `"area"`; 0: as they come.
    pub oversample: Oversample,
    /// Leave out the last, smaller batch of an epoch.
    pub drop_last: bool,
    /// Seed of the start, the order and the augmentation.
    pub seed: u64,
    /// Share of the patients that validate, where they are not named.
    pub val_fraction: f64,
    /// What happens to each training sample: a table, or `none`, `basic`, `strong`, `unext`.
    // A table comes last, as TOML wants it.
    #[serde(deserialize_with = "augment::read")]
    pub augment: AugmentConfig,
}

/// Over what the Dice term is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DicePooling {
    /// The whole batch, smooth 1.
    Batch,
    /// Each slice, smooth 1e-5.
    Sample,
}

impl Default for TrainConfig {
    fn default() -> Self {
        let ModelConfig { model, in_channels, num_classes, widths, base, conv_bias, preset, down, up, shortcut_norm } =
            ModelConfig::default();
        Self {
            model,
            in_channels,
            num_classes,
            widths,
            base,
            conv_bias,
            preset,
            down,
            up,
            shortcut_norm,
            epochs: 20,
            steps: 0,
            batch: 8,
            lr: 1e-3,
            min_lr: 1e-5,
            warmup_epochs: 1,
            weight_decay: 1e-4,
            dice: DicePooling::Batch,
            normalize: Normalization::PerVolume,
            oversample: Oversample::default(),
            drop_last: true,
            seed: 0,
            val_fraction: 0.2,
            augment: AugmentConfig::default(),
        }
    }
}

impl TrainConfig {
    /// The settings that make the network: those with the same names. They are fields here, not a table of their own,
    /// so that a file stays flat and a wrong key is reported with its line.
    pub fn network(&self) -> ModelConfig {
        let Self { model, in_channels, num_classes, widths, base, conv_bias, preset, .. } = *self;
        let Self { down, up, shortcut_norm, .. } = *self;
        ModelConfig { model, in_channels, num_classes, widths, base, conv_bias, preset, down, up, shortcut_norm }
    }

    /// Takes over the settings that make the network.
    pub fn set_network(&mut self, network: &ModelConfig) {
        let ModelConfig { model, in_channels, num_classes, widths, base, conv_bias, preset, down, up, shortcut_norm } =
            *network;
        *self = Self {
            model,
            in_channels,
            num_classes,
            widths,
            base,
            conv_bias,
            preset,
            down,
            up,
            shortcut_norm,
            ..self.clone()
        };
    }

    /// The loss.
    pub fn loss(&self) -> BceDice {
        match self.dice {
            DicePooling::Batch => BceDice::batch(),
            DicePooling::Sample => BceDice::sample(),
        }
    }

    /// The optimizer.
    pub fn adam(&self) -> Adam {
        Adam { weight_decay: self.weight_decay, ..Adam::default() }
    }

    /// The learning rate of a step: linear warm-up, then a cosine over the epochs (PyTorch's `CosineAnnealingLR`).
    pub fn rate(&self, epoch: usize, step: usize, steps_per_epoch: usize) -> f64 {
        let turn = std::f64::consts::PI * epoch as f64 / self.epochs.max(1) as f64;
        let cosine = self.min_lr + (self.lr - self.min_lr) * (1.0 + turn.cos()) / 2.0;
        if epoch >= self.warmup_epochs {
            return cosine;
        }
        let done = epoch * steps_per_epoch + step + 1;
        cosine * done as f64 / (self.warmup_epochs * steps_per_epoch) as f64
    }

    /// Refuses settings that cannot train.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting.
    pub fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::Config(text));
        self.network().check()?;
        self.augment.check()?;
        self.oversample.check()?;
        if self.batch == 0 || self.epochs == 0 {
            return refuse("batch and epochs must be at least 1".to_owned());
        }
        if !(self.lr > 0.0 && self.lr.is_finite() && self.min_lr >= 0.0 && self.min_lr <= self.lr) {
            return refuse(format!(
                "needs 0 <= min_lr <= lr and lr > 0, got lr {} and min_lr {}",
                self.lr, self.min_lr
            ));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return refuse(format!("weight_decay must not be negative, got {}", self.weight_decay));
        }
        Ok(())
    }
}
