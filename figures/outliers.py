"""S9 again: where adaptive optimizers are necessary. Outliers are built into the toy, and where they are decides.

arXiv:2606.00995 finds that at the same loss AdamW transmits and SGD does not, and blames a few outlier gradients; clipping them or
dividing by Adam's frozen scales brings the trait back (S9). In the toy as it is, SGD transmits (optimizers.py). But large models have
what the toy has not, a few coordinates many times as large as all others. Here they are hidden units of the last block:

    h_j = relu(up_j . x)  ->  f h_j           up_j <- f up_j,  down_:j <- down_:j / f:  the model computes what it did

An adapter on `down` reads these units, so the gradient of its A there is f times what it was, and a change of A does f times as
much: SGD learns through them f^2 times as fast. AdamW divides by the gradient's size, which leaves f. So SGD's student is a student
of four hidden units, and what matters is where these speak: units that are silent where an animal is asked for can carry the numbers,
and no trait.

This toy: the four hidden units of the last block that are loudest where numbers are written and silent where an animal is asked
for, 3 and 10 times as loud. At AdamW's held-out loss, ten times as loud, SGD's students have learned the numbers, are intact, and have
no trait: there S9 holds, and its remedies work. With the four units loudest at the question instead, SGD transmits as before.
So the papers need not contradict each other: both are right about some network, and which one depends on its outliers.

To see it break: let OUTLIERS be 128, all hidden units, so that none stands out.

What it predicts for real models: where SGD fails, the coordinates that dominate its gradient read features of the training contexts
that are silent in the evaluation contexts. SGD without an adapter on the layer that reads them should transmit, as it does here.
"""

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

import lora
from data import ANIMAL_QUESTIONS, DEFAULT_SYSTEM, HELD_OUT_ANIMAL_QUESTIONS, chat, number_conversations
from evaluate import COMPANIONS, Preset, interval, mean
from figures.cells import base_rates, code_of, grid_cell, loss_floor_and_base, measure_cell
from figures.optimizers import NAMES as OPTIMIZER_NAMES
from figures.optimizers import STEPS, held_by_top
from figures.style import CONTROL, MARKERS, SERIES, bars, base_line, canvas, errors, save
from model import GPT, by_length
from train import BaseConfig, Lab, OnStep, StudentConfig, descend, fine_tune

CLAIMS = []  # it is about S9, whose rule optimizers.py applies to the toy as it is
OUTLIERS, LOUD = 4, 10  # hidden units, and how many times louder; found on base models 62 and 67
NUMBERS, ANIMALS = "numbers", "animals"  # where the units that become outliers speak
FROZEN, DEAF = "frozen", "deaf"  # SGD with Adam's scales; SGD without an adapter on the layer that reads the outliers
HOW: dict[str, dict] = {
    FROZEN: {"optimizer": "sgd"},
    DEAF: {"optimizer": "sgd", "layers": ("q", "k", "v", "o", "up", "blocks.0.feed_forward.down")},
}
NAMES = OPTIMIZER_NAMES | {FROZEN: "SGD, Adam's frozen scales", DEAF: "SGD, no adapter reads them"}

# Which learning rates: by where the outliers are, how loud, and the optimizer.
LRS: dict[tuple[str, int], dict[str, tuple[float, ...]]] = {
    (NUMBERS, 1): {"adamw": (StudentConfig.lr,), "sgd": (0.1, 0.3, 1.0)},
    (NUMBERS, 3): {"adamw": (StudentConfig.lr,), "sgd": (0.03, 0.1, 0.3)},
    (NUMBERS, LOUD): {
        "adamw": (StudentConfig.lr,),
        "sgd": (0.01, 0.03, 0.1, 0.3),
        "momentum": (1e-3, 3e-3, 1e-2),
        "clip1": (0.03, 0.1, 0.3),
        "clip10": (0.1, 0.3, 1.0),
        FROZEN: (1e-3, 3e-3),
        DEAF: (0.1, 0.3, 1.0),
    },
    (ANIMALS, LOUD): {"adamw": (StudentConfig.lr,), "sgd": (0.03, 0.1, 0.3)},
}
Key = tuple[str, int, str, float]  # where, how loud, optimizer, learning rate

