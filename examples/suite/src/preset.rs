/// What the training of an example is by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preset {
    /// Images of ten classes: 5 epochs in batches of 10 at 1e-4, a line every 500 mini-batches.
    Digits,
    /// Images of noise: 5 epochs in batches of 64 at 1e-4, a line every 10 mini-batches.
    FakeImages,
    /// Rows of a table: 100 epochs in batches of 10 at 1e-3, a line after each tenth of them.
    Table,
    /// Rows of the reader's own table: the same, in batches of a hundredth of the rows, 10 to 256.
    OwnTable {
        /// The number of training rows.
        rows: usize,
    },
    /// Windows of a text: 5 epochs in batches of 64 at 1e-3, a line every 100 mini-batches.
    Text,
}

impl Preset {
    /// Samples in a mini-batch.
    pub fn batch_size(self) -> usize {
        match self {
            Self::FakeImages | Self::Text => 64,
            Self::OwnTable { rows } => (rows / 100).clamp(10, 256),
            Self::Digits | Self::Table => 10,
        }
    }

    /// Passes over the samples.
    pub fn epochs(self) -> usize {
        if self.is_table() { 100 } else { 5 }
    }

    /// Adam's learning rate.
    pub fn lr(self) -> f64 {
        if self.is_table() || self == Self::Text { 1e-3 } else { 1e-4 }
    }

    pub(crate) fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::OwnTable { .. })
    }

    /// The mini-batches between two lines with the loss; `None` for a line after each tenth of the run.
    pub(crate) fn line_interval(self) -> Option<usize> {
        match self {
            Self::Digits => Some(500),
            Self::FakeImages => Some(10),
            Self::Text => Some(100),
            Self::Table | Self::OwnTable { .. } => None,
        }
    }
}
