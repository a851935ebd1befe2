//! How long work takes. Which clock is used is said with every number (`timer`):
//! - `timestamps`: the device's own clock around every dispatch of a run, summed. What happens between dispatches (copies,
//!   recording, the driver) is not in it.
//! - `submission`: a GPU without timestamps. Many runs are recorded, the wall time until all are done is divided by their
//!   number; recording is in it. Cold runs are submitted one by one.
//! - `wall`: the CPU device, one call.

use std::time::{Duration, Instant};

use shadegrad::gpu::Context;
use shadegrad::{Device, Error, Result};

use super::ops::Work;
use super::peaks::Copy;

/// A recorded batch of runs should last this long, so that submitting it does not count.
const LONG: f64 = 0.05;
/// Runs of a batch at most: recording must not fill the memory.
const MOST: usize = 500;
/// The same for gradients, each of which keeps the tensors of its forward pass until it is timed.
const MOST_RECORDED: usize = 16;
/// A first run that is shorter than this did not warm up much more than the pipelines.
const SHORT: Duration = Duration::from_millis(200);

/// How much to time.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Samples at most.
    pub runs: usize,
    /// No new sample is begun after so many seconds; one is always taken.
    pub seconds: f64,
    /// Empty the caches before every run.
    pub cold: bool,
}

impl Effort {
    /// The share of one of several rounds, the first ones a run more where they do not divide.
    pub fn part(self, round: usize, rounds: usize) -> Self {
        Self { runs: (self.runs + rounds - 1 - round) / rounds, seconds: self.seconds / rounds as f64, ..self }
    }

    /// One sample.
    pub fn once(self) -> Self {
        Self { runs: 1, ..self }
    }
}

/// What was timed.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// Seconds of each run, in order, none of them 0.
    pub seconds: Vec<f64>,
    /// The clock.
    pub timer: Timer,
}

/// A clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timer {
    /// The device's own, around every dispatch.
    Timestamps,
    /// Wall time of a submission of many runs.
    Submission,
    /// Wall time of a call.
    #[default]
    Wall,
}

impl std::fmt::Display for Timer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(match self {
            Self::Timestamps => "timestamps",
            Self::Submission => "submission",
            Self::Wall => "wall",
        })
    }
}

impl Samples {
    /// Those of a result ([`Line`](super::line::Line)).
    ///
    /// # Errors
    /// [`Error::Config`] if it is none.
    pub fn from_json(line: &serde_json::Value) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Timed {
            samples_ms: Vec<f64>,
            timer: Timer,
        }
        let Timed { samples_ms, timer } = serde::Deserialize::deserialize(line)
            .map_err(|error: serde_json::Error| Error::Config(format!("a result without samples: {error}")))?;
        Ok(Self { seconds: samples_ms.into_iter().map(|ms| ms * 1e-3).collect(), timer })
    }

    /// Adds later ones.
    pub fn extend(&mut self, later: Self) {
        self.seconds.extend(later.seconds);
        self.timer = later.timer;
    }
}

/// Times work: a warm-up, then samples as the effort says. `flusher` empties the caches where the effort is cold; it is
/// made here where none is given.
///
/// # Errors
/// What the op or the device reports.
pub fn time(work: &Work, device: &Device, effort: Effort, flusher: Option<&Copy>) -> Result<Samples> {
    let own = if effort.cold && flusher.is_none() { Some(Copy::flusher(device)?) } else { None };
    let flusher = if effort.cold { flusher.or(own.as_ref()) } else { None };
    // Compiles the pipelines and fills the buffer pool.
    let start = Instant::now();
    work.ready()?()?;
    device.wait()?;
    if start.elapsed() < SHORT {
        work.ready()?()?;
        device.wait()?;
    }
    let once: Box<dyn Fn() -> Result<Option<f64>> + '_> = match device {
        Device::Cpu(_) => Box::new(|| wall(work, device, flusher).map(Some)),
        Device::Gpu(context) if context.has_timestamps() => Box::new(|| timestamps(work, context, flusher)),
        Device::Gpu(_) => Box::new(|| Ok(None)),
    };
    let mut seconds = Vec::with_capacity(effort.runs);
    let start = Instant::now();
    let more = |taken: usize| taken == 0 || (taken < effort.runs && start.elapsed().as_secs_f64() < effort.seconds);
    while more(seconds.len()) {
        match once()? {
            Some(sample) => seconds.push(sample),
            // No timestamps, or their clock is too coarse for this work.
            None => {
                seconds.clear();
                break;
            }
        }
    }
    if !seconds.is_empty() {
        return Ok(Samples {
            seconds,
            timer: if matches!(device, Device::Cpu(_)) { Timer::Wall } else { Timer::Timestamps },
        });
    }
    if flusher.is_some() {
        while more(seconds.len()) {
            seconds.push(wall(work, device, flusher)?);
        }
    } else {
        let count = ((LONG / wall(work, device, None)?).ceil() as usize).clamp(1, most(work));
        while more(seconds.len()) {
            seconds.push(submission(work, device, count)?);
        }
    }
    Ok(Samples { seconds, timer: Timer::Submission })
}

fn most(work: &Work) -> usize {
    match work {
        Work::Launch(_) => MOST,
        Work::Gradient { .. } => MOST_RECORDED,
    }
}

/// Wall time until one run is done.
fn wall(work: &Work, device: &Device, flusher: Option<&Copy>) -> Result<f64> {
    let ready = work.ready()?;
    flusher.map_or(Ok(()), Copy::run)?;
    device.wait()?;
    let start = Instant::now();
    ready()?;
    device.wait()?;
    Ok(start.elapsed().as_secs_f64().max(1e-9))
}

/// Device time of the dispatches of one run.
fn timestamps(work: &Work, context: &Context, flusher: Option<&Copy>) -> Result<Option<f64>> {
    let ready = work.ready()?;
    flusher.map_or(Ok(()), Copy::run)?;
    context.flush()?;
    context.start_profile()?;
    let done = ready();
    // Profiling is switched off even when the work failed.
    let timings = context.stop_profile()?;
    done?;
    let sum: f64 = timings.iter().map(|timing| timing.seconds).sum();
    Ok((sum > 0.0).then_some(sum))
}

/// Wall time of many runs, divided by their number.
fn submission(work: &Work, device: &Device, count: usize) -> Result<f64> {
    let ready: Vec<_> = (0..count).map(|_| work.ready()).collect::<Result<_>>()?;
    device.wait()?;
    let start = Instant::now();
    for run in ready {
        run()?;
    }
    device.wait()?;
    Ok((start.elapsed().as_secs_f64() / count as f64).max(1e-9))
}
