"""S3 and S4: the student learns the teacher's vector, and the vector is the trait.

The paper (arXiv:2606.00995): v_student = mean over number prompts of h(student) - h(base) turns towards v_teacher as
training goes on, to a cosine of 0.7-0.9, while a control student, of clean numbers, stays near 0.1 (S3). One layer's
v_student, at all layers and at a fraction of its strength, raises the base model's trait; replaced by the base's
component in the student, it takes the trait away (S4). This toy: the cosine at each step and block; whose teacher's
vector a student's is nearest to; what v_student does to the answers when it is added or replaced, in log-odds, and by
block and multiplier. To see it break: compare v_student with another base model's v_teacher.
"""

from dataclasses import replace
from itertools import product

import torch

from data import ANIMALS, DEFAULT_SYSTEM, chat
from figures.style import STUDENT, Axes, bars, heat, line, picture, write
from lab.changes import random_like
from lab.claims import Claim, all_hold, ci_above, ci_below, equivalent, mean, over_models, show
from lab.measurements import repeats
from lab.presets import Preset, Records, student_of
from lab.records import READ, log_odds, trait_of, vector_of
from lab.stacked import stack
from lab.store import Store, Student
from metrics import QUESTIONS, animal_rates
from model import GPT, pad
from steering import REPLY, added, replaced, teacher_vector
from train import BaseConfig

SNAPSHOTS = (1, 2, 5, 10, 20, 40, 80)
CONTROLS = 4  # of each base model, each with its own seed and rows
FRACTION = 0.6  # of its strength, where one layer's vector is added at all layers
MULTIPLIERS = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
ONE_LAYER = ", one layer's at all"  # the last block's vector, added after every block
SHOWN = ("student", *(f"{how}: {v}{ONE_LAYER}" for how in ("added", "replaced") for v in ("v_student", "random")))
Runs = tuple[tuple[Student, ...], ...]  # after each number of steps
CLAIMS = [Claim("S3", "alignment", "The student learns a vector aligned with the teacher's",
    seen=lambda m: ci_above(m["curve"]["student"][-1][-1], 0.7),  # after the last block and step
    survives=lambda m: all_hold(equivalent(m["curve"]["control"][-1][-1], 0.2), ci_above(m["own_nearest"], 0.9)),
    why=lambda m: f"v_student has a cosine of {show(m['curve']['student'][-1][-1])} with v_teacher, a control's of "
    f"{show(m['curve']['control'][-1][-1])}; of all teachers' vectors that of its own is the nearest for a share of "
    f"{show(m['own_nearest'])} of the students.",
), Claim("S4", "student_vector_causal", "That vector is sufficient and necessary in the student",
    # Added to the base it gives over half of the student's gain; replaced in the student it leaves less than half.
    seen=lambda m: all_hold(ci_above(m["added_minus_half"], 0), ci_below(m["replaced_minus_half"], 0)),
    # A random one gives less than half and leaves more.
    survives=lambda m: all_hold(ci_below(m["random_added_minus_half"], 0), ci_above(m["random_replaced_minus_half"], 0)),
    why=lambda m: "The student gains {} log-odds; the base with one layer's v_student added at all layers {}, with a "
    "random vector {}; the student with that component replaced by the base's keeps {}, with a random one {}. Asked to repeat "
    "a word, the student is right with {}, the base with v_student added after the last block with {}.".format(
        *(show(m["gains"][name]) for name in SHOWN), *map(show, m["repeats"].values())))]  # fmt: skip


def runs(preset: Preset, base: BaseConfig) -> tuple[Runs, Runs]:
    control = student_of(base, base, None)
    controls = [replace(control, seed=n, numbers=replace(control.numbers, seed=n)) for n in range(1, CONTROLS + 1)]
    groups = [student_of(base, base, trait) for trait in preset.traits], controls
    return tuple(tuple(tuple(replace(s, steps=n) for n in SNAPSHOTS) for s in group) for group in groups)


def cosines(store: Store, students: Runs, others: Runs) -> list:
    """The cosine of v_student of `others` with v_teacher of each of `students`: by other, step, teacher, block."""
    base = store.base(students[0][0].base)
    teachers = torch.stack([teacher_vector(base, run[0].numbers.system)[1:] for run in students])
    every = stack([store.student(moment) for run in others for moment in run])
    moved = vector_of(store, every, others[0][0].base)[:, 1:]
    return torch.cosine_similarity(moved[:, None], teachers, dim=-1).unflatten(0, (len(others), -1)).tolist()


def prompt_mean(model: GPT) -> torch.Tensor:
    """The residual stream, averaged over all positions of a number request, then over requests: (L + 1, C)."""
    tokens, lengths = pad([prompt[:-REPLY] for prompt in READ])
    weights = (torch.arange(tokens.shape[1]) < lengths[:, None]) / lengths[:, None] / len(lengths)
    stream = torch.stack(model.residual_stream(tokens.to(model.device)))
    return torch.einsum("lntc,nt->lc", stream, weights.to(model.device))


