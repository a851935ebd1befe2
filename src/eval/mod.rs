//! Judging predictions: numbers ([`metrics`]), connected pieces ([`components`]) and pictures ([`overlay`]).

pub mod components;
pub mod metrics;
pub mod overlay;

pub use metrics::{Metrics, PatientMetrics, SliceCounts};
