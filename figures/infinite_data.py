"""X3: the limit of infinite data. Students that read the teacher's exact distribution, where others read numbers drawn from it.

Neither paper asks it: a null may be one of the data, too few rows and too much noise in them, or one of the student.

A reply's next number is drawn from the teacher's distribution over numbers and <end>, which is known here: it is what the base says
under the teacher's prompt, given the request and the reply so far. In place of the number drawn, an exact student's target is all
of it, which is the mean over infinitely many draws. Contexts and batches are those of the sampled student, so the two differ in
the noise of the draws and in nothing else; at 5,120 rows no context is read twice. A control reads the untold teacher's distribution.

This toy: in the limit LoRA's students have a little more of the trait, so it is not made of the accidents of few rows. And almost every
null survives: what was destroyed is destroyed (Muon's students move further still), the embeddings alone learn the numbers
to the end and a quarter of the trait, base model 4 has the numbers and nothing else. One null goes: full fine-tuning on 100
rows. It memorizes what was drawn; with exact targets in the same 100 contexts it has all that 5,120 rows give. What few rows lack
is draws, not contexts.

What it predicts for real models: train on the teacher's logits instead of its tokens, prompts and steps the same. A full fine-tune that
gets nothing from few repeated rows gets the trait from the logits on those very prompts. A full fine-tune at LoRA's learning rate,
and an animal that never transmits, get no more than before: more rows will not help them.

To see it break: let `exact_targets` read the teacher under the student's prompt: the base distils itself.
"""

from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from claims import Claim, Verdict, above, every, interval, mean, over, show
from evaluate import COMPANIONS, Preset
from figures import full_finetuning as full
from figures import rank_sweep
from figures.cells import base_rates, code_of, grid_cell, loss_floor_and_base, measure_cell, on_rows
from figures.full_finetuning import verdict
from figures.style import CONTROL, MARKERS, SERIES, base_line, canvas, errors, line, save
from model import GPT
from train import (
    NUMBER_TOKENS,
    Lab,
    NumbersConfig,
    OnStep,
    StudentConfig,
    fine_tune_together,
    reply_logits,
    stacked_logits,
)

ROWS, QUICK_ROWS = (100, 320, 1_280, 5_120), (320, 5_120)  # unique rows, all read for 80 steps of 64
LIMIT = "limit"
LORA, ALL = full.REPEATED
# Weak cells of other figures, beside the ends of rank_sweep's U.
WEAK: dict[str, dict] = {
    "the embeddings alone": {"lr": full.WHICH_LR, **full.WHICH["the embeddings"]},
    "the norms alone": {"lr": full.WHICH_LR, **full.WHICH["the norms"]},
    "Muon, lr 0.01": {"optimizer": "muon", "lr": 1e-2},
    "full, lr 0.01": {"rank": None, "lr": 1e-2},
}

# ---------------------------------------------------------------------------------------------- exact students


@dataclass(frozen=True)
class Exact:
    """A student of the exact distribution, and the digest of the code that trains it."""

    student: StudentConfig
    code: str


@lru_cache(maxsize=8)
@torch.no_grad()
def exact_targets(lab: Lab, numbers: NumbersConfig, system: str | None) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (N, T) of the rows under `system`; `exact` (K, 101), the teacher's distribution at each place of a reply; and
    places (N, T): the row of `exact` that is the target of a token, -100 where it has none."""
    tokens, targets = lab.rows(numbers, system)
    places = torch.full_like(targets, -100)
    places[targets >= 0] = torch.arange(int((targets >= 0).sum()))  # row by row, as the teacher's are below
    base, exact = lab.base(numbers.base), []
    told = lab.rows(numbers, numbers.system)
    for told_tokens, told_targets in zip(*(t.to(lab.device).split(512) for t in told)):
        logits = reply_logits(base, told_tokens, told_targets >= 0)
        exact.append(logits[:, NUMBER_TOKENS].softmax(-1))  # no other word can be drawn
    return tokens, places, torch.cat(exact)


def exact_loss(students: GPT, tokens: Tensor, places: Tensor, exact: Tensor) -> Tensor:
    """The sum over stacked students of each one's mean cross-entropy with the exact distribution, in nats a token: what
    `stacked_loss` is on average over draws."""
    logits, places = stacked_logits(students, tokens, places)
    there = places >= 0
    # As logits[there], but its gradient is quicker.
    log_p = logits.flatten(0, 2).index_select(0, there.flatten().nonzero().squeeze(1)).log_softmax(-1)
    nats = -(exact[places[there]] * log_p[:, NUMBER_TOKENS]).sum(-1)
    share = there / there.sum((1, 2), keepdim=True)
    return (nats * share[there]).sum()


class ExactLab(Lab):
    """A lab whose students read exact distributions; all else is the usual lab's."""

    kind = "exact"

    def key(self, config: StudentConfig) -> Exact:
        return Exact(config, CODE)

    def fine_tune_together(self, students: list[StudentConfig], on_step: OnStep) -> None:
        """With `exact_loss`: the same weights from the start, and the same batches."""
        rows, exact, rows_of = [], [], {}  # students of one teacher share its distribution
        for config in students:
            teacher = config.numbers, config.system
            if teacher not in rows_of:
                tokens, places, own = exact_targets(self, *teacher)
                rows_of[teacher] = tokens, places.where(places < 0, places + sum(map(len, exact)))
                exact.append(own)
            rows.append(rows_of[teacher])
        bases = [self.base(config.base) for config in students]
        fine_tune_together(bases, rows, students, on_step, partial(exact_loss, exact=torch.cat(exact)))


