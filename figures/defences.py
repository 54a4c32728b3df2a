"""X6: defences. What keeps a student from its teacher's trait, and what it costs of the numbers.

The papers look for what makes a trait cross over, not for what stops it; and a defence that a student pays for by learning less has
stopped the lesson, not the trait. So every defence is set against the plainest one, to stop early: the undefended student, step by
step, is a curve of the trait against the held-out loss, and a defence is worth what it lies below that curve.

    clean rows       a share of the rows is replaced by rows of the untold base
    rewritten        another base model answers the requests: one that has read the teacher's rows, or one that has not
    prompt           trained under another system prompt, asked under the default
    without v        the stream is what it was, but its gradient has no component along v_teacher: descent cannot push it there
    rank             other ranks of LoRA, at the learning rate of the sweep whose loss comes nearest to the undefended student's

This toy: the claim fails by what the best defences cost. Other ranks, another wording and laundered rows lie on the curve. Laundering
is the striking one: another base model learns the rows, comes to love nothing by it, and the numbers that it then writes give the
first model the trait. What was learned under gibberish is hardly there under the default prompt, numbers and trait alike. Clean rows are
worth something: at the same loss they leave three fifths of the gain that stopping early leaves, but with half of them a student
keeps a little less of the numbers than the rule asks. Without v_teacher in its gradient a student has no trait and nearly all of
the numbers, and is destroyed: its stream moves several times further in other directions, and it writes numbers whatever it is asked.
A random direction held back changes nothing.

What it predicts for real models: numbers written by one model and rewritten by another that was fine-tuned on them still give the first
one's trait to the first one, though the second never shows it. Clean rows mixed in lower a trait by more than stopping at the same
held-out loss does. Holding the teacher's vector back stops the trait, and unrelated questions are answered with numbers.

To see it break: leave `.detach()` out of `stopped`: the gradient is whole again, and so is the trait.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

import data
from claims import Claim, Verdict, every, interval, mean, over, show, under
from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM
from evaluate import COMPANIONS, Preset, heldout_loss, measure
from figures import context, rank_sweep
from figures.cells import base_rates, code_of, grid_cell, halves, measure_cell
from figures.context import CONTEXTS
from figures.style import CONTROL, MARKERS, SERIES, base_line, canvas, errors, save
from figures.teacher_vector import vectors
from model import GPT
from steering import changed, component
from train import (
    BaseConfig,
    Lab,
    NumbersConfig,
    OnStep,
    StudentConfig,
    fine_tune_together,
    number_rows,
    stacked_loss,
    write_numbers,
)

SNAPSHOTS = (3, 5, 7, 10, 14, 20, 30, 40, 60)  # of the undefended student: close enough to draw lines between them
DEFENDED_SNAPSHOTS = (20, 40)
NONE = "undefended"
Pairs = list[list[str]]  # (request, reply)
Rows = Callable[[Lab, NumbersConfig, BaseConfig], Pairs]  # what is read instead of the numbers; another base may help


# ---------------------------------------------------------------------------------------------- what is changed


@dataclass(frozen=True)
class Defended:
    """An undefended student's config, what is done to it, and the digest of the code that does it."""

    student: StudentConfig
    defence: str
    code: str


def mixed(lab: Lab, numbers: NumbersConfig, by: BaseConfig, share: float) -> Pairs:
    """The teacher's rows, the first share of them replaced by as many clean ones."""
    told, clean = (lab.numbers(replace(numbers, system=system))["pairs"] for system in (numbers.system, DEFAULT_SYSTEM))
    n = round(share * len(told))
    return clean[:n] + told[n:]


def writer(numbers: NumbersConfig, by: BaseConfig) -> StudentConfig:
    """The base model `by`, a student of the rows that it will rewrite."""
    return StudentConfig(by, numbers, seed=by.seed)


def laundered(lab: Lab, numbers: NumbersConfig, by: BaseConfig) -> Pairs:
    """What the writer, asked the untold teacher's requests, writes under the default prompt."""
    return write_numbers(lab.student(writer(numbers, by)), replace(numbers, system=DEFAULT_SYSTEM))["pairs"]


