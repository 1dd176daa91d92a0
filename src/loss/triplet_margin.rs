use super::{Reduction, check_option, matching, wide};
use crate::kernel::scalar::{Float, indicator, most, of, sign};
use crate::kernel::{LANES, Lanes, RowLoss, can_be_fused, fused_rows, map, map_both, ops};
use candle_core::{D, Result, Tensor, bail};

/// A loss on three points: an anchor should be nearer to what is like it than to what is not, by `margin`:
///
/// ```text
/// l = max(0, d(anchor, positive) - d(anchor, negative) + margin)    with d(u, v) = ‖u - v + eps‖_p
/// ```
///
/// For embeddings learned from comparisons: faces, products, sentences. Easy triplets soon cost nothing, so which
/// triplets are made decides how far it learns. With `swap`, the negative's distance is the smaller of those to the
/// anchor and to the positive.
///
/// Where pairs are known instead of triplets, take [`CosineEmbeddingLoss`](super::CosineEmbeddingLoss) or
/// [`HingeEmbeddingLoss`](super::HingeEmbeddingLoss); for a distance that is no norm,
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
#[derive(Debug, Clone)]
pub struct TripletMarginLoss {
    /// The lead from which a triplet costs nothing, in the unit of the distance; positive. Default 1.
    pub margin: f64,
    /// The norm of the distance: 0 or more, infinity included. Default 2.
    pub p: f64,
    /// Added to each difference, in the unit of the points, so that a distance is hardly ever 0. Default 1e-6.
    pub eps: f64,
    /// Whether the negative may be compared with the positive instead of the anchor. Default false.
    pub swap: bool,
    /// How the triplet losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

impl Default for TripletMarginLoss {
    fn default() -> Self {
        Self { margin: 1.0, p: 2.0, eps: 1e-6, swap: false, reduction: Reduction::default() }
    }
}

impl TripletMarginLoss {
    /// The loss of the points `anchor`, `positive` (like it) and `negative` (not like it).
    ///
    /// Shapes: all three `(…, D)`, the same. Dtypes: all three `f16`, `bf16`, `f32` or `f64`, the same. The result has
    /// that dtype and is a scalar, or of shape `(…)` with [`Reduction::None`]. The derivative of a margin that is met
    /// exactly, and of a distance of 0, is 0.
    ///
    /// # Errors
    /// If `margin` is not positive, if `p` is negative or NaN, if `eps` is NaN, if the points are scalars, if shape,
    /// dtype or device of the three differ, or the dtype is not a float.
    pub fn forward(&self, anchor: &Tensor, positive: &Tensor, negative: &Tensor) -> Result<Tensor> {
        const LOSS: &str = "TripletMarginLoss";
        check_option(LOSS, "margin", self.margin, self.margin > 0.0, "positive")?;
        check_option(LOSS, "p", self.p, self.p >= 0.0, "0 or more")?;
        check_option(LOSS, "eps", self.eps, !self.eps.is_nan(), "a number")?;
        let points = matching(LOSS, [("anchor", anchor), ("positive", positive), ("negative", negative)])?;
        if anchor.rank() == 0 {
            bail!("{LOSS}: anchor is a scalar but needs a dimension to measure distances in, (…, D)")
        }

        let norm = Norm { p: self.p, eps: self.eps };
        if can_be_fused(&[anchor, positive, negative]) {
            let dim = anchor.rank() - 1;
            let loss = Triplet { norm, margin: self.margin, swap: self.swap };
            let [anchor, positive, negative] = points.each_ref();
            return fused_rows([anchor, positive, negative], dim, self.reduction.factor(&anchor.dims()[..dim]), loss);
        }
        let loss = triplet(&wide(points)?, self.margin, self.swap, |u, v| distance(u, v, self.p, self.eps))?;

        self.reduction.reduce(&loss, anchor)
    }
}

/// The loss of each triplet under any distance.
pub(super) fn triplet(
    [anchor, positive, negative]: &[Tensor; 3],
    margin: f64,
    swap: bool,
    distance: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let to_positive = distance(anchor, positive)?;
    let mut to_negative = distance(anchor, negative)?;
    if swap {
        to_negative = to_negative.minimum(&distance(positive, negative)?)?;
    }
    ops::relu(&((to_positive + margin)? - to_negative)?)
}

/// `‖u - v + eps‖_p` over the last dimension.
pub(super) fn distance(u: &Tensor, v: &Tensor, p: f64, eps: f64) -> Result<Tensor> {
    if can_be_fused(&[u, v]) && u.rank() > 0 {
        return fused_rows([u, v], u.rank() - 1, None, Norm { p, eps });
    }
    let size = ops::abs(&((u - v)? + eps)?)?;
    // A scalar is a place in one dimension.
    let size = if size.rank() == 0 { size.unsqueeze(0)? } else { size };
    if p == 0.0 {
        return size.ne(0f64)?.to_dtype(size.dtype())?.sum(D::Minus1);
    }
    if p == 1.0 {
        return size.sum(D::Minus1);
    }
    if p.is_infinite() {
        if size.dim(D::Minus1)? == 0 {
            bail!("TripletMarginLoss: anchor has shape {:?}, and of no numbers none is the largest", u.dims())
        }
        if size.elem_count() == 0 {
            return size.sum(D::Minus1);
        }
        // The gradient is shared evenly by all that are the largest.
        let largest = size.detach().max_keepdim(D::Minus1)?;
        let hits = size.detach().broadcast_eq(&largest)?.to_dtype(size.dtype())?;
        let share = hits.broadcast_div(&hits.sum_keepdim(D::Minus1)?)?;
        return (size * share)?.sum(D::Minus1);
    }
    if p == 2.0 {
        return power(&size.sqr()?.sum(D::Minus1)?, 0.5);
    }
    power(&power(&size, p)?.sum(D::Minus1)?, 1. / p)
}

/// `x^e` for `x >= 0`, with derivative 0 at 0 for every `e`, as PyTorch's norms have.
fn power(x: &Tensor, e: f64) -> Result<Tensor> {
    let is_zero = x.eq(0f64)?;
    let positive = is_zero.where_cond(&x.ones_like()?, x)?;
    let power = if e == 0.5 { positive.sqrt()? } else { positive.powf(e)? };
    is_zero.where_cond(&x.zeros_like()?, &power)
}

/// The `p`-norm of what two rows differ by, and `eps`.
#[derive(Clone, Copy)]
struct Norm {
    p: f64,
    eps: f64,
}

impl Norm {
    /// The norm of a row of differences, and the unit of its derivatives, which take the row's place.
    #[inline(always)]
    fn take<W: Float>(self, row: &mut [Lanes<W>], count: usize) -> (W, W) {
        let (zero, one) = (W::ZERO, W::ONE);
        // What a row is filled up with differs by eps.
        row.as_flattened_mut()[count..].fill(zero);
        let unless_0 = |x: W, value: W| if x == zero { zero } else { value };
        match self.p {
            0.0 => {
                let [count] = map(row, |d| (zero, [indicator(d != zero)]));
                (count, one)
            }
            1.0 => {
                let [sum] = map(row, |d| (sign(d), [d.abs()]));
                (sum, one)
            }
            2.0 => {
                let [sum] = map(row, |d| (d, [d * d]));
                let norm = sum.sqrt();
                (norm, unless_0(norm, one / norm))
            }
            f64::INFINITY => {
                // The gradient is shared evenly by all that are the largest.
                let max = row.as_flattened().iter().fold(zero, |max, d| if d.abs() <= max { max } else { d.abs() });
                let [hits] = map(row, |d| if d.abs() == max { (sign(d), [one]) } else { (zero, [zero]) });
                (max, one / most(hits, one))
            }
            p => {
                let [exponent, inverse] = [p, 1.0 / p].map(of::<W>);
                let [sum] = map(row, |d| (d, [unless_0(d, d.abs().powf(exponent))]));
                map(row, |d| (unless_0(d, d.abs().powf(exponent - one)) * sign(d), []));
                (unless_0(sum, sum.powf(inverse)), unless_0(sum, sum.powf(inverse - one)))
            }
        }
    }
}

impl RowLoss<2> for Norm {
    const PADDING: [f64; 2] = [0.0; 2];

