//! The course: how a network is trained on a GPU, from a number in memory to a kernel of your own. Docs only.
//!
//! Eleven short chapters in reading order. Each says what to know, gives the formula, and has a program that runs as a
//! test on the CPU device and asserts something (`cargo test --doc course`). The files that a chapter explains are
//! linked; links into the folders outside of `src/` work where `cargo doc --open` of a clone puts the pages.
//!
//! 1. [Tensor and device](ch01_tensor): numbers in memory, and where
//! 2. [An op and its reference](ch02_op): one idea in five files, and what says that it is right
//! 3. [A kernel](ch03_kernel): WGSL, bindings, workgroups, tiles
//! 4. [The tape](ch04_tape): gradients, played backwards
//! 5. [Layers and parameters](ch05_layers): ops with numbers that are trained
//! 6. [A network](ch06_network): UNeXt
//! 7. [The loss](ch07_loss): cross-entropy and Dice
//! 8. [The optimizer](ch08_optimizer): SGD, Adam, the learning rate
//! 9. [Data and training](ch09_training): a whole run on phantom heads
//! 10. [A step on the GPU](ch10_gpu): what is launched, and what lives when
//! 11. [Your first kernel](ch11_first_kernel): a new op from nothing, in five files

#[doc = include_str!("ch01_tensor.md")]
pub mod ch01_tensor {}

#[doc = include_str!("ch02_op.md")]
pub mod ch02_op {}

#[doc = include_str!("ch03_kernel.md")]
#[doc = "```wgsl"]
#[doc = include_str!("../../shaders/max_pool2d.wgsl")]
#[doc = "```"]
pub mod ch03_kernel {}

#[doc = include_str!("ch04_tape.md")]
pub mod ch04_tape {}

#[doc = include_str!("ch05_layers.md")]
pub mod ch05_layers {}

#[doc = include_str!("ch06_network.md")]
pub mod ch06_network {}

#[doc = include_str!("ch07_loss.md")]
pub mod ch07_loss {}

#[doc = include_str!("ch08_optimizer.md")]
pub mod ch08_optimizer {}

#[doc = include_str!("ch09_training.md")]
pub mod ch09_training {}

#[doc = include_str!("ch10_gpu.md")]
pub mod ch10_gpu {}

#[doc = include_str!("ch11_first_kernel.md")]
pub mod ch11_first_kernel {}
