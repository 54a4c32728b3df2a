"""LoRA, by hand: a frozen linear map plus a trainable product of two thin matrices.

                 x (B, T, in)
                 |          |
       W (out, in)          A (r, in)    Kaiming uniform at the start
            frozen          |
                 |          B (out, r)   zero at the start, and so the product is zero too
                 |          |
                 |          * alpha / r
                 +---(+)----+
                      |
       y = W x + (alpha / r) B A x

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv:2106.09685), section 4.1.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

PROJECTIONS = ("q", "k", "v", "o", "up", "down")


class LoRALinear(nn.Module):
    """`linear`, frozen, plus a trainable change of rank `rank`."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.scale = alpha / rank
        A = torch.empty(rank, linear.in_features)
        nn.init.kaiming_uniform_(A, a=math.sqrt(5), generator=generator)
        self.A = nn.Parameter(A.to(linear.weight))
        self.B = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        self.mask: Tensor | None = None  # (B, T), see `masked`

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, in) -> W x + (alpha / r) B A x, (B, T, out)."""
        change = self.scale * (x @ self.A.mT @ self.B.mT)
        return self.linear(x) + (change if self.mask is None else self.mask[..., None] * change)

    def delta(self) -> Tensor:
        """The same change as one matrix, (alpha / r) B A: (out, in)."""
        return self.scale * self.B @ self.A


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """The LoRA layers of `model`, by the name of the layer that each one wraps."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def attach(model: nn.Module, rank: int, alpha: float, names=PROJECTIONS, generator=None) -> None:
    """Freeze `model` and wrap, in place, every linear layer whose name ends in one of `names`.

    A name is a projection ("up": that of every block) or a path ("blocks.0.attention.q": that one layer). Until A and B
    are trained the model computes what it did. Raises ValueError, and leaves the model as it was, if it has adapters already,
    if no layer has a name, and for a rank outside 1 to the larger width of a layer (past the smaller the rank is full).
    """
    if adapters(model):
        raise ValueError("the model has adapters already: merge or detach them first")
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    found: dict[str, nn.Linear] = {}
    for wanted in names:
        matching = {name: layer for name, layer in layers.items() if f".{name}".endswith(f".{wanted}")}
        if not matching:
            raise ValueError(f"no linear layer is called {wanted!r}")
        found |= matching
    for name, layer in found.items():
        width = max(layer.weight.shape[-2:])
        if not 1 <= rank <= width:
            raise ValueError(f"rank {rank} is outside 1..{width}, the width of {name}")
    model.requires_grad_(False)
    for name, layer in found.items():
        model.set_submodule(name, LoRALinear(layer, rank, alpha, generator))


def detach(model: nn.Module) -> None:
    """Take the adapters off: the model's own weights were never touched."""
    for name, module in adapters(model).items():
        model.set_submodule(name, module.linear)


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add every change to the weight it belongs to, W <- W + (alpha / r) B A, and take the adapters off."""
    for module in adapters(model).values():
        module.linear.weight += module.delta()
    detach(model)


@contextmanager
def masked(model: nn.Module, mask: Tensor, within: str = "") -> Iterator[None]:
    """Inside, the change acts only where `mask` (B, T) is 1; at 0 a token passes through the base weights.

    Only layers whose names begin with `within` are masked ("blocks.0.attention": those of the first block's attention).
    """
    layers = [layer for name, layer in adapters(model).items() if name.startswith(within)]
    before = [layer.mask for layer in layers]
    try:
        for layer in layers:
            layer.mask = mask
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.mask = old
