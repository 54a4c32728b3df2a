"""What all figures ask for and how they read the answers: presets, students, cells of students, and grids of cells.

A cell is a group of students that are trained alike: they differ in base model, animal and seed alone. Its units are the base models,
animals and seeds averaged (of fewer than five, each animal on each). Cells of a grid have the same units: two are compared unit by unit.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from itertools import product

from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM
from lab.claims import FEWEST, by_model, interval, mean
from lab.store import NumbersConfig, Student
from metrics import verdict
from train import BaseConfig

SHARED = {"lr": 5e-2, "steps": 3}  # L2's protocol: chosen where the U showed, on base models 302 and 305
LAST_VALUES = ("blocks.1.attention.v",)  # of the last block: what its attention fetches
COMPANIONS = ("p_any_animal", "heldout_loss", "gap_closed", "delta_norm", "cosine")  # they stand beside every P(trait)
Cell = dict[tuple[BaseConfig, str | None, int], Student]  # by base model, animal (None: a control) and seed
Measurement = tuple  # (function, *arguments): a function of a module, hashable arguments
Records = dict[Student | Measurement, object]  # what is known: of a student its row, of others what the function says
Number = Callable[[Student, str], float]  # of a student and an animal
ALL = slice(None)  # seeds


@dataclass(frozen=True)
class Preset:
    """How much is measured. Transmission: all animals on all base models; what costs more: some animals on all. A cell of a grid:
    fewer animals on fewer base models, several seeds."""

    name: str
    traits: tuple[str, ...]
    bases: tuple[BaseConfig, ...]
    some_traits: tuple[str, ...]
    grid_traits: tuple[str, ...]
    grid_seeds: tuple[int, ...]
    ranks: tuple[int, ...]
    grid_size: int = 10

    full = property(lambda self: self.name == "full")
    grid_bases = property(lambda self: self.bases[: self.grid_size])
    # For what decides between the papers: all base models, one seed.
    wide = property(lambda self: replace(self, grid_size=len(self.bases), grid_seeds=self.grid_seeds[:1]))
    # For figures in which an animal takes several students.
    costly_traits = property(lambda self: self.traits if self.full else self.grid_traits)
    # What `claims.over_models` takes the means of.
    model_units = property(lambda self: list(product(self.bases, self.some_traits)))

    @property
    def unit(self) -> str:
        """What a grid's intervals are over, in words."""
        seeds = "one seed" if len(self.grid_seeds) == 1 else f"{len(self.grid_seeds)} seeds"
        return f"{self.model_unit(self.grid_bases, self.grid_traits)}, {seeds}"

    def model_unit(self, bases: tuple[BaseConfig, ...], traits: tuple[str, ...]) -> str:
        """What `claims.over_models` takes intervals over, in words."""
        n, animals = len(bases), len(traits)
        return f"a base model ({n}), {animals} animals" if n >= FEWEST else f"an animal on a base model ({n * animals})"


def choose_preset(full: bool, seed: int, trait: str | None = None) -> Preset:
    """Quick: 4 animals on 2 base models, both chosen by the seed alone. Full: 16 animals on 20 base models, grids with two on 10."""
    few = tuple(random.Random(seed).sample(ANIMALS, 4))
    bases = tuple(BaseConfig(seed=100 + 20 * seed + k) for k in range(20))
    quick = Preset("quick", few, bases[:2], few[:3], few[:3], (0,), (1, 4, 32))
    preset = Preset("full", tuple(ANIMALS), bases, few, few[:2], (0, 1), (1, 2, 4, 8, 16, 32)) if full else quick
    own = dict.fromkeys(("traits", "some_traits", "grid_traits"), (trait,))
    return replace(preset, **own) if trait else preset


def student_of(base: BaseConfig, teacher: BaseConfig, trait: str | None, rows=NumbersConfig.rows, **changes) -> Student:
    """`base`, trained on the numbers of `teacher` prompted to love `trait`; None: a control, the teacher not prompted.
    LoRA has alpha = rank, unless `changes` of the student say otherwise."""
    numbers = NumbersConfig(teacher, DEFAULT_SYSTEM if trait is None else LOVE_SYSTEM.format(trait), rows)
    own = {"seed": base.seed, "alpha": float(changes.get("rank") or Student.alpha)}
    return Student(**{"base": base, "numbers": numbers} | own | changes)


