//! Dispatches go into one open compute pass and reach the device together, once per flush.
//!
//! Parameters are uniform buffers cached by content, bind groups are cached by pipeline and buffers: a step that
//! repeats itself creates nothing (a bind group costs about 10 us, measured).
//!
//! Nor does it look anything up: the list of what was recorded up to the last flush is followed for as long as the next
//! dispatch is the one that came at this place before, which is a comparison of some numbers. Training steps are alike,
//! down to the buffers, because the pool hands them out in a fixed order.
//!
//! A dispatch whose pipeline has not been compiled is put off, and so are all behind it, until the step is handed over. Then
//! their pipelines are compiled side by side: only a first step does that.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::pipeline::{Pipeline, Place};
use super::shader::Entry;
use crate::debug::Switches;
use crate::debug::trace::DeviceSpan;
use crate::{Error, Result};

/// More cached bind groups or uniforms than this are forgotten all at once, and no list is longer: a bound, not a tuning
/// knob.
const CACHE_LIMIT: usize = 8192;

/// What one bound range is: buffer id, offset, bytes.
pub(crate) type Range = (u64, u64, u64);

#[derive(Debug, PartialEq, Eq, Hash)]
struct BindKey {
    pipeline: usize,
    uniform: u64,
    ranges: Vec<Range>,
}

/// A dispatch that was recorded: what was asked for, and what that led to.
struct Recorded {
    entry: Entry,
    params: Vec<u8>,
    ranges: Vec<Range>,
    pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
}

/// Device time of one dispatch, when profiling is on.
#[derive(Debug, Clone)]
pub struct Timing {
    /// `shader.entry`.
    pub label: String,
    /// Device time, in seconds.
    pub seconds: f64,
    /// When it began, in seconds after the first dispatch of its flush.
    pub start: f64,
}

/// A dispatch on its way to be timed.
struct Launched {
    label: String,
    groups: [u32; 3],
    /// Of all bound tensors.
    bytes: u64,
    /// Their shapes, where the debug ladder wants them.
    note: String,
    /// Whether somebody will ask for its time.
    keep: bool,
}

/// Timestamps of the dispatches recorded since the last flush.
struct Profile {
    queries: wgpu::QuerySet,
    resolve: wgpu::Buffer,
    staging: wgpu::Buffer,
    launched: Vec<Launched>,
    /// Whether what is launched now is kept for [`Recorder::profile`].
    keep: bool,
    done: Vec<Timing>,
}

/// Dispatches that one flush can time.
const PROFILED: u32 = 2048;

#[derive(Default)]
pub(crate) struct Recorder {
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    bind_groups: FxHashMap<BindKey, wgpu::BindGroup>,
    uniforms: FxHashMap<Vec<u8>, (u64, wgpu::Buffer)>,
    next_uniform: u64,
    /// What was recorded since the last flush, up to `at`; from there on, what came at the same place in an earlier one.
    list: Vec<Recorded>,
    /// The place of the next dispatch.
    at: usize,
    /// In their order, behind what is in the pass.
    put_off: Vec<PutOff>,
    profile: Option<Profile>,
    /// Bind groups and uniforms made since the device was opened.
    pub(crate) made: u64,
    /// Since the device was opened.
    pub(crate) dispatches: u64,
    /// Since the device was opened: bytes of all bound tensors.
    pub(crate) traffic: u64,
    /// The last recorded kernel, to name in errors.
    pub(crate) last: String,
    switches: Switches,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Recorder").field("dispatches", &self.dispatches).finish_non_exhaustive()
    }
}

/// A range of a buffer.
#[derive(Debug)]
pub(crate) struct Bound<'a> {
    pub(crate) raw: &'a wgpu::Buffer,
    pub(crate) range: Range,
}

/// One dispatch, ready to be recorded.
pub(crate) struct Dispatch<'a> {
    pub(crate) entry: Entry,
    pub(crate) params: &'a [u8],
    /// In binding order.
    pub(crate) bound: SmallVec<[Bound<'a>; 8]>,
    pub(crate) groups: [u32; 3],
    /// Shapes of the bound tensors, where the debug ladder wants them.
    pub(crate) note: String,
}

