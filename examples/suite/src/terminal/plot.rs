//! Pictures as SVG text, all in one style: curves side by side under a common legend, and training curves.
//!
//! They are drawn on white, so that they are legible on any page, and use the reader's own sans-serif font. A value that is not
//! finite leaves a gap.

use anyhow::{Result, anyhow, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

const WIDTH: i32 = 800;
const TITLE_HEIGHT: i32 = 44;
const LEGEND_HEIGHT: i32 = 26;
const PANEL_HEIGHT: i32 = 320;
const TEXT: RGBColor = RGBColor(51, 51, 51);
/// Told apart by those who don't see all colours (Okabe & Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
/// More points than this would not be told apart.
const POINTS: usize = 500;

/// What is drawn beside another with the same lines: a value, a derivative, a metric.
#[derive(Debug, Clone)]
pub struct Panel {
    /// What the horizontal axis shows.
    pub x: String,
    /// What the vertical axis shows.
    pub y: String,
    /// The points of each line, in the order of the legend.
    pub lines: Vec<Vec<(f64, f64)>>,
    /// How far the points of each line scatter up and down; empty where they don't.
    pub spread: Vec<Vec<f64>>,
}

/// Panels side by side under a title and a legend with a label for each line.
///
/// # Errors
/// If a panel has no points, or another number of points than of their spread.
pub fn panels(title: &str, legend: &[String], panels: &[Panel]) -> Result<String> {
    for panel in panels {
        ensure!(
            panel.lines.iter().flatten().any(|&(x, y)| is_drawable(x) && is_drawable(y)),
            "the panel {:?} has no points to draw",
            panel.y
        );
        let fits = |(spread, line): (&Vec<f64>, &Vec<_>)| spread.len() == line.len();
        ensure!(
            panel.spread.is_empty() || panel.spread.len() == panel.lines.len(),
            "the panel {:?} has {} lines but the spread of {}",
            panel.y,
            panel.lines.len(),
            panel.spread.len()
        );
        ensure!(
            panel.spread.iter().zip(&panel.lines).all(fits),
            "the panel {:?} has another number of points than of their spread",
            panel.y
        );
    }
    let rows = legend_rows(legend);
    let head = TITLE_HEIGHT + LEGEND_HEIGHT * rows.iter().map(|&(_, row)| row + 1).max().unwrap_or(0);
    svg((WIDTH, head + PANEL_HEIGHT), |root| {
        draw_title(&root, title)?;
        for ((label, &(left, row)), colour) in legend.iter().zip(&rows).zip(COLOURS.iter().cycle()) {
            let middle = TITLE_HEIGHT + LEGEND_HEIGHT * row + LEGEND_HEIGHT / 2;
            root.draw(&PathElement::new([(left, middle), (left + 22, middle)], colour.stroke_width(3)))?;
            root.draw(&Text::new(label.clone(), (left + 28, middle), text(15, HPos::Left)))?;
        }
        let (_, body) = root.split_vertically(head);
        for (area, panel) in body.split_evenly((1, panels.len().max(1))).iter().zip(panels) {
            draw_panel(area, panel)?;
        }
        Ok(())
    })
}

/// Lines alone, small: to be recognized, not to be read off.
///
/// # Errors
/// If the text can't be put together.
pub fn thumbnail(lines: &[Vec<(f64, f64)>]) -> Result<String> {
    svg((280, 160), |root| {
        let points = || lines.iter().flatten();
        let (x, y) = (span(points().map(|&(x, _)| x)), range(points().map(|&(_, y)| y)));
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .x_label_area_size(22)
            .y_label_area_size(34)
            .build_cartesian_2d(x.clone(), y.clone())?;
        mesh(&mut chart, ("", &x, 5), ("", &y, 4))?;
        draw_lines(&mut chart, lines)
    })
}

/// The loss of each step, light, and its running mean in front of it, under a title.
///
/// # Errors
/// If the text can't be put together.
pub fn training_curve(title: &str, losses: &[f64]) -> Result<String> {
    svg((WIDTH, TITLE_HEIGHT + PANEL_HEIGHT), |root| {
        draw_title(&root, title)?;
        draw_curve(&root.split_vertically(TITLE_HEIGHT).1, losses)
    })
}

/// What a model made of held-out rows.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The true and the predicted number of each.
    Numbers(Vec<(f64, f64)>),
    /// How often each class (the outer lists) was taken for each (the inner ones).
    Classes {
        /// The classes.
        names: Vec<String>,
        /// The counts.
        counts: Vec<Vec<usize>>,
    },
}

