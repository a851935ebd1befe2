//! Tensors: a handle to numbers on a device. Layout is NHWC, row-major, contiguous; tokens `[N, H, W, C]` are the
//! image itself.
//!
//! A handle is cheap to clone and `Send`. The numbers are freed (given back to the pool) with the last handle.
//! A tensor may be a range of a larger buffer: a slice of some images, or one parameter among all.

mod device;
pub mod random;
mod shape;
mod storage;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::autograd::{Leaf, OnReading, Recipe, Slot};
use crate::gpu;
use crate::{Error, Result};

pub use device::{CpuContext, Device};
pub use shape::Shape;
pub(crate) use storage::{CpuBuffer, Read, Write};

/// What the numbers are. Bytes (u8 images) travel packed, four to a `U32`. Arithmetic is in `F32`, whatever is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats, on GPUs only: images and their gradients with mixed precision.
    F16,
    /// 32-bit unsigned integers, or four packed bytes.
    U32,
}

impl DType {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 => 2,
        }
    }
}

#[derive(Debug, Clone)]
enum Storage {
    Cpu(Arc<CpuBuffer>),
    Gpu(Arc<gpu::Buffer>),
    Later(Arc<Later>),
}

/// Numbers on a GPU that are computed when somebody asks for them. A kernel that can make them where it reads them does
/// not ask, and then they are never written.
#[derive(Debug)]
struct Later {
    /// Let go once the numbers are there: it keeps tensors alive.
    recipe: Mutex<Option<Arc<dyn Recipe>>>,
    made: OnceLock<Arc<gpu::Buffer>>,
}

impl Later {
    fn recipe(&self) -> MutexGuard<'_, Option<Arc<dyn Recipe>>> {
        // A pointer: a panic elsewhere cannot leave it half-changed.
        self.recipe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the numbers of `made`, unless they are there. The recipe is locked meanwhile.
    fn fill(&self, recipe: &mut Option<Arc<dyn Recipe>>, made: &Tensor) {
        if recipe.take().is_some()
            && let Some(buffer) = made.gpu_buffer()
        {
            let _ = self.made.set(Arc::clone(buffer)); // empty until here: whoever fills it holds the lock
        }
    }
}

/// A handle to numbers on a device, and to their place on a tape if they were computed from a watched tensor.
#[derive(Debug, Clone)]
pub struct Tensor {
    device: Device,
    shape: Shape,
    dtype: DType,
    storage: Storage,
    /// First element, in elements of the storage.
    offset: usize,
    pub(crate) slot: Option<Slot>,
    pub(crate) leaf: Option<Arc<Leaf>>,
    /// How to compute it again, on a recomputing tape.
    pub(crate) recipe: Option<Arc<dyn Recipe>>,
    /// What the kernel that made it has summed up for a batch norm.
    pub(crate) summed: Option<Arc<Summed>>,
}

/// Sums over an image batch by chunks of pixels, `[2, C, chunks]`, which a batch norm merges.
#[derive(Debug)]
pub(crate) enum Summed {
    /// Of what is to be normalised: mean and sum of (x - mean)^2.
    Statistics {
        /// Those of each channel and chunk.
        partials: Tensor,
        /// Pixels of a chunk; the last one may have fewer.
        chunk: usize,
    },
    /// Of the gradient behind a batch norm: gv and gv * (x - center), where gv is what comes through the ReLU.
    Gradient {
        /// Those of each channel and chunk.
        partials: Tensor,
        /// The [table](OnReading::Normed) of that batch norm.
        table: Tensor,
    },
}

impl Device {
    /// A tensor whose numbers are whatever was there: for outputs that are written completely.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] or [`Error::Limit`] naming `op`.
    pub fn empty(&self, op: &'static str, shape: impl Into<Shape>) -> Result<Tensor> {
        self.make(op, shape.into(), DType::F32)
    }

    /// As [`empty`](Self::empty), for unsigned integers.
    ///
    /// # Errors
    /// As [`empty`](Self::empty).
    pub fn empty_u32(&self, op: &'static str, shape: impl Into<Shape>) -> Result<Tensor> {
        self.make(op, shape.into(), DType::U32)
    }

