//! Everything that a run depends on: `config.toml` in its folder is enough to repeat it.

use serde::{Deserialize, Serialize};

use super::{OptimizerKind, Oversample, Schedule};
use crate::data::{AugmentConfig, Normalization, augment};
use crate::models::{Down, Model, ModelConfig, Preset, Up};
use crate::ops::BceDice;
use crate::tensor::DType;
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
    /// Needs less memory and more time: normalised activations are computed again for the gradient instead of kept.
    pub recompute: bool,
    /// `f32`, or `f16` for mixed precision: activations and their gradients are 16-bit floats in memory. Arithmetic, weights,
    /// statistics, loss and optimizer stay f32; on a device without 16-bit floats everything does.
    pub precision: Precision,
    /// Batches whose gradients are averaged for one update.
    pub accumulate: usize,
    /// `adam`, `adamw` or `sgd`.
    pub optimizer: OptimizerKind,
    /// SGD's momentum.
    pub momentum: f64,
    /// SGD: Nesterov's momentum.
    pub nesterov: bool,
    /// Weight decay: added to the gradient (Adam, SGD), or taken from the weights (AdamW).
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm over all parameters; 0: never.
    pub clip_norm: f64,
    /// Decay of the average of the weights that is evaluated and saved, e.g. 0.99; 0: the weights themselves.
    pub ema: f64,
    /// Highest learning rate.
    pub lr: f64,
    /// Learning rate that the cosine falls to, and the lowest of the plateau schedule.
    pub min_lr: f64,
    /// Epochs during which the rate rises linearly.
    pub warmup_epochs: usize,
    /// `cosine`, `plateau`, `multi_step` or `constant`.
    pub schedule: Schedule,
    /// What the plateau and multi-step schedules multiply the rate by.
    pub lr_factor: f64,
    /// Plateau: epochs without a better validation loss that are let pass.
    pub lr_patience: usize,
    /// Multi-step: the epochs, from 0, from which on the rate is lower.
    pub milestones: Vec<usize>,
    /// `bce_dice`, `bce`, `dice`, `focal` or `tversky`.
    pub loss: Loss,
    /// Dice over the whole batch (`batch`, smooth 1) or per slice (`sample`, smooth 1e-5, as UNeXt's code).
    pub dice: DicePooling,
    /// Focal: the exponent.
    pub focal_gamma: f64,
    /// Focal: weight of tumour pixels, 1 - this of the others; negative: all alike.
    pub focal_alpha: f64,
    /// Tversky: weight of false positives; Dice has 0.5.
    pub tversky_alpha: f64,
    /// Tversky: weight of false negatives; Dice has 0.5.
    pub tversky_beta: f64,
    /// By what the best weights are chosen: `val_dice` (mean volume Dice), `val_iou` (UNeXt's batch IoU) or `val_loss`.
    pub monitor: Monitor,
    /// Volumes are judged, in training and by `eval` and `predict` afterwards, by the largest connected component of what is
    /// predicted. Needs whole volumes.
    pub largest_component: bool,
    /// Stop after so many epochs without a better one; 0: never.
    pub patience: usize,
    /// Also log UNeXt's batch IoU of the training batches (`train_iou`), in training mode and before each update.
    pub train_iou: bool,
    /// Rows and columns that slices are brought to; 0: they stay as they are.
    pub size: usize,
    /// How bytes become numbers.
    pub normalize: Normalization,
    /// How often slices with tumour are shown: a share of each batch, or `"area"`; 0: as they come.
    pub oversample: Oversample,
    /// Leave out the last, smaller batch of an epoch.
    pub drop_last: bool,
    /// Seed of the start, the order and the augmentation.
    pub seed: u64,
    /// `patient` (never mixes a patient), `slice` (leaks patients between the parts) or the path of a split.csv.
    pub split: String,
    /// Seed of the split; that of the run if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_seed: Option<u64>,
    /// Share of the patients or slices that validate, where they are not named.
    pub val_fraction: f64,
    /// What happens to each training sample: a table, or `none`, `basic`, `strong`, `unext`.
    // A table comes last, as TOML wants it.
    #[serde(deserialize_with = "augment::read")]
    pub augment: AugmentConfig,
}

/// What activations and their gradients are made of in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats (P. Micikevicius et al., "Mixed precision training", arXiv 1710.03740).
    F16,
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            _ => Err("must be f32 or f16".to_owned()),
        }
    }
}

