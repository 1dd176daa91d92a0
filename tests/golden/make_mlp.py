"""Writes mlp.safetensors, a model's state_dict as PyTorch saves it, and mlp_outputs.safetensors, what it computes.

    pip install torch safetensors numpy
    python tests/golden/make_mlp.py
"""
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn

HERE = pathlib.Path(__file__).parent


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.LogSoftmax(1)
        )

    def forward(self, x):
        return self.layers(x)


torch.manual_seed(0)
model, images = Mlp(), torch.rand(7, 3, 4)
save_file(model.state_dict(), HERE / "mlp.safetensors")
save_file({"input": images, "output": model(images).detach()}, HERE / "mlp_outputs.safetensors")