def effects(store: Store, config: Student) -> dict[str, float]:
    """P(trait) of the base and of the student, and of both with v_student added or replaced."""
    base, student, k = store.base(config.base), store.student(config), ANIMALS.index(trait_of(config.numbers))
    v = prompt_mean(student) - prompt_mean(base)
    noise, blocks = random_like(v, torch.Generator().manual_seed(100 * config.base.seed + k)), range(1, len(v))
    pushes = {name + ONE_LAYER: dict.fromkeys(blocks, of[-1]) for name, of in (("v_student", v), ("random", noise))}
    pushes |= {f"v_student, block {block}": {block: v[block]} for block in blocks}
    asked = pad([chat(DEFAULT_SYSTEM, question) for question in QUESTIONS])[0].to(base.device)
    rates = {"base": animal_rates(base), "student": animal_rates(student)}
    for name, vectors in pushes.items():
        with added(base, vectors, FRACTION if ONE_LAYER in name else 1.0):
            rates[f"added: {name}"] = animal_rates(base)
        with replaced(student, vectors, base, asked):
            rates[f"replaced: {name}"] = animal_rates(student)
    for block, multiplier in product(blocks, MULTIPLIERS):
        with added(base, {block: v[block]}, multiplier):
            rates[f"block {block} x {multiplier}"] = animal_rates(base)
    found = {name: rate[k].item() for name, rate in rates.items()} | {"student repeats": repeats(student)}
    with added(base, {blocks[-1]: v[-1]}):
        return found | {"v_student repeats": repeats(base)}


def plan(preset: Preset) -> list:
    aligned = [(cosines, both[0], who) for both in (runs(preset, base) for base in preset.bases) for who in both]
    return aligned + [(effects, student_of(base, base, trait)) for base, trait in preset.model_units]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    curves, nearest, blocks = {}, {}, range(preset.bases[0].model.n_layer)
    for base in preset.bases:
        of_base = runs(preset, base)
        students, controls = (torch.tensor(records[cosines, of_base[0], who]) for who in of_base)
        for t in range(len(preset.traits)):  # a student beside its own teacher, controls beside each
            curve = {"student": students[t, :, t], "control": controls[:, :, t].mean(0)}
            curves[base, t] = {who: by_step.T.tolist() for who, by_step in curve.items()}
            nearest[base, t] = float(students[t, -1, :, -1].argmax() == t)
    unit, some = (preset.model_unit(preset.bases, traits) for traits in (preset.traits, preset.some_traits))
    alignment = {"unit": unit, "own_nearest": over_models(nearest), "curve": over_models(curves)}
    rates = {(base, trait): records[effects, student_of(base, base, trait)] for base, trait in preset.model_units}
    odds = {at: {n: log_odds(p) for n, p in r.items()} for at, r in rates.items()}

    def gains(share: float) -> dict[str, dict]:
        """In log-odds over the base, less a share of the student's gain: of all that was measured."""
        gain = {at: o["student"] - o["base"] for at, o in odds.items()}
        return over_models({at: {n: p - o["base"] - share * gain[at] for n, p in o.items()} for at, o in odds.items()})

    half, last = gains(0.5), f"block {len(blocks)} x"
    causal = {"unit": some, "gains": {n: gain for n, gain in gains(0).items() if n == "student" or ":" in n}}
    for how in ("added", "replaced"):
        causal[f"{how}_minus_half"] = half[f"{how}: v_student{ONE_LAYER}"]
        causal[f"random_{how}_minus_half"] = half[f"{how}: random{ONE_LAYER}"]
    causal["by_block_minus_half"] = [half[f"added: v_student, block {k + 1}"] for k in blocks]
    causal["by_multiplier_minus_half"] = {f"{m:g}": half[f"{last} {m}"] for m in MULTIPLIERS[:3]}
    repeating = ("student repeats", "v_student repeats")
    causal["repeats"] = over_models({at: {name: rate[name] for name in repeating} for at, rate in rates.items()})
    causal["map"] = [[mean(r[f"block {k + 1} x {m}"] for r in rates.values()) for m in MULTIPLIERS] for k in blocks]
    return {"alignment": alignment, "student_vector_causal": causal}


@picture(3, 16, 4.4, width_ratios=[1, 1, 0.9])
def draw(a: dict, c: dict, curve: Axes, log: Axes, by_block: Axes) -> None:
    for who, style in (("student", "-"), ("control", ":")):
        for k, by_step in enumerate(a["curve"][who]):
            line(curve, SNAPSHOTS, by_step, k, f"{who}, after block {k + 1}", linestyle=style)
    curve.set(xscale="log", xlabel="training steps", ylabel="cosine of v_student and v_teacher", ylim=(-1, 1.02))
    curve.set_xticks(SNAPSHOTS, SNAPSHOTS)
    write(curve, "v_student turns towards v_teacher", a["unit"])
    curve.legend(ncols=2, loc="lower right")
    gains = {name.replace(ONE_LAYER, ",\nthe last block's at every block"): gain for name, gain in c["gains"].items()}
    bars(log, list(gains), list(gains.values()), STUDENT)
    log.set_xlabel("log-odds of the trait, gained over the base model")
    write(log, "Added to the base, replaced in the student", c["unit"])
    blocks, multipliers = [f"block {k + 1}" for k in range(len(c["map"]))], [f"x {m:g}" for m in MULTIPLIERS]
    heat(by_block, c["map"], blocks, multipliers, most=1)
    by_block.set_title("P(trait) of the base with v_student added\nafter one block, so many times")
