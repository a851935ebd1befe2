//! Placeholder.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {}
pub(crate) fn run(_args: CheckArgs) -> shadegrad::Result<bool> { Ok(true) }
