"""Writes cases.json and cases.safetensors: values and gradients of PyTorch's losses, for tests/golden.rs to compare with.

    pip install torch safetensors numpy
    python tests/golden/make.py

A case is a loss, its options, its arguments and a cotangent; the expected value, and the gradient of the sum of
value * cotangent with respect to every argument that PyTorch differentiates. Everything is computed in float64 from
arguments that float32 holds exactly, so one case serves both precisions.
"""
import itertools
import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
REDUCTIONS = ("none", "mean", "sum", "batchmean")
INF = float("inf")
cases, tensors = [], {}
random = torch.Generator().manual_seed(0)


def real(*shape, scale=1.0):
    return (torch.randn(shape, generator=random) * scale).double()


def uniform(*shape, low=0.0, high=1.0):
    return (low + (high - low) * torch.rand(shape, generator=random)).double()


def classes(shape, count):
    return torch.randint(0, count, shape, generator=random)


def coin(*shape):
    return torch.randint(0, 2, shape, generator=random).double()


def sign(*shape):
    return coin(*shape) * 2 - 1


def distribution(*shape, dim=-1):
    return torch.softmax(real(*shape).float(), dim).double()


def values(*xs):
    return torch.tensor(xs, dtype=torch.float32).double()


def pairs(xs, ys):
    """Every x against every y."""
    grid = list(itertools.product(xs, ys))
    return values(*(x for x, _ in grid)), values(*(y for _, y in grid))


def case(loss, function, args, options=None, reductions=REDUCTIONS, constant=(), note=""):
    """Records `function(**args, **options, reduction=...)`; float `args` not in `constant` are differentiated."""
    options = options or {}
    for reduction in reductions:
        leaves = {
            name: arg.clone().requires_grad_(arg.is_floating_point() and name not in constant)
            for name, arg in args.items()
        }
        if reduction == "batchmean":
            # PyTorch has it for KL only; it is the sum over the first dimension's size.
            unreduced = function(**leaves, **options, reduction="none")
            value = function(**leaves, **options, reduction="sum") / (unreduced.shape[0] if unreduced.dim() else 1)
        else:
            value = function(**leaves, **options, reduction=reduction)
        cotangent = real(*value.shape) + 0.5
        if value.requires_grad:
            (value * cotangent).sum().backward()
        key = str(len(cases))
        stored = {f"arg.{name}": arg for name, arg in args.items()}
        stored |= {f"option.{name}": option for name, option in options.items() if torch.is_tensor(option)}
        stored |= {f"grad.{name}": leaf.grad for name, leaf in leaves.items() if leaf.requires_grad}
        stored |= {"value": value, "cotangent": cotangent}
        stored |= in_half(function, args, options, reduction)
        tensors.update({f"{key}.{name}": tensor.detach().clone().contiguous() for name, tensor in stored.items()})
        cases.append(
            {
                "loss": loss,
                "reduction": reduction,
                "options": {n: "tensor" if torch.is_tensor(o) else "inf" if o == INF else o for n, o in options.items()},
                "args": {name: "variable" if leaf.requires_grad else "constant" for name, leaf in leaves.items()},
                "note": note,
            }
        )


def in_half(function, args, options, reduction):
    """PyTorch's results for arguments in half precision, computed in float32 and rounded once.

    In half precision itself PyTorch rounds after each operation where a loss is composed of several, and has no kernel
    for some losses.
    """
    results = {}
    for name, dtype in (("f16", torch.float16), ("bf16", torch.bfloat16)):
        half = lambda x: x.to(dtype).float() if torch.is_tensor(x) and x.is_floating_point() else x
        half_args, half_options = ({key: half(x) for key, x in d.items()} for d in (args, options))
        if reduction != "batchmean":
            results[f"value.{name}"] = function(**half_args, **half_options, reduction=reduction).to(dtype)
    return results


SHAPES = ((), (1,), (6,), (4, 3), (2, 3, 4), (2, 2, 1, 3))
DISTANCES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 1e4)


