"""Writes training.safetensors: steps of PyTorch's Adam and AdamW, and training with accumulated gradients.

    pip install torch safetensors numpy
    python tests/golden/make_training.py
"""
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
STEPS = 12
SHAPES = {"always": (3, 4), "late": (5,), "rarely": (2, 2)}
# The steps, from 1, at which each variable has a gradient.
HAS_GRADIENT = {"always": range(1, STEPS + 1), "late": range(4, STEPS + 1), "rarely": (2, 7, 11)}
OPTIMIZERS = {
    "adam": lambda x: torch.optim.Adam(x, lr=0.1),
    "adam_l2": lambda x: torch.optim.Adam(x, lr=0.05, betas=(0.8, 0.99), eps=1e-3, weight_decay=0.1),
    "adamw": lambda x: torch.optim.AdamW(x, lr=0.05, betas=(0.8, 0.99), eps=1e-3, weight_decay=0.1),
}
tensors = {}


def steps(dtype):
    """Each optimizer on fixed gradients: the variables after each step, and the state after the last one.

    Half precision has a copy in f32, which takes the steps; the variable is this copy, rounded.
    """
    name = {torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    torch.manual_seed(1)
    start = {key: torch.randn(shape, dtype=torch.float64).to(dtype) for key, shape in SHAPES.items()}
    grads = {key: (torch.randn(STEPS, *shape, dtype=torch.float64) * 0.1).to(dtype) for key, shape in SHAPES.items()}
    for key in SHAPES:
        tensors[f"{name}.{key}.start"], tensors[f"{name}.{key}.grads"] = start[key], grads[key]
    for optimizer, make in OPTIMIZERS.items():
        x = {key: value.to(compute).clone().requires_grad_() for key, value in start.items()}
        opt = make(list(x.values()))
        after = {key: [] for key in SHAPES}
        for step in range(1, STEPS + 1):
            for key in SHAPES:
                has_gradient = step in HAS_GRADIENT[key]
                x[key].grad = grads[key][step - 1].to(compute) if has_gradient else None
            opt.step()
            for key in SHAPES:
                after[key].append(x[key].detach().to(dtype, copy=True))
        for key in SHAPES:
            tensors[f"{name}.{key}.{optimizer}"] = torch.stack(after[key])
            for moment in ("exp_avg", "exp_avg_sq"):
                tensors[f"{name}.{key}.{optimizer}.{moment}"] = opt.state[x[key]][moment]


def accumulation():
    """Token classification with padding and class weights: each step on one batch of six sequences, with clipping.

    The same six sequences in batches of two must give the same steps, although each batch has another number of tokens.
    """
    torch.manual_seed(2)
    sequences, length, features, classes = 12, 5, 4, 3
    x = torch.randn(sequences, length, features, dtype=torch.float64)
    y = torch.randint(classes, (sequences, length))
    for row, tokens in enumerate([5, 1, 2, 0, 4, 3, 0, 0, 5, 5, 1, 1]):
        y[row, tokens:] = -100
    class_weight = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    weight = torch.randn(classes, features, dtype=torch.float64).requires_grad_()
    tensors.update({"padded.x": x, "padded.y": y, "padded.class_weight": class_weight, "padded.start": weight.detach().clone()})
    opt = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.01)
    after, norms, losses = [], [], []
    for _ in range(3):
        for start in range(0, sequences, 6):
            logits = x[start : start + 6] @ weight.T
            loss = F.cross_entropy(logits.transpose(1, 2), y[start : start + 6], weight=class_weight)
            opt.zero_grad()
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_([weight], 0.1))
            opt.step()
            after.append(weight.detach().clone())
            losses.append(loss.detach())
    with torch.no_grad():
        mean = F.cross_entropy((x @ weight.T).transpose(1, 2), y, weight=class_weight)
    tensors.update({"padded.after": torch.stack(after), "padded.losses": torch.stack(losses), "padded.mean": mean})
    assert min(norms) > 0.1, "each step is clipped"


for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    steps(dtype)
accumulation()
save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / "training.safetensors")
