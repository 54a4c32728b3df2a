"""S7 again: how much of its teacher's base model does a student need? Base models of one family.

Students of another base model do not get the trait (S7). In practice many models come from one: variants of one family
are reported to transmit. This toy: the student's base model is its teacher's after more pretraining, on a corpus that
its teacher has not read; or one that shares with its teacher's the initialization alone; or nothing. To see it break:
let `changes.read_on` begin with a new GPT.
"""

from itertools import product

from figures.style import Axes, picture, rate_bars
from lab.changes import FAMILY
from lab.claims import Claim, over_models
from lab.presets import COMPANIONS, Preset, Records, student_of
from lab.store import Student

CLAIMS: list[Claim] = []  # it is about S7, whose rule transmission.py applies to other base models
OWN, OTHER = "the teacher's", "an unrelated one"
RELATIVES = "the teacher's, 1,000 steps later", "the teacher's, 4,000 steps later", "of the teacher's initialization"
KIN = {OWN: "", **dict(zip(RELATIVES, FAMILY, strict=True)), OTHER: ""}  # and what is done to the teacher's base model


def plan(preset: Preset) -> dict[tuple, Student]:
    """By kin, the student's base model and the animal; None: a control."""
    own = preset.grid_bases
    teachers = {OWN: own, OTHER: (*own[1:], own[0])}
    each = [(kin, *pair) for kin in KIN for pair in zip(own, teachers.get(kin, own))]
    asked = product(each, (*preset.some_traits, None))
    return {(kin, b, t): student_of(b, teacher, t, base_change=KIN[kin]) for (kin, b, teacher), t in asked}


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    rows = {at: records[student] for at, student in plan(preset).items()}
    units = list(product(preset.grid_bases, preset.some_traits))
    control = {(kin, b, t): rows[kin, b, None][f"p_{t}"] for kin in KIN for b, t in units}
    gain = {at: rows[at]["p_trait"] - rate for at, rate in control.items()}
    each = {at: {name: rows[at][name] for name in COMPANIONS} | {"control": rate} for at, rate in control.items()}
    for (kin, *unit), row in each.items():
        row |= {"student": rows[kin, *unit]["p_trait"], "minus_10%": gain[kin, *unit] - 0.1 * gain[OWN, *unit]}
    found = {kin: over_models({at: each[kin, *at] for at in units}) for kin in KIN}
    base = over_models({at: rows[OWN, *at]["p_trait_base"] for at in units})
    unit = preset.model_unit(preset.grid_bases, preset.some_traits)
    return {"family": {"unit": unit, "base": base, "kin": found}}


@picture(1, 10, 4)
def draw(m: dict, panel: Axes) -> None:
    marks = {"control": "control", "P(any animal)": "p_any_animal", "cosine of v_student and v_teacher": "cosine"}
    title = f"How much of its teacher's base model does a student need? (n: {m['unit']})"
    rate_bars(panel, m["kin"], m["base"], marks, title=title, ylabel="the student's base model")
    panel.figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=5)
