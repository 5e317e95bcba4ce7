"""Ordinary PyTorch models, one of each kind that people train: what capture, equality and golden vectors are tried on.

Nothing here knows of Milon: these are the files a user would have. Sizes are small; each takes its own as arguments.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Perceptron(nn.Sequential):
    """Three linear layers over rows of numbers."""

    def __init__(self, inputs: int = 12, width: int = 24, classes: int = 5) -> None:
        super().__init__(
            nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes)
        )


class ConvolutionNet(nn.Sequential):
    """Convolutions with batch normalisation and dropout over images [batch, 1, 8, 8]."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        super().__init__(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(0.1),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(2 * width * 16, classes),
        )  # fmt: skip


class ResidualBlock(nn.Module):
    """Two convolutions and a way around them (He et al. 2016, section 3.3)."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outer)
        self.second = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outer)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.around = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, images: Tensor) -> Tensor:
        held = functional.relu(self.first_norm(self.first(images)))
        held = self.second_norm(self.second(held))
        return functional.relu(held + self.around(images))


class ResNet18(nn.Module):
    """Eighteen layers for small images: a 3x3 stem, four stages of two blocks; `width` is 64 in the paper."""

    def __init__(self, width: int = 4, classes: int = 5, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        stages: list[nn.Module] = []
        inner = width
        for stage in range(4):
            outer, stride = width << stage, 1 if stage == 0 else 2
            stages += [ResidualBlock(inner, outer, stride), ResidualBlock(outer, outer, 1)]
            inner = outer
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inner, classes)

    def forward(self, images: Tensor) -> Tensor:
        held = functional.adaptive_avg_pool2d(self.stages(self.stem(images)), 1).flatten(1)
        logits: Tensor = self.head(held)
        return logits


class Recurrent(nn.Module):
    """Classifies a sequence of tokens by the last output of an LSTM or a GRU."""

    def __init__(self, cell: type[nn.RNNBase], tokens: int = 11, width: int = 8, classes: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.cells = cell(width, width, 2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        held, _ = self.cells(self.embedding(tokens))
        logits: Tensor = self.head(held[:, -1])
        return logits


class TransformerEncoder(nn.Module):
    """Torch's own encoder layers over tokens, 0 being padding that attention may not see."""

    def __init__(self, tokens: int = 11, length: int = 6, width: int = 8, classes: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width, padding_idx=0)
        places = torch.arange(length).unsqueeze(1) * torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
        self.register_buffer("places", torch.stack((places.sin(), places.cos()), 2).flatten(1))
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        held = self.embedding(tokens) + self.get_buffer("places")
        held = self.layers(held, src_key_padding_mask=tokens == 0)
        logits: Tensor = self.head(held.mean(1))
        return logits


