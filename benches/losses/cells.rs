//! The cells of `../cells.txt`, on the data that `../pytorch/measure.py` makes as well.

use candle_core::{Device, Result, Tensor, Var, bail};
use candle_losses::loss::*;
use half::{bf16, f16};

/// A loss with an option, at a size.
pub struct Cell {
    pub loss: &'static str,
    pub case: &'static str,
    pub dtype: &'static str,
    pub size: &'static str,
    /// Whether it is left out without `--all`.
    pub rest: bool,
}

type Forward = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// A cell with its data.
pub struct Prepared {
    /// What wants a gradient.
    pub tracked: Vec<Tensor>,
    /// Whether the loss gets the transpose of that.
    strided: bool,
    loss: Forward,
}

impl Prepared {
    /// The loss.
    pub fn loss(&self, arguments: &[Tensor]) -> Result<Tensor> {
        (self.loss)(arguments)
    }

    /// What `f` makes of the loss's arguments.
    pub fn with_arguments<T>(&self, f: impl Fn(&[Tensor]) -> Result<T>) -> Result<T> {
        if self.strided { f(&[self.tracked[0].t()?]) } else { f(&self.tracked) }
    }
}

impl Cell {
    pub fn all() -> Vec<Self> {
        let lines = include_str!("../cells.txt").lines().filter(|line| !line.starts_with(['#', '[']));
        let cells = lines.flat_map(|line| {
            let mut words = line.split_whitespace();
            let [loss, case, dtype] = [(); 3].map(|()| words.next().unwrap_or_default());
            words.map(move |word| {
                let size = word.trim_matches(['(', ')']);
                Self { loss, case, dtype, size, rest: size != word }
            })
        });
        cells.collect()
    }

    pub fn name(&self) -> String {
        format!("{}/{}/{}/{}", self.loss, self.case, self.size, self.dtype)
    }

