//! What the bridge computes, natively; and the numbers that the browser's tests hold it to.

use anyhow::Result;
use candle_losses_book::playground::Learner;
use candle_losses_book::{DataCache, Training, curve_values, mistakes::MISTAKES, refusal, step_of_one};
use serde_json::{Value, json};
use suite::views::{LOSSES, View};

fn views() -> impl Iterator<Item = &'static View> {
    LOSSES.iter().chain(MISTAKES.iter().map(|mistake| &mistake.view))
}

/// Each control turned alone, the others as they are at first.
fn settings(view: &View) -> Vec<Vec<f64>> {
    let defaults = view.controls.iter().map(|control| control.default).collect::<Vec<_>>();
    let mut settings = vec![defaults.clone()];
    for (i, control) in view.controls.iter().enumerate() {
        let [least, most] = control.range;
        let turned = match control.choices {
            [] => vec![least + 0.25 * (most - least), least + 0.75 * (most - least)],
            choices => choices.iter().map(|(value, _)| *value).collect(),
        };
        settings.extend(turned.into_iter().map(|value| {
            let mut setting = defaults.clone();
            setting[i] = value;
            setting
        }));
    }
    settings
}

fn place(view: &View, share: f64) -> f64 {
    view.range[0] + share * (view.range[1] - view.range[0])
}

#[test]
fn writes_the_numbers_for_the_browser() -> Result<()> {
    let mut found = serde_json::Map::new();
    for view in views() {
        let mut cases = Vec::new();
        for values in settings(view) {
            let places = [0.13, 0.5, 0.87].map(|share| place(view, share));
            let both = curve_values(view.name, &places, &values)?;
            let [value, slope] = [&both[..3], &both[3..]];
            cases.push(json!({ "values": values, "places": places, "value": value, "slope": slope }));
        }
        found.insert(view.name.to_owned(), Value::Array(cases));
    }
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/book-numbers.json");
    std::fs::write(target, serde_json::to_string_pretty(&found)?)?;
    Ok(())
}

#[test]
fn a_slope_is_what_the_value_does_nearby() -> Result<()> {
    for view in views() {
        for values in settings(view) {
            // What is computed in single precision has few digits left in a difference.
            let (by, tolerance) = if view.name == "bce_of_logits" { (1e-2, 0.05) } else { (1e-4, 1e-3) };
            // Off the kinks, which are at round places.
            let x = place(view, 0.4321);
            let both = curve_values(view.name, &[x - by, x + by, x], &values)?;
            let (found, expected) = (both[5], (both[1] - both[0]) / (2.0 * by));
            let is_near = (found - expected).abs() <= tolerance * expected.abs().max(1.0);
            assert!(is_near || !expected.is_finite(), "{} {values:?} at {x}: {found}, {expected}", view.name);
        }
    }
    Ok(())
}

/// What a chapter says in figures is what the crate computes.
#[test]
fn the_chapters_figures_are_right() -> Result<()> {
    const FAR: f64 = 40.0;
    for (chapter, view, values, place, digits) in [
        ("nll", "nll", vec![1.0], 0.1, 3),
        ("nll", "nll", vec![1.0], 0.5, 3),
        ("nll", "nll", vec![1.0], 0.9, 3),
        // With a sigmoid, or a softmax, too many.
        ("bce_with_logits", "sigmoid_first", vec![1.0], FAR, 3),
        ("cross_entropy", "softmax_first", vec![1.0], FAR, 2),
        // The tanh of a score is 1 at most.
        ("soft_margin", "soft_margin", vec![1.0], 1.0, 3),
        ("bce", "bce_of_logits", vec![1.0], 20.0, 0),
    ] {
        let value = curve_values(view, &[place], &values)?[0];
        let text = std::fs::read_to_string(format!("{}/../src/{chapter}.md", env!("CARGO_MANIFEST_DIR")))?;
        let figure = format!("{value:.digits$}");
        assert!(text.contains(&figure), "{chapter} has no {figure}");
    }
    Ok(())
}

#[test]
fn every_line_of_a_picture_can_be_set_on_a_page() {
    for view in views() {
        for line in view.lines {
            assert_eq!(line.len(), view.controls.len(), "{}", view.name);
            for (control, value) in view.controls.iter().zip(*line) {
                let is_choice = control.choices.is_empty() || control.choices.iter().any(|(choice, _)| choice == value);
                let [least, most] = control.range;
                let is_within = (least.min(most)..=least.max(most)).contains(value);
                assert!(is_choice && is_within, "{}: {} {value}", view.name, control.name);
            }
        }
    }
}