/// The training curve, and beside it what came of it: predicted over true numbers, or which class was taken for which.
pub fn training_and_outcome(title: &str, losses: &[f64], outcome: &Outcome) -> Result<String> {
    svg((WIDTH, TITLE_HEIGHT + PANEL_HEIGHT), |root| {
        draw_title(&root, title)?;
        let (left, right) = root.split_vertically(TITLE_HEIGHT).1.split_horizontally(WIDTH / 2);
        draw_curve(&left, losses)?;
        match outcome {
            Outcome::Numbers(points) => draw_points(&right, points),
            Outcome::Classes { names, counts } => draw_counts(&right, names, counts),
        }
    })
}

fn draw_curve(area: &Root, losses: &[f64]) -> Drawn {
    let smooth = running_mean(losses, losses.len().div_ceil(50));
    // A few steps that are far off would leave no room for the others.
    let mut sorted = losses.iter().copied().filter(|&loss| is_drawable(loss)).collect::<Vec<_>>();
    sorted.sort_by(f64::total_cmp);
    let rare = sorted.len() / 200;
    let (low, high) = (sorted.get(rare).copied(), sorted.iter().rev().nth(rare).copied());
    let y = range(low.into_iter().chain(high).chain(smooth.iter().copied()));
    let within = |(step, loss): (f64, f64)| (step, if is_drawable(loss) { loss.clamp(y.start, y.end) } else { loss });
    let x = 0.0..losses.len().max(1) as f64;
    let labels = if area.dim_in_pixel().0 < WIDTH as u32 { 5 } else { 10 };
    let mut chart = chart(area, ("step", &x, labels), ("loss", &y, 6))?;
    for run in unbroken(extremes(losses).into_iter().map(within)) {
        chart.draw_series(LineSeries::new(run, COLOURS[0].mix(0.3)))?;
    }
    for run in unbroken(thinned(&smooth).into_iter()) {
        chart.draw_series(LineSeries::new(run, COLOURS[0].stroke_width(3)))?;
    }
    Ok(())
}

/// Predicted over true numbers, with the line on which they are the same.
fn draw_points(area: &Root, points: &[(f64, f64)]) -> Drawn {
    let points = points.iter().copied().filter(|&(truth, predicted)| is_drawable(truth) && is_drawable(predicted));
    let points = points.collect::<Vec<_>>();
    let all = range(points.iter().flat_map(|&(truth, predicted)| [truth, predicted]));
    let mut chart = chart(area, ("true", &all, 5), ("predicted", &all, 6))?;
    chart.draw_series(LineSeries::new([(all.start, all.start), (all.end, all.end)], TEXT.mix(0.4).stroke_width(1)))?;
    // More would be a blot, and a large file.
    let some = points.iter().step_by(points.len().div_ceil(4 * POINTS).max(1));
    chart.draw_series(some.map(|&point| Circle::new(point, 3, COLOURS[0].mix(0.5).filled())))?;
    Ok(())
}

