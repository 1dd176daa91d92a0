use super::Reduction;
use super::triplet_margin::{Norm, distance};
use super::validate::{check_option, matching};
use crate::kernel::ops;
use candle_core::{Result, Tensor};
use std::fmt;
use std::sync::Arc;

/// A distance between points, or rows of points: from two tensors of shape `(…, D)` to one of shape `(…)`.
///
/// # Example
/// ```
/// use candle_core::{D, Device, Tensor};
/// use candle_losses::loss::DistanceFunction;
/// use std::sync::Arc;
///
/// let city_block: DistanceFunction = Arc::new(|u, v| (u - v)?.abs()?.sum(D::Minus1));
/// let u = Tensor::new(&[[0.0, 0.0], [1.0, 1.0]], &Device::Cpu)?;
/// let v = Tensor::new(&[[3.0, 4.0], [1.0, 0.0]], &Device::Cpu)?;
/// assert_eq!(city_block(&u, &v)?.to_vec1::<f64>()?, [7.0, 1.0]); // 3 + 4 and 0 + 1
/// # Ok::<(), candle_core::Error>(())
/// ```
pub type DistanceFunction = Arc<dyn Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync>;

/// [`TripletMarginLoss`](super::TripletMarginLoss) under a distance `d` of your own:
///
/// ```text
/// l = max(0, d(anchor, positive) - d(anchor, negative) + margin)
/// ```
///
/// For distances that are no norm of a difference: the cosine's, the squared one, one that is learned. Choose `margin`
/// in the unit of the distance. Under a norm, [`TripletMarginLoss`](super::TripletMarginLoss) is the same without a
/// closure.
///
/// Source:
/// [`torch.nn.TripletMarginWithDistanceLoss`](https://pytorch.org/docs/stable/generated/torch.nn.TripletMarginWithDistanceLoss.html).
///
/// Example: [`examples/triplet_margin_with_distance.rs`][example], run by
/// `cargo run --example triplet_margin_with_distance`.
///
/// [example]: https://docs.rs/crate/candle-losses/latest/source/examples/triplet_margin_with_distance.rs
///
/// # Example
/// ```
/// use candle_core::{D, Device, Tensor};
/// use candle_losses::loss::TripletMarginWithDistanceLoss;
/// use std::sync::Arc;
///
/// let anchor = Tensor::new(&[[0.0, 0.0]], &Device::Cpu)?;
/// let positive = Tensor::new(&[[1.0, 2.0]], &Device::Cpu)?;
/// let negative = Tensor::new(&[[0.0, 2.0]], &Device::Cpu)?;
/// let distance_function = Arc::new(|u: &Tensor, v: &Tensor| (u - v)?.sqr()?.sum(D::Minus1)); // squared Euclidean
/// let loss = TripletMarginWithDistanceLoss { distance_function, margin: 3.0, ..Default::default() };
/// let value = loss.forward(&anchor, &positive, &negative)?.to_scalar::<f64>()?;
/// assert_eq!(value, 4.0); // (1 + 4) - 4 + 3
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/triplet_margin_with_distance.svg"))]
#[derive(Clone)]
pub struct TripletMarginWithDistanceLoss {
    /// `d`, made of differentiable tensor ops. Default: the Euclidean distance, with 1e-6 added to each difference.
    pub distance_function: DistanceFunction,
    /// The lead from which a triplet costs nothing, in the unit of the distance; positive. Default 1.
    pub margin: f64,
    /// Whether the negative may be compared with the positive instead of the anchor. Default false.
    pub swap: bool,
    /// How the triplet losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

impl Default for TripletMarginWithDistanceLoss {
    fn default() -> Self {
        Self {
            distance_function: Arc::new(|u, v| distance(u, v, Norm { p: 2.0, eps: 1e-6 })),
            margin: 1.0,
            swap: false,
            reduction: Reduction::default(),
        }
    }
}

impl fmt::Debug for TripletMarginWithDistanceLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TripletMarginWithDistanceLoss")
            .field("margin", &self.margin)
            .field("swap", &self.swap)
            .field("reduction", &self.reduction)
            .finish_non_exhaustive()
    }
}

const LOSS: &str = "TripletMarginWithDistanceLoss";

impl TripletMarginWithDistanceLoss {
    /// The loss of the points `anchor`, `positive` (like it) and `negative` (not like it).
    ///
    /// Shapes: all three the same, such as `(N, D)`. Dtypes: all three `f16`, `bf16`, `f32` or `f64`, the same; the
    /// distance gets the two half precisions as `f32`. The result has the arguments' dtype and is a scalar, or of the
    /// distance's shape with [`Reduction::None`]. The derivative of a margin that is met exactly is 0.
    ///
    /// # Errors
    /// If `margin` is not positive, if shape, dtype or device of the three differ, if the dtype is not a float, or
    /// where the distance fails.
    pub fn forward(&self, anchor: &Tensor, positive: &Tensor, negative: &Tensor) -> Result<Tensor> {
        check_option(LOSS, "margin", self.margin, self.margin > 0.0, "positive")?;
        let points = matching(LOSS, [("anchor", anchor), ("positive", positive), ("negative", negative)])?;
        let [a, p, n] = ops::to_compute(points.each_ref())?;

        let to_positive = (self.distance_function)(&a, &p)?;
        let mut to_negative = (self.distance_function)(&a, &n)?;
        if self.swap {
            to_negative = minimum(&to_negative, &(self.distance_function)(&p, &n)?)?;
        }
        let loss = ops::relu(&((to_positive + self.margin)? - to_negative)?)?;

        self.reduction.reduce(&loss, anchor)
    }
}

/// The smaller; NaN if one is NaN, which candle's `minimum` drops on a GPU. Equal ones share the gradient.
fn minimum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let minimum = a.minimum(b)?;
    b.eq(b)?.where_cond(&a.eq(a)?.where_cond(&minimum, a)?, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn any_distance_will_do() -> Result<()> {
        let loss =
            TripletMarginWithDistanceLoss { distance_function: Arc::new(|u, v| (u - v)?.abs()?.max(0)), ..Default::default() };
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
