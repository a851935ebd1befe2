//! `cargo bench`: times the kernels. The same as `shadegrad bench`, without installing anything.
//!
//! `cargo bench -- add relu --device lavapipe --json`

#[allow(unreachable_pub, reason = "shared with the binary's `bench`")]
mod harness;
#[allow(unreachable_pub, reason = "shared with the binary's `bench`")]
mod models;
#[allow(missing_docs, unreachable_pub, reason = "shared with the binary's `bench`")]
mod ops;

use clap::Parser;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: harness::Options,
    /// Cargo passes it.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> shadegrad::Result<()> {
    harness::run(&Arguments::parse().options)
}
