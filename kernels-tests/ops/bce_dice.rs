//! Cases of the loss: both poolings, saturated logits (right, wrong, one-sided), empty and full masks, soft targets,
//! several classes, only one of the two terms, focal and Tversky weights.

use shadegrad::Tape;
use shadegrad::cpu::bce_dice::{BceDiceParams, backward_input, forward};
use shadegrad::ops::bce_dice::{BceDice, Pooling, bce_dice};

use super::{Case, GradientCase, Tolerance, doubles, numbers};

const OP: &str = "bce_dice";

/// Loss and gradient may be as small as 1e-17, so only the relative bound counts. WGSL allows exp(-|x|) an error of
/// 3 + 2|x| units in the last place: 63 at |x| = 30, 4e-6; nothing else here loses more than a few.
const EXP: Tolerance = Tolerance { nmse: 1e-10, absolute: 1e-5 };

/// How logits and targets are made from a random number each.
#[derive(Clone, Copy)]
struct Inputs {
    name: &'static str,
    logit: fn(f32, f32) -> f32,
    target: fn(f32) -> f32,
}

/// One pixel in eight is tumour.
fn mask(v: f32) -> f32 {
    f32::from(u8::from(v > 0.75))
}

const INPUTS: [Inputs; 10] = [
    Inputs { name: "ordinary", logit: |v, _| 4.0 * v, target: mask },
    Inputs { name: "soft targets", logit: |v, _| 4.0 * v, target: |v| 0.5 + 0.5 * v },
    Inputs { name: "near 0", logit: |v, _| 1e-7 * v, target: mask },
    Inputs { name: "right by 30", logit: |_, t| 60.0 * t - 30.0, target: mask },
    Inputs { name: "wrong by 30", logit: |_, t| 30.0 - 60.0 * t, target: mask },
    Inputs { name: "nothing, -30", logit: |_, _| -30.0, target: mask },
    Inputs { name: "everything, 30", logit: |_, _| 30.0, target: mask },
    Inputs { name: "empty masks at -22", logit: |v, _| -22.0 + v, target: |_| 0.0 },
    Inputs { name: "full masks", logit: |v, _| 9.0 * v, target: |_| 1.0 },
    Inputs { name: "up to 100", logit: |v, _| 100.0 * v, target: mask },
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for settings in [BceDice::sample(), BceDice::batch()] {
        for inputs in INPUTS {
            cases.push(case([3, 40, 36, 1], settings, inputs));
        }
        for shape in [[1, 1, 1, 1], [2, 3, 5, 2], [5, 17, 31, 3], [2, 256, 256, 1], [70, 2, 8, 4]] {
            cases.push(case(shape, settings, INPUTS[0]));
        }
    }
    cases.push(case([3, 40, 36, 1], BceDice { bce_weight: 0.0, ..BceDice::batch() }, INPUTS[0]));
    cases.push(case([3, 40, 36, 1], BceDice { bce_weight: 1.0, dice_weight: 0.0, ..BceDice::sample() }, INPUTS[0]));
    let tversky = BceDice { pooling: Pooling::Sample, ..BceDice::tversky(0.3, 0.7) };
    for settings in [BceDice::focal(2.0, 0.25), BceDice::focal(0.5, -1.0), BceDice::focal(0.0, 0.75), tversky] {
        // Focal wants hard targets; and where everything is right, m^2 * bce leaves the range of f32.
        let fits = |name: &str| match name {
            "soft targets" => settings.focal_gamma == 0.0,
            "right by 30" | "empty masks at -22" => settings.focal_gamma <= 1.0,
            _ => true,
        };
        for inputs in INPUTS.iter().filter(|inputs| fits(inputs.name)) {
            cases.push(case([3, 40, 36, 1], settings, *inputs));
        }
    }
    cases.push(case([2, 3, 5, 2], BceDice { dice_weight: 1.0, ..BceDice::focal(1.5, 0.3) }, INPUTS[0]));
    cases
}

fn params([n, h, w, c]: [usize; 4], settings: &BceDice) -> BceDiceParams {
    let (groups, group_images) = if settings.pooling == Pooling::Sample { (n, 1) } else { (1, n) };
    BceDiceParams {
        images: n as u32,
        image_len: (h * w * c) as u32,
        chunk: 0,
        image_chunks: 0,
        first_image: 0,
        groups: groups as u32,
        group_images: group_images as u32,
        smoothing: settings.smooth,
        bce_scale: (f64::from(settings.bce_weight) / (n * h * w * c) as f64) as f32,
        dice_scale: (f64::from(settings.dice_weight) / groups as f64) as f32,
        false_positive: settings.false_positive,
        false_negative: settings.false_negative,
        focal_gamma: settings.focal_gamma,
        focal_alpha: settings.focal_alpha,
    }
}

