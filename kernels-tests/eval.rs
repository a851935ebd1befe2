//! What judging says about predictions whose scores are known beforehand.

use std::io::Write as _;
use std::path::Path;

use shadegrad::Result;
use shadegrad::data::phantom::{PhantomSettings, phantom_dataset};
use shadegrad::data::{Dataset, Split};
use shadegrad::eval::{Judge, JudgeOptions, Judgement};
use shadegrad::train::{TrainConfig, Trainer};

use crate::devices;

/// The verdict on a network that returns the same logit everywhere, batches of 8.
fn constant(dataset: &Dataset, part: &[(usize, usize)], logit: f32) -> Judgement {
    judged(dataset, part, JudgeOptions::new(8), |_| vec![logit; dataset.height * dataset.width]).unwrap()
}

/// The verdict on these logits of each slice.
fn judged(
    dataset: &Dataset,
    part: &[(usize, usize)],
    options: JudgeOptions,
    logits: impl Fn((usize, usize)) -> Vec<f32>,
) -> Result<Judgement> {
    let mut judge = Judge::new(dataset, part, options)?;
    for batch in part.chunks(options.batch) {
        judge.batch(&batch.iter().flat_map(|index| logits(*index)).collect::<Vec<_>>())?;
    }
    judge.finish()
}

/// The table of the data set's notes: logit, loss per sample (smooth 1e-5), loss pooled by batch (smooth 1), IoU and
/// Dice pooled by batch, each with the digits given there. Computed elsewhere, in f64, from the published formulas.
const CONSTANT_LOGITS: [[&str; 5]; 6] = [
    ["-30", "0.539246", "0.686530", "0.454545", "0.454545"],
    ["-27.5", "0.531581", "0.674768", "0.454545", "0.454545"],
    ["-25", "0.565596", "0.663008", "0.454545", "0.454545"],
    ["-10", "1.047035", "1.028622", "0.454545", "0.454545"],
    ["0", "1.328837", "1.328486", "0.454545", "0.454545"],
    ["10", "5.934712", "5.934527", "0.009410", "0.018444"],
];

#[test]
fn constant_logits_on_real_slices_give_the_published_table() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/lgg"));
    if !folder.is_dir() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED constant_logits_on_real_slices_give_the_published_table: {} is missing",
            folder.display()
        );
        return;
    }
    let dataset = Dataset::read(folder, &|_, _| {}).unwrap();
    let names = ["TCGA_CS_6665_20010817", "TCGA_DU_8166_19970322", "TCGA_HT_7879_19981009"].map(str::to_owned);
    let part = Split::by_names(&dataset, &names).unwrap().val;
    for row in CONSTANT_LOGITS {
        let logit: f32 = row[0].parse().unwrap();
        let verdict = constant(&dataset, &part, logit);
        let metrics = &verdict.metrics;
        let found = [verdict.losses[0], verdict.losses[1], metrics.iou_batch, metrics.dice_batch];
        assert_eq!(found.map(|value| format!("{value:.6}")), row[1..], "logit {logit}");
        assert_eq!((metrics.slices, metrics.tumour_slices, metrics.empty_slices), (88, 35, 53));
        if logit <= 0.0 {
            assert_eq!((metrics.predicted_pixels, metrics.dice_volume_mean), (0, 0.0), "logit {logit}");
            assert_eq!(metrics.dice_tumour_slices, Some(0.0));
            assert_eq!(metrics.dice_slices_empty_is_one, 53.0 / 88.0);
            assert_eq!(metrics.predict_nothing.dice_batch, metrics.dice_batch);
        } else {
            assert_eq!(metrics.share_of_empty_slices_with_false_pixels, Some(1.0));
        }
    }
}

