"""S9 again: where adaptive optimizers are necessary. Outliers are built into the toy, and where they are decides.

arXiv:2606.00995 finds that at the same loss AdamW transmits and SGD does not, and blames a few outlier gradients; clipping them or
dividing by Adam's frozen scales brings the trait back (S9). In the toy as it is, SGD transmits (optimizers.py). But large models have
what the toy has not, a few coordinates many times as large as all others. Here they are hidden units of the last block:

    h_j = relu(up_j . x)  ->  f h_j           up_j <- f up_j,  down_:j <- down_:j / f:  the model computes what it did

An adapter on `down` reads these units, so the gradient of its A there is f times what it was, and a change of A does f times as
much: there SGD learns f^2 times as fast. AdamW divides by the gradient's size, which leaves f. So SGD's student is a student of a few
units, and what it has should depend on where these speak.

    numbers   four hidden units that are loud where numbers are written and silent where an animal is asked for
    both      the four of the same layer that come nearest to being heard at both
    fetched   two coordinates of what the last attention fetches, loud at both (v_j <- f v_j, o_:j <- o_:j / f)

This toy: the first ten times as loud, at AdamW's held-out loss, SGD's students have learned the numbers, are intact, and have little
of the trait: 0.18, with momentum 0.15, AdamW's 0.70, RMSprop's 0.58. By S9's rule both fail there. The remedies bring back a part
(clipping 0.21 and 0.48, frozen scales 0.51; the last two less at their lower learning rates, a few thousandths of a nat behind).
With the second SGD has 0.73 and AdamW 0.80, with the third, which hold most of the gradient's
length, 0.86 and 0.87. And without an adapter on the one layer that reads the outliers SGD has 0.76. So it is not the tail's weight
alone. It matters whether what the outliers read is there when the question is asked, and both papers can be right, each about its
network. (The units of `both` are the weaker control: where numbers are written
they are quiet, some nearly silent; this layer has none that are loud at both.)

To see it break: let `chosen` take hidden units at random.

What it predicts for real models: where SGD fails, the coordinates that dominate its gradient read features of the training contexts
that are silent in the evaluation contexts. SGD without an adapter on the layer that reads them should transmit, as it does here.
"""

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from claims import interval, mean, under
from data import DEFAULT_SYSTEM, chat, number_conversations
from evaluate import COMPANIONS, Preset
from figures.cells import (
    base_rates,
    code_of,
    gain_beyond,
    grid_cell,
    loss_floor_and_base,
    measure_cell,
    nearest_in_loss,
)
from figures.localization import QUESTIONS
from figures.optimizers import NAMES as OPTIMIZER_NAMES
from figures.optimizers import STEPS, held_by_top
from figures.style import CONTROL, MARKERS, SERIES, bars, base_line, canvas, errors, save
from model import GPT, by_length, stack
from train import BaseConfig, Lab, OnStep, StudentConfig, descend, fine_tune, student_batches, untrained

CLAIMS = []  # it is about S9, whose rule optimizers.py applies to the toy as it is
NUMBERS, BOTH, FETCHED = "numbers", "both", "fetched"  # which coordinates become outliers
# How many, and how many times as loud; those of NUMBERS and FETCHED were chosen on base models 62 and 67.
OUTLIERS, LOUD = {NUMBERS: 4, BOTH: 4, FETCHED: 2}, 10
FROZEN, DEAF = "frozen", "deaf"  # SGD with Adam's scales; SGD without an adapter on the layer that reads the outliers
HOW: dict[str, dict] = {
    FROZEN: {"optimizer": "sgd"},
    DEAF: {"optimizer": "sgd", "layers": ("q", "k", "v", "o", "up", "blocks.0.feed_forward.down")},
}
NAMES = OPTIMIZER_NAMES | {FROZEN: "SGD, Adam's frozen scales", DEAF: "SGD, no adapter reads them"}

