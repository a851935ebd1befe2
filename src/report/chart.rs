//! Line charts as inline SVG: no script, no font, colours from the page's style sheet, so that they follow light and
//! dark. A point's value shows as a tooltip.

use std::fmt::Write as _;
use std::ops::Range;

use super::html::escape;

/// One line of a chart.
#[derive(Debug, Clone)]
pub(super) struct Series {
    /// For the legend.
    pub(super) name: String,
    /// Class of the style sheet: `a`, `b`, `c`, `d`, `truth`, `predicted` or `quiet`.
    pub(super) class: &'static str,
    /// Left to right.
    pub(super) points: Vec<(f64, f64)>,
    /// Fill the area below.
    pub(super) filled: bool,
}

/// A straight line that the others are compared with.
#[derive(Debug, Clone)]
pub(super) enum Guide {
    /// At this height.
    Horizontal(f64, String),
    /// At this place.
    Vertical(f64, String),
    /// From the lower left to the upper right corner.
    Diagonal,
}

/// A chart of lines over one pair of axes.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x_label: &'static str,
    pub(super) x: (f64, f64),
    pub(super) y: (f64, f64),
    pub(super) series: Vec<Series>,
    pub(super) guides: Vec<Guide>,
    /// Height of the picture, of [`WIDTH`] units.
    pub(super) height: f64,
}

/// Units of the picture's width. Small, so that text stays readable where the picture is as narrow as a phone.
pub(super) const WIDTH: f64 = 420.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 36.0;

/// Width of a vertical guide's text, about.
const NOTE: f64 = 90.0;

/// Up to this many points are drawn as dots.
const FEW: usize = 12;

/// More points than this get no tooltips: they would overlap, and the file would grow.
const MOST_TOOLTIPS: usize = 150;

impl Chart {
    /// The chart with its title and legend, as a `figure`.
    pub(super) fn figure(&self) -> String {
        let mut legend = String::new();
        for series in self.series.iter().filter(|_| self.series.len() > 1) {
            let _ = write!(legend, "<li class=\"{}\"><i></i>{}</li>", series.class, escape(&series.name));
        }
        let legend = if legend.is_empty() { legend } else { format!("<ul class=\"legend\">{legend}</ul>") };
        let title = escape(&self.title);
        format!("<figure class=\"chart\"><figcaption>{title}</figcaption>{legend}{}</figure>\n", self.svg())
    }

