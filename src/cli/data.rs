//! `shadegrad data`: looks at a folder before training, or makes a synthetic set.

#![allow(clippy::print_stdout, reason = "printing is what this command is for")]

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use shadegrad::data::phantom::{PhantomSettings, write_phantom};
use shadegrad::data::{AugmentConfig, Dataset, Inspection, Rescale};
use shadegrad::eval::overlay::{Tile, contact_sheet, outlined};
use shadegrad::ops::{Sample, SliceBytes, Slices, load_batch};
use shadegrad::train::TrainConfig;
use shadegrad::{Device, Error, Result};

use super::train;

/// Look at a data set, or make a synthetic one.
#[derive(Debug, clap::Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DataCommand {
    /// Count patients, slices and tumour pixels, and list every problem with its file.
    Inspect(InspectArgs),
    /// Write a synthetic set of heads with tumours in the layout of the real one.
    Sample(SampleArgs),
    /// Draw slices as the network sees them: as they are, augmented, and each kind of augmentation alone.
    Preview(PreviewArgs),
}

#[derive(Debug, clap::Args)]
struct InspectArgs {
    /// The folder that holds kaggle_3m (or kaggle_3m itself).
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print one JSON object: patients, slices, tumour_slices, tumour_pixels, problems.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct SampleArgs {
    /// The folder in which kaggle_3m is made; nothing is overwritten.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Patients.
    #[arg(long, default_value_t = 6, env = "SHADEGRAD_PATIENTS")]
    patients: usize,
    /// Slices of each patient.
    #[arg(long, default_value_t = 24, env = "SHADEGRAD_SLICES")]
    slices: usize,
    /// Rows and columns of a slice.
    #[arg(long, default_value_t = 128, env = "SHADEGRAD_SIZE")]
    size: usize,
    /// The same seed gives the same files.
    #[arg(long, default_value_t = 0, env = "SHADEGRAD_SEED")]
    seed: u64,
    /// Print one JSON object: data, patients, slices, size, seed.
    #[arg(long)]
    json: bool,
}

/// Examples:
///   shadegrad data preview --data lgg/kaggle_3m --out grid.png --set augment=strong
///   shadegrad data preview --data lgg/kaggle_3m --out grid.png --set augment.rotate=15 --set augment.elastic=0.05
///   shadegrad data preview --data lgg/kaggle_3m --out grid.png --recipe runs/a/config.toml --epoch 3
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct PreviewArgs {
    /// The folder that holds kaggle_3m (or kaggle_3m itself).
    #[arg(long, value_name = "DIR", env = "SHADEGRAD_DATA")]
    data: PathBuf,
    /// The picture to write. A row is a slice: first as it is, then draws; the last rows show each kind alone.
    #[arg(long, value_name = "FILE.png", default_value = "augment.png")]
    out: PathBuf,
    /// A config.toml whose augmentation is shown.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Any setting of config.toml, e.g. --set augment=strong --set augment.rotate=15
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seed of the draws [default: that of the settings], e.g. 7
    #[arg(long, env = "SHADEGRAD_SEED")]
    seed: Option<u64>,
    /// The epoch whose draws are shown, e.g. 3
    #[arg(long, default_value_t = 0)]
    epoch: usize,
    /// How many slices, each of another patient where there are enough.
    #[arg(long, default_value_t = 4)]
    count: usize,
    /// How many draws of each slice.
    #[arg(long, default_value_t = 5)]
    draws: usize,
    /// Print one JSON object: out, tiles (row, column, what, patient, slice, draw).
    #[arg(long)]
    json: bool,
}

/// Runs `shadegrad data`.
///
/// # Errors
/// `inspect`: nothing usable was found. `sample`: the folder is not empty or cannot be written. `preview`: unusable data
/// or settings, or a picture that cannot be written.
pub(crate) fn run(args: DataArgs) -> Result<()> {
    match args.command {
        DataCommand::Inspect(args) => inspect(&args),
        DataCommand::Sample(args) => sample(&args),
        DataCommand::Preview(args) => preview(&args),
    }
}

fn inspect(args: &InspectArgs) -> Result<()> {
    let found = Dataset::inspect(&args.dir);
    if args.json {
        let text = serde_json::to_string(&found).map_err(|source| Error::Config(format!("JSON: {source}")))?;
        println!("{text}");
    } else {
        print_table(&found);
    }
    if found.slices == 0 {
        let first = found.problems.first().map_or("nothing was found", String::as_str);
        return Err(Error::Config(format!("no usable slice: {first}")));
    }
    Ok(())
}

fn print_table(found: &Inspection) {
    if !found.per_patient.is_empty() {
        println!("{:<28} {:>7} {:>12} {:>14}", "patient", "slices", "with tumour", "tumour pixels");
    }
    for row in &found.per_patient {
        println!("{:<28} {:>7} {:>12} {:>14}", row.patient, row.slices, row.tumour_slices, row.tumour_pixels);
    }
    let sizes: Vec<_> = found.sizes.iter().map(|(height, width)| format!("{height}x{width}")).collect();
    println!(
        "{} patients, {} slices, {} with tumour, {} tumour pixels; size {}",
        found.patients,
        found.slices,
        found.tumour_slices,
        found.tumour_pixels,
        if sizes.is_empty() { "unknown".to_owned() } else { sizes.join(", ") }
    );
    if found.problems.is_empty() {
        println!("no problems");
    } else {
        println!("{} problem(s); training stops at the first of them:", found.problems.len());
    }
    for problem in &found.problems {
        println!("  {problem}");
    }
}

fn sample(args: &SampleArgs) -> Result<()> {
    let settings = PhantomSettings { patients: args.patients, slices: args.slices, size: args.size, seed: args.seed };
    let bar = ProgressBar::new(args.patients as u64).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} patients").unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let root = write_phantom(&args.dir, &settings, &|_, _| bar.inc(1))?;
    bar.finish_and_clear();
    if args.json {
        let object = serde_json::json!({
            "data": root, "patients": args.patients, "slices": args.patients * args.slices, "size": args.size, "seed": args.seed,
        });
        println!("{object}");
    } else {
        println!(
            "wrote {} patients with {} slices of {}x{} pixels each to {}",
            args.patients,
            args.slices,
            args.size,
            args.size,
            root.display()
        );
        println!("train on it: shadegrad train --data {}", args.dir.display());
    }
    Ok(())
}

