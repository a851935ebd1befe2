//! The switches for looking inside, all environment variables, all listed in `--help`. They work in every command.
//!
//! | variable | effect |
//! | --- | --- |
//! | `SHADEGRAD_DEBUG=1..5` | 1 adapter and limits, 2 one line per dispatch with its time and rate, 3 version chosen and why, 4 final WGSL, 5 the tape; each includes those below |
//! | `SHADEGRAD_CHECK=1` | every op also on the CPU reference, forward and backward; stops at the first difference |
//! | `SHADEGRAD_NAN=1` | stops at the first result that is not finite |
//! | `SHADEGRAD_TRACE=file` | Chrome trace of host and device |
//! | `SHADEGRAD_SHADERS=dir` | read shaders from this folder instead of the embedded text |
//! | `SHADEGRAD_TUNE=0` | take the usual kernels, not those that `tune` found |
//! | `SHADEGRAD_CACHE=dir` | where `tune` keeps what it found, instead of the user's cache folder |
//! | `SHADEGRAD_LIMITS=webgpu` | ask the adapter for WebGPU's default limits and no features, as on the weakest device |
//!
//! They are read once, when a device is opened. Without them each op costs one comparison more.
//! This is the only place in the library that writes to stderr, and only when asked to.
#![allow(clippy::print_stderr, reason = "the debug ladder exists to print, and only when a variable asks for it")]

pub(crate) mod check;
pub(crate) mod trace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

pub use check::Checks;
pub(crate) use check::{On, observed};
use trace::Span;
pub use trace::Trace;

use crate::{Error, Result};

/// What the environment asked to see; read once, when a device is opened.
#[derive(Debug, Clone, Default)]
pub struct Switches {
    /// `SHADEGRAD_DEBUG`, 0 to 5.
    pub level: u8,
    /// `SHADEGRAD_SHADERS`: the folder that replaces the embedded shaders.
    pub shaders: Option<PathBuf>,
    /// `SHADEGRAD_CHECK`: what has been compared with the CPU reference.
    pub checks: Option<Arc<Checks>>,
    /// `SHADEGRAD_NAN`.
    pub nan: bool,
    /// `SHADEGRAD_TRACE`.
    pub trace: Option<Arc<Trace>>,
    /// `SHADEGRAD_TUNE=0`: what `tune` found is not used.
    pub usual_kernels: bool,
    /// `SHADEGRAD_CACHE`: the folder of what `tune` found.
    pub cache: Option<PathBuf>,
    /// `SHADEGRAD_LIMITS=webgpu`: no more than WebGPU promises on every device.
    pub webgpu_only: bool,
}

const LIMITS: &str = "SHADEGRAD_LIMITS";

/// What its value asks for.
fn webgpu_only(value: Option<OsString>) -> Result<bool> {
    match value {
        None => Ok(false),
        Some(value) if value == "webgpu" => Ok(true),
        Some(value) => Err(Error::Config(format!(
            "{LIMITS}={} must be webgpu; unset it to use all that the adapter has",
            value.display()
        ))),
    }
}

impl Switches {
    /// Reads the environment.
    ///
    /// # Errors
    /// [`Error::Config`] naming a variable with a value that means nothing; [`Error::Io`] if the trace cannot be written.
    pub fn from_env() -> Result<Self> {
        Self::from(|name| std::env::var_os(name))
    }

    /// Whether the environment asks for no more than WebGPU promises; opens nothing, unlike [`from_env`](Self::from_env).
    ///
    /// # Errors
    /// [`Error::Config`] for a value that means nothing.
    pub(crate) fn asks_webgpu_only() -> Result<bool> {
        webgpu_only(std::env::var_os(LIMITS).filter(|value| !value.is_empty()))
    }