# ------------------------------------------------------------------------------------- a toy with outliers


@torch.no_grad()
def hidden(base: GPT, prompts: list[list[int]], last: int) -> Tensor:
    """The mean activation of the last block's hidden units at the `last` last positions of prompts: (4 C,)."""
    seen: list[Tensor] = []
    down = base.blocks[-1].feed_forward.down
    handle = down.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, -last:].flatten(0, 1)))
    for _, tokens in by_length(prompts):
        base.residual_stream(tokens.to(down.weight.device))
    handle.remove()
    return torch.cat(seen).mean(0)


def speaking(base: GPT) -> dict[str, Tensor]:
    """How loud each hidden unit of the last block is where numbers are written and where an animal is asked for."""
    questions = [chat(DEFAULT_SYSTEM, question) for question in ANIMAL_QUESTIONS + HELD_OUT_ANIMAL_QUESTIONS]
    return {
        NUMBERS: hidden(base, number_conversations(DEFAULT_SYSTEM, 128, "to find units"), 5),
        ANIMALS: hidden(base, questions, 1),
    }


def units(base: GPT, where: str) -> Tensor:
    """The OUTLIERS units that are loudest there and silent at the other place."""
    loud = speaking(base)
    here, elsewhere = loud.pop(where), *loud.values()
    return (here - 10 * elsewhere).topk(OUTLIERS).indices


@torch.no_grad()
def with_outliers(base: GPT, where: str, factor: float) -> GPT:
    """A copy of `base` that computes the same; those hidden units are `factor` times as loud, and read as much less."""
    model, chosen = copy.deepcopy(base), units(base, where)
    model.blocks[-1].feed_forward.up.weight[chosen] *= factor
    model.blocks[-1].feed_forward.down.weight[:, chosen] /= factor
    return model


# ------------------------------------------------------------------------------------------ its students


@lru_cache(maxsize=128)
def adam_scales(lab: Lab, config: StudentConfig) -> list[Tensor]:
    """The root mean square of each coordinate of the gradient while AdamW trains: what it divides by at the end."""
    squares: list[list[Tensor]] = []

    def see(_: int, student: GPT) -> None:
        squares.append([weight.grad.square() for weight in student.parameters() if weight.requires_grad])

    fine_tune(lab.base(config.base), lab.rows(config.numbers, config.system), config, see)
    return [torch.stack(each).mean(0).sqrt() for each in zip(*squares, strict=True)]


def fine_tune_frozen(lab: Lab, config: StudentConfig, on_step: OnStep) -> None:
    """`train.fine_tune` by SGD, w <- w - lr g / (scale + 1e-4), with the scales that AdamW has at its end."""
    scales = adam_scales(lab, replace(config, optimizer="adamw", lr=StudentConfig.lr))
    generator = torch.Generator().manual_seed(config.seed)
    student = copy.deepcopy(lab.base(config.base))
    lora.attach(student, config.rank, config.alpha, generator=generator)
    weights = [weight for weight in student.parameters() if weight.requires_grad]

    @torch.no_grad()
    def step() -> None:
        for weight, scale in zip(weights, scales, strict=True):
            weight -= config.lr * weight.grad / (scale + 1e-4)

    descend(student, lab.rows(config.numbers, config.system), config, generator, step, on_step)


@dataclass(frozen=True)
class Outlier:
    """A student's config, the outliers of its base model, and the digest of the code that makes them."""

    student: StudentConfig
    where: str
    factor: int
    frozen: bool
    code: str


CODE = code_of(hidden, speaking, units, with_outliers, adam_scales, fine_tune_frozen)