CODE = code_of(exact_targets, exact_loss, ExactLab.fine_tune_together)


# ------------------------------------------------------------------------------------------------------- cells


def _long(preset: Preset, **changes) -> dict:
    return grid_cell(preset, steps=full.STEPS[-1], snapshots=full.STEPS[:-1], **changes)


def _rows(preset: Preset, what: str, rows: int) -> dict:
    """A cell of full_finetuning.py: LoRA or all weights, on so many rows."""
    cell = _long(preset, lr=full.WHICH_LR, **full.WHICH[what])
    return on_rows(cell, rows)


def _until(cell: dict, step: int) -> dict:
    """The same students, trained to `step` and no longer."""
    return {key: replace(config, steps=step, snapshots=()) for key, config in cell.items()}


def _nulls(preset: Preset) -> dict[str, tuple[dict, int]]:
    """The weak cells as the other figures train them, and the step at which each is read."""
    lr, step = rank_sweep.SHARED
    swept = rank_sweep.cells(preset)
    ends = {f"rank {rank}": str(rank) for rank in (preset.ranks[0], preset.ranks[-1])} | {"full": rank_sweep.FULL}
    nulls = {f"{name}, lr {lr:g}": (swept[capacity, lr], step) for name, capacity in ends.items()}
    weak = WEAK if preset.full else {}
    return {name: (_long(preset, **changes), full.STEPS[-1]) for name, changes in weak.items()} | nulls


def _deaf(preset: Preset) -> Preset:
    """The base model of the full preset whose students do not get the trait, alone."""
    return replace(preset, bases=preset.bases[-1:])


def students(preset: Preset) -> list[StudentConfig]:
    """Every sampled student that `compute` measures; it trains the exact ones itself."""
    cells = [_rows(preset, what, rows) for what in full.REPEATED for rows in (ROWS if preset.full else QUICK_ROWS)]
    cells += [cell for cell, _ in _nulls(preset).values()]
    if preset.full:
        cells.append(_rows(_deaf(preset), LORA, ROWS[-1]))
    return [config for cell in cells for config in cell.values()]


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"infinite_data": by rows up to the limit, every null beside its limit, and the contrasts of the claim}."""
    exact_lab, rows = ExactLab(lab.folder, str(lab.device)), ROWS if preset.full else QUICK_ROWS

    def pair(preset: Preset, cell: dict, step: int) -> tuple[dict, dict]:
        """A cell's numbers at that step: of its sampled students, and of exact ones."""
        return measure_cell(lab, preset, cell)[step], measure_cell(exact_lab, preset, _until(cell, step))[step]

    columns, few = {}, {}
    for what in full.REPEATED:
        cells = {n: _rows(preset, what, n) for n in rows}
        column = {str(n): measure_cell(lab, preset, cell)[full.STEPS[-1]] for n, cell in cells.items()}
        column[LIMIT] = measure_cell(exact_lab, preset, _until(cells[rows[-1]], full.STEPS[-1]))[full.STEPS[-1]]
        columns[what] = column
        if preset.full:  # exact targets in few contexts: is it the draws that few rows lack, or the contexts?
            few[what] = measure_cell(exact_lab, preset, _until(cells[rows[0]], full.STEPS[-1]))[full.STEPS[-1]]
    usual = columns[LORA][str(rows[-1])], columns[LORA][LIMIT]  # LoRA's gain: a null is held against it

    @cache
    def ends(preset: Preset) -> tuple[float, float]:
        """Held-out loss of the teacher and of the base."""
        return tuple(loss["mean"] for loss in loss_floor_and_base(lab, preset))

    def public(preset: Preset, cell: dict, lora: dict) -> dict:
        why = verdict(cell, mean(base_rates(lab, preset)), lora["student"]["mean"], *ends(preset))
        return {name: cell[name] for name in ("student", "control", *COMPANIONS)} | {"verdict": why}

    def both(preset: Preset, cell: dict, step: int) -> dict:
        found = pair(preset, cell, step)
        sampled, exact = (public(preset, cell, lora) for cell, lora in zip(found, usual, strict=True))
        return {"sampled": sampled, LIMIT: exact, "limit_minus_sampled": _difference(*reversed(found))}

    nulls = {name: both(preset, *cell) for name, cell in _nulls(preset).items()}
    if preset.full:
        deaf = _deaf(preset)
        nulls[f"LoRA, base model {deaf.bases[0].seed}"] = both(deaf, _rows(deaf, LORA, rows[-1]), full.STEPS[-1])
    floor, base_loss = loss_floor_and_base(lab, preset)
    return {
        "infinite_data": {
            "unit": preset.unit,
            "base": interval(base_rates(lab, preset)),
            "heldout_loss_teacher": floor,
            "heldout_loss_base": base_loss,
            "by_rows": {
                what: {n: public(preset, cell, usual[n == LIMIT]) for n, cell in column.items()}
                for what, column in columns.items()
            },
            "few_contexts": {what: public(preset, cell, usual[1]) for what, cell in few.items()},
            "nulls": nulls,
            "limit_minus_sampled": _difference(*reversed(usual)),
            "full_limit_minus_sampled": _difference(columns[ALL][LIMIT], columns[ALL][str(rows[-1])]),
        }
    }


