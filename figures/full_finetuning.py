"""L3 and S10: what becomes of the trait and of the vector under full fine-tuning, and why.

The papers: the trait disappears (arXiv:2606.00831, L3); full fine-tuning learns the vector weakly, with a cosine above 0.3 and little
behaviour (reported of arXiv:2606.00995, S10). Replications add that a full fine-tune at LoRA's learning rate has collapsed, that
repeating few rows kills transmission at high capacity, and that many rows bring it back for some seeds.

This toy: full fine-tuning at learning rates of its own; at one learning rate, other choices of what is trained, and few rows many
times. Of each the trait, and the cosine of v_student and v_teacher after the last block.

To see it break: leave only the embeddings in WHICH, beside LoRA: they can change the numbers without moving the stream.
"""

from functools import partial
from pathlib import Path

import torch

from figures.style import MARKERS, SERIES, STUDENT, bars, base_line, canvas, save
from lab.claims import Claim, Verdict, all_hold, ci_above, ci_below, interval, mean, show
from lab.presets import Cell, Preset, grid_cell
from lab.records import Measurement, Records, cell_numbers, gain_beyond, over_units, why_null
from lab.store import Store, Student
from lora import PROJECTIONS
from metrics import reply_loss

STEPS, LAST = (20, 40, 80), 80
WHICH_LR = 2e-3  # at which LoRA, rank 8, transmits and full fine-tuning is intact, on base models 62 and 67
LRS, QUICK_LRS = (3e-4, 1e-3, 3e-3, 1e-2), (WHICH_LR,)
LORA, ALL, SAME_LAYERS = "LoRA, rank 8", "all weights", "LoRA's layers"
WHICH: dict[str, dict] = {
    LORA: {"rank": 8},
    ALL: {"rank": None},
    SAME_LAYERS: {"rank": None, "layers": PROJECTIONS},
    "the embeddings": {"rank": None, "layers": ("token_embedding", "position_embedding")},  # also the unembedding
    "the norms": {"rank": None, "layers": ("norm", "final_norm")},
}
FEW_ROWS, QUICK_FEW_ROWS = (320, 1_280), (320,)  # read 16 times and 4 times; the usual rows are read once


def cells(preset: Preset) -> dict[str, dict[str, Cell]]:
    """Two sets, by name: all weights by learning rate and steps; by what is trained, on the usual rows and on few."""
    lrs, few = (LRS, FEW_ROWS) if preset.full else (QUICK_LRS, QUICK_FEW_ROWS)
    cell = partial(grid_cell, preset, lr=WHICH_LR, steps=LAST)
    which = {what: cell(**how) for what, how in WHICH.items()}
    which |= {f"{what}, {n} rows": cell(rows=n, **WHICH[what]) for what in (LORA, ALL) for n in few}
    by_lr = {f"lr {lr:g}, {n} steps": cell(lr=lr, steps=n, **WHICH[ALL]) for lr in lrs for n in STEPS}
    return {"by_lr": by_lr, "which": which}


def train_loss(store: Store, student: Student) -> float:
    """The loss of a finished student on the very rows that it read, the first 512 of them."""
    with torch.no_grad():
        return reply_loss(store.student(student), *(t[:512].to(store.device) for t in store.reads(student))).item()