    fn svg(&self) -> String {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">",
            self.height,
            escape(&self.title)
        );
        self.axes(&mut svg);
        for series in &self.series {
            self.line(&mut svg, series);
        }
        for guide in &self.guides {
            self.guide(&mut svg, guide);
        }
        svg.push_str("</svg>");
        svg
    }

    fn place_x(&self, x: f64) -> f64 {
        let (low, high) = self.x;
        LEFT + (x - low) / (high - low).max(f64::MIN_POSITIVE) * (WIDTH - LEFT - RIGHT)
    }

    fn place_y(&self, y: f64) -> f64 {
        let (low, high) = self.y;
        let bottom = self.height - BOTTOM;
        bottom - (y.clamp(low, high) - low) / (high - low).max(f64::MIN_POSITIVE) * (bottom - TOP)
    }

    fn axes(&self, svg: &mut String) {
        let (left, right, bottom) = (LEFT, WIDTH - RIGHT, self.height - BOTTOM);
        for y in ticks(self.y, 5) {
            let at = self.place_y(y);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/>");
            let _ =
                write!(svg, "<text x=\"{}\" y=\"{:.1}\" class=\"y\">{}</text>", left - 6.0, at + 4.0, label(y, self.y));
        }
        for x in ticks(self.x, 6) {
            let at = self.place_x(x);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{at:.1} {bottom}v4\"/>");
            let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{}\" class=\"x\">{}</text>", bottom + 16.0, label(x, self.x));
        }
        let _ = write!(svg, "<path class=\"axis\" d=\"M{left} {bottom}H{right}\"/>");
        let middle = (left + right) / 2.0;
        let _ = write!(
            svg,
            "<text x=\"{middle}\" y=\"{}\" class=\"x name\">{}</text>",
            bottom + 31.0,
            escape(self.x_label)
        );
    }

    fn guide(&self, svg: &mut String, guide: &Guide) {
        let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, self.height - BOTTOM);
        match guide {
            Guide::Horizontal(y, text) => {
                let at = self.place_y(*y);
                let _ = write!(svg, "<path class=\"guide\" d=\"M{left} {at:.1}H{right}\"/>");
                let above = if at < top + 16.0 { at + 13.0 } else { at - 5.0 };
                let _ = write!(
                    svg,
                    "<text x=\"{}\" y=\"{above:.1}\" class=\"note end\">{}</text>",
                    right - 2.0,
                    escape(text)
                );
            }
            Guide::Vertical(x, text) => {
                let at = self.place_x(*x);
                let _ = write!(svg, "<path class=\"guide\" d=\"M{at:.1} {top}V{bottom}\"/>");
                let is_left = at > (left + right) / 2.0;
                let lines = self.extent_y(if is_left { at - NOTE..at } else { at..at + NOTE });
                // At the end of the guide that the lines leave more room at.
                let y = if bottom - lines.end >= lines.start - top { bottom - 7.0 } else { top + 11.0 };
                let (class, at) = if is_left { ("note end", at - 5.0) } else { ("note", at + 5.0) };
                let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{y}\" class=\"{class}\">{}</text>", escape(text));
            }
            Guide::Diagonal => {
                let _ = write!(svg, "<path class=\"guide\" d=\"M{left} {bottom}L{right} {top}\"/>");
            }
        }
    }

    /// From where to where the lines go in height, over a part of the width; the middle where none does.
    fn extent_y(&self, width: Range<f64>) -> Range<f64> {
        let mut heights = Vec::new();
        for pair in self.series.iter().flat_map(|series| series.points.windows(2)) {
            let [(x0, y0), (x1, y1)] = [pair[0], pair[1]].map(|(x, y)| (self.place_x(x), self.place_y(y)));
            if x0 < width.end && x1 > width.start {
                let height = |x: f64| y0 + (y1 - y0) * (x.clamp(x0, x1) - x0) / (x1 - x0);
                heights.extend([height(width.start), height(width.end)]);
            }
        }
        let middle = (TOP + self.height - BOTTOM) / 2.0;
        let (top, bottom) = heights.iter().fold((f64::MAX, f64::MIN), |(top, bottom), y| (top.min(*y), bottom.max(*y)));
        if heights.is_empty() { middle..middle } else { top..bottom }
    }

    fn line(&self, svg: &mut String, series: &Series) {
        let mut path = String::new();
        for (at, &(x, y)) in series.points.iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if at == 0 { 'M' } else { 'L' }, self.place_x(x), self.place_y(y));
        }
        let _ = write!(svg, "<g class=\"{}\">", series.class);
        if let (true, Some(first), Some(last)) = (series.filled, series.points.first(), series.points.last()) {
            let (bottom, first, last) = (self.height - BOTTOM, self.place_x(first.0), self.place_x(last.0));
            let _ = write!(svg, "<path class=\"area\" d=\"{path}L{last:.1} {bottom}L{first:.1} {bottom}Z\"/>");
        }
        let _ = write!(svg, "<path class=\"line\" d=\"{path}\"/>");
        if series.points.len() <= MOST_TOOLTIPS {
            for &(x, y) in &series.points {
                let _ = write!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"7\"><title>{}: {} {} = {}</title></circle>",
                    self.place_x(x),
                    self.place_y(y),
                    escape(&series.name),
                    escape(self.x_label),
                    value(x),
                    value(y)
                );
            }
        }
        // A single point makes no line, and a few are worth seeing.
        for &(x, y) in series.points.iter().filter(|_| series.points.len() <= FEW) {
            let _ = write!(
                svg,
                "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                self.place_x(x),
                self.place_y(y)
            );
        }
        svg.push_str("</g>");
    }
}

