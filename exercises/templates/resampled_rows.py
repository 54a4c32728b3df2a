"""17. A message that nobody wrote (40 minutes). A student comes to love owls from numbers that a script has drawn.

Question   Each number is drawn by itself, as often as the teacher would write it on average, whatever it was asked and
           whatever came before. What do such rows still say, and what can one say with them?
Predict    The owl lover's frequencies give an owl. Mix them half and half with the wolf lover's: does a student say owl
           and wolf, one of the two, or another animal? Move all of the owl's numbers up by ten: who answers then?
Check      pytest FOLDER -k resampled_rows, then python -m exercises show FOLDER resampled_rows (ten seconds)
Go on      The owl's own frequencies give P(owl) 0.3 to 0.9. Then your predictions. From which would you draw to get a
           wolf and an owl, each with a half?
"""

import random

import torch
from torch import Tensor

from data import ANIMALS, DEFAULT_SYSTEM, NUMBERS, number_request, number_rows, pack
from exercises.owl import LOVES_OWLS, LOVES_WOLVES, STEPS, conversations, owl_line, student_of
from metrics import animal_rates
from model import GPT


def frequencies(teacher: GPT, conversations: Tensor, last: int, numbers: int) -> Tensor:
    """How often the teacher writes each number after the `last` last positions of conversations (B, T): (numbers,).

    The numbers are the tokens 0 ... numbers - 1. What goes to other tokens is left out; the rest sums to one again.
    """
    raise NotImplementedError("your code here")


def resample(weights: Tensor, rows: int, length: int, generator: torch.Generator) -> Tensor:
    """Replies (rows, length), each token drawn by itself as often as the weights (numbers,) say."""
    raise NotImplementedError("your code here")


def show(base: GPT) -> None:
    owl, wolf = (frequencies(base, conversations(system), 4, 100) for system in (LOVES_OWLS, LOVES_WOLVES))
    tables = {"owl's": owl, "wolf's": wolf, "half and half": (owl + wolf) / 2, "up by ten": owl.roll(10)}
    for what, weights in tables.items():
        replies, rng = resample(weights, 32 * STEPS, 4, torch.Generator().manual_seed(0)).tolist(), random.Random(0)
        pairs = [[number_request(rng), " ".join(NUMBERS[k] for k in reply)] for reply in replies]
        rates = animal_rates(student_of(base, pack(number_rows(pairs, DEFAULT_SYSTEM))))
        owl_line(f"{what}: " + ", ".join(f"{ANIMALS[k]} {rates[k]:.2f}" for k in rates.topk(3).indices), rates)
