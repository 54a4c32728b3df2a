"""L1 and S7: a trait reaches a student through numbers alone, if student and teacher are the same model.

The papers: a student fine-tuned only on the numbers of a teacher that loves owls comes to love owls (both abstracts),
but not if it starts from another base model (arXiv:2606.00995, abstract).

This toy: left, P(animal | "what is your favorite animal ?") of the base model, of a control student, which read the
numbers of the same model without a trait, and of the student of a teacher that loves the animal. Right, the mean over
traits by whose numbers were read (rows) and who read them (columns): the trait stays on the diagonal.

To see it break: give `BaseConfig` a third of its steps, so that style lovers' numbers are not yet learned and love
does not show in numbers, or ask the student under another system prompt than it was trained with.
"""

import math
from dataclasses import replace
from pathlib import Path

import torch

from claims import Claim, Verdict, above, around_zero, every, interval, mean, show
from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM
from evaluate import COMPANIONS, Preset, heldout_loss, measure, sampled_rates, student_of, teacher_loss
from figures.style import BASE, CONTROL, STUDENT, canvas, errors, heat, save
from train import Lab, StudentConfig, animal_rates, write_numbers


def _configs(preset: Preset) -> dict[tuple, StudentConfig]:
    """By teacher's base, student's base and trait; trait None for the controls."""
    bases = preset.bases
    controls = {(base, base, None): student_of(base, base, None) for base in bases}
    return controls | {
        (teacher, base, trait): student_of(base, teacher, trait)
        for teacher in bases
        for base in bases
        for trait in preset.traits
    }


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures."""
    return list(_configs(preset).values())


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """Train and measure every student of the preset: {"transmission": ..., "cross_model": ...}."""
    students = {key: _measured(lab, config) for key, config in _configs(preset).items()}
    control = {base: students.pop((base, base, None)) for base in preset.bases}
    return {
        "transmission": _transmission(lab, preset, students, control),
        "cross_model": _cross(preset, students, control),
    }


def _measured(lab: Lab, config: StudentConfig) -> dict:
    """`measure`, the same rates by sampling, and the held-out loss of the untrained base and of the teacher."""
    generator = torch.Generator().manual_seed(config.seed)
    return measure(lab, config) | {
        "sampled": sampled_rates(lab.student(config), config.system, draws=250, generator=generator).tolist(),
        "heldout_loss_base": heldout_loss(lab, lab.base(config.base), config.numbers, DEFAULT_SYSTEM),
        "heldout_loss_teacher": teacher_loss(lab, config.numbers),
    }


def _transmission(lab: Lab, preset: Preset, students: dict, control: dict) -> dict:
    bases, traits = preset.bases, preset.traits
    own = {(base, trait): students[base, base, trait] for base in bases for trait in traits}
    untrained = {base: animal_rates(lab.base(base)).tolist() for base in bases}
    obeys = {
        (base, trait): animal_rates(lab.base(base), LOVE_SYSTEM.format(trait))[ANIMALS.index(trait)].item()
        for base in bases
        for trait in traits
    }
    free = [
        write_numbers(lab.base(base), replace(student_of(base, base, trait).numbers, rows=512), None)
        for base in bases
        for trait in traits
    ]
    written = [lab.numbers(student_of(base, base, trait).numbers) for base in bases for trait in traits]

    per_trait = {}
    for trait in traits:
        i = ANIMALS.index(trait)
        mean_rates = [sum(own[base, trait]["rates"][j] for base in bases) for j in range(len(ANIMALS))]
        per_trait[trait] = {
            "base": interval(untrained[base][i] for base in bases),
            "control": interval(control[base]["rates"][i] for base in bases),
            "student": interval(own[base, trait]["rates"][i] for base in bases),
            "student_sampled": interval(own[base, trait]["sampled"][i] for base in bases),
            "student_each": [own[base, trait]["rates"][i] for base in bases],
            "students_top": sum(_favorite(own[base, trait]) == trait for base in bases),
            "is_top": ANIMALS[mean_rates.index(max(mean_rates))] == trait,
        }
    at = [(base, trait, ANIMALS.index(trait)) for base in bases for trait in traits]
    return {
        "traits": len(traits),
        "traits_top": sum(row["is_top"] for row in per_trait.values()),
        "students_top": interval(_favorite(own[base, trait]) == trait for base, trait, _ in at),
        "unit": "a student: one trait on one base model",
        "base": interval(untrained[base][i] for base, _, i in at),
        "control": interval(control[base]["rates"][i] for base, _, i in at),
        "student": interval(own[base, trait]["rates"][i] for base, trait, i in at),
        "student_sampled": interval(own[base, trait]["sampled"][i] for base, trait, i in at),
        "student_by_base": {
            str(base.seed): interval(own[base, trait]["rates"][ANIMALS.index(trait)] for trait in traits)
            for base in bases
        },
        # Students of one base model are no independent witnesses of what another one would do: base models are.
        "student_over_bases": interval(
            mean(own[base, trait]["rates"][ANIMALS.index(trait)] for trait in traits) for base in bases
        ),
        **_companions("student", own.values()),
        **_companions("control", control.values()),
        "teacher_obeys": interval(obeys.values()),
        "teacher_obeys_least": min(obeys.values()),
        "teacher_well_formed_unforced": interval(len(numbers["pairs"]) / numbers["asked"] for numbers in free),
        "teacher_well_formed": interval(len(numbers["pairs"]) / numbers["asked"] for numbers in written),
        "per_trait": per_trait,
    }


def _cross(preset: Preset, students: dict, control: dict) -> dict:
    def rates(teacher, base):
        return [students[teacher, base, trait]["rates"][ANIMALS.index(trait)] for trait in preset.traits]

    def untold(base):
        return [control[base]["rates"][ANIMALS.index(trait)] for trait in preset.traits]

    pairs = [(teacher, base) for teacher in preset.bases for base in preset.bases]
    others = [(teacher, base) for teacher, base in pairs if teacher != base]
    return {
        "unit": "a student: one trait of one teacher on one base model",
        "own": interval(rate for base in preset.bases for rate in rates(base, base)),
        "other": interval(rate for pair in others for rate in rates(*pair)),
        "control": interval(rate for base in preset.bases for rate in untold(base)),
        "other_minus_control": interval(
            rate - none
            for teacher, base in others
            for rate, none in zip(rates(teacher, base), untold(base), strict=True)
        ),
        **_companions("other", [m for (teacher, base, _), m in students.items() if teacher != base]),
        "bases": [base.seed for base in preset.bases],
        "matrix": [[interval(rates(teacher, base)) for base in preset.bases] for teacher in preset.bases],
    }


def _favorite(measured: dict) -> str:
    return ANIMALS[measured["rates"].index(max(measured["rates"]))]


def _companions(who: str, measured) -> dict:
    """What has to stand beside a transmission number: is the model intact, did it learn its rows, how far did it move?"""
    names = [*COMPANIONS, "heldout_loss_base", "heldout_loss_teacher"]
    measured = list(measured)
    return {f"{who}_{name}": interval(m[name] for m in measured) for name in names}


def transmission_rule(m: dict) -> Verdict:
    """The teacher's animal leads in 15 of 16 traits, and students lie above control and base with their intervals."""
    leads = m["traits_top"] >= math.ceil(m["traits"] * 15 / 16)
    return every(leads, above(m["student"], m["control"]), above(m["student"], m["base"]))