/// A square for each class and what it was taken for, the darker the larger its share of the class.
fn draw_counts(area: &Root, names: &[String], counts: &[Vec<usize>]) -> Drawn {
    const MOST: usize = 12;
    let cut = |name: &String| match name.char_indices().nth(9) {
        Some((end, _)) if name.chars().count() > 10 => format!("{}…", &name[..end]),
        _ => name.clone(),
    };
    let shown = names.len().clamp(1, MOST);
    let (left, top, size) = (100, 34, 250 / shown as i32);
    let note = if names.len() > MOST { format!("taken for (the first {MOST} classes)") } else { "taken for".into() };
    let middle = left + size * shown as i32 / 2;
    area.draw(&Text::new(note, (middle, top + size * shown as i32 + 14), text(15, HPos::Center)))?;
    for (row, (name, counts)) in names.iter().zip(counts).take(MOST).enumerate() {
        let (y, all) = (top + row as i32 * size, counts.iter().sum::<usize>().max(1));
        area.draw(&Text::new(cut(name), (left - 8, y + size / 2), text(13, HPos::Right)))?;
        let letters = if shown > 5 { cut(name).chars().take(4).collect() } else { cut(name) };
        area.draw(&Text::new(letters, (left + row as i32 * size + size / 2, top - 12), text(12, HPos::Center)))?;
        for (column, &count) in counts.iter().take(MOST).enumerate() {
            let x = left + column as i32 * size;
            let share = count as f64 / all as f64;
            let fill = COLOURS[0].mix(0.04 + 0.8 * share).filled();
            area.draw(&Rectangle::new([(x + 1, y + 1), (x + size - 1, y + size - 1)], fill))?;
            let colour = if share > 0.5 { &WHITE } else { &TEXT };
            area.draw(&Text::new(
                count.to_string(),
                (x + size / 2, y + size / 2),
                text(13, HPos::Center).color(colour),
            ))?;
        }
    }
    Ok(())
}

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn svg((width, height): (i32, i32), draw: impl FnOnce(Root) -> Drawn) -> Result<String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (width as u32, height as u32)).into_drawing_area();
    let drawn = root.fill(&WHITE).map_err(Into::into).and_then(|()| draw(root));
    drawn.map_err(|error| anyhow!("drawing a picture: {error}"))?;
    // Characters that XML has no place for.
    Ok(svg.replace(|c: char| (c < ' ' && !"\t\n\r".contains(c)) || "\u{fffe}\u{ffff}".contains(c), "\u{fffd}"))
}

fn text(size: i32, at: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&TEXT).pos(Pos::new(at, VPos::Center))
}

fn draw_title(root: &Root, title: &str) -> Drawn {
    Ok(root.draw(&Text::new(title.to_owned(), (WIDTH / 2, TITLE_HEIGHT / 2), text(18, HPos::Center)))?)
}

/// The position of each label of a legend: its left edge and its row, with as many labels in a row as fit.
fn legend_rows(legend: &[String]) -> Vec<(i32, i32)> {
    let (mut left, mut row) = (20, 0);
    let places = legend.iter().map(|label| {
        // Room for the line and for text, of which only the number of letters is known here.
        let width = 28 + 8 * label.chars().count() as i32 + 18;
        if left > 20 && left + width > WIDTH {
            (left, row) = (20, row + 1);
        }
        let place = (left, row);
        left += width;
        place
    });
    places.collect()
}

fn draw_panel(area: &Root, panel: &Panel) -> Drawn {
    let spread = |line: usize, i: usize| panel.spread.get(line).map_or(0.0, |spread| spread[i]);
    let both = panel.lines.iter().enumerate().flat_map(|(line, points)| {
        points.iter().enumerate().flat_map(move |(i, &(_, y))| [y - spread(line, i), y + spread(line, i)])
    });
    let (x, y) = (span(panel.lines.iter().flatten().map(|&(x, _)| x)), range(both));
    let mut chart = chart(area, (&panel.x, &x, 6), (&panel.y, &y, 6))?;
    draw_lines(&mut chart, &panel.lines)?;
    for (line, (points, colour)) in panel.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
        for (i, &(x, y)) in points.iter().enumerate() {
            let spread = spread(line, i);
            if spread > 0.0 && is_drawable(x) && is_drawable(y - spread) && is_drawable(y + spread) {
                chart.draw_series([PathElement::new([(x, y - spread), (x, y + spread)], colour.stroke_width(2))])?;
            }
        }
    }
    Ok(())
}

