//! `shadegrad show plan`: which kernels an op takes for a shape, why, and how much they do.

use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};
use shadegrad::gpu::plan::{PlanEvent, PlannedLaunch};
use shadegrad::ops::{SHADERS, plan};
use shadegrad::{Device, Error, Result, Shape};

use super::{mebi, print_json, print_text};

/// The kernels of an op for a shape: version and why, workgroups, bytes, operations, forward and backward
///
/// Examples:
///   shadegrad show plan conv2d --shape 2x128x128x64 --out 64
///   shadegrad show plan conv2d --shape 8x256x256x3 --out 1 --kernel 1 --padding 0 --json
///   shadegrad show plan batch_norm --shape 8x256x256x64 --device lavapipe
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PlanArgs {
    /// The op
    #[arg(value_name = "OP", value_parser = PossibleValuesParser::new(SHADERS.iter().map(|shader| shader.name)), hide_possible_values = true)]
    op: String,
    /// Of x: batch x height x width x channels, e.g. 2x128x128x64
    #[arg(long, value_name = "NxHxWxC", value_parser = shape)]
    shape: Shape,
    /// Channels of the result, for ops with a weight; of the other tensor, for concat [default: those of x]
    #[arg(long, value_name = "N")]
    out: Option<usize>,
    /// Rows and columns of the kernel, for convolutions [default: 3; conv_transpose2d: 2]
    #[arg(long, value_name = "N")]
    kernel: Option<usize>,
    /// Of convolutions [default: 1; conv_transpose2d: 2]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Of convolutions [default: half of the kernel; conv_transpose2d: 0]
    #[arg(long, value_name = "N")]
    padding: Option<usize>,
    /// The GPU whose limits hold, by part of its name [default: what WebGPU promises everywhere]
    #[arg(long, value_name = "NAME", env = "SHADEGRAD_DEVICE")]
    device: Option<String>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

fn shape(text: &str) -> std::result::Result<Shape, String> {
    let extents: std::result::Result<Vec<usize>, _> = text.split(['x', ',']).map(|part| part.trim().parse()).collect();
    match extents {
        Ok(extents) if !extents.contains(&0) => Shape::new(&extents).map_err(|error| error.to_string()),
        _ => Err("must be extents above 0 like 2x128x128x64".to_owned()),
    }
}

/// What an op does on a planning device.
struct Planned {
    device: Device,
    launches: Vec<(&'static str, PlannedLaunch)>,
    macs: u64,
}

pub(super) fn run(args: &PlanArgs) -> Result<()> {
    let planned = planned(args)?;
    if args.json {
        let launches: Vec<Value> = planned.launches.iter().map(|(pass, launch)| row(pass, launch)).collect();
        return print_json(&json!({
            "op": args.op, "shape": args.shape.dims(), "device": planned.device.to_string(),
            "flops": 2 * planned.macs, "bytes": bytes(&planned), "launches": launches,
        }));
    }
    print_text(&text(args, &planned))
}

fn planned(args: &PlanArgs) -> Result<Planned> {
    // `auto` and `cpu` name no GPU whose limits could be taken.
    let named = args.device.as_deref().filter(|name| !matches!(*name, "auto" | "cpu" | ""));
    let device = Device::plan(named)?;
    let Device::Gpu(context) = &device else { return Err(Error::Config("a plan is made by a GPU".to_owned())) };
    let transposed = args.op == "conv_transpose2d";
    let kernel = args.kernel.unwrap_or(if transposed { 2 } else { 3 });
    let sizes = plan::Sizes {
        shape: args.shape,
        out: args.out.unwrap_or(args.shape.last()),
        kernel,
        stride: args.stride.unwrap_or(if transposed { 2 } else { 1 }),
        padding: args.padding.unwrap_or(if transposed { 0 } else { kernel / 2 }),
        half: false,
    };
    let macs = plan::run(&args.op, &device, &sizes)?;
    let mut launches = Vec::new();
    let mut pass = "forward";
    for event in context.take_plan() {
        match event {
            PlanEvent::Launched(launch) => launches.push((pass, launch)),
            PlanEvent::Finished { .. } => pass = "backward",
            PlanEvent::Allocated { .. } | PlanEvent::Freed { .. } | PlanEvent::Asked { .. } => {}
        }
    }
    Ok(Planned { launches, macs, device: device.clone() })
}

fn bytes(planned: &Planned) -> u64 {
    planned.launches.iter().map(|(_, launch)| launch.bytes).sum()
}

fn row(pass: &str, launch: &PlannedLaunch) -> Value {
    let PlannedLaunch { shader, entry, constants, groups, bindings, bytes, .. } = launch;
    let bindings: Vec<&[usize]> = bindings.iter().map(|shape| shape.dims()).collect();
    json!({
        "pass": pass, "shader": shader, "entry": entry, "constants": constants.to_string(), "why": plan::rule(shader, entry),
        "groups": groups, "bindings": bindings, "bytes": bytes,
    })
}

fn text(args: &PlanArgs, planned: &Planned) -> String {
    let mut text = format!("{} of x {} on {}\n", args.op, args.shape, planned.device);
    let mut last = "";
    for (pass, launch) in &planned.launches {
        if last != *pass {
            text += &format!("{pass}\n");
            last = pass;
        }
        let PlannedLaunch { shader, entry, constants, groups: [columns, rows, _], bindings, bytes, .. } = launch;
        let name = format!("{shader}.{entry} {constants}");
        let groups = if *rows == 1 { columns.to_string() } else { format!("{columns} x {rows}") };
        let shapes: Vec<String> = bindings.iter().map(ToString::to_string).collect();
        text += &format!("  {name:<38} {groups:>12} groups  {:>9.2} MiB bound  {}\n", mebi(*bytes), shapes.join(" "));
        if let Some(why) = plan::rule(shader, entry) {
            text += &format!("    taken where {why}\n");
        }
    }
    let (flops, bytes) = (2.0 * planned.macs as f64, bytes(planned) as f64);
    if planned.macs > 0 {
        text += &format!("{:.3} GFLOP forward; each of the two gradients takes as many again\n", flops * 1e-9);
    }
    text + &format!("{} launches bind {:.2} MiB in all\n", planned.launches.len(), bytes / 1048576.0)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        plan: PlanArgs,
    }

    fn parse(line: &[&str]) -> std::result::Result<PlanArgs, clap::Error> {
        Line::try_parse_from([&["plan"], line].concat()).map(|line| line.plan)
    }

    #[test]
    fn a_convolution_is_planned_with_its_reason() -> Result<()> {
        let Ok(args) = parse(&["conv2d", "--shape", "2x128x128x64", "--device", "auto"]) else { panic!("refused") };
        let planned = planned(&args)?;
        let text = text(&args, &planned);
        assert!(text.contains("conv2d.forward_v2") && text.contains("conv2d_backward.backward_v2"), "{text}");
        assert!(text.contains("taken where the channels of the result divide by 8"), "{text}");
        // A GPU reads through workgroup memory.
        assert!(text.contains("conv2d.forward_v2 BLOCK=8"), "{text}");
        // 2 * 128 * 128 pixels, 9 * 64 * 64 products each.
        assert_eq!(planned.macs, 2 * 128 * 128 * 9 * 64 * 64);
        assert!(text.contains("2.416 GFLOP forward"), "{text}");
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error() -> Result<()> {
        assert!(parse(&["conv2d", "--shape", "2x0x4"]).is_err() && parse(&["conv2d", "--shape", "abc"]).is_err());
        let Ok(args) = parse(&["conv2d", "--shape", "2x8", "--device", "auto"]) else { panic!("refused too early") };
        let Err(error) = planned(&args) else { panic!("planned") };
        assert!(error.to_string().contains("needs images"), "{error}");
        Ok(())
    }
}