/// A picture of the grid, and what it shows.
struct Shown {
    what: &'static str,
    slice: (usize, usize),
    sample: Sample,
}

fn preview(args: &PreviewArgs) -> Result<()> {
    let config = match &args.recipe {
        Some(path) => train::read_config(path)?,
        None => TrainConfig::default(),
    };
    let config = train::set(config, &args.set)?;
    config.check()?;
    if args.count == 0 || args.draws == 0 {
        return Err(Error::Config("--count and --draws must be at least 1".to_owned()));
    }
    let dataset = train::read(&args.data, config.size, args.json)?;
    let seed = args.seed.unwrap_or(config.seed);
    let size = [dataset.height, dataset.width];
    let chosen = tumour_slices(&dataset, args.count);

    let draw = |augment: &AugmentConfig, place: usize, index: usize| {
        let mut sample = Sample::plain(place, place);
        augment.apply(&mut sample, size, seed, args.epoch, index);
        sample
    };
    let mut shown = Vec::new();
    for (place, &slice) in chosen.iter().enumerate() {
        shown.push(Shown { what: "as it is", slice, sample: Sample::plain(place, place) });
        shown.extend((0..args.draws).map(|index| {
            let sample = draw(&config.augment, place, place * args.draws + index);
            Shown { what: "drawn", slice, sample }
        }));
    }
    for (index, (what, alone)) in config.augment.kinds().into_iter().enumerate() {
        let place = index % chosen.len();
        shown.push(Shown { what, slice: chosen[place], sample: draw(&alone, place, index) });
    }
    let samples: Vec<Sample> = shown.iter().map(|shown| shown.sample).collect();
    contact_sheet(&args.out, &tiles(&dataset, &config, &chosen, &samples)?, args.draws + 1)?;
    report(args, &dataset, &shown);
    Ok(())
}

