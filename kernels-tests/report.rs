//! The report page: that it holds everything itself, says what it must, and survives odd names and empty runs.

use shadegrad::data::Dataset;
use shadegrad::data::phantom::{PhantomSettings, phantom_dataset};
use shadegrad::eval::{Judge, JudgeOptions, Judgement};
use shadegrad::report::{Report, Verdict};
use shadegrad::train::EpochLog;

fn log(epochs: usize) -> Vec<EpochLog> {
    let line = |epoch: usize| EpochLog {
        epoch,
        train_loss: 1.0 / (epoch + 1) as f64,
        val_loss: 1.1 / (epoch + 1) as f64,
        val_iou: 0.5,
        val_dice: 0.6,
        lr: 1e-3,
        seconds: 1.0,
        images_per_second: 30.0,
        val_dice_batch: 0.5,
        train_iou: None,
        best: true,
        predicted_pixels: 10,
        device_share: None,
        loss_scale: None,
        skipped_steps: None,
        fell_back: false,
    };
    (0..epochs).map(line).collect()
}

fn report(log: Vec<EpochLog>, leaks: bool, verdict: Option<Verdict<'_>>) -> Report<'_> {
    Report {
        title: "unext on <script>alert(1)</script>".to_owned(),
        written: "now".to_owned(),
        config: "model = \"unext\"\n".to_owned(),
        epochs: 3,
        environment: vec![("device".to_owned(), "a & b".to_owned())],
        command: "shadegrad train --data x".to_owned(),
        log,
        leaks,
        verdict,
    }
}

/// Finds the tumour, or all of it but the top rows with less and less certainty, or nothing.
fn judge(dataset: &Dataset, part: &[(usize, usize)], logit: impl Fn(usize, u8) -> f32) -> Judgement {
    let mut judge = Judge::new(dataset, part, JudgeOptions::new(4)).unwrap();
    for index in part {
        let mask = &dataset.slice(*index).mask;
        let logits: Vec<f32> = mask.iter().enumerate().map(|(at, &pixel)| logit(at, pixel)).collect();
        judge.batch(&logits).unwrap();
    }
    judge.finish().unwrap()
}

/// No address but those that hold their data, and those of the page's own parts.
fn holds_everything_itself(page: &str) {
    for word in ["http:", "https:", "<script", "src=", "url(", "@import", "<iframe", "<form", "{{", "}}", "NaN", "inf "]
    {
        assert!(!page.contains(word), "the page contains {word:?}");
    }
    for address in page.split("href=\"").skip(1) {
        let address = address.split('"').next().unwrap();
        assert!(address.starts_with('#') || address.starts_with("data:"), "{address}");
    }
    assert!(page.contains("default-src 'none'"), "a browser is told to refuse requests");
    // Every link leads to a section that is there.
    for id in page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
}

#[test]
fn a_report_holds_its_pictures_and_says_what_it_must() {
    let mut dataset = phantom_dataset(&PhantomSettings { patients: 2, slices: 8, size: 32, seed: 4 }).unwrap();
    dataset.patients[0].name = "P<1>".to_owned();
    let part: Vec<_> = dataset.indices().collect();
    let judgement = judge(&dataset, &part, |at, pixel| {
        let certainty = 6.0 - at as f32 / 100.0;
        if pixel != 0 { certainty } else { -certainty }
    });
    let verdict = Verdict { dataset: &dataset, part: &part, judgement: &judgement, loss: 0.25 };
    let page = report(log(3), false, Some(verdict)).html().unwrap();
    holds_everything_itself(&page);
    assert!(page.contains("data:image/png;base64,"));
    assert!(page.contains("P&lt;1&gt;") && !page.contains("P<1>"));
    assert!(page.contains("a &amp; b") && page.contains("model = &quot;unext&quot;"));
    for part in ["curves", "metrics", "patients", "slices", "thresholds", "calibration", "run"] {
        assert!(page.contains(&format!("<section id=\"{part}\"")), "{part}");
    }
    assert!(page.contains("a noisy judge") && !page.contains("class=\"warning\""));
    let mean = format!("{:.4}", judgement.metrics.dice_volume_mean);
    let nothing = format!("{:.4}", judgement.metrics.predict_nothing.dice_batch);
    assert!(page.contains(&mean) && page.contains(&nothing));
    // Written whole.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let verdict = Verdict { dataset: &dataset, part: &part, judgement: &judgement, loss: 0.25 };
    report(log(3), false, Some(verdict)).write(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), page);
}

#[test]
fn a_report_warns() {
    let dataset = phantom_dataset(&PhantomSettings { patients: 1, slices: 6, size: 32, seed: 4 }).unwrap();
    let part: Vec<_> = dataset.indices().collect();
    let judgement = judge(&dataset, &part, |_, _| -27.5);
    let verdict = Verdict { dataset: &dataset, part: &part, judgement: &judgement, loss: 0.5 };
    let page = report(log(1), true, Some(verdict)).html().unwrap();
    holds_everything_itself(&page);
    for words in ["predicts nothing: not one pixel", "split is by slice", "epoch 1 of 3", "1 validation patient:"] {
        assert!(page.contains(words), "{words}");
    }
    // All is predicted: worse than nothing by the batch's Dice.
    let judgement = judge(&dataset, &part, |_, _| 9.0);
    let verdict = Verdict { dataset: &dataset, part: &part, judgement: &judgement, loss: 0.5 };
    let page = report(log(3), false, Some(verdict)).html().unwrap();
    assert!(page.contains("that an empty prediction scores on these slices"), "{}", judgement.metrics.dice_batch);
    // Nothing to show yet.
    let page = report(Vec::new(), false, None).html().unwrap();
    holds_everything_itself(&page);
    assert!(page.contains("make it again with --data") && !page.contains("id=\"metrics\""));
}
