//! `shadegrad show memory`: what lives when in a step, and what makes the peak.

use shadegrad::Result;
use shadegrad::models::{KernelTraffic, LiveBuffer, MemoryPlan, MemoryPoint, PlannedStep};
use shadegrad::train::Precision;

use super::{Shown, mebi, print_json, print_text};

/// The device memory of a step: bytes in use after each op, forward and backward, and what makes the peak
///
/// Examples:
///   shadegrad show memory unet --batch 8 --size 256
///   shadegrad show memory unext --batch 32 --infer
///   shadegrad show memory unet --recompute
///   shadegrad show memory unet --precision f16 --kernels
///   shadegrad show memory resunet --device lavapipe --top 20 --json
///
/// The figures are those of the pool: sizes in classes, at most 12.5 % above what is asked for. The slices of the data
/// set, one byte a value, come on top.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct MemoryArgs {
    #[command(flatten)]
    shown: Shown,
    /// Images of a step
    #[arg(long, default_value_t = 8, value_name = "N")]
    batch: usize,
    /// A prediction instead of a training step with Adam
    #[arg(long)]
    infer: bool,
    /// As `train --set recompute=true`: activations computed again instead of kept
    #[arg(long, conflicts_with = "infer")]
    recompute: bool,
    /// f32, or f16: as `train --precision f16`
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Tensors of the peak to list
    #[arg(long, default_value_t = 12, value_name = "N")]
    top: usize,
    /// List the kernels too: launches, and bytes of the tensors that they bind
    #[arg(long)]
    kernels: bool,
    /// The GPU whose limits hold, by part of its name [default: what WebGPU promises everywhere]
    #[arg(long, value_name = "NAME", env = "SHADEGRAD_DEVICE")]
    device: Option<String>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &MemoryArgs) -> Result<()> {
    let named = args.device.as_deref().filter(|name| !matches!(*name, "auto" | "cpu" | ""));
    let step = PlannedStep {
        batch: args.batch,
        size: args.shown.size,
        train: !args.infer,
        recompute: args.recompute,
        images: args.precision.dtype(),
    };
    let plan = MemoryPlan::new(&args.shown.config()?, &step, named)?;
    if args.json {
        return print_json(&plan);
    }
    let mut text = chart(&plan, args.top);
    if args.kernels {
        text += &table(&plan);
    }
    print_text(&text)
}

/// A line per kernel.
fn table(plan: &MemoryPlan) -> String {
    let mut text = format!("\n{:<50} {:>9} {:>10}\n", "kernel", "launches", "MiB bound");
    for KernelTraffic { shader, entry, launches, bytes } in &plan.kernels {
        text += &format!("{:<50} {launches:>9} {:>10.2}\n", format!("{shader}.{entry}"), mebi(*bytes));
    }
    text
}

/// Characters of the longest bar.
const WIDTH: usize = 48;

/// A line per op: `#` in use when it is done, `+` what it needed on top while it ran.
fn chart(plan: &MemoryPlan, top: usize) -> String {
    let kind = if plan.train { "training step" } else { "prediction" };
    let MemoryPlan { model, batch, size, device, .. } = plan;
    let mut text = format!("{model}, {kind}, {batch} images {size}x{size}, on {device}\n");
    text += &format!("{:>10.2} MiB before: parameters, gradients, moments, batch\n\n", mebi(plan.before_bytes));
    text += &format!("{:>4}  {:<8} {:<9} {:<18} {:<22} {:>10}\n", "", "pass", "stage", "op", "result", "MiB after");
    let length = |bytes: u64| (bytes as f64 / plan.peak_bytes.max(1) as f64 * WIDTH as f64).round() as usize;
    for at in &plan.points {
        let MemoryPoint { point, pass, stage, op, shape, live_bytes, peak_bytes } = at;
        let (after, during) = (length(*live_bytes), length(*peak_bytes));
        let bar = "#".repeat(after) + &"+".repeat(during.saturating_sub(after));
        let mark = if *point == plan.peak_point { " <- peak" } else { "" };
        let shape = if shape.is_empty() { String::new() } else { format!("{shape:?}") };
        text += &format!(
            "{point:>4}  {pass:<8} {stage:<9} {op:<18} {shape:<22} {:>10.2}  {bar}{mark}\n",
            mebi(*live_bytes)
        );
    }
    text += &format!("\npeak {:.2} MiB, during {}; ", mebi(plan.peak_bytes), at(plan, plan.peak_point));
    text += &format!("{} kernel launches bind {:.2} MiB\n", plan.launches, mebi(plan.traffic_bytes));
    for LiveBuffer { bytes, op, made_at, freed_at, .. } in plan.at_peak.iter().take(top) {
        let made =
            made_at.map_or_else(|| "there before the step".to_owned(), |point| format!("made in {}", at(plan, point)));
        let freed = freed_at.map_or_else(|| "stays".to_owned(), |point| format!("freed in {}", at(plan, point)));
        text += &format!("{:>10.2} MiB  {op:<18} {made}, {freed}\n", mebi(*bytes));
    }
    let rest = plan.at_peak.iter().skip(top);
    let (count, bytes) = rest.fold((0, 0), |(count, bytes), buffer| (count + 1, bytes + buffer.bytes));
    if count > 0 {
        text += &format!("{:>10.2} MiB  in {count} smaller ones\n", mebi(bytes));
    }
    text
}

/// `12 (forward e1 conv2d)`.
fn at(plan: &MemoryPlan, point: usize) -> String {
    match plan.points.get(point) {
        Some(MemoryPoint { pass, stage, op, .. }) if stage.is_empty() => format!("{point} ({pass} {op})"),
        Some(MemoryPoint { pass, stage, op, .. }) => format!("{point} ({pass} {stage} {op})"),
        None => format!("{point} (the end)"),
    }
}

#[cfg(test)]
mod tests {
    use shadegrad::models::{Model, ModelConfig};

    use super::*;

    fn unet(train: bool) -> Result<MemoryPlan> {
        let step = PlannedStep { batch: 2, size: 64, train, ..PlannedStep::default() };
        MemoryPlan::new(&ModelConfig { base: 4, ..ModelConfig::new(Model::Unet) }, &step, None)
    }

    #[test]
    fn the_chart_has_a_line_per_op_and_adds_up() -> Result<()> {
        let plan = unet(true)?;
        let text = chart(&plan, 3);
        assert!(text.contains("<- peak") && text.contains("smaller ones"), "{text}");
        assert!(text.lines().filter(|line| line.contains(" backward ")).count() >= 40, "{text}");
        assert_eq!(plan.at_peak.iter().map(|buffer| buffer.bytes).sum::<u64>(), plan.peak_bytes);
        assert_eq!(plan.points.iter().map(|point| point.peak_bytes).max(), Some(plan.peak_bytes));
        Ok(())
    }

    #[test]
    fn a_prediction_needs_less() -> Result<()> {
        assert!(unet(false)?.peak_bytes < unet(true)?.peak_bytes / 2);
        Ok(())
    }
}
