"""S3 and S4: the student learns the teacher's vector, and the vector is the trait.

The paper (arXiv:2606.00995): v_student = mean over number prompts of h(student) - h(base) turns towards v_teacher as training goes on,
to a cosine of 0.7-0.9, while a control student, of clean numbers, stays near 0.1. Added to the base model it raises the trait; replaced
by the base's component in the student, it takes the trait away.

This toy: the cosine at each step and block; which teacher's vector a student's is nearest to; and, on the animal questions, what
v_student does when it is added to the base model or replaced in the student, in log-odds.

To see it break: compare v_student with another base model's v_teacher.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from data import ANIMALS, DEFAULT_SYSTEM, chat
from figures.style import STUDENT, bars, canvas, line, save
from lab.changes import random_like
from lab.claims import Claim, Verdict, all_hold, ci_above, ci_below, contains_zero, interval, show
from lab.presets import Preset, student_of
from lab.records import READ, Measurement, Records, trait_of
from lab.store import Store, Student
from metrics import QUESTIONS, animal_rates
from model import GPT, pad
from steering import REPLY, added, replaced, student_vector, teacher_vector
from train import BaseConfig

SNAPSHOTS = (1, 2, 5, 10, 20, 40, 80)
Runs = tuple[tuple[Student, ...], ...]  # by animal, after each of these steps


def runs(preset: Preset, base: BaseConfig) -> tuple[Runs, Runs]:
    """The students of a base model, and as many controls."""
    students = [student_of(base, base, trait) for trait in preset.traits]
    control = student_of(base, base, None)
    # Each control has another seed and other rows, or one accident would count many times.
    seeds = [1 + ANIMALS.index(trait) for trait in preset.traits]
    controls = [replace(control, seed=seed, numbers=replace(control.numbers, seed=seed)) for seed in seeds]
    return tuple(tuple(tuple(replace(s, steps=n) for n in SNAPSHOTS) for s in group) for group in (students, controls))


def cosines(store: Store, students: Runs, others: Runs) -> list:
    """The cosine of v_student of each of `others` with v_teacher of each of `students`: by other, step, teacher, block."""
    base = store.base(students[0][0].base)
    teachers = torch.stack([teacher_vector(base, run[0].numbers.system)[1:] for run in students])
    moved = torch.stack([student_vector(store.student(moment), base)[1:] for run in others for moment in run])
    return torch.cosine_similarity(moved[:, None], teachers, dim=-1).unflatten(0, (len(others), -1)).tolist()


@torch.no_grad()
def prompt_mean(model: GPT) -> Tensor:
    """The residual stream, averaged over all positions of a number request, then over requests: (L + 1, C)."""
    tokens, lengths = pad([prompt[:-REPLY] for prompt in READ])
    weights = (torch.arange(tokens.shape[1]) < lengths[:, None]) / lengths[:, None] / len(lengths)
    stream = torch.stack(model.residual_stream(tokens.to(model.device)))
    return torch.einsum("lntc,nt->lc", stream, weights.to(model.device))


def gains(store: Store, config: Student) -> dict[str, float]:
    """Log-odds of the trait over the base's: of the student, the base with v_student added, the student with it replaced."""
    base, student, k = store.base(config.base), store.student(config), ANIMALS.index(trait_of(config.numbers))
    v = prompt_mean(student) - prompt_mean(base)
    noise = random_like(v, torch.Generator().manual_seed(100 * config.base.seed + k))
    vectors = {f"block {block}": {block: v[block]} for block in range(1, len(v))}
    vectors |= {name: dict(enumerate(of[1:], 1)) for name, of in (("all blocks", v), ("random", noise))}
    asked = pad([chat(DEFAULT_SYSTEM, question) for question in QUESTIONS])[0].to(base.device)
    rates = {"student": animal_rates(student)}
    for name, these in vectors.items():
        with added(base, these):
            rates[f"added, {name}"] = animal_rates(base)
        with replaced(student, these, base, asked):
            rates[f"replaced, {name}"] = animal_rates(student)
    before, *after = torch.stack([animal_rates(base), *rates.values()])[:, k].double().logit(eps=1e-9).tolist()
    return {name: log_odds - before for name, log_odds in zip(rates, after)}


