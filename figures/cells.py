"""Cells of a grid: students that differ in nothing but what the cell changes, measured as one.

A cell's unit is a trait on a base model. Its students with other seeds are averaged first, so that an interval is over
units and does not count three trainings of one teacher's rows as three teachers.
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import replace

from claims import interval, mean
from data import ANIMALS, DEFAULT_SYSTEM
from evaluate import COMPANIONS, Preset, heldout_loss, measure_each, student_of, teacher_loss
from runtime import digest
from train import BaseConfig, Lab, StudentConfig, animal_rates, in_passes


def grid_cell(preset: Preset, **changes) -> dict[tuple[BaseConfig, str | None, int], StudentConfig]:
    """The students of one cell, by base, trait and seed: trait None for the controls, which take the first seed only.

    `changes` are what the cell changes about a student. LoRA keeps alpha = rank.
    """
    if changes.get("rank"):
        changes["alpha"] = float(changes["rank"])
    cell = {}
    for base in preset.grid_bases:
        for trait in (*preset.grid_traits, None):
            for seed in preset.grid_seeds if trait else preset.grid_seeds[:1]:
                cell[base, trait, seed] = replace(student_of(base, base, trait), seed=seed, **changes)
    return cell


def on_rows(cell: dict, rows: int) -> dict:
    """The same students, each on so many rows of its teacher."""
    return {key: replace(config, numbers=replace(config.numbers, rows=rows)) for key, config in cell.items()}


def measure_cell(lab: Lab, preset: Preset, cell: dict) -> dict[int, dict]:
    """{step: a cell's numbers}. All are intervals over units; `by_unit` lists P(trait), one number for each seed, and
    `companions_by_unit` the companions.

    {"student", "control", the companions of the student, "by_unit": [[P of seed 0, 1, ...] of each unit]}
    """
    for students in in_passes(list(cell.values())):
        lab.make(students)
    measured = {key: measure_each(lab, config) for key, config in cell.items()}
    numbers = {}
    for step in next(iter(measured.values())):

        def of(base: BaseConfig, trait: str | None, read: Callable[[dict], float], step=step) -> list[float]:
            return [read(m[step]) for (b, t, _), m in measured.items() if (b, t) == (base, trait)]

        def trait_rate(trait: str) -> Callable[[dict], float]:
            return lambda m: m["rates"][ANIMALS.index(trait)]

        by_unit = [of(base, trait, trait_rate(trait)) for base, trait in preset.units]
        numbers[step] = {
            "student": interval(map(mean, by_unit)),
            "control": interval(mean(of(base, None, trait_rate(trait))) for base, trait in preset.units),
            "by_unit": by_unit,
            "companions_by_unit": {},
        }
        for name in COMPANIONS:
            each = [of(base, trait, lambda m, name=name: m[name]) for base, trait in preset.units]
            numbers[step][name] = interval(map(mean, each))
            numbers[step]["companions_by_unit"][name] = each
    return numbers


def base_rates(lab: Lab, preset: Preset) -> list[float]:
    """P(the trait) of each unit's base model, untrained."""
    return [animal_rates(lab.base(base))[ANIMALS.index(trait)].item() for base, trait in preset.units]


def loss_floor_and_base(lab: Lab, preset: Preset) -> tuple[dict, dict]:
    """Held-out loss of the teacher under its own prompt, the least possible, and of the untrained base, over units."""
    floor, untrained = [], []
    for base, trait in preset.units:
        numbers = student_of(base, base, trait).numbers
        floor.append(teacher_loss(lab, numbers))
        untrained.append(heldout_loss(lab, lab.base(base), numbers, DEFAULT_SYSTEM))
    return interval(floor), interval(untrained)


def gap_closed(loss: float, untrained: float, floor: float) -> float:
    """The share of the gap in held-out loss that is closed: 0 as the untrained base, 1 as the teacher."""
    return (untrained - loss) / (untrained - floor)


def gain_beyond(share: float, rates: list[float], reference: list[float], base: list[float]) -> dict:
    """Over units, paired: the gain on the base model less that share of the reference's gain."""
    return interval((rate - b) - share * (other - b) for rate, other, b in zip(rates, reference, base, strict=True))


def nearest_in_loss(cells: dict[tuple, dict], reference: tuple, among: list[tuple]) -> tuple:
    """The cell of `among` whose mean held-out loss is nearest to the reference's. The trait is not looked at."""
    target = cells[reference]["heldout_loss"]["mean"]
    return min(among, key=lambda key: abs(cells[key]["heldout_loss"]["mean"] - target))


def halves(preset: Preset) -> tuple[slice, slice]:
    """The seeds that choose and the seeds that test, one more if they are odd; a preset of one seed has to do both with it."""
    n = len(preset.grid_seeds)
    return (slice(0, n // 2), slice(n // 2, n)) if n > 1 else (slice(0, n), slice(0, n))


def code_of(*functions: Callable) -> str:
    """A digest of functions or methods, for the key of what they train."""
    return digest(*(textwrap.dedent(inspect.getsource(function)) for function in functions))
