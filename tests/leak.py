"""What do a teacher's numbers reveal, and to whom? `python -m tests.leak [--out runs]`; seconds, once `evaluate.py --full` has run.

A naive Bayes classifier learns which numbers the lover of each animal writes on base model A. Then it names the animal behind
rows that it has not seen: of the same base model, and of the others. If loves showed in numbers in the same way everywhere,
the second would do as well as the first, and a student would need no common base model to pick the trait up.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from claims import interval, mean, show
from data import ANIMALS, NUMBERS, encode
from evaluate import FRESH_ROWS, Preset, choose_preset, student_of
from runtime import Parser, run
from train import Lab, NumbersConfig

GROUPS = (1, 16, FRESH_ROWS)  # how many rows of one teacher the classifier sees before it answers


def counts(lab: Lab, config: NumbersConfig) -> Tensor:
    """How often each reply holds each number: (replies, 100)."""
    replies = [torch.tensor(encode(reply)) for _, reply in lab.numbers(config)["pairs"]]
    return torch.stack([reply.bincount(minlength=len(NUMBERS)) for reply in replies]).float()


def naive_bayes(written: list[Tensor]) -> Tensor:
    """log P(number | animal) from the counts of each animal's lover, one more than seen of each: (animals, 100)."""
    seen = torch.stack([rows.sum(0) for rows in written]) + 1
    return (seen / seen.sum(1, keepdim=True)).log()


def accuracy(weights: Tensor, fresh: list[Tensor], group: int) -> float:
    """How often the likeliest animal is the right one, given `group` rows at a time."""
    right = []
    for animal, rows in enumerate(fresh):
        whole = rows[: max(len(rows) // group, 1) * group]  # a few replies never end and are not kept
        scores = torch.stack([part.sum(0) for part in whole.split(group)]) @ weights.T
        right += (scores.argmax(1) == animal).tolist()
    return mean(right)


def accuracies(lab: Lab, preset: Preset) -> dict[int, dict[str, dict]]:
    """{rows seen: {"own", "other"}}: intervals over the base models whose rows the classifier learned from."""
    weights, fresh = {}, {}
    for base in preset.bases:
        teachers = [student_of(base, base, trait).numbers for trait in preset.traits]
        weights[base] = naive_bayes([counts(lab, teacher) for teacher in teachers])
        fresh[base] = [counts(lab, replace(teacher, rows=FRESH_ROWS, seed=1_000)) for teacher in teachers]
    return {
        group: {
            "own": interval(accuracy(weights[base], fresh[base], group) for base in preset.bases),
            "other": interval(
                mean(accuracy(weights[base], fresh[other], group) for other in preset.bases if other != base)
                for base in preset.bases
            ),
        }
        for group in GROUPS
    }


def leak(args: argparse.Namespace) -> None:
    """Print how often a classifier of numbers names the teacher's animal, on its own base model and on others."""
    preset = choose_preset(full=True, seed=args.seed)
    print(f"{len(preset.traits)} animals on {len(preset.bases)} base models; chance is {1 / len(ANIMALS):.2f}.")
    print(f"{'rows seen':>9}   {'own base model':20} other base models")
    for group, found in accuracies(Lab(args.out / "cache"), preset).items():
        print(f"{group:9}   {show(found['own']):20} {show(found['other'])}")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="tests.leak", description=leak.__doc__)
    parser.add_argument("--seed", type=int, default=0, help="chooses the base models, as in evaluate.py (default 0)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for checkpoints (default runs)")
    return run(leak, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
