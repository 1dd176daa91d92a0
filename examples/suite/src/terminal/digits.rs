//! Digits drawn on a terminal, with what a model makes of them.

use crate::frontend::Digit;
use console::style;
use std::fmt::Write;

/// As many digits as fit beside each other on 80 columns.
pub(super) const SHOWN: usize = 6;
/// The side of the part of an image that is drawn, the border being empty.
const DRAWN: usize = 24;
/// The side of an image.
const SIDE: usize = 28;
/// A letter is two dots wide and four high.
const LETTERS: usize = DRAWN / 2;

/// Digits beside each other in dots, and below each one the prediction, with the truth in brackets if that differs.
pub(super) fn drawn(digits: &[Digit]) -> String {
    let mut text = String::new();
    for row in 0..DRAWN / 4 {
        let parts = digits
            .iter()
            .map(|digit| (0..LETTERS).map(|column| letter(&digit.pixels, row, column)).collect::<String>());
        let _ = writeln!(text, "{}", parts.collect::<Vec<_>>().join(" "));
    }
    for Digit { prediction, truth, .. } in digits {
        let is_right = prediction == truth;
        let label = if is_right { prediction.clone() } else { format!("{prediction} ({truth})") };
        let label = format!("{label:^LETTERS$} ");
        let label = style(label).for_stderr();
        let _ = write!(text, "{}", if is_right { label.green() } else { label.red() });
    }
    text + "\n"
}

/// Two by four pixels as a letter of Braille, a dot where there is ink.
fn letter(image: &[f32], row: usize, column: usize) -> char {
    // The dots' bits, down the left side and then the right, the lowest two last.
    const BITS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
    let border = (SIDE - DRAWN) / 2;
    let mut dots = 0;
    for (y, bits) in BITS.iter().enumerate() {
        for (x, bit) in bits.iter().enumerate() {
            if image[(border + 4 * row + y) * SIDE + border + 2 * column + x] > 0.4 {
                dots |= bit;
            }
        }
    }
    char::from_u32(0x2800 + dots).unwrap_or(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stroke_in_dots() {
        let mut pixels = vec![0.0; SIDE * SIDE];
        for row in 2..6 {
            pixels[row * SIDE + 2] = 1.0;
        }
        assert_eq!(letter(&pixels, 0, 0), '⡇');
        assert_eq!(letter(&pixels, 1, 0), '\u{2800}');
        let digit = |prediction: &str, truth: &str| Digit {
            pixels: pixels.clone(),
            prediction: prediction.into(),
            truth: truth.into(),
        };
        let text = drawn(&[digit("7", "7"), digit("1", "4")]);
        assert_eq!(text.lines().count(), DRAWN / 4 + 1);
        assert!(text.lines().all(|line| console::measure_text_width(line) <= 80));
        assert!(text.contains("1 (4)"), "{text}");
    }
}