    /// As [`empty`](Self::empty), for numbers of any type.
    ///
    /// # Errors
    /// As [`empty`](Self::empty); [`Error::Limit`] for 16-bit floats where the device does not have them
    /// ([`has_f16`](Self::has_f16)).
    pub fn empty_as(&self, op: &'static str, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        if dtype == DType::F16 && !self.has_f16() {
            let message = format!("{self} has no 16-bit floats; use precision f32");
            return Err(Error::Limit { op: op.to_owned(), message });
        }
        self.make(op, shape.into(), dtype)
    }

    fn make(&self, op: &'static str, shape: Shape, dtype: DType) -> Result<Tensor> {
        let storage = match self {
            Self::Cpu(context) => Storage::Cpu(context.allocate(shape.len(), dtype)),
            Self::Gpu(context) => Storage::Gpu(context.allocate(op, whole_words(shape.len() * dtype.bytes()))?),
        };
        Ok(self.handle(shape, dtype, storage))
    }

    fn handle(&self, shape: Shape, dtype: DType, storage: Storage) -> Tensor {
        let device = self.clone();
        Tensor { device, shape, dtype, storage, offset: 0, slot: None, leaf: None, recipe: None, summed: None }
    }

    /// A tensor of this GPU whose numbers are computed when they are needed.
    pub(crate) fn later(&self, shape: Shape, dtype: DType, recipe: Arc<dyn Recipe>) -> Tensor {
        self.handle(
            shape,
            dtype,
            Storage::Later(Arc::new(Later { recipe: Mutex::new(Some(recipe)), made: OnceLock::new() })),
        )
    }

    /// The number 1, as a tensor that nobody may change.
    pub(crate) fn one(&self) -> Result<Tensor> {
        match self {
            Self::Cpu(_) => self.tensor("backward", [1], &[1.0]),
            Self::Gpu(context) => Ok(self.handle([1].into(), DType::F32, Storage::Gpu(context.one()?))),
        }
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// As [`empty`](Self::empty).
    pub fn zeros(&self, op: &'static str, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        self.tensor(op, shape, &vec![0.0; shape.len()])
    }

    /// A tensor of these values, in row-major order.
    ///
    /// # Errors
    /// [`Error::Shape`] if their number does not fit the shape; else as [`empty`](Self::empty).
    pub fn tensor(&self, op: &'static str, shape: impl Into<Shape>, values: &[f32]) -> Result<Tensor> {
        let out = self.empty(op, shape)?;
        out.write(values)?;
        Ok(out)
    }

    /// As [`tensor`](Self::tensor), for unsigned integers.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn tensor_u32(&self, op: &'static str, shape: impl Into<Shape>, values: &[u32]) -> Result<Tensor> {
        let out = self.empty_u32(op, shape)?;
        out.write_u32(values)?;
        Ok(out)
    }
}

/// What a buffer for so many bytes takes: GPUs copy and bind whole words of 4 bytes.
fn whole_words(bytes: usize) -> u64 {
    bytes.next_multiple_of(4) as u64
}

impl Tensor {
    /// A tensor for numbers of this one's type on its device, as [`Device::empty`].
    ///
    /// # Errors
    /// As [`Device::empty`].
    pub fn new_empty(&self, op: &'static str, shape: impl Into<Shape>) -> Result<Self> {
        self.device.make(op, shape.into(), self.dtype)
    }

    /// Where the numbers are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The extent of each axis.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What the numbers are.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// How many numbers.
    #[allow(clippy::len_without_is_empty, reason = "a tensor without elements is refused by every op")]
    pub fn len(&self) -> usize {
        self.shape.len()
    }

    /// How many bytes, in whole words of 4.
    pub fn bytes(&self) -> u64 {
        whole_words(self.len() * self.dtype.bytes())
    }

    /// The same numbers without a place on a tape: nothing is kept alive for their sake.
    pub fn detach(&self) -> Self {
        self.part(self.offset, self.shape)
    }

