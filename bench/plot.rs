//! Results as two pictures, each as SVG and PNG: the roofline with a point for each case, and how near each kernel comes
//! to it. The fastest version of a case stands for it in the roofline; the bars show all versions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde_json::Value;
use shadegrad::{Error, Result};

use super::compare::Results;

/// Written into the SVG too, where the viewer takes its own font of this kind.
const FONT: &str = "monospace";
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);
/// The fastest version of a kernel, and the others.
const BEST: RGBColor = RGBColor(36, 110, 185);
const OTHERS: RGBColor = RGBColor(176, 196, 216);

/// Pictures of a file of `bench --json`
///
/// Example:
///   shadegrad bench plot results.jsonl pictures
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct PlotArgs {
    /// The results
    results: PathBuf,
    /// Where roofline.svg, roofline.png, bars.svg and bars.png are written
    folder: PathBuf,
}

/// Runs `bench plot`.
///
/// # Errors
/// As [`Results::lines`] and [`write`].
pub fn run(args: &PlotArgs) -> Result<()> {
    write(&args.folder, &Results::lines(&args.results)?)
}

/// A result of one case.
#[derive(Debug, Clone)]
struct Point {
    op: String,
    entry: String,
    version: String,
    case: String,
    /// Operations per byte.
    intensity: f64,
    gflops: f64,
    /// Median, and the least that the roof allows.
    milliseconds: f64,
    floor: f64,
}

/// The device and its cases.
#[derive(Debug)]
struct Picture {
    title: String,
    copy_gbps: f64,
    fma_gflops: f64,
    points: Vec<Point>,
}

impl Picture {
    /// Results of kernels among these; `None` if there are none.
    fn of(results: &[Value]) -> Option<Self> {
        let text = |line: &Value, key: &str| line.get(key).and_then(Value::as_str).map(str::to_owned);
        let number = |line: &Value, key: &str| line.get(key).and_then(Value::as_f64);
        let point = |line: &Value| {
            let milliseconds = number(line, "median_ms")?;
            Some(Point {
                op: text(line, "op")?,
                entry: text(line, "entry")?,
                version: text(line, "version")?,
                case: text(line, "case")?,
                intensity: number(line, "flops")? / number(line, "bytes")?,
                gflops: number(line, "gflops")?,
                milliseconds,
                floor: milliseconds * number(line, "percent_of_peak")? / 100.0,
            })
        };
        let points: Vec<Point> = results.iter().filter_map(point).collect();
        let first = results.iter().find(|line| line.get("op").is_some())?;
        let (adapter, commit) = (text(first, "adapter")?, text(first, "commit")?);
        Some(Self {
            title: format!("{adapter}, commit {commit}"),
            copy_gbps: number(first, "copy_gbps")?,
            fma_gflops: number(first, "fma_gflops")?,
            points,
        })
    }

    /// The fastest version of each case that computes something.
    fn best(&self) -> Vec<&Point> {
        let mut best: BTreeMap<[&str; 3], &Point> = BTreeMap::new();
        for point in self.points.iter().filter(|point| point.intensity > 0.0) {
            let kept = best.entry([&point.op, &point.entry, &point.case]).or_insert(point);
            if point.milliseconds < kept.milliseconds {
                *kept = point;
            }
        }
        best.into_values().collect()
    }

    /// Op, entry and version; share of the roof over all cases together; whether no other version is faster.
    fn bars(&self) -> Vec<([&str; 3], f64, bool)> {
        let mut sums: BTreeMap<[&str; 3], (f64, f64)> = BTreeMap::new();
        for Point { op, entry, version, floor, milliseconds, .. } in &self.points {
            let sum = sums.entry([op, entry, version]).or_default();
            *sum = (sum.0 + floor, sum.1 + milliseconds);
        }
        let share = |(floor, milliseconds): (f64, f64)| 100.0 * floor / milliseconds;
        let best = |of: &[&str; 3]| {
            let same = sums.iter().filter(|(other, _)| other[..2] == of[..2]);
            same.fold(0.0_f64, |most, (_, sum)| most.max(share(*sum)))
        };
        sums.iter().map(|(name, sum)| (*name, share(*sum), share(*sum) >= best(name))).collect()
    }
}

