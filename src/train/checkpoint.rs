//! The state between steps, so that a run can go on as if it had never stopped: optimizer moments and counters.
//!
//! `last.safetensors` holds the weights; `state.safetensors` all of this and the weights again, so that one file,
//! renamed into place, is always consistent in itself.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::Trainer;
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
}

impl Progress {
    pub(super) fn add(&mut self, loss: f64, slices: usize) {
        self.loss_sum += loss * slices as f64;
        self.loss_slices += slices;
        self.last_loss = loss;
    }

    pub(super) fn mean_loss(&self) -> f64 {
        self.loss_sum / self.loss_slices.max(1) as f64
    }
}

/// Writes everything that the rest of the run depends on.
///
/// # Errors
/// [`Error::Io`]; the previous file stays.
pub fn save_state(trainer: &mut Trainer, best: f64, path: &Path) -> Result<()> {
    let moments = [trainer.moment1.to_vec()?, trainer.moment2.to_vec()?];
    let model = weights::to_bytes(&mut trainer.net, &HashMap::new())?;
    let progress =
        serde_json::to_string(&(&trainer.progress, best)).map_err(|error| Error::Config(error.to_string()))?;
    let fail = |error: safetensors::SafeTensorError| Error::weights(path, error.to_string());
    let numbers = |values: &Vec<f32>| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let moments = [numbers(&moments[0]), numbers(&moments[1])];
    let shape = vec![moments[0].len() / 4];
    let entries = [
        ("moment1", TensorView::new(Dtype::F32, shape.clone(), &moments[0]).map_err(fail)?),
        ("moment2", TensorView::new(Dtype::F32, shape, &moments[1]).map_err(fail)?),
        ("model", TensorView::new(Dtype::U8, vec![model.len()], &model).map_err(fail)?),
    ];
    let about = HashMap::from([("progress".to_owned(), progress)]);
    let bytes = safetensors::tensor::serialize(entries, Some(about)).map_err(fail)?;
    crate::data::write_atomically(path, &bytes)
}

/// Brings a trainer to where [`save_state`] left it; returns the best score so far.
///
/// # Errors
/// [`Error::Weights`] if the file belongs to another model or is damaged.
pub fn load_state(trainer: &mut Trainer, path: &Path) -> Result<f64> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let damaged = |what: &str| Error::weights(path, format!("cannot resume from it: {what}; start a new run"));
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(&error.to_string()))?;
    let text = metadata.metadata().as_ref().and_then(|map| map.get("progress").cloned());
    let text = text.ok_or_else(|| damaged("it holds no progress"))?;
    let (progress, best): (Progress, f64) = serde_json::from_str(&text).map_err(|error| damaged(&error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&error.to_string()))?;
    for (name, tensor) in [("moment1", &trainer.moment1), ("moment2", &trainer.moment2)] {
        let view = file.tensor(name).map_err(|error| damaged(&error.to_string()))?;
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
        tensor.write(&values).map_err(|_| damaged("it belongs to another model"))?;
    }
    let model = file.tensor("model").map_err(|error| damaged(&error.to_string()))?;
    weights::load_bytes(&mut trainer.net, model.data(), path)?;
    trainer.progress = progress;
    Ok(best)
}
