//! One kernel launch, written the way it is read:
//! `SHADER.entry("forward").params(&params).reads([x]).writes([&y]).over(y.len())?`.

use smallvec::SmallVec;

use super::plan::{PlanEvent, PlannedLaunch};
use super::recorder::{Bound, Dispatch};
use super::shader::{Constants, Entry, Form, Matrix, Shader};
use crate::tensor::{DType, Device, Tensor};
use crate::{Error, Result};

/// Invocations of a workgroup in every kernel: `override WG: u32 = 64u;`.
pub const WORKGROUP: usize = 64;

/// Groups per axis that WebGPU promises.
const MAX_GROUPS: usize = 65535;

/// A tensor, or a range of its images, as one shader binding: two words, because a launch moves its bindings around.
#[derive(Debug, Clone)]
pub enum Binding<'a> {
    /// A tensor that outlives the launch.
    Borrowed(&'a Tensor),
    /// One made for it.
    Owned(Box<Tensor>),
}

impl<'a> From<&'a Tensor> for Binding<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self::Borrowed(tensor)
    }
}

impl From<Tensor> for Binding<'_> {
    fn from(tensor: Tensor) -> Self {
        Self::Owned(Box::new(tensor))
    }
}

impl Binding<'_> {
    fn tensor(&self) -> &Tensor {
        match self {
            Self::Borrowed(tensor) => tensor,
            Self::Owned(tensor) => tensor,
        }
    }
}

/// A launch under construction.
#[derive(Debug)]
pub struct Launch<'a> {
    shader: Shader,
    entry: Entry,
    matrix: Matrix,
    params: &'a [u8],
    bindings: SmallVec<[Binding<'a>; 8]>,
}

impl Shader {
    /// Starts a launch of one entry point.
    pub fn entry<'a>(self, entry: &'static str) -> Launch<'a> {
        let entry = Entry { shader: self.name, entry, constants: Constants::default(), form: Form::default() };
        Launch { shader: self, entry, matrix: Matrix::default(), params: &[], bindings: SmallVec::new() }
    }
}

impl<'a> Launch<'a> {
    /// Replaces `// @tune` constants.
    pub fn constants(mut self, constants: impl Into<Constants>) -> Self {
        self.entry.constants = constants.into();
        self
    }

    /// Names what multiplies matrices, for a kernel that has some.
    pub fn matrix(mut self, matrix: Matrix) -> Self {
        self.matrix = matrix;
        self
    }

    /// The uniform at binding 0.
    pub fn params<P: bytemuck::NoUninit>(mut self, params: &'a P) -> Self {
        self.params = bytemuck::bytes_of(params);
        self
    }

    /// The next bindings, which the kernel reads.
    pub fn reads<B: Into<Binding<'a>>>(mut self, tensors: impl IntoIterator<Item = B>) -> Self {
        self.bindings.extend(tensors.into_iter().map(Into::into));
        self
    }

    /// The next bindings, which the kernel writes.
    pub fn writes<B: Into<Binding<'a>>>(self, tensors: impl IntoIterator<Item = B>) -> Self {
        self.reads(tensors)
    }

    /// Records enough workgroups for `invocations` invocations; the kernel finds its flat index with `flat_index`.
    ///
    /// # Errors
    /// [`Error::Gpu`], or [`Error::Limit`] for a tensor larger than one binding. A kernel that does not compile is an
    /// [`Error::Shader`]: here if its text is not the one built in, else when the step is handed over.
    pub fn over(self, invocations: usize) -> Result<()> {
        self.groups(invocations.div_ceil(WORKGROUP))
    }

    /// Records that many workgroups, spread over two axes where one is too short (`flat_group` undoes it).
    ///
    /// # Errors
    /// As [`over`](Self::over).
    pub fn groups(self, groups: usize) -> Result<()> {
        if groups == 0 {
            return Ok(());
        }
        let rows = groups.div_ceil(MAX_GROUPS);
        let columns = groups.div_ceil(rows);
        self.record([columns as u32, groups.div_ceil(columns) as u32, 1])
    }

    fn record(self, groups: [u32; 3]) -> Result<()> {
        let invariant = |message: &str| Error::Gpu { op: self.entry.label(), message: message.to_owned() };
        let Some(first) = self.bindings.first() else { return Err(invariant("a launch without tensors")) };
        let Device::Gpu(context) = first.tensor().device() else { return Err(invariant("a launch on the CPU device")) };
        let (mut bound, mut half) = (SmallVec::new(), false);
        for binding in &self.bindings {
            let tensor = binding.tensor();
            tensor.settle()?;
            half |= tensor.dtype() == DType::F16;
            let Some(buffer) = tensor.gpu_buffer() else { return Err(invariant("a tensor of another device")) };
            let bytes = tensor.bytes();
            if bytes > context.max_binding_bytes() {
                return Err(Error::Limit {
                    op: self.entry.label(),
                    message: format!(
                        "a tensor {} of {bytes} bytes is larger than one binding of this device ({}); use a smaller --batch or smaller slices",
                        tensor.shape(),
                        context.max_binding_bytes()
                    ),
                });
            }
            bound.push(Bound { raw: &buffer.raw, range: (buffer.id, tensor.byte_offset(), bytes) });
        }
        if context.is_planning() {
            let bytes = self.bindings.iter().map(|binding| binding.tensor().bytes()).sum();
            let bindings = self.bindings.iter().map(|binding| binding.tensor().shape()).collect();
            let types = self.bindings.iter().map(|binding| binding.tensor().dtype()).collect();
            let Entry { shader, entry, constants, .. } = self.entry;
            let launch = PlannedLaunch { shader, entry, constants, groups, bindings, types, bytes };
            context.note(|| PlanEvent::Launched(launch));
            return Ok(());
        }
        let form = if half { Form::F16(self.matrix) } else { Form::F32 };
        let entry = Entry { form, ..self.entry };
        let note = if context.switches.times_dispatches() { self.shapes() } else { String::new() };
        context.dispatch(self.shader, &Dispatch { entry, params: self.params, bound, groups, note })
    }

    /// The shapes of all bindings, for the debug ladder.
    fn shapes(&self) -> String {
        let shapes: Vec<_> = self.bindings.iter().map(|binding| binding.tensor().shape().to_string()).collect();
        shapes.join(" ")
    }
}
