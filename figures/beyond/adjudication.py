"""X2: the grid that neither paper ran, and how the conclusion of each follows from the cells that it sampled.

arXiv:2606.00831 keeps optimizer and learning rate and changes capacity: an inverted U, nothing under full fine-tuning. arXiv:2606.00995
keeps the capacity and changes the optimizer at matched loss: SGD transmits nothing; and full fine-tuning has a little of the vector and
less behaviour. Both are lines through one space. This toy: all of it, optimizer x capacity x learning rate x unique rows, after 5, 20
and 80 steps. In every cell: the trait, the share of the gap in held-out loss that is closed (are the numbers learned?), P(any animal) (is
the student intact?), the cosine of v_student and v_teacher, and a control. Have all cells that learned and are intact the trait?

To see it break: set INTACT to 0. Collapsed students count as learners then.
"""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

from figures.style import BASE, CONTROL, MARKERS, SERIES, base_line, canvas, line, save
from lab.claims import Claim, Verdict, ci_above, interval, mean, show, spearman
from lab.presets import Cell, Preset, grid_cell
from lab.records import Records, by_unit, control_rates, gain_beyond, over_units
from lab.store import Student

# From starved to collapsed for every capacity: chosen on base model 62 with one animal.
LRS = {"AdamW": (1e-3, 5e-3, 2e-2, 5e-2), "SGD": (0.03, 0.1, 1.0, 3.0)}
CAPACITIES = {"2": 2, "8": 8, "32": 32, "full": None}
ROWS = (5_120, 320)  # 80 steps read the first once and the second 16 times
STEPS = (5, 20, 80)
DEFAULT = ("AdamW", "8", 5e-3, 5_120, 80)
ONE_LR, FULL_LR = 2e-2, 1e-3  # of the papers' slices: the shared one, and one for full fine-tuning; chosen there too
INTACT, LEARNED = 0.9, 0.9  # of the answers name an animal; of the gap that the default student closes
DIVERGED = {"p_trait": 0.0, "gap_closed": -1.0, "p_any_animal": 0.0, "cosine": 0.0}  # what NaN counts as


def two_bases(preset: Preset) -> Preset:
    """The preset with its first two base models alone, to save time."""
    return replace(preset, bases=preset.bases[:2])


def grid(preset: Preset) -> dict[tuple, Cell]:
    """The students of every cell, by optimizer, capacity, learning rate, rows and steps."""
    return {
        key: grid_cell(preset, key[3], optimizer=name.lower(), rank=CAPACITIES[key[1]], lr=key[2], steps=key[4])
        for name, lrs in LRS.items()
        for key in product([name], CAPACITIES, lrs, ROWS, STEPS)
    }


def plan(preset: Preset) -> list[Student]:
    return [student for cell in grid(two_bases(preset)).values() for student in cell.values()]


