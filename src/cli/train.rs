//! `shadegrad train`: from a folder of slices to weights.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use shadegrad::data::{Dataset, Split};
use shadegrad::eval::{JudgeOptions, Judgement};
use shadegrad::gpu::Tuned;
use shadegrad::models::{Model, weights};
use shadegrad::train::{EpochLog, EventWriter, Precision, RECIPES, TrainConfig, Trainer, load_state, save_state};
use shadegrad::{Device, Error, Result};

use super::network::NetworkFlags;
use super::weights::{Weights, open};
use super::{bar, catch_interrupt, eval, interrupted, make_folder, report, write_text};

/// Train a network on a folder of slices.
///
/// Examples:
///   shadegrad train --data lgg/kaggle_3m
///   shadegrad train --data lgg/kaggle_3m --out runs/a --epochs 40 --batch 16 --lr 2e-3
///   shadegrad train --data lgg/kaggle_3m --val TCGA_CS_6665_20010817,TCGA_HT_7879_19981009
///   shadegrad train --data lgg/kaggle_3m --model unet --base 16
///   shadegrad train --data slices --size 256
///   shadegrad train --data lgg/kaggle_3m --out runs/a --resume
///   shadegrad train --data lgg/kaggle_3m --out runs/b --weights unext.pth
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct TrainArgs {
    /// Folder in Kaggle's layout: one folder a patient, NAME_1.tif with NAME_1_mask.tif
    #[arg(long, value_name = "DIR", env = "SHADEGRAD_DATA")]
    data: PathBuf,
    /// Where everything is written [default: runs/ and the model's name]
    #[arg(long, value_name = "DIR", env = "SHADEGRAD_OUT")]
    out: Option<PathBuf>,
    /// Network: unext, unet or resunet
    #[arg(long, env = "SHADEGRAD_MODEL")]
    model: Option<Model>,
    #[command(flatten)]
    network: NetworkFlags,
    /// Start from these weights (.safetensors, or PyTorch's .pth) instead of random ones; the network is theirs
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    weights: Option<PathBuf>,
    /// lgg-unext, lgg-unet, lgg-resunet (for new patients), seed-1, seed-2, seed-3 (as published), or a config.toml to start from (that of another run, for example)
    #[arg(long, value_name = "NAME|FILE", env = "SHADEGRAD_RECIPE")]
    recipe: Option<String>,
    /// Passes over the training slices, e.g. 20
    #[arg(long, env = "SHADEGRAD_EPOCHS")]
    epochs: Option<usize>,
    /// Stop after so many steps, e.g. 100
    #[arg(long, env = "SHADEGRAD_STEPS")]
    steps: Option<usize>,
    /// Slices of a step, e.g. 8
    #[arg(long, env = "SHADEGRAD_BATCH")]
    batch: Option<usize>,
    /// Bring slices to so many rows and columns, e.g. 256 [default: as the files have them]
    #[arg(long, env = "SHADEGRAD_SIZE")]
    size: Option<usize>,
    /// Highest learning rate, e.g. 1e-3
    #[arg(long, env = "SHADEGRAD_LR")]
    lr: Option<f64>,
    /// f32, or f16 for mixed precision: half the memory for activations, where the GPU has 16-bit floats [default: f32]
    #[arg(long, value_name = "f32|f16", env = "SHADEGRAD_PRECISION")]
    precision: Option<Precision>,
    /// Seed of the start, the order and the augmentation, e.g. 7
    #[arg(long, env = "SHADEGRAD_SEED")]
    seed: Option<u64>,
    /// auto, cpu, or part of an adapter's name (lavapipe is only used when named)
    #[arg(long, default_value = "auto", env = "SHADEGRAD_DEVICE")]
    device: String,
    /// patient (never mixes a patient), slice (leaks patients between the parts), or a split.csv [default: patient]
    #[arg(long, env = "SHADEGRAD_SPLIT")]
    split: Option<String>,
    /// Patients that validate, by folder name, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "P1,P2", env = "SHADEGRAD_VAL")]
    val: Vec<String>,
    /// Go on with the run in --out, or begin it if there is none yet
    #[arg(long)]
    resume: bool,
    /// Any setting of config.toml, e.g. --set dice=sample --set augment=strong --set augment.rotate=15
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the plan and the bytes, train nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the log lines as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &TrainArgs) -> Result<()> {
    let start = args.weights.as_ref().map(|file| open(file, None)).transpose()?;
    let config = settings(args, start.as_ref())?;
    config.check()?;
    let device = super::open(&args.device)?;
    let dataset = read(&args.data, config.size, args.json)?;
    let split = split(args, &dataset, &config)?;
    let mut trainer = Trainer::new(&device, &dataset, &config)?;
    if let Some(start) = &start {
        weights::load_dict(&mut trainer.net, &start.dict)?;
    }
    if !args.json {
        let parameters = trainer.net.parameters().count();
        println!("{} on {device}: {parameters} parameters", config.model);
        println!(
            "{} training slices, {} validation slices of {}",
            split.train.len(),
            split.val.len(),
            split.val_patients(&dataset).join(", ")
        );
        if trainer.precision() != config.precision {
            println!("note: {device} has no 16-bit floats; everything is f32");
        }
        if !split.by_patient {
            println!("warning: the split is by slice, so patients leak: the figures measure memory, not skill");
        }
    }
    if args.dry_run {
        let memory = device.memory();
        println!("{}", toml_text(&config)?);
        println!("{} bytes are on the device before the first step", memory.live);
        return Ok(());
    }
    catch_interrupt();
    session(&mut trainer, &dataset, &split, &out_folder(args, config.model), args.resume, args.json).map(drop)
}

