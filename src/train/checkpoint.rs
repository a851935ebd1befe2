//! The state between steps, so that a run can go on as if it had never stopped: optimizer moments and counters.
//!
//! `last.safetensors` holds the weights; `state.safetensors` all of this and the weights again, so that one file,
//! renamed into place, is always consistent in itself.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{Plateau, Trainer};
use crate::models::weights;
use crate::{Error, Result};

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The epoch that comes or is under way.
    pub epoch: usize,
    /// Steps of it that are done.
    pub step_of_epoch: usize,
    /// Updates since the start.
    pub step: u64,
    /// Sum of (loss times slices) of the epoch so far.
    pub loss_sum: f64,
    /// Slices of the epoch so far.
    pub loss_slices: usize,
    /// The last loss that arrived.
    pub last_loss: f64,
    /// What the plateau schedule remembers.
    pub plateau: Plateau,
    /// The best value of the monitored figure so far.
    pub best: Option<f64>,
    /// Epochs since then.
    pub since_best: usize,
    /// Sum of (batch IoU times slices) of the epoch so far, where the settings ask for it.
    pub iou_sum: f64,
    /// Steps that mixed precision has skipped since the start.
    #[serde(default)]
    pub skipped: u64,
    /// Whether mixed precision was given up.
    #[serde(default)]
    pub fell_back: bool,
}

impl Progress {
    pub(super) fn add(&mut self, loss: f64, slices: usize) {
        self.loss_sum += loss * slices as f64;
        self.loss_slices += slices;
        self.last_loss = loss;
    }

    /// The progress at the start of the next epoch.
    pub(super) fn next_epoch(&self) -> Self {
        let Self { epoch, step, plateau, best, since_best, skipped, fell_back, .. } = *self;
        Self { epoch: epoch + 1, step, plateau, best, since_best, skipped, fell_back, ..Self::default() }
    }

    pub(super) fn mean_iou(&self) -> f64 {
        self.iou_sum / self.loss_slices.max(1) as f64
    }

    pub(super) fn mean_loss(&self) -> f64 {
        self.loss_sum / self.loss_slices.max(1) as f64
    }
}

/// Writes everything that the rest of the run depends on.
///
/// # Errors
/// [`Error::Io`]; the previous file stays.
pub fn save_state(trainer: &mut Trainer, path: &Path) -> Result<()> {
    let model = weights::to_bytes(&mut trainer.net, &HashMap::new())?;
    let progress = serde_json::to_string(&trainer.progress).map_err(|error| Error::Config(error.to_string()))?;
    let fail = |error: safetensors::SafeTensorError| Error::weights(path, error.to_string());
    let mut numbers = Vec::new();
    for (name, tensor) in trainer.optimizer.state() {
        let values = tensor.to_vec()?;
        numbers.push((name, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()));
    }
    let mut entries = vec![("model", TensorView::new(Dtype::U8, vec![model.len()], &model).map_err(fail)?)];
    for (name, bytes) in &numbers {
        entries.push((name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(fail)?));
    }
    let about = HashMap::from([("progress".to_owned(), progress)]);
    let bytes = safetensors::tensor::serialize(entries, Some(about)).map_err(fail)?;
    crate::data::write_atomically(path, &bytes)
}

/// Brings a trainer to where [`save_state`] left it.
///
/// # Errors
/// [`Error::Weights`] if the file belongs to another model or optimizer, or is damaged.
pub fn load_state(trainer: &mut Trainer, path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let damaged = |what: &str| Error::weights(path, format!("cannot resume from it: {what}; start a new run"));
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(&error.to_string()))?;
    let text = metadata.metadata().as_ref().and_then(|map| map.get("progress").cloned());
    let text = text.ok_or_else(|| damaged("it holds no progress"))?;
    let progress: Progress = serde_json::from_str(&text).map_err(|error| damaged(&error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&error.to_string()))?;
    if progress.fell_back {
        trainer.fall_back()?;
    }
    for (name, tensor) in trainer.optimizer.state() {
        let missing = |_| damaged(&format!("it has no {name}, so it belongs to other settings"));
        let view = file.tensor(name).map_err(missing)?;
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
        tensor.write(&values).map_err(|_| damaged("it belongs to another model"))?;
    }
    let model = file.tensor("model").map_err(|error| damaged(&error.to_string()))?;
    weights::load_bytes(&mut trainer.net, model.data(), path)?;
    trainer.progress = progress;
    Ok(())
}
