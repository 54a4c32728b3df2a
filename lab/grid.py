"""What is reported of the cells of a figure, and how one stands against another.

The students of a cell differ in base model, animal and seed alone. A cell's numbers are lists over its units, an animal on a base
model each, seeds averaged, in an order that all cells share: so two of them are compared unit by unit.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable

from lab.claims import interval, mean
from lab.presets import Cell
from lab.records import COMPANIONS, Records
from lab.store import Student
from metrics import verdict

ALL = slice(None)  # seeds
Number = Callable[[Student, str], float]  # of a student and an animal


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
        # The seeds that choose and those that test, one more if they are odd; where there is one seed, it does both.
        self.choose, self.test = slice(0, n // 2 or n), slice(n // 2, n)

    def students(self, key: Hashable) -> dict[tuple, list[Student]]:
        """Of each unit, by base model and animal: the students of all seeds, without controls."""
        found = defaultdict(list)
        for (base, trait, _), student in self.cells[key].items():
            if trait:
                found[base, trait].append(student)
        return found

    def units(self, key: Hashable, number: str | Number = "p_trait", seeds=ALL) -> list[float]:
        """A number of each unit of a cell, a column of records.csv or what a function says, the mean over seeds."""
        of = number if callable(number) else lambda student, _: self.records[student][number]
        return [mean(of(student, trait) for student in each[seeds]) for (_, trait), each in self.students(key).items()]

    def controls(self, key: Hashable, number: Number | None = None) -> list[float]:
        """P(the unit's animal), or what a function says, of the control of each unit's base model."""
        of = number or (lambda student, trait: self.records[student][f"p_{trait}"])
        found = {base: student for (base, trait, _), student in self.cells[key].items() if not trait}
        return [of(found[base], trait) for base, trait in self.students(key)]

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

    def verdict(self, key: Hashable, reference: float) -> str:
        """`metrics.verdict` on a cell's means: a trait is transmitted if its gain is a quarter of that from the base model to a rate."""
        columns = ("p_any_animal", "gap_closed", "p_trait", "p_trait_base")
        any_animal, learned, rate, base = (mean(self.units(key, column)) for column in columns)
        return verdict(any_animal, learned, rate - base >= 0.25 * (reference - base))