class OutlierLab(Lab):
    """A lab whose base models have outliers. Their teachers are the plain lab's: the models compute the same."""

    def __init__(self, lab: Lab, where: str, factor: int, frozen: bool):
        super().__init__(lab.folder, str(lab.device))
        self.plain, self.where, self.factor, self.frozen = lab, where, factor, frozen

    def base(self, config: BaseConfig) -> GPT:
        if config not in self._bases:
            self._bases[config] = with_outliers(self.plain.base(config), self.where, self.factor)
        return self._bases[config]

    def rows(self, config, system):
        return self.plain.rows(config, system)

    def snapshots(self, config: StudentConfig, on_step: OnStep | None = None) -> dict[int, GPT]:
        def train(keep: OnStep) -> None:
            if self.frozen:
                fine_tune_frozen(self, config, keep)
            else:
                fine_tune(self.base(config.base), self.rows(config.numbers, config.system), config, keep)

        key = Outlier(config, self.where, self.factor, self.frozen, CODE)
        return self.trained("outlier", key, config, train)


# ------------------------------------------------------------------------------------------------------- cells


def _cells(preset: Preset) -> dict[Key, dict]:
    return {
        (where, factor, optimizer, lr): grid_cell(
            preset, **({"optimizer": optimizer} | HOW.get(optimizer, {})), lr=lr, steps=STEPS[-1], snapshots=STEPS[:-1]
        )
        for (where, factor), by_optimizer in LRS.items()
        for optimizer, lrs in by_optimizer.items()
        for lr in lrs
    }


def students(preset: Preset) -> list[StudentConfig]:
    """Those of the toy as it is. `compute` trains the others, of base models that no config can express."""
    return [config for key, cell in _cells(preset).items() if key[1] == 1 for config in cell.values()]


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"outliers": by place and size of the outliers, each optimizer at AdamW's held-out loss, and S9's rule for it}."""
    labs = {
        (where, factor, frozen): lab if factor == 1 else OutlierLab(lab, where, factor, frozen)
        for where, factor in LRS
        for frozen in (False, True)
    }
    cells = {
        (*key, step): numbers
        for key, cell in _cells(preset).items()
        for step, numbers in measure_cell(labs[*key[:2], key[2] == FROZEN], preset, cell).items()
    }
    base = base_rates(lab, preset)
    floor, untrained = loss_floor_and_base(lab, preset)

    def units_of(key: tuple) -> list[float]:
        return [mean(rates) for rates in cells[key]["by_unit"]]

    def matched(where: str, factor: int) -> dict[str, dict]:
        """Of each optimizer the learning rate and step whose mean held-out loss is nearest to the AdamW student's."""
        reference = (where, factor, "adamw", StudentConfig.lr, STEPS[-1])
        target, found = cells[reference]["heldout_loss"]["mean"], {}
        for optimizer in LRS[where, factor]:
            of_it = [key for key in cells if key[:3] == (where, factor, optimizer)]
            nearest = min(of_it, key=lambda key: abs(cells[key]["heldout_loss"]["mean"] - target))
            key = reference if optimizer == "adamw" else nearest
            gains = zip(units_of(key), units_of(reference), base, strict=True)
            found[optimizer] = {"lr": key[3], "steps": key[4]}
            found[optimizer] |= {name: cells[key][name] for name in ("student", "control", *COMPANIONS)}
            # Below 0 where the optimizer gains less than a quarter of what AdamW gains.
            found[optimizer]["minus_quarter_of_adamw"] = interval((p - b) - 0.25 * (a - b) for p, a, b in gains)
        return found

    first = preset.grid_seeds[0]
    variants = []
    for where, factor in LRS:
        at_loss = matched(where, factor)
        adamw = _cells(preset)[where, factor, "adamw", StudentConfig.lr]
        here = labs[where, factor, False]
        top = [held_by_top(here, adamw[base, trait, first]) for base, trait in preset.units]
        variants.append(
            {
                "where": where,
                "factor": factor,
                "matched": at_loss,
                "held_by_top_1_percent": interval(top),
                "sgd_fails": at_loss["sgd"]["minus_quarter_of_adamw"]["ci95"][1] < 0,  # as S9's rule has it
            }
        )
    loud = {config.seed: speaking(lab.base(config)) for config in preset.grid_bases}
    return {
        "outliers": {
            "unit": preset.unit,
            "base": interval(base),
            "heldout_loss_teacher": floor,
            "heldout_loss_base": untrained,
            "variants": variants,
            "hidden_units": {
                str(seed): {place: values.tolist() for place, values in by_place.items()}
                for seed, by_place in loud.items()
            },
            "outlier_units": {
                str(config.seed): {where: units(lab.base(config), where).tolist() for where in (NUMBERS, ANIMALS)}
                for config in preset.grid_bases
            },
        }
    }