/// Writes both pictures of the results into a folder, which is made.
///
/// # Errors
/// [`Error::Config`] if the results hold no kernel; [`Error::Io`].
pub fn write(folder: &Path, results: &[Value]) -> Result<()> {
    let none = || Error::Config("there is no kernel among the results, so there is nothing to plot".to_owned());
    let picture = Picture::of(results).ok_or_else(none)?;
    // `Err` is a font that cannot be read, and this one can; registering it again changes nothing.
    let _ = register_font(FONT, FontStyle::Normal, epaint_default_fonts::HACK_REGULAR);
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    save(folder, "roofline", ROOFLINE, &Roofline(&picture))?;
    let bars = picture.bars();
    let size = (BARS_WIDTH, BARS_TOP + BAR * bars.len() as u32 + BARS_BOTTOM);
    save(folder, "bars", size, &Bars(&picture, &bars))
}

/// Something that can be drawn as vectors and as pixels.
trait Draw {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> std::result::Result<(), DrawError<B>>;
}

type DrawError<B> = DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>;

fn save(folder: &Path, name: &str, size: (u32, u32), drawing: &impl Draw) -> Result<()> {
    let failed = |error: String| Error::Config(format!("drawing {name}: {error}"));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        drawing.draw(&area).and_then(|()| area.present()).map_err(|error| failed(error.to_string()))?;
    }
    let path = folder.join(name).with_extension("svg");
    std::fs::write(&path, svg).map_err(Error::io("write", &path))?;
    let mut pixels = vec![0; (size.0 * size.1 * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        drawing.draw(&area).and_then(|()| area.present()).map_err(|error| failed(error.to_string()))?;
    }
    let path = folder.join(name).with_extension("png");
    image::save_buffer(&path, &pixels, size.0, size.1, image::ExtendedColorType::Rgb8)
        .map_err(|error| failed(error.to_string()))
}

/// Letters that begin at the place and stand around its height.
fn font(size: u32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center))
}

/// A color of its own for each of many ops, all dark enough on white: hues by the golden angle in three shades, and once
/// they come near the first ones again, duller.
fn color_of(index: usize) -> HSLColor {
    let saturation = if index < 13 { 0.8 } else { 0.35 };
    HSLColor((index as f64 * 0.381_966).fract(), saturation, [0.42, 0.3, 0.5][index % 3])
}

const ROOFLINE: (u32, u32) = (1180, 720);
/// Width of the list of ops beside the roofline.
const LIST: u32 = 230;

struct Roofline<'a>(&'a Picture);

