//! Two results compared, case by case: what changed, and not what the machine did meanwhile.
//!
//! A case has changed if all of this holds:
//! - the ranks of its samples differ (Mann-Whitney) with p < 0.001, corrected for the number of cases (Holm);
//! - the quartiles of both sets of samples do not overlap;
//! - the change is more than 5 %, more than four times what cases that cannot have changed differ by, and more than the
//!   largest difference among those of them for which the first two hold: each start of the program places its data
//!   elsewhere and meets another load, which no number of runs within it shows.
//!
//! Before that, what cases that cannot have changed share is taken out, as their median: a machine that is slower today
//! is slower in all of them. A case cannot have changed if both results are of the same program (`build`), of the same
//! clean commit, or of a shader with the same text. Where there are fewer than ten of them nothing is taken out, and a
//! change must be more than 10 %.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shadegrad::{Error, Result};

use super::statistics::{holm, least_p, mann_whitney, quartiles, robust};

/// Chance of calling any case changed that is not.
const ALPHA: f64 = 0.001;
/// Fewer cases than this cannot tell what all share.
const CONTROLS: usize = 10;
/// Least change with as many, and with fewer.
const LEAST: [f64; 2] = [1.05, 1.10];
/// Least change in deviations of the cases that did not change.
const DEVIATIONS: f64 = 4.0;

/// Two files of `bench --json` side by side
///
/// Examples:
///   shadegrad bench conv2d --json > before.jsonl
///   shadegrad bench compare before.jsonl after.jsonl
///   shadegrad bench compare before.jsonl after.jsonl --fail-on-regression --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct CompareArgs {
    /// What was before
    old: PathBuf,
    /// What is now
    new: PathBuf,
    /// Exit with 1 if a case became slower
    #[arg(long)]
    fail_on_regression: bool,
    /// One JSON object for each case
    #[arg(long)]
    json: bool,
}

/// The samples of a case, from one or more lines.
#[derive(Debug, Clone, PartialEq)]
struct Record {
    name: String,
    milliseconds: Vec<f64>,
    /// What is equal in both results where a case cannot have changed: program, clean commit, text of the shader.
    code: [Option<String>; 3],
    commit: String,
    device: String,
}

impl Record {
    fn from_json(line: &Value) -> std::result::Result<Self, String> {
        let text = |key: &str| line.get(key).and_then(Value::as_str).map(str::to_owned);
        let word = |key: &str| match line.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let names = |keys: &[&str]| keys.iter().map(|key| word(key)).collect::<Option<Vec<_>>>();
        let mut name = names(&["op", "entry", "version", "case"])
            .or_else(|| names(&["model", "mode", "batch", "size"]))
            .ok_or("it has neither op, entry, version, case nor model, mode, batch, size")?
            .join(" ");
        if line.get("cold") == Some(&Value::Bool(true)) {
            name += " cold";
        }
        let samples = line.get("samples_ms").and_then(Value::as_array);
        let milliseconds: Vec<f64> = samples.into_iter().flatten().filter_map(Value::as_f64).collect();
        if milliseconds.is_empty() {
            return Err("it has no samples_ms; an older version wrote it, so run the bench again".to_owned());
        }
        let (commit, device) = (text("commit").unwrap_or_default(), text("device").unwrap_or_default());
        // `-dirty` and `-later` do not say which code it was.
        let clean = Some(commit.clone()).filter(|commit| !commit.is_empty() && !commit.contains('-'));
        Ok(Self { name, milliseconds, code: [text("build"), clean, text("shader_hash")], commit, device })
    }

    /// Whether both are of the same code.
    fn same_code(&self, other: &Self) -> bool {
        self.code
            .iter()
            .zip(&other.code)
            .any(|(a, b)| a.as_ref().is_some_and(|a| !a.is_empty() && Some(a) == b.as_ref()))
    }
}

/// A file of results, or those just made. Lines of the same case are taken together.
#[derive(Debug)]
pub struct Results {
    name: String,
    records: Vec<Record>,
}

