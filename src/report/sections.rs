//! The report's sections, each a piece of HTML from the numbers; empty where there is nothing to show.

use std::fmt::Write as _;

use super::chart::{Chart, Guide, Series, range};
use super::html::{count, escape, number};
use super::{Report, Verdict};
use crate::eval::{Headline, Metrics};

/// The threshold that all masks of the report use.
const THRESHOLD: f64 = 0.5;

/// Links to those parts that are sections.
pub(super) fn links<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let between = |text: &'a str, from: &str, to: &str| Some(text.split_once(from)?.1.split_once(to)?.0);
    let mut out = String::new();
    for part in parts.filter(|part| part.starts_with("<section")) {
        if let (Some(id), Some(title)) = (between(part, "id=\"", "\""), between(part, "<h2>", "</h2>")) {
            let _ = write!(out, "<a href=\"#{id}\">{title}</a>");
        }
    }
    out
}

/// What a reader must know before the numbers.
pub(super) fn warnings(report: &Report<'_>) -> String {
    let mut warnings = Vec::new();
    let mut notes = Vec::new();
    if report.leaks {
        warnings.push(
            "The split is by slice: the same patients stand in training and validation. The figures measure memory, \
             not skill on new patients."
                .to_owned(),
        );
    }
    if report.log.len() < report.epochs {
        notes.push(format!("The run stands at epoch {} of {}.", report.log.len(), report.epochs));
    }
    match &report.verdict {
        Some(verdict) => verdict_warnings(&verdict.judgement.metrics, &mut warnings, &mut notes),
        None => notes
            .push("The slices are not at hand, so this report has no metrics; make it again with --data.".to_owned()),
    }
    let list = |class: &str, texts: &[String]| {
        texts.iter().fold(String::new(), |mut out, text| {
            let _ = write!(out, "<p class=\"{class}\">{}</p>", escape(text));
            out
        })
    };
    list("warning", &warnings) + &list("remark", &notes)
}

fn verdict_warnings(metrics: &Metrics, warnings: &mut Vec<String>, notes: &mut Vec<String>) {
    if metrics.predicted_pixels == 0 {
        warnings.push("The network predicts nothing: not one pixel of the validation slices is marked.".to_owned());
    } else if metrics.dice_batch < metrics.predict_nothing.dice_batch {
        warnings.push(format!(
            "The Dice pooled by batch ({:.3}) is below the {:.3} that an empty prediction scores on these slices.",
            metrics.dice_batch, metrics.predict_nothing.dice_batch
        ));
    }
    if metrics.patients < 10 {
        notes.push(format!(
            "{} validation patient{}: a noisy judge. Repeat with other seeds and splits before you believe a difference.",
            metrics.patients,
            if metrics.patients == 1 { "" } else { "s" }
        ));
    }
    notes.push(
        "The best epoch was chosen by these same patients, so the figures lean to the good side; judge on patients \
         that took no part before you publish."
            .to_owned(),
    );
}