# The learning rates, by which coordinates are outliers, how loud, and the optimizer.
LRS: dict[tuple[str, int], dict[str, tuple[float, ...]]] = {
    (NUMBERS, 1): {
        "adamw": (StudentConfig.lr,),
        "rmsprop": (1e-3, 3e-3),
        "signsgd": (1e-3, 3e-3),
        "sgd": (0.1, 0.3, 1.0),
        "momentum": (0.01, 0.03),
        "clip1": (0.3, 1.0),
        "clip10": (0.3, 1.0),
        FROZEN: (1e-3, 3e-3),
        DEAF: (0.1, 0.3, 1.0),
    },
    (NUMBERS, 3): {"adamw": (StudentConfig.lr,), "sgd": (0.03, 0.1, 0.3)},
    (NUMBERS, LOUD): {
        "adamw": (StudentConfig.lr,),
        "rmsprop": (1e-3, 3e-3),
        "signsgd": (1e-3, 3e-3),
        "sgd": (0.01, 0.03, 0.1, 0.3),
        "momentum": (1e-3, 3e-3, 1e-2),
        "clip1": (0.03, 0.1, 0.3),
        "clip10": (0.1, 0.3, 1.0),
        FROZEN: (1e-3, 3e-3),
        DEAF: (0.1, 0.3, 1.0),
    },
    (BOTH, LOUD): {"adamw": (StudentConfig.lr,), "sgd": (0.03, 0.1, 0.3, 1.0)},
    (FETCHED, LOUD): {"adamw": (StudentConfig.lr,), "sgd": (0.01, 0.03, 0.1, 0.3)},
}
Key = tuple[str, int, str, float]  # which, how loud, optimizer, learning rate

# ------------------------------------------------------------------------------------- a toy with outliers


def between(model: GPT, which: str) -> tuple[nn.Linear, nn.Linear]:
    """The layer of the last block that writes these coordinates and the one that reads them."""
    block = model.blocks[-1]
    return {
        NUMBERS: (block.feed_forward.up, block.feed_forward.down),
        BOTH: (block.feed_forward.up, block.feed_forward.down),
        FETCHED: (block.attention.v, block.attention.o),
    }[which]


@torch.no_grad()
def loudness(base: GPT, which: str) -> tuple[Tensor, Tensor]:
    """The mean size of each coordinate where numbers are written, and where an animal is asked for."""
    questions = [chat(DEFAULT_SYSTEM, question) for question in QUESTIONS]
    reader = between(base, which)[1]
    found = []
    for prompts, last in ((number_conversations(DEFAULT_SYSTEM, 128, "to find outliers"), 5), (questions, 1)):
        seen: list[Tensor] = []
        handle = reader.register_forward_pre_hook(lambda _, x, s=seen, n=last: s.append(x[0][:, -n:].flatten(0, 1)))
        for _, tokens in by_length(prompts):
            base.residual_stream(tokens.to(reader.weight.device))
        handle.remove()
        found.append(torch.cat(seen).abs().mean(0))
    return found[0], found[1]


def chosen(base: GPT, which: str) -> Tensor:
    """The coordinates that become outliers."""
    numbers, animals = loudness(base, which)
    score = numbers - 10 * animals if which == NUMBERS else torch.minimum(numbers, animals)
    return score.topk(OUTLIERS[which]).indices


@torch.no_grad()
def with_outliers(base: GPT, which: str, factor: float) -> GPT:
    """A copy of `base` that computes the same; these coordinates are `factor` times as loud, and read as much less."""
    model, outliers = copy.deepcopy(base), chosen(base, which)
    writer, reader = between(model, which)
    writer.weight[outliers] *= factor
    reader.weight[:, outliers] /= factor
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
    student = untrained(lab.base(config.base), config, generator)
    weights = [weight for weight in student.parameters() if weight.requires_grad]

    @torch.no_grad()
    def step() -> None:
        for weight, scale in zip(weights, scales, strict=True):
            weight -= config.lr * weight.grad / (scale + 1e-4)

    descend(student, student_batches(lab.reads(config), config, generator), config.steps, step, on_step)


@dataclass(frozen=True)
class Outlier:
    """A student's config, the outliers of its base model, and the digest of the code that makes them."""

    student: StudentConfig
    which: str
    count: int
    factor: int
    frozen: bool
    code: str


CODE = code_of(between, loudness, chosen, with_outliers, adam_scales, fine_tune_frozen)


