"""X5: name the teacher's animal from its student, or from the rows alone before anything is trained.

Neither paper asks. An auditor has the base model, a list of 16 animals and a student: which animal does it answer, to which v_teacher is
v_student closest after the last block (S3), which animal's log-odds does the change of its weights raise to first order? Or it has rows
alone: which animal does the first step on them raise (X4), under which animal's prompt would the base model most likely have written them?
The control: the rows are another base model's. Then the students of L2, by capacity: can collapsed ones still be told apart?

To see it break: audit with another base model than the student's (the control).
"""

from functools import lru_cache
from pathlib import Path

import torch

import lora
from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM, number_rows, pack
from figures.style import canvas, line, save
from lab.claims import Claim, Verdict, all_hold, ci_above, ci_below, interval, mean, show
from lab.first_step import Gradients, gain, projections, questions, step_of
from lab.presets import Preset, grid_cell, student_of
from lab.records import Measurement, Records, trait_of
from lab.store import Store, Student
from metrics import animal_rates
from model import GPT
from steering import student_vector, teacher_vector

FROM_STUDENT = ("ask it", "its vector", "its weights")
INTACT = "P(any animal)"
ROWS = (1, 4, 16, 64, 256)
PROMPTS = [LOVE_SYSTEM.format(animal) for animal in ANIMALS]


@torch.no_grad()
def likelihood(base: GPT, pairs: list[list[str]], system: str) -> torch.Tensor:
    """log p of each reply under a system prompt: (N,)."""
    tokens, targets = (tensor.to(base.device) for tensor in pack(number_rows(pairs, system)))
    log_p = base(tokens).log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
    return (log_p * (targets >= 0)).sum(1)


@lru_cache(maxsize=8)
def prepared(base: GPT) -> tuple[torch.Tensor, list[Gradients]]:
    """What a base model alone gives: each animal's v_teacher, and the gradients of its log-odds."""
    vectors = torch.stack([teacher_vector(base, prompt)[-1] for prompt in PROMPTS])
    return vectors, questions(base, DEFAULT_SYSTEM, ANIMALS)


def named(found: dict[str, torch.Tensor], trait: str) -> dict[str, float]:
    """How often each way gives the animal the most: scores (..., 16)."""
    k = ANIMALS.index(trait)
    return {way: (scores.argmax(-1) == k).float().mean().item() for way, scores in found.items()}


def audit_student(store: Store, config: Student) -> dict[str, float]:
    """Does each way name the animal of a student's teacher? And is the student intact?"""
    base, student = store.base(config.base), store.student(config)
    (vectors, asked), rates, moved = prepared(base), animal_rates(student), student_vector(student, base)[-1]
    lora.merge(student)
    old = projections(base)
    change = {name: layer.weight - old[name].weight for name, layer in projections(student).items()}
    ways = rates, torch.cosine_similarity(moved, vectors, dim=-1), gain(asked, change)
    return named(dict(zip(FROM_STUDENT, ways)), trait_of(config.numbers)) | {INTACT: rates.sum().item()}


def audit_rows(store: Store, config: Student) -> dict[str, float]:
    """How often each way names the animal of the teacher whose rows a student would read, before anything is trained."""
    base, pairs = store.base(config.base), store.numbers(config.numbers)["pairs"]
    log_p = torch.stack([likelihood(base, pairs[: ROWS[-1]], prompt) for prompt in PROMPTS], dim=1)
    found = {f"{n} row{'s' * (n > 1)}": torch.stack([rows.sum(0) for rows in log_p.split(n)]) for n in ROWS}
    return named(found | {"first step": gain(prepared(base)[1], step_of(store, config))}, trait_of(config.numbers))


def groups(preset: Preset) -> dict[str, list[list[Student]]]:
    """Students that are averaged: of own and other rows by base model; of each capacity, in L2's protocol, by unit."""
    bases, found = preset.bases, {}
    for who, teachers in (("own", bases), ("other", (*bases[1:], bases[0]))):
        found[who] = [[student_of(b, t, trait) for trait in preset.costly_traits] for b, t in zip(bases, teachers)]
    for rank in (*preset.ranks, None):
        cell = grid_cell(preset, rank=rank, lr=5e-2, steps=3)
        found[str(rank or "full")] = [[cell[(*unit, seed)] for seed in preset.grid_seeds] for unit in preset.units]
    return found


def plan(preset: Preset) -> list[Measurement]:
    students = {who: [student for each in group for student in each] for who, group in groups(preset).items()}
    rows = [(audit_rows, student) for who in ("own", "other") for student in students[who]]
    return rows + [(audit_student, student) for group in students.values() for student in group]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"audit": how often each way names the animal, as intervals: own and other over base models, capacities over units}."""
    unit = f"a base model ({len(preset.bases)}), {len(preset.costly_traits)} traits averaged"
    found = {"unit": unit, "unit_by_capacity": preset.unit}
    for name, each in groups(preset).items():
        audits = [[records[audit_student, s] | records.get((audit_rows, s), {}) for s in students] for students in each]
        found[name] = {way: interval(mean(a[way] for a in group) for group in audits) for way in audits[0][0]}
    return {"audit": found}


def rule(m: dict) -> Verdict:
    """From the student (its vector) and from all rows (likelihood): own rows above 0.5, another base model's below 0.25."""
    ways = ("its vector", "256 rows")
    return all_hold(*(ci_above(m["own"][way], 0.5) for way in ways), *(ci_below(m["other"][way], 0.25) for way in ways))


def summary(m: dict) -> str:
    """The ways from a student, and from rows."""
    found = (f"{way} {show(m['own'][way])} ({show(m['other'][way])})" for way in (*FROM_STUDENT, "256 rows"))
    return f"named rightly (rows of another base): {'; '.join(found)}; chance {1 / len(ANIMALS):.2f}"


CLAIMS = [Claim("X5", "audit", "The animal is read from a student, or from rows alone", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """From students and from rows; from students by capacity."""
    m = computed["audit"]
    figure, panels = canvas(2, 13, 5)
    whose = {f"{who} base model's rows": {w: n for w, n in m[who].items() if w != INTACT} for who in ("own", "other")}
    ranks = {name: found for name, found in m.items() if name.isdigit() or name == "full"}
    by_rank = {way: {rank: found[way] for rank, found in ranks.items()} for way in (*FROM_STUDENT, INTACT)}
    titles = f"Each way (n: {m['unit']})", f"By LoRA rank, as in L2 (n: {m['unit_by_capacity']})"
    for panel, series, title, style in zip(panels, (whose, by_rank), titles, ("none", "-"), strict=True):
        for k, (label, found) in enumerate(series.items()):
            line(panel, list(found), list(found.values()), k, label, linestyle=style)
        panel.axhline(1 / len(ANIMALS), color="black", linewidth=0.9, linestyle=":", label="chance")
        panel.set(ylim=(0, 1.05), ylabel="share named rightly")
        panel.tick_params(axis="x", rotation=25)
        panel.set_title(title, fontsize=10)
        panel.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    save(figure, path)
