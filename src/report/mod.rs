//! `report.html`: what a run did and how good its result is, as one file that needs nothing else. Curves, metrics beside
//! what predicting nothing would score, every patient, best and worst slices, thresholds, calibration, settings.
//!
//! Pictures are data addresses, charts and outlines inline SVG, and the style sheet is part of the page: no request
//! leaves it. The page's frame is `template.html`; `sections` fills it from the numbers.

mod chart;
mod gallery;
mod html;
mod outline;
mod sections;

use std::path::Path;

use crate::Result;
use crate::data::{Dataset, write_atomically};
use crate::eval::Judgement;
use crate::train::EpochLog;

const TEMPLATE: &str = include_str!("template.html");

/// What a report is made of.
#[derive(Debug)]
pub struct Report<'a> {
    /// The network and the data, for example `unext on kaggle_3m`.
    pub title: String,
    /// When it was written, as text.
    pub written: String,
    /// The run's `config.toml`.
    pub config: String,
    /// Epochs that the settings ask for.
    pub epochs: usize,
    /// Name and value of what the run stood on: device, driver, version, slices.
    pub environment: Vec<(String, String)>,
    /// The command that repeats the run.
    pub command: String,
    /// One line an epoch.
    pub log: Vec<EpochLog>,
    /// Patients stand in training and validation.
    pub leaks: bool,
    /// How the best weights do on the validation slices, where the data are at hand.
    pub verdict: Option<Verdict<'a>>,
}

/// The judged slices.
#[derive(Debug)]
pub struct Verdict<'a> {
    /// Where the slices are.
    pub dataset: &'a Dataset,
    /// Which of them, as `(patient, slice)` in the order of the judgement.
    pub part: &'a [(usize, usize)],
    /// The numbers and masks.
    pub judgement: &'a Judgement,
    /// The loss as the settings define it.
    pub loss: f64,
}

impl Report<'_> {
    /// The page.
    ///
    /// # Errors
    /// A slice that cannot be drawn.
    pub fn html(&self) -> Result<String> {
        let gallery = match &self.verdict {
            Some(verdict) => gallery::section(verdict)?,
            None => String::new(),
        };
        let parts = [
            ("title", html::escape(&self.title)),
            ("written", html::escape(&self.written)),
            ("warnings", sections::warnings(self)),
            ("tiles", sections::tiles(self)),
            ("curves", sections::curves(self)),
            ("metrics", sections::metrics(self)),
            ("patients", sections::patients(self)),
            ("gallery", gallery),
            ("thresholds", sections::thresholds(self)),
            ("calibration", sections::calibration(self)),
            ("run", sections::run(self)),
        ];
        let links = sections::links(parts.iter().map(|(_, part)| part.as_str()));
        let mut values: Vec<(&str, &str)> = parts.iter().map(|(name, part)| (*name, part.as_str())).collect();
        values.push(("nav", &links));
        Ok(html::fill(TEMPLATE, &values))
    }

    /// Writes the page; the file is complete or not there.
    ///
    /// # Errors
    /// As [`Report::html`], or a file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, self.html()?.as_bytes())
    }
}
