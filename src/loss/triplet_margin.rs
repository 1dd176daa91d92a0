use super::Reduction;
use super::validate::{check_option, matching};
use crate::kernel::lanes::{LANES, Lanes};
use crate::kernel::ops;
use crate::kernel::rows::{RowLoss, map_sum, map2_sum, nan_max, row_loss};
use crate::kernel::scalar::{Float, sign};
use crate::kernel::switches::has_kernels_for;
use crate::kernel::tensor_loss::{Scale, tensor_loss};
use candle_core::{D, Result, Tensor, bail};

/// Hinge loss on three points: an anchor should be closer to a similar point than to a dissimilar point, by `margin`:
///
/// ```text
/// l = max(0, d(anchor, positive) - d(anchor, negative) + margin)    with d(u, v) = ‖u - v + eps‖_p
/// ```
///
/// Use it to learn embeddings from comparisons, such as embeddings of faces, products or sentences. The loss of easy
/// triplets soon becomes 0, so the result depends on the choice of triplets. With `swap`, the distance to the negative
/// is the smaller of `d(anchor, negative)` and `d(positive, negative)`.
///
/// For labeled pairs use [`CosineEmbeddingLoss`](super::CosineEmbeddingLoss) or
/// [`HingeEmbeddingLoss`](super::HingeEmbeddingLoss). For a distance that is not a norm use
/// [`TripletMarginWithDistanceLoss`](super::TripletMarginWithDistanceLoss).
///
/// Source: Balntas et al., [Learning local feature descriptors with triplets and shallow convolutional neural
/// networks](https://doi.org/10.5244/C.30.119), 2016;
/// [`torch.nn.TripletMarginLoss`](https://pytorch.org/docs/stable/generated/torch.nn.TripletMarginLoss.html).
///
/// Example:
/// [`examples/triplet_margin.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/triplet_margin.rs), run by
/// `cargo run --example triplet_margin`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::TripletMarginLoss;
///
/// let anchor = Tensor::new(&[[0.0, 0.0]], &Device::Cpu)?;
/// let positive = Tensor::new(&[[3.0, 4.0]], &Device::Cpu)?;
/// let negative = Tensor::new(&[[0.0, 6.0]], &Device::Cpu)?;
/// let loss = TripletMarginLoss { margin: 2.0, eps: 0.0, ..Default::default() }; // no eps, for round numbers
/// let value = loss.forward(&anchor, &positive, &negative)?.to_scalar::<f64>()?;
/// assert!((value - 1.0).abs() < 1e-9); // 5 - 6 + 2
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/triplet_margin.svg"))]
#[derive(Debug, Clone, Copy)]
pub struct TripletMarginLoss {
    /// Difference of the distances at which the loss becomes 0, in the unit of the distance; positive. Default: 1.
    pub margin: f64,
    /// Degree of the norm: 0 or more, or infinity. Default: 2.
    pub p: f64,
    /// Number added to each element of a difference, so that a distance is rarely 0. Default: 1e-6.
    pub eps: f64,
    /// Whether the distance from the positive to the negative is used if it is smaller. Default: false.
    pub swap: bool,
    /// Reduction of the triplet losses. Default: the mean.
    pub reduction: Reduction,
}

impl Default for TripletMarginLoss {
    fn default() -> Self {
        Self { margin: 1.0, p: 2.0, eps: 1e-6, swap: false, reduction: Reduction::default() }
    }
}

const LOSS: &str = "TripletMarginLoss";