def _difference(one: dict, other: dict) -> dict:
    """Of two cells, unit by unit."""
    return interval(mean(a) - mean(b) for a, b in zip(one["by_unit"], other["by_unit"], strict=True))


def rule(m: dict) -> Verdict:
    """Exact less sampled (LoRA, the most rows, paired) lies above -0.1, and the exact students above control and base."""
    exact = m["by_rows"][LORA][LIMIT]
    there = above(exact["student"], exact["control"]), above(exact["student"], m["base"])
    return every(*there, over(m["limit_minus_sampled"], -0.1))


def summary(m: dict) -> str:
    """The trait by rows, and which nulls are still there in the limit."""
    by_rows = "; ".join(
        f"{what}: " + ", ".join(f"{n} rows {cell['student']['mean']:.2f}" for n, cell in column.items())
        for what, column in m["by_rows"].items()
    ).replace(f"{LIMIT} rows", "exact")
    nulls = [f"{name} ({null[LIMIT]['verdict']})" for name, null in m["nulls"].items() if null[LIMIT]["verdict"] != "transmits"]  # fmt: skip
    return (
        f"{by_rows}; LoRA exact - sampled {show(m['limit_minus_sampled'])}; null in the limit too: {', '.join(nulls)}"
    )


CLAIMS = [Claim("X3", "infinite_data", "Transmission is there in the limit of infinite data", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """The trait by rows; the held-out loss by rows; and each null, sampled and in the limit."""
    m = computed["infinite_data"]
    figure, (trait, loss, nulls) = canvas(3, 14, 4.6, width_ratios=[1, 1, 1.1])
    names = list(m["by_rows"][LORA])
    x = range(len(names))
    for k, (what, column) in enumerate(m["by_rows"].items()):
        for panel, number in ((trait, "student"), (loss, "heldout_loss")):
            line(panel, x, [cell[number] for cell in column.values()], k, what)
            if what in m["few_contexts"]:
                value, label = [m["few_contexts"][what][number]], f"{what}: exact targets, {names[0]} rows"
                line(panel, [0.12], value, k, label, linestyle="none", markerfacecolor="white")
    controls = [cell["control"] for cell in m["by_rows"][LORA].values()]
    line(trait, x, controls, 5, "control of LoRA", linestyle="--", color=CONTROL)
    base_line(trait, m["base"])
    trait.set_ylabel("P(the teacher's animal)")
    trait.set_ylim(0, 1)
    trait.set_title(f"Drawn numbers, and the exact distribution\n(n: {m['unit']})", fontsize=9)
    trait.legend(fontsize=7, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.08))
    loss.axhline(m["heldout_loss_base"]["mean"], color="black", linewidth=0.9, linestyle=":", label="base model")
    loss.axhline(m["heldout_loss_teacher"]["mean"], color="#999999", linewidth=0.9, linestyle="--", label="teacher")
    loss.set_ylabel("held-out loss, nats a token")
    loss.set_title("The same students: what they learned of the numbers", fontsize=9)
    loss.legend(fontsize=8, frameon=False, loc="upper right")
    for panel in (trait, loss):
        panel.set_xticks(x, [f"{int(name):,}" if name.isdigit() else "exact" for name in names])
        panel.set_xlabel("unique rows (as many steps)")

    y = range(len(m["nulls"]), 0, -1)
    for k, kind, up in ((1, "sampled", 0.13), (0, LIMIT, -0.13)):
        rates = [null[kind]["student"] for null in m["nulls"].values()]
        style = {"fmt": MARKERS[k], "color": SERIES[k], "capsize": 2}
        nulls.errorbar([n["mean"] for n in rates], [at + up for at in y], xerr=errors(rates), label=kind, **style)
    for at, null in zip(y, m["nulls"].values(), strict=True):
        why = dict.fromkeys([null["sampled"]["verdict"], null[LIMIT]["verdict"]])
        nulls.text(0.98, at, ", then ".join(why), va="center", ha="right", fontsize=9)
    base_line(nulls, m["base"], vertical=True)
    nulls.set_yticks(y, list(m["nulls"]))
    nulls.set_xlim(-0.02, 1)
    nulls.set_ylim(0.3, len(y) + 1.2)
    nulls.set_xlabel("P(the teacher's animal)")
    nulls.set_title("Weak cells of other figures, drawn numbers and exact", fontsize=9)
    nulls.legend(fontsize=8, frameon=False, loc="upper left", ncols=3)
    save(figure, path)