    /// What the kernel that made this image batch has summed up for a batch norm: `[2, C, chunks]`, mean and sum of
    /// (x - mean)^2 of each channel and chunk, and the pixels of a chunk (the last one may have fewer).
    pub fn statistics(&self) -> Option<(&Self, usize)> {
        match self.summed.as_deref()? {
            Summed::Statistics { partials, chunk } => Some((partials, *chunk)),
            Summed::Gradient { .. } => None,
        }
    }

    /// What the kernel that made this gradient has summed up for the gradient of the batch norm with this table.
    pub(crate) fn sums_for(&self, norm: &Self) -> Option<&Self> {
        match self.summed.as_deref()? {
            Summed::Gradient { partials, table } if table.same_place(norm) => Some(partials),
            _ => None,
        }
    }

    /// The same numbers seen with another shape. Not recorded: use it on inputs and results only.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.len() != self.len() {
            return Err(Error::shape("reshape", format!("{} cannot become {shape}", self.shape)));
        }
        Ok(self.part(self.offset, shape))
    }

    /// A range of the first axis, sharing the numbers.
    pub fn images(&self, range: &Range<usize>) -> Self {
        let per_image = self.len() / self.shape.dims()[0].max(1);
        let shape = self.shape.with_first(range.len());
        self.part(self.offset + range.start * per_image, shape)
    }

    /// `len` elements from `start` on, seen with another shape and sharing the numbers.
    pub(crate) fn view(&self, start: usize, shape: Shape) -> Self {
        self.part(self.offset + start, shape)
    }

    /// Other numbers of the same storage, without a place on a tape.
    fn part(&self, offset: usize, shape: Shape) -> Self {
        Self { offset, ..self.device.handle(shape, self.dtype, self.storage.clone()) }
    }

    pub(crate) fn byte_offset(&self) -> u64 {
        (self.offset * self.dtype.bytes()) as u64
    }

    /// The buffer on a GPU, if there is one already: see [`settle`](Self::settle).
    pub(crate) fn gpu_buffer(&self) -> Option<&Arc<gpu::Buffer>> {
        match &self.storage {
            Storage::Gpu(buffer) => Some(buffer),
            Storage::Later(later) => later.made.get(),
            Storage::Cpu(_) => None,
        }
    }

    /// Computes numbers that nobody has asked for yet.
    ///
    /// # Errors
    /// As the op that makes them.
    pub(crate) fn settle(&self) -> Result<()> {
        let Storage::Later(later) = &self.storage else { return Ok(()) };
        let mut recipe = later.recipe();
        let Some(known) = recipe.as_ref() else { return Ok(()) };
        let made = known.make()?;
        later.fill(&mut recipe, &made);
        Ok(())
    }

    /// Gives numbers that nobody has computed yet: those of `made`, which are the same. Nothing happens if they are there.
    pub(crate) fn fill(&self, made: &Self) {
        if let Storage::Later(later) = &self.storage {
            later.fill(&mut later.recipe(), made);
        }
    }

    /// The buffer on a GPU, with the numbers in it.
    fn settled(&self) -> Result<&Arc<gpu::Buffer>> {
        self.settle()?;
        self.gpu_buffer().ok_or_else(|| Error::shape("tensor", format!("{self} has no buffer on a GPU")))
    }

    /// How to compute the numbers, if nobody has yet.
    pub(crate) fn later(&self) -> Option<Arc<dyn Recipe>> {
        match &self.storage {
            Storage::Later(later) => later.recipe().clone(),
            _ => None,
        }
    }

    /// As [`later`](Self::later), if a kernel can make the numbers where it reads them.
    pub(crate) fn on_reading(&self) -> Option<OnReading> {
        self.later().and_then(|recipe| recipe.on_reading()).filter(|read| match read {
            OnReading::Normed { x, .. } | OnReading::NormGradient { x, .. } => x.shape() == self.shape,
            OnReading::Joined([a, b]) => a.shape().with_last(a.shape().last() + b.shape().last()) == self.shape,
        })
    }

    /// Whether both are the same numbers of the same buffer.
    pub(crate) fn same_place(&self, other: &Self) -> bool {
        self.same_buffer(other) && self.offset == other.offset && self.len() == other.len()
    }

    fn same_buffer(&self, other: &Self) -> bool {
        match (&self.storage, &other.storage) {
            (Storage::Cpu(a), Storage::Cpu(b)) => Arc::ptr_eq(a, b),
            (Storage::Later(a), Storage::Later(b)) => Arc::ptr_eq(a, b),
            _ => self.gpu_buffer().zip(other.gpu_buffer()).is_some_and(|(a, b)| Arc::ptr_eq(a, b)),
        }
    }

    /// The numbers from the first to the last of several tensors of one buffer, in one row; `None` if they lie in
    /// different ones, or if there are none.
    pub(crate) fn span(tensors: &[&Self]) -> Option<Self> {
        let first = tensors.iter().min_by_key(|tensor| tensor.offset)?;
        let end = tensors.iter().map(|tensor| tensor.offset + tensor.len()).max()?;
        let together = tensors.iter().all(|tensor| tensor.same_buffer(first));
        together.then(|| first.view(0, [end - first.offset].into()))
    }

    /// How many numbers it begins after `start`, which begins before it in the same buffer.
    pub(crate) fn distance(&self, start: &Self) -> usize {
        self.offset - start.offset
    }

    /// True if no other handle shares the numbers: then they may be changed in place.
    pub(crate) fn is_sole_owner(&self) -> bool {
        match &self.storage {
            Storage::Cpu(buffer) => Arc::strong_count(buffer) == 1,
            Storage::Gpu(buffer) => Arc::strong_count(buffer) == 1,
            Storage::Later(later) => {
                Arc::strong_count(later) == 1 && later.made.get().is_some_and(|made| Arc::strong_count(made) == 1)
            }
        }
    }

    /// The numbers of a CPU tensor. Ops only call this in their `Device::Cpu` arm.
    ///
    /// # Panics
    /// If the tensor is on a GPU or holds integers: an op's bug.
    pub(crate) fn f32s(&self) -> Read<'_, f32> {
        self.cpu().read_f32(self.offset..self.offset + self.len())
    }

    /// As [`f32s`](Self::f32s), to be written.
    pub(crate) fn f32s_mut(&self) -> Write<'_, f32> {
        self.cpu().write_f32(self.offset..self.offset + self.len())
    }

    /// As [`f32s`](Self::f32s), for integers.
    pub(crate) fn u32s(&self) -> Read<'_, u32> {
        self.cpu().read_u32(self.offset..self.offset + self.len())
    }

    /// As [`f32s_mut`](Self::f32s_mut), for integers.
    pub(crate) fn u32s_mut(&self) -> Write<'_, u32> {
        self.cpu().write_u32(self.offset..self.offset + self.len())
    }

    fn cpu(&self) -> &CpuBuffer {
        match &self.storage {
            Storage::Cpu(buffer) => buffer,
            Storage::Gpu(_) | Storage::Later(_) => unreachable!("the CPU arm of an op was given a GPU tensor"),
        }
    }

    /// Replaces all numbers, rounded to the type that the tensor stores.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are more or fewer values than elements.
    pub fn write(&self, values: &[f32]) -> Result<()> {
        self.fits(values.len())?;
        match &self.device {
            Device::Cpu(_) => self.f32s_mut().copy_from_slice(values),
            Device::Gpu(context) if self.dtype == DType::F16 => {
                let mut halves: Vec<u16> = values.iter().map(|value| half::f16::from_f32(*value).to_bits()).collect();
                halves.resize(values.len().next_multiple_of(2), 0);
                context.write(self.settled()?, self.byte_offset(), bytemuck::cast_slice(&halves))?;
            }
            Device::Gpu(context) => {
                context.write(self.settled()?, self.byte_offset(), bytemuck::cast_slice(values))?;
            }
        }
        Ok(())
    }

    /// As [`write`](Self::write), for integers.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_u32(&self, values: &[u32]) -> Result<()> {
        self.fits(values.len())?;
        match &self.device {
            Device::Cpu(_) => self.u32s_mut().copy_from_slice(values),
            Device::Gpu(context) => {
                context.write(self.settled()?, self.byte_offset(), bytemuck::cast_slice(values))?;
            }
        }
        Ok(())
    }

    fn fits(&self, values: usize) -> Result<()> {
        if values == self.len() {
            return Ok(());
        }
        Err(Error::shape("write", format!("{values} values do not fill a tensor {}", self.shape)))
    }

    /// Copies another tensor's numbers into this one (same device, type and number of elements).
    ///
    /// # Errors
    /// [`Error::Shape`] if they differ.
    pub fn copy_from(&self, other: &Self) -> Result<()> {
        self.fits(other.len())?;
        if self.dtype != other.dtype {
            return Err(Error::shape("copy_from", format!("{other} cannot be copied to {self}")));
        }
        match (&self.device, &other.device) {
            (Device::Cpu(_), Device::Cpu(_)) => self.f32s_mut().copy_from_slice(&other.f32s()),
            (Device::Gpu(context), Device::Gpu(_)) => {
                let (to, from) = (self.settled()?, other.settled()?);
                context.copy((from, other.byte_offset()), (to, self.byte_offset()), self.bytes())?;
            }
            _ => return Err(Error::shape("copy_from", "the tensors are on different devices")),
        }
        Ok(())
    }

    /// Reads the numbers; waits for the device.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or what the driver reports.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        self.read_later()?.wait()
    }

    /// As [`to_vec`](Self::to_vec), for integers.
    ///
    /// # Errors
    /// As [`to_vec`](Self::to_vec).
    pub fn to_vec_u32(&self) -> Result<Vec<u32>> {
        match &self.device {
            Device::Cpu(_) => Ok(self.u32s().to_vec()),
            Device::Gpu(context) => {
                let bytes = context.read(self.settled()?, self.byte_offset(), self.bytes())?.wait()?;
                Ok(bytemuck::pod_collect_to_vec(&bytes))
            }
        }
    }

    /// Starts reading the numbers without waiting. Gives what is recorded so far to the device.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn read_later(&self) -> Result<Pending> {
        match &self.device {
            Device::Cpu(_) => Ok(Pending(PendingKind::Ready(self.f32s().to_vec()))),
            Device::Gpu(context) => {
                // A view of 16-bit floats may begin within a word.
                let before = self.byte_offset() % 4;
                let bytes = whole_words(before as usize + self.len() * self.dtype.bytes());
                let read = context.read(self.settled()?, self.byte_offset() - before, bytes)?;
                Ok(Pending(match self.dtype {
                    DType::F16 => PendingKind::Halves { read, before: before as usize / 2, count: self.len() },
                    DType::F32 | DType::U32 => PendingKind::Gpu(read),
                }))
            }
        }
    }
}

/// Numbers on their way from the device.
#[derive(Debug)]
pub struct Pending(PendingKind);

#[derive(Debug)]
enum PendingKind {
    Ready(Vec<f32>),
    Gpu(gpu::Readback),
    /// So many 16-bit floats, after some that are not asked for.
    Halves {
        read: gpu::Readback,
        before: usize,
        count: usize,
    },
}

impl Pending {
    /// Waits for the numbers.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn wait(self) -> Result<Vec<f32>> {
        match self.0 {
            PendingKind::Ready(values) => Ok(values),
            PendingKind::Gpu(read) => Ok(bytemuck::pod_collect_to_vec(&read.wait()?)),
            PendingKind::Halves { read, before, count } => {
                let halves: Vec<u16> = bytemuck::pod_collect_to_vec(&read.wait()?);
                Ok(halves
                    .into_iter()
                    .skip(before)
                    .take(count)
                    .map(|bits| half::f16::from_bits(bits).to_f32())
                    .collect())
            }
        }
    }
}

impl fmt::Display for Tensor {
    /// Shape and device, not the numbers: reading those would wait.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} {} on {}", self.dtype, self.shape, self.device)
    }
}
