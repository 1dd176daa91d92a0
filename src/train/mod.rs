//! The training loop, evaluation, early stopping and checkpoints, for any Candle model.

mod batch_loss;
mod checkpoint;
mod early_stopping;
mod evaluate;
mod gradients;
mod monitor;
mod trainer;

pub use batch_loss::BatchLoss;
pub use checkpoint::{Checkpoint, load_checkpoint, save_checkpoint};
pub use early_stopping::{BestEpoch, EarlyStopping};
pub use evaluate::evaluate;
pub use trainer::{Event, SkipReason, Trainer};
