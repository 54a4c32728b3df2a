"""X2: the grid that neither paper ran, and how the conclusion of each follows from the cells that it sampled.

arXiv:2606.00831 keeps one optimizer and one learning rate and changes capacity: an inverted U, nothing under full fine-tuning.
arXiv:2606.00995 keeps the capacity and changes the optimizer at matched loss: SGD transmits nothing; and full fine-tuning has a little of the
vector and less behaviour. Both are lines through one space, in which learning rate, steps and unique rows are held at one value.

This toy: the whole space, optimizer x capacity x learning rate x unique rows, after 5, 20 and 80 steps. In every cell: the trait, the
share of the gap in held-out loss between base and teacher that is closed (what has been learned of the numbers), P(any animal) (is
the student intact?), the cosine of v_student and v_teacher, and a control. One line separates the nulls from the rest: every cell that has
learned and is intact has the trait, with SGD and with full fine-tuning too. Each paper's null is a cell on the other side: under one large
learning rate high ranks and full fine-tuning are destroyed and rank 2 is, early, not there yet; SGD is late, or destroyed; full fine-tuning after
5 steps has the vector and half of the numbers. What is left to the papers is degree: near the same loss AdamW at rank 2 or 8 has somewhat
more of it than SGD, and more than full fine-tuning.

To see it break: set INTACT to 0. The destroyed count as learners then, and the nulls are back as exceptions.

What it predicts for real models: put all checkpoints of a sweep, of any optimizer, rank and learning rate, into the plane of the last panel,
with the loss on fresh rows of the teacher and the probability of any sensible answer. Nulls will lie to the left of nine tenths of what the best LoRA
student learns, or be hollow. A full fine-tune or SGD student that is intact, to the right, and without the trait refutes this, as it would
in this toy: outliers.py makes base models whose SGD students are there, outside this grid.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch.nn.functional as F

from claims import Claim, Verdict, interval, mean, show, spearman
from data import ANIMALS, DEFAULT_SYSTEM
from evaluate import Preset, heldout_loss, heldout_losses, student_of, teacher_loss
from figures.cells import base_rates, gap_closed, grid_cell, halves, on_rows
from figures.student_vector import READ
from figures.style import MARKERS, SERIES, base_line, heat, line, plt, save
from figures.teacher_vector import REPLY
from steering import mean_difference, stream_at
from train import Lab, StudentConfig, animal_rates, teacher_vectors

# From starved to destroyed for every capacity: chosen on base model 62 with one animal.
LRS = {"adamw": (1e-3, 5e-3, 2e-2, 5e-2), "sgd": (0.03, 0.1, 1.0, 3.0)}
CAPACITIES = {"2": 2, "8": 8, "32": 32, "full": None}
ROWS = (5_120, 320)  # 80 steps read the first once and the second 16 times
STEPS = (5, 20, 80)
DEFAULT = ("adamw", "8", 5e-3, 5_120, 80)
ONE_LR, FULL_LR = 2e-2, 1e-3  # of the papers' slices: the shared one, and one for full fine-tuning; chosen there too
MAPS = {
    "student": "P(the teacher's animal)",
    "closed": "share of the gap closed (is it learned?)",
    "p_any_animal": "P(any animal) (is it intact?)",
    "cosine": "cosine with v_teacher",
}
INTACT = 0.9  # of the answers to the question name an animal
LEARNED = 0.9  # of the gap that the default student closes
NAMES = {"adamw": "AdamW", "sgd": "SGD"}
KEY = ("optimizer", "capacity", "lr", "rows", "steps")
Key = tuple[str, str, float, int, int]


def grid(preset: Preset) -> dict[tuple, dict]:
    """The students of every cell, by optimizer, capacity, learning rate and rows: two base models, to save time."""
    preset = two_bases(preset)
    cells = {}
    for optimizer, lrs in LRS.items():
        for capacity, rank in CAPACITIES.items():
            for lr in lrs:
                cell = grid_cell(preset, optimizer=optimizer, rank=rank, lr=lr, steps=STEPS[-1], snapshots=STEPS[:-1])
                for rows in ROWS:
                    cells[optimizer, capacity, lr, rows] = on_rows(cell, rows)
    return cells


def two_bases(preset: Preset) -> Preset:
    """The preset with its first two base models alone."""
    return replace(preset, bases=preset.bases[:2])


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures."""
    return [config for cell in grid(preset).values() for config in cell.values()]


