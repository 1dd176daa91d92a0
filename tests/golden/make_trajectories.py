"""Writes trajectories.safetensors: the losses of 500 training steps in PyTorch, for tests/trajectories.rs to follow.

    pip install torch safetensors numpy
    cargo build --examples
    python tests/golden/make_trajectories.py --data-dir DIR

DIR holds MNIST's four IDX files. Each run starts from the weights that the example draws and takes the samples in order.
"""
import argparse
import gzip
import pathlib
import subprocess
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
STEPS, BATCH = 500, 10
TAGS = torch.zeros(10, 10)
TAGS[:5, [3, 7]] = 1
TAGS[5:8, [0, 3, 7]] = 1
TAGS[8:, [4, 7, 8]] = 1


def column(y):
    return y.float().unsqueeze(1)


def gaussian(output, y):
    return F.gaussian_nll_loss(output[:, :1], column(y), output[:, 1:].exp())


def smoothed(y):
    return 0.9 * F.one_hot(y, 10) + 0.01


# Outputs, what follows the last layer, loss of the outputs and the labels.
DIGITS = {
    "nll": (10, nn.LogSoftmax(1), F.nll_loss),
    "cross_entropy": (10, nn.Identity(), F.cross_entropy),
    "poisson_nll": (1, nn.Identity(), lambda output, y: F.poisson_nll_loss(output, column(y))),
    "gaussian_nll": (2, nn.Identity(), gaussian),
    "multi_margin": (10, nn.LogSoftmax(1), F.multi_margin_loss),
    "multilabel_soft_margin": (10, nn.Identity(), lambda output, y: F.multilabel_soft_margin_loss(output, TAGS[y])),
    "kl_div": (10, nn.LogSoftmax(1), lambda output, y: F.kl_div(output, smoothed(y), reduction="batchmean")),
}
BOSTON = {"l1": F.l1_loss, "mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss, "huber": F.huber_loss}


def idx(folder, name, offset):
    path = folder / name
    raw = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(name + ".gz").read_bytes())
    return torch.from_numpy(np.frombuffer(raw, np.uint8)[offset:].copy())


def digits(folder):
    labels = idx(folder, "train-labels-idx1-ubyte", 8).long()
    return idx(folder, "train-images-idx3-ubyte", 16).reshape(len(labels), 784).float() / 255, labels


def boston():
    rows = np.loadtxt(ROOT / "assets/boston_housing.csv", delimiter=",", skiprows=1)
    features, price = rows[:, :-1], rows[:, -1:]
    features = (features - features.mean(0)) / features.std(0)
    return torch.tensor(features, dtype=torch.float32), torch.tensor(price, dtype=torch.float32)


def drawn(name, options):
    """The weights that an example starts with."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/weights.safetensors"
        subprocess.run([ROOT / "target/debug/examples" / name, "--epochs", "0", "--save", path, *options], check=True, stdout=subprocess.DEVNULL)
        return load_file(path)


def train(layers, weights, x, y, loss):
    model = nn.Sequential(*layers)
    model.load_state_dict({name.removeprefix("layers."): tensor for name, tensor in weights.items()})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses = []
    while True:
        for start in range(0, len(x), BATCH):
            optimizer.zero_grad()
            value = loss(model(x[start : start + BATCH]), y[start : start + BATCH])
            value.backward()
            optimizer.step()
            losses.append(value.item())
            if len(losses) == STEPS:
                return torch.tensor(losses)


def hidden(inputs, outputs):
    return nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, outputs)


parser = argparse.ArgumentParser()
parser.add_argument("--data-dir", type=pathlib.Path, required=True)
folder = parser.parse_args().data_dir
runs = {}
for name, (outputs, last, loss) in DIGITS.items():
    weights = drawn(name, ["--data-dir", folder])
    runs[name] = train([nn.Flatten(), *hidden(784, outputs), last], weights, *digits(folder), loss)
for name, loss in BOSTON.items():
    weights = drawn(name, ["--test-fraction", "0"])
    runs[name] = train(hidden(13, 1), weights, *boston(), loss)
save_file(runs, HERE / "trajectories.safetensors")
print({name: (round(run[0].item(), 4), round(run[-1].item(), 4)) for name, run in runs.items()})
