//! Pictures as SVG text, all in one look: curves side by side under a common legend, and how a training went.
//!
//! They are drawn on white, so that they can be read on any page, and name no font but the reader's own sans-serif.

use anyhow::{Result, anyhow};
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
///
/// ```
/// use candle_losses::cli::plot::{Panel, panels};
///
/// let line = |slope: f64| (0..10).map(|x| (f64::from(x), slope * f64::from(x))).collect();
/// let panel = Panel { x: "x".into(), y: "y".into(), lines: vec![line(1.0), line(2.0)], spread: Vec::new() };
/// let svg = panels("Two lines", &["one".into(), "two".into()], &[panel])?;
/// assert!(svg.starts_with("<svg"));
/// # Ok::<(), anyhow::Error>(())
/// ```
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
/// ```
/// use candle_losses::cli::plot::panels;
///
/// assert!(panels("No lines", &[], &[])?.contains("No lines"));
/// # Ok::<(), anyhow::Error>(())
/// ```
pub fn panels(title: &str, legend: &[String], panels: &[Panel]) -> Result<String> {
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
/// ```
/// use candle_losses::cli::plot::thumbnail;
///
/// let line = (0..10).map(|x| (f64::from(x), 1.0)).collect();
/// assert!(thumbnail(&[line])?.starts_with("<svg"));
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// If the text can't be put together.
pub fn thumbnail(lines: &[Vec<(f64, f64)>]) -> Result<String> {
    svg((280, 160), |root| {
        let points = || lines.iter().flatten();
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .x_label_area_size(22)
            .y_label_area_size(34)
            .build_cartesian_2d(span(points().map(|&(x, _)| x)), range(points().map(|&(_, y)| y)))?;
        mesh(&mut chart, "", "", 5, 4)?;
        draw_lines(&mut chart, lines)
    })
}

/// The loss of each step, light, and its running mean before it, under a title.
///
/// ```
/// use candle_losses::cli::plot::training_curve;
///
/// let losses = (1..1000).map(|step| 1.0 / f64::from(step)).collect::<Vec<_>>();
/// assert!(training_curve("It learns", &losses)?.contains("It learns"));
/// # Ok::<(), anyhow::Error>(())
/// ```
pub fn training_curve(title: &str, losses: &[f64]) -> Result<String> {
    svg((WIDTH, TITLE_HEIGHT + PANEL_HEIGHT), |root| {
        draw_title(&root, title)?;
        draw_curve(&root.split_vertically(TITLE_HEIGHT).1, losses)
    })
}

/// What a model made of held-out rows.
///
/// ```
/// use candle_losses::cli::plot::{Outcome, training_and_outcome};
///
/// let numbers = Outcome::Numbers(vec![(1.0, 1.2), (2.0, 1.9)]);
/// assert!(training_and_outcome("Prices", &[3.0, 2.0, 1.0], &numbers)?.contains("predicted"));
/// let classes = Outcome::Classes { names: vec!["no".into(), "yes".into()], counts: vec![vec![9, 1], vec![0, 5]] };
/// assert!(training_and_outcome("Answers", &[3.0, 2.0, 1.0], &classes)?.contains("yes"));
/// # Ok::<(), anyhow::Error>(())
/// ```
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
    // A few steps that are far off would leave the others no room.
    let mut sorted = losses.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rare = losses.len() / 200;
    let (low, high) = (sorted.get(rare).copied(), sorted.iter().rev().nth(rare).copied());
    let y = range(low.into_iter().chain(high).chain(smooth.iter().copied()));
    let within = |(step, loss): (f64, f64)| (step, loss.clamp(y.start, y.end));
    let mut chart = ChartBuilder::on(area)
        .margin_left(10)
        .margin_right(20)
        .x_label_area_size(48)
        .y_label_area_size(68)
        .build_cartesian_2d(0.0..losses.len().max(1) as f64, y.clone())?;
    let labels = if area.dim_in_pixel().0 < WIDTH as u32 { 5 } else { 10 };
    mesh(&mut chart, "step", "loss", labels, 6)?;
    chart.draw_series(LineSeries::new(extremes(losses).into_iter().map(within), COLOURS[0].mix(0.3)))?;
    chart.draw_series(LineSeries::new(thinned(&smooth), COLOURS[0].stroke_width(3)))?;
    Ok(())
}