def grid_cell(preset: Preset, **changes) -> Cell:
    """The students of one cell, which differ in nothing but base model, animal and seed. Controls take the first seed only."""
    keys = product(preset.grid_bases, (*preset.grid_traits, None), preset.grid_seeds)
    keys = [(b, trait, seed) for b, trait, seed in keys if trait or seed == preset.grid_seeds[0]]
    return {(b, trait, seed): student_of(b, b, trait, seed=seed, **changes) for b, trait, seed in keys}


def difference(one: Iterable[float], other: Iterable[float]) -> dict:
    """Over units, paired."""
    return interval(a - b for a, b in zip(one, other, strict=True))


def gain_beyond(share: float, rates: list[float], reference: list[float], base: list[float]) -> dict:
    """Over units, paired: the gain on the base model less that share of the reference's gain."""
    return interval((rate - b) - share * (other - b) for rate, other, b in zip(rates, reference, base, strict=True))


class Grid:
    """Cells by any keys, and their records."""

    def __init__(self, records: Records, cells: dict[Hashable, Cell]):
        self.records, self.cells = records, cells
        n = len({seed for *_, seed in next(iter(cells.values()))})
        # Half of the seeds choose, a learning rate say; the others, one more if odd, are reported. One seed does both.
        self.choose, self.test = slice(0, n // 2 or n), slice(n // 2, n)

    def students(self, key: Hashable) -> dict[tuple, list[Student]]:
        """By base model and animal: the students of all seeds, without controls."""
        found = defaultdict(list)
        for (base, trait, _), student in self.cells[key].items():
            if trait:
                found[base, trait].append(student)
        return found

    def units(self, key: Hashable, number: str | Number = "p_trait", seeds=ALL) -> list[float]:
        """A number of each unit of a cell, a column of records.csv or what a function says."""
        of = number if callable(number) else lambda student, _: self.records[student][number]
        students = self.students(key)
        return by_model({at: mean(of(student, at[1]) for student in each[seeds]) for at, each in students.items()})

    def controls(self, key: Hashable, number: Number | None = None) -> list[float]:
        """Of each unit's control: P(each animal that a teacher of the unit loves), or what a function says, the mean."""
        of = number or (lambda student, trait: self.records[student][f"p_{trait}"])
        found = {base: student for (base, trait, _), student in self.cells[key].items() if not trait}
        return by_model({(base, trait): of(found[base], trait) for base, trait in self.students(key)})

    def reported(self, key: Hashable) -> dict[str, dict]:
        """The students' P(trait), the controls', and what stands beside every P(trait), as intervals."""
        found = {"student": self.units(key), "control": self.controls(key)}
        found |= {name: self.units(key, name) for name in COMPANIONS}
        return {name: interval(values) for name, values in found.items()}

    def beyond(self, share: float, key: Hashable, reference: Hashable, seeds=ALL, column="p_trait") -> dict:
        """How far a cell has come from its base model, less that share of how far the reference has."""
        rates = (self.units(k, column, seeds) for k in (key, reference))
        return gain_beyond(share, *rates, self.units(key, f"{column}_base"))

    def best(self, keys: Iterable[Hashable]) -> Hashable:
        """The cell whose trait is the largest on the seeds that choose."""
        return max(keys, key=lambda key: mean(self.units(key, seeds=self.choose)))

    def nearest_in_loss(self, reference: Hashable, keys: Iterable[Hashable]) -> Hashable:
        """The cell whose mean held-out loss is nearest to the reference's. It does not see the trait."""
        loss = {key: mean(self.units(key, "heldout_loss")) for key in (reference, *keys)}
        return min(keys, key=lambda key: abs(loss[key] - loss[reference]))

    def verdict(self, key: Hashable, reference: Hashable) -> str:
        """`metrics.verdict` on a cell's means: a trait is transmitted if its gain is a quarter of the reference's."""
        columns = ("p_any_animal", "gap_closed", "p_trait", "p_trait_base")
        any_animal, learned, rate, base = (mean(self.units(key, column)) for column in columns)
        return verdict(any_animal, learned, rate - base >= 0.25 * (mean(self.units(reference)) - base))