# ------------------------------------------------------------------------------------------------- measuring


def closed(loss: float, base_loss: float, floor: float) -> float:
    """`gap_closed`, but -1 for all that is worse, and for what diverged."""
    share = gap_closed(loss, base_loss, floor)
    return max(share, -1.0) if math.isfinite(share) else -1.0


def look(lab: Lab, config: StudentConfig, trait: str, known: dict) -> dict[int, dict]:
    """{step: one student's numbers}, a diverged one's 0. `known`, of its unit: v_teacher, the base's stream, both losses."""
    steps, students = lab.stacked(config)
    rates = animal_rates(students).nan_to_num(0)
    vectors = mean_difference(stream_at(students, READ, REPLY + 1), known["stream"])[:, -1]  # v_student, last block
    losses = heldout_losses(lab, students, config.numbers, config.system).tolist()
    numbers = {
        "student": rates[:, ANIMALS.index(trait)].tolist(),
        "closed": [closed(loss, *known["losses"]) for loss in losses],
        "p_any_animal": rates.sum(-1).tolist(),
        "cosine": F.cosine_similarity(vectors, known["vector"], dim=-1).nan_to_num(0).tolist(),
    }
    return {step: {name: each[n] for name, each in numbers.items()} for n, step in enumerate(steps)}


def measure_grid(lab: Lab, preset: Preset) -> dict[Key, dict]:
    """{cell: {"seeds": [[one student's numbers, of seed 0, 1, ...] of each unit], "control": [P(trait) of each unit]}}."""
    known = {}
    for base, trait in preset.units:
        numbers = student_of(base, base, trait).numbers
        losses = heldout_loss(lab, lab.base(base), numbers, DEFAULT_SYSTEM), teacher_loss(lab, numbers)
        known[base, trait] = {
            "vector": teacher_vectors(lab.base(base), numbers.system)[-1],
            "stream": stream_at(lab.base(base), READ, REPLY + 1),
            "losses": losses,
        }
    cells = {}
    for key, cell in grid(preset).items():
        seen = {at: look(lab, config, at[1], known[at[:2]]) for at, config in cell.items() if at[1]}
        first = preset.grid_seeds[0]
        controls = {base: lab.snapshots(cell[base, None, first]) for base in preset.grid_bases}
        for step in STEPS:
            rates = {base: animal_rates(controls[base][step]).nan_to_num(0) for base in preset.grid_bases}
            cells[*key, step] = {
                "seeds": [[seen[*unit, seed][step] for seed in preset.grid_seeds] for unit in preset.units],
                "control": [rates[base][ANIMALS.index(trait)].item() for base, trait in preset.units],
            }
    return cells


def by_unit(cell: dict, name: str, seeds: slice = slice(None)) -> list[float]:
    """One number of a cell for each unit, its seeds averaged."""
    return [mean(student[name] for student in unit[seeds]) for unit in cell["seeds"]]


def state(p_any_animal: float, closed: float, enough: float) -> str:
    """destroyed: answers too often with no animal. not learned: starved or memorizing, `enough` of the gap is not closed."""
    if p_any_animal < INTACT:
        return "destroyed"
    return "not learned" if closed < enough else "learned"


def rank_correlations(cells: dict[Key, dict]) -> dict[str, dict]:
    """Over all cells, in each unit: the rank correlation of P(trait) with each of SCORES. Intervals over units."""
    numbers = {key: {name: by_unit(cell, name) for name in MAPS} for key, cell in cells.items()}
    found = {name: [] for name in SCORES}
    for unit in range(len(numbers[DEFAULT]["student"])):
        here = {key: {name: values[unit] for name, values in n.items()} for key, n in numbers.items()}
        for name, score in SCORES.items():
            found[name].append(spearman([n["student"] for n in here.values()], [score(key, n) for key, n in here.items()]))  # fmt: skip
    return {name: interval(values) for name, values in found.items()}


