//! What is shown on a terminal only: some held-out digits, and a summary at the end. All of it goes to stderr.

use crate::Session;
use crate::cli::example_name;
use anyhow::Result;
use candle_core::{DType, Tensor};
use console::style;
use std::fmt::Write;

/// As many digits as fit beside each other on 80 columns.
const SHOWN: usize = 6;
/// The side of the part of an image that is drawn, the border being empty.
const DRAWN: usize = 24;
/// A letter is two dots wide and four high.
const LETTERS: usize = DRAWN / 2;

impl Session {
    /// Draws six held-out digits on the terminal, each above what the model makes of it and what is true: a number for
    /// each, (N) or (N, 1), or tags, (N, tags), of which those are named that hold. Elsewhere, and with `--no-progress`,
    /// it does nothing.
    ///
    /// # Errors
    /// If there are fewer predictions or truths than samples.
    pub fn show_digits(&self, predictions: &Tensor, truths: &Tensor) -> Result<()> {
        let images = self.test.len().min(SHOWN);
        if !self.is_watched() || images == 0 || self.test.features() != 28 * 28 {
            return Ok(());
        }
        let (inputs, _) = self.test.batch(None, 0, images)?;
        let pixels = inputs.reshape((images, 28, 28))?.to_vec3::<f32>()?;
        let (predictions, truths) = (described(predictions, images)?, described(truths, images)?);
        eprint!("{}", drawn(&pixels, &predictions, &truths));
        Ok(())
    }

    /// Ends a run: says on a terminal how long it took, where its files are and what to try next, which are options.
    ///
    /// # Errors
    /// None; it is the last word of an example, which ends in a result.
    pub fn finish(&self, next: &str) -> Result<()> {
        if !self.is_watched() {
            return Ok(());
        }
        if let Some((steps, time)) = self.trained.get() {
            let seconds = time.as_secs_f64();
            eprintln!("Trained {steps} steps in {seconds:.1} s, {:.0} a second.", *steps as f64 / seconds.max(1e-9));
        }
        if let (Some(files), None) = (self.files(), &self.predict) {
            eprintln!("Files: {files}.");
        }
        let command = format!("cargo run --example {} -- {next}", example_name());
        eprintln!("Next: {}", style(command).for_stderr().cyan());
        Ok(())
    }

    /// The files that a training leaves; `None` if there are none.
    pub(crate) fn files(&self) -> Option<String> {
        let args = &self.args;
        let files = [&args.save, &args.log, &args.plot, &args.checkpoint].into_iter().flatten();
        let files = files.map(|path| path.display().to_string()).collect::<Vec<_>>();
        (!files.is_empty()).then(|| files.join(", "))
    }

    fn is_watched(&self) -> bool {
        !self.args.no_progress && console::user_attended_stderr()
    }
}

/// The first rows of a tensor in words.
fn described(values: &Tensor, rows: usize) -> Result<Vec<String>> {
    let is_whole = !values.dtype().is_float();
    let values = values.narrow(0, 0, rows)?.to_dtype(DType::F32)?.reshape((rows, ()))?.to_vec2::<f32>()?;
    let words = values.iter().map(|row| match row.as_slice() {
        [number] if is_whole || number.fract() == 0.0 => format!("{number:.0}"),
        [number] => format!("{number:.1}"),
        tags => {
            let holding = tags.iter().enumerate().filter(|(_, tag)| **tag > 0.5).map(|(i, _)| i.to_string());
            holding.collect::<Vec<_>>().join(" ")
        }
    });
    Ok(words.collect())
}

/// Images beside each other in dots, and below each what was predicted, with the truth in brackets where it is another.
fn drawn(images: &[Vec<Vec<f32>>], predictions: &[String], truths: &[String]) -> String {
    let mut text = String::new();
    for row in 0..DRAWN / 4 {
        let parts =
            images.iter().map(|image| (0..LETTERS).map(|column| letter(image, row, column)).collect::<String>());
        let _ = writeln!(text, "{}", parts.collect::<Vec<_>>().join(" "));
    }
    for (prediction, truth) in predictions.iter().zip(truths) {
        let is_right = prediction == truth;
        let label = if is_right { prediction.clone() } else { format!("{prediction} ({truth})") };
        let label = format!("{label:^LETTERS$} ");
        let label = style(label).for_stderr();
        let _ = write!(text, "{}", if is_right { label.green() } else { label.red() });
    }
    text + "\n"
}

/// Two by four pixels as a letter of Braille, a dot where there is ink.
fn letter(image: &[Vec<f32>], row: usize, column: usize) -> char {
    // The dots' bits, down the left side and then the right, the lowest two last.
    const BITS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
    let border = (28 - DRAWN) / 2;
    let mut dots = 0;
    for (y, bits) in BITS.iter().enumerate() {
        for (x, bit) in bits.iter().enumerate() {
            if image[border + 4 * row + y][border + 2 * column + x] > 0.4 {
                dots |= bit;
            }
        }
    }
    char::from_u32(0x2800 + dots).unwrap_or(' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn numbers_and_tags_in_words() -> Result<()> {
        let words = |values: &Tensor| described(values, 2).unwrap();
        assert_eq!(words(&Tensor::new(&[3u32, 4, 5], &Device::Cpu)?), ["3", "4"]);
        assert_eq!(words(&Tensor::new(&[[3f32], [4.27]], &Device::Cpu)?), ["3", "4.3"]);
        assert_eq!(words(&Tensor::new(&[[0u8, 1, 1], [0, 0, 1]], &Device::Cpu)?), ["1 2", "2"]);
        Ok(())
    }

    #[test]
    fn a_stroke_in_dots() {
        let mut image = vec![vec![0.0; 28]; 28];
        for line in &mut image[2..6] {
            line[2] = 1.0;
        }
        assert_eq!(letter(&image, 0, 0), '⡇');
        assert_eq!(letter(&image, 1, 0), '\u{2800}');
        let text = drawn(&[image.clone(), image], &["7".into(), "1".into()], &["7".into(), "4".into()]);
        assert_eq!(text.lines().count(), DRAWN / 4 + 1);
        assert!(text.lines().all(|line| console::measure_text_width(line) <= 80));
        assert!(text.contains("1 (4)"), "{text}");
    }
}
