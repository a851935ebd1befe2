//! Every entry point and version against its f64 twin, on every device.

use std::collections::BTreeMap;

use shadegrad::gpu::{Context, GpuOptions};
use shadegrad::{Device, Error};

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

/// With a tiny binding limit, ops launch once per range of images: the results stay right, or the op says that even
/// one image is too large. A case was split if it took more launches than without the limit.
#[test]
fn tensors_larger_than_a_binding_are_split() {
    let Some(device) = devices::gpu() else { return };
    let open = |max_binding_bytes| {
        Device::Gpu(Context::open(&GpuOptions { name: Some(device.to_string()), max_binding_bytes }).unwrap())
    };
    // A device of its own to compare with: other tests launch on the shared one meanwhile.
    let (small, whole) = (open(Some(64 * 1024)), open(None));
    let (mut split, mut refused, mut wrong) = (BTreeMap::<&str, usize>::new(), 0, Vec::new());
    for case in ops::cases() {
        let before = small.dispatches();
        match case.run(&small) {
            Err(Error::Limit { .. }) => refused += 1,
            Err(error) => wrong.push(format!("{} {}: {error}", case.op, case.name)),
            Ok(outcomes) => {
                let launches = small.dispatches() - before;
                let before = whole.dispatches();
                case.run(&whole).unwrap();
                if launches > whole.dispatches() - before {
                    *split.entry(case.op).or_default() += 1;
                }
                wrong.extend(outcomes.iter().filter(|outcome| !outcome.ok).map(|bad| {
                    format!("{} {} {} {}: {:?}", case.op, bad.entry, bad.version, case.name, bad.first_wrong)
                }));
            }
        }
    }
    println!("{small} with bindings of 64 KiB: split {split:?}, refused {refused}");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(split.values().sum::<usize>() >= 8, "only {split:?} were split");
    assert!(split.contains_key("conv2d") && split.contains_key("linear"), "{split:?}");
}