#[test]
fn what_is_refused_is_refused_in_words() {
    for mistake in MISTAKES.iter().filter(|mistake| mistake.refused.is_some()) {
        let [_, answer] = refusal(mistake.view.name).expect("an answer").try_into().expect("two texts");
        assert!(answer.contains("Loss: "), "{}: {answer}", mistake.view.name);
    }
}

#[test]
fn a_wrong_number_of_values_and_no_number_are_errors() {
    assert!(curve_values("huber", &[0.0], &[]).is_err());
    assert!(curve_values("huber", &[0.0], &[f64::NAN, 1.0]).is_err());
    assert!(curve_values("nothing", &[0.0], &[]).is_err());
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// In pieces or at once, a training is the same, whatever its data.
#[test]
fn a_training_goes_on_where_it_was() -> Result<()> {
    for (name, reported) in [
        ("huber", ["Test MAE: ", "Test RMSE: "].as_slice()),
        ("bce", &["Test accuracy: "]),
        ("ctc", &["Test exact-sequence accuracy: "]),
        ("triplet_margin", &["Test nearest-neighbor accuracy: "]),
        ("adaptive_log_softmax", &["Test accuracy: "]),
    ] {
        let cache = DataCache::new();
        let arguments = words("--limit 95 --epochs 3 --batch-size 10 --accumulate 2");
        let whole = Training::of(name, arguments.clone(), &cache)?;
        let losses = whole.train(usize::MAX)?;
        // Ten batches of a pass make five steps.
        assert_eq!((whole.taken(), whole.total(), losses.len()), (15, 15, 30), "{name}");
        let pieces = Training::of(name, arguments, &cache)?;
        let mut seen = Vec::new();
        for steps in [1, 4, 3, 100] {
            seen.extend(pieces.train(steps)?);
            pieces.report_lines()?;
        }
        assert_eq!(seen, losses, "{name}");
        // No steps are none, and what failed before leaves nothing.
        assert_eq!((pieces.train(0)?.len(), pieces.taken()), (0, 15), "{name}");
        let lines = whole.report_lines()?;
        assert!(lines.iter().zip(reported).all(|(line, start)| line.starts_with(start)), "{lines:?}");
        assert_eq!((lines.len(), &pieces.report_lines()?), (reported.len(), &lines), "{name}");
    }
    Ok(())
}

#[test]
fn options_that_can_not_be_are_told() {
    let told = |name: &str, line: &str| {
        let trained = Training::of(name, words(line), &DataCache::new()).and_then(|training| training.train(3));
        trained.expect_err("an error").to_string()
    };
    assert!(told("huber", "--delta oops").contains("--delta"));
    assert!(told("huber", "--batch-size 0").contains("needs a whole number, 1 or more"));
    assert!(told("huber", "--nothing 1").contains("--nothing"));
    assert!(told("huber", "--delta -1").contains("delta"));
    assert!(told("huber", "--lr 1e300").contains("a smaller --lr"));
    assert!(told("nothing", "").contains("nothing"));
}

#[test]
fn one_step_of_one_weight() -> Result<()> {
    // (0 · 2 - 3)² = 9, and its slope by the weight is 2 · (0 - 3) · 2.
    assert_eq!(step_of_one(0.0, 2.0, 3.0, 0.1)?, [0.0, 9.0, -12.0, 1.2000000000000002]);
    Ok(())
}

#[test]
fn learns_numbers_and_classes() -> Result<()> {
    let points = (0..20).map(|i| i as f32 / 10.0 - 1.0).collect::<Vec<_>>();
    let targets = points.iter().map(|x| x * x).collect::<Vec<_>>();
    let mut learner = Learner::of("numbers", "huber", 0.1, &points, &targets, 42)?;
    learner.learn(500)?;
    assert!((learner.predict(&[0.5])?[0] - 0.25).abs() < 0.05);

    let corners = [-1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0];
    let classes = [0.0, 1.0, 1.0, 0.0];
    for loss in ["cross_entropy", "multi_margin", "mse"] {
        let mut learner =
            Learner::of("classes", loss, if loss == "multi_margin" { 1.0 } else { 0.0 }, &corners, &classes, 42)?;
        learner.learn(500)?;
        let scores = learner.predict(&corners)?;
        let found = scores.chunks(2).map(|pair| f32::from(pair[1] > pair[0])).collect::<Vec<_>>();
        assert_eq!(found, classes, "{loss}");
    }
    assert!(Learner::of("numbers", "huber", -1.0, &points, &targets, 42).is_err());
    assert!(Learner::of("numbers", "mse", 0.0, &[f32::NAN], &[0.0], 42).is_err());
    Ok(())
}
