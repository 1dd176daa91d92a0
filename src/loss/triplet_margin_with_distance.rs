use super::triplet_margin::{distance, triplet};
use super::{Reduction, check_option, matching};
use candle_core::{Result, Tensor};

/// A distance between points, or rows of points: from two tensors of shape `(…, D)` to one of shape `(…)`.
pub type Distance = Box<dyn Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync>;

/// [`TripletMarginLoss`](super::TripletMarginLoss) under a distance `d` of your own:
///
/// ```text
/// l = max(0, d(anchor, positive) - d(anchor, negative) + margin)
/// ```
///
/// Source:
/// [`torch.nn.TripletMarginWithDistanceLoss`](https://pytorch.org/docs/stable/generated/torch.nn.TripletMarginWithDistanceLoss.html).
pub struct TripletMarginWithDistanceLoss {
    /// `d`, made of differentiable tensor ops. Default: the Euclidean distance, with 1e-6 added to each difference.
    pub distance: Distance,
    /// The lead from which a triplet costs nothing, in the unit of the distance; positive. Default 1.
    pub margin: f64,
    /// Whether the negative may be compared with the positive instead of the anchor. Default false.
    pub swap: bool,
    /// How the triplet losses are reduced.
    pub reduction: Reduction,
}

impl Default for TripletMarginWithDistanceLoss {
    fn default() -> Self {
        Self {
            distance: Box::new(|u, v| distance(u, v, 2.0, 1e-6)),
            margin: 1.0,
            swap: false,
            reduction: Reduction::default(),
        }
    }
}

impl std::fmt::Debug for TripletMarginWithDistanceLoss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TripletMarginWithDistanceLoss")
            .field("margin", &self.margin)
            .field("swap", &self.swap)
            .field("reduction", &self.reduction)
            .finish_non_exhaustive()
    }
}

impl TripletMarginWithDistanceLoss {
    /// The loss of the points `anchor`, `positive` (like it) and `negative` (not like it).
    ///
    /// Shapes: all three the same, such as `(N, D)`; the result is a scalar, or of the distance's shape with
    /// [`Reduction::None`]. The derivative of a margin that is met exactly is 0.
    ///
    /// # Errors
    /// If `margin` is not positive, if shape, dtype or device of the three differ, if the dtype is not a float, or where
    /// the distance fails.
    pub fn forward(&self, anchor: &Tensor, positive: &Tensor, negative: &Tensor) -> Result<Tensor> {
        const LOSS: &str = "TripletMarginWithDistanceLoss";
        check_option(LOSS, "margin", self.margin, self.margin > 0.0, "positive")?;
        let points = matching(LOSS, [("anchor", anchor), ("positive", positive), ("negative", negative)])?;

        let loss = triplet(&points, self.margin, self.swap, &self.distance)?;

        self.reduction.reduce(&loss, anchor.dtype())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn any_distance_will_do() -> Result<()> {
        let loss =
            TripletMarginWithDistanceLoss { distance: Box::new(|u, v| (u - v)?.abs()?.max(0)), ..Default::default() };
        let (anchor, positive, negative) = (vector(&[0.0, 0.0]), vector(&[3.0, 1.0]), vector(&[2.0, 2.5]));
        assert_values(loss.forward(&anchor, &positive, &negative), &[3.0 - 2.5 + 1.0])
    }

    #[test]
    fn refuses_what_makes_no_sense_or_does_not_match() {
        let (x, loss) = (vector(&[1.0, 2.0]), TripletMarginWithDistanceLoss { margin: -1.0, ..Default::default() });
        refuses(loss.forward(&x, &x, &x), &["TripletMarginWithDistanceLoss", "margin is -1"]);
        let loss = TripletMarginWithDistanceLoss::default();
        refuses(loss.forward(&x, &x, &vector(&[1.0])), &["TripletMarginWithDistanceLoss", "negative", "[1]", "[2]"]);
    }
}
