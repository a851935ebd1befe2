//! `shadegrad watch`: an op's kernels are checked and timed again whenever their text is saved.
//!
//! The files are read ten times a second and compared as text: editors replace, truncate and rename files in ways that
//! notifications of the system report differently on every platform, and a few small files cost nothing to read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};
use shadegrad::gpu::{Assembled, Context, Replacement, Shader};
use shadegrad::models::{Model, ModelConfig};
use shadegrad::ops::SHADERS;
use shadegrad::{Device, Error, Result};

use super::bench::cases_launching;
use super::bench::harness::statistics::Summary;
use super::bench::harness::timing::Effort;
use super::bench::harness::{cases_of, shapes, time_case};
use super::own_shader::{gpu_of, shader_of};
use super::{bar, catch_interrupt, check, interrupted};

/// Check an op's kernels and time them whenever their shader is saved; Ctrl-C ends it.
///
/// The new text is compiled, compared with the f64 reference over all cases of the op, and timed beside the text before
/// it, where the code of an entry point has changed. A text that does not compile or is wrong is not used: the old
/// pipelines stay.
///
/// Examples:
///   shadegrad watch max_pool2d --device lavapipe
///   shadegrad watch conv2d --shaders my/shaders --runs 10
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct WatchArgs {
    /// The op
    #[arg(value_name = "OP", value_parser = PossibleValuesParser::new(SHADERS.iter().map(|shader| shader.name)), hide_possible_values = true)]
    op: String,
    /// auto, or part of an adapter's name
    #[arg(long, default_value = "auto", env = "SHADEGRAD_DEVICE")]
    device: String,
    /// The folder with the op's shader and lib/
    #[arg(long, value_name = "DIR", default_value = "shaders", env = "SHADEGRAD_SHADERS")]
    shaders: PathBuf,
    /// Runs of each timed case
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// End after this many saves
    #[arg(long, value_name = "N")]
    saves: Option<u32>,
    /// A JSON object for each verdict and each timed case
    #[arg(long)]
    json: bool,
}

/// Time between two looks at the files.
const LOOK: Duration = Duration::from_millis(50);

/// What is watched, and the text that is in use.
struct Watch<'a> {
    args: &'a WatchArgs,
    device: &'a Device,
    context: &'a Context,
    shader: &'static Shader,
    file: PathBuf,
    /// The last text that was right.
    good: Arc<Replacement>,
}

/// The text that the compiler would see, or why there is none.
type Text = std::result::Result<Assembled, String>;

/// Runs `shadegrad watch`.
///
/// # Errors
/// [`Error::Config`] without a GPU or without the op's shader in the folder, [`Error::DeviceLost`], and what timing
/// reports. A text that is wrong is said, and is no error.
pub(crate) fn run(args: &WatchArgs) -> Result<()> {
    let shader = shader_of(&args.op)?;
    let file = args.shaders.join(format!("{}.wgsl", args.op));
    if !file.is_file() {
        let message = "name the folder with --shaders (in a clone of the project it is shaders)";
        return Err(Error::Config(format!("there is no {}; {message}", file.display())));
    }
    let device = Device::open(&args.device)?;
    let context = gpu_of(&device, "watch")?;
    catch_interrupt();
    // Until a text of the folder is right, the built-in one is in use.
    let good = Arc::new(Replacement::edited(shader, shader.assemble(None, &[])?)?);
    context.replace(shader.name, Some(Arc::clone(&good)));
    let mut watch = Watch { args, device: &device, context, shader, file, good };
    watch.say(&format!("{device} {}", device.driver()));
    let mut seen = watch.read();
    watch.judge(&seen, 0)?;
    watch.say(&format!("watching {} and the pieces it includes; Ctrl-C ends", watch.file.display()));
    let mut saves = 0;
    while !interrupted() && args.saves.is_none_or(|most| saves < most) {
        std::thread::sleep(LOOK);
        let now = watch.read();
        if same(&now, &seen) {
            continue;
        }
        std::thread::sleep(LOOK);
        if !same(&now, &watch.read()) {
            continue; // it is just being written
        }
        saves += 1;
        if let Some(before) = watch.judge(&now, saves)? {
            watch.time(&before, &now)?;
        }
        seen = now;
    }
    watch.say(&format!("{saves} saves"));
    Ok(())
}

fn same(a: &Text, b: &Text) -> bool {
    match (a, b) {
        (Ok(a), Ok(b)) => a.text == b.text,
        (Err(a), Err(b)) => a == b,
        _ => false,
    }
}