def regression(loss, function, options=({},)):
    x, y = pairs((*DISTANCES, *(-d for d in DISTANCES)), (0.0, 1.0))
    for option in options:
        for shape in SHAPES:
            case(loss, function, {"input": real(*shape, scale=2), "target": real(*shape)}, option)
        case(loss, function, {"input": x, "target": y}, option, note="corners and extremes")
        inf = {"input": values(INF, -INF, INF), "target": values(0, 0, 1)}
        case(loss, function, inf, option, ("none", "sum"), constant=("target",), note="infinite error")
        case(loss, function, {"input": real(5), "target": real(5)}, option, constant=("target",))


regression("L1Loss", F.l1_loss, ({},) * 2)
regression("MseLoss", F.mse_loss, ({},) * 2)
regression("SmoothL1Loss", F.smooth_l1_loss, [{"beta": beta} for beta in (1.0, 0.0, 0.5, 2.0)])
regression("HuberLoss", F.huber_loss, [{"delta": delta} for delta in (1.0, 0.25, 0.5, 2.0)])

# Binary classification.
for shape in SHAPES:
    case("BceLoss", F.binary_cross_entropy, {"input": uniform(*shape), "target": uniform(*shape)})
    case("BceWithLogitsLoss", F.binary_cross_entropy_with_logits, {"input": real(*shape, scale=3), "target": uniform(*shape)})
    case("SoftMarginLoss", F.soft_margin_loss, {"input": real(*shape, scale=3), "target": sign(*shape)}, constant=("target",))
for shape, weight in (((4, 3), (4, 3)), ((4, 3), (3,)), ((4, 3), (4, 1)), ((2, 3, 4), (3, 1)), ((5,), ()), ((), ())):
    w, pos = uniform(*weight, high=2), uniform(*weight, high=4)
    case("BceLoss", F.binary_cross_entropy, {"input": uniform(*shape), "target": coin(*shape)}, {"weight": w})
    args = {"input": real(*shape, scale=3), "target": uniform(*shape)}
    for options in ({"weight": w}, {"pos_weight": pos}, {"weight": w, "pos_weight": pos}):
        case("BceWithLogitsLoss", F.binary_cross_entropy_with_logits, args, options)
probability, target = pairs((0.0, 1e-30, 1e-12, 1e-6, 0.25, 0.5, 1 - 2**-20, 1.0), (0.0, 0.25, 1.0))
case("BceLoss", F.binary_cross_entropy, {"input": probability, "target": target}, constant=("target",), note="extremes")
inside = (probability > 0) & (probability < 1)
case("BceLoss", F.binary_cross_entropy, {"input": probability[inside], "target": target[inside]}, note="near extremes")
case("BceLoss", F.binary_cross_entropy, {"input": values(0, 1, 0, 1), "target": values(0, 1, 1, 0)}, reductions=("none",),
     note="infinite gradient of the target")
LOGITS = (-1e4, -200.0, -100.0, -20.0, -1.0, -1e-4, 0.0, 1e-4, 1.0, 20.0, 100.0, 200.0, 1e4)
logit, target = pairs(LOGITS, (0.0, 0.25, 1.0))
case("BceWithLogitsLoss", F.binary_cross_entropy_with_logits, {"input": logit, "target": target}, note="extremes")
case("BceWithLogitsLoss", F.binary_cross_entropy_with_logits, {"input": logit, "target": target},
     {"pos_weight": values(3.0)}, note="extremes")
score, side = pairs([x for x in LOGITS if abs(x) <= 200], (-1.0, 1.0))
case("SoftMarginLoss", F.soft_margin_loss, {"input": score, "target": side}, constant=("target",), note="extremes")
case("SoftMarginLoss", F.soft_margin_loss, {"input": real(4, 3), "target": real(4, 3)}, constant=("target",))
for shape in ((7,), (3, 5), (2, 2, 2), (10, 10)):
    case("SoftMarginLoss", F.soft_margin_loss, {"input": real(*shape, scale=9), "target": sign(*shape)}, constant=("target",))

