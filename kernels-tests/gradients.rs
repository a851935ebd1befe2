//! Every gradient of the plain-Rust twins against finite differences in f64.

use crate::ops;

#[test]
fn twins_agree_with_finite_differences() {
    let mut wrong = Vec::new();
    for case in ops::gradients() {
        for (which, gradient) in case.gradients.iter().enumerate() {
            assert_eq!(gradient.len(), case.inputs[which].len(), "{}", case.name);
            let scale = gradient.iter().fold(1e-3_f64, |most, g| most.max(g.abs()));
            for (index, analytic) in gradient.iter().enumerate() {
                let numeric = difference(&case, which, index);
                if (numeric - analytic).abs() > case.tolerance * scale {
                    wrong.push(format!(
                        "{} input {which} [{index}]: {analytic} but differences give {numeric}",
                        case.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

/// Central differences of fourth order: error of the order of step^4.
fn difference(case: &ops::GradientCase, which: usize, index: usize) -> f64 {
    let at = |offset: f64| {
        let mut inputs = case.inputs.clone();
        inputs[which][index] += offset;
        (case.value)(&inputs)
    };
    let step = 1e-4;
    (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step)
}
