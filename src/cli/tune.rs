//! `shadegrad tune`: which kernel is the fastest for each size that a network uses. The answers are kept in the user's
//! cache folder, and `train`, `bench` and the others take the kernels that it found.
//!
//! The questions are those that the ops themselves ask while a training step is planned. Each kernel is checked before
//! it is timed, over all cases of its op against the f64 reference; and the fastest before it is kept, at the very size against
//! the CPU device. (Of a large network that takes the CPU seconds for a kernel: too long for all of them.)

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use clap::builder::PossibleValuesParser;
use serde_json::json;
use shadegrad::debug::{Checks, Switches};
use shadegrad::gpu::plan::PlanEvent;
use shadegrad::gpu::{Answer, Context, GpuOptions, Part, Question, Tuned};
use shadegrad::models::{Model, ModelConfig, build};
use shadegrad::ops::plan::Prepared;
use shadegrad::ops::{BceDice, Mode, bce_dice, matrix, text_hash};
use shadegrad::train::Precision;
use shadegrad::{Device, Error, Result, Tape};

use super::bench::harness::names;
use super::bench::harness::ops::Work;
use super::bench::harness::statistics::{Summary, mann_whitney};
use super::bench::harness::timing::{Effort, Samples, time};
use super::network::NetworkFlags;
use super::own_shader::gpu_of;
use super::{bar, catch_interrupt, check, interrupted};

/// Find the fastest kernels for the sizes of a network on this GPU, and keep them for train, bench and the others.
///
/// What is tried: the versions of an op's kernels that take a size, each with all numbers of its `// @tune` constants.
/// Another batch or image size is another question. SHADEGRAD_TUNE=0 goes back to the usual kernels.
///
/// Examples:
///   shadegrad tune unext --batch 8 --size 256
///   shadegrad tune unet --precision f16
///   shadegrad tune conv2d linear --dry-run
///   shadegrad tune unet --base 16 --batch 4 --device lavapipe
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct TuneArgs {
    /// Networks whose sizes are tuned [default: unext], and ops [default: all of them]
    #[arg(value_name = "NETWORK|OP", value_parser = PossibleValuesParser::new(names()), hide_possible_values = true)]
    names: Vec<String>,
    /// Images of a step
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    batch: usize,
    /// Rows and columns of an image
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = positive)]
    size: usize,
    #[command(flatten)]
    network: NetworkFlags,
    /// f32, or f16: the sizes of a step with mixed precision; convolutions that have matrix units for it are tuned for f16
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// auto, or part of an adapter's name
    #[arg(long, default_value = "auto", env = "SHADEGRAD_DEVICE")]
    device: String,
    /// Runs of each kernel at most; with fewer than 5 no difference is beyond chance, and every answer is the usual kernel
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Seconds for each kernel at most
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,
    /// Ask again what the cache has answered
    #[arg(long)]
    again: bool,
    /// List what would be tried on any GPU; needs none. Subgroups and matrix units come on top where a device has them
    #[arg(long)]
    dry_run: bool,
    /// A JSON object for each question, then one with the counts
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "must be a whole number above 0".to_owned())
}

/// A question and the kernels that could be its answer.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    question: Question,
    usual: String,
    candidates: Vec<String>,
}

/// Each kernel is timed so often, in turns with the others, so that what slows the machine down meets all.
const ROUNDS: usize = 3;
/// A kernel other than the usual one that takes so many times longer than the best is not timed again.
const HOPELESS: f64 = 2.0;
/// Another kernel than the usual one must save at least so much...
const GAIN: f64 = 0.03;
/// ... and chance must make such a difference less often than this.
const CHANCE: f64 = 0.01;

