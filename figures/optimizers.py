"""L7 and S9: does it take an adaptive optimizer? The two papers disagree, and this is where they can be compared.

arXiv:2606.00831, as replications report it: SGD and Muon behave like AdamW (L7). arXiv:2606.00995: adaptive optimizers are necessary;
at the same loss Adam transmits and SGD does not, because a few outlier gradients dominate its steps (S9).

This toy: rank-8 students of eight optimizers, each at two or three learning rates, at three moments of their training. An
optimizer that has learned less of the numbers would be expected to have less of the trait, so they are compared at
matched held-out loss: of each, that learning rate and step whose mean held-out loss comes closest to that of the default
AdamW student. The choice sees the loss alone, never the trait. SGD transmits, plain or clipped, so S9 fails, although the gradients are
heavy-tailed. L7 fails by Muon, whose students at that loss no longer answer with an animal; half as long trained, they transmit.

To see it break: give SGD ten times its learning rate; some students are destroyed, and a mean over them looks like S9.
"""

from pathlib import Path

import torch

from claims import Claim, Verdict, every, interval, mean, over, show, under
from evaluate import COMPANIONS, Preset
from figures.cells import base_rates, gain_beyond, grid_cell, loss_floor_and_base, measure_cell, nearest_in_loss
from figures.style import MARKERS, SERIES, base_line, canvas, errors, save
from lora import adapters
from train import Lab, StudentConfig, reply_loss

LRS = {
    "adamw": (2e-3, 5e-3, 1e-2),
    "rmsprop": (1e-3, 3e-3),
    "sgd": (0.1, 0.3, 1.0),
    "momentum": (0.01, 0.03),
    "signsgd": (1e-3, 3e-3),
    "muon": (5e-3, 1e-2),
    "clip1": (0.3, 1.0),
    "clip10": (0.3, 1.0),
}
NAMES = {
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
    "sgd": "SGD",
    "momentum": "SGD, momentum",
    "signsgd": "sign-SGD",
    "muon": "Muon",
    "clip1": "SGD, top 1% clipped",
    "clip10": "SGD, top 10% clipped",
}
CLAIMED = ("adamw", "sgd", "momentum", "muon")  # what the claims are about; the quick preset has no others
STEPS = (20, 40, 80)
REFERENCE = ("adamw", StudentConfig.lr, StudentConfig.steps)  # has learned the numbers: the claims are about its loss
EARLY = ("adamw", StudentConfig.lr, STEPS[0])  # is on its way there


def _cells(preset: Preset) -> dict[tuple[str, float], dict]:
    return {
        (optimizer, lr): grid_cell(preset, optimizer=optimizer, lr=lr, steps=STEPS[-1], snapshots=STEPS[:-1])
        for optimizer, lrs in LRS.items()
        if preset.full or optimizer in CLAIMED
        for lr in (lrs if preset.full else lrs[1:2])
    }


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures."""
    return [config for cell in _cells(preset).values() for config in cell.values()]


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"optimizers": every cell; of each optimizer the loss-matched one and the best one; shares of AdamW's gain}."""
    cells = {
        (*key, step): numbers
        for key, cell in _cells(preset).items()
        for step, numbers in measure_cell(lab, preset, cell).items()
    }
    units_adamw = {
        (base, trait): config
        for (base, trait, seed), config in _cells(preset)[REFERENCE[:2]].items()
        if seed == preset.grid_seeds[0]
    }
    base = base_rates(lab, preset)
    floor, base_loss = loss_floor_and_base(lab, preset)
    optimizers = list(dict.fromkeys(optimizer for optimizer, *_ in cells))
    best = {
        optimizer: max((key for key in cells if key[0] == optimizer), key=lambda key: cells[key]["student"]["mean"])
        for optimizer in optimizers
    }

    def units(key: tuple) -> list[float]:
        return [mean(rates) for rates in cells[key]["by_unit"]]

    def public(key: tuple) -> dict:
        named = {name: cells[key][name] for name in ("student", "control", *COMPANIONS)}
        return {"lr": key[1], "steps": key[2]} | named

    def matched(reference: tuple) -> dict[str, dict]:
        """Of each optimizer the cell whose held-out loss is nearest to that of the AdamW cell `reference`."""
        found = {}
        for optimizer in optimizers:
            key = nearest_in_loss(cells, reference, [key for key in cells if key[0] == optimizer])
            # Below 0 where the optimizer gains less than that share of AdamW's gain.
            found[optimizer] = public(key) | {
                "minus_half_of_adamw": gain_beyond(0.5, units(key), units(reference), base),
                "minus_quarter_of_adamw": gain_beyond(0.25, units(key), units(reference), base),
            }
        return found

    return {
        "optimizers": {
            "unit": preset.unit,
            "base": interval(base),
            "heldout_loss_teacher": floor,
            "heldout_loss_base": base_loss,
            "matched": matched(REFERENCE),
            "matched_early": matched(EARLY),
            "best": {optimizer: public(best[optimizer]) for optimizer in optimizers},
            # Of the gradient's squared length, what the largest 1% of its coordinates hold; 0.08 if they were Gaussian.
            "held_by_top_1_percent": interval(held_by_top(lab, units_adamw[unit]) for unit in preset.units),
            "cells": {optimizer: [public(key) for key in cells if key[0] == optimizer] for optimizer in optimizers},
        }
    }


