//! Placeholder.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {}
pub(crate) fn run(_args: BenchArgs) -> shadegrad::Result<()> { Ok(()) }
