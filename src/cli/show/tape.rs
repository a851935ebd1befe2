//! `shadegrad show tape`: what a forward pass records for its gradient.

use serde_json::json;
use shadegrad::autograd::{Operation, Source};
use shadegrad::models::build;
use shadegrad::ops::{BceDice, Mode, bce_dice};
use shadegrad::{Device, Result, Tape};

use super::{Shown, mebi, print_json, print_text};

/// The tape of a network: each recorded op with its result, its inputs and what it keeps for its gradient
///
/// Examples:
///   shadegrad show tape unext --batch 8 --train
///   shadegrad show tape unet --dot | dot -Tsvg -o unet.svg
///   shadegrad show tape resunet --size 128 --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct TapeArgs {
    #[command(flatten)]
    shown: Shown,
    /// Images
    #[arg(long, default_value_t = 1, value_name = "N")]
    batch: usize,
    /// A training step: batch norms keep the batch's statistics, and the loss is recorded too
    #[arg(long)]
    train: bool,
    /// Write a graph in Graphviz's language
    #[arg(long, conflicts_with = "json")]
    dot: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// A recorded network.
struct Recorded {
    operations: Vec<Operation>,
    /// The stage of each operation.
    stages: Vec<String>,
    parameters: Vec<String>,
    saved_bytes: u64,
    distinct_bytes: u64,
}

pub(super) fn run(args: &TapeArgs) -> Result<()> {
    let recorded = record(args)?;
    if args.dot {
        print_text(&dot(&recorded))
    } else if args.json {
        let Recorded { saved_bytes, distinct_bytes, .. } = &recorded;
        print_json(&json!({
            "model": args.shown.model.name(), "batch": args.batch, "size": args.shown.size, "train": args.train,
            "saved_bytes": saved_bytes, "distinct_saved_bytes": distinct_bytes, "operations": rows(&recorded),
        }))
    } else {
        print_text(&table(&recorded))
    }
}

/// Records a forward pass on a device that only plans: any size, at once.
fn record(args: &TapeArgs) -> Result<Recorded> {
    let config = args.shown.config()?;
    let device = Device::plan(None)?;
    let net = build(&device, &config, 0)?;
    let (batch, size) = (args.batch, args.shown.size);
    let x = device.empty("images", [batch, size, size, config.in_channels])?;
    let tape = Tape::new();
    let mode = if args.train { Mode::Train } else { Mode::Eval };
    let mut stages: Vec<String> = Vec::new();
    let logits = net.forward_stages(&tape.watch(&x), mode, &mut |name, _| {
        stages.resize(tape.len(), name.to_owned());
        Ok(())
    })?;
    stages.resize(tape.len(), "logits".to_owned());
    if args.train {
        let target = device.empty("masks", logits.shape())?;
        bce_dice(&logits, &target, &BceDice::batch())?;
        stages.resize(tape.len(), "loss".to_owned());
    }
    Ok(Recorded {
        operations: tape.operations(),
        stages,
        parameters: net.parameters().names().to_vec(),
        saved_bytes: tape.saved_bytes(),
        distinct_bytes: tape.distinct_saved_bytes(),
    })
}

impl Recorded {
    /// `v12` for a value, its path for a parameter.
    fn name(&self, source: &Source) -> String {
        match source {
            Source::Constant => "-".to_owned(),
            Source::Value(index) => format!("v{index}"),
            Source::Parameter(id) => self.parameters.get(*id).cloned().unwrap_or_else(|| format!("p{id}")),
        }
    }
}

fn rows(recorded: &Recorded) -> Vec<serde_json::Value> {
    let of = |(number, (operation, stage)): (usize, (&Operation, &String))| {
        let Operation { op, output, macs, parameters, saved_bytes, kept, inputs, value, settings } = operation;
        let inputs: Vec<String> = inputs.iter().map(|input| recorded.name(input)).collect();
        let kept: Vec<&[usize]> = kept.iter().map(|shape| shape.dims()).collect();
        let settings: serde_json::Map<_, _> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({
            "number": number, "stage": stage, "op": op, "output": output.dims(), "value": format!("v{value}"),
            "inputs": inputs, "kept": kept, "saved_bytes": saved_bytes, "macs": macs, "parameters": parameters,
            "settings": settings,
        })
    };
    recorded.operations.iter().zip(&recorded.stages).enumerate().map(of).collect()
}