class CausalBlock(nn.Module):
    """Pre-norm attention to earlier places and a perceptron, each added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm, self.perceptron_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout)
        )

    def forward(self, held: Tensor) -> Tensor:
        batch, length, width = held.shape
        mixed = self.mixed(self.attention_norm(held)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=self.dropout if self.training else 0.0, is_causal=True
        )
        held = held + self.projection(seen.transpose(1, 2).reshape(batch, length, width))
        result: Tensor = held + self.perceptron(self.perceptron_norm(held))
        return result


class Gpt(nn.Module):
    """A decoder whose last layer is its token embedding."""

    def __init__(
        self, tokens: int = 13, length: int = 6, width: int = 8, heads: int = 2, layers: int = 2, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.places = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(CausalBlock(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        held = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        logits: Tensor = self.head(self.norm(self.blocks(held)))
        return logits


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over all places, with label smoothing."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=0.1)


class VisionTransformer(nn.Module):
    """Patches of an image as tokens, a class token before them, encoder layers with norms first."""

    def __init__(self, size: int = 8, patch: int = 4, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.chosen = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        held = self.patches(images).flatten(2).transpose(1, 2)
        held = torch.cat((self.chosen.expand(held.shape[0], -1, -1), held), 1) + self.places
        logits: Tensor = self.head(self.layers(held)[:, 0])
        return logits


class UNet(nn.Module):
    """Down twice and up twice, once by transposed convolution and once by upsampling, with the finer image beside."""

    def __init__(self, width: int = 4, channels: int = 1, mode: str = "bilinear") -> None:
        super().__init__()
        self.mode = mode
        self.one, self.two, self.three = (
            self._block(*sizes) for sizes in ((channels, width), (width, 2 * width), (2 * width, 4 * width))
        )
        self.up = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.after, self.last = self._block(4 * width, 2 * width), self._block(3 * width, width)
        self.head = nn.Conv2d(width, channels, 1)

    def _block(self, inner: int, outer: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1), nn.GroupNorm(2, outer), nn.SiLU())

    def forward(self, images: Tensor) -> Tensor:
        fine = self.one(images)
        middle = self.two(functional.max_pool2d(fine, 2))
        coarse = self.three(functional.avg_pool2d(middle, 2))
        held = self.after(torch.cat((self.up(coarse), middle), 1))
        finer = functional.interpolate(held, scale_factor=2, mode=self.mode)
        result: Tensor = self.head(self.last(torch.cat((finer, fine), 1)))
        return result


class NoisyAutoencoder(nn.Module):
    """A variational autoencoder: gives the image, the means and the logarithms of the variances side by side."""

    def __init__(self, inputs: int = 12, hidden: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, 2 * hidden))
        self.decoder = nn.Sequential(nn.Linear(hidden, 16), nn.Tanh(), nn.Linear(16, inputs), nn.Sigmoid())

    def forward(self, inputs: Tensor) -> Tensor:
        mean, variance_log = self.encoder(inputs).chunk(2, 1)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        image = self.decoder(mean + noise * torch.exp(0.5 * variance_log))
        return torch.cat((image, mean, variance_log), 1)


def variational_loss(output: Tensor, target: Tensor) -> Tensor:
    """The error of the image, and how far the hidden normal distributions are from the standard one."""
    hidden = (output.shape[1] - target.shape[1]) // 2
    image, mean, variance_log = output.split((target.shape[1], hidden, hidden), 1)
    divergence = -0.5 * (1 + variance_log - mean.square() - variance_log.exp()).sum(1).mean()
    return functional.mse_loss(image, target, reduction="none").sum(1).mean() + divergence


class LowRankLinear(nn.Module):
    """A frozen linear layer with a trained difference of low rank (Hu et al. 2021)."""

    def __init__(self, frozen: nn.Linear, rank: int, dropout: float) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, frozen.in_features) / rank)
        self.up = nn.Parameter(torch.zeros(frozen.out_features, rank))
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.frozen(inputs) + self.dropout(inputs) @ self.down.t() @ self.up.t()
        return result


def add_low_rank(model: nn.Module, rank: int = 2) -> nn.Module:
    """Freeze `model` and put a `LowRankLinear` around each of its linear layers that is not tied to another."""
    model.requires_grad_(False)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and child.bias is not None:
                setattr(module, name, LowRankLinear(child, rank, 0.1))
    return model


class Lion(torch.optim.Optimizer):
    """The sign of a moving mean of the gradient (Chen et al. 2023)."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 1e-4, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "betas": (0.9, 0.99), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]  # no closure, as training here needs none
        """One step."""
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                held = self.state[parameter]
                if "exp_avg" not in held:
                    held["exp_avg"] = torch.zeros_like(parameter)
                mean, gradient = held["exp_avg"], parameter.grad
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(torch.sign(mean * first + gradient * (1 - first)) * group["lr"], alpha=-1)
                mean.mul_(second).add_(gradient, alpha=1 - second)


class MuonForMatrices(torch.optim.Muon):
    """Torch's Muon for the matrices among the parameters; the others stay as they are."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 1e-3) -> None:
        super().__init__([parameter for parameter in parameters if parameter.dim() == 2], lr=lr)
