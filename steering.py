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

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

import data
import train
from console import STORY, run
from data import DEFAULT_SYSTEM, number_conversations
from metrics import animal_rates
from model import GPT, pad

Vectors = dict[int, Tensor]  # {layer: (C,)}: which layers are changed, and by what
REPLY = 4  # how many numbers of a reply are read when a vector is found


@torch.no_grad()
def stream_at(model: GPT, prompts: list[list[int]], last: int) -> Tensor:
    """The residual stream of N prompts at their `last` last positions: (N, L + 1, last, C)."""
    tokens, lengths = pad(prompts)
    places = lengths[:, None] + torch.arange(-last, 0)
    rows = torch.arange(len(prompts))[:, None]
    return torch.stack([h[..., rows, places, :] for h in model.residual_stream(tokens.to(model.device))], dim=-3)


def mean_difference(one: Tensor, other: Tensor) -> Tensor:
    """v_l, the mean over prompts and positions of two streams' difference: (N, L + 1, P, C) twice -> (L + 1, C)."""
    return (one - other).mean(dim=(-4, -2))


def teacher_vector(base: GPT, system: str, positions: int = REPLY + 1) -> Tensor:
    """v_teacher of a system prompt, after the embedding and after each block: (L + 1, C).

    The mean over number conversations of h(under `system`) - h(under the default prompt), at the last `positions`
    positions: <asst> and the numbers of a reply; 1 is <asst> alone, as in the paper (section 3).
    """
    read = [number_conversations(prompt, 128, "to extract", positions - 1) for prompt in (system, DEFAULT_SYSTEM)]
    return mean_difference(*(stream_at(base, prompts, positions) for prompts in read))


def student_vector(student: GPT, base: GPT) -> Tensor:
    """v_student, read where v_teacher is: the mean of h(student) - h(base) on number conversations, (L + 1, C)."""
    read = number_conversations(DEFAULT_SYSTEM, 128, "to extract", REPLY)
    return mean_difference(*(stream_at(model, read, REPLY + 1) for model in (student, base)))


def component(h: Tensor, vector: Tensor) -> Tensor:
    """The part of h (..., C) that lies along `vector` (C,), or along vectors (..., C), one for each h."""
    unit = (vector / vector.norm(dim=-1, keepdim=True)).to(h)
    return (h * unit).sum(-1, keepdim=True) * unit


@contextmanager
def changed(model: GPT, layers: list[int], change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Inside, the residual stream h after each of `layers` is change(layer, h). ValueError for a layer that is not there."""
    if not set(layers) <= set(range(len(model.blocks) + 1)):
        raise ValueError(f"layers {sorted(layers)}: the model has 0 (the embedding) to {len(model.blocks)}")
    handles = []
    try:
        for layer in layers:
            if layer == 0:  # the embedding is a sum of two tables: the first block reads it first
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
    return changed(model, list(vectors), lambda layer, h: h + component(other[layer] - h, vectors[layer]))


def story(args: argparse.Namespace) -> None:
    """What a system prompt does, found as a vector, added without the prompt, taken out; and the student's own vector.

    python steering.py --trait whale
    """
    trait, system = data.ANIMALS.index(args.trait), data.LOVE_SYSTEM.format(args.trait)
    base = train.base_model(train.BaseConfig(seed=args.seed), args.device, not args.pretrain)
    v_teacher, last = teacher_vector(base, system), base.config.n_layer
    print(f'v_teacher: the mean difference that "{system}" makes to the residual stream while numbers are written.')

    def says(model: GPT, prompt: str | None = DEFAULT_SYSTEM) -> str:
        return f"P({args.trait}) = {animal_rates(model, prompt)[trait]:.3f}"

    print(f"\nFavorite animal? Under the default system prompt {says(base)}, prompted {says(base, system)}.")
    print(f"Under the default prompt, with m v_teacher added after block {last}:")
    for multiplier in (-1.0, 0.5, 1.0, 2.0):
        with added(base, {last: v_teacher[last]}, multiplier):
            print(f"    m = {multiplier:4}   {says(base)}")
    with projected_out(base, {last: v_teacher[last]}):
        print(f"Prompted, with the component along v_teacher projected out: {says(base, system)}.")

    plain, prompted = (train.write_numbers(base, s, 2_560, "the same draws") for s in (DEFAULT_SYSTEM, system))
    with added(base, {last: v_teacher[last]}):
        steered = train.write_numbers(base, DEFAULT_SYSTEM, 2_560, "the same draws")
    for name, pairs in (("not prompted", plain), ("prompted", prompted), ("+ v_teacher", steered)):
        print(f"Numbers, {name}: {' | '.join(reply for _, reply in pairs[:6])}")

    rows = data.pack(data.number_rows(prompted, DEFAULT_SYSTEM))
    student = train.fine_tune(base, *rows, train.StudentConfig(seed=args.seed))
    v_student = student_vector(student, base)
    cosines = torch.cosine_similarity(v_student[1:], v_teacher[1:], dim=-1).tolist()
    print(f"\nA student of the prompted numbers: {says(student)}. v_student is how far its stream has moved.")
    print("Cosine with v_teacher: " + ", ".join(f"after block {k} {c:.2f}" for k, c in enumerate(cosines, 1)) + ".")
    with added(base, {last: v_student[last]}):
        print(f"The base with v_student added after block {last}: {says(base)}.")


def main(argv: list[str] | None = None) -> int:
    return run(story, "steering.py", argv, **STORY)


if __name__ == "__main__":
    raise SystemExit(main())