for margin in (1.0, 0.0, 0.5, 2.0):
    for shape in SHAPES:
        args = {"input": real(*shape, scale=2), "target": sign(*shape)}
        case("HingeEmbeddingLoss", F.hinge_embedding_loss, args, {"margin": margin}, constant=("target",))
    distance, side = pairs((*DISTANCES, -1.0, -1e4), (-1.0, 1.0, 0.0, 0.5))
    args = {"input": distance, "target": side}
    case("HingeEmbeddingLoss", F.hinge_embedding_loss, args, {"margin": margin}, constant=("target",), note="corners")


# Classes.
def class_shapes(count=3):
    """Input shape and target shape: no batch, (N, C), (N, C, d1), (N, C, d1, d2), one sample, one class."""
    return [((count,), ()), ((5, count), (5,)), ((2, count, 4), (2, 4)), ((2, count, 2, 3), (2, 2, 3)),
            ((1, count), (1,)), ((4, 1), (4,))]  # fmt: skip


def class_losses(loss, function, logits, extra=({},)):
    for shape, target in class_shapes():
        dim = min(len(shape), 2) - 1
        count = shape[dim]
        x = real(*shape, scale=2)
        args = {"input": x if logits else torch.log_softmax(x, dim).float().double(), "target": classes(target, count)}
        weight = uniform(count, low=0.25, high=2)
        for more, options in itertools.product(extra, ({}, {"weight": weight}, {"ignore_index": 0},
                                                       {"weight": weight, "ignore_index": count - 1})):  # fmt: skip
            case(loss, function, args, options | more)
    x, gone = real(3, 4), torch.tensor([2, -100, -100])
    for more, reductions in itertools.product(extra, (("none", "sum"), ("mean",))):
        ignored = {"input": x, "target": torch.full((3,), -100)}
        case(loss, function, ignored, more, reductions, note="all ignored")
        case(loss, function, {"input": x, "target": gone}, more, reductions, note="two ignored")
    case(loss, function, {"input": x, "target": torch.tensor([0, 3, 1])}, {"weight": values(0, 1, 2, 3)}, note="weight 0")


class_losses("NllLoss", F.nll_loss, logits=False)
case("NllLoss", F.nll_loss, {"input": values(-1, -INF, -2).reshape(1, 3), "target": torch.tensor([1])}, {"ignore_index": 1},
     ("none", "sum"), note="an ignored infinity")
class_losses("CrossEntropyLoss", F.cross_entropy, logits=True, extra=({}, {"label_smoothing": 0.25}))
for label_smoothing in (0.0, 0.25, 1.0):
    x = values(1e4, -1e4, 0, 0, 0, 0, 500, 500, -500).reshape(3, 3)
    case("CrossEntropyLoss", F.cross_entropy, {"input": x, "target": torch.tensor([1, 2, 0])},
         {"label_smoothing": label_smoothing}, note="extremes")
    for shape in ((3,), (4, 3), (2, 3, 4), (2, 3, 2, 2)):
        args = {"input": real(*shape, scale=2), "target": distribution(*shape, dim=min(len(shape), 2) - 1)}
        weight = uniform(3, low=0.25, high=2)
        for options in ({}, {"weight": weight}):
            case("CrossEntropyLoss", F.cross_entropy, args, options | {"label_smoothing": label_smoothing}, note="probabilities")

for p, margin in itertools.product((1, 2), (1.0, 0.0, 0.5)):
    options = {"p": p, "margin": margin}
    for shape, target in (((3,), ()), ((3,), (1,)), ((5, 3), (5,)), ((1, 3), (1,)), ((4, 1), (4,))):
        args = {"input": real(*shape), "target": classes(target, shape[-1])}
        case("MultiMarginLoss", F.multi_margin_loss, args, options)
        case("MultiMarginLoss", F.multi_margin_loss, args, options | {"weight": uniform(shape[-1], high=2)})
    x = values(0.5, 0.5, -0.5, 0, 1, 0, 2, 0, 1, 1e4, -1e4, 0).reshape(4, 3)
    case("MultiMarginLoss", F.multi_margin_loss, {"input": x, "target": torch.tensor([0, 1, 2, 1])}, options, note="ties and met margins")