fn reference(p: &BceDiceParams, x: &[f64], target: &[f64], gy: f64) -> (f64, Vec<f64>) {
    let (mut loss, mut sums, mut gx) = ([0.0], vec![0.0; 2 * p.groups as usize], vec![0.0; x.len()]);
    forward(p, x, target, &mut loss, &mut sums);
    backward_input(p, x, target, &sums, &[gy], &mut gx);
    (loss[0], gx)
}

fn case(shape: [usize; 4], settings: BceDice, inputs: Inputs) -> Case {
    let BceDice { bce_weight, dice_weight, pooling, false_positive, focal_gamma, focal_alpha, .. } = settings;
    let mut name = format!("{shape:?} {pooling:?} {bce_weight}/{dice_weight} {}", inputs.name);
    if false_positive != 1.0 {
        name.push_str(" tversky");
    }
    if focal_gamma > 0.0 || focal_alpha >= 0.0 {
        name.push_str(&format!(" focal {focal_gamma} {focal_alpha}"));
    }
    Case::new(OP, name.clone(), move |device, checks| {
        let count = shape.iter().product();
        let target: Vec<f32> = numbers("target", count).iter().map(|v| (inputs.target)(*v)).collect();
        let x: Vec<f32> = numbers(&name, count).iter().zip(&target).map(|(v, t)| (inputs.logit)(*v, *t)).collect();
        let x = checks.stored(x);
        let (want, mut want_gx) = reference(&params(shape, &settings), &doubles(&x), &doubles(&target), 1.0);
        // Makes the largest gradient 1, so that the bounds mean something and 16-bit floats hold it.
        let gy = (1.0 / want_gx.iter().fold(1e-30_f64, |most, g| most.max(g.abs()))) as f32;
        want_gx.iter_mut().for_each(|g| *g *= f64::from(gy));

        let tape = Tape::new();
        let logits = tape.watch_input(&checks.image(device, shape, &x)?);
        let loss = bce_dice(&logits, &device.tensor(OP, shape, &target)?, &settings)?;
        let grads = tape.backward_from(&loss, &device.tensor(OP, [1], &[gy])?)?;
        let Some(gx) = grads.of(&logits) else {
            return Err(shadegrad::Error::Tape("no gradient".into()));
        };
        // Scaled to 1, for losses of 1e-13.
        let version = if matches!(device, shadegrad::Device::Cpu(_)) { "plain" } else { "v1" };
        let scale = want.abs().max(f64::MIN_POSITIVE);
        let got = (f64::from(loss.to_vec()?[0]) / scale) as f32;
        checks.values("forward", version, &[got], &[want / scale], EXP);
        checks.compare("backward_input", "v1", gx, &want_gx, EXP)
    })
}

pub fn gradients() -> Vec<GradientCase> {
    let shape = [2, 2, 3, 2];
    let count = shape.iter().product();
    let soft: Vec<f64> = numbers("finite target", count).iter().map(|v| f64::from(0.5 + 0.5 * v)).collect();
    let hard: Vec<f64> = soft.iter().map(|t| t.round()).collect();
    let mut cases = Vec::new();
    let focal = BceDice { dice_weight: 0.5, ..BceDice::focal(2.0, 0.25) };
    let weak = BceDice::focal(0.5, -1.0);
    for settings in [BceDice::sample(), BceDice::batch(), BceDice::tversky(0.3, 0.7), focal, weak] {
        let target = if settings.focal_gamma > 0.0 { &hard } else { &soft };
        let p = params(shape, &settings);
        let x: Vec<f64> = numbers("finite", count).iter().map(|v| 4.0 * f64::from(*v)).collect();
        let (_, gx) = reference(&p, &x, target, 1.0);
        let target = target.clone();
        cases.push(GradientCase {
            name: format!("{OP} {settings:?}"),
            inputs: vec![x],
            value: Box::new(move |inputs| reference(&p, &inputs[0], &target, 1.0).0),
            gradients: vec![gx],
            tolerance: 1e-6,
        });
    }
    cases
}
