//! Placeholder.
#[derive(Debug, clap::Args)]
pub(crate) struct DevicesArgs {}
pub(crate) fn run(_args: DevicesArgs) -> shadegrad::Result<()> { Ok(()) }
