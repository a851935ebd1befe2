//! The learning rate of each epoch, as PyTorch's schedulers compute it when they are stepped once after each epoch.

use serde::{Deserialize, Serialize};

use super::TrainConfig;

/// How the learning rate changes from epoch to epoch (`schedule` in `config.toml`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// `min_lr + (lr - min_lr) * (1 + cos(pi * epoch / epochs)) / 2` (`CosineAnnealingLR`).
    Cosine,
    /// Times `lr_factor` when the validation loss has not improved for more than `lr_patience` epochs
    /// (`ReduceLROnPlateau`, relative threshold 1e-4), never below `min_lr`.
    Plateau,
    /// Times `lr_factor` at each epoch of `milestones` (`MultiStepLR`).
    MultiStep,
    /// Always `lr`.
    Constant,
}

/// What the plateau schedule remembers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Plateau {
    /// The rate now; none before the first epoch.
    pub rate: Option<f64>,
    /// The lowest validation loss so far.
    pub best: Option<f64>,
    /// Epochs since then.
    pub bad: usize,
}

impl Plateau {
    /// Takes in the validation loss of an epoch.
    pub fn step(&mut self, config: &TrainConfig, val_loss: f64) {
        const THRESHOLD: f64 = 1e-4;
        const LEAST_CHANGE: f64 = 1e-8;
        let rate = self.rate.unwrap_or(config.lr);
        if self.best.is_none_or(|best| val_loss < best * (1.0 - THRESHOLD)) {
            self.best = Some(val_loss);
            self.bad = 0;
        } else {
            self.bad += 1;
        }
        let mut next = rate;
        if self.bad > config.lr_patience {
            next = (rate * config.lr_factor).max(config.min_lr);
            if rate - next <= LEAST_CHANGE {
                next = rate;
            }
            self.bad = 0;
        }
        self.rate = Some(next);
    }
}

impl TrainConfig {
    /// The learning rate of a step: the schedule's for its epoch, during the first `warmup_epochs` rising linearly to it.
    pub fn rate(&self, plateau: &Plateau, epoch: usize, step: usize, steps_per_epoch: usize) -> f64 {
        let rate = match self.schedule {
            Schedule::Cosine => {
                let turn = std::f64::consts::PI * epoch as f64 / self.epochs.max(1) as f64;
                self.min_lr + (self.lr - self.min_lr) * (1.0 + turn.cos()) / 2.0
            }
            Schedule::Plateau => plateau.rate.unwrap_or(self.lr),
            Schedule::MultiStep => {
                let passed = self.milestones.iter().filter(|milestone| **milestone <= epoch).count();
                self.lr * self.lr_factor.powi(passed as i32)
            }
            Schedule::Constant => self.lr,
        };
        if epoch >= self.warmup_epochs {
            return rate;
        }
        let done = epoch * steps_per_epoch + step + 1;
        rate * done as f64 / (self.warmup_epochs * steps_per_epoch) as f64
    }
}