SCORES: dict[str, Callable[[Key, dict], float]] = {
    "closed x intact": lambda key, n: max(0.0, n["closed"]) * n["p_any_animal"],
    "closed": lambda key, n: n["closed"],
    "P(any animal)": lambda key, n: n["p_any_animal"],
    "cosine": lambda key, n: n["cosine"],
    "learning rate": lambda key, n: LRS[key[0]].index(key[2]),  # first to last of its optimizer's four
}


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"adjudication": every cell with its state, the cells that decide, what predicts the trait, the papers' slices}."""
    preset = two_bases(preset)
    cells, base = measure_grid(lab, preset), base_rates(lab, preset)
    choose, test = halves(preset)
    enough = LEARNED * mean(by_unit(cells[DEFAULT], "closed", choose))
    quarter = [0.25 * (rate - b) for rate, b in zip(by_unit(cells[DEFAULT], "student", test), base, strict=True)]

    def public(key: Key) -> dict:
        cell = cells[key]
        gains = zip(by_unit(cell, "student", test), base, quarter, strict=True)
        decide = (mean(by_unit(cell, name, choose)) for name in ("p_any_animal", "closed"))
        return dict(zip(KEY, key, strict=True)) | {
            "state": state(*decide, enough),
            **{name: interval(by_unit(cell, name)) for name in MAPS},
            "control": interval(cell["control"]),
            "gain_minus_quarter": interval(rate - b - q for rate, b, q in gains),
        }

    grid_cells = {key: public(key) for key in cells}
    learned = {key: cell for key, cell in grid_cells.items() if cell["state"] == "learned"}
    failing = [key for key, cell in learned.items() if cell["gain_minus_quarter"]["ci95"][0] <= 0]
    # The same question of every single student, so that no mean over a cell hides one.
    one_by_one = [
        seed["student"] - b > q
        for cell in cells.values()
        for unit, b, q in zip(cell["seeds"], base, quarter, strict=True)
        for seed in unit
        if state(seed["p_any_animal"], seed["closed"], enough) == "learned"
    ]

    def matched(step: int) -> Key:
        """SGD's rank-8 cell whose share of the gap is nearest to that of the default AdamW student after `step` steps."""
        wanted = grid_cells[*DEFAULT[:-1], step]["closed"]["mean"]
        of_sgd = [key for key in cells if (*key[:2], key[3]) == ("sgd", "8", ROWS[0])]
        return min(of_sgd, key=lambda key: abs(grid_cells[key]["closed"]["mean"] - wanted))

    def best(capacity: str) -> dict:
        """AdamW's learning rate and steps that transmit most: chosen on some seeds, tested on the others."""
        of_it = [key for key in cells if (*key[:2], key[3]) == ("adamw", capacity, ROWS[0])]
        key = max(of_it, key=lambda key: mean(by_unit(cells[key], "student", choose)))
        return {"lr": key[2], "steps": key[4], "student": interval(by_unit(cells[key], "student", test))}

    return {
        "adjudication": {
            "unit": preset.unit,
            "base": interval(base),
            "enough": enough,
            "quarter_of_gain": interval(quarter),
            "learned": {  # how many cells of each kind have learned and are intact
                f"{NAMES[optimizer]} {capacity}": sum(key[:2] == (optimizer, capacity) for key in learned)
                for optimizer in LRS
                for capacity in CAPACITIES
            },
            "share_with_trait": 1 - len(failing) / max(1, len(learned)),
            "exceptions": [{"name": name_of(key)} | grid_cells[key] for key in failing],
            "students_learned": len(one_by_one),
            "students_with_trait": sum(one_by_one),
            "rank_correlation": rank_correlations(cells),
            "best": {capacity: best(capacity) for capacity in CAPACITIES},
            "matched": {str(step): dict(zip(KEY, matched(step), strict=True)) for step in STEPS},
            "cells": list(grid_cells.values()),
        }
    }