/// Runs `shadegrad tune`.
///
/// # Errors
/// No such device, a size that the network does not take, a file that cannot be written, and what the device reports. A
/// wrong kernel is said and left out.
pub(crate) fn run(args: &TuneArgs) -> Result<()> {
    let device = if args.dry_run { None } else { Some(Device::open(&args.device)?) };
    let asked = questions(args, device.as_ref())?;
    if asked.is_empty() {
        return Err(Error::Config(
            "there is nothing to choose: these ops have one kernel, or the network lacks them".to_owned(),
        ));
    }
    let Some(device) = device else {
        list(args, &asked);
        return Ok(());
    };
    let context = gpu_of(&device, "tune")?;
    let file = Tuned::file(context.switches.cache.as_deref(), context.facts())?;
    let hash = |op: &str| text_hash(context, op).ok();
    let mut tuned = match Tuned::read(&file, context.facts()) {
        Ok(tuned) => tuned.current(hash),
        Err(error) => {
            eprintln!("warning: {error}");
            Tuned::default()
        }
    };
    catch_interrupt();
    let mut open: Vec<&Asked> =
        asked.iter().filter(|asked| args.again || tuned.answer(&asked.question).is_none()).collect();
    let known = asked.len() - open.len();
    say(args, || {
        format!(
            "{device} {}\n{} questions, {known} of them answered in {}",
            device.driver(),
            asked.len(),
            file.display()
        )
    });
    let wrong = wrong_kernels(args, &device, &open)?;
    let bench = Bench { args, device: &device, context, judge: judge_of(context)? };
    let mut changed = 0;
    let count = open.len();
    for (number, asked) in open.drain(..).enumerate() {
        if interrupted() {
            say(args, || format!("stopped after {number} of {count} questions; their answers are kept"));
            break;
        }
        let Some(answer) = bench.answer(asked, &wrong, &hash(asked.question.op).unwrap_or_default())? else { continue };
        changed += usize::from(answer.kernel != answer.usual);
        tuned.insert(answer);
        tuned.write(&file, context.facts())?;
    }
    if args.json {
        let counts = json!({ "questions": asked.len(), "known": known, "changed": changed, "file": file });
        println!("{counts}");
    } else {
        println!("{changed} of {count} have a faster kernel than the usual one; kept in {}", file.display());
    }
    Ok(())
}

/// For people.
fn say(args: &TuneArgs, line: impl FnOnce() -> String) {
    if !args.json {
        println!("{}", line());
    }
}

/// What the ops of the named networks ask in a training step on a device, each question once. Matrix units that compute
/// something else than the other kernels are said and left out.
fn questions(args: &TuneArgs, device: Option<&Device>) -> Result<Vec<Asked>> {
    if let Some(fault) = device.and_then(matrix::fault) {
        eprintln!("WRONG {fault}");
    }
    let (models, ops): (Vec<_>, Vec<_>) = args.names.iter().partition(|name| name.parse::<Model>().is_ok());
    let models = if models.is_empty() {
        vec![Model::Unext]
    } else {
        models.iter().filter_map(|name| name.parse().ok()).collect()
    };
    let mut all: Vec<Asked> = Vec::new();
    for model in models {
        let mut config = ModelConfig::new(model);
        args.network.apply(&mut config)?;
        for event in planned_step(args, &config, device)? {
            if let PlanEvent::Asked { question, usual, candidates } = event
                && (ops.is_empty() || ops.iter().any(|op| *op == question.op))
                && all.iter().all(|known| known.question != question)
            {
                all.push(Asked { question, usual, candidates });
            }
        }
    }
    all.sort_by_key(|asked| asked.question.op); // the order of the step within an op
    Ok(all)
}

/// What would happen in a training step on a device; on any GPU, if none is given.
fn planned_step(args: &TuneArgs, config: &ModelConfig, real: Option<&Device>) -> Result<Vec<PlanEvent>> {
    let TuneArgs { batch, size, .. } = *args;
    let multiple = config.multiple();
    if !size.is_multiple_of(multiple) {
        return Err(Error::Config(format!("{} needs a --size that divides by {multiple}, got {size}", config.model)));
    }
    let real = real.map(|device| gpu_of(device, "tune")).transpose()?;
    let device = Device::plan(real.map(|context| context.facts().name.as_str()))?;
    if let Some(real) = real {
        gpu_of(&device, "a plan")?.share_fault(real);
    }
    let net = build(&device, config, 0)?;
    let images = device.empty_as("images", [batch, size, size, config.in_channels], args.precision.dtype())?;
    let tape = Tape::new();
    let logits = net.forward(&tape.watch(&images), Mode::Train)?;
    let loss = bce_dice(&logits, &device.empty("masks", logits.shape())?, &BceDice::batch())?;
    tape.backward(&loss)?;
    Ok(gpu_of(&device, "a plan")?.take_plan())
}

