"""What a run is asked to measure: base models, animals and seeds; and the students of a cell of a grid."""

import random
from dataclasses import dataclass, replace
from itertools import product

from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM
from lab.claims import FEWEST
from lab.store import NumbersConfig, Student
from train import BaseConfig

SHARED = {"lr": 5e-2, "steps": 3}  # L2's protocol: chosen where the U showed, on base models 302 and 305
LAST_VALUES = ("blocks.1.attention.v",)  # of the last block: what its attention fetches
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

    full = property(lambda self: self.name == "full")
    grid_bases = property(lambda self: self.bases[:5])
    # For figures in which an animal takes several students.
    costly_traits = property(lambda self: self.traits if self.full else self.grid_traits)

    # What a grid's intervals are over: an animal on a base model. Its seeds are averaged first.
    units = property(lambda self: list(product(self.grid_bases, self.grid_traits)))
    # The same on every base model: what `claims.over_models` takes the means of.
    model_units = property(lambda self: list(product(self.bases, self.grid_traits)))

    @property
    def unit(self) -> str:
        """The same in words."""
        seeds = "one seed" if len(self.grid_seeds) == 1 else f"{len(self.grid_seeds)} seeds averaged"
        return f"an animal on a base model ({len(self.units)}), {seeds}"

    def model_unit(self, bases: tuple[BaseConfig, ...], traits: tuple[str, ...]) -> str:
        """What `claims.over_models` takes intervals over, in words."""
        n = len(bases)
        return f"a base model ({n})" if n >= FEWEST else f"an animal on a base model ({n * len(traits)})"


def choose_preset(full: bool, seed: int, trait: str | None = None) -> Preset:
    """Quick: 4 animals on 2 base models, both chosen by the seed alone. Full: 16 animals on 20 base models, or on the first 5."""
    few = tuple(random.Random(seed).sample(ANIMALS, 4))
    bases = tuple(BaseConfig(seed=100 + 20 * seed + k) for k in range(20))
    quick = Preset("quick", few, bases[:2], few[:3], (0,), (1, 4, 32))
    preset = Preset("full", tuple(ANIMALS), bases, few, (0, 1), (1, 2, 4, 8, 16, 32)) if full else quick
    return replace(preset, traits=(trait,), grid_traits=(trait,)) if trait else preset


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