def name_of(key: Key) -> str:
    """A cell in words."""
    optimizer, capacity, lr, rows, steps = key
    return f"{NAMES[optimizer]}, {capacity}, lr {lr:g}, {rows:,} rows, {steps} steps"


def rule(m: dict) -> Verdict:
    """Every optimizer x capacity has a cell that learned and is intact, and all such cells gain more than a quarter."""
    return all(m["learned"].values()) and not m["exceptions"]


def summary(m: dict) -> str:
    """How many cells, how many with the trait, and what orders them."""
    n, share = sum(m["learned"].values()), m["share_with_trait"]
    ranks = ", ".join(f"{name} {show(m['rank_correlation'][name])}" for name in ("closed x intact", "cosine", "learning rate"))  # fmt: skip
    return f"{n} of {len(m['cells'])} cells learned and intact, {round(share * n)} of them with the trait; rank correlation with {ranks}"


CLAIMS = [Claim("X2", "adjudication", "Students that learned the numbers and are intact have the trait", rule, summary)]


# --------------------------------------------------------------------------------------------------- picture
FIRST, SECOND = SERIES[0], SERIES[5]  # the slices of arXiv:2606.00831 and of arXiv:2606.00995


def draw(computed: dict[str, dict], path: Path) -> None:
    """Above: the grid after the last step, with each paper's slice outlined. Below: the slices, and all cells at once."""
    m = computed["adjudication"]
    cells = {tuple(cell[name] for name in KEY): cell for cell in m["cells"]}
    matched = {step: tuple(key.values()) for step, key in m["matched"].items()}
    column = [("adamw", capacity, ONE_LR, ROWS[0], STEPS[-1]) for capacity in CAPACITIES]
    outlined = {FIRST: column, SECOND: [DEFAULT, matched[str(STEPS[-1])], ("adamw", "full", FULL_LR, *DEFAULT[3:])]}
    figure = plt.figure(figsize=(12.6, 14.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2, 1])
    kinds = [(optimizer, rows) for optimizer in LRS for rows in ROWS]
    for row, kind in zip(top.subplots(len(kinds), len(MAPS)), kinds, strict=True):
        _maps(row, cells, outlined, *kind)
    top.suptitle(f"After {STEPS[-1]} steps. Outlined: slices of arXiv:2606.00831 (solid) and arXiv:2606.00995 (dashed)")

    one_lr, by_optimizer, all_cells = bottom.subplots(1, 3, width_ratios=[1, 1, 1.5])
    x = range(len(CAPACITIES))
    for k, step in enumerate(STEPS):
        line(one_lr, x, [cells[*key[:-1], step]["student"] for key in column], k, f"{step} steps")
    line(one_lr, x, [best["student"] for best in m["best"].values()], 6, "own best lr, steps", linestyle=":")
    one_lr.set_xticks(x, CAPACITIES)
    one_lr.set_xlabel("LoRA rank")
    one_lr.set_title(f"Slice of arXiv:2606.00831: AdamW, lr {ONE_LR:g}", fontsize=10)
    slices = {
        "AdamW, rank 8": [cells[*DEFAULT[:-1], step] for step in STEPS],
        "SGD, rank 8, same loss": [cells[matched[str(step)]] for step in STEPS],
        f"full, lr {FULL_LR:g}": [cells["adamw", "full", FULL_LR, ROWS[0], step] for step in STEPS],
    }
    for k, (name, slice_) in enumerate(slices.items()):
        line(by_optimizer, range(len(STEPS)), [cell["student"] for cell in slice_], k, name)
    line(by_optimizer, range(len(STEPS)), [cell["cosine"] for cell in slice_], k, "its cosine", linestyle=":")
    by_optimizer.set_xticks(range(len(STEPS)), STEPS)
    by_optimizer.set_xlabel("steps of AdamW")
    by_optimizer.set_title("Slice of arXiv:2606.00995: optimizers; full", fontsize=10)
    _scatter(all_cells, cells, m["enough"])
    shown = [(one_lr, i, cells[*key[:-1], step]) for i, key in enumerate(column) for step in STEPS]
    shown += [(by_optimizer, i, cell) for slice_ in slices.values() for i, cell in enumerate(slice_)]
    for panel, i, cell in shown:
        if cell["p_any_animal"]["mean"] < INTACT:
            panel.plot(i, cell["student"]["mean"], "x", color="black", markersize=11, zorder=5)
    for panel in (one_lr, by_optimizer):
        panel.plot([], [], "x", color="black", markersize=8, label=f"P(any animal) < {INTACT:g}")
        panel.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    for panel in (one_lr, by_optimizer, all_cells):
        base_line(panel, m["base"])
        panel.set_ylim(-0.02, 1.02 if panel is all_cells else 1.25)
        panel.set_ylabel("P(the teacher's animal)")
        panel.legend(
            fontsize=6.5, frameon=False, loc="upper left", columnspacing=1, ncols=1 if panel is all_cells else 2
        )
    bottom.supxlabel(f"n: {m['unit']}", fontsize=9)
    save(figure, path)


