"""Handwritten digits: a small convolutional network, trained by machines that do not trust each other."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import milon

torch.manual_seed(1)
images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(labels))
rows = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8)[order] / 16
digits = torch.tensor(labels)[order]

model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Dropout(0.2),
    nn.Linear(32 * 4 * 4, 10),
)

job = milon.Job(
    name="digits",
    model=model,
    loss=nn.functional.cross_entropy,
    optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    train=(rows[:1437], digits[:1437]),
    evaluation=(rows[1437:], digits[1437:]),
    rounds=5,
    segments_per_round=20,
    steps_per_segment=8,
)