    /// As [`from_env`](Self::from_env), from any table of variables.
    fn from(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let number_or = |name: &str, most: u8, unset: u8| match given(name) {
            None => Ok(unset),
            Some(value) => match value.to_string_lossy().trim().parse::<u8>() {
                Ok(number) if number <= most => Ok(number),
                _ => Err(Error::Config(format!(
                    "{name}={} must be a number from 0 to {most}; unset it to go on without",
                    value.display()
                ))),
            },
        };
        let number = |name: &str, most: u8| number_or(name, most, 0);
        let path = |name: &str| given(name).map(PathBuf::from);
        Ok(Self {
            level: number("SHADEGRAD_DEBUG", 5)?,
            shaders: path("SHADEGRAD_SHADERS"),
            checks: (number("SHADEGRAD_CHECK", 1)? == 1).then(Arc::default),
            nan: number("SHADEGRAD_NAN", 1)? == 1,
            trace: path("SHADEGRAD_TRACE").map(|path| Trace::begin(&path)).transpose()?,
            usual_kernels: number_or("SHADEGRAD_TUNE", 1, 1)? == 0,
            cache: path("SHADEGRAD_CACHE"),
            webgpu_only: webgpu_only(given(LIMITS))?,
        })
    }

    /// The same switches with a trace that will be written to `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn with_trace(self, path: &std::path::Path) -> Result<Self> {
        Ok(Self { trace: Some(Trace::begin(path)?), ..self })
    }

    /// Prints a line on stderr if the level is high enough; the text is only made then.
    pub fn say(&self, level: u8, text: impl FnOnce() -> String) {
        if self.level >= level {
            print(&format!("[shadegrad {level}] {}", text()));
        }
    }

    /// Notes in the trace what this thread does until the result is dropped; nothing without a trace.
    pub(crate) fn span(&self, category: &'static str, name: &str) -> Option<Span> {
        self.trace.as_ref().map(|trace| trace.span(category, name))
    }

    /// Whether every op's results are looked at.
    pub(crate) fn looks_at_results(&self) -> bool {
        self.nan || self.checks.is_some()
    }

    /// Whether every dispatch is timed.
    pub(crate) fn times_dispatches(&self) -> bool {
        self.level >= 2 || self.trace.is_some()
    }

    /// On the CPU device there is no second implementation to compare with.
    pub(crate) fn for_cpu(self) -> Self {
        if self.checks.is_some() {
            print(
                "SHADEGRAD_CHECK: the CPU device is the reference itself, so nothing is compared; name a GPU with --device",
            );
        }
        Self { checks: None, ..self }
    }
}

/// A line on stderr.
fn print(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &'static [(&'static str, &'static str)]) -> Result<Switches> {
        Switches::from(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value)))
    }

    #[test]
    fn variables_switch_and_nonsense_is_refused() -> Result<()> {
        let all = read(&[("SHADEGRAD_DEBUG", "3"), ("SHADEGRAD_CHECK", "1"), ("SHADEGRAD_NAN", " 1 ")])?;
        assert!(all.level == 3 && all.checks.is_some() && all.nan && all.looks_at_results());
        let none = read(&[("SHADEGRAD_CHECK", "0"), ("SHADEGRAD_TRACE", ""), ("SHADEGRAD_NAN", "")])?;
        assert!(!none.usual_kernels && read(&[("SHADEGRAD_TUNE", "0")])?.usual_kernels);
        assert!(none.level == 0 && !none.looks_at_results() && !none.times_dispatches());
        for (name, value) in [
            ("SHADEGRAD_DEBUG", "6"),
            ("SHADEGRAD_CHECK", "yes"),
            ("SHADEGRAD_TUNE", "2"),
            ("SHADEGRAD_LIMITS", "none"),
        ] {
            let Err(error) = Switches::from(|asked| (asked == name).then(|| value.into())) else { panic!("{name}") };
            assert!(error.to_string().starts_with(&format!("{name}={value} must be")), "{error}");
        }
        Ok(())
    }

    #[test]
    fn a_trace_that_cannot_be_written_is_refused_at_once() {
        assert!(matches!(read(&[("SHADEGRAD_TRACE", "/nowhere/at/all/trace.json")]), Err(Error::Io { .. })));
    }
}