/// The run folder: `--out`, or one named after the model.
fn out_folder(args: &TrainArgs, model: Model) -> PathBuf {
    args.out.clone().unwrap_or_else(|| Path::new("runs").join(model.name()))
}

/// The settings: those of the run or recipe, changed by the flags.
fn settings(args: &TrainArgs, weights: Option<&Weights>) -> Result<TrainConfig> {
    let kept = out_folder(args, args.model.unwrap_or(TrainConfig::default().model)).join("config.toml");
    let start = match (&args.recipe, args.resume) {
        // A run that was begun keeps its settings; the flags may still change them.
        (_, true) if kept.exists() => read_config(&kept)?,
        (Some(name), _) => recipe(name)?,
        (None, _) => TrainConfig::default(),
    };
    let mut config = start;
    let TrainArgs { model, epochs, steps, batch, size, lr, precision, seed, .. } = args;
    let mut network = weights.map_or(config.network(), |weights| weights.config.network());
    network.model = model.unwrap_or(network.model);
    args.network.apply(&mut network)?;
    config.set_network(&network);
    config.epochs = epochs.unwrap_or(config.epochs);
    config.steps = steps.unwrap_or(config.steps);
    config.batch = batch.unwrap_or(config.batch);
    config.size = size.unwrap_or(config.size);
    config.lr = lr.unwrap_or(config.lr);
    config.min_lr = config.min_lr.min(config.lr);
    config.precision = precision.unwrap_or(config.precision);
    config.seed = seed.unwrap_or(config.seed);
    if let Some(split) = &args.split {
        config.split.clone_from(split);
    }
    set(config, &args.set)
}

/// Applies `--set key=value`, one after the other: --set augment=strong --set augment.rotate=15
pub(crate) fn set(mut config: TrainConfig, pairs: &[String]) -> Result<TrainConfig> {
    let wrong = |text: String| Error::Config(text);
    for pair in pairs {
        let mut table = toml::Table::try_from(&config).map_err(|error| wrong(error.to_string()))?;
        let (key, value) = pair.split_once('=').ok_or_else(|| wrong(format!("--set {pair}: write key=value")))?;
        // A bare word is a string: --set dice=sample
        let parsed = format!("v = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("v"));
        let value = parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()));
        let (outer, key) = key.trim().rsplit_once('.').map_or((None, key.trim()), |(outer, key)| (Some(outer), key));
        let place = match outer {
            Some(outer) => table.get_mut(outer).and_then(toml::Value::as_table_mut),
            None => Some(&mut table),
        };
        place.ok_or_else(|| wrong(format!("--set {pair}: there is no such table")))?.insert(key.to_owned(), value);
        config = table.try_into().map_err(|error| wrong(format!("--set {pair}: {error}")))?;
    }
    Ok(config)
}

/// A recipe by name, or from a file.
pub(crate) fn recipe(name: &str) -> Result<TrainConfig> {
    if let Some((_, text)) = RECIPES.iter().find(|(known, _)| *known == name) {
        return toml::from_str(text).map_err(|error| Error::Config(format!("recipe {name}: {error}")));
    }
    let path = Path::new(name);
    if !path.exists() {
        let names: Vec<_> = RECIPES.iter().map(|(name, _)| *name).collect();
        let message = format!("--recipe {name} is no file and no recipe; there are: {}", names.join(", "));
        return Err(Error::Config(message));
    }
    read_config(path)
}

/// Reads a `config.toml`.
pub(crate) fn read_config(path: &Path) -> Result<TrainConfig> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    toml::from_str(&text).map_err(|error| Error::Config(format!("{}: {error}", path.display())))
}

