use super::Reduction;
use super::triplet_margin::{Norm, distance};
use super::validate::{check_option, matching};
use crate::kernel::ops;
use candle_core::{Error, Result, Tensor};
use std::fmt;
use std::sync::Arc;

/// Function that returns the distances, `(…)`, of two tensors of points, both `(…, D)`.
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

/// [`TripletMarginLoss`](super::TripletMarginLoss) with a custom distance `d`:
///
/// ```text
/// l = max(0, d(anchor, positive) - d(anchor, negative) + margin)
/// ```
///
/// Use it for a distance that is not a norm of a difference, such as the cosine distance, the squared Euclidean
/// distance or a learned distance. Choose `margin` in the unit of the distance. For a norm, use
/// [`TripletMarginLoss`](super::TripletMarginLoss), which needs no closure.
///
/// Source: [`torch.nn.TripletMarginWithDistanceLoss`][pytorch].
///
/// Example: [`examples/triplet_margin_with_distance.rs`][example], run by
/// `cargo run --example triplet_margin_with_distance`.
///
/// [pytorch]: https://pytorch.org/docs/stable/generated/torch.nn.TripletMarginWithDistanceLoss.html
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
    /// Distance `d`, made of differentiable tensor ops. Default: the Euclidean distance, with 1e-6 added to each
    /// element of the difference.
    pub distance_function: DistanceFunction,
    /// Difference of the distances at which the loss becomes 0, in the unit of the distance; positive. Default: 1.
    pub margin: f64,
    /// Whether the distance from the positive to the negative is used if it is smaller. Default: false.
    pub swap: bool,
    /// Reduction of the triplet losses. Default: the mean.
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
    /// Returns the loss of the points `anchor`, `positive` (the similar point) and `negative` (the dissimilar point).
    ///
    /// - Shapes: the same for all three arguments, such as `(N, D)`.
    /// - Dtypes: the same for all three arguments: `f16`, `bf16`, `f32` or `f64`. The distance function gets `f16` and
    ///   `bf16` arguments as `f32`.
    /// - Result: a scalar of the arguments' dtype. With [`Reduction::None`] it has the shape of a distance.
    /// - Gradient at the margin: 0. With `swap`, equal distances get half each.
    ///
    /// # Errors
    /// If `margin` is not positive, if the shapes, dtypes or devices differ, if the dtype is not a float, or if the
    /// distance function returns an error.
    pub fn forward(&self, anchor: &Tensor, positive: &Tensor, negative: &Tensor) -> Result<Tensor> {
        check_option(LOSS, "margin", self.margin, self.margin > 0.0, "positive")?;
        let points = matching(LOSS, [("anchor", anchor), ("positive", positive), ("negative", negative)])?;
        let [a, p, n] = ops::to_compute(points.each_ref())?;

        let distance = |u: &Tensor, v: &Tensor| {
            let failed = |error: Error| error.context(format!("{LOSS}: distance_function failed"));
            (self.distance_function)(u, v).map_err(failed)
        };
        let to_positive = distance(&a, &p)?;
        let mut to_negative = distance(&a, &n)?;
        if self.swap {
            to_negative = minimum(&to_negative, &distance(&p, &n)?)?;
        }
        let loss = ops::relu(&((to_positive + self.margin)? - to_negative)?)?;

        self.reduction.reduce(&loss, anchor)
    }
}

/// Returns the smaller elements, or NaN where an element is NaN, which candle's `minimum` may drop on a GPU. Equal
/// elements get half of the gradient each.
fn minimum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let minimum = a.minimum(b)?;
    b.eq(b)?.where_cond(&a.eq(a)?.where_cond(&minimum, a)?, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn custom_distance() -> Result<()> {
        let loss = TripletMarginWithDistanceLoss {
            distance_function: Arc::new(|u, v| (u - v)?.abs()?.max(0)),
            ..Default::default()
        };
        let (anchor, positive, negative) = (vector(&[0.0, 0.0]), vector(&[3.0, 1.0]), vector(&[2.0, 2.5]));
        assert_values(loss.forward(&anchor, &positive, &negative), &[3.0 - 2.5 + 1.0])
    }

    #[test]
    fn rejects_invalid_margin_and_mismatched_arguments() {
        let (x, loss) = (vector(&[1.0, 2.0]), TripletMarginWithDistanceLoss { margin: -1.0, ..Default::default() });
        refuses(loss.forward(&x, &x, &x), &["TripletMarginWithDistanceLoss", "margin is -1"]);
        let loss = TripletMarginWithDistanceLoss::default();
        refuses(loss.forward(&x, &x, &vector(&[1.0])), &["TripletMarginWithDistanceLoss", "negative", "[1]", "[2]"]);
    }
}