/// What would be tried.
fn list(args: &TuneArgs, asked: &[Asked]) {
    for Asked { question, usual, candidates } in asked {
        let Question { op, part, sizes } = question;
        if args.json {
            println!(
                "{}",
                json!({ "op": op, "part": part.name(), "sizes": sizes.to_string(), "usual": usual, "candidates": candidates })
            );
        } else {
            println!("{op:<18} {:<16} {:<34} {}", part.name(), sizes.to_string(), candidates.join(", "));
        }
    }
    let candidates: usize = asked.iter().map(|asked| asked.candidates.len()).sum();
    if args.json {
        println!("{}", json!({ "questions": asked.len(), "candidates": candidates }));
    } else {
        println!("{} questions with {candidates} kernels in all", asked.len());
    }
}

/// Runs all cases of the ops with every kernel; returns op and name of each kernel that is wrong.
fn wrong_kernels(args: &TuneArgs, device: &Device, asked: &[&Asked]) -> Result<BTreeSet<(String, String)>> {
    let ops: BTreeSet<&str> = asked.iter().map(|asked| asked.question.op).collect();
    let mut wrong = BTreeSet::new();
    for op in ops {
        let verdict = check::judge(device, &[op], "", false, &bar("checking", args.json), |_| ())?;
        for line in &verdict.wrong {
            eprintln!("WRONG {line}");
        }
        wrong.extend(verdict.wrong_versions().map(|version| (op.to_owned(), kernel_of(version).to_owned())));
    }
    Ok(wrong)
}

/// The kernel of a version of `check`, which also says what it was given: `v2 normed f16`.
fn kernel_of(version: &str) -> &str {
    [" f16", " normed", " joined"].iter().fold(version, |rest, given| rest.strip_suffix(given).unwrap_or(rest))
}

/// The same adapter once more, on which each op is compared with the CPU device.
fn judge_of(context: &Context) -> Result<Device> {
    let options = GpuOptions { name: Some(context.facts().name.clone()), ..Default::default() };
    let switches = Switches { checks: Some(Arc::new(Checks::quiet())), trace: None, ..context.switches.clone() };
    Context::open_with(&options, switches).map(Device::Gpu)
}

/// Where kernels are checked and timed.
struct Bench<'a> {
    args: &'a TuneArgs,
    device: &'a Device,
    context: &'a Context,
    judge: Device,
}

impl Bench<'_> {
    /// Times the candidates of a question, checks the fastest and says what came of it; `None` if not even the usual kernel is
    /// right.
    fn answer(&self, asked: &Asked, wrong: &BTreeSet<(String, String)>, shader: &str) -> Result<Option<Answer>> {
        let Asked { question, usual, candidates } = asked;
        let not_wrong = |kernel: &&str| !wrong.contains(&(question.op.to_owned(), (*kernel).to_owned()));
        let kernels: Vec<&str> = candidates.iter().map(String::as_str).filter(not_wrong).collect();
        let mut times = self.time(question, usual, &kernels)?;
        self.context.use_tuned(Tuned::default());
        self.context.trim();
        let (kernel, ms, usual_ms) = loop {
            let Some((kernel, ms, usual_ms)) = fastest(&times, usual) else {
                eprintln!("WRONG {question}: {usual}, the usual kernel, is not right here; no answer is kept");
                return Ok(None);
            };
            match self.check(question, kernel) {
                Ok(()) => break (kernel, ms, usual_ms),
                Err(error @ Error::Check { .. }) => eprintln!("WRONG {question} {kernel}: {error}"),
                Err(error) => return Err(error),
            }
            times.retain(|(name, _)| *name != kernel);
        };
        self.say(question, usual, kernel, &times);
        Ok(Some(Answer {
            op: question.op.to_owned(),
            question: question.to_string(),
            shader: shader.to_owned(),
            kernel: kernel.to_owned(),
            ms,
            usual: usual.clone(),
            usual_ms,
        }))
    }

    fn say(&self, question: &Question, usual: &str, kernel: &str, times: &[(&str, Vec<f64>)]) {
        let Question { op, part, sizes } = question;
        let medians: Vec<(&str, f64)> =
            times.iter().map(|(name, samples)| (*name, 1e3 * Summary::of(samples).median)).collect();
        if self.args.json {
            let times: Vec<_> = medians.iter().map(|(name, ms)| json!({ "kernel": name, "median_ms": ms })).collect();
            println!(
                "{}",
                json!({ "op": op, "part": part.name(), "sizes": sizes.to_string(), "usual": usual, "kernel": kernel, "times": times })
            );
            return;
        }
        let times: Vec<String> = medians.iter().map(|(name, ms)| format!("{name} {ms:.3}")).collect();
        let mark = if kernel == usual { "as usual" } else { kernel };
        println!("{op:<18} {:<16} {:<34} {mark:<20} ms: {}", part.name(), sizes.to_string(), times.join(", "));
    }

    /// Runs a kernel on random numbers where every op is compared with the CPU device.
    fn check(&self, question: &Question, kernel: &str) -> Result<()> {
        let context = gpu_of(&self.judge, "tune")?;
        context.use_tuned(only(question, kernel));
        let prepared = Prepared::new(question.op, &self.judge, question.sizes)?;
        let tape = Tape::new();
        if let Some(y) = prepared.record(&tape, question.part)?
            && question.part != Part::Forward
        {
            tape.backward_from(&y, &prepared.gradient_of(&y)?)?;
        }
        context.wait()?;
        context.trim();
        Ok(())
    }

    /// Seconds of the runs of each kernel.
    fn time<'k>(&self, question: &Question, usual: &str, kernels: &[&'k str]) -> Result<Vec<(&'k str, Vec<f64>)>> {
        let works = works(question, self.device)?;
        let effort = Effort { runs: self.args.runs as usize, seconds: self.args.seconds, cold: false };
        let mut times: Vec<(&str, Vec<f64>)> = kernels.iter().map(|kernel| (*kernel, Vec::new())).collect();
        let rounds = ROUNDS.min(effort.runs);
        for round in 0..rounds {
            let best = times.iter().map(|(_, samples)| Summary::of(samples).median).fold(f64::INFINITY, f64::min);
            for (kernel, samples) in &mut times {
                // The usual one is what others are compared with, however slow it is.
                if *kernel != usual && Summary::of(samples).median > HOPELESS * best {
                    continue;
                }
                self.context.use_tuned(only(question, kernel));
                let parts: Vec<Samples> = works
                    .iter()
                    .map(|work| time(work, self.device, effort.part(round, rounds), None))
                    .collect::<Result<_>>()?;
                let runs = parts.iter().map(|part| part.seconds.len()).min().unwrap_or(0);
                samples.extend((0..runs).map(|run| parts.iter().map(|part| part.seconds[run]).sum::<f64>()));
            }
        }
        Ok(times)
    }
}

