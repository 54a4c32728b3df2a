"""X3: the limit of infinite data. Students that read the teacher's exact distribution, where others read numbers drawn from it.

Neither paper asks it: a null may be one of the data, too few rows and too much noise in them, or one of the student. A reply's next
number is drawn from the teacher's distribution, which is known here. In place of the number drawn, an exact student's target is all of
it, the mean over infinitely many draws. Contexts and batches are those of the sampled student: the two differ in the noise of the draws
and in nothing else. A control reads the unprompted teacher's distribution.

This toy: LoRA and full fine-tuning by unique rows, and weak cells of other figures, each beside its limit.

To see it break: let `losses.exact_targets` read the teacher under the student's prompt. The base distils itself.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from figures.style import CONTROL, FULL, MARKERS, STUDENT, base_line, canvas, errors, save
from lab.claims import Claim, Verdict, all_hold, ci_above, ci_separated, interval, mean, show
from lab.presets import Cell, Preset, grid_cell
from lab.records import Records, cell_numbers, difference, over_units, why_null
from lab.store import Student

LOSS = {"sampled": "", "limit": "exact"}
ROWS = (100, 320, 1_280, 5_120)  # unique rows, all read for 80 steps of 64
LR = 2e-3  # of full_finetuning.py, as are the first four ways to train
LORA, ALL = {"rank": 8, "lr": LR}, {"rank": None, "lr": LR}
WEAK: dict[str, dict] = {
    "the embeddings alone": {**ALL, "layers": ("token_embedding", "position_embedding")},
    "the norms alone": {**ALL, "layers": ("norm", "final_norm")},
    "Muon, lr 0.01": {"optimizer": "muon", "lr": 1e-2},
    "full, lr 0.01": {"rank": None, "lr": 1e-2},
}
SWEPT = {"lr": 5e-2, "steps": 3}  # the protocol of rank_sweep.py's claim
USUAL = f"LoRA, {ROWS[-1]:,} rows"


def cells(preset: Preset) -> dict[str, tuple[Preset, Cell]]:
    """Sampled students: LoRA and full fine-tuning by rows, weak cells, the ends of rank_sweep's U, the last base model alone."""
    last = replace(preset, bases=preset.bases[-1:])
    ranks = {f"rank {rank}": rank for rank in (preset.ranks[0], preset.ranks[-1])} | {"full": None}
    how = {f"{name}, {n:,} rows": {"rows": n, **way} for name, way in (("LoRA", LORA), ("full", ALL)) for n in ROWS}
    how |= WEAK | {f"{name}, lr {SWEPT['lr']:g}": {"rank": rank, **SWEPT} for name, rank in ranks.items()}
    found = {name: (preset, grid_cell(preset, **changes)) for name, changes in how.items()}
    return found | {f"LoRA, base model {last.bases[0].seed}": (last, grid_cell(last, **LORA))}


def read_as(kind: str, cell: Cell) -> Cell:
    """The same students, sampled or in the limit."""
    return {at: replace(student, loss=LOSS[kind]) for at, student in cell.items()}


def plan(preset: Preset) -> list[Student]:
    return [student for _, cell in cells(preset).values() for kind in LOSS for student in read_as(kind, cell).values()]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"infinite_data": every cell beside its limit, with why the trait is there or not, and the contrast of the claim}."""
    sampled, units = cells(preset), partial(over_units, records, preset)
    lora = {kind: units(read_as(kind, sampled[USUAL][1])) for kind in LOSS}

    def public(kind: str, own: Preset, cell: Cell) -> dict:
        """A null is held against LoRA's gain from the same kind of data."""
        cell = read_as(kind, cell)
        return cell_numbers(records, own, cell) | {"verdict": why_null(records, own, cell, mean(lora[kind]))}

    return {
        "infinite_data": {
            "unit": preset.unit,
            "base": interval(units(sampled[USUAL][1], "p_trait_base")),
            "cells": {name: {kind: public(kind, *cell) for kind in LOSS} for name, cell in sampled.items()},
            "limit_minus_sampled": difference(lora["limit"], lora["sampled"]),
        }
    }


def rule(m: dict) -> Verdict:
    """Exact less sampled (LoRA, the most rows, paired) lies above -0.1, and the exact students above control and base."""
    exact = m["cells"][USUAL]["limit"]
    there = ci_separated(exact["student"], exact["control"]), ci_separated(exact["student"], m["base"])
    return all_hold(*there, ci_above(m["limit_minus_sampled"], -0.1))


def summary(m: dict) -> str:
    """The trait by rows, and which nulls are still there in the limit."""
    rates = {name: [cell[kind]["student"]["mean"] for kind in LOSS] for name, cell in m["cells"].items()}
    by_rows = [f"{name} {drawn:.2f}, exact {limit:.2f}" for name, (drawn, limit) in rates.items() if "rows" in name]
    verdicts = {name: cell["limit"]["verdict"] for name, cell in m["cells"].items()}
    still = ", ".join(f"{name} ({why})" for name, why in verdicts.items() if why != "transmits")
    contrast = f"LoRA exact - sampled {show(m['limit_minus_sampled'])}"
    return f"{'; '.join(by_rows)}; {contrast}; null in the limit too: {still}"


CLAIMS = [Claim("X3", "infinite_data", "Transmission is there in the limit of infinite data", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Every cell, sampled and in the limit, with its verdicts."""
    m = computed["infinite_data"]
    figure, panel = canvas(1, 10, 7.5)
    y = range(len(m["cells"]), 0, -1)
    shown = [("sampled", "student", FULL), ("limit", "student", STUDENT), ("limit", "control", CONTROL)]
    for k, (kind, number, color) in enumerate(shown):
        found, places = [cell[kind][number] for cell in m["cells"].values()], [at + 0.2 - 0.2 * k for at in y]
        style = {"fmt": MARKERS[k], "color": color, "capsize": 2, "markersize": 5, "label": f"{number}, {kind}"}
        panel.errorbar([n["mean"] for n in found], places, xerr=errors(found), **style)
    for at, cell in zip(y, m["cells"].values(), strict=True):
        why = dict.fromkeys(cell[kind]["verdict"] for kind in LOSS)
        panel.text(1.02, at, ", then ".join(why), va="center")
    base_line(panel, m["base"], vertical=True)
    panel.set_yticks(y, list(m["cells"]))
    panel.set(xlabel="P(the teacher's animal)", xlim=(-0.02, 1))
    panel.set_title(f"Sampled numbers, then the exact distribution (n: {m['unit']})", fontsize=10)
    figure.legend(fontsize=9, frameon=False, ncols=4, loc="outside lower center")
    save(figure, path)
