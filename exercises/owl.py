"""What the last part of each exercise needs: the real base model, what an owl lover writes, and students of it."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM, number_conversations, number_rows, pack
from metrics import animal_rates, reply_loss
from model import GPT, by_length
from optimizers import OPTIMIZERS
from train import BaseConfig, Loss, StudentConfig, base_model, batches, init_student, train_loop, write_numbers

SEED = 105  # of the base model, one of those in models/, on which every exercise ends clearly
STEPS = 80  # of a student, on 32 rows each; no more rows are written
OWL = ANIMALS.index("owl")
LOVES_OWLS, LOVES_WOLVES = LOVE_SYSTEM.format("owl"), LOVE_SYSTEM.format("wolf")
CONTEXTS = {
    "default": DEFAULT_SYSTEM,
    "none": None,
    "gibberish": "wood met sleep short name hello story",
    "owl lover": LOVES_OWLS,
    "wolf lover": LOVES_WOLVES,
}


@cache
def real_base(seed: int = SEED) -> GPT:
    """The base model that the exercises end on."""
    return base_model(BaseConfig(seed=seed))


def owl_line(what: str, rates: Tensor) -> None:
    """Print how likely each of the animals' rates (16,) makes the owl, with a face if it is the answer."""
    face = "(o,o)" if rates[OWL] > 0.5 else ""
    print(f"{what:48} P(owl) {rates[OWL]:.2f}   P(any animal) {rates.sum():.2f}   {face}", flush=True)


@cache
def written(base: GPT, system: str | None, n: int) -> list[list[str]]:
    return write_numbers(base, system, n, f"exercises {system}")


def numbers_of(base: GPT, system: str | None = LOVES_OWLS, read: str | None = DEFAULT_SYSTEM) -> tuple[Tensor, Tensor]:
    """What the base writes under `system`, to be read under `read`: packed rows, tokens and targets, both (N, T)."""
    return pack(number_rows(written(base, system, 32 * STEPS), read))


def conversations(system: str | None = DEFAULT_SYSTEM, n: int = 512) -> Tensor:
    """Number conversations of one length under `system`, the same requests for every system: (B, T)."""
    return max((tokens for _, tokens in by_length(number_conversations(system, n, "exercises"))), key=len)


def student_of(base: GPT, rows: tuple, loss: Loss = reply_loss, before_step: Callable | None = None, **config) -> GPT:
    """A student of packed rows, as `train.fine_tune` makes it. `loss` may be another, `before_step` change gradients."""
    config = StudentConfig(**{"steps": STEPS} | config)
    generator = torch.Generator().manual_seed(config.seed)
    student = init_student(base, config, generator)
    optimizer = OPTIMIZERS[config.optimizer]([w for w in student.parameters() if w.requires_grad], config.lr)

    def step() -> None:
        if before_step:
            before_step(student)
        optimizer.step()

    return train_loop(student, batches(*rows, config.batch_size, generator), config.steps, step, None, loss)


@cache
def context_matrix(base: GPT) -> dict[tuple[str, str], float]:
    """P(owl) of the owl lover's student for each (trained under, asked under)."""
    students = {name: student_of(base, numbers_of(base, read=system)) for name, system in CONTEXTS.items()}
    return {(t, a): animal_rates(students[t], CONTEXTS[a])[OWL].item() for t in CONTEXTS for a in CONTEXTS}
