"""A job small enough for tests: a two-layer network on handwritten digits."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import milon

torch.manual_seed(1)
images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(labels))
rows = torch.tensor(images, dtype=torch.float32)[order] / 16
digits = torch.tensor(labels)[order]

job = milon.Job(
    name="small",
    model=nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
    loss=nn.functional.cross_entropy,
    optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.2),
    train=(rows[:1437], digits[:1437]),
    evaluation=(rows[1437:], digits[1437:]),
    rounds=4,
    segments_per_round=8,
    steps_per_segment=5,
)