fn toml_text(config: &TrainConfig) -> Result<String> {
    toml::to_string(config).map_err(|error| Error::Config(error.to_string()))
}

/// Reads a data set with a progress bar; `size` as in [`TrainConfig`].
pub(crate) fn read(folder: &Path, size: usize, quiet: bool) -> Result<Dataset> {
    let bar = bar("reading slices", quiet);
    let dataset = Dataset::read_resized(folder, size, &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    Ok(dataset)
}

fn split(args: &TrainArgs, dataset: &Dataset, config: &TrainConfig) -> Result<Split> {
    let kept = out_folder(args, config.model).join("split.csv");
    if !args.val.is_empty() {
        return Split::by_names(dataset, &args.val);
    }
    if args.resume && kept.exists() {
        return Split::read_csv(dataset, &kept);
    }
    let seed = config.split_seed.unwrap_or(config.seed);
    match config.split.as_str() {
        "patient" => Split::by_patient(dataset, config.val_fraction, seed),
        "slice" => Split::by_slice(dataset, config.val_fraction, seed),
        file => Split::read_csv(dataset, Path::new(file)),
    }
}

/// What goes into the metadata of a weight file: enough to build the network again.
pub(crate) fn about(config: &TrainConfig) -> Result<HashMap<String, String>> {
    Ok(HashMap::from([("config".to_owned(), toml_text(config)?)]))
}

/// A lock on the run folder: two runs into one folder are refused. Freed with the file handle, also after a kill.
fn lock(out: &Path) -> Result<File> {
    let path = out.join("lock");
    let file = File::create(&path).map_err(Error::io("write", &path))?;
    file.try_lock()
        .map_err(|_| Error::Config(format!("{} is in use by another run; give another --out", out.display())))?;
    Ok(file)
}

/// Trains to the end, keeping best and last weights, the log, and at the end the overlays. Returns what the best
/// weights reach on the validation slices, and their loss.
pub(crate) fn session(
    trainer: &mut Trainer,
    dataset: &Dataset,
    split: &Split,
    out: &Path,
    resume: bool,
    json: bool,
) -> Result<(Judgement, f64)> {
    make_folder(out)?;
    let _lock = lock(out)?;
    let state = out.join("state.safetensors");
    if resume {
        // Killed before its first checkpoint, a run begins again: the same bits.
        if state.exists() {
            load_state(trainer, &state)?;
        }
        trim_log(&out.join("log.jsonl"), trainer.progress.epoch)?;
    } else if state.exists() {
        let message = format!("{} holds a run already; go on with --resume, or give another --out", out.display());
        return Err(Error::Config(message));
    }
    let config = trainer.config.clone();
    write_text(&out.join("config.toml"), &toml_text(&config)?)?;
    split.write_csv(dataset, &out.join("split.csv"))?;
    let tuned = match trainer.device() {
        Device::Gpu(context) => context.tuned_answers(),
        Device::Cpu(_) => Tuned::default(),
    };
    let environment = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "device": trainer.device().to_string(),
        "driver": trainer.device().driver(),
        "threads": rayon::current_num_threads(),
        "kernels": tuned.changes(),
        "data": dataset.root,
    });
    write_text(&out.join("env.json"), &format!("{environment:#}\n"))?;
    let mut log = Log::open(&out.join("log.jsonl"), json, config.train_iou)?;
    let mut events = EventWriter::create(out, trainer.progress.step)?;
    while !trainer.is_done() {
        let bar = bar("training", json);
        let epoch = format!("epoch {}/{}", trainer.progress.epoch + 1, config.epochs);
        let result = trainer.epoch(split, dataset, &mut |step, steps, loss| {
            show_step(&bar, &epoch, (step, steps), loss, config.batch);
            !interrupted()
        });
        bar.finish_and_clear();
        events.losses(&trainer.take_losses())?;
        let line = match result {
            Ok(line) => line,
            Err(Error::Interrupted) => {
                save_state(trainer, &state)?;
                return Err(Error::Interrupted);
            }
            Err(error) => return Err(error),
        };
        // What is evaluated, saved and shown is the average of the weights, where one is kept.
        trainer.swap_average()?;
        if line.best {
            weights::save(&mut trainer.net, &out.join("best.safetensors"), &about(&config)?)?;
        }
        weights::save(&mut trainer.net, &out.join("last.safetensors"), &about(&config)?)?;
        eval::log_pictures(&mut events, trainer, dataset, &split.val)?;
        trainer.swap_average()?;
        log.write(&line)?;
        events.epoch(trainer.progress.step, &line)?;
        save_state(trainer, &state)?;
    }
    let best_file = out.join("best.safetensors");
    if best_file.exists() {
        weights::load(&mut trainer.net, &best_file)?;
    }
    let options = JudgeOptions { largest_component: config.largest_component, ..JudgeOptions::new(config.batch) };
    let (judgement, loss) = trainer.judge(dataset, &split.val, options, false)?;
    eval::draw_overlays(dataset, &split.val, &judgement.masks, &out.join("overlays"))?;
    let page = report::write(out, dataset, split, &judgement, loss)?;
    if !json {
        let dice = judgement.metrics.dice_volume_mean;
        println!("best weights: mean volume Dice {dice:.4}; everything is in {}", out.display());
        println!("open {} in a browser; curves also with `tensorboard --logdir {}`", page.display(), out.display());
        let memory = trainer.device().memory();
        println!("peak memory on the device {:.1} MiB", memory.peak as f64 / 1048576.0);
    }
    Ok((judgement, loss))
}