impl Results {
    /// Results from the objects of `bench --json`.
    ///
    /// # Errors
    /// [`Error::Config`] with the number of a line that holds no result.
    pub fn new(name: &str, lines: impl IntoIterator<Item = Value>) -> Result<Self> {
        let mut records: Vec<Record> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for (index, line) in lines.into_iter().enumerate() {
            let record = Record::from_json(&line)
                .map_err(|message| Error::Config(format!("{name}, result {}: {message}", index + 1)))?;
            match places.get(&record.name) {
                Some(place) => records[*place].milliseconds.extend(record.milliseconds),
                None => {
                    places.insert(record.name.clone(), records.len());
                    records.push(record);
                }
            }
        }
        if records.is_empty() {
            return Err(Error::Config(format!("{name} holds no results; write it with `bench --json`")));
        }
        Ok(Self { name: name.to_owned(), records })
    }

    /// Reads a file of `bench --json`.
    ///
    /// # Errors
    /// As [`lines`](Self::lines) and [`new`](Self::new).
    pub fn read(path: &Path) -> Result<Self> {
        Self::new(&path.display().to_string(), Self::lines(path)?)
    }

    /// The objects of a file of `bench --json`.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Config`] naming the line that is no JSON.
    pub fn lines(path: &Path) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let name = path.display();
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let parse = |(index, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| Error::Config(format!("{name}, line {}: {error}", index + 1)))
        };
        lines.map(parse).collect()
    }

    fn title(&self) -> String {
        let Record { device, commit, .. } = &self.records[0];
        format!("{} ({device}, {commit})", self.name)
    }
}

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing says that it changed.
    Same,
    /// It takes less time.
    Faster,
    /// It takes more time.
    Slower,
    /// Not even sets that do not overlap would be significant.
    TooFewRuns,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::TooFewRuns => "too few runs",
        }
    }
}

/// A case in both results.
#[derive(Debug, Clone)]
pub struct Row {
    name: String,
    /// Medians.
    old_ms: f64,
    new_ms: f64,
    /// New by old, what all share taken out.
    ratio: f64,
    /// Corrected for the number of cases.
    p: f64,
    verdict: Verdict,
}

/// Both results.
#[derive(Debug)]
pub struct Comparison {
    titles: [String; 2],
    /// New by old of what cannot have changed: the machine.
    drift: f64,
    /// Least change that counts.
    least: f64,
    /// Cases that cannot have changed; the drift was measured with them unless they are fewer than [`CONTROLS`].
    controls: usize,
    rows: Vec<Row>,
    /// Cases that only one result has.
    alone: [usize; 2],
}

