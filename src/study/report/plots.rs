//! The plots of a report, as SVG that stands in a page.

use plotters::coord::ranged1d::{BoldPoints, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    ChartBuilder, Color, IntoDrawingArea, IntoFont, LineSeries, PathElement, RGBColor, SVGBackend, Text, WHITE,
};
use plotters::series::DashedLineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::metrics::KaplanMeier;

/// Colours that are told apart in grey, too: dark and light by turns.
const COLOURS: [RGBColor; 8] = [
    RGBColor(178, 34, 34),
    RGBColor(70, 130, 180),
    RGBColor(34, 110, 34),
    RGBColor(205, 133, 63),
    RGBColor(72, 61, 139),
    RGBColor(0, 150, 150),
    RGBColor(120, 120, 120),
    RGBColor(199, 80, 150),
];
const FONT: &str = "sans-serif";
/// A plot into a text can fail by a layout that does not fit alone, and sizes here are constants.
const FITS: &str = "the plot fits its size";
/// Labels on the axis of time.
const TICKS: usize = 6;

/// What a line shows: where it goes, and whether it is dashed.
pub(super) struct Curve {
    /// Which colour, one after the other.
    pub(super) colour: usize,
    /// Whether it is dashed.
    pub(super) dashed: bool,
    /// Its points.
    pub(super) points: Vec<(f64, f64)>,
}

/// Kaplan-Meier curves of high and low risk, censorings as ticks, and the numbers at risk below.
pub(super) fn kaplan_meier(curves: &[KaplanMeier; 2], times: &[Vec<f64>; 2], unit: &str) -> String {
    const SIZE: (u32, u32) = (430, 310);
    let end = times.iter().flatten().copied().fold(0.0, f64::max);
    let end = if end > 0.0 { end } else { 1.0 };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).expect(FITS);
        let (upper, _) = root.split_vertically(SIZE.1 - 52);
        let mut builder = ChartBuilder::on(&upper);
        builder.margin(8).margin_right(16).x_label_area_size(36).y_label_area_size(48);
        let mut chart = builder.build_cartesian_2d(0.0..end, 0.0..1.0).expect(FITS);
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh().light_line_style(WHITE).x_labels(TICKS).y_labels(5);
        mesh.x_label_formatter(&|time| short(*time));
        mesh.label_style((FONT, 12))
            .axis_desc_style((FONT, 12))
            .x_desc(unit)
            .y_desc("without event")
            .draw()
            .expect(FITS);
        for (colour, curve) in curves.iter().enumerate() {
            let colour = COLOURS[colour];
            let mut steps = vec![(0.0, 1.0)];
            let mut survival = 1.0;
            for step in curve.steps() {
                steps.extend([(step.time, survival), (step.time, step.survival)]);
                survival = step.survival;
            }
            chart.draw_series(LineSeries::new(steps, colour.stroke_width(2))).expect(FITS);
            let censored = curve.steps().iter().filter(|step| step.censored > 0.0);
            let tick =
                |s: f64, t: f64| PathElement::new(vec![(t, (s - 0.015).max(0.0)), (t, (s + 0.015).min(1.0))], colour);
            chart.draw_series(censored.map(|step| tick(step.survival, step.time))).expect(FITS);
        }
        // The numbers stand under the labels of the axis, which are these.
        let ticks = RangedCoordf64::from(0.0..end).key_points(BoldPoints(TICKS));
        for (row, (times, name)) in times.iter().zip(["high", "low"]).enumerate() {
            let y = (SIZE.1 - 44 + 20 * row as u32) as i32;
            let style = (FONT, 12).into_font().color(&COLOURS[row]);
            let label = style.clone().pos(Pos::new(HPos::Left, VPos::Top));
            root.draw(&Text::new(name, (6, y), label)).expect(FITS);
            for &tick in &ticks {
                let x = chart.backend_coord(&(tick, 0.0)).0;
                let at_risk = times.iter().filter(|time| **time >= tick).count();
                let style = style.clone().pos(Pos::new(HPos::Center, VPos::Top));
                root.draw(&Text::new(at_risk.to_string(), (x, y), style)).expect(FITS);
            }
        }
        root.present().expect(FITS);
    }
    inline(svg)
}

/// Losses over the epochs.
pub(super) fn losses(curves: &[Curve], epochs: u32) -> String {
    const SIZE: (u32, u32) = (430, 220);
    let values = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let room = if high > low { 0.05 * (high - low) } else { 0.5 };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).expect(FITS);
        let mut builder = ChartBuilder::on(&root);
        builder.margin(8).margin_right(16).x_label_area_size(36).y_label_area_size(56);
        let last = f64::from(epochs.max(2));
        let mut chart = builder.build_cartesian_2d(1.0..last, low - room..high + room).expect(FITS);
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh().light_line_style(WHITE).x_labels(TICKS).y_labels(5);
        mesh.x_label_formatter(&|epoch| if epoch.fract() == 0.0 { epoch.to_string() } else { String::new() });
        mesh.label_style((FONT, 12)).axis_desc_style((FONT, 12)).x_desc("epoch").y_desc("loss").draw().expect(FITS);
        for curve in curves {
            let style = COLOURS[curve.colour % COLOURS.len()].stroke_width(1);
            if curve.dashed {
                let line = DashedLineSeries::new(curve.points.iter().copied(), 4, 3, style);
                chart.draw_series(line).expect(FITS);
            } else {
                chart.draw_series(LineSeries::new(curve.points.iter().copied(), style)).expect(FITS);
            }
        }
        root.present().expect(FITS);
    }
    inline(svg)
}

/// A time on the axis, without decimals that say nothing.
fn short(time: f64) -> String {
    let text = format!("{time:.2}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}

/// The colour of a line as a style sheet spells it.
pub(super) fn colour(number: usize) -> String {
    let RGBColor(r, g, b) = COLOURS[number % COLOURS.len()];
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Without what a page has already: the namespace of an element inside HTML is known.
fn inline(svg: String) -> String {
    svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", " role=\"img\"", 1)
}