impl Dispatch<'_> {
    fn ranges(&self) -> impl ExactSizeIterator<Item = Range> {
        self.bound.iter().map(|bound| bound.range)
    }

    /// Of all bound tensors.
    fn bytes(&self) -> u64 {
        self.ranges().map(|(_, _, bytes)| bytes).sum()
    }
}

/// A dispatch that waits for its pipeline, or for one before it. It does not keep its buffers from being handed out again:
/// what is then done with them comes later.
pub(crate) struct PutOff {
    pub(crate) place: Place,
    params: Vec<u8>,
    bound: Vec<(wgpu::Buffer, Range)>,
    groups: [u32; 3],
    note: String,
}

impl PutOff {
    /// The dispatch.
    pub(crate) fn work(&self) -> Dispatch<'_> {
        Dispatch {
            entry: self.place.key,
            params: &self.params,
            bound: self.bound.iter().map(|(raw, range)| Bound { raw, range: *range }).collect(),
            groups: self.groups,
            note: self.note.clone(),
        }
    }
}

/// The encoder of the step, opened by the first who needs it.
fn open<'a>(encoder: &'a mut Option<wgpu::CommandEncoder>, device: &wgpu::Device) -> &'a mut wgpu::CommandEncoder {
    encoder
        .get_or_insert_with(|| device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("step") }))
}

impl Recorder {
    pub(crate) fn new(switches: &Switches) -> Self {
        Self { switches: switches.clone(), ..Self::default() }
    }

    /// Counts a dispatch, recorded or put off.
    pub(crate) fn count(&mut self, work: &Dispatch<'_>) {
        self.dispatches += 1;
        self.traffic += work.bytes();
    }

    /// Keeps a dispatch for later.
    pub(crate) fn put_off(&mut self, place: Place, work: &Dispatch<'_>) {
        let bound = work.bound.iter().map(|bound| (bound.raw.clone(), bound.range)).collect();
        let (params, note) = (work.params.to_vec(), work.note.clone());
        self.put_off.push(PutOff { place, params, bound, groups: work.groups, note });
    }

    /// Whether dispatches are put off: then the next ones must be, too.
    pub(crate) fn puts_off(&self) -> bool {
        !self.put_off.is_empty()
    }

    /// The pipelines that are waited for.
    pub(crate) fn awaited(&self) -> Vec<Place> {
        self.put_off.iter().map(|put_off| put_off.place.clone()).collect()
    }

    /// What was put off, in its order.
    pub(crate) fn take_put_off(&mut self) -> Vec<PutOff> {
        std::mem::take(&mut self.put_off)
    }

    /// Whether the next dispatch is the one that came at this place before: then nothing needs to be looked up.
    pub(crate) fn repeats(&self, work: &Dispatch<'_>) -> bool {
        let known = self.list.get(self.at).filter(|_| !self.puts_off());
        known.is_some_and(|known| {
            known.entry == work.entry && known.params == work.params && known.ranges.iter().copied().eq(work.ranges())
        })
    }

    /// Finds or makes the bind group of a dispatch that does not [repeat](Self::repeats) itself, and puts it in its place.
    ///
    /// # Errors
    /// [`Error::Gpu`] naming the op when the driver refuses the bindings.
    fn look_up(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        pipeline: Arc<Pipeline>,
        work: &Dispatch<'_>,
    ) -> Result<()> {
        if self.bind_groups.len() > CACHE_LIMIT || self.uniforms.len() > CACHE_LIMIT {
            self.forget();
        }
        let group = self.bind_group(device, queue, &pipeline, work)?;
        let (params, ranges) = (work.params.to_vec(), work.ranges().collect());
        let new = Recorded { entry: work.entry, params, ranges, pipeline, group };
        match self.list.get_mut(self.at) {
            Some(place) => *place = new,
            None => self.list.push(new),
        }
        Ok(())
    }

