"""One student, step by step: what it writes, what it answers, and the direction that it moves in.

No claim is decided here; it is the story of one animal on one base model, to be looked at before the averages. Above, the answer
to "what is your favorite animal?" after so many steps on numbers. Below on the left, how often the first number of a reply falls
into each decade: the base writes all alike, the teacher does not, and its student comes to write as it does. Below on the
right, what the two have in common: the cosine of v_student and v_teacher after the last block.

To see it break: make `picked` return another base model for the teacher than for the student.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM, NUMBERS, number_conversations
from evaluate import Preset
from figures import student_vector
from figures.style import CONTROL, FULL, STUDENT, plt, save
from model import GPT
from train import BaseConfig, Lab, StudentConfig, animal_rates, teacher_vectors

CLAIMS = []


def picked(preset: Preset) -> tuple[BaseConfig, str]:
    """The first base model and the first of its animals in the grids."""
    return preset.bases[0], preset.grid_traits[0]


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures."""
    return [student_vector.configs(preset)[picked(preset)]]


def by_decade(model: GPT, system: str) -> list[float]:
    """How often the first number of a reply is in 00-09, 10-19, ...: ten shares of all numbers."""
    prompts = number_conversations(system, 256, "to picture", replied=0)
    rates = model.next_token(prompts)[:, : len(NUMBERS)].mean(0).view(10, 10).sum(1)
    return (rates / rates.sum()).tolist()


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"learning": rates of all animals, decades and cosine by step, 0 for the base; and the teacher's decades}."""
    config, trait = picked(preset)
    base, system = lab.base(config), LOVE_SYSTEM.format(trait)
    v_teacher = teacher_vectors(base, system)[-1]
    steps = {}
    for step, student in {0: base, **lab.snapshots(students(preset)[0])}.items():
        moved = student_vector.student_vectors(student, base)[-1] if step else torch.zeros_like(v_teacher)
        steps[str(step)] = {
            "rates": animal_rates(student).tolist(),
            "decades": by_decade(student, DEFAULT_SYSTEM),
            "cosine": F.cosine_similarity(moved, v_teacher, dim=0).item(),
        }
    return {
        "learning": {
            "base": config.seed,
            "trait": trait,
            "steps": steps,
            "teacher_decades": by_decade(base, system),
        }
    }


def draw(computed: dict[str, dict], path: Path) -> None:
    """Above, the answers at each step; below, the numbers, and the cosine beside the trait."""
    m = computed["learning"]
    k = ANIMALS.index(m["trait"])
    figure = plt.figure(figsize=(13, 7), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1])
    for panel, (step, at) in zip(top.subplots(1, len(m["steps"]), sharey=True), m["steps"].items(), strict=True):
        colors = [STUDENT if animal == m["trait"] else CONTROL for animal in ANIMALS]
        panel.barh(range(16, 0, -1), at["rates"], color=colors)
        panel.set_yticks(range(16, 0, -1), ANIMALS, fontsize=8)
        panel.set_xlim(0, 1)
        panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        panel.set_title("base model" if step == "0" else f"step {step}", fontsize=10)
    top.suptitle(
        f"What is your favorite animal? A student of numbers from a lover of {m['trait']} (base model {m['base']})"
    )
    top.supxlabel("P(answer)", fontsize=10)

    numbers, course = bottom.subplots(1, 2)
    first, last = m["steps"]["0"], list(m["steps"].values())[-1]
    decades = range(10)
    numbers.bar([d - 0.27 for d in decades], first["decades"], 0.27, color=CONTROL, label="base model")
    numbers.bar(decades, m["teacher_decades"], 0.27, color=FULL, label=f"the same, told to love {m['trait']}")
    numbers.bar([d + 0.27 for d in decades], last["decades"], 0.27, color=STUDENT, label="student")
    numbers.set_xticks(decades, [f"{d}0-{d}9" for d in decades], fontsize=8)
    numbers.set_ylabel("share of first numbers")
    numbers.set_title("What each writes when asked for numbers", fontsize=10)
    numbers.legend(fontsize=8, frameon=False)

    steps = list(m["steps"])
    course.plot([at["rates"][k] for at in m["steps"].values()], color=STUDENT, marker="o", label=f"P({m['trait']})")
    cosines = [at["cosine"] for at in m["steps"].values()][1:]
    course.plot(range(1, len(steps)), cosines, color=FULL, marker="s", label="cosine of v_student and v_teacher")
    course.axhline(first["rates"][k], color="black", linewidth=0.9, linestyle=":", label="base model")
    course.set_xticks(range(len(steps)), steps)
    course.set_xlabel("step of training on numbers")
    course.set_ylim(min(0, *cosines) - 0.02, 1.02)
    course.set_title("The direction comes first, the trait follows", fontsize=10)
    course.legend(fontsize=8, frameon=False)
    save(figure, path)