    pub fn prepare(&self) -> Result<Prepared> {
        let case = self.case;
        let dims = self.size.split('x').map(|dim| dim.parse().unwrap()).collect::<Vec<usize>>();
        let (rows, columns) = (dims[0], dims[1]);
        let reduction = match self.loss {
            _ if case == "none" => Reduction::None,
            "kl_div" => Reduction::BatchMean,
            _ => Reduction::Mean,
        };

        // The data: each seed is another tensor.
        let uniform = |seed, dims: &[usize], low, high| self.tensor(seed, dims, |u| low + (high - low) * u);
        let scores = |seed| uniform(seed, &dims, -2.0, 2.0);
        let probabilities = || uniform(1, &dims, 0.01, 0.99);
        let log_probabilities = |seed| uniform(seed, &dims, -8.0, 0.0);
        let real = || uniform(2, &dims, 0.0, 1.0);
        let zero_one = || self.tensor(2, &dims, |u| (2.0 * u).floor());
        let counts = || self.tensor(2, &dims, |u| (5.0 * u).floor());
        let sign = |dims: &[usize]| self.tensor(4, dims, |u| if u < 0.5 { -1.0 } else { 1.0 });
        let distribution = || uniform(2, &dims, 0.0, 2.0 / columns as f64);
        let one_each = [&dims[..1], &dims[2..]].concat();
        let classes = || integers(3, &one_each, |u| (u * columns as f64) as u32);
        let weight = |option, dims: &[usize]| (case == option).then(|| uniform(5, dims, 0.5, 1.5)).transpose();

        // A loss with one input, or with two where the target is tracked as well.
        let one = |input: Tensor, target: Tensor, loss: fn(Reduction, &Tensor, &Tensor) -> Result<Tensor>| {
            if case == "tracked" {
                prepared([input, target], move |x| loss(reduction, &x[0], &x[1]))
            } else {
                prepared([input], move |x| loss(reduction, &x[0], &target))
            }
        };

        match self.loss {
            "l1" => one(scores(1)?, real()?, |reduction, x, y| L1Loss { reduction }.forward(x, y)),
            "mse" if case == "strided" => {
                let (target, loss) = (real()?, MseLoss { reduction });
                let input = uniform(1, &[columns, rows], -2.0, 2.0)?;
                Ok(Prepared { strided: true, ..prepared([input], move |x| loss.forward(&x[0], &target))? })
            }
            "mse" => one(scores(1)?, real()?, |reduction, x, y| MseLoss { reduction }.forward(x, y)),
            "smooth_l1" => one(scores(1)?, real()?, |reduction, x, y| {
                SmoothL1Loss { reduction, ..Default::default() }.forward(x, y)
            }),
            "huber" => {
                one(scores(1)?, real()?, |reduction, x, y| HuberLoss { reduction, ..Default::default() }.forward(x, y))
            }
            "bce" => {
                let (target, loss) = (zero_one()?, BceLoss { weight: weight("weight", &dims)?, reduction });
                prepared([probabilities()?], move |x| loss.forward(&x[0], &target))
            }
            "bce_with_logits" => {
                let (weight, pos_weight) = (weight("weight", &dims)?, weight("pos_weight", &dims[1..])?);
                let (target, loss) = (zero_one()?, BceWithLogitsLoss { weight, pos_weight, reduction });
                prepared([scores(1)?], move |x| loss.forward(&x[0], &target))
            }
            "nll" => {
                let (target, loss) = (classes()?, NllLoss { reduction, ..Default::default() });
                prepared([log_probabilities(1)?], move |x| loss.forward(&x[0], &target))
            }
            "cross_entropy" => {
                let target = if case == "probabilities" { distribution()? } else { classes()? };
                let loss = CrossEntropyLoss {
                    weight: weight("weight", &[columns])?,
                    ignore_index: if case == "ignore_index" { 0 } else { -100 },
                    label_smoothing: if case == "smoothing" { 0.1 } else { 0.0 },
                    reduction,
                };
                prepared([scores(1)?], move |x| loss.forward(&x[0], &target))
            }
            "poisson_nll" => {
                let (target, full) = (counts()?, case == "full");
                let loss = PoissonNllLoss { full, reduction, ..Default::default() };
                prepared([scores(1)?], move |x| loss.forward(&x[0], &target))
            }
            "hinge_embedding" => one(scores(1)?, sign(&dims)?, |reduction, x, y| {
                HingeEmbeddingLoss { reduction, ..Default::default() }.forward(x, y)
            }),
            "soft_margin" => {
                one(scores(1)?, sign(&dims)?, |reduction, x, y| SoftMarginLoss { reduction }.forward(x, y))
            }
            "multi_margin" => {
                let (target, p) = (classes()?, if case == "p2" { 2 } else { 1 });
                let loss = MultiMarginLoss { p, reduction, ..Default::default() };
                prepared([scores(1)?], move |x| loss.forward(&x[0], &target))
            }
            "multilabel_soft_margin" => {
                let weight = weight("weight", &[columns])?;
                let (target, loss) = (zero_one()?, MultiLabelSoftMarginLoss { weight, reduction });
                prepared([scores(1)?], move |x| loss.forward(&x[0], &target))
            }
            "multilabel_margin" => {
                // Three classes that follow each other, then -1.
                let list = |first: u32| (0..columns as i64).map(move |i| if i < 3 { i64::from(first) + i } else { -1 });
                let first = integers(3, &[rows], |u| (u * (columns - 2) as f64) as u32)?.to_vec1::<u32>()?;
                let target = Tensor::from_iter(first.into_iter().flat_map(list), &Device::Cpu)?.reshape(&*dims)?;
                let loss = MultiLabelMarginLoss { reduction };
                prepared([scores(1)?], move |x| loss.forward(&x[0], &target))
            }
            "kl_div" => {
                let log_target = case == "log_target";
                let target = if log_target { log_probabilities(2)? } else { distribution()? };
                let loss = KlDivLoss { log_target, reduction };
                prepared([log_probabilities(1)?], move |x| loss.forward(&x[0], &target))
            }
            "gaussian_nll" => {
                let (target, var) = (real()?, uniform(6, &dims, 0.1, 1.1)?);
                let loss = GaussianNllLoss { reduction, ..Default::default() };
                if case == "var" {
                    prepared([scores(1)?, var], move |x| loss.forward(&x[0], &target, &x[1]))
                } else {
                    prepared([scores(1)?], move |x| loss.forward(&x[0], &target, &var))
                }
            }
            "margin_ranking" => {
                let (target, loss) = (sign(&dims)?, MarginRankingLoss { reduction, ..Default::default() });
                prepared([scores(1)?, scores(2)?], move |x| loss.forward(&x[0], &x[1], &target))
            }
            "cosine_embedding" => {
                let (target, loss) = (sign(&[rows])?, CosineEmbeddingLoss { reduction, ..Default::default() });
                prepared([scores(1)?, scores(2)?], move |x| loss.forward(&x[0], &x[1], &target))
            }
            "triplet_margin" => {
                let loss = TripletMarginLoss { swap: case == "swap", reduction, ..Default::default() };
                prepared([scores(1)?, scores(2)?, scores(3)?], move |x| loss.forward(&x[0], &x[1], &x[2]))
            }
            "triplet_margin_with_distance" => {
                let loss = TripletMarginWithDistanceLoss { reduction, ..Default::default() };
                prepared([scores(1)?, scores(2)?, scores(3)?], move |x| loss.forward(&x[0], &x[1], &x[2]))
            }
            "ctc" => {
                let labels = match rows {
                    17 => 5,
                    50 => 10,
                    _ => 50,
                };
                let (sequences, classes) = (columns, dims[2]);
                let targets = integers(3, &[sequences, labels], |u| 1 + (u * (classes - 1) as f64) as u32)?;
                let [steps, lengths] = [rows, labels].map(|each| Tensor::full(each as u32, sequences, &Device::Cpu));
                let (steps, lengths, loss) = (steps?, lengths?, CtcLoss { reduction, ..Default::default() });
                let input = log_softmax(&scores(1)?, 2)?;
                prepared([input], move |x| loss.forward(&x[0], &targets, &steps, &lengths))
            }
            "linear_cross_entropy" => {
                let (width, classes) = (columns, dims[2]);
                let layer = |seed, dims: &[usize]| uniform(seed, dims, -0.1, 0.1);
                let target = integers(3, &[rows], |u| (u * classes as f64) as u32)?;
                let loss = LinearCrossEntropyLoss { reduction, ..Default::default() };
                let input = uniform(1, &[rows, width], -2.0, 2.0)?;
                let tracked = [input, layer(7, &[classes, width])?, layer(8, &[classes])?];
                prepared(tracked, move |x| loss.forward(&x[0], &x[1], Some(&x[2]), &target))
            }
            "adaptive_log_softmax" => {
                let (width, classes) = (columns, dims[2]);
                let layer = |seed, dims: [usize; 2]| uniform(seed, &dims, -0.1, 0.1);
                // The first of the classes are the most frequent.
                let target = integers(3, &[rows], |u| (u * u * u * classes as f64) as u32)?;
                let tracked = [
                    uniform(1, &[rows, width], -2.0, 2.0)?,
                    layer(7, [102, width])?,
                    layer(8, [width / 4, width])?,
                    layer(9, [900, width / 4])?,
                    layer(10, [width / 16, width])?,
                    layer(11, [classes - 1000, width / 16])?,
                ];
                prepared(tracked, move |x| {
                    let tails = [(2, 3), (4, 5)].map(|(projection, rows)| (x[projection].clone(), x[rows].clone()));
                    let (cutoffs, head) = (vec![100, 1000], x[1].clone());
                    let loss = AdaptiveLogSoftmaxWithLoss { cutoffs, head, head_bias: None, tails: tails.into() };
                    Ok(loss.forward(&x[0], &target)?.1)
                })
            }
            other => bail!("{other} is in cells.txt only"),
        }
    }

