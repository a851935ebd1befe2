//! `shadegrad report`: one page about a run, readable without a network.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use shadegrad::data::{Dataset, Split};
use shadegrad::eval::{JudgeOptions, Judgement};
use shadegrad::models::weights;
use shadegrad::report::{Report, Verdict};
use shadegrad::train::{EpochLog, Trainer};
use shadegrad::{Error, Result};

use super::train;
use super::weights::{Weights, open};

/// Write report.html of a run: curves, metrics, every patient, best and worst slices, thresholds, calibration, settings.
///
/// Examples:
///   shadegrad report --run runs/unext
///   shadegrad report --run runs/unext --data lgg/kaggle_3m --out today.html
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ReportArgs {
    /// The run folder
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Folder in Kaggle's layout [default: where the run found its slices]
    #[arg(long, value_name = "DIR", env = "SHADEGRAD_DATA")]
    data: Option<PathBuf>,
    /// The page [default: report.html in the run folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// auto, cpu, or part of an adapter's name
    #[arg(long, default_value = "auto", env = "SHADEGRAD_DEVICE")]
    device: String,
}

pub(crate) fn run(args: &ReportArgs) -> Result<()> {
    let run = Run::read(&args.run)?;
    let path = args.out.clone().unwrap_or_else(|| args.run.join("report.html"));
    let known = args.data.clone().or_else(|| run.data().filter(|folder| folder.is_dir()));
    let Some(folder) = known else {
        run.report(None)?.write(&path)?;
        println!("{} (without metrics: the slices were not found, give --data)", path.display());
        return Ok(());
    };
    let file = args.run.join("best.safetensors");
    let Weights { config, dict } = open(&file, None)?;
    let device = super::open(&args.device)?;
    let dataset = train::read(&folder, config.size, false)?;
    let split = Split::read_csv(&dataset, &args.run.join("split.csv"))?;
    let mut trainer = Trainer::new(&device, &dataset, &config)?;
    weights::load_dict(&mut trainer.net, &dict)?;
    let (judgement, loss) = trainer.judge(&dataset, &split.val, JudgeOptions::new(config.batch), false)?;
    run.report(Some((&dataset, &split, &judgement, loss)))?.write(&path)?;
    println!("{}", path.display());
    Ok(())
}

/// Writes the page of a run that has just been judged; returns its path.
pub(crate) fn write(
    folder: &Path,
    dataset: &Dataset,
    split: &Split,
    judgement: &Judgement,
    loss: f64,
) -> Result<PathBuf> {
    let path = folder.join("report.html");
    Run::read(folder)?.report(Some((dataset, split, judgement, loss)))?.write(&path)?;
    Ok(path)
}

/// What lies in a run folder.
struct Run {
    folder: PathBuf,
    config: String,
    environment: serde_json::Map<String, serde_json::Value>,
    log: Vec<EpochLog>,
}

impl Run {
    fn read(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(Error::io("read", path))
        };
        let wrong = |name: &str, line: usize, error: serde_json::Error| {
            Error::Config(format!("{}, line {line}: {error}", folder.join(name).display()))
        };
        let environment =
            serde_json::from_str(&read("env.json")?).map_err(|error| wrong("env.json", error.line(), error))?;
        let log = read("log.jsonl")?;
        let lines = log.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let log = lines.map(|(at, line)| serde_json::from_str(line).map_err(|error| wrong("log.jsonl", at + 1, error)));
        let log = log.collect::<Result<_>>()?;
        Ok(Self { folder: folder.to_owned(), config: read("config.toml")?, environment, log })
    }

    /// Where the run found its slices.
    fn data(&self) -> Option<PathBuf> {
        self.environment.get("data").and_then(|data| data.as_str()).map(PathBuf::from)
    }

    fn report<'a>(&self, judged: Option<(&'a Dataset, &'a Split, &'a Judgement, f64)>) -> Result<Report<'a>> {
        let config = train::read_config(&self.folder.join("config.toml"))?;
        let data = judged.map(|(dataset, ..)| dataset.root.clone()).or_else(|| self.data()).unwrap_or_default();
        let name = data.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut environment: Vec<(String, String)> = Vec::new();
        for (key, value) in &self.environment {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // No other kernels than the usual ones.
            let nothing = value.as_object().is_some_and(serde_json::Map::is_empty);
            if !text.is_empty() && !nothing {
                environment.push((key.clone(), text));
            }
        }
        if let Some((dataset, split, ..)) = judged {
            environment.push(("slices".to_owned(), format!("{} x {} pixels", dataset.height, dataset.width)));
            environment.push(("training slices".to_owned(), split.train.len().to_string()));
            let val = format!("{} of {}", split.val.len(), split.val_patients(dataset).join(", "));
            environment.push(("validation slices".to_owned(), val));
        }
        let text = |key: &str| environment.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value);
        let device = if text("device").starts_with("CPU") { "cpu" } else { text("device") };
        let command = format!(
            "shadegrad train --data {} --recipe {} --split {} --device {} --out runs/again",
            quoted(&data.display().to_string()),
            quoted(&self.folder.join("config.toml").display().to_string()),
            quoted(&self.folder.join("split.csv").display().to_string()),
            quoted(device),
        );
        Ok(Report {
            title: format!("{} on {}", config.model, name.unwrap_or_else(|| "a data set".to_owned())),
            written: format!("Run {}, written {}", self.folder.display(), utc(seconds())),
            config: self.config.clone(),
            epochs: config.epochs,
            command,
            leaks: judged.is_some_and(|(_, split, ..)| !split.by_patient),
            verdict: judged.map(|(dataset, split, judgement, loss)| Verdict {
                dataset,
                part: &split.val,
                judgement,
                loss,
            }),
            environment,
            log: self.log.clone(),
        })
    }
}

/// A word of a command line, in quotes where a shell would part it.
fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "/._-=:,+".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Seconds since 1970; 0 if the clock stands before that.
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A time as `2026-11-24 13:05 UTC`, by Howard Hinnant's `civil_from_days`: years begin in March, so that the leap day
/// is their last.
fn utc(seconds: u64) -> String {
    let day = seconds / 86_400 + 719_468; // days since 0000-03-01
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let minutes = seconds % 86_400 / 60;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let dates = [0, 951_782_400, 951_868_799, 1_795_525_500, 4_107_542_400].map(utc);
        let expected =
            ["1970-01-01 00:00", "2000-02-29 00:00", "2000-02-29 23:59", "2026-11-24 13:05", "2100-03-01 00:00"];
        assert_eq!(dates, expected.map(|date| format!("{date} UTC")));
    }

    #[test]
    fn words_are_quoted_where_needed() {
        let words = ["a/b-c.toml", "llvmpipe (LLVM 19)", "it's", ""].map(quoted);
        assert_eq!(words, ["a/b-c.toml", "'llvmpipe (LLVM 19)'", "'it'\\''s'", "''"]);
    }
}
