//! `SHADEGRAD_TRACE=file`: what the host and the device did and when, as a Chrome trace.
//!
//! The file opens in <https://ui.perfetto.dev> or `chrome://tracing`. Host spans are phases of a step, ops, flushes,
//! read-backs and compilations, a row per thread; device spans are single dispatches, where the adapter has
//! timestamps. The device's clock has another zero: each submission's first dispatch is put at the moment of its
//! submission, so the start of a row may be early by the driver's latency while lengths and gaps are exact.
//!
//! The file is written whole when the last user of the device is gone, also after an error or Ctrl-C. A second device
//! of the same process adds to it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::Result;
use crate::data::write_atomically;

/// More spans than this are counted, not kept: a long run must not fill the memory with its diary.
const MOST: usize = 1 << 20;

/// The row of the device's dispatches; threads are numbered from 1.
const DEVICE_ROW: usize = 0;

/// Which process wrote a file: when it first began one. Numbers of processes come again, above all in containers.
static RUN: OnceLock<f64> = OnceLock::new();

/// The diary of one device.
#[derive(Debug)]
pub struct Trace {
    path: PathBuf,
    begin: Instant,
    /// Microseconds since 1970 at `begin`.
    begin_at: f64,
    diary: Mutex<Diary>,
}

#[derive(Debug, Default)]
struct Diary {
    spans: Vec<Entry>,
    dropped: u64,
    threads: Vec<ThreadId>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    category: &'static str,
    row: usize,
    /// Since `begin`, in seconds.
    start: f64,
    seconds: f64,
    note: String,
}

/// A span of the host's time: it ends when this is dropped.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped"]
pub(crate) struct Span {
    trace: Arc<Trace>,
    name: String,
    category: &'static str,
    start: Instant,
}

impl Drop for Span {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.trace.host(name, self.category, self.start);
    }
}

/// A dispatch on the device: when it ran in seconds of the trace, and what it was.
#[derive(Debug)]
pub(crate) struct DeviceSpan {
    pub(crate) label: String,
    pub(crate) start: f64,
    pub(crate) seconds: f64,
    pub(crate) note: String,
}

impl Trace {
    /// A diary that will be written to `path`; the file is tried at once, so that an hour's run does not fail at its end.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the file cannot be written.
    pub(crate) fn begin(path: &Path) -> Result<Arc<Self>> {
        let begin_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1e6);
        let mut trace = Self { path: path.to_owned(), begin: Instant::now(), begin_at, diary: Mutex::default() };
        if let Err(error) = trace.write() {
            trace.path.clear(); // said once is enough
            return Err(error);
        }
        Ok(Arc::new(trace))
    }

    /// Starts a span of this thread.
    pub(crate) fn span(self: &Arc<Self>, category: &'static str, name: impl Into<String>) -> Span {
        Span { trace: Arc::clone(self), name: name.into(), category, start: Instant::now() }
    }

    /// Seconds since the trace began.
    pub(crate) fn now(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    fn host(&self, name: String, category: &'static str, start: Instant) {
        let seconds = start.elapsed().as_secs_f64();
        let start = start.saturating_duration_since(self.begin).as_secs_f64();
        let thread = std::thread::current().id();
        let mut diary = self.diary();
        let known = diary.threads.iter().position(|other| *other == thread);
        let row = known.unwrap_or_else(|| {
            diary.threads.push(thread);
            diary.threads.len() - 1
        });
        diary.push(Entry { name, category, row: row + 1, start, seconds, note: String::new() });
    }

    /// Adds dispatches that ran on the device.
    pub(crate) fn device(&self, spans: impl IntoIterator<Item = DeviceSpan>) {
        let mut diary = self.diary();
        for DeviceSpan { label, start, seconds, note } in spans {
            diary.push(Entry { name: label, category: "device", row: DEVICE_ROW, start, seconds, note });
        }
    }

    fn diary(&self) -> std::sync::MutexGuard<'_, Diary> {
        // A list of finished entries: a panic elsewhere cannot leave it half-changed.
        self.diary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes everything so far, after what another device of this process wrote there.
    fn write(&self) -> Result<()> {
        let (process, run) = (std::process::id(), *RUN.get_or_init(|| self.begin_at));
        let earlier = std::fs::read(&self.path).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let earlier = earlier.filter(|found| found["otherData"]["run"] == json!(run));
        let first = earlier.as_ref().and_then(|found| found["otherData"]["begin_us"].as_f64()).unwrap_or(self.begin_at);
        let mut events = match earlier {
            Some(mut found) => found["traceEvents"].as_array_mut().map(std::mem::take).unwrap_or_default(),
            None => vec![
                json!({ "ph": "M", "name": "process_name", "pid": process, "tid": DEVICE_ROW, "args": { "name": "shadegrad" } }),
                json!({ "ph": "M", "name": "thread_name", "pid": process, "tid": DEVICE_ROW, "args": { "name": "device" } }),
            ],
        };
        let shift = self.begin_at - first;
        let diary = self.diary();
        events.extend(diary.spans.iter().map(|span| {
            let mut event = json!({
                "ph": "X", "name": span.name, "cat": span.category, "pid": process, "tid": span.row,
                "ts": span.start * 1e6 + shift, "dur": span.seconds * 1e6,
            });
            if !span.note.is_empty() {
                event["args"] = json!({ "what": span.note });
            }
            event
        }));
        let other = json!({ "run": run, "begin_us": first, "spans_beyond_the_limit": diary.dropped });
        drop(diary);
        let all = json!({ "displayTimeUnit": "ms", "otherData": other, "traceEvents": events });
        write_atomically(&self.path, all.to_string().as_bytes())
    }
}

impl Diary {
    fn push(&mut self, entry: Entry) {
        if self.spans.len() < MOST { self.spans.push(entry) } else { self.dropped += 1 }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty()
            && let Err(error) = self.write()
        {
            super::print(&format!("SHADEGRAD_TRACE: {error}"));
        }
    }
}
