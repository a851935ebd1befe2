//! Buffers by size class. A dropped buffer goes back to its class and is handed out again, so a training step
//! that repeats itself allocates nothing after its first turns.
//!
//! Reuse is safe without waiting: dispatches run in the order in which they were recorded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::plan::PlanEvent;
use crate::{Error, Result};

/// A pooled GPU buffer. Dropping the last handle gives it back.
#[derive(Debug)]
pub struct Buffer {
    /// Never reused, so it can stand for the buffer in cache keys.
    pub(crate) id: u64,
    pub(crate) raw: wgpu::Buffer,
    class: u64,
    owner: &'static str,
    shared: Arc<Shared>,
}

impl Buffer {
    /// Bytes that the device set aside.
    pub fn bytes(&self) -> u64 {
        self.class
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        if let Some(plan) = &mut state.plan {
            plan.push(PlanEvent::Freed { buffer: self.id });
        }
        state.live -= self.class;
        if let Some(owned) = state.owners.get_mut(self.owner) {
            owned.0 -= 1;
            owned.1 -= self.class;
        }
        let free = state.free.entry(self.class).or_default();
        let place = free.partition_point(|(id, _)| *id > self.id);
        free.insert(place, (self.id, self.raw.clone()));
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    next_id: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// By class, the largest number first. The smallest number is handed out first: then what a step gets depends on
    /// nothing but the step, and every step meets the bind groups of the one before.
    free: FxHashMap<u64, Vec<(u64, wgpu::Buffer)>>,
    /// Handed out.
    live: u64,
    /// Set aside on the device: live and free.
    reserved: u64,
    peak: u64,
    /// Op name: buffers and bytes that it made and that are alive.
    owners: FxHashMap<&'static str, (u64, u64)>,
    /// What happened, if nothing really happens: then all buffers are as small as can be.
    plan: Option<Vec<PlanEvent>>,
}

/// What the pool holds, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolReport {
    /// In use.
    pub live: u64,
    /// Set aside on the device, in use or free.
    pub reserved: u64,
    /// Most that were in use at once.
    pub peak: u64,
    /// Who made what is in use: op, buffers, bytes; sorted by name.
    pub owners: Vec<(&'static str, u64, u64)>,
}

#[derive(Debug, Default)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

/// The state is plain numbers and lists: a panic elsewhere cannot leave it half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The class of a size: eighths between powers of two, at least 256 bytes. At most 12.5 % is wasted.
fn class_of(bytes: u64) -> u64 {
    let bytes = bytes.max(256);
    let step = (bytes.next_power_of_two() / 16).max(256);
    bytes.div_ceil(step) * step
}

impl Pool {
    /// A pool that only plans.
    pub(crate) fn planning() -> Self {
        let pool = Self::default();
        lock(&pool.shared.state).plan = Some(Vec::new());
        pool
    }

    /// Adds to the plan, if there is one; the event is only made then.
    pub(crate) fn note(&self, event: impl FnOnce() -> PlanEvent) {
        if let Some(plan) = &mut lock(&self.shared.state).plan {
            plan.push(event());
        }
    }

    /// Takes the plan so far.
    pub(crate) fn take_plan(&self) -> Vec<PlanEvent> {
        lock(&self.shared.state).plan.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A buffer of at least `bytes`; its content is whatever was there.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] with the op and the bytes, [`Error::Limit`] beyond the device's largest buffer.
    pub(crate) fn take(
        &self,
        device: &wgpu::Device,
        max_buffer: u64,
        op: &'static str,
        bytes: u64,
    ) -> Result<Arc<Buffer>> {
        let class = class_of(bytes).min(max_buffer).max(bytes);
        if class > max_buffer {
            return Err(Error::Limit {
                op: op.to_owned(),
                message: format!(
                    "{bytes} bytes are more than the largest buffer of this device ({max_buffer}); use a smaller --batch or smaller slices"
                ),
            });
        }
        let mut state = lock(&self.shared.state);
        let (id, raw) = match state.free.get_mut(&class).and_then(Vec::pop) {
            Some(found) => found,
            None => {
                drop(state);
                let raw = self.create(device, op, class)?;
                state = lock(&self.shared.state);
                state.reserved += class;
                (self.shared.next_id.fetch_add(1, Ordering::Relaxed), raw)
            }
        };
        state.live += class;
        state.peak = state.peak.max(state.live);
        let owned = state.owners.entry(op).or_default();
        owned.0 += 1;
        owned.1 += class;
        if let Some(plan) = &mut state.plan {
            plan.push(PlanEvent::Allocated { buffer: id, op, bytes: class });
        }
        drop(state);
        Ok(Arc::new(Buffer { id, raw, class, owner: op, shared: Arc::clone(&self.shared) }))
    }

    fn create(&self, device: &wgpu::Device, op: &'static str, class: u64) -> Result<wgpu::Buffer> {
        let class = if lock(&self.shared.state).plan.is_some() { 256 } else { class };
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let raw = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(op),
            size: class,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let invalid = pollster::block_on(validation.pop());
        let exhausted = pollster::block_on(memory.pop());
        if exhausted.is_some() {
            return Err(Error::OutOfMemory { op: op.to_owned(), bytes: class, live: self.report().live });
        }
        match invalid {
            Some(error) => Err(Error::Gpu { op: op.to_owned(), message: error.to_string() }),
            None => Ok(raw),
        }
    }

    /// Bytes by which less is in use than at the peak.
    pub(crate) fn spare(&self) -> u64 {
        let state = lock(&self.shared.state);
        state.peak - state.live
    }

    pub(crate) fn report(&self) -> PoolReport {
        let state = lock(&self.shared.state);
        let mut owners: Vec<_> =
            state.owners.iter().filter(|(_, owned)| owned.0 > 0).map(|(op, owned)| (*op, owned.0, owned.1)).collect();
        owners.sort_unstable();
        PoolReport { live: state.live, reserved: state.reserved, peak: state.peak, owners }
    }

    /// Forgets the high-water mark: it starts again at what is in use now.
    pub(crate) fn reset_peak(&self) {
        let mut state = lock(&self.shared.state);
        state.peak = state.live;
    }

    /// Gives the free buffers back to the device.
    pub(crate) fn trim(&self) {
        let mut state = lock(&self.shared.state);
        let freed: u64 = state.free.iter().map(|(class, list)| class * list.len() as u64).sum();
        state.free.clear();
        state.reserved -= freed;
    }
}

#[cfg(test)]
mod tests {
    use super::class_of;

    #[test]
    fn classes_hold_what_was_asked_and_waste_little() {
        for bytes in [1, 255, 256, 257, 5000, 65536, 65537, 1 << 20, (1 << 27) + 4] {
            let class = class_of(bytes);
            assert!(class >= bytes && class.is_multiple_of(256), "{bytes} -> {class}");
            assert!(bytes < 4096 || class as f64 <= bytes as f64 * 1.126, "{bytes} -> {class}");
        }
        assert_eq!(class_of(1 << 27), 1 << 27);
    }
}