/// An axis that holds all values: from 0 or a round number below them to a round number above.
pub(super) fn range(values: impl IntoIterator<Item = f64>, from_zero: bool) -> (f64, f64) {
    let (low, high) = values
        .into_iter()
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return (0.0, 1.0);
    }
    let low = if from_zero { low.min(0.0) } else { low };
    let high = if high > low { high } else { low + low.abs().max(1e-6) };
    let step = step(high - low, 5);
    ((low / step).floor() * step, (high / step).ceil() * step)
}

/// The distance between ticks: 1, 2 or 5 times a power of ten.
fn step(length: f64, about: usize) -> f64 {
    let rough = length / about as f64;
    let power = 10.0_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

fn ticks((low, high): (f64, f64), about: usize) -> Vec<f64> {
    if !(high - low).is_normal() {
        return Vec::new();
    }
    let step = step(high - low, about);
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).map(|tick| tick as f64 * step).collect()
}

/// A tick's text: as many digits as its axis needs.
fn label(value: f64, (low, high): (f64, f64)) -> String {
    let largest = low.abs().max(high.abs());
    if !(0.01..1e5).contains(&largest) {
        return if value == 0.0 { "0".to_owned() } else { format!("{value:.0e}") };
    }
    let step = step(high - low, 5);
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.digits$}")
}

/// A value's text in a tooltip.
fn value(value: f64) -> String {
    if value == value.round() && value.abs() < 1e7 {
        return format!("{value:.0}");
    }
    if value.abs() < 0.001 { format!("{value:.3e}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_round() {
        assert_eq!(range([0.13, 0.91], true), (0.0, 1.0));
        let (low, high) = range([0.41, 0.58], false);
        assert!((low - 0.4).abs() < 1e-9 && (high - 0.6).abs() < 1e-9, "{low} {high}");
        assert_eq!(range([], true), (0.0, 1.0));
        assert_eq!(range([f64::NAN, 5.0], true), (0.0, 5.0));
        let (low, high) = range([3.0, 3.0], false);
        assert!(low <= 3.0 && high > 3.0);
        let ticks: Vec<_> = ticks((0.0, 1.0), 5).iter().map(|tick| label(*tick, (0.0, 1.0))).collect();
        assert_eq!(ticks, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!((label(4e-4, (0.0, 1e-3)), label(0.0, (0.0, 1e-3))), ("4e-4".to_owned(), "0".to_owned()));
        assert_eq!(label(15.0, (0.0, 30.0)), "15");
    }

    /// The text of a vertical guide stands where the lines do not.
    #[test]
    fn text_keeps_off_the_lines() {
        let of = |heights: [f64; 3]| {
            let points = heights.into_iter().enumerate().map(|(at, y)| (at as f64, y)).collect();
            let series = Series { name: "loss".to_owned(), class: "a", points, filled: false };
            let guides = vec![Guide::Vertical(2.0, "best".to_owned())];
            let (x, y) = ((0.0, 2.0), (0.0, 1.0));
            Chart { title: String::new(), x_label: "epoch", x, y, series: vec![series], guides, height: 240.0 }.svg()
        };
        assert!(of([0.2, 0.9, 0.95]).contains("y=\"197\" class=\"note end\">best"));
        assert!(of([1.0, 0.1, 0.05]).contains("y=\"21\" class=\"note end\">best"));
    }

    #[test]
    fn points_stay_inside_and_text_is_escaped() {
        let series = Series { name: "a<b".to_owned(), class: "a", points: vec![(0.0, 5.0), (1.0, 0.5)], filled: true };
        let chart = Chart {
            title: "x & y".to_owned(),
            x_label: "epoch",
            x: (0.0, 1.0),
            y: (0.0, 1.0),
            series: vec![series.clone(), series],
            guides: vec![
                Guide::Horizontal(0.5, "half".to_owned()),
                Guide::Vertical(0.2, "<".to_owned()),
                Guide::Diagonal,
            ],
            height: 240.0,
        };
        let figure = chart.figure();
        assert!(figure.contains("x &amp; y") && figure.contains("a&lt;b") && !figure.contains("a<b"));
        // 5 lies above the axis and is drawn at its top.
        assert!(figure.contains("M46.0 10.0L408.0 107.0"), "{figure}");
    }
}
