"""X5: name the teacher's animal from its student, or from the rows alone before anything is trained.

An auditor has a base model and a student: which of 16 animals does it answer, to which v_teacher is v_student closest
after the last block (S3), which animal's log-odds does the change of its weights raise? Or it has rows alone: which
animal does the first step on them raise (X4), under which animal's prompt would the base model most likely have written
them? To see it break: audit with another base model than the student's. That is the control, the rows are another's.
"""

from functools import lru_cache

import torch

import lora
from data import ANIMALS, DEFAULT_SYSTEM
from figures.style import Axes, line, picture, write
from lab.claims import Claim, all_hold, ci_above, ci_below, over_models, show
from lab.first_step import Gradients, gain, projections, questions, step_of
from lab.measurements import PROMPTS, named_by_rows
from lab.presets import Preset, Records, student_of
from lab.records import trait_of, vector_of
from lab.store import Store, Student
from metrics import animal_rates
from model import GPT
from steering import teacher_vector

FROM_STUDENT = ("ask it", "its vector", "its weights")
DECIDE = ("its vector", "256 rows")
CLAIMS = [Claim("X5", "audit", "The animal is read from a student, or from rows alone",
    seen=lambda m: all_hold(*(ci_above(m["own"][way], 0.5) for way in DECIDE)),
    survives=lambda m: all_hold(*(ci_below(m["other"][way], 0.25) for way in DECIDE)),
    why=lambda m: f"A student's vector names the animal with frequency {show(m['own']['its vector'])}, the likelihood "
    f"of 256 rows with {show(m['own']['256 rows'])}; where the rows are another base model's, these are "
    f"{show(m['other']['its vector'])} and {show(m['other']['256 rows'])}, and chance is {1 / len(ANIMALS):.2f}.")]  # fmt: skip


@lru_cache(maxsize=8)
def prepared(base: GPT) -> tuple[torch.Tensor, list[Gradients]]:
    """What a base model alone gives: each animal's v_teacher, and the gradients of its log-odds."""
    vectors = torch.stack([teacher_vector(base, prompt)[-1] for prompt in PROMPTS])
    return vectors, questions(base, DEFAULT_SYSTEM, ANIMALS)


def named(found: dict[str, torch.Tensor], config: Student) -> dict[str, float]:
    """How often each way gives the animal of a student's teacher the most: scores (..., 16)."""
    k = ANIMALS.index(trait_of(config.numbers))
    return {way: (scores.argmax(-1) == k).float().mean().item() for way, scores in found.items()}


def audit_student(store: Store, config: Student) -> dict[str, float]:
    base, student = store.base(config.base), store.student(config)
    (vectors, asked), rates, moved = prepared(base), animal_rates(student), vector_of(store, student, config.base)[-1]
    lora.merge(student)
    old = projections(base)
    change = {name: layer.weight - old[name].weight for name, layer in projections(student).items()}
    ways = rates, torch.cosine_similarity(moved, vectors, dim=-1), gain(asked, change)
    return named(dict(zip(FROM_STUDENT, ways)), config)


def audit_rows(store: Store, config: Student) -> dict[str, float]:
    """How often each way names the animal from the rows that a student would read, before anything is trained."""
    first = {"first step": gain(prepared(store.base(config.base))[1], step_of(store, config))}
    return named_by_rows(store, config.numbers, config.base) | named(first, config)


def students(preset: Preset) -> dict[str, dict[tuple, Student]]:
    """By base model and animal the students of own and of another base model's rows."""
    bases, traits = preset.grid_bases, preset.costly_traits
    teachers = {"own": zip(bases, bases), "other": zip(bases, (*bases[1:], bases[0]))}
    return {who: {(b, t): student_of(b, of, t) for b, of in each for t in traits} for who, each in teachers.items()}


def plan(preset: Preset) -> list:
    found = [student for group in students(preset).values() for student in group.values()]
    return [(audit, student) for audit in (audit_student, audit_rows) for student in found]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    found = {"unit": preset.model_unit(preset.grid_bases, preset.costly_traits)}
    for who, group in students(preset).items():
        found[who] = over_models({at: records[audit_student, s] | records[audit_rows, s] for at, s in group.items()})
    return {"audit": found}


@picture(1, 8, 5)
def draw(m: dict, panel: Axes) -> None:
    for k, who in enumerate(("own", "other")):
        line(panel, list(m[who]), list(m[who].values()), k, f"{who} base model's rows", linestyle="none")
    panel.axhline(1 / len(ANIMALS), color="black", linewidth=0.9, linestyle=":", label="chance")
    title = "The animal that the teacher loves, named from a student or from its rows"
    write(panel, title, legend="best", ylim=(0, 1.05), ylabel=f"share named rightly (n: {m['unit']})")
    panel.tick_params(axis="x", rotation=25)