impl Draw for Roofline<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> std::result::Result<(), DrawError<B>> {
        let Picture { title, copy_gbps, fma_gflops, .. } = self.0;
        let best = self.0.best();
        area.fill(&WHITE)?;
        area.draw(&Text::new(format!("Roofline: {title}"), (24, 24), font(17)))?;
        let (left, list) = area.split_horizontally(ROOFLINE.0 - LIST);
        let range = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)))
        };
        let ridge = fma_gflops / copy_gbps;
        let (x_low, x_high) = range(&mut best.iter().map(|point| point.intensity).chain([ridge]));
        let (y_low, y_high) = range(&mut best.iter().map(|point| point.gflops).chain([*fma_gflops]));
        let (x_low, x_high, y_low, y_high) = (x_low / 1.6, x_high * 2.0, y_low / 1.6, y_high * 2.0);
        let mut chart = ChartBuilder::on(&left)
            .margin(24)
            .margin_top(48)
            .x_label_area_size(48)
            .y_label_area_size(64)
            .build_cartesian_2d((x_low..x_high).log_scale(), (y_low..y_high).log_scale())?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style(font(14))
            .axis_desc_style(font(15))
            .x_desc("operations per byte that must move")
            .y_desc("GFLOP/s")
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .draw()?;
        let roof = |x: f64| (x, (x * copy_gbps).min(*fma_gflops));
        chart.draw_series(LineSeries::new([x_low, ridge, x_high].map(roof), INK.stroke_width(2)))?;
        // Left of the slope near its upper end, where few cases are; and on the flat part.
        let slope = 0.55 * ridge;
        let at = |h, v| font(14).pos(Pos::new(h, v));
        chart.draw_series([
            Text::new(format!("copy {} GB/s ", short(*copy_gbps)), roof(slope), at(HPos::Right, VPos::Bottom)),
            Text::new(
                format!("multiply-add {} GFLOP/s", short(*fma_gflops)),
                (x_high / 1.05, fma_gflops * 1.06),
                at(HPos::Right, VPos::Bottom),
            ),
        ])?;
        let mut ops: Vec<&str> = best.iter().map(|point| point.op.as_str()).collect();
        ops.dedup();
        let color = |op: &str| color_of(ops.iter().position(|other| *other == op).unwrap_or(0));
        let of = |kind: Kind| best.iter().filter(move |point| Kind::of(&point.entry) == kind);
        let place = |point: &&&Point| (point.intensity, point.gflops);
        chart.draw_series(of(Kind::Forward).map(|p| Circle::new(place(&p), 5, color(&p.op).filled())))?;
        chart.draw_series(of(Kind::Input).map(|p| TriangleMarker::new(place(&p), 6, color(&p.op).filled())))?;
        chart.draw_series(of(Kind::Other).map(|p| Cross::new(place(&p), 4, color(&p.op).stroke_width(2))))?;

        let mut y = 60;
        for op in &ops {
            list.draw(&Circle::new((10, y), 5, color(op).filled()))?;
            list.draw(&Text::new((*op).to_owned(), (24, y + 2), font(14)))?;
            y += 20;
        }
        y += 16;
        list.draw(&Circle::new((10, y), 5, INK.filled()))?;
        list.draw(&TriangleMarker::new((10, y + 20), 6, INK.filled()))?;
        list.draw(&Cross::new((10, y + 40), 4, INK.stroke_width(2)))?;
        for text in ["forward, update", "gradient of x", "gradient of weights", "", "fastest version", "of each case"] {
            list.draw(&Text::new(text, (24, y + 2), font(14)))?;
            y += 20;
        }
        Ok(())
    }
}

/// What marks a point.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Forward,
    Input,
    Other,
}

impl Kind {
    fn of(entry: &str) -> Self {
        match entry {
            "backward_input" | "backward" => Self::Input,
            entry if entry.starts_with("backward") || entry == "sums" => Self::Other,
            _ => Self::Forward,
        }
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 4) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

const BARS_WIDTH: u32 = 1000;
const BARS_TOP: u32 = 90;
const BARS_BOTTOM: u32 = 20;
/// Height of a bar with the space below it.
const BAR: u32 = 17;
/// Where bars begin and where 100 % is.
const ZERO: i32 = 340;
const FULL: i32 = 900;

struct Bars<'a>(&'a Picture, &'a [([&'a str; 3], f64, bool)]);