impl Precision {
    /// The type of the numbers.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
        }
    }
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

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// 0.5 cross-entropy + 1 - Dice.
    BceDice,
    /// Cross-entropy.
    Bce,
    /// 1 - Dice.
    Dice,
    /// Cross-entropy that counts sure pixels less (Lin et al., arXiv 1708.02002).
    Focal,
    /// Dice with weights for false positives and negatives (Salehi et al., arXiv 1706.05721).
    Tversky,
}

/// What the best weights are best in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// Mean volume Dice of the validation patients, higher is better.
    ValDice,
    /// UNeXt's IoU, pooled by batch, higher is better. An empty prediction can win it.
    ValIou,
    /// The loss, lower is better.
    ValLoss,
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
            recompute: false,
            precision: Precision::F32,
            accumulate: 1,
            optimizer: OptimizerKind::Adam,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 1e-4,
            clip_norm: 0.0,
            ema: 0.0,
            lr: 1e-3,
            min_lr: 1e-5,
            warmup_epochs: 1,
            schedule: Schedule::Cosine,
            lr_factor: 0.1,
            lr_patience: 2,
            milestones: Vec::new(),
            loss: Loss::BceDice,
            dice: DicePooling::Batch,
            focal_gamma: 2.0,
            focal_alpha: 0.25,
            tversky_alpha: 0.3,
            tversky_beta: 0.7,
            monitor: Monitor::ValDice,
            largest_component: false,
            patience: 0,
            train_iou: false,
            size: 0,
            normalize: Normalization::PerVolume,
            oversample: Oversample::default(),
            drop_last: true,
            seed: 0,
            split: "patient".to_owned(),
            split_seed: None,
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
        let pooled = match self.dice {
            DicePooling::Batch => BceDice::batch(),
            DicePooling::Sample => BceDice::sample(),
        };
        match self.loss {
            Loss::BceDice => pooled,
            Loss::Bce => BceDice::bce(),
            Loss::Dice => BceDice { bce_weight: 0.0, ..pooled },
            Loss::Focal => BceDice::focal(self.focal_gamma as f32, self.focal_alpha as f32),
            Loss::Tversky => {
                let tversky = BceDice::tversky(self.tversky_alpha as f32, self.tversky_beta as f32);
                // Two of Dice's smooth are one of Tversky's, whose fraction has I where Dice has 2I.
                BceDice { smooth: 2.0 * pooled.smooth, pooling: pooled.pooling, ..tversky }
            }
        }
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
        let multiple = self.network().multiple();
        if !self.size.is_multiple_of(multiple) {
            let text = format!("size must divide by {multiple} for {}, got {}", self.model, self.size);
            return refuse(text);
        }
        if self.batch == 0 || self.epochs == 0 || self.accumulate == 0 {
            return refuse("batch, epochs and accumulate must be at least 1".to_owned());
        }
        let shares = [("momentum", self.momentum), ("ema", self.ema), ("focal_alpha", self.focal_alpha.max(0.0))];
        if let Some((name, value)) = shares.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            return refuse(format!("{name} must lie between 0 and 1, got {value}"));
        }
        let amounts = [
            ("clip_norm", self.clip_norm),
            ("focal_gamma", self.focal_gamma),
            ("tversky_alpha", self.tversky_alpha),
            ("tversky_beta", self.tversky_beta),
        ];
        if let Some((name, value)) = amounts.into_iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite())) {
            return refuse(format!("{name} must not be negative, got {value}"));
        }
        if self.nesterov && (self.optimizer != OptimizerKind::Sgd || self.momentum == 0.0) {
            return refuse("nesterov needs optimizer = \"sgd\" and a momentum above 0".to_owned());
        }
        if !(self.lr_factor > 0.0 && self.lr_factor <= 1.0) {
            return refuse(format!("lr_factor must lie between 0 and 1, got {}", self.lr_factor));
        }
        if self.largest_component && self.split == "slice" {
            return refuse("largest_component needs whole volumes: set split = \"patient\"".to_owned());
        }
        if self.schedule == Schedule::MultiStep && self.milestones.is_empty() {
            return refuse("schedule = \"multi_step\" needs milestones, e.g. milestones = [10, 15]".to_owned());
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