for shape in ((3,), (4, 3), (2, 3, 4), (1, 5), (10, 10)):
    args = {"input": real(*shape, scale=3), "target": coin(*shape)}
    case("MultiLabelSoftMarginLoss", F.multilabel_soft_margin_loss, args)
    case("MultiLabelSoftMarginLoss", F.multilabel_soft_margin_loss, args, {"weight": uniform(shape[-1], high=2)})
    case("MultiLabelSoftMarginLoss", F.multilabel_soft_margin_loss, args, {"weight": uniform(*shape, high=2)})
logit, target = pairs(LOGITS, (0.0, 0.25, 1.0))
args = {"input": logit.reshape(13, 3), "target": target.reshape(13, 3)}
case("MultiLabelSoftMarginLoss", F.multilabel_soft_margin_loss, args, note="extremes")


# Distributions.
for log_target in (False, True):
    for shape in (*SHAPES[1:], (10, 10)):
        x = torch.log_softmax(real(*shape), -1).float().double()
        y = torch.log_softmax(real(*shape), -1).float().double() if log_target else distribution(*shape)
        case("KlDivLoss", F.kl_div, {"input": x, "target": y}, {"log_target": log_target})
    scalar = {"input": values(-0.5)[0], "target": values(-0.25 if log_target else 0.75)[0]}
    case("KlDivLoss", F.kl_div, scalar, {"log_target": log_target})
x, y = pairs((-1e4, -20.0, -1.0, 0.0), (0.0, 1e-30, 0.5, 1.0))
case("KlDivLoss", F.kl_div, {"input": x, "target": y}, {"log_target": False}, constant=("target",), note="target 0")
x, y = pairs((-1e4, -20.0, -1.0, 0.0), (-1e4, -100.0, -1.0, 0.0))
case("KlDivLoss", F.kl_div, {"input": x, "target": y}, {"log_target": True}, note="extremes")

for log_input, full, eps in itertools.product((True, False), (False, True), (1e-8, 0.125)):
    options = {"log_input": log_input, "full": full, "eps": eps}
    for shape in SHAPES:
        x = real(*shape) if log_input else uniform(*shape, high=4)
        y = torch.floor(uniform(*shape, low=1, high=9))
        case("PoissonNllLoss", F.poisson_nll_loss, {"input": x, "target": y}, options)
    rates = (-1e4, -20.0, 0.0, 1.0, 20.0) if log_input else (0.0, 1e-12, 1.0, 1e4)
    x, y = pairs(rates, (0.0, 0.5, 1.0, 1.5, 2.0, 100.0))
    case("PoissonNllLoss", F.poisson_nll_loss, {"input": x, "target": y}, options, constant=("target",), note="extremes")

for full, eps in itertools.product((False, True), (1e-6, 0.125)):
    options = {"full": full, "eps": eps}
    for shape, var in (((), ()), ((6,), (6,)), ((6,), (1,)), ((6,), ()), ((4, 3), (4, 3)), ((4, 3), (4, 1)), ((4, 3), (4,)),
                       ((4, 3), (1, 3)), ((2, 3, 4), (2, 3)), ((2, 3, 4), (2, 1, 4)), ((3, 1), (3, 1))):  # fmt: skip
        args = {"input": real(*shape), "target": real(*shape), "var": uniform(*var, low=0.01, high=3)}
        case("GaussianNllLoss", F.gaussian_nll_loss, args, options)
    (x, var), y = pairs((-1e4, -1.0, 0.0, 1.0), (0.0, 1e-9, 1e-6, 0.125, 1e4)), torch.zeros(20).double()
    case("GaussianNllLoss", F.gaussian_nll_loss, {"input": x, "target": y, "var": var}, options, note="variance 0 and below eps")


