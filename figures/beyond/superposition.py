"""X1: is the leak superposition, and which one number of a base model says what will be transmitted?

The papers train students and look. Neither says why a model that was never taught numbers for *owl* has some, nor what to measure before
a student is trained. One story is superposition: 56 loves share a few dimensions, and the owl's direction is a mix of directions that
numbers were taught for. If so, more room should end it: a wider stream, or a wider attention head. This toy: base models of six shapes;
of every animal on each, numbers known before a student is trained, and how well they order the animals by what is transmitted.

To see it break: set CHOSEN to "leak", how many nats the teacher's numbers are away from the base's.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F

from data import ANIMALS, LOVE_SYSTEM
from figures.style import FULL, bars, base_line, canvas, line, save
from lab.changes import teacher_vectors
from lab.claims import Claim, Verdict, all_hold, ci_above, interval, mean, show, spearman
from lab.measurements import explained, leak
from lab.presets import Preset, student_of
from lab.records import COMPANIONS, Measurement, Records, trait_of
from lab.store import NumbersConfig, Store, Student
from metrics import animal_rates
from steering import added, teacher_vector
from train import BaseConfig

SHAPES = "16/8 32/8 64/8 128/8 32/16 32/32".split()  # width of the stream / of the attention head
TRAITS = ANIMALS[:8]  # all 16 would take twice as long
CHOSEN = "animal_specific_component"  # on base models 60 and 61, seven models of five shapes whose teachers obey


def students(preset: Preset) -> dict[tuple, Student]:
    """By base model, shape and animal; None: a control."""
    found = {}
    for base, shape in product(preset.grid_bases, SHAPES):
        d_model, d_head = map(int, shape.split("/"))
        model = replace(base, model=replace(base.model, d_model=d_model, d_head=d_head))
        found |= {(base, shape, trait): student_of(model, model, trait) for trait in (*TRAITS, None)}
    return found


def plan(preset: Preset) -> list[Student | Measurement]:
    found = students(preset)
    return [*found.values(), *((candidates, student.numbers) for (*_, trait), student in found.items() if trait)]


def candidates(store: Store, teacher: NumbersConfig) -> dict[str, float]:
    """What can be known of an animal on a base model before a student is trained."""
    base, layer, animal = store.base(teacher.base), teacher.base.model.n_layer, ANIMALS.index(trait_of(teacher))
    vectors = teacher_vectors(base, teacher.system, torch.Generator())
    vector, asked = vectors["reply"][layer], vectors["question"][layer]
    of_all = [teacher_vector(base, LOVE_SYSTEM.format(name))[layer] for name in ANIMALS]
    shared = torch.stack(of_all).mean(0)
    found = {
        "teacher": animal_rates(base, teacher.system)[animal].item(),
        "leak": leak(store, teacher),
        "leak explained by v_teacher": explained(base, teacher.system, layer, vector),
        "cosine with v of questions": F.cosine_similarity(vector, asked, dim=0).item(),
    }
    for name, push in {"v_teacher added": vector, "animal_specific_component": vector - shared}.items():
        with added(base, {layer: push}):
            found[name] = animal_rates(base)[animal].item()
    return found


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"superposition": means by shape, and every candidate's rank correlation with transmission, over base seeds}."""
    found, rows, bases = students(preset), {}, preset.grid_bases
    for (base, shape, trait), student in found.items():
        if trait:
            row, known = records[student], records[candidates, student.numbers]
            rest = [records[found[base, shape, other]][f"p_{trait}"] for other in (*TRAITS, None) if other != trait]
            # Specificity: less the students of other animals and the control, which is the last.
            beside = {"student": row["p_trait"], "control": rest[-1], "specificity": row["p_trait"] - mean(rest)}
            rows[base, shape, trait] = row | known | beside

    def order(name: str, base: BaseConfig, *shapes: str) -> float:
        """The rank correlation with transmission over the animals on models of these shapes."""
        here = [rows[base, *key] for key in product(shapes, TRAITS)]
        return spearman([row[name] for row in here], [row["student"] for row in here])

    names = (*known, *beside, *COMPANIONS, "gap_closed")
    return {
        "superposition": {
            "unit": f"a base seed ({len(bases)}), each with {len(TRAITS)} animals on {len(SHAPES)} models",
            "chosen": CHOSEN,
            "base": interval(row["p_trait_base"] for row in rows.values()),
            "across": {name: interval(order(name, base, *SHAPES) for base in bases) for name in known},
            "within": interval(mean(order(CHOSEN, base, shape) for shape in SHAPES) for base in bases),
            "shapes": {s: {n: interval(r[n] for k, r in rows.items() if k[1] == s) for n in names} for s in SHAPES},
        }
    }


def rule(m: dict) -> Verdict:
    """Over base seeds, the chosen number's rank correlation is above 0.5 across traits and models, and above 0 within a model."""
    return all_hold(ci_above(m["across"][m["chosen"]], 0.5), ci_above(m["within"], 0))


def summary(m: dict) -> str:
    """The chosen number's rank correlations, its best rival's and the leak's, and transmission by shape of model."""
    chosen, rates = m["chosen"], ", ".join(f"{s} {of['student']['mean']:.2f}" for s, of in m["shapes"].items())
    across = {name: show(n) for name, n in sorted(m["across"].items(), key=lambda item: -item[1]["mean"])}
    rival = next(name for name in across if name != chosen)
    found = f"{chosen}: rank correlation {across[chosen]}, within a model {show(m['within'])}; {rival} {across[rival]}"
    return f"{found}, leak {across['leak']}; students by width/head width {rates}"


CLAIMS = [Claim("X1", "superposition", "One number of the base model predicts transmission", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """By shape of model; and every candidate's rank correlation."""
    m = computed["superposition"]
    figure, (shapes, ranks) = canvas(2, 13, 5, width_ratios=[1.2, 1])
    for k, name in enumerate(("teacher", "student", "specificity", "control", "leak")):
        places = [x + 0.1 * (k - 2) for x in range(len(m["shapes"]))]
        line(shapes, places, [of[name] for of in m["shapes"].values()], k, name, linestyle="none")
    base_line(shapes, m["base"])
    shapes.set_xticks(range(len(m["shapes"])), m["shapes"])
    shapes.set(xlabel="width of stream / of attention head", ylabel="P(the animal); leak: nats", ylim=(-0.1, 1.3))
    shapes.set_title(f"By room (n: {m['base']['n'] // len(m['shapes'])}, an animal on a base model)", fontsize=10)
    shapes.legend(fontsize=8, frameon=False, ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    bars(ranks, list(m["across"]), list(m["across"].values()), FULL)
    ranks.set(xlabel="rank correlation with transmission", xlim=(-1, 1))
    ranks.set_title(f"Known before a student is trained\n(n: {m['unit']})", fontsize=10)
    save(figure, path)
