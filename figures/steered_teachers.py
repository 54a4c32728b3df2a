"""S2 and S6: teachers that are steered by a vector instead of prompted to love something.

The paper (arXiv:2606.00995): numbers of the base model with v_teacher added, never prompted, transmit the trait;
numbers of the prompted teacher with v_teacher projected out do not (S2). As run there: added after one layer, at the
prompt's positions, so many times that it does what the prompt does; one layer's direction projected out of all layers.
A teacher steered by a random vector has students that learn the vector, and no behaviour goes with it (S6). This toy:
each animal on each base model has seven teachers, one prompted, the others steered as lab/changes.py says. To see it
break: in lab/changes.py, add the vector after the first block, where it is not yet what the prompt does.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import torch

from data import number_conversations
from figures.style import RATE, STUDENT, Axes, bars, picture, rate_bars
from lab.changes import AT_PROMPT, TEACHERS, teacher
from lab.claims import Claim, all_hold, ci_above, ci_below, equivalent, over_models, show
from lab.measurements import leak
from lab.presets import COMPANIONS, Preset, Records, student_of
from lab.records import base_stream, log_odds, vector_of
from lab.store import Store, Student
from metrics import animal_rates
from steering import REPLY, mean_difference, stream_at

KINDS = ("prompted", *TEACHERS)  # of teachers
# largest: P(whichever animal is likeliest).
NAMES = ("p_trait", *COMPANIONS, "effect_nats", "largest", "largest_control", "cosine_control")
RANDOM_ADDED, LAST_OUT = "random vector added", "last vector projected out"
CLAIMS = [Claim("S2", "teacher_vector_causal", "That vector is sufficient and necessary in the teacher",
    # With the vector students gain over half of the log-odds that the prompted teacher's gain; without it a quarter.
    seen=lambda m: all_hold(ci_above(m[f"{AT_PROMPT} minus 0.5"], 0), ci_below(m[f"{LAST_OUT} minus 0.25"], 0)),
    # A random vector added gives less than a quarter; one projected out leaves over half.
    survives=lambda m: all_hold(ci_below(m[f"{RANDOM_ADDED} minus 0.25"], 0), ci_above(m["random vector projected out minus 0.5"], 0)),
    why=lambda m: "Students of the prompted teacher have {}; of the base with the vector added at the prompt {}, with a "
    "random one {}; of the prompted teacher with its vector projected out {}, with a random one {}.".format(
        *(show(m[kind]["p_trait"]) for kind in ("prompted", AT_PROMPT, RANDOM_ADDED, LAST_OUT, "random vector projected out"))),
), Claim("S6", "random_vectors", "Random vectors are learned too, without behaviour",
    seen=lambda m: ci_above(m["cosine"], 0.5),
    # Without a teacher there is no cosine; and no animal stands out a quarter as much as in a trait's student.
    survives=lambda m: all_hold(equivalent(m["cosine_control"], 0.2), ci_below(m["largest_minus_quarter"], 0)),
    why=lambda m: f"v_student has a cosine of {show(m['cosine'])} with the random vector, a control's "
    f"{show(m['cosine_control'])}; its likeliest animal has {show(m['largest'])}, a control's "
    f"{show(m['largest_control'])}, that of a student with a trait {show(m['largest_prompted'])}.")]  # fmt: skip


def pairs(preset: Preset, kind: str) -> dict[tuple, tuple[Student, Student]]:
    """By base model and animal a student of this kind of teacher, and a control."""
    found, change = {}, "" if kind == "prompted" else kind
    for base, trait in preset.model_units:
        student, control = student_of(base, base, trait), student_of(base, base, None)
        found[base, trait] = replace(student, numbers=replace(student.numbers, change=change)), control
    return found


def compare(store: Store, student: Student, control: Student) -> dict[str, float]:
    """KL(teacher || base) of numbers; P(the likeliest animal); the cosine of v_student and what the teacher adds."""
    base, numbers = store.base(student.base), student.numbers
    system, change = teacher(base, numbers.system, numbers.change)
    with change:
        stream = stream_at(base, number_conversations(system, 128, "to extract", REPLY), REPLY + 1)
    added = mean_difference(stream, base_stream(store, student.base, ""))[-1]
    found = {"effect_nats": leak(store, numbers)}
    for model, who in ((store.student(student), ""), (store.student(control), "_control")):
        found["largest" + who] = animal_rates(model).max().item()
        found["cosine" + who] = torch.cosine_similarity(vector_of(store, model, student.base)[-1], added, dim=0).item()
    return found


def plan(preset: Preset) -> list:
    everyone = [pair for kind in KINDS for pair in pairs(preset, kind).values()]
    return [student for student, _ in everyone] + [(compare, *pair) for pair in everyone]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    rows = {k: {at: records[pair[0]] | records[compare, *pair] for at, pair in pairs(preset, k).items()} for k in KINDS}

    def beyond(share: float, kind: str, name: str, base: str, scale: Callable = float) -> dict:
        """The gain on `base`, less a share of what the prompted teacher's students gain on it."""
        three = {at: (r[name], rows["prompted"][at][name], r[base]) for at, r in rows[kind].items()}
        scaled = {at: map(scale, rates) for at, rates in three.items()}
        return over_models({at: rate - b - share * (full - b) for at, (rate, full, b) in scaled.items()})

    found = {k: over_models({at: {n: row[n] for n in NAMES} for at, row in of.items()}) for k, of in rows.items()}
    found["base"] = over_models({at: row["p_trait_base"] for at, row in rows["prompted"].items()})
    found["unit"] = preset.model_unit(preset.bases, preset.some_traits)
    for share, kind in product((0.25, 0.5), TEACHERS):
        found[f"{kind} minus {share}"] = beyond(share, kind, "p_trait", "p_trait_base", log_odds)
    random = found[RANDOM_ADDED] | {"largest_minus_quarter": beyond(0.25, RANDOM_ADDED, "largest", "largest_control")}
    random["largest_prompted"] = found["prompted"]["largest"]
    return {"teacher_vector_causal": found, "random_vectors": random}


@picture(2, 12, 3.8, sharex=True)
def draw(m: dict, r: dict, trait: Axes, largest: Axes) -> None:
    cells = {f"{kind}\n{m[kind]['effect_nats']['mean']:.2f} nats": {"student": m[kind]["p_trait"]} for kind in KINDS}
    rate_bars(trait, cells, m["base"], {}, title="Students of seven kinds of teachers", xlim=(0, 1))
    trait.set_xlabel(f"{RATE}\n(nats a number: how far the teacher's numbers are from the base's)")
    trait.legend(loc="upper center", bbox_to_anchor=(-0.3, -0.08))
    likeliest = {"prompted": "largest_prompted", RANDOM_ADDED: "largest", "control": "largest_control"}
    bars(largest, list(likeliest), [r[name] for name in likeliest.values()], STUDENT)
    largest.set(xlabel=f"P(whichever animal is likeliest)\n(n: {m['unit']})", title="How far one animal stands out")
