//! Every entry point and version against its f64 twin, on every device.

use shadegrad::Device;

use crate::{devices, ops};

fn run(device: &Device) {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for case in ops::cases() {
        match case.run(device) {
            Err(error) => wrong.push(format!("{} {}: {error}", case.op, case.name)),
            Ok(outcomes) => {
                assert!(!outcomes.is_empty(), "{} {} compared nothing", case.op, case.name);
                compared += outcomes.len();
                for bad in outcomes.into_iter().filter(|outcome| !outcome.ok) {
                    wrong.push(format!(
                        "{} {} {} {}: nmse {:.2e} (bound {:.0e}), largest difference {:.2e}; first wrong (index, got, wanted): {:?}",
                        case.op, bad.entry, bad.version, case.name, bad.nmse, bad.tolerance, bad.max_abs, bad.first_wrong
                    ));
                }
            }
        }
    }
    println!("{device}: {compared} comparisons");
    assert!(wrong.is_empty(), "{} wrong on {device}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn cpu_agrees_with_the_reference() {
    run(&Device::cpu());
}

#[test]
fn gpu_agrees_with_the_reference() {
    if let Some(device) = devices::gpu() {
        run(device);
    }
}