/// The fastest kernel if its lead is beyond chance, else the usual one; its median time and that of the usual one, in milliseconds. `None`
/// without times of the usual one.
fn fastest<'k>(times: &[(&'k str, Vec<f64>)], usual: &str) -> Option<(&'k str, f64, f64)> {
    let median = |samples: &[f64]| 1e3 * Summary::of(samples).median;
    let (usual, usual_samples) = times.iter().find(|(name, _)| *name == usual)?;
    let (best, samples) = times.iter().min_by(|a, b| median(&a.1).total_cmp(&median(&b.1)))?;
    let leads =
        median(samples) < (1.0 - GAIN) * median(usual_samples) && mann_whitney(samples, usual_samples).p < CHANCE;
    let kernel = if leads { *best } else { *usual };
    Some((kernel, median(if leads { samples } else { usual_samples }), median(usual_samples)))
}

/// This answer and no other.
fn only(question: &Question, kernel: &str) -> Tuned {
    let mut tuned = Tuned::default();
    tuned.insert(Answer {
        op: question.op.to_owned(),
        question: question.to_string(),
        shader: String::new(),
        kernel: kernel.to_owned(),
        ms: 0.0,
        usual: String::new(),
        usual_ms: 0.0,
    });
    tuned
}

/// What is timed of an op: the part that the kernel is for.
fn works(question: &Question, device: &Device) -> Result<Vec<Work>> {
    let Question { op, part, sizes } = *question;
    let prepared = Rc::new(Prepared::new(op, device, sizes)?);
    let no_gradient = move || Error::Tape(format!("{op} has no gradient to time"));
    let mut works = Vec::new();
    if part != Part::Forward {
        let gy = prepared.gradient_of(&prepared.forward()?.ok_or_else(no_gradient)?)?;
        let prepared = Rc::clone(&prepared);
        let record = move || {
            let tape = Tape::new();
            let y = prepared.record(&tape, part)?;
            Ok((tape, y.ok_or_else(no_gradient)?))
        };
        works.push(Work::Gradient { record: Box::new(record), gy });
    }
    if matches!(part, Part::Forward | Part::Both) {
        works.push(Work::Launch(Box::new(move || prepared.forward().map(drop))));
    }
    Ok(works)
}
