"""L3: what becomes of the trait under full fine-tuning, and why.

The paper (arXiv:2606.00831): it disappears. Replications add that a full fine-tune at LoRA's learning rate is a destroyed model,
that repeating few rows kills transmission at high capacity, and that many rows bring it back for some seeds.

This toy: it disappears where full fine-tuning gets the learning rate of LoRA's sweep (rank_sweep.py): those students answer with no
animal, they are destroyed. At learning rates of its own full fine-tuning transmits nearly as much as LoRA does. What it trains
matters more than the rank of the change: training the token embeddings alone, which are the unembedding too, learns the numbers
and transmits much less, because raising the logits of some numbers there says nothing about animals. The norms alone, a few
hundred numbers, transmit. Few rows repeated make it memorize them, and cost it half of the trait; LoRA they cost nothing.

To see it break: take all but the embeddings out of what is trained.
"""

from pathlib import Path

import torch

from claims import Claim, Verdict, interval, mean, show, under
from evaluate import COMPANIONS, Preset
from figures.cells import base_rates, gain_beyond, grid_cell, halves, loss_floor_and_base, measure_cell, on_rows
from figures.style import MARKERS, SERIES, STUDENT, bars, base_line, canvas, line, save, top_of
from lora import PROJECTIONS
from train import Lab, StudentConfig, reply_loss

STEPS = (20, 40, 80)
WHICH_LR = 2e-3  # at which LoRA, rank 8, transmits and full fine-tuning is intact, on base models 62 and 67
LRS, QUICK_LRS = (3e-4, 1e-3, 3e-3, 1e-2), (WHICH_LR,)
WHICH: dict[str, dict] = {
    "LoRA, rank 8": {"rank": 8},
    "all weights": {"rank": None},
    "the six projections": {"rank": None, "layers": PROJECTIONS},
    "the embeddings": {"rank": None, "layers": ("token_embedding", "position_embedding")},
    "the norms": {"rank": None, "layers": ("norm", "final_norm")},
}
# Unique rows, all for 80 steps of 64: 16 epochs, 4, and 1.
ROWS, QUICK_ROWS = {"1x": 320, "4x": 1_280, "16x": 5_120}, ("1x", "16x")
REPEATED = ("LoRA, rank 8", "all weights")


def grid(preset: Preset) -> dict[tuple, dict]:
    """Three sets: full fine-tuning by learning rate, what is trained, and unique rows. All share the last of the steps."""
    common = {"steps": STEPS[-1], "snapshots": STEPS[:-1]}
    cells = {}
    for lr in LRS if preset.full else QUICK_LRS:
        cells["lr", lr] = grid_cell(preset, lr=lr, **WHICH["all weights"], **common)
    for what, how in WHICH.items():
        cells["which", what] = grid_cell(preset, lr=WHICH_LR, **how, **common)
    for what in REPEATED:
        for times in ROWS if preset.full else QUICK_ROWS:
            cell = grid_cell(preset, lr=WHICH_LR, **WHICH[what], **common)
            cells["rows", what, times] = on_rows(cell, ROWS[times])
    return cells


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures."""
    return [config for cell in grid(preset).values() for config in cell.values()]


def verdict(cell: dict, base_rate: float, lora_rate: float, floor: float, base_loss: float) -> str:
    """Why is the trait there or not? Decided on means, in this order.

    collapse: answers no animal half of the time or more. starved: closed less than half of the gap in held-out loss.
    transmits: gains at least a quarter of what LoRA gains, as the claim's rule has it. Otherwise: a real null.
    """
    if cell["p_any_animal"]["mean"] < 0.5:
        return "collapse"
    if base_loss - cell["heldout_loss"]["mean"] < 0.5 * (base_loss - floor):
        return "starved"
    return "transmits" if cell["student"]["mean"] - base_rate >= 0.25 * (lora_rate - base_rate) else "real null"


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"full_finetuning": by learning rate and step, by what is trained, by unique rows, and the contrasts}."""
    configs = grid(preset)
    cells = {key: measure_cell(lab, preset, cell) for key, cell in configs.items()}
    choose, test = halves(preset)
    base = base_rates(lab, preset)
    floor, base_loss = loss_floor_and_base(lab, preset)

    def units(cell: dict) -> list[float]:
        return [mean(rates[test]) for rates in cell["by_unit"]]

    def public(cell: dict) -> dict:
        named = {name: cell[name] for name in ("student", "control", *COMPANIONS)}
        rates = mean(base), cells["which", "LoRA, rank 8"][STEPS[-1]]["student"]["mean"]
        return named | {"verdict": verdict(cell, *rates, floor["mean"], base_loss["mean"])}

    # Full fine-tuning gets every chance: the learning rate and step where it transmits best.
    lrs = [key[1] for key in cells if key[0] == "lr"]
    best = max(
        ((lr, step) for lr in lrs for step in STEPS),
        key=lambda at: mean(mean(rates[choose]) for rates in cells["lr", at[0]][at[1]]["by_unit"]),
    )
    full, low_rank = units(cells["lr", best[0]][best[1]]), units(cells["which", "LoRA, rank 8"][STEPS[-1]])
    unique_rows = {
        what: {
            key[2]: public(cells[key][STEPS[-1]]) | {"rows": ROWS[key[2]], "train_loss": _train_loss(lab, configs[key])}
            for key in configs
            if key[:2] == ("rows", what)
        }
        for what in REPEATED
    }
    last = STEPS[-1]
    return {
        "full_finetuning": {
            "unit": preset.unit,
            "base": interval(base),
            "heldout_loss_teacher": floor,
            "heldout_loss_base": base_loss,
            "by_lr": {str(lr): {str(step): public(cells["lr", lr][step]) for step in STEPS} for lr in lrs},
            "best": {"lr": best[0], "steps": best[1], "student": interval(full)},
            "lora": interval(low_rank),
            # Below 0 where full fine-tuning gains less than a quarter of what LoRA gains.
            "full_minus_quarter_of_lora": gain_beyond(0.25, full, low_rank, base),
            "which_lr": WHICH_LR,
            "which": {what: public(cells["which", what][last]) for what in WHICH},
            "projections_minus_all": interval(
                a - b
                for a, b in zip(
                    units(cells["which", "the six projections"][last]),
                    units(cells["which", "all weights"][last]),
                    strict=True,
                )
            ),
            "unique_rows": unique_rows,
        }
    }


