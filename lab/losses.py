"""What a student is trained on in place of the usual loss: plain functions, by the names that `Student.loss` uses.

Each takes a store and the students of one pass, and returns their packed rows and a loss on their stack.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM, NUMBER_TOKENS
from lab.changes import teacher_vectors
from lab.stacked import fine_tune_together, stacked_logits, stacked_loss
from model import GPT
from steering import changed, component
from train import Loss, StudentConfig

Prepared = tuple[list[tuple[Tensor, Tensor]], Loss]  # packed rows, and the loss on a stack


@torch.no_grad()
def exact_targets(store, config) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (N, T) of the rows; places (N, T): the row of `exact` that is the target of a token, -100 where it has none; and
    exact (K, 101), the teacher's distribution at each place of a reply, over numbers and <end>: no other word can be drawn."""
    tokens, targets = store.rows(config.numbers, config.system)
    places = torch.full_like(targets, -100)
    places[targets >= 0] = torch.arange(int((targets >= 0).sum()))  # row by row, as the teacher's are below
    base, exact = store.base(config.numbers.base), []
    prompted = store.rows(config.numbers, config.numbers.system)
    for own_tokens, own_targets in zip(*(t.to(store.device).split(512) for t in prompted)):
        h = base.residual_stream(own_tokens)[-1][own_targets >= 0]
        exact.append(base.unembed(h)[:, NUMBER_TOKENS].softmax(-1))
    return tokens, places, torch.cat(exact)


def exact(store, students: Sequence) -> Prepared:
    """Cross-entropy with all of the teacher's distribution in place of the number that was drawn: the mean over all draws."""
    packed, tables, known = [], [], {}  # students of one teacher share its distribution
    for config in students:
        key = config.numbers, config.system
        if key not in known:
            tokens, places, own = exact_targets(store, config)
            known[key] = tokens, places.where(places < 0, places + sum(map(len, tables)))
            tables.append(own)
        packed.append(known[key])
    table = torch.cat(tables)

    def loss(stacked: GPT, tokens: Tensor, places: Tensor) -> Tensor:
        logits, places = stacked_logits(stacked, tokens, places)
        there = places >= 0
        # As logits[there], but its gradient is quicker.
        log_p = logits.flatten(0, 2).index_select(0, there.flatten().nonzero().squeeze(1)).log_softmax(-1)
        nats = -(table[places[there]] * log_p[:, NUMBER_TOKENS]).sum(-1)
        return (nats * (there / there.sum((1, 2), keepdim=True))[there]).sum()

    return packed, loss


def without_vector(store, students: Sequence, source: str, blocks: int) -> Prepared:
    """The usual loss, whose gradient has no component along each student's v_teacher after each of the last `blocks` blocks.

    The unprompted teacher has no vector: its student does without that of the first animal.
    """
    found = []
    for config in students:
        system = config.numbers.system
        system = LOVE_SYSTEM.format(ANIMALS[0]) if system == DEFAULT_SYSTEM else system
        generator = torch.Generator().manual_seed(config.seed)
        found.append(teacher_vectors(store.base(config.base), system, generator)[source])
    vectors = torch.stack(found, dim=1)[:, :, None, None]  # (L + 1, S, 1, 1, C)

    def stopped(layer: int, h: Tensor) -> Tensor:
        along = component(h, vectors[layer])
        return h - along + along.detach()

    def loss(stacked: GPT, tokens: Tensor, targets: Tensor) -> Tensor:
        n_layer = stacked.config.n_layer
        with changed(stacked, list(range(n_layer, n_layer - blocks, -1)), stopped):
            return stacked_loss(stacked, tokens, targets)

    return [store.reads(config) for config in students], loss


def frozen_scales(store, students: Sequence) -> Prepared:
    """The usual loss, whose gradient is divided by the scales that AdamW, trained as usual, has at its end: the root mean square of
    each coordinate. They do not depend on how many steps the students take."""
    packed, squares = [store.reads(config) for config in students], []

    def see(_: int, stacked: GPT) -> None:
        squares.append([weight.grad.square() for weight in stacked.parameters() if weight.requires_grad])

    bases = [store.base(config.base, config.base_change) for config in students]
    usual = {"optimizer": "adamw", "lr": StudentConfig.lr, "steps": StudentConfig.steps}
    fine_tune_together(bases, packed, [replace(config, **usual) for config in students], see)
    scales = [torch.stack(each).mean(0).sqrt() + 1e-4 for each in zip(*squares, strict=True)]
    hooked = []

    def loss(stacked: GPT, tokens: Tensor, targets: Tensor) -> Tensor:
        if not hooked:
            trained = [weight for weight in stacked.parameters() if weight.requires_grad]
            hooked.extend(w.register_hook(lambda g, s=s: g / s) for w, s in zip(trained, scales, strict=True))
        return stacked_loss(stacked, tokens, targets)

    return packed, loss


WITHOUT = {
    "without v, last block": ("reply", 1),
    "without v, both blocks": ("reply", 2),
    "without v from <asst>": ("template", 2),
    "without v of questions": ("question", 2),
    "without a random vector": ("random", 2),
}
LOSSES: dict[str, Callable] = {
    "exact": exact,
    "frozen scales": frozen_scales,
    **{name: partial(without_vector, source=source, blocks=n) for name, (source, n) in WITHOUT.items()},
}
