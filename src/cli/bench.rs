//! `shadegrad bench`: time, GFLOP/s and GB/s of every kernel on this device. The work is done by `bench/harness.rs`.

use shadegrad::Result;

#[allow(unreachable_pub, reason = "shared with `cargo bench`")]
#[path = "../../bench/harness.rs"]
mod harness;
#[allow(unreachable_pub, reason = "shared with `cargo bench`")]
#[path = "../../bench/models.rs"]
mod models;
#[allow(missing_docs, unreachable_pub, reason = "shared with `cargo bench`")]
#[path = "../../bench/ops/mod.rs"]
mod ops;

/// Time the kernels on the shapes that the networks use.
///
/// Examples:
///   shadegrad bench
///   shadegrad bench unext --train --batch 8 --size 256
///   shadegrad bench add relu --device lavapipe --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    options: harness::Options,
}

/// Runs `shadegrad bench`.
///
/// # Errors
/// What the ops or the device report.
pub(crate) fn run(args: BenchArgs) -> Result<()> {
    harness::run(&args.options)
}