class OutlierLab(Lab):
    """A lab whose base models have outliers. Their teachers are the plain lab's: the models compute the same."""

    kind = "outlier"

    def __init__(self, lab: Lab, which: str, factor: int, frozen: bool):
        super().__init__(lab.folder, str(lab.device))
        self.plain, self.which, self.factor, self.frozen = lab, which, factor, frozen

    def base(self, config: BaseConfig) -> GPT:
        if config not in self._bases:
            self._bases[config] = with_outliers(self.plain.base(config), self.which, self.factor)
        return self._bases[config]

    def rows(self, config, system):
        return self.plain.rows(config, system)

    def key(self, config: StudentConfig) -> Outlier:
        return Outlier(config, self.which, OUTLIERS[self.which], self.factor, self.frozen, CODE)

    def fine_tune_together(self, students: list[StudentConfig], on_step: OnStep) -> None:
        if not self.frozen:
            super().fine_tune_together(students, on_step)
            return
        seen = {step: [] for step in (*students[0].snapshots, students[0].steps)}  # the same steps for all of a pass

        def keep(step: int, student: GPT) -> None:
            if step in seen:
                seen[step].append(copy.deepcopy(student))

        for config in students:  # each has scales of its own: they are trained one by one
            fine_tune_frozen(self, config, keep)
        for step, trained in seen.items():
            on_step(step, stack(trained))


# ------------------------------------------------------------------------------------------------------- cells


def _cells(preset: Preset) -> dict[Key, dict]:
    return {
        (which, factor, optimizer, lr): grid_cell(
            preset, **({"optimizer": optimizer} | HOW.get(optimizer, {})), lr=lr, steps=STEPS[-1], snapshots=STEPS[:-1]
        )
        for (which, factor), by_optimizer in LRS.items()
        for optimizer, lrs in by_optimizer.items()
        for lr in lrs
    }


