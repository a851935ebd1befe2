//! Everything that talks to wgpu: choosing an adapter, loading shaders, caching pipelines, pooling buffers,
//! recording dispatches and reading results back. Nothing above this module names a wgpu type.
//!
//! The life of a dispatch: an op builds a [`Launch`] (shader, entry point, parameters, tensors); the
//! recorder finds the pipeline and the bind group in its caches and adds one line to the open
//! compute pass; `flush` submits the pass, once per training step; only reading a tensor waits. A pipeline that a first
//! step lacks is compiled at its `flush`, side by side with the others.

mod context;
mod launch;
pub mod loops;
mod pipeline;
pub mod plan;
mod pool;
mod readback;
pub(crate) mod recorder;
mod replacement;
pub mod shader;
pub mod translate;
mod tuned;

pub use context::{AdapterFacts, Context, GpuOptions, adapters};
pub use launch::{Binding, Launch, WORKGROUP};
pub use pool::{Buffer, PoolReport};
pub use readback::Readback;
pub use recorder::Timing;
pub use replacement::Replacement;
pub use shader::{Assembled, Constants, Entry, Form, Matrix, Shader, Tunable};
pub use tuned::{Answer, Part, Question, Sizes, Tuned};
