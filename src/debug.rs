//! The switches for looking inside, all environment variables, all listed in `--help`.
//!
//! | variable | effect |
//! | --- | --- |
//! | `SHADEGRAD_DEBUG=1..5` | 1 adapter and limits, 2 one line per dispatch, 4 final WGSL, 5 the tape |
//! | `SHADEGRAD_SHADERS=dir` | read shaders from this folder instead of the embedded text |
//!
//! This is the only place in the library that writes to stderr, and only when asked to.
#![allow(clippy::print_stderr, reason = "the debug ladder exists to print, and only when a variable asks for it")]

use std::path::PathBuf;

/// What the environment asked to see; read once, when a device is opened.
#[derive(Debug, Clone, Default)]
pub struct Switches {
    /// `SHADEGRAD_DEBUG`, 0 to 5.
    pub level: u8,
    /// `SHADEGRAD_SHADERS`: the folder that replaces the embedded shaders.
    pub shaders: Option<PathBuf>,
}

impl Switches {
    /// Reads the environment.
    pub fn from_env() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.trim().parse::<u8>().ok());
        Self {
            level: number("SHADEGRAD_DEBUG").unwrap_or(0),
            shaders: std::env::var_os("SHADEGRAD_SHADERS").map(PathBuf::from),
        }
    }

    /// Prints a line on stderr if the level is high enough; the text is only made then.
    pub fn say(&self, level: u8, text: impl FnOnce() -> String) {
        if self.level >= level {
            eprintln!("[shadegrad {level}] {}", text());
        }
    }
}
