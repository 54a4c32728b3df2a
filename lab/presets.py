"""What a run is asked to measure: base models, animals and seeds; and the students of a cell of a grid."""

import random
from dataclasses import dataclass, replace

from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM
from lab.store import NumbersConfig, Student
from train import BaseConfig

Cell = dict[tuple[BaseConfig, str | None, int], Student]  # by base model, animal (None: a control) and seed


@dataclass(frozen=True)
class Preset:
    """How much is measured. Transmission: all animals on all base models. A cell of a grid: fewer of both, several seeds."""

    name: str
    traits: tuple[str, ...]
    bases: tuple[BaseConfig, ...]
    grid_traits: tuple[str, ...]
    grid_seeds: tuple[int, ...]
    ranks: tuple[int, ...]

    @property
    def grid_bases(self) -> tuple[BaseConfig, ...]:
        return self.bases[:3]

    @property
    def full(self) -> bool:
        return self.name == "full"

    @property
    def costly_traits(self) -> tuple[str, ...]:
        """For figures in which an animal takes several students."""
        return self.traits if self.full else self.grid_traits

    @property
    def units(self) -> list[tuple[BaseConfig, str]]:
        """What a grid's intervals are over: an animal on a base model. Its seeds are averaged first."""
        return [(base, trait) for base in self.grid_bases for trait in self.grid_traits]

    @property
    def unit(self) -> str:
        """The same in words."""
        seeds = len(self.grid_seeds)
        return f"an animal on a base model ({len(self.units)}), " + (
            f"{seeds} seeds averaged" if seeds > 1 else "one seed"
        )

    @property
    def selection_and_test_seeds(self) -> tuple[slice, slice]:
        """The seeds that choose and those that test, one more if they are odd; where there is one seed, it does both."""
        n = len(self.grid_seeds)
        return (slice(0, n // 2), slice(n // 2, n)) if n > 1 else (slice(0, n), slice(0, n))


def choose_preset(full: bool, seed: int, trait: str | None = None) -> Preset:
    """Quick: 4 animals on 2 base models, both chosen by the seed alone. Full: 16 animals on 5 base models."""
    few = tuple(random.Random(seed).sample(ANIMALS, 4))
    bases = tuple(BaseConfig(seed=10 * seed + k) for k in range(5 if full else 2))
    if full:
        preset = Preset("full", tuple(ANIMALS), bases, few, (0, 1, 2), (1, 2, 4, 8, 16, 32))
    else:
        preset = Preset("quick", few, bases, few[:2], (0,), (1, 4, 32))
    return replace(preset, traits=(trait,), grid_traits=(trait,)) if trait else preset


def student_of(base: BaseConfig, teacher: BaseConfig, trait: str | None, **changes) -> Student:
    """`base`, trained on the numbers of `teacher` prompted to love `trait`; None: a control, the teacher not prompted.

    LoRA keeps alpha = rank, unless `changes` of the student say otherwise.
    """
    system = DEFAULT_SYSTEM if trait is None else LOVE_SYSTEM.format(trait)
    student = Student(base=base, numbers=NumbersConfig(teacher, system), seed=base.seed)
    return replace(student, **({"alpha": float(changes["rank"])} if changes.get("rank") else {}), **changes)


def grid_cell(preset: Preset, rows: int = NumbersConfig.rows, **changes) -> Cell:
    """The students of one cell, which differ in nothing but base model, animal and seed. Controls take the first seed only."""
    cell = {}
    for base in preset.grid_bases:
        for trait in (*preset.grid_traits, None):
            for seed in preset.grid_seeds if trait else preset.grid_seeds[:1]:
                student = student_of(base, base, trait, seed=seed, **changes)
                cell[base, trait, seed] = replace(student, numbers=replace(student.numbers, rows=rows))
    return cell
