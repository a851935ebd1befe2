//! Training: slices in, weights out.
//!
//! One step is: indices and transforms (a few bytes) -> `load_batch` -> forward, recorded -> loss -> backward ->
//! optimizer. One submission a step; the losses are read some steps later.

mod checkpoint;
mod config;
mod events;
mod judge;
mod optimizer;
mod recipes;
mod sampling;
mod schedule;
mod trainer;

pub use checkpoint::{Progress, load_state, save_state};
pub use config::{DicePooling, Loss, Monitor, Precision, TrainConfig};
pub use events::EventWriter;
pub use optimizer::OptimizerKind;
pub use recipes::RECIPES;
pub use sampling::{Oversample, Weighted};
pub use schedule::{Plateau, Schedule};
pub use trainer::{EpochLog, Evaluation, Trainer};
