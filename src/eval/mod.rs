//! Judging predictions: numbers ([`metrics`]) and pictures ([`overlay`]).

pub mod metrics;
pub mod overlay;

pub use metrics::{Metrics, PatientMetrics, SliceCounts};