/// The slice with most tumour of `count` patients spread over the set; the same patient again where there are fewer.
fn tumour_slices(dataset: &Dataset, count: usize) -> Vec<(usize, usize)> {
    let patients = dataset.patients.len();
    let area = |mask: &[u8]| mask.iter().filter(|inside| **inside != 0).count();
    let most = |patient: usize, rank: usize| {
        let slices = &dataset.patients[patient].slices;
        let mut order: Vec<usize> = (0..slices.len()).collect();
        order.sort_by_key(|at| (usize::MAX - area(&slices[*at].mask), *at));
        (patient, order[rank % order.len()])
    };
    (0..count).map(|at| most(at * patients.max(count) / count % patients, at / patients)).collect()
}

/// The samples as pictures: pre-contrast in red, FLAIR in green, post-contrast in blue, each between the patient's black
/// and white, with the outline of the tumour.
fn tiles(dataset: &Dataset, config: &TrainConfig, chosen: &[(usize, usize)], samples: &[Sample]) -> Result<Vec<Tile>> {
    let (h, w) = (dataset.height, dataset.width);
    let of = |(patient, slice): (usize, usize)| &dataset.patients[patient].slices[slice];
    let slices: Vec<_> = chosen.iter().map(|at| SliceBytes { image: &of(*at).image, mask: &of(*at).mask }).collect();
    let rows: Vec<Vec<Rescale>> = chosen
        .iter()
        .map(|(patient, _)| config.normalize.rescale(&dataset.patients[*patient], dataset.channels))
        .collect();
    let rescale: Vec<_> = rows.iter().flatten().map(|row| [row.low, row.high, row.scale, row.shift]).collect();
    let order = config.normalize.channel_order();
    // A few pictures: the plain-Rust device is there on every machine, and draws what all draw.
    let device = Device::cpu();
    let slices = Slices::upload_each(&device, [h, w], &slices, &rescale, order)?;
    let (x, target) = (device.empty("preview", [1, h, w, 3])?, device.empty("preview", [1, h, w, 1])?);
    let table = slices.table(1)?;
    let draw = |sample: &Sample| {
        load_batch(&slices, std::slice::from_ref(sample), &table, &x, &target)?;
        let mut rgb = vec![0; 3 * h * w];
        for (values, pixel) in x.to_vec()?.chunks_exact(3).zip(rgb.chunks_exact_mut(3)) {
            for (c, value) in values.iter().enumerate() {
                // Undo the normalisation; a flat channel is grey.
                let row = rows[sample.group][c];
                let share = (value - row.shift) / row.scale - row.low;
                let share = if row.scale > 0.0 { share / (row.high - row.low) } else { 0.5 };
                pixel[order[c]] = (share.clamp(0.0, 1.0) * 255.0).round() as u8;
            }
        }
        let mask: Vec<u8> = target.to_vec()?.iter().map(|inside| u8::from(*inside > 0.5)).collect();
        outlined(&rgb, h, w, &mask)
    };
    samples.iter().map(draw).collect()
}

fn report(args: &PreviewArgs, dataset: &Dataset, shown: &[Shown]) {
    let columns = args.draws + 1;
    if args.json {
        let tiles: Vec<_> = shown
            .iter()
            .enumerate()
            .map(|(at, shown)| {
                let (patient, slice) = shown.slice;
                let patient = &dataset.patients[patient];
                serde_json::json!({
                    "row": at / columns + 1, "column": at % columns + 1, "what": shown.what,
                    "patient": patient.name, "slice": patient.slices[slice].number, "draw": in_words(&shown.sample),
                })
            })
            .collect();
        println!("{}", serde_json::json!({ "out": args.out, "tiles": tiles }));
        return;
    }
    println!("row column  what        drawn");
    for (at, shown) in shown.iter().enumerate() {
        let (row, column) = (at / columns + 1, at % columns + 1);
        println!("{row:>3} {column:>6}  {:<10}  {}", shown.what, in_words(&shown.sample));
    }
    println!("pre-contrast is red, FLAIR green, post-contrast blue; the outline is the tumour: {}", args.out.display());
}

