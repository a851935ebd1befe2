//! `shadegrad completions`: scripts that let a shell complete commands and flags.

use std::io::Write as _;

use clap::CommandFactory as _;
use clap_complete::Shell;
use shadegrad::{Error, Result};

use super::Arguments;

/// Print a completion script for a shell.
///
/// Examples:
///   shadegrad completions bash > ~/.local/share/bash-completion/completions/shadegrad
///   shadegrad completions zsh > ~/.zfunc/_shadegrad
///   shadegrad completions fish > ~/.config/fish/completions/shadegrad.fish
///   shadegrad completions powershell >> $PROFILE
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CompletionsArgs {
    /// bash, zsh, fish, powershell or elvish
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "shadegrad", &mut script);
    // Not print!, which panics when the reader has gone (`| head`).
    match std::io::stdout().write_all(&script) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("write", "stdout")(error)),
        _ => Ok(()),
    }
}
