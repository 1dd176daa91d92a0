"""The PyTorch side of `make bench-vs-pytorch`: the same losses and training steps, as JSON lines like ours.

`{"loss", "case", "size", "dtype", "us"}` for the losses, `{"step", "batch", "us"}` for the steps. The options are those
of benches/losses.rs. Needs: pip install torch
"""

import argparse
import json
import pathlib
import re
import statistics
import sys
import time

import cells
import torch
from torch import nn
from torch.nn import functional as F


DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32, "f64": torch.float64}


def median_us(run, seconds, least=8, most=5000):
    """As benches/losses.rs does it: for about so long, the first three runs not counted."""
    times, start = [], time.perf_counter()
    while len(times) < least or (time.perf_counter() - start < seconds and len(times) < most):
        began = time.perf_counter()
        run()
        times.append((time.perf_counter() - began) * 1e6)
    return statistics.median(times[3:])


def numbers(seed, dims, dtype, make):
    """A tensor, each element made from a number in [0, 1) that looks drawn, and is the same in benches/losses/cells.rs.

    It is filled piece by piece, so that making it leaves no memory behind that a loss could take unnoticed.
    """
    golden, mask, piece = 2_654_435_769, 2**32 - 1, 8192
    tensor = torch.empty(dims, dtype=dtype)
    flat = tensor.view(-1)
    for start in range(0, len(flat), piece):
        x = (torch.arange(start, min(start + piece, len(flat))) + (seed << 24)) * golden & mask
        x = (x ^ (x >> 15)) * golden & mask
        flat[start : start + piece] = make((x ^ (x >> 15)).double() / 2**32)
    return tensor


def prepare(cell):
    """The tensors that want a gradient, and the function that makes the loss of them."""
    case, dims, dtype = cell.case, cell.dims, DTYPES[cell.dtype]
    rows, columns = dims[:2]
    reduction = "none" if case == "none" else "batchmean" if cell.loss == "kl_div" else "mean"

    # The data: each seed is another tensor.
    def uniform(seed, dims, low, high):
        return numbers(seed, dims, dtype, lambda u: low + (high - low) * u)

    def scores(seed):
        return uniform(seed, dims, -2, 2).requires_grad_()

    def log_probabilities(seed):
        return uniform(seed, dims, -8, 0)

    def real():
        return uniform(2, dims, 0, 1)

    def whole(below):
        return numbers(2, dims, dtype, lambda u: (below * u).floor())

    def sign(dims):
        return numbers(4, dims, dtype, lambda u: 2 * (u >= 0.5) - 1)

    def distribution():
        return uniform(2, dims, 0, 2 / columns)

    def integers(dims, make):
        return numbers(3, dims, torch.int64, lambda u: make(u).floor())

    def classes():
        return integers([rows, *dims[2:]], lambda u: u * columns)

    def weight(option, dims):
        return uniform(5, dims, 0.5, 1.5) if case == option else None

    def one(loss, x, y, **options):
        """A loss with one input, or with two where the target is tracked as well."""
        tracked = [x, y.requires_grad_()] if case == "tracked" else [x]
        return tracked, lambda: loss(x, y, reduction=reduction, **options)

    match cell.loss:
        case "l1":
            return one(F.l1_loss, scores(1), real())
        case "mse" if case == "strided":
            x, y = uniform(1, [columns, rows], -2, 2).requires_grad_(), real()
            return [x], lambda: F.mse_loss(x.t(), y)
        case "mse":
            return one(F.mse_loss, scores(1), real())
        case "smooth_l1":
            return one(F.smooth_l1_loss, scores(1), real())
        case "huber":
            return one(F.huber_loss, scores(1), real())
        case "bce":
            probabilities = uniform(1, dims, 0.01, 0.99).requires_grad_()
            return one(F.binary_cross_entropy, probabilities, whole(2), weight=weight("weight", dims))
        case "bce_with_logits":
            weights = {"weight": weight("weight", dims), "pos_weight": weight("pos_weight", dims[1:])}
            return one(F.binary_cross_entropy_with_logits, scores(1), whole(2), **weights)
        case "nll":
            return one(F.nll_loss, log_probabilities(1).requires_grad_(), classes())
        case "cross_entropy":
            return one(
                F.cross_entropy,
                scores(1),
                distribution() if case == "probabilities" else classes(),
                weight=weight("weight", [columns]),
                ignore_index=0 if case == "ignore_index" else -100,
                label_smoothing=0.1 if case == "smoothing" else 0.0,
            )
        case "poisson_nll":
            return one(F.poisson_nll_loss, scores(1), whole(5), full=case == "full")
        case "hinge_embedding":
            return one(F.hinge_embedding_loss, scores(1), sign(dims))
        case "soft_margin":
            return one(F.soft_margin_loss, scores(1), sign(dims))
        case "multi_margin":
            return one(F.multi_margin_loss, scores(1), classes(), p=2 if case == "p2" else 1)
        case "multilabel_soft_margin":
            return one(F.multilabel_soft_margin_loss, scores(1), whole(2), weight=weight("weight", [columns]))
        case "multilabel_margin":
            # Three classes that follow each other, then -1.
            first = integers([rows], lambda u: u * (columns - 2))
            list_ = torch.full(dims, -1)
            list_[:, :3] = first[:, None] + torch.arange(3)
            return one(F.multilabel_margin_loss, scores(1), list_)
        case "kl_div":
            log_target = case == "log_target"
            target = log_probabilities(2) if log_target else distribution()
            return one(F.kl_div, log_probabilities(1).requires_grad_(), target, log_target=log_target)
        case "gaussian_nll":
            x, y, var = scores(1), real(), uniform(6, dims, 0.1, 1.1).requires_grad_(case == "var")
            return [x, var] if case == "var" else [x], lambda: F.gaussian_nll_loss(x, y, var)
        case "margin_ranking":
            x, other, y = scores(1), scores(2), sign(dims)
            return [x, other], lambda: F.margin_ranking_loss(x, other, y)
        case "cosine_embedding":
            x, other, y = scores(1), scores(2), sign([rows])
            return [x, other], lambda: F.cosine_embedding_loss(x, other, y)
        case "triplet_margin":
            x, swap = [scores(1), scores(2), scores(3)], case == "swap"
            return x, lambda: F.triplet_margin_loss(*x, swap=swap)
        case "triplet_margin_with_distance":
            x = [scores(1), scores(2), scores(3)]
            return x, lambda: F.triplet_margin_with_distance_loss(*x)
        case "ctc":
            steps, sequences, count = dims
            labels = {17: 5, 50: 10}.get(steps, 50)
            x = scores(1).detach().log_softmax(2).requires_grad_()
            y = integers([sequences, labels], lambda u: 1 + u * (count - 1))
            lengths = torch.full([sequences], steps), torch.full([sequences], labels)
            return [x], lambda: F.ctc_loss(x, y, *lengths)
        case "linear_cross_entropy":
            _, width, count = dims
            x = uniform(1, [rows, width], -2, 2).requires_grad_()
            layer = [uniform(seed, dims, -0.1, 0.1).requires_grad_() for seed, dims in ((7, [count, width]), (8, [count]))]
            y = integers([rows], lambda u: u * count)
            return [x, *layer], lambda: F.cross_entropy(F.linear(x, *layer), y)
        case "adaptive_log_softmax":
            _, width, count = dims
            x = uniform(1, [rows, width], -2, 2).requires_grad_()
            module = nn.AdaptiveLogSoftmaxWithLoss(width, count, [100, 1000])
            layers = list(module.parameters())
            with torch.no_grad():
                for seed, layer in enumerate(layers, start=7):
                    layer.copy_(uniform(seed, layer.shape, -0.1, 0.1))
            # The first of the classes are the most frequent.
            y = integers([rows], lambda u: u * u * u * count)
            return [x, *layers], lambda: module(x, y).loss
        case other:
            sys.exit(f"{other} is in cells.txt only")


