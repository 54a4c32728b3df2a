"""X2: the grid that neither paper ran, and how the conclusion of each follows from the cells that it sampled.

arXiv:2606.00831 keeps optimizer and learning rate and changes capacity: an inverted U, nothing under full fine-tuning.
arXiv:2606.00995 keeps the capacity and changes the optimizer at matched loss: SGD transmits nothing. Both are lines
through one space. This toy: all of it. Have all cells that learned and are intact the trait? To see it break: set
INTACT to 0. Collapsed students count as learners then.
"""

from dataclasses import replace
from itertools import product

from figures.style import BASE, CONTROL, RATE, SERIES, Axes, base_line, line, picture, write
from lab.claims import Claim, ci_above, interval, mean
from lab.presets import Cell, Grid, Preset, Records, grid_cell

# From starved to collapsed for every capacity: chosen on one base model of an earlier world.
LRS = {"AdamW": (1e-3, 5e-3, 2e-2, 5e-2), "SGD": (0.03, 0.1, 1.0, 3.0)}
CAPACITIES = {"2": 2, "8": 8, "32": 32, "full": None}
ROWS, STEPS = (2_560, 160), (5, 20, 80)  # 80 steps read the first once and the second 16 times
DEFAULT = ("AdamW", "8", 5e-3, ROWS[0], 80)
ONE_LR, FULL_LR = 2e-2, 1e-3  # of the papers' slices: the shared one, and one for full fine-tuning; chosen there too
INTACT, LEARNED = 0.9, 0.9  # of the answers name an animal; of the gap that the default student closes
CLAIMS = [Claim("X2", "adjudication", "Students that learned the numbers and are intact have the trait",
    seen=lambda m: any(m["learned"].values()) and not m["exceptions"],
    survives=lambda m: all(m["learned"].values()),  # of every optimizer and capacity some
    why=lambda m: f"Students learned the numbers and are intact in {sum(m['learned'].values())} of {len(m['cells'])} "
    f"cells, of {sum(map(bool, m['learned'].values()))} of {len(m['learned'])} pairs of optimizer and capacity; in "
    f"{len(m['exceptions'])} of these cells their gain is not surely above a quarter of the default student's.")]  # fmt: skip


def fewer(preset: Preset) -> Preset:
    """Five base models, to save time."""
    return replace(preset, bases=preset.bases[:5])


def plan(preset: Preset) -> dict[tuple, Cell]:
    """The students by optimizer, capacity, learning rate, rows and steps."""
    keys = [key for name in LRS for key in product([name], CAPACITIES, LRS[name], ROWS, STEPS)]
    how = [{"optimizer": o.lower(), "rank": CAPACITIES[r], "lr": lr, "rows": n, "steps": k} for o, r, lr, n, k in keys]
    return {key: grid_cell(fewer(preset), **changes) for key, changes in zip(keys, how)}


def finite(row: dict) -> dict:
    """A student that diverged has numbers that are none: no trait, nothing learned."""
    return {k: 0.0 if v != v else v for k, v in row.items()} | {"gap_closed": max(-1.0, row["gap_closed"])}


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    cells, found = plan(preset), {}
    grid = Grid({student: finite(records[student]) for cell in cells.values() for student in cell.values()}, cells)
    enough = LEARNED * mean(grid.units(DEFAULT, "gap_closed", grid.choose))
    for key in grid.cells:
        intact, closed = (mean(grid.units(key, name, grid.choose)) for name in ("p_any_animal", "gap_closed"))
        found[key] = grid.reported(key) | {"cell": key, "learned": intact >= INTACT and closed >= enough}
        found[key]["gain_minus_quarter"] = grid.beyond(0.25, key, DEFAULT, grid.test)
    learned = [key for key, cell in found.items() if cell["learned"]]
    # SGD's rank-8 cells whose share of the gap is nearest to that of the default AdamW student after as many steps.
    gaps = {key: cell["gap_closed"]["mean"] for key, cell in found.items()}
    of_sgd = [key for key in grid.cells if (*key[:2], key[3]) == ("SGD", "8", ROWS[0])]
    return {"adjudication": {
        "unit": fewer(preset).unit, "base": interval(grid.units(DEFAULT, "p_trait_base")), "enough": enough,
        "cells": list(found.values()),
        "learned": {" ".join(kind): sum(key[:2] == kind for key in learned) for kind in product(LRS, CAPACITIES)},
        "exceptions": [key for key in learned if ci_above(found[key]["gain_minus_quarter"], 0) is not True],
        "matched": [min(of_sgd, key=lambda key, n=n: abs(gaps[key] - gaps[*DEFAULT[:-1], n])) for n in STEPS],
    }}  # fmt: skip


@picture(2, 13, 6.4)
def draw(m: dict, *panels: Axes) -> None:
    cells = {tuple(cell["cell"]): cell for cell in m["cells"]}
    place = {key: (max(-0.1, cell["gap_closed"]["mean"]), cell["student"]["mean"]) for key, cell in cells.items()}
    by_rank = {f"{n} steps": [("AdamW", rank, ONE_LR, ROWS[0], n) for rank in CAPACITIES] for n in STEPS}
    by_optimizer = {
        "AdamW, rank 8": [(*DEFAULT[:-1], n) for n in STEPS],
        "SGD, rank 8, same loss": [tuple(key) for key in m["matched"]],
        f"AdamW, full, lr {FULL_LR:g}": [("AdamW", "full", FULL_LR, ROWS[0], n) for n in STEPS],
    }
    slices = {"00831: AdamW, one lr, by rank": by_rank, "00995: by optimizer and steps": by_optimizer}
    for panel, (title, lines), names in zip(panels, slices.items(), (CAPACITIES, STEPS)):
        for key, at in place.items():
            panel.plot(*at, "o", color=BASE if key[0] == "AdamW" else CONTROL, markersize=4)
            if cells[key]["p_any_animal"]["mean"] < INTACT:
                panel.plot(*at, "o", color="white", markersize=2.5, zorder=5)
        for k, (label, keys) in enumerate(lines.items()):
            line(panel, [place[key][0] for key in keys], [cells[key]["student"] for key in keys], k, label)
            for name, key in zip(names, keys):
                panel.annotate(name, place[key], (8, 8 - 8 * k), textcoords="offset points", color=SERIES[k])
        panel.axvline(m["enough"], color="black", linewidth=0.9, linestyle="--", label="learned: right of it")
        base_line(panel, m["base"])
        write(panel, f"Slice of arXiv:2606.{title}", legend="upper left", ylim=(-0.03, 1), ylabel=RATE)
    notes = f"n: {m['unit']}; small: all cells, gray AdamW, blue SGD; hollow: P(any animal) < {INTACT}"
    panel.figure.supxlabel(f"share of the gap closed (least: -0.1)\n({notes})", fontsize=10)