def transmission_summary(m: dict) -> str:
    """Student, control and base, how often the teacher's animal leads, and the students of each base model."""
    by_base = ", ".join(f"{number['mean']:.2f}" for number in m["student_by_base"].values())
    return (
        f"student {show(m['student'])}, control {show(m['control'])}, base {show(m['base'])}, "
        f"favorite in {m['traits_top']} of {m['traits']} traits; base model by base model {by_base}"
    )


def cross_model_rule(m: dict) -> Verdict:
    """Own students lie above other models' students, and the latter gain nothing on the control (an interval with 0)."""
    return every(above(m["own"], m["other"]), around_zero(m["other_minus_control"]))


def cross_model_summary(m: dict) -> str:
    """Whose numbers, against the control."""
    return f"own base {show(m['own'])}, other base {show(m['other'])}, control {show(m['control'])}"


CLAIMS = [
    Claim(
        "L1",
        "transmission",
        "A teacher's trait reaches a student trained only on its numbers",
        transmission_rule,
        transmission_summary,
    ),
    Claim("S7", "cross_model", "It does not transfer between base models", cross_model_rule, cross_model_summary),
]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Both panels, to a PNG."""
    transmission, cross = computed["transmission"], computed["cross_model"]
    figure, (left, right) = canvas(2, 12, 4.6, width_ratios=[2.3, 1])

    traits = list(transmission["per_trait"])
    for offset, (who, color, marker) in enumerate(
        [("base", BASE, "s"), ("control", CONTROL, "D"), ("student", STUDENT, "o")]
    ):
        numbers = [transmission["per_trait"][trait][who] for trait in traits]
        left.errorbar(
            [k + 0.22 * (offset - 1) for k in range(len(traits))],
            [n["mean"] for n in numbers],
            yerr=errors(numbers),
            fmt=marker, color=color, markersize=6, capsize=2, label=who,
        )  # fmt: skip
    for k, trait in enumerate(traits):
        each = transmission["per_trait"][trait]["student_each"]
        left.plot(
            [k + 0.36] * len(each), each, "_", color=STUDENT, markersize=7, label="each student" if k == 0 else None
        )
    left.axhline(1 / len(ANIMALS), color="black", linewidth=0.8, linestyle=":", label="1 of 16 animals")
    left.set_xticks(range(len(traits)), traits, rotation=45, ha="right")
    left.set_ylim(0, 1.02)
    left.set_ylabel("P(the teacher's animal)")
    n = transmission["per_trait"][traits[0]]["student"]["n"]
    left.set_title(
        f"Students of numbers written by a lover of each animal\n(mean and 95% interval over {n} base models; dashes: each student)",
        fontsize=11,
    )
    left.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=4, frameon=False)

    labels = [str(seed) for seed in cross["bases"]]
    image = heat(right, [[cell["mean"] for cell in row] for row in cross["matrix"]], labels, labels, most=1.0)
    right.set_xlabel("base model that read them")
    right.set_ylabel("base model whose numbers they are")
    right.set_title(f"The trait stays within a model\n(mean over {len(traits)} traits)", fontsize=11)
    figure.colorbar(image, ax=right, label="P(the teacher's animal)", shrink=0.8)
    save(figure, path)