/// The same on phantoms, against the closed form for a constant: no pixel is looked at, only each slice's tumour share.
#[test]
fn constant_logits_follow_the_closed_form() {
    let dataset = phantom_dataset(&PhantomSettings { patients: 3, slices: 9, size: 32, seed: 2 }).unwrap();
    let part: Vec<_> = dataset.indices().collect();
    let pixels = 32.0 * 32.0;
    let wanted: Vec<f64> =
        part.iter().map(|index| dataset.slice(*index).mask.iter().map(|&pixel| f64::from(pixel)).sum()).collect();
    for logit in [-30.0_f32, -22.0, -5.0, 0.0, 10.0] {
        let verdict = constant(&dataset, &part, logit);
        let x = f64::from(logit);
        let p = 1.0 / (1.0 + (-x).exp());
        // softplus(x) - x * share of the tumour
        let bce = |share: f64| x.max(0.0) + (-x.abs()).exp().ln_1p() - x * share;
        let dice =
            |wanted: f64, area: f64, smooth: f64| 1.0 - (2.0 * p * wanted + smooth) / (p * area + wanted + smooth);
        let mut expected = [0.0; 4];
        for batch in wanted.chunks(8) {
            let n = batch.len() as f64;
            let total: f64 = batch.iter().sum();
            let entropy = 0.5 * bce(total / (n * pixels));
            let iou = match logit > 0.0 {
                true => (total + 1e-5) / (n * pixels + 1e-5),
                false => 1e-5 / (total + 1e-5),
            };
            let samples: f64 = batch.iter().map(|&wanted| dice(wanted, pixels, 1e-5)).sum();
            let scores = [entropy + samples / n, entropy + dice(total, n * pixels, 1.0), iou, 2.0 * iou / (1.0 + iou)];
            for (sum, score) in expected.iter_mut().zip(scores) {
                *sum += n * score / wanted.len() as f64;
            }
        }
        let metrics = &verdict.metrics;
        let found = [verdict.losses[0], verdict.losses[1], metrics.iou_batch, metrics.dice_batch];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9 * expected.abs().max(1e-3), "logit {logit}: {found} {expected}");
        }
        assert_eq!(metrics.hausdorff_95_mean.is_some(), logit > 0.0);
        let volumes = if logit > 0.0 { metrics.dice_volume_mean > 0.0 } else { metrics.dice_volume_mean == 0.0 };
        assert!(volumes, "{}", metrics.dice_volume_mean);
    }
}

#[test]
fn a_perfect_prediction_is_perfect_and_a_shifted_one_is_measured() {
    let dataset = phantom_dataset(&PhantomSettings { patients: 2, slices: 8, size: 32, seed: 4 }).unwrap();
    let part: Vec<_> = dataset.indices().collect();
    let perfect = |index: (usize, usize)| -> Vec<f32> {
        dataset.slice(index).mask.iter().map(|&pixel| if pixel != 0 { 20.0 } else { -20.0 }).collect()
    };
    let verdict = judged(&dataset, &part, JudgeOptions::new(4), perfect).unwrap();
    let metrics = &verdict.metrics;
    assert_eq!((metrics.dice_volume_mean, metrics.iou_volume_mean, metrics.dice_batch), (1.0, 1.0, 1.0));
    assert_eq!((metrics.hausdorff_95_mean, metrics.hausdorff_95_in_plane_mean), (Some(0.0), Some(0.0)));
    assert_eq!((metrics.tumour_slices_missed, metrics.empty_slices_with_false_pixels), (0, 0));
    assert!(metrics.per_patient.iter().all(|patient| patient.volume_difference_percent == Some(0.0)));
    assert!(verdict.calibration.expected_error < 1e-6, "{}", verdict.calibration.expected_error);
    assert!(verdict.thresholds.iter().all(|point| point.dice_pooled == 1.0 && point.precision == Some(1.0)));

    // Everything moved two columns to the right, within the picture: the outline is 2 pixels away.
    let moved = |index: (usize, usize)| -> Vec<f32> {
        let mut logits = perfect(index);
        logits.rotate_right(2);
        logits
    };
    let verdict = judged(&dataset, &part, JudgeOptions::new(4), moved).unwrap();
    let metrics = &verdict.metrics;
    assert_eq!(metrics.hausdorff_95_in_plane_mean, Some(2.0));
    assert!(metrics.dice_volume_mean > 0.0 && metrics.dice_volume_mean < 1.0);
    assert!(metrics.per_patient.iter().all(|patient| patient.volume_difference_percent == Some(0.0)));
}