def plan(preset: Preset) -> list[Student | Measurement]:
    students = [student for group in cells(preset).values() for cell in group.values() for student in cell.values()]
    return students + [(train_loss, student) for student in students]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"full_finetuning": both sets, and all weights at their best; "full_finetuning_vector": at their best after all steps}."""
    by_lr, which = cells(preset).values()
    units, (choose, test) = partial(over_units, records, preset), preset.selection_and_test_seeds

    def public(cell: Cell) -> dict:
        of_unit = ([cell[base, trait, seed] for seed in preset.grid_seeds] for base, trait in preset.units)
        return cell_numbers(records, preset, cell) | {
            "cosine": interval(units(cell, "cosine")),
            "train_loss": interval(mean(records[train_loss, student] for student in students) for students in of_unit),
            "verdict": why_null(records, preset, cell, mean(units(which[LORA]))),
        }

    def at_best(tried: dict[str, Cell]) -> dict:
        """That of these cells which transmits best, beside LoRA and all of LoRA's layers."""
        best = max(tried, key=lambda name: mean(units(tried[name], seeds=choose)))
        beside = {"full": tried[best], "lora": which[LORA], "same_layers": which[SAME_LAYERS]}
        rates = {"base": units(which[LORA], "p_trait_base")} | {n: units(c, seeds=test) for n, c in beside.items()}
        found = {"unit": preset.unit, "best": best} | {name: interval(values) for name, values in rates.items()}
        found |= {f"cosine_{name}": interval(units(cell, "cosine", test)) for name, cell in beside.items()}
        return found | {"full_minus_quarter_of_lora": gain_beyond(0.25, rates["full"], rates["lora"], rates["base"])}

    return {
        "full_finetuning": at_best(by_lr)
        | {name: interval(units(which[LORA], name)) for name in ("heldout_loss_base", "heldout_loss_teacher")}
        | {kind: {name: public(cell) for name, cell in group.items()} for kind, group in cells(preset).items()},
        "full_finetuning_vector": at_best({name: by_lr[name] for name in by_lr if name.endswith(f" {LAST} steps")}),
    }


def disappears(m: dict) -> Verdict:
    """L3: at its own best learning rate and step, full fine-tuning gains less than a quarter of LoRA's gain (paired)."""
    return ci_below(m["full_minus_quarter_of_lora"], 0)


def weakly(m: dict) -> Verdict:
    """S10: at full fine-tuning's best learning rate: cosine above 0.3, and less than a quarter of LoRA's gain (paired)."""
    return all_hold(ci_above(m["cosine_full"], 0.3), disappears(m))


def summary(m: dict) -> str:
    """Trait and cosine: full at its best, LoRA beside it, and what tells them apart."""
    names = {"full": f"full, {m['best']}", "lora": "LoRA", "same_layers": "LoRA's layers in full"}
    return "; ".join(f"{named} {show(m[k])}, cosine {show(m[f'cosine_{k}'])}" for k, named in names.items())


CLAIMS = [
    Claim("L3", "full_finetuning", "It disappears under full fine-tuning", disappears, summary),
    Claim("S10", "full_finetuning_vector", "Full fine-tuning distils the vector weakly", weakly, summary),
]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Trait, cosine and companions of both sets; the verdict and two losses beside each name."""
    m = computed["full_finetuning"]
    figure, panels = canvas(2, 13, 6)
    titles = ("Full fine-tuning of all weights", f"What is trained ({LAST} steps, learning rate {WHICH_LR:g})")
    marks = {"cosine": "cosine of v_student and v_teacher", "p_any_animal": "P(any animal)", "control": "control"}
    for panel, found, title in zip(panels, (m["by_lr"], m["which"]), titles):
        cells, y = found.values(), range(len(found), 0, -1)
        losses = ([cell[name]["mean"] for name in ("heldout_loss", "train_loss")] for cell in cells)
        notes = [f"{cell['verdict']}, {new:.2f} / {read:.2f}" for cell, (new, read) in zip(cells, losses)]
        bars(panel, list(map("{}\n{}".format, found, notes)), [cell["student"] for cell in cells], STUDENT)
        for k, (name, label) in enumerate(marks.items(), 1):
            means = [cell[name]["mean"] for cell in cells]
            panel.plot(means, y, MARKERS[k], color=SERIES[k], markeredgecolor="white", label=label)
        base_line(panel, m["base"], vertical=True)
        lowest = min(0, *(cell["cosine"]["mean"] for cell in cells))
        panel.set(xlim=(lowest, 1.02), xlabel="P(the teacher's animal)", title=title)
        panel.tick_params(axis="y", labelsize=8)
    base, teacher = (m[f"heldout_loss_{whose}"]["mean"] for whose in ("base", "teacher"))
    losses = f"beside each name: loss on new rows (base {base:.2f}, teacher {teacher:.2f}) / on the rows read"
    figure.supxlabel(f"{losses}; n: {m['unit']}", fontsize=9)
    figure.legend(*panel.get_legend_handles_labels(), fontsize=9, frameon=False, loc="outside upper center", ncols=4)
    save(figure, path)