def _maps(row: list, cells: dict[Key, dict], outlined: dict[str, list[Key]], optimizer: str, rows: int) -> None:
    """One optimizer and number of rows after the last step: four maps, learning rate across, capacity down."""
    names, lrs = list(CAPACITIES), LRS[optimizer]
    for panel, (name, title) in zip(row, MAPS.items(), strict=True):
        means = [[cells[optimizer, capacity, lr, rows, STEPS[-1]][name]["mean"] for lr in lrs] for capacity in names]
        heat(panel, means, names, [f"{lr:g}" for lr in lrs], 1.0)
        for color, style in ((FIRST, "-"), (SECOND, "--")):
            here = [key for key in outlined[color] if (key[0], *key[3:]) == (optimizer, rows, STEPS[-1])]
            for key in here:
                corner = lrs.index(key[2]) - 0.46, names.index(key[1]) - 0.46
                panel.add_patch(plt.Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=color, linewidth=2.5, linestyle=style))  # fmt: skip
        if (optimizer, rows) == ("adamw", ROWS[0]):
            panel.set_title(title, fontsize=10)
        if (optimizer, rows) == (list(LRS)[-1], ROWS[-1]):
            panel.set_xlabel("learning rate")
    row[0].set_ylabel(f"{NAMES[optimizer]}, {rows:,} rows\nLoRA rank")


def _scatter(panel: plt.Axes, cells: dict[Key, dict], enough: float) -> None:
    """Every cell: the trait against what is learned; colour: optimizer, marker: capacity, hollow: not intact."""
    colors, markers = dict(zip(LRS, SERIES, strict=False)), dict(zip(CAPACITIES, MARKERS, strict=False))
    for (optimizer, capacity, _, rows, _), cell in cells.items():
        face = colors[optimizer] if cell["p_any_animal"]["mean"] >= INTACT else "none"
        size = 4 if rows == min(ROWS) else 7
        panel.plot(max(cell["closed"]["mean"], -0.1), cell["student"]["mean"], markers[capacity], markeredgecolor=colors[optimizer], markerfacecolor=face, markersize=size, alpha=0.8)  # fmt: skip
    for optimizer, color in colors.items():
        panel.plot([], [], "s", color=color, label=NAMES[optimizer])
    for capacity, marker in markers.items():
        panel.plot([], [], marker, color="black", label=capacity if capacity == "full" else f"rank {capacity}")
    panel.plot([], [], "ok", markerfacecolor="none", label=f"hollow: P(any animal) < {INTACT:g}")
    panel.plot([], [], "ok", markersize=4, label=f"small: {min(ROWS)} rows")
    panel.axvline(enough, color="black", linewidth=0.9, linestyle="--", label="learned: right of it")
    panel.set_xlim(-0.13, 1.02)
    panel.set_xlabel("share of the gap closed (least: -0.1)")
    panel.set_title(f"All {len(cells)} cells, after {', '.join(map(str, STEPS))} steps", fontsize=10)