impl Watch<'_> {
    fn read(&self) -> Text {
        Assembled::read(&self.file, Some(&self.args.shaders)).map_err(|error| error.to_string())
    }

    /// For people.
    fn say(&self, line: &str) {
        if !self.args.json {
            println!("{line}");
        }
    }

    /// For machines.
    fn tell(&self, object: &Value) {
        if self.args.json {
            println!("{object}");
        }
    }

    /// Compiles and checks a text, and says what came of it. If it is right it is used from now on, and the text before
    /// it is returned.
    fn judge(&mut self, text: &Text, save: u32) -> Result<Option<Arc<Replacement>>> {
        let assembled = text.as_ref().ok().filter(|_| save > 0);
        let saved = assembled.and_then(|text| saved_at(&self.file, &self.args.shaders, text));
        let replacement = match text.clone().map(|text| Replacement::edited(self.shader, text)) {
            Ok(Ok(replacement)) => Arc::new(replacement),
            Ok(Err(error)) => return self.refuse(save, saved, &[error.to_string()]),
            Err(message) => return self.refuse(save, saved, &[message]),
        };
        self.context.replace(self.shader.name, Some(Arc::clone(&replacement)));
        let verdict = check::judge(self.device, &[self.shader.name], "", false, &bar("checking", true), |_| ())?;
        if !verdict.ok() {
            self.context.replace(self.shader.name, Some(Arc::clone(&self.good)));
            let wrong: Vec<String> = verdict.wrong.iter().map(|line| format!("WRONG {line}")).collect();
            return self.refuse(save, saved, &wrong);
        }
        let seconds = since(saved);
        self.say(&format!(
            "{}right: {} comparisons with the f64 reference{}",
            numbered(save),
            verdict.passed,
            after(seconds)
        ));
        replacement.notes().iter().for_each(|note| self.say(&format!("  note: {note}")));
        self.tell(&json!({ "save": save, "ok": true, "passed": verdict.passed, "seconds": seconds }));
        Ok(Some(std::mem::replace(&mut self.good, replacement)))
    }

    /// Says why a text is not used.
    fn refuse(&self, save: u32, saved: Option<SystemTime>, reasons: &[String]) -> Result<Option<Arc<Replacement>>> {
        let seconds = since(saved);
        self.say(&format!("{}NOT USED{}; the old pipelines stay", numbered(save), after(seconds)));
        reasons.iter().take(SHOWN).for_each(|reason| self.say(&format!("  {reason}")));
        if reasons.len() > SHOWN {
            self.say(&format!("  and {} more", reasons.len() - SHOWN));
        }
        self.tell(&json!({ "save": save, "ok": false, "errors": reasons, "seconds": seconds }));
        Ok(None)
    }

    /// Times the entry points whose code has changed, with the text before it and with the one in use. Another save
    /// ends it.
    fn time(&self, before: &Arc<Replacement>, text: &Text) -> Result<()> {
        let changed = self.good.changed_from(before)?;
        if changed.is_empty() {
            self.say("  no entry point has other code: nothing to time");
            return Ok(());
        }
        let effort = Effort { runs: self.args.runs as usize, seconds: 1.0, cold: false };
        let layers = shapes::of_network(&ModelConfig::new(Model::Unext), 2, 128, &[self.shader.name])?;
        for case in cases_launching(cases_of(self.shader.name, &layers)?, &changed)? {
            let with = |text: &Arc<Replacement>| {
                self.context.replace(self.shader.name, Some(Arc::clone(text)));
                time_case(&case, self.device, effort, None)
            };
            let samples = with(before).and_then(|old| Ok((old, with(&self.good)?)));
            self.context.replace(self.shader.name, Some(Arc::clone(&self.good)));
            let (old, new) = samples?;
            let [old_ms, new_ms] = [&old, &new].map(|samples| 1e3 * Summary::of(&samples.seconds).median);
            let change = 100.0 * (new_ms / old_ms - 1.0);
            self.say(&format!(
                "  {:<15} {:<8} {:<40} {old_ms:>9.4} -> {new_ms:>9.4} ms {change:>+6.1} %",
                case.entry, case.version, case.case
            ));
            self.tell(&json!({ "entry": case.entry, "version": case.version, "case": case.case, "timer": new.timer,
                "before_ms": old_ms, "median_ms": new_ms, "change_percent": change }));
            if interrupted() || !same(text, &self.read()) {
                break;
            }
        }
        Ok(())
    }
}

/// Faults of a text that are shown.
const SHOWN: usize = 3;

fn numbered(save: u32) -> String {
    if save == 0 { String::new() } else { format!("save {save}: ") }
}

fn after(seconds: Option<f64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!(", {seconds:.2} s after the save"))
}

/// When the newest file of a text was written.
fn saved_at(file: &Path, folder: &Path, text: &Assembled) -> Option<SystemTime> {
    let pieces = text.files().into_iter().skip(1).map(|piece| folder.join(piece));
    let times =
        pieces.chain([file.to_owned()]).filter_map(|path| path.metadata().and_then(|data| data.modified()).ok());
    times.max()
}

fn since(saved: Option<SystemTime>) -> Option<f64> {
    Some(saved?.elapsed().ok()?.as_secs_f64())
}