impl Comparison {
    /// Compares two results.
    ///
    /// # Errors
    /// [`Error::Config`] if they have no case in common.
    pub fn of(old: &Results, new: &Results) -> Result<Self> {
        let find = |record: &Record| new.records.iter().find(|other| other.name == record.name);
        let pairs: Vec<(&Record, &Record)> = old.records.iter().filter_map(|a| find(a).map(|b| (a, b))).collect();
        if pairs.is_empty() {
            let [a, b] = [old, new].map(|results| format!("{} has \"{}\"", results.name, results.records[0].name));
            return Err(Error::Config(format!(
                "the two results have no case in common: {a}, {b}; time the same ops and shapes"
            )));
        }
        let median = |record: &Record| quartiles(&record.milliseconds)[1];
        let ratio = |(a, b): &(&Record, &Record)| (median(b) / median(a)).ln();
        let all: Vec<f64> = pairs.iter().map(ratio).collect();
        let same: Vec<f64> = pairs.iter().filter(|(a, b)| a.same_code(b)).map(ratio).collect();
        let (drift, mut least) = if same.len() >= CONTROLS {
            let (drift, deviation) = robust(&same);
            (drift, LEAST[0].ln().max(DEVIATIONS * deviation))
        } else {
            // Less of the noise than with controls: what changed is in it too.
            let deviation = if all.len() >= CONTROLS { robust(&all).1 } else { 0.0 };
            (0.0, LEAST[1].ln().max(DEVIATIONS * deviation))
        };

        let possible = |(a, b): &(&Record, &Record)| {
            least_p(a.milliseconds.len(), b.milliseconds.len()) * pairs.len() as f64 <= ALPHA
        };
        let judged: Vec<bool> = pairs.iter().map(possible).collect();
        let adjusted =
            |record: &Record| -> Vec<f64> { record.milliseconds.iter().map(|ms| ms / drift.exp()).collect() };
        let raw: Vec<f64> = pairs
            .iter()
            .zip(&judged)
            .filter(|(_, judged)| **judged)
            .map(|((a, b), _)| mann_whitney(&a.milliseconds, &adjusted(b)).p)
            .collect();
        let mut corrected = holm(&raw).into_iter();
        let p: Vec<f64> =
            judged.iter().map(|judged| if *judged { corrected.next().unwrap_or(1.0) } else { 1.0 }).collect();
        let differs = |((a, b), p): (&(&Record, &Record), &f64)| {
            let ([a1, _, a3], [b1, _, b3]) = (quartiles(&a.milliseconds), quartiles(&adjusted(b)));
            *p < ALPHA && (a3 < b1 || b3 < a1)
        };
        let differ: Vec<bool> = pairs.iter().zip(&p).map(differs).collect();
        if same.len() >= CONTROLS {
            // What looks like a change and cannot be one shows how large a change must be.
            let alarms = pairs.iter().zip(&differ).filter(|((a, b), differs)| **differs && a.same_code(b));
            least = alarms.map(|(pair, _)| (ratio(pair) - drift).abs()).fold(least, f64::max);
        }
        let row = |at: usize| {
            let (pair, p) = (&pairs[at], p[at]);
            let change = ratio(pair) - drift;
            let verdict = match (judged[at], differ[at] && change.abs() > least) {
                (false, _) => Verdict::TooFewRuns,
                (true, false) => Verdict::Same,
                (true, true) if change < 0.0 => Verdict::Faster,
                (true, true) => Verdict::Slower,
            };
            let (old_ms, new_ms) = (median(pair.0), median(pair.1));
            Row { name: pair.0.name.clone(), old_ms, new_ms, ratio: change.exp(), p, verdict }
        };
        let rows: Vec<Row> = (0..pairs.len()).map(row).collect();
        let alone = [old.records.len() - rows.len(), new.records.len() - rows.len()];
        let titles = [old.title(), new.title()];
        Ok(Self { titles, drift: drift.exp(), least: least.exp(), controls: same.len(), rows, alone })
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }

    /// An object for each case.
    pub fn json(&self) -> Vec<Value> {
        let of = |row: &Row| {
            let Row { name, old_ms, new_ms, ratio, p, verdict } = row;
            json!({ "case": name, "old_ms": old_ms, "new_ms": new_ms, "ratio": ratio, "p": p, "verdict": verdict.name(),
                "drift": self.drift, "least_change": self.least })
        };
        self.rows.iter().map(of).collect()
    }

    /// What changed, the largest change first, and how many did not.
    pub fn text(&self) -> String {
        let mut text = format!("old: {}\nnew: {}\n", self.titles[0], self.titles[1]);
        let least = 100.0 * (self.least - 1.0);
        text += &if self.controls >= CONTROLS {
            format!(
                "the machine: new takes {:.3} times as long, the median of {} cases that cannot have changed; this is taken out below, \
                 and a change is more than {least:.1} %\n",
                self.drift, self.controls
            )
        } else {
            format!(
                "the machine: unknown, since only {} cases cannot have changed (time an op along that you left as it was); \
                 a change is more than {least:.1} %\n",
                self.controls
            )
        };
        let mut changed: Vec<&Row> =
            self.rows.iter().filter(|row| matches!(row.verdict, Verdict::Faster | Verdict::Slower)).collect();
        changed.sort_by(|a, b| b.ratio.ln().abs().total_cmp(&a.ratio.ln().abs()));
        for Row { name, old_ms, new_ms, ratio, p, verdict } in changed {
            let verdict = verdict.name();
            text += &format!("{verdict}  {ratio:.3} times as long  {old_ms:.4} -> {new_ms:.4} ms  p {p:.1e}  {name}\n");
        }
        text += &format!(
            "{} cases: {} faster, {} slower, {} the same",
            self.rows.len(),
            self.count(Verdict::Faster),
            self.count(Verdict::Slower),
            self.count(Verdict::Same)
        );
        let few = self.count(Verdict::TooFewRuns);
        if few > 0 {
            text += &format!(", {few} with too few runs to tell (more --runs and --seconds)");
        }
        if self.alone != [0, 0] {
            text += &format!("; only old has {}, only new {}", self.alone[0], self.alone[1]);
        }
        text + "\n"
    }

