//! `shadegrad check`: every kernel version against the f64 reference on this device, with the cases of the tests.

use clap::builder::PossibleValuesParser;
use indicatif::ProgressBar;
use serde_json::json;
use shadegrad::{Device, Error, Result};

use super::bar;
use super::own_shader::OwnShader;

#[allow(missing_docs, unreachable_pub, reason = "shared with the tests")]
#[path = "../../kernels-tests/ops/mod.rs"]
mod cases;

/// Compare every kernel version with the f64 reference on this device.
///
/// Examples:
///   shadegrad check
///   shadegrad check add max_pool2d --device lavapipe
///   shadegrad check max_pool2d --shader my_pool.wgsl --device lavapipe
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CheckArgs {
    /// Ops to check [default: all]
    #[arg(value_name = "OP", value_parser = PossibleValuesParser::new(names()), hide_possible_values = true)]
    ops: Vec<String>,
    /// auto, cpu, or part of an adapter's name
    #[arg(long, default_value = "auto", env = "SHADEGRAD_DEVICE")]
    device: String,
    #[command(flatten)]
    own: OwnShader,
    /// Stop after the first case with a wrong comparison
    #[arg(long)]
    fail_fast: bool,
    /// A JSON object for each comparison, then one with the counts
    #[arg(long)]
    json: bool,
}

/// Ops that have cases, in their order.
fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = cases::cases().iter().map(|case| case.op).collect();
    names.dedup();
    names
}

/// A line of the table.
struct Row {
    op: &'static str,
    entry: &'static str,
    version: String,
    compared: usize,
    nmse: f64,
    max_abs: f64,
    ok: bool,
}

/// `f64::max` would drop a NaN, which is worse than anything.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// What the cases of some ops say.
#[derive(Default)]
pub(crate) struct Verdict {
    rows: Vec<Row>,
    /// A sentence for each comparison that failed.
    pub(crate) wrong: Vec<String>,
    /// Comparisons within their tolerance.
    pub(crate) passed: usize,
}

impl Verdict {
    /// Whether everything was right.
    pub(crate) fn ok(&self) -> bool {
        self.wrong.is_empty()
    }

    /// The kernels with a comparison that failed.
    pub(crate) fn wrong_versions(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().filter(|row| !row.ok).map(|row| row.version.as_str())
    }

    fn add(&mut self, op: &'static str, case: &str, of: &str, outcome: cases::Outcome) {
        let cases::Outcome { entry, version, nmse, max_abs, tolerance, ok, first_wrong } = outcome;
        if ok {
            self.passed += 1;
        } else {
            let values: Vec<String> = first_wrong
                .iter()
                .map(|(index, got, want)| format!("index {index}: got {got}, the reference is {want}"))
                .collect();
            let values =
                if values.is_empty() { "each value is close, their sum is not".to_owned() } else { values.join("; ") };
            self.wrong.push(format!(
                "{op}{of}: {entry} / {version} {case}: nmse {nmse:.2e} (bound {tolerance:.0e}), largest difference {max_abs:.2e}; {values}"
            ));
        }
        match self.rows.iter_mut().find(|row| row.op == op && row.entry == entry && row.version == version) {
            Some(row) => {
                row.compared += 1;
                row.nmse = worse(row.nmse, nmse);
                row.max_abs = worse(row.max_abs, max_abs);
                row.ok &= ok;
            }
            None => self.rows.push(Row { op, entry, version, compared: 1, nmse, max_abs, ok }),
        }
    }
}

