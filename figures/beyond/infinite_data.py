"""X3: the limit of infinite data. Students of a teacher's exact distribution, where others read numbers drawn from it.

Is a null one of the data, too few rows, too much noise, or of the student? An exact student's target is the teacher's
whole distribution of the next number, the mean over infinitely many draws. A control reads the unprompted teacher's
distribution. This toy: LoRA and full fine-tuning by unique rows, and weak cells of other figures, each beside its
limit. To see it break: let `losses.exact_targets` read the teacher under the student's prompt. The base distils itself.
"""

from dataclasses import replace

from figures.style import RATE, Axes, picture, rate_bars
from lab.claims import Claim, all_hold, ci_above, interval, show
from lab.presets import SHARED, Cell, Grid, Preset, Records, difference, grid_cell

LOSS = {"sampled": "", "limit": "exact"}
ROWS = (50, 160, 640, 2_560)  # unique rows, all read for 80 steps of 32
LORA, ALL = {"rank": 8, "lr": 2e-3}, {"rank": None, "lr": 2e-3}  # of full_finetuning.py, as are the first four of WEAK
WEAK: dict[str, dict] = {
    "the embeddings alone": {**ALL, "layers": ("token_embedding", "position_embedding")},
    "the norms alone": {**ALL, "layers": ("norm", "final_norm")},
    "Muon, lr 0.01": {"optimizer": "muon", "lr": 1e-2}, "full, lr 0.01": {"rank": None, "lr": 1e-2},
}  # fmt: skip
USUAL = f"LoRA, {ROWS[-1]:,} rows"
CLAIMS = [Claim("X3", "infinite_data", "Transmission is there in the limit of infinite data",
    seen=lambda m: ci_above(m["limit_minus_base"], 0),
    survives=lambda m: all_hold(ci_above(m["limit_minus_control"], 0), ci_above(m["limit_minus_sampled"], -0.1)),
    why=lambda m: f"Students of the exact distribution have {show(m['cells'][USUAL]['limit']['student'])}, students of "
    f"numbers drawn from it {show(m['cells'][USUAL]['sampled']['student'])}; exact less drawn is "
    f"{show(m['limit_minus_sampled'])}, exact less control {show(m['limit_minus_control'])}.")]  # fmt: skip


def plan(preset: Preset) -> dict[tuple[str, str], Cell]:
    """LoRA and full fine-tuning by rows, weak cells, the ends of rank_sweep's U, one base model; each and its limit."""
    ranks = {f"rank {rank}": rank for rank in (preset.ranks[0], preset.ranks[-1])} | {"full": None}
    how = {f"{name}, {n:,} rows": {"rows": n, **way} for name, way in (("LoRA", LORA), ("full", ALL)) for n in ROWS}
    how |= WEAK | {f"{name}, lr {SHARED['lr']:g}": {"rank": rank, **SHARED} for name, rank in ranks.items()}
    weak = replace(preset, bases=preset.bases[:5][-1:])  # 104, whose students have the least
    each = [(name, preset, way) for name, way in how.items()] + [(f"LoRA, base model {weak.bases[0].seed}", weak, LORA)]
    return {(name, kind): grid_cell(of, loss=LOSS[kind], **way) for name, of, way in each for kind in LOSS}


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    grid, each = Grid(records, plan(preset)), {}
    rates = {kind: grid.units((USUAL, kind)) for kind in LOSS}
    for name, kind in grid.cells:
        # A null is held against LoRA's gain from the same kind of data.
        why = {"verdict": grid.verdict((name, kind), (USUAL, kind))}
        each.setdefault(name, {})[kind] = grid.reported((name, kind)) | why
    limit, base = (USUAL, "limit"), grid.units((USUAL, "limit"), "p_trait_base")
    beside = {"sampled": rates["sampled"], "control": grid.controls(limit), "base": base}
    contrasts = {f"limit_minus_{name}": difference(rates["limit"], of) for name, of in beside.items()}
    return {"infinite_data": {"unit": preset.unit, "base": interval(base), "cells": each, **contrasts}}


@picture(1, 10, 7.5)
def draw(m: dict, panel: Axes) -> None:
    cells = {name: both["limit"] | {"sampled": both["sampled"]["student"]} for name, both in m["cells"].items()}
    marks = {"control of the exact distribution": "control", "sampled": "sampled"}
    label = f"{RATE}, exact distribution (n: {m['unit']})"
    title = "Is a null one of the data? Beside each: of numbers drawn, then in the limit"
    rate_bars(panel, cells, m["base"], marks, xlabel=label, xlim=(-0.02, 1), title=title)
    for y, both in zip(range(len(cells), 0, -1), m["cells"].values()):
        panel.text(1.02, y, ", then ".join(dict.fromkeys(both[kind]["verdict"] for kind in LOSS)), va="center")
    panel.figure.legend(ncols=4, loc="outside lower center")
