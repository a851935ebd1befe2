//! The proof. Start it with `./kernels-tests/run`, which brings a software Vulkan where there is no GPU.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say which adapter they used")]

#[allow(missing_docs, unreachable_pub, reason = "the case files are shared with the binary's `check`")]
mod ops;

mod barriers;
mod bench;
mod course;
mod data;
mod devices;
mod eval;
mod events;
mod formats;
mod golden;
mod gradients;
mod interchange;
mod kernels;
mod ladder;
mod models;
mod registers;
mod report;
mod shaders;
mod training;
mod translations;
mod workbench;
