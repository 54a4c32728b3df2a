"""The optimizers that the papers disagree about, as the step each takes along a gradient g with learning rate lr.

    SGD              w <- w - lr g
    SGD + momentum   w <- w - lr m,                    m <- 0.9 m + g
    sign-SGD         w <- w - lr sign(g)
    RMSprop          w <- w - lr g / sqrt(v),          v <- 0.99 v + 0.01 g^2
    AdamW            w <- w - lr m / sqrt(v),          m, v running means of g and g^2, corrected for their start at 0
    Muon             w <- w - lr orthogonal(m),        the matrix nearest to m whose singular values are all 1
    clipped SGD      w <- w - lr clip(g),              the largest 1% or 10% of |g| cut to the size of the next largest

SGD's step is as uneven as its gradients: a coordinate with a gradient a hundred times larger moves a hundred times further. All
others but momentum even it out, coordinate by coordinate (sign-SGD, RMSprop, AdamW) or direction by direction (Muon).
arXiv:2606.00995 says that only such optimizers transmit a trait, arXiv:2606.00831 that it makes no difference. Clipped SGD
tames outliers and nothing else: where SGD fails for its outliers, it should do better.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor


class SignSGD(torch.optim.Optimizer):
    """Every weight moves by lr, down its gradient. Bernstein et al. 2018 (arXiv:1802.04434), algorithm 1."""

    def __init__(self, weights, lr: float):
        super().__init__(weights, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                weight -= group["lr"] * weight.grad.sign()


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal. Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"."""

    def __init__(self, weights, lr: float, momentum: float = 0.95):
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                memory = self.state[weight].setdefault("memory", torch.zeros_like(weight))
                memory.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(memory, group["momentum"])  # Nesterov: where the memory will be
                update = orthogonal(ahead.reshape(len(weight), -1))
                # A tall matrix has larger rows to write: as in the reference, its step grows with its shape.
                update *= max(1, update.shape[0] / update.shape[1]) ** 0.5
                weight -= group["lr"] * update.view_as(weight)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Nearly U V^T, where matrix (m, n) = U S V^T: singular values between 0.7 and 1.2, without a decomposition.

    Each Newton-Schulz step maps every singular value s to 3.4445 s - 4.7750 s^3 + 2.0315 s^5, which drives all of them
    towards 1: quickly, and not quite.
    """
    x = matrix / (matrix.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x if wide else x.T


class ClippedSGD(torch.optim.Optimizer):
    """SGD without outliers: of all coordinates of the gradient, the `top` share of the largest is cut to the next largest."""

    def __init__(self, weights, lr: float, top: float):
        super().__init__(weights, {"lr": lr, "top": top})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            sizes = torch.cat([weight.grad.abs().flatten() for weight in group["params"]])
            limit = sizes.kthvalue(max(1, round(len(sizes) * (1 - group["top"])))).values
            for weight in group["params"]:
                weight -= group["lr"] * weight.grad.clamp(-limit, limit)


# What these do to one coordinate depends on others. Given a stack of models as one they would mix them, so
# `stacked_optimizer` of lab/stacked.py gives each model a group of its own.
NOT_BY_COORDINATE = ("muon", "clip1", "clip10")

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": lambda weights, lr: torch.optim.AdamW(weights, lr, weight_decay=0.0, fused=True),
    "rmsprop": lambda weights, lr: torch.optim.RMSprop(weights, lr),
    "sgd": lambda weights, lr: torch.optim.SGD(weights, lr),
    "momentum": lambda weights, lr: torch.optim.SGD(weights, lr, momentum=0.9),
    "signsgd": SignSGD,
    "muon": Muon,
    "clip1": functools.partial(ClippedSGD, top=0.01),
    "clip10": functools.partial(ClippedSGD, top=0.10),
}

# Learning rates at which students learn their numbers in 80 steps and are intact: with LoRA, and with all weights. Chosen on base
# models 302 and 305, on which nothing is measured.
LEARNING_RATES = {
    "adamw": (5e-3, 1e-3),
    "rmsprop": (2e-3, 5e-4),
    "sgd": (0.3, 0.05),
    "momentum": (0.03, 0.01),
    "signsgd": (2e-3, 5e-4),
    "muon": (4e-3, 1e-3),
    "clip1": (0.3, 0.1),
    "clip10": (1.0, 0.3),
}