/// Runs all cases of these ops (none named: of all) on a device. `of` is added to the name of the op where something is
/// wrong (` of my.wgsl`), with `fail_fast` the rest is left out after a case that failed, `each` gets a JSON object for each
/// comparison.
///
/// # Errors
/// [`Error::DeviceLost`]. A kernel that fails is a failed comparison, not an error.
pub(crate) fn judge(
    device: &Device,
    ops: &[impl AsRef<str>],
    of: &str,
    fail_fast: bool,
    progress: &ProgressBar,
    mut each: impl FnMut(serde_json::Value),
) -> Result<Verdict> {
    let mut chosen = cases::cases();
    chosen.retain(|case| ops.is_empty() || ops.iter().any(|op| op.as_ref() == case.op));
    // Somebody's own text has no form for 16-bit floats: there ours would run.
    let halves = chosen.iter().filter(|case| of.is_empty() && case.has_half(device)).map(|case| (case, true));
    progress.set_length((chosen.len() + halves.clone().count()) as u64);
    let mut verdict = Verdict::default();
    for (case, half) in chosen.iter().map(|case| (case, false)).chain(halves) {
        if fail_fast && !verdict.ok() {
            break;
        }
        let (op, name) = (case.op, &case.name);
        let outcomes = match if half { case.run_half(device) } else { case.run(device) } {
            Ok(outcomes) if outcomes.is_empty() => Err("it compared nothing".to_owned()),
            Ok(outcomes) => Ok(outcomes),
            // Nothing that follows could work.
            Err(error @ Error::DeviceLost(_)) => return Err(error),
            Err(error) => Err(error.to_string()),
        };
        progress.inc(1);
        match outcomes {
            Ok(outcomes) => {
                for outcome in outcomes {
                    each(json!({ "op": op, "entry": outcome.entry, "version": outcome.version, "case": name,
                        "nmse": outcome.nmse, "max_abs": outcome.max_abs, "tolerance": outcome.tolerance, "ok": outcome.ok }));
                    verdict.add(op, name, of, outcome);
                }
            }
            Err(message) => {
                each(json!({ "op": op, "entry": null, "version": null, "case": name, "nmse": null, "max_abs": null,
                    "tolerance": null, "ok": false, "error": message }));
                verdict.wrong.push(format!("{op}{of}: {name}: {message}"));
            }
        }
    }
    progress.finish_and_clear();
    Ok(verdict)
}

/// Runs `shadegrad check`; true if every comparison is within its tolerance.
///
/// # Errors
/// No such device, a shader file that does not fit, or the device was lost. A kernel that fails is a failed comparison,
/// not an error.
pub(crate) fn run(args: CheckArgs) -> Result<bool> {
    let device = Device::open(&args.device)?;
    device.spoil_memory();
    let said = |line: String| {
        if !args.json {
            println!("{line}");
        }
    };
    said(format!("{device} {}", device.driver()));
    let of = args.own.stand_in(&device, &args.ops, said)?.unwrap_or_default();
    let progress = bar("checking", args.json);
    let verdict = judge(&device, &args.ops, &of, args.fail_fast, &progress, |line| {
        if args.json {
            println!("{line}");
        }
    })?;
    let (passed, failed) = (verdict.passed, verdict.wrong.len());
    if args.json {
        println!("{}", json!({ "passed": passed, "failed": failed, "device": device.to_string() }));
    } else {
        print_table(&verdict.rows);
        for line in &verdict.wrong {
            println!("WRONG {line}");
        }
        println!("{passed} comparisons passed, {failed} failed");
    }
    Ok(verdict.ok())
}

fn print_table(rows: &[Row]) {
    println!(
        "{:<18} {:<18} {:<7} {:>5} {:>10} {:>10}  ok",
        "op", "entry", "version", "cases", "worst nmse", "worst abs"
    );
    for row in rows {
        println!(
            "{:<18} {:<18} {:<7} {:>5} {:>10.1e} {:>10.1e}  {}",
            row.op,
            row.entry,
            row.version,
            row.compared,
            row.nmse,
            row.max_abs,
            if row.ok { "ok" } else { "WRONG" }
        );
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        check: CheckArgs,
    }

    #[test]
    fn add_is_right_on_the_cpu() -> Result<()> {
        let args = Line::parse_from(["check", "add", "--device", "cpu"]).check;
        assert!(run(args)?);
        Ok(())
    }

    #[test]
    fn an_unknown_op_is_wrong_usage_and_lists_the_ops() {
        match Line::try_parse_from(["check", "nonsense"]) {
            Ok(_) => panic!("taken"),
            Err(error) => {
                assert_eq!(error.exit_code(), 2);
                assert!(error.to_string().contains("max_pool2d"), "{error}");
            }
        }
    }

    #[test]
    fn nan_stays_the_worst() {
        assert!(worse(1.0, f64::NAN).is_nan() && worse(f64::NAN, 1.0).is_nan());
    }
}
