//! `shadegrad data`: looks at a folder before training, or makes a synthetic set.

#![allow(clippy::print_stdout, reason = "printing is what this command is for")]

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use shadegrad::data::phantom::{PhantomSettings, write_phantom};
use shadegrad::data::{Dataset, Inspection};
use shadegrad::{Error, Result};

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

/// Runs `shadegrad data`.
///
/// # Errors
/// `inspect`: nothing usable was found. `sample`: the folder is not empty or cannot be written.
pub(crate) fn run(args: DataArgs) -> Result<()> {
    match args.command {
        DataCommand::Inspect(args) => inspect(&args),
        DataCommand::Sample(args) => sample(&args),
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