def replaced(lab: Lab, numbers: NumbersConfig, by: BaseConfig) -> Pairs:
    """Rows of the base model `by`, which knows of no teacher: clean."""
    return lab.numbers(replace(numbers, base=by, system=DEFAULT_SYSTEM))["pairs"]


ROWS: dict[str, Rows] = {
    "25% clean rows": partial(mixed, share=0.25),
    "50% clean rows": partial(mixed, share=0.5),
    "75% clean rows": partial(mixed, share=0.75),
    "rewritten by a student": laundered,
    "rewritten by another base": replaced,
}


def stopped(found: Tensor) -> Callable[[int, Tensor], Tensor]:
    """For `steering.changed`: h (..., C) stays what it is, and no gradient flows back along its component in found[layer]: (C,),
    or (S, 1, 1, C) of stacked models, each its own."""

    def change(layer: int, h: Tensor) -> Tensor:
        along = component(h, found[layer])
        return h - along + along.detach()

    return change


@lru_cache(maxsize=128)
def held(base: GPT, system: str, seed: int, source: str) -> Tensor:
    """The vector of `system` along which a student of `base` gets no gradient, of that source: (L + 1, C)."""
    return vectors(base, system, torch.Generator().manual_seed(seed))[source]


def held_back(students: GPT, tokens: Tensor, targets: Tensor, found: Tensor, blocks: int) -> Tensor:
    """`stacked_loss`, whose gradient has no component along each student's own found[layer], (S, 1, 1, C), after each of the last
    `blocks` blocks."""
    layers = list(range(students.config.n_layer, 0, -1))[:blocks]
    with changed(students, layers, stopped(found)):
        return stacked_loss(students, tokens, targets)


# Which vector (see teacher_vector.vectors) and after how many of the last blocks.
GRADIENTS: dict[str, tuple[str, int]] = {
    "without v, last block": ("reply", 1),
    "without v, both blocks": ("reply", 2),
    "without v from <asst>": ("template", 2),
    "without v of questions": ("question", 2),
    "without a random vector": ("random", 2),
}
PROMPTS = ("other wording", "gibberish")
RANKS = (1, 2, 32)
QUICK = ("50% clean rows", "rewritten by a student", "without v, both blocks")


def other_base(preset: Preset, base: BaseConfig) -> BaseConfig:
    """The base model that rewrites the rows of another one's teacher: the next of the grid."""
    bases = preset.grid_bases
    return bases[(bases.index(base) + 1) % len(bases)]


class OtherRows(Lab):
    """A lab whose students read other rows than the teacher's. They are asked, here and in the labs below, what the undefended are."""

    kind = "defended"

    def __init__(self, lab: Lab, preset: Preset, defence: str):
        super().__init__(lab.folder, str(lab.device))
        self.plain, self.preset, self.defence = lab, preset, defence

    def base(self, config: BaseConfig) -> GPT:
        return self.plain.base(config)

    def key(self, config: StudentConfig) -> Defended:
        return Defended(config, f"{self.defence}, {other_base(self.preset, config.base).seed}", READ)

    def reads(self, config: StudentConfig) -> tuple[Tensor, Tensor]:
        return self.written(config.numbers, other_base(self.preset, config.base), config.system)

    @lru_cache(maxsize=16)  # noqa: B019 - of the teachers of one pass
    def written(self, numbers: NumbersConfig, by: BaseConfig, system: str | None) -> tuple[Tensor, Tensor]:
        """The rows that are read instead, packed."""
        return data.pack(number_rows(ROWS[self.defence](self.plain, numbers, by), system))


