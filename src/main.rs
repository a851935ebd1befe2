//! The command line. Each command is one file under `cli/` with its flags, their help and their tests.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    sigpipe::reset();
    cli::run()
}
