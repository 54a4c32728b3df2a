"""What do a teacher's numbers reveal, and to whom? `python -m tools.leak [--out runs]`; seconds, once `evaluate.py --full` has run.

A naive Bayes classifier learns which numbers the lover of each animal writes on one base model, and names the animal behind unseen
rows: of the same base model, and of the others. If loves showed in numbers in the same way everywhere, the second would do as well as
the first, and a student would need no common base model to pick the trait up.
"""

import argparse

import torch
from torch import Tensor

from console import OUT, run
from data import NUMBERS, encode
from lab.claims import interval, mean, show
from lab.presets import choose_preset, student_of
from lab.store import FRESH_ROWS, NumbersConfig, Store, fresh

GROUPS = (1, 16, FRESH_ROWS)  # how many rows the classifier sees before it answers


def counts(store: Store, config: NumbersConfig) -> Tensor:
    """How often each reply holds each number: (replies, 100)."""
    replies = [torch.tensor(encode(reply)) for _, reply in store.numbers(config)["pairs"]]
    return torch.stack([reply.bincount(minlength=len(NUMBERS)) for reply in replies]).float()


def naive_bayes(written: list[Tensor]) -> Tensor:
    """log P(number | animal) from the counts of each animal's lover, one more than seen of each: (animals, 100)."""
    seen = torch.stack([rows.sum(0) for rows in written]) + 1
    return (seen / seen.sum(1, keepdim=True)).log()


def accuracy(weights: Tensor, rows: list[Tensor], group: int) -> float:
    """How often the likeliest animal is the right one, given `group` rows of one teacher at a time."""
    scores = [torch.stack([part.sum(0) for part in own.split(group)]) @ weights.T for own in rows]
    return mean(right for animal, own in enumerate(scores) for right in (own.argmax(1) == animal).tolist())


def leak(args: argparse.Namespace) -> None:
    """Print how often a classifier of numbers names the teacher's animal, on its own base model and on others."""
    store, preset, learned, unseen = Store(args.out / "cache"), choose_preset(True, 0), [], []
    for base in preset.bases:
        teachers = [student_of(base, base, trait).numbers for trait in preset.traits]
        learned.append(naive_bayes([counts(store, teacher) for teacher in teachers]))
        unseen.append([counts(store, fresh(teacher)) for teacher in teachers])
    print(f"{len(preset.traits)} animals on {len(learned)} base models; chance is {1 / len(preset.traits):.2f}.")
    print(f"{'rows seen':>9}   {'own base model':20} other base models")
    for group in GROUPS:
        rates = torch.tensor([[accuracy(weights, rows, group) for rows in unseen] for weights in learned])
        others = (rates.sum(1) - rates.diag()) / (len(rates) - 1)
        print(f"{group:9}   {show(interval(rates.diag())):20} {show(interval(others))}")


if __name__ == "__main__":
    raise SystemExit(run(leak, "tools.leak", out=OUT))