impl TripletMarginLoss {
    /// Returns the loss of the points `anchor`, `positive` (the similar point) and `negative` (the dissimilar point).
    ///
    /// - Shapes: the same for all three arguments, `(…, D)`.
    /// - Dtypes: the same for all three arguments: `f16`, `bf16`, `f32` or `f64`.
    /// - Result: a scalar of the same dtype. With [`Reduction::None`] it has the shape `(…)`.
    /// - Gradient: 0 at the margin, and 0 of a distance of 0. At `p = ∞`, elements with the same largest absolute value
    ///   get equal parts. With `swap`, equal distances get half each.
    ///
    /// # Errors
    /// If `margin` is not positive, if `p` is negative or NaN, if `eps` is NaN, if the points are scalars, if `p` is
    /// infinity and `D` is 0, if the shapes, dtypes or devices differ, or if the dtype is not a float.
    pub fn forward(&self, anchor: &Tensor, positive: &Tensor, negative: &Tensor) -> Result<Tensor> {
        check_option(LOSS, "margin", self.margin, self.margin > 0.0, "positive")?;
        check_option(LOSS, "p", self.p, self.p >= 0.0, "0 or more")?;
        check_option(LOSS, "eps", self.eps, !self.eps.is_nan(), "a number")?;
        let points = matching(LOSS, [("anchor", anchor), ("positive", positive), ("negative", negative)])?;
        if anchor.rank() == 0 {
            bail!("{LOSS}: anchor is a scalar but needs a dimension to measure distances in, (…, D)")
        }
        let dim = anchor.rank() - 1;
        if self.p.is_infinite() && anchor.dims()[dim] == 0 {
            bail!("{LOSS}: anchor has shape {:?}, but the maximum norm needs one number or more", anchor.dims())
        }

        let norm = Norm { p: self.p, eps: self.eps };
        let factor = self.reduction.factor(&anchor.dims()[..dim]);
        let triplet = Triplet { norm, margin: self.margin, swap: self.swap };
        if has_kernels_for(&points.each_ref()) {
            return row_loss(points.each_ref(), dim, factor, triplet);
        }
        let points = ops::to_compute(points.each_ref())?;
        let loss = tensor_loss(points.each_ref(), Some(dim), factor.into(), None, move |points, _| {
            triplet.loss_by_ops(points)
        })?;
        ops::like(&loss, anchor)
    }
}

/// Returns `‖u - v + eps‖_p` over the last dimension. Scalars are vectors of one element.
pub(super) fn distance(u: &Tensor, v: &Tensor, norm: Norm) -> Result<Tensor> {
    if u.rank() == 0 {
        return distance(&u.unsqueeze(0)?, &v.unsqueeze(0)?, norm);
    }
    let dim = u.rank() - 1;
    if has_kernels_for(&[u, v]) {
        return row_loss([u, v], dim, None, norm);
    }
    tensor_loss([u, v], Some(dim), Scale::None, None, move |[u, v], _| {
        let (distance, direction, factor) = norm.norm_by_ops(&norm.difference(u, v)?)?;
        let grad = direction.broadcast_mul(&factor)?;
        let negative = ops::Scaled { tensor: grad.clone(), factor: -1.0 };
        Ok((distance.squeeze(dim)?.into(), [Some(grad.into()), Some(negative)]))
    })
}

/// `p`-norm of the difference of two points. `eps` is added to the elements of the difference.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    pub p: f64,
    pub eps: f64,
}

impl Norm {
    /// Returns the norm of a row of differences, and a factor of its gradient. Overwrites the row with the gradient
    /// without this factor.
    #[inline(always)]
    fn norm_and_grad_in_place<W: Float>(self, row: &mut [Lanes<W>], len: usize) -> (W, W) {
        let (zero, one) = (W::ZERO, W::ONE);
        // The difference of the padding is eps, not 0.
        row.as_flattened_mut()[len..].fill(zero);
        let unless_0 = |x: W, value: W| if x == zero { zero } else { value };
        match self.p {
            0.0 => {
                let [count] = map_sum(row, |d| (zero, [if d == zero { zero } else { one }]));
                (count, one)
            }
            1.0 => {
                let [sum] = map_sum(row, |d| (sign(d), [d.abs()]));
                (sum, one)
            }
            2.0 => {
                let [sum] = map_sum(row, |d| (d, [d * d]));
                let norm = sum.sqrt();
                (norm, unless_0(norm, one / norm))
            }
            f64::INFINITY => {
                let max = max_abs(row);
                // Elements with the same largest absolute value get equal parts of the gradient.
                let [count] = map_sum(row, |d| {
                    let hit = if d.abs() == max { one } else { zero };
                    (sign(d) * hit, [hit])
                });
                (max, one / count)
            }
            p => {
                // Divided by the largest element m, so that no power overflows or underflows:
                // m · (Σ (|d| / m)^p)^(1/p).
                let (max, p) = (max_abs(row), W::constant(p));
                let scale = if max == zero || max == W::INFINITY { one } else { max };
                let [sum] = map_sum(row, |d| {
                    let ratio = d.abs() / scale;
                    let power = unless_0(d, ratio.powf(p));
                    (sign(d) * unless_0(d, ratio.powf(p - one)), [power])
                });
                let root = sum.powf(one / p);
                (scale * root, unless_0(root, root.powf(one - p)))
            }
        }
    }

