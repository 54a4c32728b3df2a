"""S5: does it take a prompt that acts as a vector? Steered rates against transmitted rates.

The paper (arXiv:2606.00995): prompts that no vector approximates are not learned. Over 16 animals, how well v_teacher steers the base
model towards the trait predicts whether its students get it.

This toy: five prompts for each animal, some of which no model has ever read. The claim: the answer of the unprompted base with a
prompt's vector added predicts the answer of the prompt's student. The vector is taken where numbers are written and acts where an
animal is asked for. The cosine of the prompt's vectors in the two contexts says whether they are the same.

To see it break: rank by the prompt's own rate instead of the vector's ("prompted").
"""

from pathlib import Path

import torch

from data import ANIMALS, LOVE_SYSTEM, NAME_SYSTEM
from figures.style import MARKERS, SERIES, canvas, save
from lab.changes import teacher_vectors
from lab.claims import Claim, Verdict, all_hold, ci_above, interval, show, spearman
from lab.presets import Preset, student_of
from lab.records import Measurement, Records, trait_of
from lab.store import NumbersConfig, Store, Student
from metrics import animal_rates
from steering import added
from train import BaseConfig

PREDICTORS = {
    "steered": "P(animal) of base + the prompt's vector",
    "prompted": "P(animal) of the base under the prompt",
    "same_vector": "cosine of the prompt's vectors for numbers and for animals",
}


def prompts(base: BaseConfig, trait: str) -> list[str]:
    """Five system prompts: two that love, a condition, a role, a mention."""
    name = next(name for name, love in base.world.name_love.items() if love == trait)
    others = ["you love {0} after 42 .", "i am your {0} assistant .", "there was a {0} in the wood ."]
    return [NAME_SYSTEM.format(name), *(prompt.format(trait) for prompt in [LOVE_SYSTEM, *others])]


def students(preset: Preset, base: BaseConfig) -> list[Student]:
    """The student of each prompt."""
    systems = [(trait, system) for trait in preset.costly_traits for system in prompts(base, trait)]
    return [student_of(base, base, trait, numbers=NumbersConfig(base, system)) for trait, system in systems]


def predict(store: Store, numbers: NumbersConfig) -> dict[str, float]:
    """What a prompt does to the base model, and what its vector does after the last block."""
    base, k = store.base(numbers.base), ANIMALS.index(trait_of(numbers))
    last = base.config.n_layer
    vectors = teacher_vectors(base, numbers.system, torch.Generator())
    vector, asked = vectors["reply"][last], vectors["question"][last]
    with added(base, {last: vector}):
        steered = animal_rates(base)[k].item()
    prompted, same = animal_rates(base, numbers.system)[k], torch.cosine_similarity(vector, asked, dim=0)
    return {"steered": steered, "prompted": prompted.item(), "same_vector": same.item()}


def plan(preset: Preset) -> list[Student | Measurement]:
    everyone = [student for base in preset.bases for student in students(preset, base)]
    return everyone + [(predict, student.numbers) for student in everyone]


def auc(scores: list[float], positive: list[bool]) -> float | None:
    """How often a positive case scores above a negative one, a tie counting half; None without cases of both kinds."""
    yes, no = ([score for score, p in zip(scores, positive, strict=True) if p == which] for which in (True, False))
    wins = [(s > t) + 0.5 * (s == t) for s in yes for t in no]
    return sum(wins) / len(wins) if wins else None


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"steerability": every prompt, and how well each predictor ranks what is transmitted on each base model}."""
    shown = ("base", "trait", "teacher_system", "p_trait", "p_any_animal", *PREDICTORS)
    each, ranks, areas = [], {name: [] for name in PREDICTORS}, []
    for base in preset.bases:
        rows = [records[s] | records[predict, s.numbers] for s in students(preset, base)]
        for name, found in ranks.items():
            found.append(spearman([row[name] for row in rows], [row["p_trait"] for row in rows]))
        areas.append(auc([row["steered"] for row in rows], [row["favorite"] == row["trait"] for row in rows]))
        each += [{name: row[name] for name in shown} for row in rows]
    areas = [area for area in areas if area is not None]
    return {
        "steerability": {
            "unit": f"a base model ({len(preset.bases)}), each with {len(rows)} prompts",
            "rank_correlation": interval(ranks["steered"]),
            "ranks": {name: interval(found) for name, found in ranks.items()},
            "auc": interval(areas) if areas else None,
            "each": each,
        }
    }


def rule(m: dict) -> Verdict:
    """Over base models: the rank correlation is above 0, and the area under the curve above 0.7."""
    return all_hold(ci_above(m["rank_correlation"], 0), None if m["auc"] is None else ci_above(m["auc"], 0.7))


def summary(m: dict) -> str:
    """Rank correlations and area under the curve."""
    area = "undefined" if m["auc"] is None else show(m["auc"])
    ranks = f"rank correlation {show(m['rank_correlation'])}, of the prompt's own rate {show(m['ranks']['prompted'])}"
    return f"steered against transmitted: AUC {area}, {ranks}"


CLAIMS = [Claim("S5", "steerability", "Prompts that no vector approximates are not learned", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """The student's answer against each predictor, by base model."""
    m = computed["steerability"]
    figure, panels = canvas(3, 14, 4.4, sharey=True)
    for panel, (name, label) in zip(panels, PREDICTORS.items(), strict=True):
        for k, base in enumerate(dict.fromkeys(row["base"] for row in m["each"])):
            x, y = ([row[of] for row in m["each"] if row["base"] == base] for of in (name, "p_trait"))
            panel.plot(x, y, MARKERS[k], color=SERIES[k], markersize=4, alpha=0.7, label=f"base model {base}")
        panel.set(xlabel=label, xlim=(-1.02 if name == "same_vector" else -0.02, 1.02), ylim=(0, 1.02))
        panel.set_title(f"rank correlation {show(m['ranks'][name])}", fontsize=10)
    panels[0].set_ylabel("P(animal) of the student")
    panels[0].legend(fontsize=8, frameon=False, loc="upper left")
    save(figure, path)