def one_variance_for_all(input, target, var, **options):
    return F.gaussian_nll_loss(input, target, var.expand(input.shape), **options)


args = {"input": real(4, 3), "target": real(4, 3), "var": values(0.5)[0]}
case("GaussianNllLoss", one_variance_for_all, args, {"full": True, "eps": 1e-6}, note="scalar variance, a float in PyTorch")


# Embeddings and rankings.
for margin in (0.0, 0.5, 1.0):
    for shape in SHAPES:
        args = {"input1": real(*shape), "input2": real(*shape), "target": sign(*shape)}
        case("MarginRankingLoss", F.margin_ranking_loss, args, {"margin": margin})
    x1, x2 = pairs((0.0, 1.0, -0.5, 1e4), (0.0, 0.5, 1.0, -1e4))
    for side in (1.0, -1.0):
        args = {"input1": x1, "input2": x2, "target": torch.full_like(x1, side)}
        case("MarginRankingLoss", F.margin_ranking_loss, args, {"margin": margin}, note="corners and extremes")

for margin in (0.0, 0.5, -0.25):
    for shape, side in (((4,), ()), ((6, 3), (6,)), ((1, 3), (1,)), ((5, 1), (5,)), ((10, 10), (10,))):
        args = {"input1": real(*shape), "input2": real(*shape), "target": sign(*side)}
        case("CosineEmbeddingLoss", F.cosine_embedding_loss, args, {"margin": margin}, constant=("target",))
        args = {**args, "target": sign(*side).long()}
        case("CosineEmbeddingLoss", F.cosine_embedding_loss, args, {"margin": margin}, ("none", "mean"))
    x1 = values(0, 0, 0, 0, 1, 0, 2, 2, 1e4, 1, 1, 1, 3, 4).reshape(7, 2)
    x2 = values(0, 0, 1, 0, 0, 1, 2, 2, -1e4, 1, -1, -1, 4, 3).reshape(7, 2)
    for side in (1.0, -1.0, 0.0):
        args = {"input1": x1, "input2": x2, "target": torch.full((7,), side).double()}
        case("CosineEmbeddingLoss", F.cosine_embedding_loss, args, {"margin": margin}, constant=("target",), note="zero vectors and right angles")


def points(*shape):
    return {"anchor": real(*shape), "positive": real(*shape), "negative": real(*shape)}


EQUAL = {
    "anchor": values(0, 0, 0, 1, 1, 1, 0, 1, 2, 0, 0, 0).reshape(4, 3),
    "positive": values(0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0).reshape(4, 3),
    "negative": values(0, 0, 0, 3, 1, 1, 0, 0, -1, 1, 0, 0).reshape(4, 3),
}
for p, swap in itertools.product((2.0, 1.0, 0.5, 1.5, 3.0, INF), (False, True)):
    for shape in ((4,), (5, 3), (1, 1), (2, 3, 4)):
        options = {"margin": 1.0, "p": p, "eps": 1e-6, "swap": swap}
        case("TripletMarginLoss", F.triplet_margin_loss, points(*shape), options)
    options = {"margin": 1.0, "p": p, "eps": 0.0, "swap": swap}
    case("TripletMarginLoss", F.triplet_margin_loss, EQUAL, options, note="distances of 0 and margins met exactly")
for margin, eps in ((0.25, 1e-6), (3.0, 0.125)):
    options = {"margin": margin, "p": 2.0, "eps": eps, "swap": False}
    case("TripletMarginLoss", F.triplet_margin_loss, points(6, 3), options)


def manhattan(u, v):
    return (u - v).abs().sum(-1)


for distance, swap, margin in itertools.product((None, manhattan), (False, True), (1.0, 0.25, 3.0)):

    def with_distance(anchor, positive, negative, distance, **options):
        function = manhattan if distance else None
        return F.triplet_margin_with_distance_loss(anchor, positive, negative, distance_function=function, **options)

    options = {"distance": distance is not None, "margin": margin, "swap": swap}
    for shape in ((4,), (5, 3), (2, 3, 4)):
        case("TripletMarginWithDistanceLoss", with_distance, points(*shape), options)
    if distance:
        case("TripletMarginWithDistanceLoss", with_distance, EQUAL, options, note="distances of 0 and margins met exactly")