    fn difference(self, u: &Tensor, v: &Tensor) -> Result<Tensor> {
        let difference = (u - v)?;
        if self.eps == 0.0 { Ok(difference) } else { difference.affine(1.0, self.eps) }
    }

    /// Returns the norm of the differences `d`, (…, 1), and its gradient as the product of a direction, (…, D), and a
    /// factor, (…, 1). It uses tensor ops.
    fn norm_by_ops(self, d: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let zero = ops::constant(0.0, &d.detach())?;
        // Two selections, so that the sign of NaN is NaN.
        let sign = || -> Result<Tensor> {
            let (plus, minus) = (ops::constant(1.0, &zero)?, ops::constant(-1.0, &zero)?);
            d.lt(0f64)?.where_cond(&minus, &d.gt(0f64)?.where_cond(&plus, d)?)
        };
        let ones = |norm: &Tensor| norm.detach().ones_like();
        match self.p {
            0.0 => {
                let one = ops::constant(1.0, &zero)?;
                let count = d.eq(0f64)?.where_cond(&zero, &one)?.sum_keepdim(D::Minus1)?;
                let factor = ones(&count)?;
                Ok((count, zero, factor))
            }
            1.0 => {
                let sum = d.abs()?.sum_keepdim(D::Minus1)?;
                let factor = ones(&sum)?;
                Ok((sum, sign()?, factor))
            }
            2.0 => {
                let square = d.sqr()?.sum_keepdim(D::Minus1)?;
                // 1 replaces 0, so that neither the gradient nor its derivative is infinite.
                let is_0 = square.eq(0f64)?;
                let norm = ops::masked_fill(&square, &is_0, 1.0)?.sqrt()?;
                let factor = ops::masked_fill(&norm.recip()?, &is_0, 0.0)?;
                Ok((ops::masked_fill(&norm, &is_0, 0.0)?, d.clone(), factor))
            }
            p if p.is_infinite() => {
                let size = d.abs()?;
                let is_largest = size.broadcast_eq(&ops::max_keepdim(&size, size.rank() - 1)?)?;
                let hits = is_largest.where_cond(&ops::constant(1.0, &zero)?, &zero)?;
                let factor = hits.sum_keepdim(D::Minus1)?.recip()?;
                // A sum, so that a NaN that is not the maximum propagates.
                let norm = ((size * &hits)?.sum_keepdim(D::Minus1)? * &factor)?;
                let factor = norm.eq(&norm)?.where_cond(&factor, &norm.detach())?;
                Ok((norm, (sign()? * hits)?, factor))
            }
            p => {
                let size = d.abs()?;
                let max = ops::max_keepdim(&size, size.rank() - 1)?;
                let is_unscaled = (max.eq(0f64)? + max.eq(f64::INFINITY)?)?;
                let scale = ops::masked_fill(&max, &is_unscaled, 1.0)?;
                let is_0 = d.eq(0f64)?;
                // 1 replaces 0, as above.
                let ratio = ops::masked_fill(&size.broadcast_div(&scale)?, &is_0, 1.0)?;
                let powers = ops::masked_fill(&ratio.powf(p)?, &is_0, 0.0)?;
                let sum = powers.sum_keepdim(D::Minus1)?;
                let vanishes = sum.eq(0f64)?;
                let root = ops::masked_fill(&sum, &vanishes, 1.0)?.powf(1.0 / p)?;
                let factor = ops::masked_fill(&root.powf(1.0 - p)?, &vanishes, 0.0)?;
                let norm = (scale * ops::masked_fill(&root, &vanishes, 0.0)?)?;
                Ok((norm, (sign()? * ops::masked_fill(&ratio.powf(p - 1.0)?, &is_0, 0.0)?)?, factor))
            }
        }
    }
}