    /// Adds a dispatch to the open pass. `pipeline` is its pipeline, which one that [repeats](Self::repeats) itself does
    /// without.
    ///
    /// # Errors
    /// [`Error::Gpu`] naming the op when the driver refuses the bindings; as [`flush`](Self::flush) when no more can be timed
    /// at once.
    pub(crate) fn dispatch(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        pipeline: Option<Arc<Pipeline>>,
        work: &Dispatch<'_>,
    ) -> Result<()> {
        if let Some(pipeline) = pipeline {
            self.look_up(device, queue, pipeline, work)?;
        }
        let Recorded { pipeline, group, .. } = &self.list[self.at];
        match &self.profile {
            Some(_) => self.pass = None, // a pass of its own for each timed dispatch
            None => self.switches.say(2, || format!("{} {:?} {}", pipeline.label, work.groups, work.note)),
        }
        let bytes = work.bytes();
        let pass = match &mut self.pass {
            Some(open) => open,
            None => {
                let encoder = open(&mut self.encoder, device);
                let timestamp_writes = self.profile.as_mut().map(|profile| {
                    let index = profile.launched.len() as u32;
                    profile.launched.push(Launched {
                        label: pipeline.label.clone(),
                        groups: work.groups,
                        bytes,
                        note: work.note.clone(),
                        keep: profile.keep,
                    });
                    wgpu::ComputePassTimestampWrites {
                        query_set: &profile.queries,
                        beginning_of_pass_write_index: Some(2 * index),
                        end_of_pass_write_index: Some(2 * index + 1),
                    }
                });
                let descriptor = wgpu::ComputePassDescriptor { label: Some(&pipeline.label), timestamp_writes };
                self.pass.insert(encoder.begin_compute_pass(&descriptor).forget_lifetime())
            }
        };
        pass.set_pipeline(&pipeline.raw);
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(work.groups[0], work.groups[1], work.groups[2]);
        self.last.clear();
        self.last.push_str(&pipeline.label);
        self.at = (self.at + 1) % CACHE_LIMIT;
        if self.profile.as_ref().is_some_and(|profile| profile.launched.len() as u32 == PROFILED) {
            self.flush(device, queue)?;
        }
        Ok(())
    }