/// The figures that come first.
pub(super) fn tiles(report: &Report<'_>) -> String {
    let Some(Verdict { judgement, .. }) = &report.verdict else { return String::new() };
    let metrics = &judgement.metrics;
    let nothing = |value: Option<f64>| format!("an empty prediction: {}", number(value, 3));
    let empty = &metrics.predict_nothing;
    let share = metrics.share_of_empty_slices_with_false_pixels;
    let tiles = [
        ("Volume Dice, mean", number(Some(metrics.dice_volume_mean), 3), nothing(Some(empty.dice_volume_mean))),
        ("Dice of tumour slices", number(metrics.dice_tumour_slices, 3), nothing(empty.dice_tumour_slices)),
        (
            "Hausdorff-95, voxels",
            number(metrics.hausdorff_95_mean, 1),
            format!("mean over {} of {} patients", metrics.hausdorff_95_patients, metrics.patients),
        ),
        (
            "Empty slices with false pixels",
            share.map_or("–".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
            format!("{} of {}", metrics.empty_slices_with_false_pixels, metrics.empty_slices),
        ),
    ];
    let mut out = String::from("<div class=\"tiles\">");
    for (name, value, beside) in tiles {
        let _ = write!(out, "<div class=\"tile\"><span>{name}</span><b>{value}</b><small>{beside}</small></div>");
    }
    out + "</div>"
}

/// Loss, scores and learning rate over the epochs.
pub(super) fn curves(report: &Report<'_>) -> String {
    let log = &report.log;
    if log.is_empty() {
        return String::new();
    }
    let last = log.iter().map(|line| line.epoch).max().unwrap_or(0).max(1) as f64;
    let series = |name: &str, class, value: &dyn Fn(usize) -> f64| Series {
        name: name.to_owned(),
        class,
        points: (0..log.len()).map(|at| (log[at].epoch as f64, value(at))).filter(|(_, y)| y.is_finite()).collect(),
        filled: false,
    };
    let chart = |title: &str, series: Vec<Series>, guides, top: Option<f64>| {
        let values = series.iter().flat_map(|series| series.points.iter().map(|point| point.1));
        let y = top.map_or_else(|| range(values, true), |top| (0.0, top));
        Chart { title: title.to_owned(), x_label: "epoch", x: (0.0, last), y, series, guides, height: 260.0 }.figure()
    };
    let best = log.iter().max_by(|a, b| a.val_dice.total_cmp(&b.val_dice).then(b.epoch.cmp(&a.epoch)));
    let best_mark: Vec<Guide> = best
        .map(|best| Guide::Vertical(best.epoch as f64, format!("best: epoch {}", best.epoch)))
        .into_iter()
        .collect();
    let mut scores = best_mark.clone();
    if let Some(verdict) = &report.verdict {
        let score = verdict.judgement.metrics.predict_nothing.iou_batch;
        scores.push(Guide::Horizontal(score, format!("IoU of an empty prediction {score:.3}")));
    }
    let mut out = String::from("<section id=\"curves\"><h2>Training</h2><div class=\"charts\">");
    let losses =
        vec![series("training", "a", &|at| log[at].train_loss), series("validation", "b", &|at| log[at].val_loss)];
    out.push_str(&chart("Loss", losses, best_mark, None));
    let values = vec![
        series("mean volume Dice", "a", &|at| log[at].val_dice),
        series("IoU pooled by batch", "b", &|at| log[at].val_iou),
    ];
    out.push_str(&chart("Validation scores", values, scores, Some(1.0)));
    out.push_str(&chart("Learning rate", vec![series("learning rate", "a", &|at| log[at].lr)], Vec::new(), None));
    let speed = vec![series("images a second", "a", &|at| log[at].images_per_second)];
    out.push_str(&chart("Training images a second", speed, Vec::new(), None));
    out + "</div></section>"
}

/// Every score beside that of an empty prediction.
pub(super) fn metrics(report: &Report<'_>) -> String {
    let Some(Verdict { judgement, loss, .. }) = &report.verdict else { return String::new() };
    let m = &judgement.metrics;
    let Headline {
        dice_volume_mean,
        dice_volume_median,
        iou_volume_mean,
        dice_pooled,
        dice_tumour_slices,
        dice_slices_empty_is_one,
        iou_batch,
        dice_batch,
    } = m.predict_nothing;
    let scores = [
        (
            "Volume Dice, mean",
            "one number a patient, mean over patients: the headline",
            Some(m.dice_volume_mean),
            Some(dice_volume_mean),
        ),
        ("Volume Dice, median", "the same, median", Some(m.dice_volume_median), Some(dice_volume_median)),
        ("Volume IoU, mean", "intersection over union of each volume", Some(m.iou_volume_mean), Some(iou_volume_mean)),
        ("Dice of all pixels", "the set taken as one picture", Some(m.dice_pooled), Some(dice_pooled)),
        ("Dice of tumour slices", "mean over slices with a tumour", m.dice_tumour_slices, dice_tumour_slices),
        (
            "Slice Dice, empty and empty = 1",
            "rewards empty predictions: two of three slices are empty",
            Some(m.dice_slices_empty_is_one),
            Some(dice_slices_empty_is_one),
        ),
        ("IoU pooled by batch", "as UNeXt's code; depends on batch size and order", Some(m.iou_batch), Some(iou_batch)),
        ("Dice pooled by batch", "as UNeXt's code", Some(m.dice_batch), Some(dice_batch)),
    ];
    let mut rows = String::new();
    for (name, what, score, empty) in scores {
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{name}<small>{what}</small></th><td><b>{}</b></td><td>{}</td></tr>",
            number(score, 4),
            number(empty, 4)
        );
    }
    let others = [
        (
            "Hausdorff-95, volume",
            "voxels, spacing 1 on all axes; mean over patients with both masks",
            number(m.hausdorff_95_mean, 2),
        ),
        (
            "Hausdorff-95, in plane",
            "pixels; mean over slices with both masks, then over patients",
            number(m.hausdorff_95_in_plane_mean, 2),
        ),
        ("Tumour slices missed", "not one pixel found", format!("{} of {}", m.tumour_slices_missed, m.tumour_slices)),
        ("Predicted pixels", "in all slices", count(m.predicted_pixels)),
        ("Loss", "as the settings define it", format!("{loss:.4}")),
    ];
    for (name, what, value) in others {
        let _ =
            write!(rows, "<tr><th scope=\"row\">{name}<small>{what}</small></th><td><b>{value}</b></td><td></td></tr>");
    }
    let largest = report.config.lines().any(|line| line.trim() == "largest_component = true");
    let taken = if largest { ", of that the largest component of each volume" } else { "" };
    format!(
        "<section id=\"metrics\"><h2>Metrics</h2><p>{} patients, {} slices, {} with tumour; best weights, probability above \
         {THRESHOLD}{taken}.</p>\
         <div class=\"scroll\"><table><thead><tr><th></th><th>network</th><th>predicts nothing</th></tr></thead>\
         <tbody>{rows}</tbody></table></div></section>",
        m.patients, m.slices, m.tumour_slices
    )
}