impl Draw for Bars<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> std::result::Result<(), DrawError<B>> {
        let Self(Picture { title, .. }, bars) = self;
        area.fill(&WHITE)?;
        area.draw(&Text::new(format!("Percent of the roofline, all cases together: {title}"), (16, 20), font(16)))?;
        let note = "dark: the fastest version; what stays in a cache can be above 100 %, its bar ends there";
        area.draw(&Text::new(note, (16, 42), font(13)))?;
        let bottom = (BARS_TOP + BAR * bars.len() as u32) as i32;
        for percent in (0..=100).step_by(20) {
            let x = ZERO + (FULL - ZERO) * percent / 100;
            area.draw(&PathElement::new([(x, BARS_TOP as i32 - 6), (x, bottom)], GRID))?;
            let style = font(13).pos(Pos::new(HPos::Center, VPos::Bottom));
            area.draw(&Text::new(format!("{percent} %"), (x, BARS_TOP as i32 - 10), style))?;
        }
        let mut last = "";
        for (index, ([op, entry, version], percent, best)) in bars.iter().enumerate() {
            let y = (BARS_TOP + BAR * index as u32) as i32;
            let middle = y + BAR as i32 / 2 + 1;
            if last != *op {
                area.draw(&Text::new((*op).to_owned(), (16, middle), font(13)))?;
                last = op;
            }
            area.draw(&Text::new(format!("{entry} {version}"), (160, middle), font(13)))?;
            // What stays in a cache can be above the roof: such a bar ends there, its number says how far it is above.
            let end = ZERO + (f64::from(FULL - ZERO) * percent.min(100.0) / 100.0) as i32;
            let color = if *best { BEST } else { OTHERS };
            area.draw(&Rectangle::new([(ZERO, y + 1), (end.max(ZERO + 1), y + BAR as i32 - 3)], color.filled()))?;
            area.draw(&Text::new(format!("{} %", short(*percent)), (end + 6, middle), font(13)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn results() -> Vec<Value> {
        let line = |entry: &str, version: &str, case: &str, ms: f64| {
            json!({ "op": "conv2d", "entry": entry, "version": version, "case": case, "median_ms": ms, "flops": 2e6,
                "bytes": 1e5, "gflops": 2.0 / ms, "percent_of_peak": 100.0 * 0.04 / ms, "adapter": "a <card> & more",
                "commit": "0", "copy_gbps": 10.0, "fma_gflops": 50.0 })
        };
        vec![
            line("forward", "v1", "a", 0.8),
            line("forward", "v2", "a", 0.1),
            line("forward", "v2", "b", 0.3),
            line("backward_input", "v1", "a", 0.2),
        ]
    }

    #[test]
    fn the_fastest_version_stands_for_a_case() {
        let Some(picture) = Picture::of(&results()) else { panic!("no picture") };
        let best: Vec<_> = picture.best().into_iter().map(|point| (point.version.as_str(), point.intensity)).collect();
        assert_eq!(best, [("v1", 20.0), ("v2", 20.0), ("v2", 20.0)]);
        let bars = picture.bars();
        let names: Vec<_> = bars.iter().map(|(name, _, best)| (name[1], name[2], *best)).collect();
        assert_eq!(names, [("backward_input", "v1", true), ("forward", "v1", false), ("forward", "v2", true)]);
        // 0.08 of 0.4 ms.
        assert!((bars[2].1 - 20.0).abs() < 1e-9, "{}", bars[2].1);
    }

    #[test]
    fn both_pictures_are_written_in_both_formats() -> Result<()> {
        let folder = tempfile::tempdir().map_err(Error::io("create", "a temporary folder"))?;
        write(folder.path(), &results())?;
        for name in ["roofline", "bars"] {
            let path = folder.path().join(format!("{name}.svg"));
            let svg = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
            assert!(svg.starts_with("<svg") && svg.contains("a &lt;card&gt; &amp; more"), "{svg}");
            let png = folder.path().join(format!("{name}.png"));
            let Ok(picture) = image::open(&png) else { panic!("{} is no picture", png.display()) };
            let dark = picture.to_luma8().pixels().filter(|pixel| pixel.0[0] < 128).count();
            assert!(dark > 1000, "{name} is empty: {dark} dark pixels");
        }
        assert!(write(folder.path(), &[]).is_err());
        Ok(())
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0125, 0.5, 9.94, 45.24, 131.4, 20.0].map(short), ["0.0125", "0.5", "9.94", "45.2", "131", "20"]);
    }
}