    /// # Errors
    /// [`Error::Config`] if a case became slower.
    pub fn fail_on_regression(&self) -> Result<()> {
        match self.count(Verdict::Slower) {
            0 => Ok(()),
            slower => Err(Error::Config(format!(
                "{slower} of {} cases became slower; they are listed above",
                self.rows.len()
            ))),
        }
    }
}

/// Runs `bench compare`.
///
/// # Errors
/// A file that cannot be read or holds no results; with `--fail-on-regression` a case that became slower.
pub fn run(args: &CompareArgs) -> Result<()> {
    let comparison = Comparison::of(&Results::read(&args.old)?, &Results::read(&args.new)?)?;
    print(&comparison, args.json);
    if args.fail_on_regression { comparison.fail_on_regression() } else { Ok(()) }
}

/// Prints a comparison.
pub fn print(comparison: &Comparison, json: bool) {
    if json {
        comparison.json().iter().for_each(|line| println!("{line}"));
    } else {
        print!("{}", comparison.text());
    }
}

#[cfg(test)]
mod tests {
    use shadegrad::tensor::random::Stream;

    use super::*;

    /// A run of 40 cases with 12 samples each: noise of 2 %, and a factor for each case.
    fn results(name: &str, hash: &str, factor: impl Fn(usize) -> f64) -> Results {
        let lines = (0..40).map(|case| {
            let noise = Stream::seeded(1, &format!("{name} {case}"));
            let ms = |at: u64| 3.0 * factor(case) * (1.0 + 0.02 * f64::from(noise.unit(at)));
            let samples: Vec<f64> = (0..12).map(ms).collect();
            // The first ten have another text: somebody works on them.
            let hash = if case < 10 { hash } else { "same" };
            json!({ "op": "add", "entry": "forward", "version": "v1", "case": format!("case {case}"), "device": "test",
                "commit": "0-dirty", "shader_hash": hash, "samples_ms": samples })
        });
        Results::new(name, lines).unwrap_or_else(|error| panic!("{error}"))
    }

    fn changed(comparison: &Comparison) -> Vec<(&str, Verdict)> {
        let rows = comparison.rows.iter().filter(|row| row.verdict != Verdict::Same);
        rows.map(|row| (row.name.as_str(), row.verdict)).collect()
    }

    #[test]
    fn the_same_again_is_the_same() {
        let comparison =
            Comparison::of(&results("a", "x", |_| 1.0), &results("b", "x", |_| 1.0)).expect("common cases");
        assert_eq!(changed(&comparison), []);
        assert_eq!(comparison.controls, 40);
        assert!(comparison.fail_on_regression().is_ok());
        assert!(comparison.text().contains("40 cases: 0 faster, 0 slower, 40 the same"), "{}", comparison.text());
    }

    #[test]
    fn a_slower_machine_is_no_slower_kernel() {
        let comparison =
            Comparison::of(&results("a", "x", |_| 1.0), &results("b", "x", |_| 1.4)).expect("common cases");
        assert_eq!(changed(&comparison), []);
        assert!((comparison.drift - 1.4).abs() < 0.02, "{}", comparison.drift);
    }

    #[test]
    fn a_change_is_seen_also_on_a_slower_machine() {
        let factor = |case| {
            1.4 * if case == 3 {
                1.2
            } else if case == 5 {
                0.8
            } else {
                1.0
            }
        };
        let comparison = Comparison::of(&results("a", "x", |_| 1.0), &results("b", "y", factor)).expect("common cases");
        let want = [("add forward v1 case 3", Verdict::Slower), ("add forward v1 case 5", Verdict::Faster)];
        assert_eq!(changed(&comparison), want);
        assert_eq!(comparison.controls, 30);
        let Err(error) = comparison.fail_on_regression() else { panic!("passed") };
        assert!(error.to_string().starts_with("1 of 40 cases became slower"), "{error}");
        assert!((comparison.rows[3].ratio - 1.2).abs() < 0.03, "{}", comparison.rows[3].ratio);
        assert!(comparison.text().lines().any(|line| line.starts_with("slower  1.")), "{}", comparison.text());
    }