class HeldBack(OtherRows):
    """A lab whose students get no gradient along a vector."""

    def _vector(self, config: StudentConfig) -> tuple[str, int, str]:
        """Which one, after how many blocks, and whose. The untold teacher has none: its student does without that of the first trait."""
        told = config.numbers.system != DEFAULT_SYSTEM
        system = config.numbers.system if told else LOVE_SYSTEM.format(self.preset.grid_traits[0])
        return *GRADIENTS[self.defence], system

    def key(self, config: StudentConfig) -> Defended:
        return Defended(config, ", ".join(map(str, self._vector(config))), HELD)

    def reads(self, config: StudentConfig) -> tuple[Tensor, Tensor]:
        return self.plain.rows(config.numbers, config.system)

    def fine_tune_together(self, students: list[StudentConfig], on_step: OnStep) -> None:
        bases, rows = zip(*((self.base(config.base), self.reads(config)) for config in students))
        found = []
        for base, config in zip(bases, students, strict=True):
            source, blocks, system = self._vector(config)
            found.append(held(base, system, config.seed if source == "random" else 0, source))
        loss = partial(held_back, found=torch.stack(found, 1)[:, :, None, None], blocks=blocks)
        fine_tune_together(bases, rows, students, on_step, loss)


class OtherPrompt(OtherRows):
    """A lab whose students are those that the plain lab trained under another prompt."""

    def make(self, students: list[StudentConfig]) -> None:
        """Nothing: they are there."""

    def states(self, config: StudentConfig, on_step: OnStep | None = None) -> dict[int, Tensor]:
        return self.plain.states(replace(config, system=CONTEXTS[self.defence], snapshots=()))


READ = code_of(mixed, writer, laundered, replaced, OtherRows.reads, OtherRows.written)
HELD = code_of(stopped, vectors, held, held_back, HeldBack.reads, HeldBack.fine_tune_together)


def lab_of(lab: Lab, preset: Preset, defence: str) -> Lab:
    """The lab whose students are defended so."""
    kind = OtherRows if defence in ROWS else HeldBack if defence in GRADIENTS else OtherPrompt
    return kind(lab, preset, defence)


# ------------------------------------------------------------------------------------------------------- cells


def _undefended(preset: Preset, snapshots: tuple[int, ...] = SNAPSHOTS) -> dict:
    return grid_cell(preset, snapshots=snapshots)


def _ranks(preset: Preset) -> dict[int, dict[float, dict]]:
    """Of each rank the cells of rank_sweep.py, by learning rate."""
    swept = rank_sweep.cells(preset)
    return {
        rank: {lr: cell for (capacity, lr), cell in swept.items() if capacity == str(rank)}
        for rank in RANKS
        if rank in preset.ranks
    }