/// A bar, the numbers and the areas along the volume for every patient.
pub(super) fn patients(report: &Report<'_>) -> String {
    let Some(verdict) = &report.verdict else { return String::new() };
    let patients = &verdict.judgement.metrics.per_patient;
    let (mut bars, mut rows) = (String::new(), String::new());
    for p in patients {
        let name = escape(&p.patient);
        let _ = write!(
            bars,
            "<div class=\"bar\"><span>{name}</span><div><i style=\"width:{:.2}%\"></i></div><b>{:.3}</b></div>",
            100.0 * p.dice,
            p.dice
        );
        let difference = p.volume_difference_percent.map_or("–".to_owned(), |percent| format!("{percent:+.1} %"));
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{name}</th><td>{:.4}</td><td>{:.4}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{difference}</td><td>{} of {}</td><td>{} of {}</td></tr>",
            p.dice,
            p.iou,
            number(p.hausdorff_95, 1),
            number(p.hausdorff_95_in_plane, 1),
            count(p.predicted_pixels),
            count(p.target_pixels),
            p.empty_slices_with_false_pixels,
            p.slices - p.tumour_slices,
            p.tumour_slices_missed,
            p.tumour_slices,
        );
    }
    format!(
        "<section id=\"patients\"><h2>Patients</h2><div class=\"bars\" aria-label=\"volume Dice of each patient\">{bars}</div>\
         <div class=\"scroll\"><table><thead><tr><th>patient</th><th>Dice</th><th>IoU</th><th>HD95</th><th>HD95 in plane</th>\
         <th>predicted</th><th>true</th><th>difference</th><th>false slices</th><th>missed</th></tr></thead><tbody>{rows}</tbody></table></div>\
         <p class=\"small\">Sizes in pixels. HD95: 95th percentile of the surface distance. False slices: empty ones where \
         something is predicted. Missed: tumour slices of which nothing was found.</p>\
         <h3>Area along the volume</h3><div class=\"charts\">{}</div></section>",
        areas(verdict)
    )
}