    /// If all that was timed was also changed, the change is not taken for the machine's.
    #[test]
    fn a_change_of_everything_is_seen() {
        for count in [10, 5] {
            let only = |mut results: Results| {
                results.records.truncate(count);
                results
            };
            let comparison = Comparison::of(&only(results("a", "x", |_| 1.0)), &only(results("b", "y", |_| 0.5)))
                .expect("common cases");
            assert!(comparison.text().contains("the machine: unknown, since only 0 cases"), "{}", comparison.text());
            assert_eq!(changed(&comparison).len(), count);
            assert!(comparison.rows.iter().all(|row| row.verdict == Verdict::Faster));
        }
    }

    /// The same program, or the same clean commit, cannot have changed; edits, and no name at all, say nothing.
    #[test]
    fn what_cannot_have_changed_is_known_by_its_code() {
        let record = |build: &str, commit: &str| {
            let line = json!({ "model": "unext", "mode": "train", "batch": 2, "size": 64, "samples_ms": [1.0],
                "build": build, "commit": commit });
            Record::from_json(&line).unwrap_or_else(|error| panic!("{error}"))
        };
        assert!(record("a", "1").same_code(&record("a", "2")) && record("a", "1").same_code(&record("b", "1")));
        for edited in ["1-dirty", "1-later"] {
            assert!(!record("a", edited).same_code(&record("b", edited)));
        }
        assert!(!record("", "").same_code(&record("", "")));
    }

    /// What cannot have changed and looks as if it had shows what the machine can do to any case.
    #[test]
    fn an_unchanged_case_that_looks_changed_is_a_warning() {
        // A control 30 % slower: an edited case 20 % slower is no news, one twice as slow is.
        let factor = |case| match case {
            20 => 1.3,
            3 => 1.2,
            5 => 2.0,
            _ => 1.0,
        };
        let comparison = Comparison::of(&results("a", "x", |_| 1.0), &results("b", "y", factor)).expect("common cases");
        assert_eq!(changed(&comparison), [("add forward v1 case 5", Verdict::Slower)]);
    }

    #[test]
    fn nothing_in_common_is_an_error() {
        let mut other = results("b", "x", |_| 1.0);
        other.records.iter_mut().for_each(|record| record.name = format!("other {}", record.name));
        let Err(error) = Comparison::of(&results("a", "x", |_| 1.0), &other) else { panic!("compared") };
        assert!(error.to_string().contains("no case in common: a has \"add forward v1 case 0\""), "{error}");
    }

    #[test]
    fn few_runs_say_nothing() {
        let few = |mut results: Results| {
            results.records.iter_mut().for_each(|record| record.milliseconds.truncate(3));
            results
        };
        let comparison =
            Comparison::of(&few(results("a", "x", |_| 1.0)), &few(results("b", "y", |_| 2.0))).expect("common cases");
        assert_eq!(comparison.count(Verdict::TooFewRuns), 40);
        assert!(comparison.text().contains("40 with too few runs to tell"));
    }

    #[test]
    fn lines_of_a_case_are_taken_together_and_what_is_no_result_is_named() {
        let line = |samples: Value| json!({ "model": "unext", "mode": "train", "batch": 2, "size": 64, "samples_ms": samples });
        let both = Results::new("f", [line(json!([1.0, 2.0])), line(json!([3.0]))]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(both.records.len(), 1);
        assert_eq!(both.records[0].milliseconds, [1.0, 2.0, 3.0]);
        for (line, wanted) in [(line(json!([])), "no samples_ms"), (json!({ "op": "add" }), "neither op, entry")] {
            let Err(error) = Results::new("f", [line]) else { panic!("taken") };
            assert!(error.to_string().starts_with("f, result 1: ") && error.to_string().contains(wanted), "{error}");
        }
        assert!(Results::new("f", []).is_err());
    }
}
