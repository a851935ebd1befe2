//! `shadegrad devices`: what there is, and what `--device auto` takes.

use serde_json::json;
use shadegrad::gpu::{AdapterFacts, adapters};
use shadegrad::{Device, Error, Result};

/// List adapters, their limits and features, and which device `auto` takes and why.
#[derive(Debug, clap::Args)]
pub(crate) struct DevicesArgs {
    /// One JSON object: adapters, auto, why
    #[arg(long)]
    json: bool,
}

/// Runs `shadegrad devices`.
///
/// # Errors
/// None today: a missing driver is an empty list, and the CPU always works.
pub(crate) fn run(args: DevicesArgs) -> Result<()> {
    let found = adapters();
    let (auto, why) = choice(&found);
    if args.json {
        let adapters = serde_json::to_value(&found).map_err(|error| Error::Config(format!("JSON: {error}")))?;
        println!("{}", json!({ "adapters": adapters, "auto": auto, "why": why }));
        return Ok(());
    }
    if found.is_empty() {
        println!("no Vulkan, Metal or DX12 adapter");
    }
    for facts in &found {
        print_adapter(facts);
    }
    println!("{}\n  --device cpu", Device::cpu());
    println!("--device auto takes {auto}: {why}");
    Ok(())
}

/// What [`Device::open`] does with `auto`, and the reason.
fn choice(found: &[AdapterFacts]) -> (String, String) {
    match found.iter().find(|facts| !facts.software) {
        Some(facts) => {
            let others = found.iter().filter(|other| !other.software).count();
            let why = if others == 1 {
                "it is the only hardware adapter".to_owned()
            } else {
                format!("it is the first of {others} hardware adapters (discrete before integrated before virtual)")
            };
            (facts.name.clone(), why)
        }
        None if found.is_empty() => ("cpu".to_owned(), "there is no adapter".to_owned()),
        None => (
            "cpu".to_owned(),
            "all adapters are software, which is used only when it is named (--device lavapipe)".to_owned(),
        ),
    }
}

fn print_adapter(facts: &AdapterFacts) {
    const MIB: u64 = 1 << 20;
    println!("{}", facts.name);
    println!("  {} through {}, {}", facts.kind, facts.backend, facts.driver);
    println!(
        "  binding up to {} MiB, buffer up to {} MiB",
        facts.max_binding_bytes / MIB,
        facts.max_buffer_bytes / MIB
    );
    println!(
        "  workgroup: {} invocations, {} bytes of memory; subgroups of {} to {}",
        facts.workgroup_invocations, facts.workgroup_bytes, facts.subgroup[0], facts.subgroup[1]
    );
    let list = |names: String| if names.is_empty() { "none".to_owned() } else { names };
    println!("  features: {}", list(facts.features.join(", ")));
    let used = match facts.matrix() {
        Some(matrix) => {
            format!(" (conv2d multiplies {matrix} by them, v5 and v6, where `tune --precision f16` finds that faster)")
        }
        None => String::new(),
    };
    println!("  matrix units: {}{used}", list(facts.matrix_units.join(", ")));
}

#[cfg(test)]
mod tests {
    use shadegrad::gpu::Matrix;

    use super::*;

    fn facts(name: &str, software: bool) -> AdapterFacts {
        AdapterFacts {
            name: name.to_owned(),
            kind: String::new(),
            backend: String::new(),
            driver: String::new(),
            max_binding_bytes: 0,
            max_buffer_bytes: 0,
            workgroup_bytes: 0,
            workgroup_invocations: 0,
            subgroup: [0, 0],
            features: Vec::new(),
            matrix_units: Vec::new(),
            software,
        }
    }

    #[test]
    fn matrix_units_are_for_us_if_everything_fits() {
        let card = AdapterFacts {
            features: vec!["f16", "subgroup", "cooperative_matrix"],
            subgroup: [32, 64],
            matrix_units: vec!["8x8x8 f16 to f32".to_owned(), "16x16x16 f16 to f32".to_owned()],
            ..facts("card", false)
        };
        assert_eq!(card.matrix(), Some(Matrix::Units16));
        let apple = AdapterFacts { matrix_units: vec!["8x8x8 f16 to f32".to_owned()], ..card.clone() };
        assert_eq!(apple.matrix(), Some(Matrix::Units8));
        let others = [
            AdapterFacts { matrix_units: vec!["16x16x16 f16 to f16".to_owned()], ..card.clone() },
            AdapterFacts { subgroup: [64, 128], ..card.clone() },
            AdapterFacts { features: vec!["f16", "cooperative_matrix"], ..card },
        ];
        assert!(others.iter().all(|other| other.matrix().is_none()));
    }

    #[test]
    fn auto_never_takes_software() {
        assert_eq!(choice(&[]).0, "cpu");
        assert_eq!(choice(&[facts("llvmpipe", true)]).0, "cpu");
        assert_eq!(choice(&[facts("card", false), facts("llvmpipe", true)]).0, "card");
    }
}
