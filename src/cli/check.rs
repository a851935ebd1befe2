//! `shadegrad check`: every kernel version against the f64 reference on this device, with the cases of the tests.

use clap::builder::PossibleValuesParser;
use serde_json::json;
use shadegrad::{Device, Error, Result};

use super::bar;

#[allow(missing_docs, unreachable_pub, reason = "shared with the tests")]
#[path = "../../kernels-tests/ops/mod.rs"]
mod cases;

/// Compare every kernel version with the f64 reference on this device.
///
/// Examples:
///   shadegrad check
///   shadegrad check add max_pool2d --device lavapipe
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CheckArgs {
    /// Ops to check [default: all]
    #[arg(value_name = "OP", value_parser = PossibleValuesParser::new(names()), hide_possible_values = true)]
    ops: Vec<String>,
    /// auto, cpu, or part of an adapter's name
    #[arg(long, default_value = "auto", env = "SHADEGRAD_DEVICE")]
    device: String,
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

/// Runs `shadegrad check`; true if every comparison is within its tolerance.
///
/// # Errors
/// No such device, or the device was lost. A kernel that fails is a failed comparison, not an error.
pub(crate) fn run(args: CheckArgs) -> Result<bool> {
    let device = Device::open(&args.device)?;
    let mut chosen = cases::cases();
    chosen.retain(|case| args.ops.is_empty() || args.ops.iter().any(|op| op == case.op));
    if !args.json {
        println!("{device} {}", device.driver());
    }
    let progress = bar("checking", args.json);
    progress.set_length(chosen.len() as u64);
    let mut rows: Vec<Row> = Vec::new();
    let mut wrong = Vec::new();
    let (mut passed, mut failed) = (0, 0);
    for case in &chosen {
        let (op, name) = (case.op, &case.name);
        let outcomes = match case.run(&device) {
            Ok(outcomes) if outcomes.is_empty() => Err("it compared nothing".to_owned()),
            Ok(outcomes) => Ok(outcomes),
            // Nothing that follows could work.
            Err(error @ Error::DeviceLost(_)) => return Err(error),
            Err(error) => Err(error.to_string()),
        };
        progress.inc(1);
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            Err(message) => {
                failed += 1;
                if args.json {
                    println!(
                        "{}",
                        json!({ "op": op, "entry": null, "version": null, "case": name, "nmse": null, "max_abs": null,
                            "tolerance": null, "ok": false, "error": message })
                    );
                }
                wrong.push(format!("{op} {name}: {message}"));
                continue;
            }
        };
        for outcome in outcomes {
            if outcome.ok {
                passed += 1;
            } else {
                failed += 1;
                wrong.push(format!(
                    "{op} {} {} {name}: nmse {:.2e} (bound {:.0e}), largest difference {:.2e}; first wrong (index, got, wanted): {:?}",
                    outcome.entry, outcome.version, outcome.nmse, outcome.tolerance, outcome.max_abs, outcome.first_wrong
                ));
            }
            if args.json {
                println!(
                    "{}",
                    json!({ "op": op, "entry": outcome.entry, "version": outcome.version, "case": name,
                        "nmse": outcome.nmse, "max_abs": outcome.max_abs, "tolerance": outcome.tolerance, "ok": outcome.ok })
                );
            }
            let same = |row: &&mut Row| row.op == op && row.entry == outcome.entry && row.version == outcome.version;
            match rows.iter_mut().find(same) {
                Some(row) => {
                    row.compared += 1;
                    row.nmse = worse(row.nmse, outcome.nmse);
                    row.max_abs = worse(row.max_abs, outcome.max_abs);
                    row.ok &= outcome.ok;
                }
                None => rows.push(Row {
                    op,
                    entry: outcome.entry,
                    version: outcome.version,
                    compared: 1,
                    nmse: outcome.nmse,
                    max_abs: outcome.max_abs,
                    ok: outcome.ok,
                }),
            }
        }
    }
    progress.finish_and_clear();
    if args.json {
        println!("{}", json!({ "passed": passed, "failed": failed, "device": device.to_string() }));
    } else {
        print_table(&rows);
        for line in &wrong {
            println!("WRONG {line}");
        }
        println!("{passed} comparisons passed, {failed} failed");
    }
    Ok(failed == 0)
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