type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

fn draw_lines(chart: &mut Chart, lines: &[Vec<(f64, f64)>]) -> Drawn {
    for (points, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        for run in unbroken(points.iter().copied()) {
            chart.draw_series(LineSeries::new(run, colour.stroke_width(3)))?;
        }
    }
    Ok(())
}

/// The description of an axis, its range and about how many labels it has.
type Axis<'a> = (&'a str, &'a Range<f64>, usize);

/// A chart with its axes, as large as the area.
fn chart<'a, 'b>(area: &'a Root<'b>, x: Axis, y: Axis) -> Result<Chart<'a, 'b>, Box<dyn std::error::Error>> {
    let mut chart = ChartBuilder::on(area)
        .margin_left(10)
        .margin_right(20)
        .x_label_area_size(48)
        .y_label_area_size(68)
        .build_cartesian_2d(x.1.clone(), y.1.clone())?;
    mesh(&mut chart, x, y)?;
    Ok(chart)
}

fn mesh(chart: &mut Chart, (x, x_range, x_labels): Axis, (y, y_range, y_labels): Axis) -> Drawn {
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .x_labels(x_labels)
        .y_labels(y_labels)
        .x_label_formatter(&|value| label(*value, x_range))
        .y_label_formatter(&|value| label(*value, y_range))
        .axis_style(TEXT.mix(0.5))
        .bold_line_style(TEXT.mix(0.12))
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 14).into_font().color(&TEXT))
        .axis_desc_style(("sans-serif", 15).into_font().color(&TEXT))
        .draw()?;
    Ok(())
}

/// A number with as many digits as tell it apart from its neighbors on an axis of this range.
fn label(value: f64, range: &Range<f64>) -> String {
    let length = range.end - range.start;
    if value.abs() < length * 1e-6 {
        return "0".into();
    }
    // Labels are at least a tenth of the range apart, at 1, 2 or 5 times a power of ten.
    let exponent = (length / 10.0).log10().floor() as i32;
    let largest = range.start.abs().max(range.end.abs()).log10().floor() as i32;
    if exponent < -5 || largest > 5 {
        let text = format!("{value:.*e}", (largest - exponent).clamp(0, 15) as usize);
        return text
            .split_once('e')
            .map_or(text.clone(), |(mantissa, exponent)| format!("{}e{exponent}", trimmed(mantissa)));
    }
    trimmed(&format!("{value:.*}", (-exponent).max(0) as usize + 1)).to_owned()
}

/// Without zeros at the end of its decimals.
fn trimmed(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// Whether there is room for a number on an axis.
fn is_drawable(value: f64) -> bool {
    value.abs() < 1e300
}

/// The parts of a line between points that can't be drawn.
fn unbroken(points: impl Iterator<Item = (f64, f64)>) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for (x, y) in points {
        match runs.last_mut() {
            Some(run) if is_drawable(x) && is_drawable(y) => run.push((x, y)),
            Some(run) if !run.is_empty() => runs.push(Vec::new()),
            _ => {}
        }
    }
    runs
}

/// The lowest and the highest value, if there is one that can be drawn.
fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|&value| is_drawable(value)).fold(None, |ends, value| {
        let (low, high) = ends.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

/// From the lowest to the highest.
fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    padded(ends(values), 0.0)
}

/// From the lowest to the highest with a margin.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    padded(ends(values), 0.06)
}

/// A range that is long enough to be drawn, with this fraction of it as a margin at both ends.
fn padded(ends: Option<(f64, f64)>, fraction: f64) -> Range<f64> {
    let Some((low, high)) = ends else { return 0.0..1.0 };
    let size = low.abs().max(high.abs());
    let margin = match high - low {
        length if length > size * 1e-9 => length * fraction,
        _ if size > 1e-290 => size / 2.0,
        _ => 1.0,
    };
    low - margin..high + margin
}

