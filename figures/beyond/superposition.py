"""X1: is the leak superposition, and which one number of a base model says what will be transmitted?

Why has a model that was never taught numbers for *owl* some all the same? One story is superposition: 56 loves share a
few dimensions, and the owl's direction is a mix of directions that numbers were taught for. If so, more room should end
it, a wider stream or head. This toy: base models of six shapes; of each animal, what is known before a student is
trained, and how well that orders the animals by transmission. To see it break: set CHOSEN to "leak".
"""

from dataclasses import replace
from itertools import product

import torch

from data import ANIMALS
from figures.style import FULL, RATE, Axes, bars, base_line, line, picture, write
from lab.claims import Claim, ci_above, interval, over_models, show, spearman
from lab.measurements import PROMPTS, leak
from lab.presets import COMPANIONS, Preset, Records, student_of
from lab.records import trait_of
from lab.store import NumbersConfig, Store, Student
from metrics import animal_rates
from steering import added, teacher_vector

SHAPES = "16/8 32/8 64/8 32/16 32/32 64/64".split()  # width of the stream / of the attention head
MODELS, TRAITS = 5, ANIMALS[:8]  # base models of each shape; all 16 animals would take twice as long
CHOSEN = "animal_specific_component"  # chosen on base models of an earlier world
CLAIMS = [Claim("X1", "superposition", "One number of the base model predicts transmission",
    seen=lambda m: ci_above(m["across"][m["chosen"]], 0.5),
    survives=lambda m: ci_above(m["within"], 0),  # where no difference between models helps
    why=lambda m: f"The {m['chosen'].replace('_', ' ')} has a rank correlation with transmission of "
    f"{show(m['across'][m['chosen']])} over animals and models, of {show(m['within'])} over the animals of one model.",
)]  # fmt: skip


def students(preset: Preset) -> dict[tuple, Student]:
    """By base model, shape and animal; None: a control."""
    sizes = {shape: dict(zip(("d_model", "d_head"), map(int, shape.split("/")))) for shape in SHAPES}
    models = {(b, s): replace(b, model=replace(b.model, **sizes[s])) for b, s in product(preset.bases[:MODELS], SHAPES)}
    return {(*at, trait): student_of(m, m, trait) for at, m in models.items() for trait in (*TRAITS, None)}


def plan(preset: Preset) -> list:
    found = students(preset)
    return [*found.values(), *((candidates, student.numbers) for (*_, trait), student in found.items() if trait)]


def candidates(store: Store, teacher: NumbersConfig) -> dict[str, float]:
    """What can be known of an animal on a base model before a student is trained."""
    base, layer, animal = store.base(teacher.base), teacher.base.model.n_layer, ANIMALS.index(trait_of(teacher))
    vector = teacher_vector(base, teacher.system)[layer]
    shared = torch.stack([teacher_vector(base, prompt)[layer] for prompt in PROMPTS]).mean(0)
    found = {"teacher": animal_rates(base, teacher.system)[animal].item(), "leak": leak(store, teacher)}
    for name, push in {"v_teacher added": vector, "animal_specific_component": vector - shared}.items():
        with added(base, {layer: push}):
            found[name] = animal_rates(base)[animal].item()
    return found


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    found, rows, bases = students(preset), {}, preset.bases[:MODELS]
    for *model, trait in product(bases, SHAPES, TRAITS):
        row, known = records[found[*model, trait]], records[candidates, found[*model, trait].numbers]
        beside = {"control": records[found[*model, None]][f"p_{trait}"], "student": row["p_trait"]}
        rows[*model, trait] = row | known | beside

    def order(name: str, *where: list) -> float:
        here = [rows[key] for key in product(*where, TRAITS)]
        return spearman([row[name] for row in here], [row["student"] for row in here])

    names = (*known, *beside, *COMPANIONS)
    return {"superposition": {
        "unit": f"a base seed ({len(bases)}), each with {len(TRAITS)} animals on {len(SHAPES)} models", "chosen": CHOSEN,
        "base": over_models({at: row["p_trait_base"] for at, row in rows.items()}),
        "across": {name: interval(order(name, [base], SHAPES) for base in bases) for name in known},
        "within": over_models({(b, s): order(CHOSEN, [b], [s]) for b, s in product(bases, SHAPES)}),
        "shapes": {s: over_models({k: {n: r[n] for n in names} for k, r in rows.items() if k[1] == s}) for s in SHAPES},
    }}  # fmt: skip


@picture(3, 14, 4.4, width_ratios=[1.1, 0.8, 0.9])
def draw(m: dict, rates: Axes, leaks: Axes, ranks: Axes) -> None:
    for k, name in enumerate(("teacher", "student", "control", "leak")):
        of = [shape[name] for shape in m["shapes"].values()]
        line(leaks if name == "leak" else rates, SHAPES, of, k, name, linestyle="")
    base_line(rates, m["base"])
    at = f"width of stream / of head\n(n: {m['base']['n']}, as on the right)"
    write(rates, "Does more room end transmission?", legend=4, at=(0.5, -0.2), xlabel=at, ylabel=RATE, ylim=(0, 1.02))
    write(leaks, "Does it end the leak?", xlabel=at, ylabel="KL(teacher || base), nats a number", ylim=(0, None))
    bars(ranks, [name.replace("_specific_", "-\nspecific ") for name in m["across"]], list(m["across"].values()), FULL)
    of = f"rank correlation with transmission\n(n: {m['unit']})"
    write(ranks, "What predicts transmission?", xlabel=of, xlim=(-1, 1), xticks=(-1, 0, 1))
