"""The PyTorch side of `make bench-vs-pytorch`: the same losses and training steps, as JSON lines like ours.

`{"loss", "size", "us"}` for the losses, `{"step", "batch", "us"}` for the steps. Needs: pip install torch
"""

import json
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F


def median_us(run, seconds=0.5, least=8, most=5000):
    """As benches/losses.rs does it: for about half a second, the first three runs not counted."""
    times, start = [], time.perf_counter()
    while len(times) < least or (time.perf_counter() - start < seconds and len(times) < most):
        began = time.perf_counter()
        run()
        times.append((time.perf_counter() - began) * 1e6)
    return statistics.median(times[3:])


def losses(rows, columns):
    scores = torch.randn(rows, columns, requires_grad=True)
    probabilities = torch.empty(rows, columns).uniform_(0.01, 0.99).requires_grad_()
    log_probabilities = torch.randn(rows, columns).log_softmax(1).requires_grad_()
    classes = torch.arange(rows) % columns
    zero_one, real = torch.rand(rows, columns).round(), torch.rand(rows, columns)
    sign, variance = 2 * zero_one - 1, torch.rand(rows, columns) + 0.1
    distribution = torch.randn(rows, columns).softmax(1)
    return {
        "l1": (scores, lambda x: F.l1_loss(x, real)),
        "mse": (scores, lambda x: F.mse_loss(x, real)),
        "smooth_l1": (scores, lambda x: F.smooth_l1_loss(x, real)),
        "huber": (scores, lambda x: F.huber_loss(x, real)),
        "bce": (probabilities, lambda x: F.binary_cross_entropy(x, zero_one)),
        "bce_with_logits": (scores, lambda x: F.binary_cross_entropy_with_logits(x, zero_one)),
        "nll": (log_probabilities, lambda x: F.nll_loss(x, classes)),
        "cross_entropy": (scores, lambda x: F.cross_entropy(x, classes)),
        "poisson_nll": (scores, lambda x: F.poisson_nll_loss(x, zero_one)),
        "hinge_embedding": (scores, lambda x: F.hinge_embedding_loss(x, sign)),
        "soft_margin": (scores, lambda x: F.soft_margin_loss(x, sign)),
        "multi_margin": (scores, lambda x: F.multi_margin_loss(x, classes)),
        "multilabel_soft_margin": (scores, lambda x: F.multilabel_soft_margin_loss(x, zero_one)),
        "kl_div": (log_probabilities, lambda x: F.kl_div(x, distribution, reduction="batchmean")),
        "gaussian_nll": (scores, lambda x: F.gaussian_nll_loss(x, real, variance)),
    }


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
    torch.manual_seed(0)
    versions = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    print(json.dumps(versions), flush=True)
    images, classes = torch.rand(60_000, 784), torch.randint(10, (60_000,))
    for batch in (10, 64, 512):
        print(json.dumps({"step": "in memory", "batch": batch, "us": in_memory(images, classes, batch)}), flush=True)
    print(json.dumps({"step": "tutorial", "batch": 10, "us": tutorial_loop(images, classes, 10)}), flush=True)
    for rows, columns in ((10, 10), (64, 10), (512, 1000), (4096, 1000)):
        for name, (input, loss) in losses(rows, columns).items():

            def run():
                input.grad = None
                loss(input).backward()

            print(json.dumps({"loss": name, "size": f"{rows}x{columns}", "us": median_us(run)}), flush=True)


if __name__ == "__main__":
    main()