fn table(recorded: &Recorded) -> String {
    let mut text = format!(
        "{:>4}  {:<9} {:<18} {:<22} {:>9} {:>10}  {}\n",
        "", "stage", "op", "result", "GMACs", "keeps MiB", "result <- inputs; shapes that it keeps"
    );
    for (number, (operation, stage)) in recorded.operations.iter().zip(&recorded.stages).enumerate() {
        let Operation { op, output, macs, saved_bytes, kept, inputs, value, .. } = operation;
        let inputs: Vec<String> = inputs.iter().map(|input| recorded.name(input)).collect();
        let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
        text += &format!(
            "{number:>4}  {stage:<9} {op:<18} {:<22} {:>9.4} {:>10.2}  v{value} <- {}; {}\n",
            output.to_string(),
            *macs as f64 * 1e-9,
            mebi(*saved_bytes),
            inputs.join(" "),
            if kept.is_empty() { "nothing".to_owned() } else { kept.join(" ") }
        );
    }
    text + &format!(
        "{} operations keep {:.2} MiB for their gradients; what several keep counted once: {:.2} MiB\n",
        recorded.operations.len(),
        mebi(recorded.saved_bytes),
        mebi(recorded.distinct_bytes)
    )
}

/// A node for each operation, grouped by stage; edges are values.
fn dot(recorded: &Recorded) -> String {
    let mut text = "digraph tape {\n  rankdir=TB;\n  node [shape=box, fontname=\"sans-serif\"];\n".to_owned();
    text += "  images [shape=ellipse];\n";
    let made = |value: usize| recorded.operations.iter().position(|operation| operation.value == value);
    for (number, (operation, stage)) in recorded.operations.iter().zip(&recorded.stages).enumerate() {
        let Operation { op, output, saved_bytes, .. } = operation;
        text += &format!(
            "  n{number} [label=\"{op}\\n{output}\\nkeeps {:.2} MiB\", tooltip=\"{stage}\", group=\"{stage}\"];\n",
            mebi(*saved_bytes)
        );
        for input in &operation.inputs {
            if let Source::Value(value) = input {
                match made(*value) {
                    Some(from) => text += &format!("  n{from} -> n{number};\n"),
                    None => text += &format!("  images -> n{number};\n"),
                }
            }
        }
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        tape: TapeArgs,
    }

    fn recorded(line: &[&str]) -> Result<Recorded> {
        record(&Line::parse_from([&["tape"], line].concat()).tape)
    }

    #[test]
    fn a_training_step_ends_in_its_loss_and_names_parameters() -> Result<()> {
        let recorded = recorded(&["unext", "--size", "64", "--batch", "2", "--train"])?;
        assert_eq!(recorded.operations.last().map(|operation| operation.op), Some("bce_dice"));
        assert_eq!(recorded.stages.len(), recorded.operations.len());
        let text = table(&recorded);
        assert!(text.contains("encoder1.weight") && text.contains("[2, 64, 64, 16]"), "{text}");
        assert!(recorded.distinct_bytes <= recorded.saved_bytes && recorded.distinct_bytes > 0);
        Ok(())
    }

    /// The planned tape is the one of a real step on the CPU, which alone keeps what a batch norm gives to a convolution.
    #[test]
    fn the_plan_records_what_a_real_step_records() -> Result<()> {
        let planned = recorded(&["unet", "--base", "4", "--size", "32", "--train"])?;
        let device = Device::cpu();
        let args = Line::parse_from(["tape", "unet", "--base", "4"]).tape;
        let net = build(&device, &args.shown.config()?, 0)?;
        let tape = Tape::new();
        let logits = net.forward(&tape.watch(&device.zeros("x", [1, 32, 32, 3])?), Mode::Train)?;
        bce_dice(&logits, &device.zeros("target", logits.shape())?, &BceDice::batch())?;
        let recorded = |operations: Vec<Operation>| -> Vec<Operation> {
            let of = |operation| Operation { saved_bytes: 0, kept: Vec::new(), ..operation };
            operations.into_iter().map(of).collect()
        };
        assert_eq!(recorded(planned.operations), recorded(tape.operations()));
        Ok(())
    }

    #[test]
    fn a_graph_has_a_node_for_each_operation() -> Result<()> {
        let recorded = recorded(&["resunet", "--base", "4", "--size", "32"])?;
        let text = dot(&recorded);
        assert_eq!(text.matches("[label=").count(), recorded.operations.len());
        assert!(text.contains("images -> n0") && text.contains("-> n1;") && text.ends_with("}\n"), "{text}");
        Ok(())
    }
}