    /// A tensor of the cell's dtype, each element made from a number in [0, 1).
    fn tensor(&self, seed: u32, dims: &[usize], make: impl Fn(f64) -> f64) -> Result<Tensor> {
        let numbers = (0..dims.iter().product()).map(|i| make(number(seed, i)));
        let device = &Device::Cpu;
        let tensor = match self.dtype {
            "f16" => Tensor::from_iter(numbers.map(f16::from_f64), device)?,
            "bf16" => Tensor::from_iter(numbers.map(bf16::from_f64), device)?,
            "f32" => Tensor::from_iter(numbers.map(|x| x as f32), device)?,
            "f64" => Tensor::from_iter(numbers, device)?,
            other => bail!("{other} is no dtype of the cells"),
        };
        tensor.reshape(dims)
    }
}

fn integers(seed: u32, dims: &[usize], make: impl Fn(f64) -> u32) -> Result<Tensor> {
    let numbers = (0..dims.iter().product()).map(|i| make(number(seed, i)));
    Tensor::from_iter(numbers, &Device::Cpu)?.reshape(dims)
}

/// A number in [0, 1) that looks drawn, and is the same in PyTorch.
fn number(seed: u32, i: usize) -> f64 {
    const GOLDEN: u32 = 2_654_435_769; // 2^32 over the golden ratio
    let x = (i as u32).wrapping_add(seed << 24).wrapping_mul(GOLDEN);
    let x = (x ^ (x >> 15)).wrapping_mul(GOLDEN);
    f64::from(x ^ (x >> 15)) / 2f64.powi(32)
}

fn prepared<const N: usize>(
    tracked: [Tensor; N],
    loss: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
) -> Result<Prepared> {
    let tracked = tracked.iter().map(|tensor| Ok(Var::from_tensor(tensor)?.into_inner())).collect::<Result<_>>()?;
    Ok(Prepared { tracked, strided: false, loss: Box::new(loss) })
}