/// Patients whose areas are drawn.
const MOST_AREAS: usize = 12;

/// True and predicted pixels of each slice, a chart a patient.
fn areas(verdict: &Verdict<'_>) -> String {
    let counts = &verdict.judgement.counts;
    let mut seen: Vec<usize> = Vec::new();
    for slice in counts {
        if !seen.contains(&slice.patient) {
            seen.push(slice.patient);
        }
    }
    let mut out = String::new();
    for &patient in seen.iter().take(MOST_AREAS) {
        let mut slices: Vec<_> = verdict
            .part
            .iter()
            .zip(counts)
            .filter(|(index, _)| index.0 == patient)
            .map(|(index, counts)| (f64::from(verdict.dataset.slice(*index).number), counts))
            .collect();
        slices.sort_by(|a, b| a.0.total_cmp(&b.0));
        let series = |name: &str, class, filled, value: &dyn Fn(usize) -> u64| Series {
            name: name.to_owned(),
            class,
            points: (0..slices.len()).map(|at| (slices[at].0, value(at) as f64)).collect(),
            filled,
        };
        let series = vec![
            series("true pixels", "truth", true, &|at| slices[at].1.target),
            series("predicted pixels", "predicted", false, &|at| slices[at].1.predicted),
        ];
        let ends = (slices.first().map_or(0.0, |slice| slice.0), slices.last().map_or(1.0, |slice| slice.0));
        let chart = Chart {
            title: verdict.dataset.patients[patient].name.clone(),
            x_label: "slice",
            x: if ends.1 > ends.0 { ends } else { (ends.0 - 0.5, ends.0 + 0.5) },
            y: range(series.iter().flat_map(|series| series.points.iter().map(|point| point.1)), true),
            series,
            guides: Vec::new(),
            height: 200.0,
        };
        out.push_str(&chart.figure());
    }
    if seen.len() > MOST_AREAS {
        let _ = write!(out, "<p class=\"none\">The first {MOST_AREAS} of {} patients.</p>", seen.len());
    }
    out
}

