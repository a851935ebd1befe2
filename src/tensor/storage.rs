//! The CPU device's memory: pooled vectors behind a lock, handed out as slices.

use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::DType;
use super::device::CpuContext;

/// A vector of one of the two types.
#[derive(Debug)]
pub(crate) enum Numbers {
    F32(Vec<f32>),
    U32(Vec<u32>),
}

impl Numbers {
    pub(crate) fn zeros(len: usize, dtype: DType) -> Self {
        match dtype {
            // There are no 16-bit floats on this device: `Device::empty_as` refuses them.
            DType::F32 | DType::F16 => Self::F32(vec![0.0; len]),
            DType::U32 => Self::U32(vec![0; len]),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::U32(values) => values.len(),
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::U32(_) => DType::U32,
        }
    }
}

/// A pooled vector; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct CpuBuffer {
    numbers: RwLock<Numbers>,
    home: Arc<CpuContext>,
}

impl CpuBuffer {
    pub(super) fn new(numbers: Numbers, home: Arc<CpuContext>) -> Self {
        Self { numbers: RwLock::new(numbers), home }
    }

    // A lock poisoned by a panic still holds numbers of the right length and type; the panic itself is reported.
    fn reading(&self) -> RwLockReadGuard<'_, Numbers> {
        self.numbers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> RwLockWriteGuard<'_, Numbers> {
        self.numbers.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read_f32(&self, range: Range<usize>) -> Read<'_, f32> {
        Read { guard: self.reading(), range, pick: floats }
    }

    pub(super) fn read_u32(&self, range: Range<usize>) -> Read<'_, u32> {
        Read { guard: self.reading(), range, pick: integers }
    }

    pub(super) fn write_f32(&self, range: Range<usize>) -> Write<'_, f32> {
        Write { guard: self.writing(), range, pick: floats, pick_mut: floats_mut }
    }

    pub(super) fn write_u32(&self, range: Range<usize>) -> Write<'_, u32> {
        Write { guard: self.writing(), range, pick: integers, pick_mut: integers_mut }
    }
}

fn floats(numbers: &Numbers) -> &[f32] {
    match numbers {
        Numbers::F32(values) => values,
        Numbers::U32(_) => unreachable!("an op asked for floats of an integer tensor"),
    }
}

fn floats_mut(numbers: &mut Numbers) -> &mut [f32] {
    match numbers {
        Numbers::F32(values) => values,
        Numbers::U32(_) => unreachable!("an op asked for floats of an integer tensor"),
    }
}

fn integers(numbers: &Numbers) -> &[u32] {
    match numbers {
        Numbers::U32(values) => values,
        Numbers::F32(_) => unreachable!("an op asked for integers of a float tensor"),
    }
}

fn integers_mut(numbers: &mut Numbers) -> &mut [u32] {
    match numbers {
        Numbers::U32(values) => values,
        Numbers::F32(_) => unreachable!("an op asked for integers of a float tensor"),
    }
}

impl Drop for CpuBuffer {
    fn drop(&mut self) {
        let numbers = self.numbers.get_mut().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::replace(numbers, Numbers::F32(Vec::new()));
        self.home.give_back(taken);
    }
}

/// A slice being read. Dereferences to `[T]`.
#[derive(Debug)]
pub(crate) struct Read<'a, T> {
    guard: RwLockReadGuard<'a, Numbers>,
    range: Range<usize>,
    pick: fn(&Numbers) -> &[T],
}

impl<T> Deref for Read<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &(self.pick)(&self.guard)[self.range.clone()]
    }
}

/// A slice being written. Dereferences to `[T]`.
#[derive(Debug)]
pub(crate) struct Write<'a, T> {
    guard: RwLockWriteGuard<'a, Numbers>,
    range: Range<usize>,
    pick: fn(&Numbers) -> &[T],
    pick_mut: fn(&mut Numbers) -> &mut [T],
}

impl<T> Deref for Write<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &(self.pick)(&self.guard)[self.range.clone()]
    }
}

impl<T> DerefMut for Write<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut (self.pick_mut)(&mut self.guard)[self.range.clone()]
    }
}
