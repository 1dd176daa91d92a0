use crate::train::Step;
use anyhow::{Result, anyhow};
use plotters::prelude::*;

const SIZE: (u32, u32) = (800, 450);
/// More points than this would not be told apart.
const POINTS: usize = 1000;

/// The loss of each step as an SVG picture: the steps themselves in the background, their running mean before it.
pub(crate) fn training_curve(steps: &[Step]) -> Result<String> {
    let mut svg = String::new();
    draw(steps, &mut svg).map_err(|error| anyhow!("drawing the training curve: {error}"))?;
    Ok(svg)
}

fn draw(steps: &[Step], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let losses = steps.iter().map(|step| f64::from(step.loss)).collect::<Vec<_>>();
    let raw = thinned(&losses);
    let smooth = thinned(&running_mean(&losses, losses.len().div_ceil(50)));
    let (low, high) = raw.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), (_, y)| (l.min(*y), h.max(*y)));
    // An axis of no length can't be drawn on.
    let margin = ((high - low) * 0.05).max(1e-6);
    let y_axis = if low < high { low - margin..high + margin } else { -1.0 + low.min(0.0)..1.0 + high.max(0.0) };

    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(15)
        .x_label_area_size(45)
        .y_label_area_size(65)
        .build_cartesian_2d(0.0..losses.len().max(1) as f64, y_axis)?;
    chart.configure_mesh().x_desc("step").y_desc("loss").light_line_style(TRANSPARENT).draw()?;
    chart.draw_series(LineSeries::new(raw, BLUE.mix(0.25)))?;
    chart.draw_series(LineSeries::new(smooth, BLUE.stroke_width(2)))?;
    root.present()?;
    Ok(())
}

/// At most [`POINTS`] points of step and value, each the mean of its neighbours.
fn thinned(values: &[f64]) -> Vec<(f64, f64)> {
    let size = values.len().div_ceil(POINTS).max(1);
    let mean = |run: &[f64]| run.iter().sum::<f64>() / run.len() as f64;
    values.chunks(size).enumerate().map(|(i, run)| ((i * size + 1) as f64, mean(run))).collect()
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

    #[test]
    fn a_curve_of_any_length() -> Result<()> {
        for count in [0, 1, 2, 5000] {
            let steps = (0..count).map(|i| Step { epoch: 1, loss: 2.0 / (i + 1) as f32 }).collect::<Vec<_>>();
            let svg = training_curve(&steps)?;
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"));
        }
        Ok(())
    }

    #[test]
    fn means_of_what_there_is() {
        assert_eq!(running_mean(&[1.0, 3.0, 5.0, 7.0], 2), [1.0, 2.0, 4.0, 6.0]);
        assert_eq!(thinned(&vec![1.0; 2500]).len(), 834);
        assert_eq!(thinned(&[4.0, 5.0]), [(1.0, 4.0), (2.0, 5.0)]);
    }
}