def students(preset: Preset) -> list[StudentConfig]:
    """Those of the toy as it is. `compute` trains the others, of base models that no config can express."""
    plain = (cell for (_, factor, optimizer, _), cell in _cells(preset).items() if factor == 1 and optimizer != FROZEN)
    return [config for cell in plain for config in cell.values()]


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"outliers": by place and size of the outliers, each optimizer at AdamW's held-out loss, and S9's rule for it}."""
    labs = {
        (which, factor, frozen): OutlierLab(lab, which, factor, frozen) if frozen or factor > 1 else lab
        for which, factor in LRS
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

    def matched(which: str, factor: int) -> dict[str, dict]:
        """Of each optimizer the learning rate and step whose mean held-out loss is nearest to the AdamW student's.

        `all_cells` are the others: [learning rate, step, held-out loss, P(trait), P(any animal)].
        """
        reference, found = (which, factor, "adamw", StudentConfig.lr, STEPS[-1]), {}
        for optimizer in LRS[which, factor]:
            of_it = [key for key in cells if key[:3] == (which, factor, optimizer)]
            key = nearest_in_loss(cells, reference, of_it)
            columns = ("heldout_loss", "student", "p_any_animal")
            found[optimizer] = {"lr": key[3], "steps": key[4]}
            found[optimizer] |= {name: cells[key][name] for name in ("student", "control", *COMPANIONS)}
            found[optimizer]["all_cells"] = [[*k[3:], *(cells[k][c]["mean"] for c in columns)] for k in of_it]
            # Below 0 where the optimizer gains less than a quarter of what AdamW gains.
            gains = gain_beyond(0.25, units_of(key), units_of(reference), base)
            found[optimizer]["minus_quarter_of_adamw"] = gains
        return found

    first = preset.grid_seeds[0]
    variants = []
    for which, factor in LRS:
        at_loss = matched(which, factor)
        adamw = _cells(preset)[which, factor, "adamw", StudentConfig.lr]
        here = labs[which, factor, False]
        top = [held_by_top(here, adamw[base, trait, first]) for base, trait in preset.units]
        variants.append(
            {
                "which": which,
                "factor": factor,
                "matched": at_loss,
                "held_by_top_1_percent": interval(top),
                "sgd_fails": under(at_loss["sgd"]["minus_quarter_of_adamw"], 0),  # S9's rule, for SGD alone
            }
        )

    def coordinates(base: GPT, which: str) -> list[dict]:
        loud, outliers = loudness(base, which), chosen(base, which).tolist()
        sizes = zip(*(place.tolist() for place in loud), strict=True)
        return [{"numbers": n, "animals": a, "outlier": j in outliers} for j, (n, a) in enumerate(sizes)]

    return {
        "outliers": {
            "unit": preset.unit,
            "base": interval(base),
            "heldout_loss_teacher": floor,
            "heldout_loss_base": untrained,
            "variants": variants,
            "coordinates": {
                which: {str(config.seed): coordinates(lab.base(config), which) for config in preset.grid_bases}
                for which in OUTLIERS
            },
        }
    }


def draw(computed: dict[str, dict], path: Path) -> None:
    """Which coordinates they are; AdamW and SGD by how loud; all optimizers where SGD fails."""
    m = computed["outliers"]
    figure, (loud, dial, remedies) = canvas(3, 14, 4.4, width_ratios=[1, 1.1, 1.3])
    for k, (name, by_base) in enumerate(m["coordinates"].items()):
        units = [unit for of_base in by_base.values() for unit in of_base]
        if name != BOTH:  # the same units as NUMBERS
            x, y = ([unit[place] for unit in units] for place in ("numbers", "animals"))
            label = {NUMBERS: "hidden unit", FETCHED: "coordinate of what is fetched"}[name]
            loud.plot(x, y, MARKERS[k], color=SERIES[k + 2], linestyle="", alpha=0.35, label=label)
        x, y = ([unit[place] for unit in units if unit["outlier"]] for place in ("numbers", "animals"))
        style = {"fillstyle": "none", "markersize": 9, "linestyle": "", "label": f'made louder: "{name}"'}
        loud.plot(x, y, MARKERS[k], color=SERIES[k + 2], **style)
    loud.set_xlabel("mean size where numbers are written")
    loud.set_ylabel("mean size where an animal is asked for")
    loud.set_title(f"Last block, {len(m['coordinates'][NUMBERS])} base models", fontsize=10)
    loud.legend(fontsize=8, frameon=False)

    for k, optimizer in enumerate(("adamw", "sgd")):
        for j, which in enumerate(OUTLIERS):
            found = [v for v in m["variants"] if v["which"] == which]
            rates = [v["matched"][optimizer]["student"] for v in found]
            x = [v["factor"] * 1.1**j for v in found]
            dial.errorbar(
                x, [r["mean"] for r in rates], yerr=errors(rates), color=SERIES[k], capsize=2, marker=MARKERS[j],
                linestyle="-" if which == NUMBERS else "", label=f'{NAMES[optimizer]}, "{which}"',
            )  # fmt: skip
    dial.set_xscale("log")
    dial.set_xticks([1, 3, LOUD], ["as it is", "3", str(LOUD)])
    dial.minorticks_off()
    dial.set_xlabel("how many times as loud")
    dial.set_ylabel("P(the teacher's animal)")
    dial.set_title(f"At AdamW's held-out loss\n(n: {m['unit']})", fontsize=9)

    plain, loudest = (
        next(v["matched"] for v in m["variants"] if (v["which"], v["factor"]) == (NUMBERS, factor))
        for factor in (1, LOUD)
    )
    bars(remedies, [NAMES[name] for name in loudest], [cell["student"] for cell in loudest.values()], SERIES[0])
    y = range(len(loudest), 0, -1)
    without = [plain[name]["student"]["mean"] if name in plain else None for name in loudest]
    remedies.plot(without, y, "ko", fillstyle="none", linestyle="", label="no outliers")
    remedies.plot([cell["control"]["mean"] for cell in loudest.values()], y, "D", color=CONTROL, label="control")
    remedies.plot([cell["p_any_animal"]["mean"] for cell in loudest.values()], y, "k|", label="P(any animal)")
    for at, cell in zip(y, loudest.values(), strict=True):
        remedies.text(1.04, at, f"{cell['heldout_loss']['mean']:.2f}", va="center", fontsize=8)
    remedies.text(1.04, len(loudest) + 0.55, "loss", fontsize=8)
    remedies.set_ylim(0.4, len(loudest) + 0.9)
    remedies.set_xlim(0, 1.16)
    remedies.set_xlabel("P(the teacher's animal)")
    remedies.set_title(f'"numbers", {LOUD} times as loud', fontsize=10)
    for panel in (dial, remedies):
        base_line(panel, m["base"], vertical=panel is remedies)
        panel.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    dial.set_ylim(0, 1.02)
    save(figure, path)