/// What was drawn.
fn in_words(sample: &Sample) -> String {
    let mut words = Vec::new();
    if sample.flips & 1 != 0 {
        words.push("left-right".to_owned());
    }
    if sample.flips & 2 != 0 {
        words.push("up-down".to_owned());
    }
    if sample.turn > 0 {
        words.push(format!("turned by {}", 90 * sample.turn));
    }
    if let Some([[xx, xy, x], [yx, yy, y]]) = sample.affine {
        // Adding 0 takes the sign off a zero.
        let [xx, xy, x, yx, yy, y] = [xx, xy, x, yx, yy, y].map(|value| value + 0.0);
        words.push(format!("map [{xx:.2} {xy:.2} {x:.1}; {yx:.2} {yy:.2} {y:.1}]"));
    }
    if let Some(elastic) = sample.elastic {
        words.push(format!("elastic {:.1} pixels", elastic.reach));
    }
    let tones = sample.tones;
    for (name, values, none) in [
        ("noise", tones.map(|tone| tone.noise), 0.0),
        ("brightness", tones.map(|tone| tone.brightness), 1.0),
        ("contrast", tones.map(|tone| tone.contrast), 1.0),
        ("gamma", tones.map(|tone| tone.gamma), 1.0),
    ] {
        if values != [none; 3] {
            words.push(format!("{name} {:.2} {:.2} {:.2}", values[0], values[1], values[2]));
        }
    }
    for (lost, shown) in sample.shows.iter().enumerate().filter(|(c, shown)| **shown != Some(*c)) {
        words.push(format!("channel {lost} shows {}", shown.map_or("nothing".to_owned(), |c| format!("channel {c}"))));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        data: DataArgs,
    }

    fn run_line(words: &[&str]) -> Result<()> {
        let line = Line::try_parse_from([&["data"], words].concat());
        run(line.map_err(|error| Error::Config(error.to_string()))?.data)
    }

    #[test]
    fn sample_then_inspect() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let dir = folder.path().to_string_lossy();
        assert!(run_line(&["inspect", &dir]).is_err(), "nothing usable");
        let small = ["sample", &dir, "--patients", "2", "--slices", "3", "--size", "32", "--seed", "4"];
        run_line(&small)?;
        run_line(&["inspect", &dir, "--json"])?;
        assert_eq!(Dataset::inspect(folder.path()).slices, 6);
        assert!(run_line(&small).is_err(), "nothing is overwritten");
        let grid = folder.path().join("grid.png");
        let line = ["preview", "--data", &dir, "--out", &grid.to_string_lossy(), "--count", "3", "--draws", "2"];
        run_line(&[&line[..], &["--set", "augment=strong", "--set", "augment.rotate=15"]].concat())?;
        // Three slices and eleven kinds, three in a row: seven rows of 64 pixels with gaps of 6.
        assert_eq!(image::image_dimensions(&grid)?, (3 * 70 + 6, 7 * 70 + 6));
        for (key, told) in
            [("augment.rotat=15", "rotat"), ("augment.rotate=900", "augment.rotate"), ("augment=much", "strong")]
        {
            let error = run_line(&[&line[..], &["--set", key]].concat()).map_err(|error| error.to_string());
            assert!(error.as_ref().is_err_and(|error| error.contains(told)), "{key}: {error:?}");
        }
        Ok(())
    }

    #[test]
    fn sample_defaults_are_the_librarys() {
        let DataCommand::Sample(args) = Line::parse_from(["data", "sample", "x"]).data.command else {
            unreachable!("the line says sample");
        };
        let settings =
            PhantomSettings { patients: args.patients, slices: args.slices, size: args.size, seed: args.seed };
        assert_eq!(settings, PhantomSettings::default());
    }
}