def lists(rows, count):
    """A list of classes for each row, ended by -1, with more behind it."""
    target = torch.full((rows, count), -1)
    for row in target:
        labels = torch.randperm(count, generator=random)[: int(torch.randint(0, count + 1, (), generator=random))]
        row[: len(labels)] = labels
    return target


for count in (1, 2, 4, 10):
    for rows in (1, 3, 6):
        args = {"input": real(rows, count), "target": lists(rows, count)}
        case("MultiLabelMarginLoss", F.multilabel_margin_loss, args)
    case("MultiLabelMarginLoss", F.multilabel_margin_loss, {"input": real(count), "target": lists(1, count)[0]})
case("MultiLabelMarginLoss", F.multilabel_margin_loss, {"input": real(), "target": torch.tensor(0)})
tied = values(0, 1, 0, 2, 2, 2, 1, 0, 1e4, -1e4, 3, 3).reshape(3, 4)
for target in ([[1, -1, 0, 0], [0, 3, -1, 1], [0, 0, 2, -1]], [[3, 2, 1, 0], [-1, -1, -1, -1], [1, 1, 1, 1]]):
    args = {"input": tied, "target": torch.tensor(target)}
    case("MultiLabelMarginLoss", F.multilabel_margin_loss, args, note="ties, leads of 1, repeated classes, no class")

# Sequences.
for zero_infinity, blank in itertools.product((False, True), (0, 2)):
    options = {"blank": blank, "zero_infinity": zero_infinity}
    labels = [label for label in range(5) if label != blank]

    def some(*shape):
        return torch.tensor(labels)[torch.randint(0, 4, shape, generator=random)]

    for steps, target_lengths, input_lengths in ((12, [3, 1, 4], [12, 12, 12]), (12, [3, 0, 5], [10, 1, 12]), (1, [1, 0], [1, 1]),
                                                 (6, [0, 0], [6, 3]), (8, [2], [7])):  # fmt: skip
        log_p = torch.log_softmax(real(steps, len(target_lengths), 5), 2).float().double()
        padded = some(len(target_lengths), max(max(target_lengths), 1))
        joined = torch.cat([row[:length] for row, length in zip(padded, target_lengths)])
        lengths = {"input_lengths": torch.tensor(input_lengths), "target_lengths": torch.tensor(target_lengths)}
        for targets in (padded, joined):
            if len(targets):
                case("CtcLoss", F.ctc_loss, {"log_probs": log_p, "targets": targets, **lengths}, options)
    lengths = {"input_lengths": torch.tensor(9), "target_lengths": torch.tensor(3)}
    log_p = torch.log_softmax(real(9, 5), 1).float().double()
    case("CtcLoss", F.ctc_loss, {"log_probs": log_p, "targets": some(3), **lengths}, options, note="no batch")
    repeated = torch.tensor([[labels[0]] * 4, [labels[1], labels[1], labels[0], labels[0]]])
    lengths = {"input_lengths": torch.tensor([7, 6]), "target_lengths": torch.tensor([4, 4])}
    log_p = torch.log_softmax(real(7, 2, 5), 2).float().double()
    case("CtcLoss", F.ctc_loss, {"log_probs": log_p, "targets": repeated, **lengths}, options, note="just long enough")
    log_p = torch.log_softmax(real(5, 2, 5), 2).float().double()
    lengths = {"input_lengths": torch.tensor([5, 5]), "target_lengths": torch.tensor([4, 2])}
    # PyTorch's gradient of an impossible target is NaN unless it is dropped; ours is 0, which a unit test holds.
    args = {"log_probs": log_p, "targets": repeated, **lengths}
    case("CtcLoss", F.ctc_loss, args, options, constant=() if zero_infinity else ("log_probs",), note="an impossible target")
    sure = torch.log_softmax(real(6, 2, 5) * 20, 2).float().double()
    lengths = {"input_lengths": torch.tensor([6, 6]), "target_lengths": torch.tensor([2, 1])}
    case("CtcLoss", F.ctc_loss, {"log_probs": sure, "targets": repeated, **lengths}, options, note="sure predictions")

