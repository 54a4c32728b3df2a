"""Steering vectors, by hand: directions in the residual stream, found as differences and put back as additions.

                                   h_l (B, T, C), the residual stream after block l
    a vector is found              v_l = mean over prompts of h_l(one run) - h_l(another run)
    added                          h_l <- h_l + m v_l
    projected out                  h_l <- h_l - (h_l . u) u                      u = v_l / |v_l|
    its component replaced         h_l <- h_l - (h_l . u) u + (h'_l . u) u       h' of another model on the same tokens

Layer 0 is the embedding, layer l the output of block l. Every change is a context manager: inside it the model computes with
the change, after it the model is what it was, bit for bit, also after an error. They nest: each acts on what the one
before it left.

Blank et al. 2026, "Subliminal Learning Is Steering Vector Distillation" (arXiv:2606.00995): v_teacher compares the same model
under two system prompts (S1), v_student compares two models under the same prompt (S3).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from model import GPT, by_length

Vectors = dict[int, Tensor]  # {layer: (C,)}: which layers are changed, and by what


@torch.no_grad()
def stream_at(model: GPT, prompts: list[list[int]], last: int) -> Tensor:
    """The residual stream of N prompts at their `last` last positions: (N, L + 1, last, C)."""
    shape = (len(prompts), model.config.n_layer + 1, last, model.config.d_model)
    stream = model.token_embedding.weight.new_empty(shape)
    for rows, tokens in by_length(prompts):
        layers = model.residual_stream(tokens.to(stream.device))
        stream[rows] = torch.stack([h[:, -last:] for h in layers], dim=1)
    return stream


def mean_difference(one: Tensor, other: Tensor) -> Tensor:
    """v_l, the mean over prompts and positions of two streams' difference: (N, L + 1, P, C) twice -> (L + 1, C)."""
    return (one - other).mean(dim=(0, 2))


def random_like(vectors: Tensor, generator: torch.Generator) -> Tensor:
    """Random directions, each as long as the vector in its place: (..., C) -> (..., C). What a vector is compared with."""
    noise = torch.randn(vectors.shape, generator=generator).to(vectors)
    return noise * vectors.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)


@contextmanager
def changed(model: GPT, layers: list[int], change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Inside, the residual stream h after each of `layers` is change(layer, h). What all the others are made of."""
    handles = []
    try:
        for layer in layers:
            if layer == 0:
                # The embedding is a sum of two tables; the first block reads it first.
                hook = lambda _, args: (change(0, args[0]), *args[1:])  # noqa: E731
                handles.append(model.blocks[0].register_forward_pre_hook(hook))
            else:
                hook = lambda _, args, h, layer=layer: change(layer, h)  # noqa: E731
                handles.append(model.blocks[layer - 1].register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def added(model: GPT, vectors: Vectors, multiplier: float = 1.0, mask: Tensor | None = None):
    """Inside, h_l + multiplier * v_l, at every position or where `mask` (T,) or (B, T) is 1."""

    def change(layer: int, h: Tensor) -> Tensor:
        step = multiplier * vectors[layer].to(h)
        return h + (step if mask is None else mask.to(h)[..., None] * step)

    return changed(model, list(vectors), change)


def projected_out(model: GPT, vectors: Vectors):
    """Inside, the stream has no component along v_l."""
    return changed(model, list(vectors), lambda layer, h: h - component(h, vectors[layer]))


def replaced(model: GPT, vectors: Vectors, by: GPT, tokens: Tensor):
    """Inside, on `tokens` (B, T), the stream's component along v_l is the one that the model `by` has there."""
    with torch.no_grad():
        other = by.residual_stream(tokens)
    return changed(
        model,
        list(vectors),
        lambda layer, h: h - component(h, vectors[layer]) + component(other[layer], vectors[layer]),
    )


def component(h: Tensor, vector: Tensor) -> Tensor:
    """The part of h (..., C) that lies along `vector` (C,)."""
    unit = (vector / vector.norm()).to(h)
    return (h @ unit)[..., None] * unit