    #[inline(always)]
    fn take<W: Float>(&self, _: usize, [u, v]: [&mut [Lanes<W>]; 2], count: usize) -> Option<(W, W)> {
        let eps = of::<W>(self.eps);
        map_both([&mut *u, &mut *v], |u, v| ([u - v + eps, v], []));
        let (norm, unit) = Norm::take(*self, u, count);
        map_both([u, v], |slope, _| ([slope, -slope], []));
        Some((norm, unit))
    }
}

/// How far the negative is from being farther than the positive by the margin.
struct Triplet {
    norm: Norm,
    margin: f64,
    swap: bool,
}

impl RowLoss<3> for Triplet {
    const PADDING: [f64; 3] = [0.0; 3];

    #[inline(always)]
    fn take<W: Float>(&self, _: usize, rows: [&mut [Lanes<W>]; 3], count: usize) -> Option<(W, W)> {
        let [a, p, n] = rows;
        let (zero, eps) = (W::ZERO, of::<W>(self.norm.eps));
        // The differences of each two take the place of the three.
        each(a, p, n, |a, p, n| [a - p + eps, a - n + eps, p - n + eps]);
        let (to_positive, by_positive) = self.norm.take(a, count);
        let (mut to_negative, mut by_negative) = self.norm.take(p, count);
        let mut by_swapped = zero;
        if self.swap {
            let (swapped, by) = self.norm.take(n, count);
            // The gradient of the nearer, of both by half where they are as near.
            let share = of::<W>(if swapped < to_negative {
                1.0
            } else if swapped == to_negative {
                0.5
            } else {
                0.0
            });
            to_negative = if swapped < to_negative { swapped } else { to_negative };
            (by_negative, by_swapped) = (by_negative * (W::ONE - share), by * share);
        }
        let missing = to_positive + of(self.margin) - to_negative;
        if missing <= zero {
            each(a, p, n, |_, _, _| [zero; 3]);
            return Some((zero, zero));
        }
        each(a, p, n, |positive, negative, swapped| {
            let (positive, negative) = (positive * by_positive, negative * by_negative);
            let swapped = if self.swap { swapped * by_swapped } else { zero };
            [positive - negative, -positive - swapped, negative + swapped]
        });
        Some((missing, W::ONE))
    }
}

/// Each three numbers beside each other become the three of `f`.
#[inline(always)]
fn each<W: Float>(a: &mut [Lanes<W>], b: &mut [Lanes<W>], c: &mut [Lanes<W>], f: impl Fn(W, W, W) -> [W; 3]) {
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
    fn the_positive_should_be_nearer_by_the_margin() -> Result<()> {
        let point = |x: f64, y: f64| vector(&[x, y]);
        let (anchor, positive, negative) = (point(0.0, 0.0), point(3.0, 4.0), point(0.0, 5.5));
        let loss = TripletMarginLoss { eps: 0.0, ..Default::default() };
        assert_values(loss.forward(&anchor, &positive, &negative), &[5.0 - 5.5 + 1.0])?;
        let swap = TripletMarginLoss { swap: true, ..loss };
        assert_values(swap.forward(&anchor, &positive, &negative), &[5.0 - 11.25f64.sqrt() + 1.0])
    }

    #[test]
    fn refuses_options_that_make_no_sense() {
        let x = vector(&[1.0]);
        let refused = |loss: TripletMarginLoss, part| refuses(loss.forward(&x, &x, &x), &["TripletMarginLoss", part]);
        refused(TripletMarginLoss { margin: 0.0, ..Default::default() }, "margin is 0");
        refused(TripletMarginLoss { p: -1.0, ..Default::default() }, "p is -1");
        refused(TripletMarginLoss { eps: f64::NAN, ..Default::default() }, "eps is NaN");
    }

    #[test]
    fn refuses_what_does_not_match() -> Result<()> {
        let (x, loss) = (vector(&[1.0, 2.0]), TripletMarginLoss::default());
        refuses(loss.forward(&x, &vector(&[1.0]), &x), &["TripletMarginLoss", "positive", "[1]", "anchor", "[2]"]);
        refuses(loss.forward(&x, &x, &vector(&[1.0])), &["TripletMarginLoss", "negative", "[1]", "anchor", "[2]"]);
        let scalar = Tensor::new(1f64, &device())?;
        refuses(loss.forward(&scalar, &scalar, &scalar), &["TripletMarginLoss", "scalar"]);
        Ok(())
    }
}
