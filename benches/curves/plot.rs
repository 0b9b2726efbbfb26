//! Line charts as SVG: the same bytes for the same numbers, on a light card that can be read on a dark page too.

use std::ops::Range;
use std::path::Path;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

const SIZE: (u32, u32) = (720, 420);
const PAPER: RGBColor = RGBColor(0xfc, 0xfc, 0xfa);
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xd8);
const BOUND: RGBColor = RGBColor(0x88, 0x88, 0x88);

/// Colours that colour-blind readers tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 4] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
];

pub struct Axis {
    /// What it shows, and in which unit.
    pub name: String,
    pub is_log: bool,
}

pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Whether it is not measured but the most that is allowed.
    pub is_bound: bool,
}

pub struct Plot {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    /// What stands below the horizontal axis, and where.
    pub marks: Vec<(f64, String)>,
    pub lines: Vec<Line>,
}

impl Axis {
    /// Where a value lies, in a unit in which equal distances look equal.
    fn at(&self, value: f64) -> f64 {
        if self.is_log { libm::log10(value) } else { value }
    }
}

impl Plot {
    /// Writes the file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn draw(&self, path: &Path) {
        self.try_draw(path).expect("the plot can be drawn");
    }

    fn try_draw(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&PAPER)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, ("sans-serif", 21).into_font().color(&INK))
            .margin(14)
            .x_label_area_size(52)
            .y_label_area_size(62)
            .build_cartesian_2d(self.scale_x(), self.scale_y())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(("sans-serif", 16).into_font().color(&INK))
            .x_desc(&self.x.name)
            .y_desc(&self.y.name)
            .draw()?;
        let mut colours = COLOURS.iter().cycle();
        for line in &self.lines {
            let points: Vec<(f64, f64)> =
                line.points.iter().map(|(x, y)| (self.x.at(*x), self.y.at(*y))).collect();
            let colour = if line.is_bound { BOUND } else { *colours.next().unwrap_or(&INK) };
            let style = colour.stroke_width(2);
            let drawn = if line.is_bound {
                chart.draw_series(DashedLineSeries::new(points.clone(), 6, 4, style))?
            } else {
                chart.draw_series(LineSeries::new(points.clone(), style))?
            };
            if !line.name.is_empty() {
                drawn.label(&line.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            }
            chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled())))?;
        }
        if self.lines.iter().any(|line| !line.name.is_empty()) {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::LowerRight)
                .background_style(PAPER)
                .border_style(GRID)
                .label_font(("sans-serif", 16).into_font().color(&INK))
                .draw()?;
        }
        area.present()?;
        Ok(())
    }

    /// From the first mark to the last, with a little room on both sides.
    fn scale_x(&self) -> Scale {
        let marks: Vec<_> = self.marks.iter().map(|(x, label)| (self.x.at(*x), label.clone())).collect();
        let (first, last) = (marks[0].0, marks[marks.len() - 1].0);
        let room = 0.1 * (last - first).max(0.1);
        Scale { range: first - room..last + room, marks }
    }

    /// Begins at 0, or at a power of ten.
    fn scale_y(&self) -> Scale {
        let values = || self.lines.iter().flat_map(|line| &line.points).map(|(_, y)| self.y.at(*y));
        let most = values().fold(f64::MIN, f64::max);
        if self.y.is_log {
            let (first, last) = (values().fold(f64::MAX, f64::min).floor(), most.ceil());
            let powers = first as i32..=last as i32;
            let marks = powers.map(|power| (f64::from(power), shown(libm::exp10(f64::from(power)))));
            return Scale { range: first..last, marks: marks.collect() };
        }
        let step = round_step(most / 5.0);
        let steps = (1.05 * most / step).ceil();
        let marks = (0..=steps as i32).map(|number| f64::from(number) * step);
        Scale { range: 0.0..steps * step, marks: marks.map(|at| (at, shown(at))).collect() }
    }
}

/// An axis with its marks and what stands at them.
struct Scale {
    range: Range<f64>,
    marks: Vec<(f64, String)>,
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, value: &f64) -> String {
        let mark = self.marks.iter().find(|(at, _)| at == value);
        mark.map(|(_, label)| label.clone()).unwrap_or_default()
    }
}

/// A number without digits that say nothing.
fn shown(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let power = libm::exp10(libm::log10(least).floor());
    let step = [1.0, 2.0, 5.0].into_iter().map(|times| times * power).find(|step| *step >= least);
    step.unwrap_or(10.0 * power)
}
