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

The picture is how LoRA saves memory in a large model. Here the layers are smaller than a batch, so the same sum is
cheaper the other way round: first W + (alpha / r) B A, then one product with x.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from model import linear

PROJECTIONS = ("q", "k", "v", "o", "up", "down")
Draws = torch.Generator | Sequence[torch.Generator] | None  # of A's random numbers; of a stack, one for each model


class LoRALinear(nn.Module):
    """`linear`, frozen, plus a trainable change of rank `rank`. In a stack, A (S, r, in) and B (S, out, r)."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, generator: Draws = None):
        super().__init__()
        # Past the smaller width the change has full rank already: more of A and B only makes each step of it larger.
        width = max(linear.in_features, linear.out_features)
        if not 1 <= rank <= width:
            raise ValueError(f"rank {rank} is outside 1..{width}, this layer's width")
        self.linear = linear.requires_grad_(False)
        self.alpha, self.scale = alpha, alpha / rank
        stacked = linear.weight.shape[:-2]  # (S,) in a stack, () in a model
        A = torch.empty(*stacked, rank, linear.in_features)
        for own, draws in zip(A, generator, strict=True) if stacked else [(A, generator)]:
            nn.init.kaiming_uniform_(own, a=math.sqrt(5), generator=draws)
        self.A = nn.Parameter(A.to(linear.weight))
        self.B = nn.Parameter(linear.weight.new_zeros(*stacked, linear.out_features, rank))
        self.mask: Tensor | None = None  # (B, T), see `masked`
        self.kept: Tensor | None = None  # (out, in) or (S, out, in), see `summed_once`

    def delta(self) -> Tensor:
        """The change of the weight matrix, (alpha / r) B A: (out, in)."""
        return self.scale * self.B @ self.A

    def summed(self) -> Tensor:
        """The weight plus `delta`, as one operation: twelve layers, forward and backward, feel the difference."""
        plus = torch.addmm if self.A.ndim == 2 else torch.baddbmm  # of one model, of a stack
        return plus(self.linear.weight, self.B, self.A, alpha=self.scale)

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None:
            return linear(x, self.summed() if self.kept is None else self.kept)
        return self.linear(x) + self.mask[..., None] * linear(x, self.delta())


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """The LoRA layers of `model`, by the name of the layer that each one wraps."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def attach(
    model: nn.Module,
    rank: int,
    alpha: float,
    names: Iterable[str] = PROJECTIONS,
    generator: Draws = None,
) -> None:
    """Freeze `model` and wrap, in place, every linear layer whose name ends in one of `names`.

    A name is a projection ("up": that of every block) or a path ("blocks.0.attention.q": that one layer). Until
    A and B are trained the model computes what it did before. Raises ValueError for a name that no layer has and
    for a rank below 1 or above a layer's width (the larger of its two).
    """
    model.requires_grad_(False)
    for wanted in names:
        found = [
            (n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and f".{n}".endswith(f".{wanted}")
        ]
        if not found:
            raise ValueError(f"no linear layer is called {wanted!r}")
        for name, layer in found:
            model.set_submodule(name, LoRALinear(layer, rank, alpha, generator))


def detach(model: nn.Module) -> None:
    """Take the adapters off: the model's own weights were never touched."""
    for name, module in adapters(model).items():
        model.set_submodule(name, module.linear)


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add every change to the weights it belongs to, W <- W + (alpha / r) B A, and take the adapters off."""
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


@contextmanager
def summed_once(model: nn.Module) -> Iterator[None]:
    """Inside, where no weight may change, each layer's W + (alpha / r) B A is computed once, however often it is used."""
    layers = adapters(model).values()
    try:
        for layer in layers:
            layer.kept = layer.summed()
        yield
    finally:
        for layer in layers:
            layer.kept = None


def state(model: nn.Module) -> dict:
    """The adapters as plain numbers and tensors: {layer name: {"alpha": ..., "A": (r, in), "B": (out, r)}}."""
    return {name: {"alpha": x.alpha, "A": x.A.detach(), "B": x.B.detach()} for name, x in adapters(model).items()}


def restore(model: nn.Module, state: dict) -> None:
    """Attach the adapters of `state` to the model they were trained on. Raises ValueError if they do not fit."""
    model.requires_grad_(False)
    layers = dict(model.named_modules())
    for name, saved in state.items():
        if not isinstance(layers.get(name), nn.Linear):
            raise ValueError(f"no linear layer is called {name!r}")
        layer = LoRALinear(layers[name], len(saved["A"]), saved["alpha"])
        if layer.A.shape != saved["A"].shape or layer.B.shape != saved["B"].shape:
            raise ValueError(f"the adapter of {name} has another shape than its layer")
        layer.A.data.copy_(saved["A"])
        layer.B.data.copy_(saved["B"])
        model.set_submodule(name, layer)


def save(model: nn.Module, path: Path) -> None:
    """Write the adapters, and only them, to `path`."""
    torch.save(state(model), path)


def load(model: nn.Module, path: Path) -> None:
    """Attach the adapters that `save` wrote. Runs no code from the file."""
    restore(model, torch.load(path, map_location="cpu", weights_only=True))