#[test]
fn options_change_what_they_say() {
    let dataset = phantom_dataset(&PhantomSettings { patients: 2, slices: 8, size: 32, seed: 4 }).unwrap();
    let part: Vec<_> = dataset.indices().collect();
    // The tumour with probability 0.4, and one false pixel far away in the corner with 0.9.
    let logits = |index: (usize, usize)| -> Vec<f32> {
        let mut logits: Vec<f32> =
            dataset.slice(index).mask.iter().map(|&pixel| if pixel != 0 { -0.4055 } else { -20.0 }).collect();
        logits[0] = if index.1 == 0 { 2.0 } else { logits[0] };
        logits
    };
    let plain = JudgeOptions::new(4);
    let half = judged(&dataset, &part, plain, logits).unwrap().metrics;
    assert_eq!((half.predicted_pixels, half.dice_volume_mean), (2, 0.0));
    let low = judged(&dataset, &part, JudgeOptions { threshold: 0.39, ..plain }, logits).unwrap().metrics;
    let wanted: u64 = low.per_patient.iter().map(|patient| patient.target_pixels).sum();
    assert_eq!(low.predicted_pixels, wanted + 2);
    let largest = JudgeOptions { threshold: 0.39, largest_component: true, ..plain };
    let clean = judged(&dataset, &part, largest, logits).unwrap().metrics;
    assert_eq!((clean.predicted_pixels, clean.dice_volume_mean), (wanted, 1.0));
    // A volume with a hole has no components and no distance.
    let gap: Vec<_> = part.iter().copied().filter(|(patient, slice)| *patient > 0 || *slice != 4).collect();
    let message = judged(&dataset, &gap, largest, logits).unwrap_err().to_string();
    assert!(message.contains("--largest-component") && message.contains(&dataset.patients[0].name), "{message}");
    let metrics = judged(&dataset, &gap, JudgeOptions { threshold: 0.39, ..plain }, logits).unwrap().metrics;
    assert_eq!((metrics.hausdorff_95_patients, metrics.per_patient[0].hausdorff_95), (1, None));
    for threshold in [0.0, 1.0, -1.0, f64::NAN] {
        let message = judged(&dataset, &part, JudgeOptions { threshold, ..plain }, logits).unwrap_err().to_string();
        assert!(message.contains("--threshold"), "{message}");
    }
    let broken = judged(&dataset, &part, plain, |_| vec![f32::NAN; 1024]).unwrap_err().to_string();
    assert!(broken.contains("NaN at pixel 0"), "{broken}");
    let short = judged(&dataset, &part, plain, |_| vec![0.0; 1000]).unwrap_err().to_string();
    assert!(short.contains("judge"), "{short}");
}

/// On each device: judging agrees with the evaluation that training uses, and flips change the logits but not much.
#[test]
fn judging_agrees_with_the_evaluation_of_training() {
    let dataset = phantom_dataset(&PhantomSettings { patients: 2, slices: 5, size: 64, seed: 6 }).unwrap();
    let part: Vec<_> = dataset.indices().collect();
    let config = TrainConfig { batch: 4, ..TrainConfig::default() };
    for device in devices::all() {
        let trainer = Trainer::new(&device, &dataset, &config).unwrap();
        let evaluation = trainer.evaluate(&dataset, &part, true).unwrap();
        let (verdict, loss) = trainer.judge(&dataset, &part, JudgeOptions::new(4), false).unwrap();
        assert_eq!(verdict.masks, evaluation.masks, "{device}");
        assert_eq!((loss, verdict.metrics.dice_batch), (evaluation.loss, evaluation.metrics.dice_batch), "{device}");
        // The settings' loss is the pooled one; here it is summed in f64.
        assert!((loss - verdict.losses[1]).abs() < 1e-6, "{device}: {loss} {:?}", verdict.losses);
        let (flipped, _) = trainer.judge(&dataset, &part, JudgeOptions::new(4), true).unwrap();
        assert_ne!(flipped.losses, verdict.losses, "{device}");
        assert!((flipped.losses[1] - verdict.losses[1]).abs() < 0.5, "{device}");
    }
}