/// The step on the bar, with the latest loss known (0 until the first arrives) and the images a second.
fn show_step(bar: &ProgressBar, epoch: &str, (step, steps): (usize, usize), loss: f64, batch: usize) {
    bar.set_length(steps as u64);
    bar.set_position(step as u64);
    if step == steps {
        bar.set_message(format!("{epoch}  validating"));
    } else if loss > 0.0 {
        let speed = bar.per_sec() * batch as f64;
        bar.set_message(format!("{epoch}  loss {loss:.4}  {speed:.1} images/s"));
    } else {
        bar.set_message(epoch.to_owned());
    }
}

/// Drops log lines of epochs that will be run again.
fn trim_log(path: &Path, epoch: usize) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(()) };
    let kept: Vec<&str> = text.lines().take(epoch).collect();
    write_text(path, &kept.iter().map(|line| format!("{line}\n")).collect::<String>())
}

/// `log.jsonl`, and the same on the terminal.
struct Log {
    path: PathBuf,
    file: File,
    json: bool,
    /// Whether it was said that mixed precision was given up.
    fell_back: bool,
}

impl Log {
    fn open(path: &Path, json: bool, train_iou: bool) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io("write", path))?;
        if !json {
            // With train_iou the names are those of UNeXt-pytorch's log; val_dice is pooled by batch there.
            if train_iou {
                println!("epoch    loss     iou  val_loss  val_iou  val_dice  volume Dice  images/s       lr  seconds");
            } else {
                println!("epoch  train loss  val loss  val IoU  volume Dice  images/s  device       lr  seconds");
            }
        }
        Ok(Self { path: path.to_owned(), file, json, fell_back: false })
    }

    fn write(&mut self, line: &EpochLog) -> Result<()> {
        let text = serde_json::to_string(line).map_err(|error| Error::Config(error.to_string()))?;
        writeln!(self.file, "{text}").map_err(Error::io("write", &self.path))?;
        if self.json {
            println!("{text}");
            return Ok(());
        }
        let mark = if line.best { " *" } else { "" };
        if let Some(iou) = line.train_iou {
            println!(
                "{:>5}  {:>6.4}  {iou:>6.4}  {:>8.4}  {:>7.4}  {:>8.4}  {:>11.4}  {:>8.1}  {:>7.1e}  {:>7.1}{mark}",
                line.epoch,
                line.train_loss,
                line.val_loss,
                line.val_iou,
                line.val_dice_batch,
                line.val_dice,
                line.images_per_second,
                line.lr,
                line.seconds
            );
            self.warn(line);
            return Ok(());
        }
        println!(
            "{:>5}  {:>10.4}  {:>8.4}  {:>7.4}  {:>11.4}  {:>8.1}  {:>6}  {:>7.1e}  {:>7.1}{mark}",
            line.epoch,
            line.train_loss,
            line.val_loss,
            line.val_iou,
            line.val_dice,
            line.images_per_second,
            line.device_share.map_or("-".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
            line.lr,
            line.seconds
        );
        self.warn(line);
        Ok(())
    }

    fn warn(&mut self, line: &EpochLog) {
        if line.predicted_pixels == 0 {
            println!("       warning: the network predicts nothing on the validation slices");
        }
        if let (Some(scale), Some(skipped @ 1..)) = (line.loss_scale, line.skipped_steps) {
            println!(
                "       {skipped} steps skipped: a gradient was too large for 16-bit floats; loss scale now {scale}"
            );
        }
        if line.fell_back && !std::mem::replace(&mut self.fell_back, true) {
            println!("       warning: 16-bit floats are too small for this run; it goes on in f32");
        }
    }
}