/// Returns the largest absolute value of a row, or NaN if the row contains NaN.
#[inline(always)]
fn max_abs<W: Float>(row: &[Lanes<W>]) -> W {
    row.as_flattened().iter().fold(W::ZERO, |max, d| nan_max(max, d.abs()))
}

impl RowLoss<2> for Norm {
    const PADDING: [f64; 2] = [0.0; 2];

    #[inline(always)]
    fn loss_and_grad_in_place<W: Float>(&self, _: usize, [u, v]: [&mut [Lanes<W>]; 2], len: usize) -> Option<(W, W)> {
        let eps = W::constant(self.eps);
        map2_sum([&mut *u, &mut *v], |u, v| ([u - v + eps, v], []));
        let (norm, factor) = self.norm_and_grad_in_place(u, len);
        map2_sum([u, v], |grad, _| ([grad, -grad], []));
        Some((norm, factor))
    }
}

/// Triplet loss of rows: `max(0, d(anchor, positive) - d(anchor, negative) + margin)`.
#[derive(Clone, Copy)]
struct Triplet {
    norm: Norm,
    margin: f64,
    swap: bool,
}

impl Triplet {
    /// Returns the losses, and their gradients by all three points. It uses tensor ops.
    fn loss_by_ops(self, [a, p, n]: [&Tensor; 3]) -> Result<(ops::Scaled, [Option<ops::Scaled>; 3])> {
        let (to_positive, by_positive, positive_factor) = self.norm.norm_by_ops(&self.norm.difference(a, p)?)?;
        let (mut to_negative, by_negative, mut negative_factor) =
            self.norm.norm_by_ops(&self.norm.difference(a, n)?)?;
        let mut swapped_grad = None;
        if self.swap {
            let (swapped, by_swapped, factor) = self.norm.norm_by_ops(&self.norm.difference(p, n)?)?;
            // The smaller distance gets the gradient, and equal distances get half each. NaN propagates.
            let (zero, one) = (swapped.detach().zeros_like()?, swapped.detach().ones_like()?);
            let (is_nearer, is_tied) = (swapped.lt(&to_negative)?, swapped.eq(&to_negative)?);
            let fraction = is_nearer.where_cond(&one, &is_tied.where_cond(&one.affine(0.5, 0.0)?, &zero)?)?;
            let nearer = is_nearer.where_cond(&swapped, &to_negative)?;
            to_negative = swapped.eq(&swapped)?.where_cond(&nearer, &swapped)?;
            negative_factor = (negative_factor * fraction.affine(-1.0, 1.0)?)?;
            swapped_grad = Some((by_swapped, (factor * fraction)?));
        }
        let missing = (to_positive.affine(1.0, self.margin)? - to_negative)?;
        let is_met = missing.le(0f64)?;
        let losses = ops::masked_fill(&missing, &is_met, 0.0)?;
        let grad = |direction: &Tensor, factor: &Tensor| {
            ops::masked_fill(&direction.broadcast_mul(factor)?, &is_met.broadcast_as(direction.shape())?, 0.0)
        };
        let positive = grad(&by_positive, &positive_factor)?;
        drop(by_positive);
        let negative = grad(&by_negative, &negative_factor)?;
        drop(by_negative);
        let by_anchor = (&positive - &negative)?;
        let (by_positive, by_negative) = match swapped_grad {
            Some((by_swapped, factor)) => {
                let swapped = grad(&by_swapped, &factor)?;
                ((positive + &swapped)?, (negative + swapped)?)
            }
            None => (positive, negative),
        };
        let minus = ops::Scaled { tensor: by_positive, factor: -1.0 };
        Ok((losses.squeeze(D::Minus1)?.into(), [Some(by_anchor.into()), Some(minus), Some(by_negative.into())]))
    }
}

impl RowLoss<3> for Triplet {
    const PADDING: [f64; 3] = [0.0; 3];