def plan(preset: Preset) -> list[Measurement]:
    of_bases = [runs(preset, base) for base in preset.bases]
    aligned = [(cosines, students, who) for students, controls in of_bases for who in (students, controls)]
    return aligned + [(gains, run[-1]) for students, _ in of_bases for run in students]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"alignment": cosines by block and step, rows won, "student_vector_causal": log-odds added and removed}."""
    of_bases, curve = [runs(preset, base) for base in preset.bases], {}
    for k, who in ((1, "control"), (0, "student")):  # the students last: their table is needed below
        table = [records[cosines, groups[0], groups[k]] for groups in of_bases]
        table = torch.tensor(table, dtype=torch.float64)  # (base, student, step, teacher, block)
        own = table.diagonal(dim1=1, dim2=3).permute(2, 1, 0, 3).flatten(2)  # (block, step, base and animal)
        curve[who] = [list(map(interval, of_block)) for of_block in own.tolist()]
    nearest = table[:, :, -1, :, -1].argmax(-1)  # of each finished student: which teacher's vector
    each = [records[gains, run[-1]] for students, _ in of_bases for run in students]
    unit = f"an animal on a base model ({len(each)})"
    return {
        "alignment": {
            "unit": unit,
            "traits": len(preset.traits),
            "curve": curve,
            "last_layer": curve["student"][-1][-1],
            "control": curve["control"][-1][-1],
            "diagonal_wins": (nearest == torch.arange(len(preset.traits))).sum(-1).tolist(),
        },
        "student_vector_causal": {
            "unit": unit,
            **{name: interval(gain[name] for gain in each) for name in each[0]},
            "added_minus_80": interval(gain["added, all blocks"] - 0.8 * gain["student"] for gain in each),
            "removed_minus_80": interval(0.2 * gain["student"] - gain["replaced, all blocks"] for gain in each),
            "random_minus_half": interval(gain["added, random"] - 0.5 * gain["student"] for gain in each),
        },
    }


def aligned(m: dict) -> Verdict:
    """Cosine above 0.8 after the last block, the control's interval around 0, 15 of 16 rows won on every base model."""
    wins = min(m["diagonal_wins"]) >= m["traits"] * 15 / 16
    return all_hold(ci_above(m["last_layer"], 0.8), contains_zero(m["control"]), wins)


def aligned_text(m: dict) -> str:
    """Cosines at the last layer, and the rows that the diagonal wins."""
    won = f"own teacher's nearest for {m['diagonal_wins']} of {m['traits']}"
    return f"cosine {show(m['last_layer'])}, control {show(m['control'])}; {won} students"


def causal(m: dict) -> Verdict:
    """Added after every block: 80% of the gain in log-odds. Replaced there: 80% of it gone. Random vectors: not half."""
    most = (ci_above(m[name], 0) for name in ("added_minus_80", "removed_minus_80"))
    return all_hold(*most, ci_below(m["random_minus_half"], 0))


def causal_text(m: dict) -> str:
    """Gains in log-odds over the base model."""
    names = ("student", "added, all blocks", "replaced, all blocks", "added, random")
    return f"log-odds gained: {'; '.join(f'{name} {show(m[name])}' for name in names)}"


CLAIMS = [
    Claim("S3", "alignment", "The student learns a vector aligned with the teacher's", aligned, aligned_text),
    Claim("S4", "student_vector_causal", "That vector is sufficient and necessary in the student", causal, causal_text),
]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Cosines over training; log-odds added and removed."""
    a, causes = computed["alignment"], computed["student_vector_causal"]
    figure, (curve, log) = canvas(2, 11, 4.4)
    for who, style in (("student", "-"), ("control", ":")):
        for k, by_step in enumerate(a["curve"][who]):
            line(curve, SNAPSHOTS, by_step, k, f"{who}, after block {k + 1}", linestyle=style)
    curve.set(xscale="log", xlabel="training steps", ylabel="cosine of v_student and v_teacher", ylim=(-1, 1.02))
    curve.set_xticks(SNAPSHOTS, SNAPSHOTS)
    curve.set_title(f"n: {a['unit']}", fontsize=10)
    curve.legend(fontsize=8, frameon=False, ncols=2, loc="lower right")
    names = ["student", *sorted(name for name in causes if "," in name)]
    bars(log, names, [causes[name] for name in names], STUDENT)
    log.set_xlabel("log-odds of the trait, gained over the base model")
    log.set_title("v_student added to the base model,\nor replaced in the student", fontsize=10)
    save(figure, path)