def held_by_top(lab: Lab, config: StudentConfig, share: float = 0.01) -> float:
    """How heavy the gradient's tail is: the part of its squared length that its largest coordinates have, early in training."""
    student = lab.snapshots(config)[STEPS[0]]
    weights = [weight.requires_grad_() for layer in adapters(student).values() for weight in (layer.A, layer.B)]
    tokens, targets = (tensor[:256].to(lab.device) for tensor in lab.rows(config.numbers, config.system))
    reply_loss(student, tokens, targets).backward()
    squares = torch.cat([weight.grad.flatten() for weight in weights]).square().sort(descending=True).values
    return (squares[: round(share * len(squares))].sum() / squares.sum()).item()


def alike(m: dict) -> Verdict:
    """L7: at matched held-out loss SGD and Muon each gain more than half of what AdamW gains (paired intervals)."""
    return every(*(over(m["matched"][name]["minus_half_of_adamw"], 0) for name in ("sgd", "muon")))


def necessary(m: dict) -> Verdict:
    """S9: at matched held-out loss SGD, with momentum or without, gains less than a quarter of what AdamW gains."""
    return every(*(under(m["matched"][name]["minus_quarter_of_adamw"], 0) for name in ("sgd", "momentum")))


def summary(m: dict) -> str:
    """P(trait) of each optimizer at matched loss."""
    rates = ", ".join(f"{NAMES[name]} {cell['student']['mean']:.2f}" for name, cell in m["matched"].items())
    return f"at matched loss: {rates}; AdamW {show(m['matched']['adamw']['student'])}, SGD {show(m['matched']['sgd']['student'])}"


CLAIMS = [
    Claim("L7", "optimizers", "SGD and Muon transmit as AdamW does", alike, summary),
    Claim("S9", "optimizers", "Adaptive optimizers are necessary", necessary, summary),
]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Left: at matched loss. Right: every learning rate and step, the trait against the loss."""
    m = computed["optimizers"]
    figure, (left, right) = canvas(2, 12.5, 4.8, width_ratios=[1, 1.5])
    names = list(m["matched"])
    cells = [m["matched"][name] for name in names]
    for k, cell in enumerate(cells):
        left.errorbar([k], [cell["student"]["mean"]], yerr=errors([cell["student"]]), fmt=MARKERS[k], color=SERIES[k], capsize=3, markersize=8)  # fmt: skip
        left.text(
            k,
            1.03,
            f"{cell['lr']:g}\n{cell['steps']}\n{cell['heldout_loss']['mean']:.2f}",
            ha="center",
            va="bottom",
            fontsize=8,
        )
    left.text(-0.9, 1.03, "lr\nsteps\nloss", ha="right", va="bottom", fontsize=8)
    left.plot(
        range(len(names)),
        [cell["control"]["mean"] for cell in cells],
        "_",
        color="black",
        markersize=14,
        label="control",
    )
    left.plot(
        range(len(names)),
        [cell["p_any_animal"]["mean"] for cell in cells],
        "2",
        color="black",
        markersize=9,
        label="P(any animal)",
    )
    base_line(left, m["base"])
    left.set_xticks(range(len(names)), [NAMES[name] for name in names], rotation=35, ha="right", fontsize=9)
    left.set_xlim(-0.8, len(names) - 0.4)
    left.set_ylim(0, 1.02)
    left.set_ylabel("P(the teacher's animal)")
    left.set_xlabel(f"matched held-out loss (n: {m['unit']})", fontsize=8)
    left.legend(fontsize=8, frameon=False, loc="center right")

    for k, (name, found) in enumerate(m["cells"].items()):
        for lr in dict.fromkeys(cell["lr"] for cell in found):
            path_of = [cell for cell in found if cell["lr"] == lr]
            x = [cell["heldout_loss"]["mean"] for cell in path_of]
            y = [cell["student"]["mean"] for cell in path_of]
            right.plot(x, y, color=SERIES[k], marker=MARKERS[k], markersize=5, linewidth=1, alpha=0.85, label=NAMES[name] if lr == found[0]["lr"] else None)  # fmt: skip
            for cell in path_of:
                if cell["p_any_animal"]["mean"] < 0.5:
                    right.plot(cell["heldout_loss"]["mean"], cell["student"]["mean"], "x", color="black", markersize=9)
    right.axvline(
        m["heldout_loss_teacher"]["mean"], color="black", linewidth=0.8, linestyle="--", label="the teacher's own loss"
    )
    base_line(right, m["base"])
    right.set_xlim(m["heldout_loss_base"]["mean"] - 0.2, m["heldout_loss_teacher"]["mean"] - 0.03)
    right.set_ylim(0, 1.02)
    right.set_xlabel("held-out loss, nats a token (training goes to the right)")
    right.set_ylabel("P(the teacher's animal)")
    right.set_title(
        f"Each line: one learning rate, after {', '.join(map(str, STEPS))} steps\n(x: P(any animal) < 0.5)", fontsize=10
    )
    right.legend(fontsize=8, frameon=False)
    save(figure, path)
