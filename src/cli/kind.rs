//! What is usual with each kind of data; on a page of the book as on a terminal.

/// What a section's data is, which decides on what is usual with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Images of ten classes: 5 epochs in batches of 10 at 1e-4, a line every 500 mini-batches.
    Digits,
    /// Images of noise: 5 epochs in batches of 64 at 1e-4, a line every 10 mini-batches.
    FakeImages,
    /// Rows of a table: 100 epochs in batches of 10 at 1e-3, a line after each tenth of them.
    Table,
    /// Rows of a table of the reader's own: the same, in batches of a hundredth of the rows, 10 to 256.
    OwnTable {
        /// How many rows are trained on.
        rows: usize,
    },
    /// Pieces of a text: 5 epochs in batches of 64 at 1e-3, a line every 100 mini-batches.
    Text,
}

impl Kind {
    pub(crate) fn batch_size(self) -> usize {
        match self {
            Self::FakeImages | Self::Text => 64,
            Self::OwnTable { rows } => (rows / 100).clamp(10, 256),
            Self::Digits | Self::Table => 10,
        }
    }

    pub(crate) fn epochs(self) -> usize {
        if self.is_table() { 100 } else { 5 }
    }

    pub(crate) fn lr(self) -> f64 {
        if self.is_table() || self == Self::Text { 1e-3 } else { 1e-4 }
    }

    pub(crate) fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::OwnTable { .. })
    }
}