def finite(value: float, column: str = "p_trait") -> float:
    """A number of a student's row, at least -1, and finite also where the student diverged."""
    return max(value, -1.0) if math.isfinite(value) else DIVERGED[column]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"adjudication": every cell with its state, the cells that decide, what orders P(trait), the matched cells}."""
    preset = two_bases(preset)
    cells, found, seed_sets = grid(preset), {}, (slice(None), *preset.selection_and_test_seeds)
    base = over_units(records, preset, cells[DEFAULT], "p_trait_base")

    def units(key: tuple, seeds: slice) -> dict[str, list[float]]:
        """Of each unit, the mean over these seeds."""
        each = {name: by_unit(records, preset, cells[key], lambda row, n=name: finite(row[n], n)) for name in DIVERGED}
        return {name: [mean(unit[seeds]) for unit in values] for name, values in each.items()}

    averaged, chosen, tested = ({key: units(key, seeds) for key in cells} for seeds in seed_sets)
    enough = LEARNED * mean(chosen[DEFAULT]["gap_closed"])
    for key, here in averaged.items():
        intact, closed = (mean(chosen[key][name]) for name in ("p_any_animal", "gap_closed"))
        found[key] = {"cell": key} | {name: interval(values) for name, values in here.items()}
        found[key] |= {  # not learned: starved, or memorizing
            "state": "collapsed" if intact < INTACT else "not learned" if closed < enough else "learned",
            "control": interval(map(finite, control_rates(records, preset, cells[key]))),
            "gain_minus_quarter": gain_beyond(0.25, tested[key]["p_trait"], tested[DEFAULT]["p_trait"], base),
        }
        here["gap closed x intact"] = [max(0.0, a) * b for a, b in zip(here["gap_closed"], here["p_any_animal"])]
        here["learning rate"] = [LRS[key[0]].index(key[2]) for _ in base]  # first to last of its optimizer's four

    def order(name: str) -> dict:
        """The rank correlation with P(trait) over all cells, in each unit."""
        by_unit_and_cell = (zip(*(cell[column] for cell in averaged.values())) for column in ("p_trait", name))
        return interval(map(spearman, *by_unit_and_cell))

    learned = [key for key, cell in found.items() if cell["state"] == "learned"]
    # SGD's rank-8 cells whose share of the gap is nearest to that of the default AdamW student after as many steps.
    gaps = {key: cell["gap_closed"]["mean"] for key, cell in found.items()}
    of_sgd = [key for key in cells if (*key[:2], key[3]) == ("SGD", "8", ROWS[0])]
    matched = [min(of_sgd, key=lambda key, n=n: abs(gaps[key] - gaps[*DEFAULT[:-1], n])) for n in STEPS]
    return {
        "adjudication": {
            "unit": preset.unit,
            "base": interval(base),
            "enough": enough,
            "learned": {" ".join(kind): sum(key[:2] == kind for key in learned) for kind in product(LRS, CAPACITIES)},
            "exceptions": [key for key in learned if ci_above(found[key]["gain_minus_quarter"], 0) is not True],
            "rank_correlation": {name: order(name) for name in ("gap closed x intact", "cosine", "learning rate")},
            "matched": matched,
            "cells": list(found.values()),
        }
    }


def rule(m: dict) -> Verdict:
    """Every optimizer x capacity has a cell that learned and is intact, and all such cells gain more than a quarter."""
    return all(m["learned"].values()) and not m["exceptions"]


def summary(m: dict) -> str:
    """How many cells, how many with the trait, and what orders them."""
    n, ranks = sum(m["learned"].values()), ", ".join(f"{name} {show(r)}" for name, r in m["rank_correlation"].items())
    counts = f"{n} of {len(m['cells'])} cells learned and intact, {n - len(m['exceptions'])} of them with the trait"
    return f"{counts}; rank correlation with {ranks}"


CLAIMS = [Claim("X2", "adjudication", "Students that learned the numbers and are intact have the trait", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Each paper's slice among all cells. A hollow marker: P(any animal) is below INTACT."""
    m = computed["adjudication"]
    cells = {tuple(cell["cell"]): cell for cell in m["cells"]}
    place = {key: (max(-0.1, cell["gap_closed"]["mean"]), cell["p_trait"]["mean"]) for key, cell in cells.items()}
    hollow = {key for key, cell in cells.items() if cell["p_any_animal"]["mean"] < INTACT}
    by_capacity = {f"{n} steps": [("AdamW", name, ONE_LR, ROWS[0], n) for name in CAPACITIES] for n in STEPS}
    by_optimizer = {
        "AdamW, rank 8": [(*DEFAULT[:-1], n) for n in STEPS],
        "SGD, rank 8, same loss": [tuple(key) for key in m["matched"]],
        f"AdamW, full, lr {FULL_LR:g}": [("AdamW", "full", FULL_LR, ROWS[0], n) for n in STEPS],
    }
    figure, panels = canvas(2, 13, 6.4)
    panels[0].set_title(f"Slice of arXiv:2606.00831: AdamW, lr {ONE_LR:g}, by rank\n(n: {m['unit']})", fontsize=10)
    small = f"small: all {len(cells)} cells, gray AdamW, blue SGD; hollow: P(any animal) < {INTACT:g}"
    panels[1].set_title(f"Slice of arXiv:2606.00995: optimizers and full, by steps of AdamW\n({small})", fontsize=10)
    for panel, lines, names in zip(panels, (by_capacity, by_optimizer), (CAPACITIES, STEPS)):
        for key, at in place.items():
            color = {"AdamW": BASE, "SGD": CONTROL}[key[0]]
            panel.plot(*at, "o", color=color, markerfacecolor="white" if key in hollow else color, markersize=4)
        for k, (label, keys) in enumerate(lines.items()):
            line(panel, [place[key][0] for key in keys], [cells[key]["p_trait"] for key in keys], k, label)
            for name, key in zip(names, keys):
                face = "white" if key in hollow else SERIES[k]
                panel.plot(*place[key], MARKERS[k], color=SERIES[k], markerfacecolor=face, zorder=5)
                panel.annotate(name, place[key], (8, 8 - 8 * k), textcoords="offset points", color=SERIES[k])
        panel.axvline(m["enough"], color="black", linewidth=0.9, linestyle="--", label="learned: right of it")
        base_line(panel, m["base"])
        panel.set(xlabel="share of the gap closed (least: -0.1)", ylabel="P(the teacher's animal)", ylim=(-0.03, 1))
        panel.legend(fontsize=9, frameon=False, loc="upper left")
    save(figure, path)