def figures(cell, options):
    """What is asked of the cell: how long it takes, what comes out or how much memory it takes."""
    tracked, loss = prepare(cell)

    def run():
        for x in tracked:
            x.grad = None
        value = loss()
        value = value.sum() if value.dim() else value
        value.backward()
        return value

    if options.values:
        return {"value": run().item(), "slopes": sum(x.grad.double().abs().sum().item() for x in tracked)}
    if options.memory:
        return peak_kib(lambda: [run() for _ in range(3)])
    return {"us": median_us(run, options.seconds)}


def peak_kib(run):
    """How far `run` raises the peak of what is resident, as benches/losses.rs does it."""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return {}

    def peak():
        return int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1])

    torch.ones(2, requires_grad=True).sum().backward()  # loads what the first backward would
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    run()
    return {"peak_kib": peak() - before}


class Single(torch.utils.data.Dataset):
    """One image at a time, as the tutorial's data set gives them."""

    def __init__(self, images, classes):
        self.images, self.classes = images, classes

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], self.classes[i]


def training(**adam):
    """The tutorial's model and a function that takes one step of it."""
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, **adam)

    def step(inputs, targets):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def in_memory(images, classes, batch):
    step, order, at = training(fused=True), torch.randperm(len(images)), 0

    def run():
        nonlocal at
        rows = order[at : at + batch]
        at = (at + batch) % (len(images) - len(images) % batch)
        step(images[rows], classes[rows])

    return median_us(run, seconds=2)


def tutorial_loop(images, classes, batch, steps=1000):
    """Mean over the steps of an epoch, its loader's start and end not counted."""
    loader = torch.utils.data.DataLoader(Single(images, classes), batch_size=batch, shuffle=True, num_workers=1)
    step, start, done = training(), None, 0
    for inputs, targets in loader:
        step(inputs, targets)
        if start is None:
            start = time.perf_counter()
        else:
            done += 1
        if done == steps:
            break
    return (time.perf_counter() - start) / done * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--values", action="store_true")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    wanted = [cell for section in cells.read(options.all or options.memory, options.name).values() for cell in section]
    if not wanted or (options.memory and len(wanted) > 1):
        sys.exit(f"{len(wanted)} of the cells in benches/cells.txt are named so")
    torch.manual_seed(0)
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    if not (options.name or options.values):
        steps()
    for cell in wanted:
        print(json.dumps(cell._asdict() | figures(cell, options)), flush=True)


def steps():
    images, classes = torch.rand(60_000, 784), torch.randint(10, (60_000,))
    for batch in (10, 64, 512):
        print(json.dumps({"step": "in memory", "batch": batch, "us": in_memory(images, classes, batch)}), flush=True)
    print(json.dumps({"step": "tutorial", "batch": 10, "us": tutorial_loop(images, classes, 10)}), flush=True)


if __name__ == "__main__":
    main()