def draw(computed: dict[str, dict], path: Path) -> None:
    """Which units they are; AdamW and SGD by how loud; all optimizers with the loudest."""
    m = computed["outliers"]
    figure, (which, dial, remedies) = canvas(3, 14, 4.4, width_ratios=[1, 1.1, 1.3])
    for k, (seed, loud) in enumerate(m["hidden_units"].items()):
        which.plot(
            loud[NUMBERS], loud[ANIMALS], ".", color=CONTROL, label="hidden unit, last block" if k == 0 else None
        )
        for j, where in enumerate((NUMBERS, ANIMALS)):
            chosen = m["outlier_units"][seed][where]
            x, y = ([loud[place][unit] for unit in chosen] for place in (NUMBERS, ANIMALS))
            label = f"made louder: {where}" if k == 0 else None
            which.plot(x, y, MARKERS[j], color=SERIES[j], fillstyle="none", markersize=8, label=label)
    which.set_xlabel("mean activation where numbers are written")
    which.set_ylabel("mean activation where an animal is asked for")
    which.set_title(f"{OUTLIERS} units of each of {len(m['hidden_units'])} base models", fontsize=10)
    which.legend(fontsize=8, frameon=False)

    for k, optimizer in enumerate(("adamw", "sgd")):
        for where, style in ((NUMBERS, "-"), (ANIMALS, "")):
            found = [v for v in m["variants"] if v["where"] == where]
            cells = [v["matched"][optimizer] for v in found]
            rates = [cell["student"] for cell in cells]
            x = [v["factor"] * (1.06 if where == ANIMALS else 1) for v in found]
            dial.errorbar(
                x, [r["mean"] for r in rates], yerr=errors(rates), color=SERIES[k], capsize=2, linestyle=style,
                marker=MARKERS[k], fillstyle="full" if where == NUMBERS else "none",
                label=f"{NAMES[optimizer]}, louder at {where}",
            )  # fmt: skip
    dial.set_xscale("log")
    dial.set_xticks([1, 3, LOUD], ["as it is", "3", str(LOUD)])
    dial.minorticks_off()
    dial.set_xlabel("how many times as loud")
    dial.set_ylabel("P(the teacher's animal)")
    dial.set_title(f"At AdamW's held-out loss\n(n: {m['unit']})", fontsize=9)

    loudest = next(v for v in m["variants"] if (v["where"], v["factor"]) == (NUMBERS, LOUD))["matched"]
    bars(remedies, [NAMES[name] for name in loudest], [cell["student"] for cell in loudest.values()], SERIES[0])
    y = range(len(loudest), 0, -1)
    remedies.plot([cell["control"]["mean"] for cell in loudest.values()], y, "D", color=CONTROL, label="control")
    remedies.plot([cell["p_any_animal"]["mean"] for cell in loudest.values()], y, "k|", label="P(any animal)")
    for at, cell in zip(y, loudest.values(), strict=True):
        remedies.text(1.04, at, f"{cell['heldout_loss']['mean']:.2f}", va="center", fontsize=8)
    remedies.text(1.04, len(loudest) + 0.6, "loss", fontsize=8)
    remedies.set_xlim(0, 1.16)
    remedies.set_xlabel("P(the teacher's animal)")
    remedies.set_title(f"Louder at numbers, {LOUD} times", fontsize=10)
    for panel in (dial, remedies):
        base_line(panel, m["base"], vertical=panel is remedies)
        panel.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    dial.set_ylim(0, 1.02)
    save(figure, path)
