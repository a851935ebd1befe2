//! Slices worth looking at: the best, the worst, and the false alarms, with both outlines.

use std::fmt::Write as _;

use super::Verdict;
use super::html::{count, data_uri, escape};
use super::outline::outline;
use crate::Result;
use crate::eval::{SliceCounts, overlay};

/// Slices of each kind.
const SHOWN: usize = 4;

/// Neighbouring slices look alike: of one patient, slices are shown that are at least this far apart.
const APART: usize = 3;

/// The section with all pictures.
pub(super) fn section(verdict: &Verdict<'_>) -> Result<String> {
    let counts = &verdict.judgement.counts;
    let mut tumour: Vec<usize> = (0..counts.len()).filter(|&at| counts[at].target > 0).collect();
    // Of equal scores the larger tumour comes first: to miss it is worse, to find it better.
    tumour
        .sort_by(|&a, &b| counts[a].dice().total_cmp(&counts[b].dice()).then(counts[b].target.cmp(&counts[a].target)));
    let worst = spread(verdict, tumour.iter().copied(), &[]);
    let best = spread(verdict, tumour.iter().rev().copied(), &worst);
    let mut alarms: Vec<usize> = (0..counts.len()).filter(|&at| counts[at].is_false_alarm()).collect();
    alarms.sort_by_key(|&at| std::cmp::Reverse(counts[at].predicted));
    let alarms = spread(verdict, alarms.into_iter(), &[]);
    let mut out = String::from(
        "<section id=\"slices\"><h2>Slices</h2>\
         <input type=\"checkbox\" id=\"show-truth\" checked><input type=\"checkbox\" id=\"show-predicted\" checked>\
         <p class=\"switches\"><label for=\"show-truth\" class=\"truth\"><i></i>true outline</label>\
         <label for=\"show-predicted\" class=\"predicted\"><i></i>predicted outline</label></p>",
    );
    let kinds = [
        ("Best tumour slices", best, "No slice has a tumour."),
        ("Worst tumour slices", worst, "No slice has a tumour."),
        (
            "Largest false alarms: empty slices where something is predicted",
            alarms,
            "None: every empty slice stayed empty.",
        ),
    ];
    for (title, slices, none) in kinds {
        let _ = write!(out, "<h3>{title}</h3>");
        if slices.is_empty() {
            let _ = write!(out, "<p class=\"none\">{none}</p>");
            continue;
        }
        out.push_str("<div class=\"gallery\">");
        for at in slices {
            out.push_str(&picture(verdict, at)?);
        }
        out.push_str("</div>");
    }
    out.push_str("</section>");
    Ok(out)
}

/// The first few candidates that are not neighbours of one another, nor among those already shown.
fn spread(verdict: &Verdict<'_>, candidates: impl Iterator<Item = usize>, shown: &[usize]) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    for candidate in candidates.filter(|candidate| !shown.contains(candidate)) {
        let (patient, slice) = verdict.part[candidate];
        let near = |&other: &usize| {
            let (other_patient, other_slice) = verdict.part[other];
            other_patient == patient && other_slice.abs_diff(slice) < APART
        };
        if !chosen.iter().any(near) {
            chosen.push(candidate);
        }
        if chosen.len() == SHOWN {
            break;
        }
    }
    chosen
}

/// One slice: the FLAIR channel in grey, the outlines over it.
fn picture(verdict: &Verdict<'_>, at: usize) -> Result<String> {
    let (dataset, index) = (verdict.dataset, verdict.part[at]);
    let (height, width) = (dataset.height, dataset.width);
    let slice = dataset.slice(index);
    let counts: &SliceCounts = &verdict.judgement.counts[at];
    let grey = data_uri(&overlay::grey_png(&slice.image, height, width)?);
    let [truth, predicted] =
        [&slice.mask, &verdict.judgement.masks[at]].map(|mask: &Vec<u8>| outline(mask, height, width));
    let name = escape(&dataset.patients[index.0].name);
    let score = match counts.target {
        0 => format!("{} false pixels", count(counts.predicted)),
        target => format!(
            "Dice <b>{:.3}</b> · true {} px, predicted {}",
            counts.dice(),
            count(target),
            count(counts.predicted)
        ),
    };
    Ok(format!(
        "<figure class=\"slice\"><svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{name}, slice {number}\">\
         <image href=\"{grey}\" width=\"{width}\" height=\"{height}\"/>\
         <path class=\"truth\" d=\"{truth}\"/><path class=\"predicted\" d=\"{predicted}\"/></svg>\
         <figcaption>{name}, slice {number}<br>{score}</figcaption></figure>",
        number = slice.number,
    ))
}