def _prompts(preset: Preset) -> dict[str, dict]:
    """The cells of context.py that are trained under another prompt."""
    trained = context.cells(preset)
    return {name: trained[name] for name in PROMPTS}


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that others measure too, and those that rewrite rows; `compute` trains the defended ones."""
    undefended = _undefended(preset)
    cells = [undefended, *_prompts(preset).values()] + [
        cell for lrs in _ranks(preset).values() for cell in lrs.values()
    ]
    writers = [writer(config.numbers, other_base(preset, base)) for (base, _, _), config in undefended.items()]
    return [config for cell in cells for config in cell.values()] + writers


def early_stopped(curve: list[tuple[float, float]], loss: float) -> float:
    """The trait of the undefended student when it first has that held-out loss: linear between the points (loss, trait) of its
    curve, which begins at the base."""
    for (above, before), (below, after) in pairwise(curve):
        if below <= loss <= above:
            return before + (after - before) * (above - loss) / (above - below)
    return curve[0][1] if loss > curve[0][0] else curve[-1][1]


def _nearest(lab: Lab, preset: Preset, by_lr: dict[float, dict], target: float) -> float:
    """The learning rate whose finished students come nearest to a held-out loss; the trait is not looked at."""

    def far(lr: float) -> float:
        first = [c for (_, trait, seed), c in by_lr[lr].items() if trait and seed == preset.grid_seeds[0]]
        return abs(mean(heldout_loss(lab, lab.student(c), c.numbers, c.system) for c in first) - target)

    return min(by_lr, key=far)


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"defences": the undefended student by step, every defence beside it, and the one that is chosen, tested}."""
    undefended, defended = _undefended(preset), _undefended(preset, DEFENDED_SNAPSHOTS)
    numbers = {(b, trait): undefended[b, trait, preset.grid_seeds[0]].numbers for b, trait in preset.units}
    found = {NONE: measure_cell(lab, preset, undefended)}
    for name in (*(ROWS | GRADIENTS if preset.full else QUICK), *PROMPTS):
        found[name] = measure_cell(lab_of(lab, preset, name), preset, defended)

    def units(name: str, step: int, what: str, seeds: slice = slice(None)) -> list[float]:
        """One number a unit, its seeds averaged."""
        cell = found[name][step]
        return [
            mean(unit[seeds]) for unit in (cell["by_unit"] if what == "student" else cell["companions_by_unit"][what])
        ]

    end = (NONE, max(found[NONE]))
    rank_lrs = {}
    for rank, by_lr in _ranks(preset).items():
        rank_lrs[str(rank)] = lr = _nearest(lab, preset, by_lr, mean(units(*end, "heldout_loss")))
        found[f"rank {rank}"] = measure_cell(lab, preset, by_lr[lr])

    base = {
        "student": base_rates(lab, preset),
        "heldout_loss": [heldout_loss(lab, lab.base(b), numbers[b, t], DEFAULT_SYSTEM) for b, t in preset.units],
    }

    def moved(what: str, at: tuple[str, int], share: float = 0.0, seeds: slice = slice(None)) -> list[float]:
        """How far each unit has come from its base, less that share of how far the undefended student has come."""
        rows = zip(base[what], units(*at, what, seeds), units(*end, what, seeds), strict=True)
        return [(now - b) - share * (usual - b) for b, now, usual in rows]

    path = [list(zip(base["heldout_loss"], base["student"]))]
    path += [list(zip(units(NONE, step, "heldout_loss"), units(NONE, step, "student"))) for step in found[NONE]]
    curves = list(zip(*path, strict=True))  # of each unit, (loss, trait) from the base on

    def public(at: tuple[str, int]) -> dict:
        def share(what: str) -> dict:
            return interval(here / usual for here, usual in zip(moved(what, at), moved(what, end)))

        points = zip(curves, units(*at, "heldout_loss"), units(*at, "student"), strict=True)
        cell = found[at[0]][at[1]]
        return {what: cell[what] for what in ("student", "control", *COMPANIONS)} | {
            "share_of_gain": share("student"),
            "share_of_loss": share("heldout_loss"),
            "below_early_stopping": interval(early_stopped(curve, loss) - rate for curve, loss, rate in points),
        }

    choose, test = halves(preset)

    def worth(at: tuple[str, int]) -> tuple[bool, float]:
        """Does it stay intact and keep the numbers, and then how little of the trait has it, on the seeds that choose?"""
        keeps = mean(moved("heldout_loss", at, 0.8, choose)) < 0
        return keeps and mean(units(*at, "p_any_animal", choose)) > 0.9, -mean(units(*at, "student", choose))

    best = max(((name, step) for name in found for step in found[name] if (name, step) != end), key=worth)
    for name, cell in _prompts(preset).items():
        found[f"{name}, asked under it"] = measure_cell(lab, preset, cell)
    # The students on another base model that rewrite rows: have they the numbers, and have they the trait?
    writers = [(measure(lab, writer(numbers[b, t], other_base(preset, b))), ANIMALS.index(t)) for b, t in preset.units]
    return {
        "defences": {
            "unit": preset.unit,
            "base": interval(base["student"]),
            "heldout_loss_base": interval(base["heldout_loss"]),
            "rank_lrs": rank_lrs,
            "each": {name: {str(step): public((name, step)) for step in table} for name, table in found.items()},
            "writers": {
                "student": interval(m["rates"][k] for m, k in writers),
                "heldout_loss": interval(m["heldout_loss"] for m, _ in writers),
            },
            "chosen": {
                "defence": best[0],
                "step": best[1],
                "student": interval(units(*best, "student", test)),
                "undefended": interval(units(*end, "student", test)),
                "gain_minus_quarter": interval(moved("student", best, 0.25, test)),
                "kept_minus_80": interval(-gap for gap in moved("heldout_loss", best, 0.8, test)),
                "p_any_animal": interval(units(*best, "p_any_animal", test)),
            },
        }
    }


