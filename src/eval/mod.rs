//! Predicting volumes ([`predict`]) and judging predictions: numbers ([`metrics`], [`distance`], [`thresholds`]), all of
//! them at once from logits ([`Judge`]), connected pieces ([`components`]) and pictures ([`overlay`]).

pub mod components;
pub mod distance;
mod judge;
pub mod metrics;
pub mod overlay;
pub mod predict;
pub mod thresholds;

pub use distance::hausdorff_95;
pub use judge::{Judge, JudgeOptions, Judgement};
pub use metrics::{Headline, Metrics, PatientMetrics, SliceCounts};
pub use thresholds::{Calibration, CalibrationBin, ThresholdPoint};
