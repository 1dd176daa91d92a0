use super::{TensorDataset, TrainTestSplit};
use candle_core::{Device, Error, Result, Tensor, bail};
use std::collections::HashMap;
use std::io::Read;

/// The unit that a text is split into.
///
/// ```
/// use candle_losses::data::Piece;
///
/// assert_ne!(Piece::Character, Piece::Word);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Piece {
    /// Letters, punctuation, and one space between words.
    Character,
    /// Lowercase words, with each punctuation mark as its own piece.
    Word,
}

/// The Constitution of the United States with its amendments, to predict what comes next: the inputs are `context` pieces
/// that follow each other, `u32` of shape (N, context), the target is the piece after them. The last tenth is held out.
///
/// Pieces are numbered by their frequency, 0 the most frequent; the second result is the vocabulary in this order. (Public
/// domain; see `assets/README.md`.)
///
/// ```
/// use candle_losses::data::{Piece, constitution};
///
/// let (data, characters) = constitution(Piece::Character, 16, &candle_core::Device::Cpu)?;
/// assert_eq!(characters[0], " ");
/// let (inputs, next) = data.train.batch(None, 0, 1)?;
/// let text = inputs.flatten_all()?.to_vec1::<u32>()?.into_iter().map(|i| characters[i as usize].as_str());
/// assert_eq!(text.collect::<String>(), "The Constitution");
/// assert_eq!(characters[next.to_vec1::<u32>()?[0] as usize], " ");
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If `context` is 0 or more than a tenth of the number of pieces in the text.
pub fn constitution(piece: Piece, context: usize, device: &Device) -> Result<(TrainTestSplit, Vec<String>)> {
    let packed = include_bytes!("../../assets/constitution.txt.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut text).map_err(Error::wrap)?;
    let pieces = match piece {
        Piece::Character => characters(&text),
        Piece::Word => words(&text),
    };
    if context == 0 || 10 * context > pieces.len() {
        bail!("constitution: context is {context} but must be from 1 to {}", pieces.len() / 10)
    }
    let mut counts = HashMap::new();
    for piece in &pieces {
        *counts.entry(piece).or_insert(0usize) += 1;
    }
    let mut vocabulary = counts.into_iter().collect::<Vec<_>>();
    vocabulary.sort_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
    let vocabulary = vocabulary.into_iter().map(|(piece, _)| piece.clone()).collect::<Vec<_>>();
    let numbers = vocabulary.iter().zip(0u32..).collect::<HashMap<_, _>>();
    let numbered = pieces.iter().map(|piece| numbers[piece]).collect::<Vec<_>>();

    let samples = |numbered: &[u32]| {
        let windows = numbered.windows(context + 1);
        let (count, next) = (windows.len(), numbered[context..].to_vec());
        let inputs = windows.flat_map(|window| window[..context].iter().copied()).collect::<Vec<_>>();
        TensorDataset::new(Tensor::from_vec(inputs, (count, context), device)?, Tensor::from_vec(next, count, device)?)
    };
    let (train, test) = numbered.split_at(numbered.len() / 10 * 9);
    Ok((TrainTestSplit { train: samples(train)?, test: samples(test)? }, vocabulary))
}

fn characters(text: &str) -> Vec<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().map(String::from).collect()
}

fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for chunk in text.split_whitespace() {
        let mut word = String::new();
        for c in chunk.chars() {
            if c.is_alphanumeric() {
                word.extend(c.to_lowercase());
                continue;
            }
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            words.push(c.to_string());
        }
        if !word.is_empty() {
            words.push(word);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_words_come_first_and_no_window_is_in_both_parts() -> Result<()> {
        let (data, words) = constitution(Piece::Word, 4, &Device::Cpu)?;
        assert_eq!(words[..3], ["the", ",", "of"]);
        assert!(words.len() > 1000 && words.iter().all(|word| !word.contains(char::is_whitespace)));
        let total = data.train.len() + data.test.len() + 2 * 4;
        assert_eq!(data.train.len() + 4, total / 10 * 9);
        let most = data.train.targets().max_all()?.to_scalar::<u32>()?;
        assert!((most as usize) < words.len());
        Ok(())
    }

    #[test]
    fn refuses_a_context_that_is_none() {
        for context in [0, 100_000] {
            assert!(constitution(Piece::Word, context, &Device::Cpu).unwrap_err().to_string().contains("context"));
        }
    }
}