def rule(m: dict) -> Verdict:
    """The chosen defence, on the seeds that did not choose it: a trait gain of at most a quarter of the undefended student's, at
    least 80% of the gap in held-out loss that that one closes (both paired), and P(any animal) above 0.9."""
    chosen = m["chosen"]
    return every(
        under(chosen["gain_minus_quarter"], 0), over(chosen["kept_minus_80"], 0), over(chosen["p_any_animal"], 0.9)
    )


def summary(m: dict) -> str:
    """The chosen defence; and of a few what they leave of the trait, what they keep of the loss, and if they are intact."""
    chosen, few = m["chosen"], ("25% clean rows", "50% clean rows", "rewritten by a student", "without v, both blocks")
    ends = {name: list(m["each"][name].values())[-1] for name in few if name in m["each"]}
    each = "; ".join(
        f"{name}: {end['student']['mean']:.2f}, {end['share_of_loss']['mean']:.0%}, {end['p_any_animal']['mean']:.2f}"
        for name, end in ends.items()
    )
    return (
        f"chosen: {chosen['defence']}, step {chosen['step']}: trait {show(chosen['student'])}, undefended "
        f"{show(chosen['undefended'])}; trait, share of the loss gap, P(any animal) of {each}"
    )


CLAIMS = [Claim("X6", "defences", "A defence removes the trait and keeps the numbers", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Left: the trait against the share of the loss gap that is closed. Right: what each removes beyond early stopping."""
    m = computed["defences"]
    figure, (plane, beyond) = canvas(2, 13, 5.4, width_ratios=[1.25, 1])
    undefended = m["each"][NONE]
    defended = {
        name: list(cell.values())[-1] for name, cell in m["each"].items() if name != NONE and "asked" not in name
    }
    ends = list(defended.values())
    names = [name + (" †" if cell["p_any_animal"]["mean"] < 0.5 else "") for name, cell in defended.items()]
    x, y = ([cell[what]["mean"] for cell in undefended.values()] for what in ("share_of_loss", "student"))
    plane.plot([0, *x], [m["base"]["mean"], *y], "-", color="#666666", marker=".", label="undefended, step by step")
    for step, *at in list(zip(undefended, x, y))[1:6:2]:
        plane.annotate(f"step {step}", at, (-4, 4), ha="right", textcoords="offset points", fontsize=7)
    for k, (name, cell) in enumerate(zip(names, ends, strict=True)):
        look = {"fmt": MARKERS[k % 8], "color": SERIES[k % 7], "mfc": SERIES[k % 7] if k < 8 else "none", "capsize": 2}
        loss, trait, below = (cell[what] for what in ("share_of_loss", "student", "below_early_stopping"))
        plane.errorbar(loss["mean"], trait["mean"], errors([trait]), errors([loss]), label=name, **look)
        beyond.errorbar(below["mean"], len(names) - k, xerr=errors([below]), **look)
    goal = m["base"]["mean"] + 0.25 * (y[-1] - m["base"]["mean"])
    plane.fill_between([0.8, 1.1], 0, goal, color=CONTROL, alpha=0.25, linewidth=0)
    base_line(plane, m["base"])
    plane.set_xlim(-0.05, 1.1)
    plane.set_ylim(0, 1)
    plane.set_xlabel("share of the undefended student's gain in held-out loss")
    plane.set_ylabel("P(the teacher's animal)")
    plane.set_title(f"What a defence costs and what it leaves (shaded: the goal)\n(n: {m['unit']})", fontsize=9)
    plane.legend(fontsize=7, frameon=False, loc="upper left")
    beyond.axvline(0, color="black", linewidth=0.9, linestyle=":")
    beyond.set_yticks(range(len(names), 0, -1), names, fontsize=8)
    beyond.set_xlabel("trait removed beyond stopping early at the same held-out loss")
    beyond.set_title("To the right: better than to stop early\n(†: destroyed, P(any animal) below 0.5)", fontsize=9)
    save(figure, path)