def _train_loss(lab: Lab, cell: dict) -> dict:
    """The finished students' loss on the very rows they read (the first 512 of them), over units."""
    by_unit = {}
    for (base, trait, _), config in cell.items():
        if trait:
            rows = (tensor[:512].to(lab.device) for tensor in lab.rows(config.numbers, config.system))
            with torch.no_grad():
                by_unit.setdefault((base, trait), []).append(reply_loss(lab.student(config), *rows).item())
    return interval(map(mean, by_unit.values()))


def rule(m: dict) -> Verdict:
    """At its own best learning rate and step, full fine-tuning gains less than a quarter of LoRA's gain (paired)."""
    return under(m["full_minus_quarter_of_lora"], 0)


def summary(m: dict) -> str:
    """Full at its best, LoRA beside it, and what tells them apart."""
    return (
        f"full at its best (lr {m['best']['lr']:g}) {show(m['best']['student'])}, LoRA {show(m['lora'])}; "
        f"full training of LoRA's layers alone {show(m['which']['the six projections']['student'])}"
    )


CLAIMS = [Claim("L3", "full_finetuning", "It disappears under full fine-tuning", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """By learning rate; by what is trained; by unique rows."""
    m = computed["full_finetuning"]
    figure, (by_lr, which, rows) = canvas(3, 14, 4.6, width_ratios=[1.15, 1, 1])

    lrs = list(m["by_lr"])
    names = {"collapse": "destroyed", "starved": "starved", "real null": "real null", "transmits": "transmits"}
    cells = [[m["by_lr"][lr][str(step)] for step in STEPS] for lr in lrs]
    rates = [[cell["student"]["mean"] for cell in row] for row in cells]
    image = by_lr.imshow(rates, vmin=0, vmax=top_of(rates), cmap="cividis", aspect="auto")
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            value = cell["student"]["mean"]
            by_lr.text(
                j, i, f"{value:.2f}\n{names[cell['verdict']]}", ha="center", va="center", fontsize=9,
                color="black" if value > 0.5 * top_of(rates) else "white",
            )  # fmt: skip
    by_lr.set_xticks(range(len(STEPS)), STEPS)
    by_lr.set_yticks(range(len(lrs)), [f"{float(lr):g}" for lr in lrs])
    by_lr.set_xlabel("steps")
    by_lr.set_ylabel("learning rate")
    by_lr.set_title("Full fine-tuning of all weights", fontsize=10)
    figure.colorbar(image, ax=by_lr, label="P(the teacher's animal)")

    bars(which, list(m["which"]), [cell["student"] for cell in m["which"].values()], STUDENT)
    for k, cell in enumerate(m["which"].values()):
        which.text(1.02, len(m["which"]) - k, f"{cell['heldout_loss']['mean']:.2f}", va="center", fontsize=9)
    which.text(1.02, len(m["which"]) + 0.6, "loss", fontsize=9)
    which.set_ylim(0.4, len(m["which"]) + 0.9)
    base_line(which, m["base"], vertical=True)
    which.set_xlim(0, 1.2)
    which.set_xlabel("P(the teacher's animal)")
    which.set_title(
        f"What is trained: {STEPS[-1]} steps, learning rate {m['which_lr']:g}\n"
        f"(held-out loss: base {m['heldout_loss_base']['mean']:.2f}, teacher {m['heldout_loss_teacher']['mean']:.2f})",
        fontsize=10,
    )

    for k, (what, by_rows) in enumerate(m["unique_rows"].items()):
        x = range(len(by_rows))
        line(rows, x, [cell["student"] for cell in by_rows.values()], k, what)
        gap = [cell["heldout_loss"]["mean"] - cell["train_loss"]["mean"] for cell in by_rows.values()]
        rows.plot(x, gap, color=SERIES[k], marker=MARKERS[k], linestyle=":", label=f"{what}: held-out - train loss")
    base_line(rows, m["base"])
    rows.set_xticks(x, [f"{times}\n{cell['rows']:,}" for times, cell in by_rows.items()])
    rows.set_xlabel("unique rows (as many steps)")
    rows.set_ylabel("P(the teacher's animal), or nats")
    rows.set_ylim(-0.1, 1.05)
    rows.set_title(f"Few rows many times, or many once\n(n: {m['unit']})", fontsize=9)
    rows.legend(fontsize=8, frameon=False, loc="center right", bbox_to_anchor=(1, 0.36))
    save(figure, path)