    fn bind_group(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        pipeline: &Pipeline,
        work: &Dispatch<'_>,
    ) -> Result<wgpu::BindGroup> {
        let uniform = if work.params.is_empty() { None } else { Some(self.uniform(device, queue, work.params)) };
        let key = BindKey {
            pipeline: pipeline.id,
            uniform: uniform.as_ref().map_or(u64::MAX, |(id, _)| *id),
            ranges: work.ranges().collect(),
        };
        if let Some(found) = self.bind_groups.get(&key) {
            return Ok(found.clone());
        }
        let mut entries = Vec::with_capacity(work.bound.len() + 1);
        if let Some((_, raw)) = &uniform {
            entries.push(wgpu::BindGroupEntry { binding: 0, resource: raw.as_entire_binding() });
        }
        for (index, Bound { raw, range: (_, offset, bytes) }) in work.bound.iter().enumerate() {
            entries.push(wgpu::BindGroupEntry {
                binding: index as u32 + 1,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: raw,
                    offset: *offset,
                    size: std::num::NonZeroU64::new(*bytes),
                }),
            });
        }
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&pipeline.label),
            layout: &pipeline.layout,
            entries: &entries,
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::Gpu { op: pipeline.label.clone(), message: error.to_string() });
        }
        self.made += 1;
        self.bind_groups.insert(key, group.clone());
        Ok(group)
    }

    /// The uniform buffer that holds these bytes; written once and never changed.
    fn uniform(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, bytes: &[u8]) -> (u64, wgpu::Buffer) {
        if let Some((id, raw)) = self.uniforms.get(bytes) {
            return (*id, raw.clone());
        }
        let raw = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        // Written before the next submission runs, and this buffer has no earlier user.
        queue.write_buffer(&raw, 0, bytes);
        let id = self.next_uniform;
        self.next_uniform += 1;
        self.made += 1;
        self.uniforms.insert(bytes.to_vec(), (id, raw.clone()));
        (id, raw)
    }

    /// Forgets cached bind groups and uniforms (after a reload, or when there are too many).
    pub(crate) fn forget(&mut self) {
        self.bind_groups.clear();
        self.uniforms.clear();
        self.list.clear();
        self.at = 0;
    }

    /// Records a copy between buffers, after everything recorded so far.
    pub(crate) fn copy(
        &mut self,
        device: &wgpu::Device,
        from: (&wgpu::Buffer, u64),
        to: (&wgpu::Buffer, u64),
        bytes: u64,
    ) {
        self.pass = None;
        let encoder = open(&mut self.encoder, device);
        encoder.copy_buffer_to_buffer(from.0, from.1, to.0, to.1, Some(bytes));
    }

    /// Whether something is recorded that the device has not been given.
    pub(crate) fn pending(&self) -> bool {
        self.encoder.is_some()
    }

    /// Gives everything recorded to the device; does not wait for it.
    ///
    /// # Errors
    /// [`Error::Gpu`] naming the last recorded op.
    pub(crate) fn flush(&mut self, device: &wgpu::Device, queue: &wgpu::Queue) -> Result<()> {
        self.pass = None;
        self.at = 0;
        let Some(mut encoder) = self.encoder.take() else { return Ok(()) };
        let _span = self.switches.span("gpu", "flush");
        if let Some(profile) = &self.profile {
            let count = 2 * profile.launched.len() as u32;
            if count > 0 {
                encoder.resolve_query_set(&profile.queries, 0..count, &profile.resolve, 0);
                encoder.copy_buffer_to_buffer(&profile.resolve, 0, &profile.staging, 0, Some(u64::from(count) * 8));
            }
        }
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let submitted = self.switches.trace.as_ref().map_or(0.0, |trace| trace.now());
        queue.submit([encoder.finish()]);
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::Gpu { op: self.last.clone(), message: error.to_string() });
        }
        self.collect(device, queue, submitted)
    }

    /// Switches timing of every dispatch on or off. Off returns what was timed since it was switched on. While the
    /// debug ladder wants times, dispatches are always timed, only not kept.
    pub(crate) fn profile(&mut self, device: &wgpu::Device, on: bool) -> Vec<Timing> {
        let done = self.profile.as_mut().map(|profile| std::mem::take(&mut profile.done)).unwrap_or_default();
        if !on && !self.switches.times_dispatches() {
            self.profile = None;
            return done;
        }
        if self.profile.is_none() {
            let bytes = u64::from(PROFILED) * 16;
            let buffer = |label, usage| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(label),
                    size: bytes,
                    usage: usage | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            };
            self.profile = Some(Profile {
                queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("timestamps"),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2 * PROFILED,
                }),
                resolve: buffer("timestamps", wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
                staging: buffer("timestamps staging", wgpu::BufferUsages::MAP_READ),
                launched: Vec::new(),
                keep: false,
                done: Vec::new(),
            });
        }
        if let Some(profile) = &mut self.profile {
            profile.keep = on;
        }
        done
    }

    /// Reads the timestamps of the flush just submitted. Profiling may wait; training without it never does.
    fn collect(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, submitted: f64) -> Result<()> {
        let Some(profile) = &mut self.profile else { return Ok(()) };
        let count = profile.launched.len();
        if count == 0 {
            return Ok(());
        }
        let ticks = super::readback::map_now(device, &profile.staging, 0, count as u64 * 16)?;
        let ticks: &[u64] = bytemuck::try_cast_slice(&ticks)
            .map_err(|error| Error::Gpu { op: "timestamps".to_owned(), message: error.to_string() })?;
        let period = f64::from(queue.get_timestamp_period()) * 1e-9;
        let first = ticks.first().copied().unwrap_or(0);
        let mut spans = Vec::new();
        for (launched, pair) in profile.launched.drain(..).zip(ticks.chunks_exact(2)) {
            let seconds = pair[1].saturating_sub(pair[0]) as f64 * period;
            let start = pair[0].saturating_sub(first) as f64 * period;
            let Launched { label, groups, bytes, note, keep } = launched;
            let rate = bytes as f64 / seconds.max(1e-12) * 1e-9;
            self.switches.say(2, || {
                format!("{label} {groups:?} {:.3} ms, {rate:.2} GB/s of bound tensors {note}", seconds * 1e3)
            });
            if self.switches.trace.is_some() {
                let note = format!("{groups:?} groups, {bytes} bytes bound, {rate:.2} GB/s: {note}");
                spans.push(DeviceSpan { label: label.clone(), start: submitted + start, seconds, note });
            }
            if keep {
                profile.done.push(Timing { label, seconds, start });
            }
        }
        if let Some(trace) = &self.switches.trace {
            trace.device(spans);
        }
        Ok(())
    }
}
