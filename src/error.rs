//! Every way in which the library can fail, grouped by area. A message names the op, file, flag or tensor
//! and, where it is known, says what to do next.

use std::path::{Path, PathBuf};

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Shapes, types or sizes that an operation cannot work with.
    #[error("{op}: {message}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Both shapes, and the rule that they break.
        message: String,
    },
    /// The tape was used in a way that has no gradient.
    #[error("autograd: {0}")]
    Tape(String),
    /// No adapter fits what was asked for.
    #[error("{0}")]
    Adapter(String),
    /// A shader does not compile.
    #[error("{file}{}: {message}", if *line == 0 { String::new() } else { format!(":{line}") })]
    Shader {
        /// The piece that holds the line, not the concatenated text.
        file: String,
        /// The line in that piece, from 1; 0 if unknown.
        line: u32,
        /// naga's message.
        message: String,
    },
    /// The device has no room for a buffer.
    #[error(
        "{op}: the device is out of memory for {bytes} bytes ({live} bytes are in use); use a smaller --batch or smaller slices"
    )]
    OutOfMemory {
        /// The operation that asked for it.
        op: String,
        /// Bytes asked for.
        bytes: u64,
        /// Bytes in use.
        live: u64,
    },
    /// A tensor is larger than what the device can bind or hold.
    #[error("{op}: {message}")]
    Limit {
        /// The operation.
        op: String,
        /// The size, the limit, and what to do.
        message: String,
    },
    /// The GPU or its driver reported an error.
    #[error("{op}: the GPU reports: {message}")]
    Gpu {
        /// The operation that was being recorded or submitted.
        op: String,
        /// The driver's words.
        message: String,
    },
    /// The device went away (driver reset, unplugged, too long a kernel).
    #[error("the GPU was lost: {0}; run again, with a smaller --batch if it repeats")]
    DeviceLost(String),
    /// `SHADEGRAD_CHECK` found a result that is not the reference's.
    #[error("SHADEGRAD_CHECK: {op}: {message}")]
    Check {
        /// The operation, and `backward` where its gradient is meant.
        op: String,
        /// Which result, its shape, the element, both values, the kernels.
        message: String,
    },
    /// A value that must be finite is not.
    #[error("{0}")]
    NonFinite(String),
    /// The images, masks or folders do not form a data set.
    #[error("{}: {message}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// A weight file that does not fit.
    #[error("{}: {message}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// A setting that cannot be used.
    #[error("{0}")]
    Config(String),
    /// The operating system refused a file.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as a verb: "read", "write".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The run was interrupted (Ctrl-C) after its state was saved.
    #[error("interrupted; the state is saved")]
    Interrupted,
}

impl Error {
    /// A shape error of `op`.
    pub fn shape(op: &'static str, message: impl Into<String>) -> Self {
        Self::Shape { op, message: message.into() }
    }

    /// An error about a data file or folder.
    pub fn data(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Data { path: path.as_ref().to_owned(), message: message.into() }
    }

    /// An error about a weight file.
    pub fn weights(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Weights { path: path.as_ref().to_owned(), message: message.into() }
    }

    /// Turns a failed system call into an error that names the file: `.map_err(Error::io("read", path))`.
    pub fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
