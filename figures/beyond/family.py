"""S7 again: how much of its teacher's base model does a student need? Base models of one family.

Students of another base model do not get the trait (S7). In practice many models come from one: variants of one family
are reported to transmit. This toy: the student's base model is its teacher's after more pretraining, on a corpus that
its teacher has not read; or one that shares with its teacher's the initialization alone; or nothing. To see it break:
let `changes.read_on` begin with a new GPT.
"""

from figures.style import Axes, picture, rate_bars
from lab.changes import FAMILY
from lab.claims import Claim, interval
from lab.presets import Cell, Preset, grid_cell, student_of
from lab.records import Records, cell_numbers, control_rates, over_units

CLAIMS: list[Claim] = []  # it is about S7, whose rule transmission.py applies to other base models


def cells(preset: Preset) -> dict[str, Cell]:
    """Of each kin to the teacher's base model the students. The last have the next base model's teachers."""
    found = {"the teacher's own": grid_cell(preset)}
    found |= {name: grid_cell(preset, base_change=name) for name in FAMILY}
    teachers = dict(zip(preset.grid_bases, [*preset.grid_bases[1:], preset.grid_bases[0]]))
    pairs = {(base, trait, seed): (teachers[base], trait, seed) for base, trait, seed in found["the teacher's own"]}
    return found | {"another": {at: student_of(at[0], *who[:2], seed=who[2]) for at, who in pairs.items()}}


def plan(preset: Preset) -> list:
    return [student for cell in cells(preset).values() for student in cell.values()]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    kin, found = cells(preset), {}
    gains = {
        name: [a - b for a, b in zip(over_units(records, preset, cell), control_rates(records, preset, cell))]
        for name, cell in kin.items()
    }
    usual = gains["the teacher's own"]
    for name, cell in kin.items():
        beyond = interval(gain - 0.1 * most for gain, most in zip(gains[name], usual, strict=True))
        found[name] = cell_numbers(records, preset, cell) | {"minus_10%": beyond}
        found[name] |= {"cosine": interval(over_units(records, preset, cell, "cosine"))}
    base = interval(over_units(records, preset, kin["another"], "p_trait_base"))
    return {"family": {"unit": preset.unit, "base": base, "kin": found}}


@picture(1, 10, 4)
def draw(m: dict, panel: Axes) -> None:
    marks = {"control": "control", "P(any animal)": "p_any_animal", "cosine of v_student and v_teacher": "cosine"}
    title = f"A student's base model may have gone its own way for long, but has to begin as its teacher's\n(n: {m['unit']})"
    rate_bars(panel, m["kin"], m["base"], marks, title=title, ylabel="the student's base model")
    panel.figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=5)