# Linear layers with their criterion.
for n, d, c in ((5, 3, 4), (1, 2, 2), (7, 4, 1), (33, 2, 6)):
    for bias in (False, True):
        args = {"input": real(n, d), "linear_weight": real(c, d)}
        args |= {"linear_bias": real(c)} if bias else {}
        target, weight = classes((n,), c), uniform(c, low=0.5, high=2)
        some_ignored = torch.where(torch.arange(n) % 3 == 1, 0, target)
        for options in ({}, {"label_smoothing": 0.25}, {"weight": weight}, {"weight": weight, "label_smoothing": 0.1}):
            case("LinearCrossEntropyLoss", F.linear_cross_entropy, args | {"target": target}, options)
        options = {"ignore_index": 0, "weight": weight, "label_smoothing": 0.1}
        case("LinearCrossEntropyLoss", F.linear_cross_entropy, args | {"target": some_ignored}, options, ("none", "sum"))
        shares = distribution(n, c)
        for options in ({}, {"weight": weight, "label_smoothing": 0.1}):
            args_ = args | {"target": shares}
            case("LinearCrossEntropyLoss", F.linear_cross_entropy, args_, options, constant=("target",))


def adaptive(input, target, cutoffs, reduction, **weights):
    clusters = len(cutoffs)
    names = {"head": "head.weight", "head_bias": "head.bias"}
    names |= {f"projection{i}": f"tail.{i}.0.weight" for i in range(clusters)}
    names |= {f"classes{i}": f"tail.{i}.1.weight" for i in range(clusters)}
    count = cutoffs[-1] + weights[f"classes{clusters - 1}"].shape[0]
    module = torch.nn.AdaptiveLogSoftmaxWithLoss(input.shape[-1], count, cutoffs, 2.0, "head_bias" in weights)
    module.to(input.dtype)
    output = torch.func.functional_call(module, {names[name]: weight for name, weight in weights.items()}, (input, target))
    return output.output if reduction == "none" else output.loss


for cutoffs, count in (([2], 5), ([3, 5], 11), ([1, 2, 9], 12)):
    for bias in (False, True):
        edges = [*cutoffs, count]
        args = {"head": real(cutoffs[0] + len(cutoffs), 8)} | ({"head_bias": real(cutoffs[0] + len(cutoffs))} if bias else {})
        for i in range(len(cutoffs)):
            width = 8 // 2 ** (i + 1)
            args |= {f"projection{i}": real(width, 8), f"classes{i}": real(edges[i + 1] - edges[i], width)}
        for target in (classes((6,), count), torch.arange(count), torch.zeros(3, dtype=torch.long), classes((), count)):
            x = {"input": real(*target.shape, 8), "target": target}
            # A cluster that nobody is in has no gradient at all in PyTorch.
            used = {i for t in target.reshape(-1).tolist() for i in range(len(cutoffs)) if edges[i] <= t < edges[i + 1]}
            idle = [f"{part}{i}" for i in range(len(cutoffs)) if i not in used for part in ("projection", "classes")]
            case("AdaptiveLogSoftmaxWithLoss", adaptive, x | args, {"cutoffs": cutoffs}, ("none", "mean"), constant=idle)

save_file(tensors, HERE / "cases.safetensors")
lines = ",\n".join(json.dumps(entry) for entry in cases)
(HERE / "cases.json").write_text(f'{{"torch": "{torch.__version__}", "cases": [\n{lines}\n]}}\n')
counts = {loss: sum(entry["loss"] == loss for entry in cases) for loss in sorted({entry["loss"] for entry in cases})}
print(len(cases), counts)