    #[inline(always)]
    fn loss_and_grad_in_place<W: Float>(
        &self,
        _: usize,
        [a, p, n]: [&mut [Lanes<W>]; 3],
        len: usize,
    ) -> Option<(W, W)> {
        let (zero, eps) = (W::ZERO, W::constant(self.norm.eps));
        // The three rows are overwritten with the differences of each two points.
        map3(a, p, n, |a, p, n| [a - p + eps, a - n + eps, p - n + eps]);
        let (to_positive, by_positive) = self.norm.norm_and_grad_in_place(a, len);
        let (mut to_negative, mut by_negative) = self.norm.norm_and_grad_in_place(p, len);
        let mut by_swapped = zero;
        if self.swap {
            let (swapped, by) = self.norm.norm_and_grad_in_place(n, len);
            // The smaller distance gets the gradient, and equal distances get half each. NaN propagates.
            let fraction = W::constant(if swapped < to_negative {
                1.0
            } else if swapped == to_negative {
                0.5
            } else {
                0.0
            });
            let nearer = if swapped < to_negative { swapped } else { to_negative };
            to_negative = if swapped.is_nan() { swapped } else { nearer };
            (by_negative, by_swapped) = (by_negative * (W::ONE - fraction), by * fraction);
        }
        let missing = to_positive + W::constant(self.margin) - to_negative;
        if missing <= zero {
            map3(a, p, n, |_, _, _| [zero; 3]);
            return Some((zero, zero));
        }
        map3(a, p, n, |positive, negative, swapped| {
            let (positive, negative) = (positive * by_positive, negative * by_negative);
            let swapped = if self.swap { swapped * by_swapped } else { zero };
            [positive - negative, -positive - swapped, negative + swapped]
        });
        Some((missing, W::ONE))
    }
}

/// Replaces the three elements at each index with `f` of them.
#[inline(always)]
fn map3<W: Float>(a: &mut [Lanes<W>], b: &mut [Lanes<W>], c: &mut [Lanes<W>], f: impl Fn(W, W, W) -> [W; 3]) {
    for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
        for lane in 0..LANES {
            [a[lane], b[lane], c[lane]] = f(a[lane], b[lane], c[lane]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn losses_with_and_without_swap() -> Result<()> {
        let point = |x: f64, y: f64| vector(&[x, y]);
        let (anchor, positive, negative) = (point(0.0, 0.0), point(3.0, 4.0), point(0.0, 5.5));
        let loss = TripletMarginLoss { eps: 0.0, ..Default::default() };
        assert_values(loss.forward(&anchor, &positive, &negative), &[5.0 - 5.5 + 1.0])?;
        let swap = TripletMarginLoss { swap: true, ..loss };
        assert_values(swap.forward(&anchor, &positive, &negative), &[5.0 - 11.25f64.sqrt() + 1.0])
    }

    #[test]
    fn rejects_invalid_options() {
        let x = vector(&[1.0]);
        let refused = |loss: TripletMarginLoss, part| refuses(loss.forward(&x, &x, &x), &["TripletMarginLoss", part]);
        refused(TripletMarginLoss { margin: 0.0, ..Default::default() }, "margin is 0");
        refused(TripletMarginLoss { p: -1.0, ..Default::default() }, "p is -1");
        refused(TripletMarginLoss { eps: f64::NAN, ..Default::default() }, "eps is NaN");
    }

    #[test]
    fn rejects_mismatched_arguments() -> Result<()> {
        let (x, loss) = (vector(&[1.0, 2.0]), TripletMarginLoss::default());
        refuses(loss.forward(&x, &vector(&[1.0]), &x), &["TripletMarginLoss", "positive", "[1]", "anchor", "[2]"]);
        refuses(loss.forward(&x, &x, &vector(&[1.0])), &["TripletMarginLoss", "negative", "[1]", "anchor", "[2]"]);
        let scalar = Tensor::new(1f64, &device())?;
        refuses(loss.forward(&scalar, &scalar, &scalar), &["TripletMarginLoss", "scalar"]);
        Ok(())
    }
}
