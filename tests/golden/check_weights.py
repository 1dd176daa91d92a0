"""Checks that weights go both ways: a model trained here computes the same in PyTorch, and one trained there, here.

    pip install torch safetensors numpy
    cargo build --examples
    python tests/golden/check_weights.py

Each side's loss of every single row of the Boston housing data is compared, to 1e-5 of its size. To be run by hand.
"""
import csv
import pathlib
import subprocess
import tempfile

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

ROOT = pathlib.Path(__file__).parent.parent.parent


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x):
        return self.layers(x)


def l1(*options):
    command = [ROOT / "target/debug/examples/l1", "--test-fraction", "0", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def losses_here(weights, log):
    # A row per step, and a step too small to move a weight.
    l1("--init", weights, "--no-shuffle", "--batch-size", "1", "--epochs", "1", "--lr", "1e-30", "--log", log)
    return torch.tensor([float(row["loss"]) for row in csv.DictReader(open(log))])


rows = np.loadtxt(ROOT / "assets/boston_housing.csv", delimiter=",", skiprows=1)
features, price = rows[:, :-1], torch.tensor(rows[:, -1:], dtype=torch.float32)
features = torch.tensor((features - features.mean(0)) / features.std(0), dtype=torch.float32)


def compare(model, weights, log):
    there = (model(features) - price).abs().detach().flatten()
    worst = ((losses_here(weights, log) - there).abs() / there.clamp_min(1)).max().item()
    assert worst < 1e-5, worst
    return worst


with tempfile.TemporaryDirectory() as folder:
    ours, theirs, log = (f"{folder}/{name}" for name in ("ours.safetensors", "theirs.safetensors", "log.csv"))
    l1("--epochs", "50", "--lr", "1e-3", "--save", ours)
    model = Mlp()
    model.load_state_dict(load_file(ours))
    print(f"trained here, computed in PyTorch: differs by {compare(model, ours, log):.1e}")

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.l1_loss(model(features), price).backward()
        optimizer.step()
    save_file(model.state_dict(), theirs)
    print(f"trained in PyTorch, computed here: differs by {compare(model, theirs, log):.1e}")