/// Predicted over true numbers, with the line on which they are the same.
fn draw_points(area: &Root, points: &[(f64, f64)]) -> Drawn {
    let all = range(points.iter().flat_map(|&(truth, predicted)| [truth, predicted]));
    let mut chart = ChartBuilder::on(area)
        .margin_left(10)
        .margin_right(20)
        .x_label_area_size(48)
        .y_label_area_size(68)
        .build_cartesian_2d(all.clone(), all.clone())?;
    mesh(&mut chart, "true", "predicted", 5, 6)?;
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
    Ok(svg)
}

fn text(size: i32, at: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&TEXT).pos(Pos::new(at, VPos::Center))
}

fn draw_title(root: &Root, title: &str) -> Drawn {
    Ok(root.draw(&Text::new(title.to_owned(), (WIDTH / 2, TITLE_HEIGHT / 2), text(18, HPos::Center)))?)
}

/// Where each label of a legend stands: its left edge, and the row, as many to a row as there is room for.
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
    let ends = panel.lines.iter().enumerate().flat_map(|(line, points)| {
        points.iter().enumerate().flat_map(move |(i, &(_, y))| [y - spread(line, i), y + spread(line, i)])
    });
    let mut chart = ChartBuilder::on(area)
        .margin_left(10)
        .margin_right(20)
        .x_label_area_size(48)
        .y_label_area_size(68)
        .build_cartesian_2d(span(panel.lines.iter().flatten().map(|&(x, _)| x)), range(ends))?;
    mesh(&mut chart, &panel.x, &panel.y, 6, 6)?;
    draw_lines(&mut chart, &panel.lines)?;
    for (line, (points, colour)) in panel.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
        for (i, &(x, y)) in points.iter().enumerate() {
            let spread = spread(line, i);
            if spread > 0.0 {
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
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(3)))?;
    }
    Ok(())
}

/// Axes, with about so many labels on each.
fn mesh(chart: &mut Chart, x: &str, y: &str, x_labels: usize, y_labels: usize) -> Drawn {
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .x_labels(x_labels)
        .y_labels(y_labels)
        .x_label_formatter(&short)
        .y_label_formatter(&short)
        .axis_style(TEXT.mix(0.5))
        .bold_line_style(TEXT.mix(0.12))
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 14).into_font().color(&TEXT))
        .axis_desc_style(("sans-serif", 15).into_font().color(&TEXT))
        .draw()?;
    Ok(())
}

/// A number with as many digits as an axis needs.
fn short(value: &f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// From the lowest to the highest.
fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    if low < high { low..high } else { 0.0..1.0 }
}

/// From the lowest to the highest with some air, and never of no length, which can't be drawn on.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
    if low > high {
        return 0.0..1.0;
    }
    let air = if low < high { (high - low) * 0.06 } else { 1.0 };
    low - air..high + air
}

/// At most [`POINTS`] points of step and value, each the last of its neighbours.
fn thinned(values: &[f64]) -> Vec<(f64, f64)> {
    let size = values.len().div_ceil(POINTS).max(1);
    values.chunks(size).enumerate().map(|(i, run)| ((i * size + run.len()) as f64, run[run.len() - 1])).collect()
}

/// As [`thinned`], but both the least and the largest of the neighbours.
fn extremes(values: &[f64]) -> Vec<(f64, f64)> {
    let size = values.len().div_ceil(POINTS).max(1);
    let ends = values.chunks(size).enumerate().flat_map(|(i, run)| {
        let (low, high) = run.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        let step = (i * size + run.len()) as f64;
        // One number has no two ends.
        std::iter::once((step, low)).chain((size > 1).then_some((step, high)))
    });
    ends.collect()
}

/// The mean over the last `window` values, or as many as there are.
fn running_mean(values: &[f64], window: usize) -> Vec<f64> {
    let mut sum = 0.0;
    let means = values.iter().enumerate().map(|(i, value)| {
        sum += value - if i >= window { values[i - window] } else { 0.0 };
        sum / (i + 1).min(window) as f64
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
        assert_eq!(["0.5", "-2", "0", "1.25"].map(String::from), [0.5, -2.0, -0.0, 1.25].map(|value| short(&value)));
    }
}