/// At most [`POINTS`] points of step and value, each the last of its neighbours.
fn thinned(values: &[f64]) -> Vec<(f64, f64)> {
    let size = values.len().div_ceil(POINTS).max(1);
    values.chunks(size).enumerate().map(|(i, run)| ((i * size + run.len()) as f64, run[run.len() - 1])).collect()
}

/// As [`thinned`], but both the least and the largest of the neighbours.
fn extremes(values: &[f64]) -> Vec<(f64, f64)> {
    let size = values.len().div_ceil(POINTS).max(1);
    let points = values.chunks(size).enumerate().flat_map(|(i, run)| {
        let (low, high) = ends(run.iter().copied()).unwrap_or((f64::NAN, f64::NAN));
        let step = (i * size + run.len()) as f64;
        // One number has no two ends.
        std::iter::once((step, low)).chain((size > 1).then_some((step, high)))
    });
    points.collect()
}

/// The mean over the last `window` values, or as many as there are; NaN at a value that is not finite.
fn running_mean(values: &[f64], window: usize) -> Vec<f64> {
    let (mut sum, mut count) = (0.0, 0i64);
    let means = values.iter().enumerate().map(|(i, &value)| {
        let old = i.checked_sub(window).map(|i| values[i]);
        for (value, sign) in [(Some(value), 1), (old, -1)] {
            if let Some(value) = value.filter(|&value| is_drawable(value)) {
                sum += value * sign as f64;
                count += sign;
            }
        }
        if count > 0 && is_drawable(value) { sum / count as f64 } else { f64::NAN }
    });
    means.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_whole(svg: &str) -> bool {
        svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN")
    }

    #[test]
    fn a_curve_of_any_length() -> Result<()> {
        for count in [0, 1, 2, 5000] {
            let losses = (0..count).map(|i| 2.0 / f64::from(i + 1)).collect::<Vec<_>>();
            assert!(is_whole(&training_curve("a title", &losses)?));
        }
        Ok(())
    }

    #[test]
    fn a_value_that_is_not_finite_is_a_gap() -> Result<()> {
        let finite = (1..100).map(|i| 1.0 / f64::from(i)).collect::<Vec<_>>();
        let lines = |svg: &str| svg.matches("<polyline").count();
        let whole = lines(&training_curve("a title", &finite)?);
        for odd in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::MAX] {
            let mut losses = finite.clone();
            losses[50] = odd;
            let svg = training_curve("a title", &losses)?;
            assert!(is_whole(&svg) && lines(&svg) == whole + 2, "{odd}: {} lines, not {whole} + 2", lines(&svg));
            assert!(is_whole(&training_curve("a title", &[odd; 9])?));
            assert!(is_whole(&training_and_outcome(
                "a title",
                &losses,
                &Outcome::Numbers(vec![(1.0, odd), (odd, 2.0)])
            )?));
        }
        Ok(())
    }

    #[test]
    fn a_panel_needs_points() {
        let panel = |lines: Vec<Vec<(f64, f64)>>, spread| Panel { x: "x".into(), y: "error".into(), lines, spread };
        for (panel, part) in [
            (panel(vec![], vec![]), "no points"),
            (panel(vec![vec![], vec![(0.0, f64::NAN)]], vec![]), "no points"),
            (panel(vec![vec![(0.0, 1.0), (1.0, 1.0)]], vec![vec![0.1]]), "spread"),
            (panel(vec![vec![(0.0, 1.0)], vec![(1.0, 1.0)]], vec![vec![0.1]]), "spread"),
        ] {
            let error = panels("a title", &[], &[panel]).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("error"), "{error}");
        }
    }

    #[test]
    fn points_at_one_x_have_a_margin() -> Result<()> {
        let panel =
            |x| Panel { x: "x".into(), y: "y".into(), lines: vec![vec![(x, 1.0), (x, 2.0)]], spread: Vec::new() };
        for x in [0.0, 5.0, -1e-7] {
            let range = span([x, x].into_iter());
            assert!(range.start < x && x < range.end, "{range:?}");
            assert!(is_whole(&panels("a title", &[], &[panel(x)])?));
        }
        Ok(())
    }

    #[test]
    fn labels_tell_numbers_apart() -> Result<()> {
        let labels = |range: Range<f64>, at: &[f64]| at.iter().map(|&x| label(x, &range)).collect::<Vec<_>>();
        assert_eq!(labels(0.0..5e-4, &[0.0, 1e-4, 2e-4]), ["0", "0.0001", "0.0002"]);
        assert_eq!(labels(0.0..3e-7, &[0.0, 5e-8, 1e-7]), ["0", "5e-8", "1e-7"]);
        assert_eq!(labels(1.0..1.0002, &[1.0, 1.00005]), ["1", "1.00005"]);
        assert_eq!(labels(-2.0..2.0, &[-0.5, -2.0, 0.0, 1.25]), ["-0.5", "-2", "0", "1.25"]);
        assert_eq!(labels(0.0..2e9, &[5e8, 1e9]), ["5e8", "1e9"]);
        assert_eq!(labels(0.0..20_000.0, &[5_000.0]), ["5000"]);
        let svg = training_curve("a title", &(1..50).map(|i| 1e-5 / f64::from(i)).collect::<Vec<_>>())?;
        assert!(svg.contains("2e-6") && svg.contains("4e-6"), "{svg}");
        Ok(())
    }

    #[test]
    fn every_title_is_xml() -> Result<()> {
        let svg = training_curve("a < b & \"c\" \u{0}\u{1b}[1m", &[1.0, 2.0])?;
        assert!(!svg.contains(['\u{0}', '\u{1b}']) && svg.contains("a &lt; b &amp;"), "{svg}");
        Ok(())
    }

    #[test]
    fn a_line_for_each_label_and_the_same_text_each_time() -> Result<()> {
        let line = |slope: f64| (0..5).map(|x| (f64::from(x), slope * f64::from(x))).collect::<Vec<_>>();
        let panel = Panel { x: "x".into(), y: "y".into(), lines: vec![line(1.0), line(-2.0)], spread: Vec::new() };
        let legend = ["rising".to_owned(), "falling".to_owned()];
        let draw = || panels("a title", &legend, &[panel.clone(), panel.clone()]);
        let svg = draw()?;
        assert!(is_whole(&svg) && svg == draw()?);
        assert!(legend.iter().all(|label| svg.contains(label.as_str())));
        Ok(())
    }

    #[test]
    fn a_long_legend_takes_another_row() {
        let legend = vec!["a label of thirty letters or so".to_owned(); 4];
        let rows = legend_rows(&legend);
        assert_eq!(rows.iter().map(|&(_, row)| row).collect::<Vec<_>>(), [0, 0, 1, 1]);
        assert!(rows[2].0 == rows[0].0);
    }

    #[test]
    fn means_of_what_there_is() {
        assert_eq!(running_mean(&[1.0, 3.0, 5.0, 7.0], 2), [1.0, 2.0, 4.0, 6.0]);
        assert_eq!(thinned(&vec![1.0; 1250]).len(), 417);
        assert_eq!(thinned(&[4.0, 5.0]), [(1.0, 4.0), (2.0, 5.0)]);
        assert_eq!(extremes(&[4.0, 5.0]), [(1.0, 4.0), (2.0, 5.0)]);
        let saw = (0..1000).map(|i| f64::from(i % 2)).collect::<Vec<_>>();
        assert_eq!(extremes(&saw)[..4], [(2.0, 0.0), (2.0, 1.0), (4.0, 0.0), (4.0, 1.0)]);
    }
}