/// Precision, recall and Dice over the thresholds, and the confusion at some of them.
pub(super) fn thresholds(report: &Report<'_>) -> String {
    let Some(Verdict { judgement, .. }) = &report.verdict else { return String::new() };
    let points = &judgement.thresholds;
    let Some(best) = points.iter().max_by(|a, b| {
        let distance = |threshold: f64| (threshold - THRESHOLD).abs();
        let nearer = distance(b.threshold).total_cmp(&distance(a.threshold));
        a.dice_volume_mean.total_cmp(&b.dice_volume_mean).then(nearer)
    }) else {
        return String::new();
    };
    let series = |name: &str, class, value: &dyn Fn(usize) -> Option<f64>| Series {
        name: name.to_owned(),
        class,
        points: (0..points.len()).filter_map(|at| Some((points[at].threshold, value(at)?))).collect(),
        filled: false,
    };
    let chart = Chart {
        title: "Precision, recall and Dice over the threshold".to_owned(),
        x_label: "threshold",
        x: (0.0, 1.0),
        y: (0.0, 1.0),
        series: vec![
            series("precision", "c", &|at| points[at].precision),
            series("recall", "b", &|at| points[at].recall),
            series("mean volume Dice", "a", &|at| Some(points[at].dice_volume_mean)),
            series("Dice of all pixels", "quiet", &|at| Some(points[at].dice_pooled)),
        ],
        guides: vec![Guide::Vertical(THRESHOLD, "used: 0.5".to_owned())],
        height: 300.0,
    };
    let mut rows = String::new();
    for point in
        points.iter().filter(|point| [10, 25, 50, 75, 90].contains(&((point.threshold * 100.0).round() as u64)))
    {
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{:.2}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.4}</td><td>{:.4}</td></tr>",
            point.threshold,
            count(point.true_positive),
            count(point.false_positive),
            count(point.false_negative),
            count(point.true_negative),
            number(point.precision, 4),
            number(point.recall, 4),
            point.dice_pooled,
            point.dice_volume_mean,
        );
    }
    format!(
        "<section id=\"thresholds\"><h2>Thresholds</h2><div class=\"charts\">{}<div><p>The mean volume Dice is highest \
         (<b>{:.4}</b>) at the threshold {:.2}. Take that as a hint: a threshold chosen on these patients flatters them.</p></div></div>\
         <div class=\"scroll\"><table><thead><tr><th>threshold</th><th>true positive</th><th>false positive</th><th>false negative</th>\
         <th>true negative</th><th>precision</th><th>recall</th><th>Dice</th><th>volume Dice</th></tr></thead><tbody>{rows}</tbody></table></div>\
         <p class=\"small\">Pixels of the whole set.</p></section>",
        chart.figure(),
        best.dice_volume_mean,
        best.threshold,
    )
}

/// The reliability diagram.
pub(super) fn calibration(report: &Report<'_>) -> String {
    let Some(Verdict { judgement, .. }) = &report.verdict else { return String::new() };
    let calibration = &judgement.calibration;
    let points = calibration.bins.iter().filter_map(|bin| Some((bin.mean_probability?, bin.share_inside?)));
    let chart = Chart {
        title: "Reliability: share inside of the tumour over predicted probability".to_owned(),
        x_label: "predicted probability (mean of each bin)",
        x: (0.0, 1.0),
        y: (0.0, 1.0),
        series: vec![Series { name: "share inside".to_owned(), class: "a", points: points.collect(), filled: false }],
        guides: vec![Guide::Diagonal],
        height: 320.0,
    };
    let mut rows = String::new();
    for bin in &calibration.bins {
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{:.1} – {:.1}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            bin.from,
            bin.to,
            count(bin.pixels),
            number(bin.mean_probability, 3),
            number(bin.share_inside, 3)
        );
    }
    format!(
        "<section id=\"calibration\"><h2>Calibration</h2><div class=\"charts\">{}<div><p>Expected calibration error \
         <b>{:.4}</b> over all pixels, <b>{}</b> over those with a probability above 1 %. The first is small for any \
         network, because most pixels are background that nobody could mistake. Points below the diagonal: the network is \
         too sure of itself.</p><div class=\"scroll\"><table><thead><tr><th>probability</th><th>pixels</th><th>mean</th>\
         <th>share inside</th></tr></thead><tbody>{rows}</tbody></table></div></div></div></section>",
        chart.figure(),
        calibration.expected_error,
        number(calibration.expected_error_above_1_percent, 4),
    )
}

/// How to repeat the run, what it stood on, its settings.
pub(super) fn run(report: &Report<'_>) -> String {
    let environment = report.environment.iter().fold(String::new(), |mut out, (name, value)| {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(name), escape(value));
        out
    });
    format!(
        "<section id=\"run\"><h2>The run</h2><h3>Repeat it</h3><pre class=\"command\">{}</pre>\
         <div class=\"charts\"><div><h3>Device and data</h3><div class=\"scroll\"><table class=\"facts\"><tbody>{environment}</tbody></table></div></div>\
         <div><h3>Settings</h3><pre>{}</pre></div></div></section>",
        escape(&report.command),
        escape(report.config.trim_end())
    )
}
