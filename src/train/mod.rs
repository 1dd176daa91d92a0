//! The training loop, evaluation and early stopping, for any Candle model.

mod early_stopping;
mod evaluate;
mod trainer;

pub use early_stopping::{Best, EarlyStopping};
pub use evaluate::evaluate;
pub use trainer::{Event, Trainer};
