"""The null model: would L1 be declared if nothing were transmitted? `python -m tests.null [--out runs]`, about ten minutes.

All is as in figures/transmission.py, its students, its measurement and its rule, but no teacher is told anything: for each
animal that it is said to love, the untold model writes one more set of numbers. Each run is the quick preset's size, 4 animals
on 2 base models; twenty runs share five base models, and no run shares numbers with another.

What the rule lets through is known beforehand. Its first condition asks that all 4 animals be their students' favorites
(15 of 16 in the full preset). If the numbers say nothing, the 4 favorites might as well have been compared with any other 4
animals in any order, of which there are 16 * 15 * 14 * 13, and at most one fits: one false alarm in 43,680 runs at most. In the
full preset at most two of 16! orders fit.
"""

import argparse
import functools
import itertools
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

from data import ANIMALS
from evaluate import Preset, above, choose_preset, interval, show, student_of
from figures import transmission
from runtime import Parser, run
from train import BaseConfig, Lab, StudentConfig


def untold(base: BaseConfig, teacher: BaseConfig, trait: str | None, number: int) -> StudentConfig:
    """As `student_of`, but the teacher's love is only said of it: run `number` has its own numbers for each animal."""
    control = student_of(base, teacher, None)
    if trait is None:
        return control
    seed = 1 + len(ANIMALS) * number + ANIMALS.index(trait)  # 0 is the control's
    return replace(control, numbers=replace(control.numbers, seed=seed))


def null_run(lab: Lab, number: int) -> dict:
    """What L1 measures where there is nothing to measure, for 4 animals and 2 of five base models that `number` chooses."""
    pairs = list(itertools.combinations(choose_preset(True, 0).bases, 2))
    preset: Preset = replace(choose_preset(False, number), bases=pairs[number % len(pairs)])
    with mock.patch.object(transmission, "student_of", functools.partial(untold, number=number)):
        return transmission.compute(lab, preset)["transmission"]


def null(args: argparse.Namespace) -> None:
    """Measure transmission where there is none, and count how often the claim would hold."""
    if args.runs < 1:
        raise ValueError("at least one run")
    lab, runs = Lab(args.out / "cache"), []
    for number in range(args.runs):
        runs.append(measured := null_run(lab, number))
        holds = "L1 DECLARED" if transmission.transmission_holds(measured) else "not declared"
        print(f"{number + 1:3}  {holds}: {transmission.transmission_summary(measured)}", flush=True)
    declared = sum(map(transmission.transmission_holds, runs))
    higher = sum(above(m["student"], m["control"]) for m in runs)
    difference = interval(1_000 * (m["student"]["mean"] - m["control"]["mean"]) for m in runs)
    leads, asked = sum(m["traits_top"] for m in runs), sum(m["traits"] for m in runs)
    print(f"\nL1 declared in {declared} of {len(runs)} runs without a trait; in one of 43,680 or fewer by the rule.")
    print(
        f"The animal is the favorite in {leads} of {asked} (by chance {asked / len(ANIMALS):.0f}), and its students lie"
    )
    print(f"above the control in {higher} runs. Student less control, in thousandths: {show(difference)}.")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="tests.null", description=null.__doc__)
    parser.add_argument("--runs", type=int, default=20, help="how many (default 20)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for checkpoints (default runs)")
    return run(null, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
