//! `cargo bench`: times the kernels. The same as `shadegrad bench`, without installing anything.
//!
//! `cargo bench -- add relu --device lavapipe --json`

// The path makes `harness` look for its parts beside itself.
#[allow(unreachable_pub, reason = "shared with the binary's `bench`")]
#[cfg_attr(
    test,
    allow(dead_code, unused_imports, reason = "their tests run with the binary, this target has no harness")
)]
#[path = "harness.rs"]
mod harness;

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
    harness::run(&Arguments::parse().options, &[])
}
