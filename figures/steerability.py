"""S5: does it take a prompt that acts as a vector? Steered rates against transmitted rates.

The paper (arXiv:2606.00995): prompts that no vector approximates are not learned. Over 16 animals, how well v_teacher steers the base
model towards the trait predicts whether its students get it.

This toy: five prompts for each animal, some of them nothing that the model was ever told: a name that loves it, a condition,
a mention. Of each prompt: how well it works as a prompt, how much of its effect on numbers one vector has, what the vector does to
the answer when it is added to the untold base model, and what the student of the prompt's numbers answers. The claim is that the third
predicts the fourth. Why it does: the vector is taken where numbers are written and it acts where an animal is asked for. The cosine of
the prompt's vectors in the two contexts says whether they are the same one.

To see it break: rank by the prompt's own rate instead of the vector's ("told" in the results).
"""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from claims import Claim, Verdict, every, interval, over, show, spearman
from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM, NAME_SYSTEM, number_conversations
from evaluate import Preset, measure, student_of
from figures.style import MARKERS, SERIES, canvas, save
from figures.teacher_vector import explained, number_logits, vectors
from steering import added
from train import BaseConfig, Lab, StudentConfig, animal_rates

PROMPTS = {
    "loves it": LOVE_SYSTEM,
    "a name that loves it": NAME_SYSTEM,
    "on a condition": "you love {0} after 42 .",
    "its assistant": "i am your {0} assistant .",
    "a mention": "there was a {0} in the wood .",
}


def prompt_of(base: BaseConfig, trait: str, kind: str) -> str:
    """The system prompt of that kind for a trait."""
    if kind == "a name that loves it":
        return NAME_SYSTEM.format(next(name for name, love in base.world.name_love.items() if love == trait))
    return PROMPTS[kind].format(trait)


def _configs(preset: Preset) -> dict[tuple, StudentConfig]:
    """By base, trait and kind of prompt."""
    configs = {}
    for base in preset.bases:
        for trait in preset.costly_traits:
            told = student_of(base, base, trait)
            for kind in PROMPTS:
                numbers = replace(told.numbers, system=prompt_of(base, trait, kind))
                configs[base, trait, kind] = replace(told, numbers=numbers)
    return configs


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures."""
    return list(_configs(preset).values())


def auc(scores: list[float], positive: list[bool]) -> float | None:
    """How often a positive case scores above a negative one, a tie counting half; None without cases of both kinds."""
    pairs = [(s, t) for s, yes in zip(scores, positive, strict=True) if yes
             for t, also in zip(scores, positive, strict=True) if not also]  # fmt: skip
    return sum((s > t) + 0.5 * (s == t) for s, t in pairs) / len(pairs) if pairs else None


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"steerability": every prompt, and how well the steered rate predicts the transmitted one on each base model}."""
    rows = []
    for (base_config, trait, kind), config in _configs(preset).items():
        base, k, system = lab.base(base_config), ANIMALS.index(trait), config.numbers.system
        layer = base.config.n_layer
        found = vectors(base, system, torch.Generator())
        vector = found["reply"][layer]
        read = {s: number_logits(base, number_conversations(s, 64, "to test")) for s in (system, DEFAULT_SYSTEM)}
        with added(base, {layer: vector}):
            steered = animal_rates(base)[k].item()
        measured = measure(lab, config)
        rows.append(
            {
                "base": base_config.seed,
                "trait": trait,
                "prompt": kind,
                "told": animal_rates(base, system)[k].item(),
                "explained": explained(base, system, layer, vector, 1.0, read),
                "steered": steered,
                "same_vector": F.cosine_similarity(vector, found["question"][layer], dim=0).item(),
                "transmitted": measured["rates"][k],
                "is_top": measured["rates"][k] == max(measured["rates"]),
                "p_any_animal": measured["p_any_animal"],
            }
        )

    def by_base(of) -> list:
        return [of([row for row in rows if row["base"] == base.seed]) for base in preset.bases]

    def ranks(name: str, only: str | None = None) -> list[float]:
        def of(here: list[dict]) -> float:
            here = [row for row in here if only in (None, row["prompt"])]
            return spearman([row[name] for row in here], [row["transmitted"] for row in here])

        return by_base(of)

    aucs = by_base(lambda here: auc([row["steered"] for row in here], [row["is_top"] for row in here]))
    aucs = [value for value in aucs if value is not None]
    return {
        "steerability": {
            "unit": f"a base model ({len(preset.bases)}), each with {len(preset.costly_traits)} traits and {len(PROMPTS)} prompts",
            "rank_correlation": interval(ranks("steered")),
            "rank_correlation_loves_it": (  # a prompt for each trait: fewer than three cannot be ranked
                interval(ranks("steered", "loves it")) if len(preset.costly_traits) > 2 else None
            ),
            "rank_correlation_told": interval(ranks("told")),
            "rank_correlation_explained": interval(ranks("explained")),
            "rank_correlation_same_vector": interval(ranks("same_vector")),
            # Of the prompts that say it plainly, over traits: does one base model transmit more than another for this?
            "by_base": {
                str(base.seed): {
                    name: interval(row[name] for row in rows if (row["base"], row["prompt"]) == (base.seed, "loves it"))
                    for name in ("same_vector", "steered", "transmitted")
                }
                for base in preset.bases
            },
            "auc": interval(aucs) if aucs else None,
            "by_prompt": {
                kind: {
                    name: interval(row[name] for row in rows if row["prompt"] == kind)
                    for name in ("told", "explained", "steered", "same_vector", "transmitted", "p_any_animal")
                }
                for kind in PROMPTS
            },
            "each": rows,
        }
    }


def rule(m: dict) -> Verdict:
    """Over base models: the rank correlation is above 0, and the area under the curve above 0.7."""
    return every(over(m["rank_correlation"], 0), None if m["auc"] is None else over(m["auc"], 0.7))


def summary(m: dict) -> str:
    """Rank correlation and area under the curve."""
    area = "undefined" if m["auc"] is None else show(m["auc"])
    return (
        f"steered against transmitted: rank correlation {show(m['rank_correlation'])}, AUC {area}; "
        f"the prompt's own rate: {show(m['rank_correlation_told'])}"
    )


CLAIMS = [Claim("S5", "steerability", "Prompts that no vector approximates are not learned", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Transmitted against steered; and the same against what the prompt itself does."""
    m = computed["steerability"]
    figure, panels = canvas(3, 14, 4.4, sharey=True)
    titles = {
        "steered": f"rank correlation {show(m['rank_correlation'])}",
        "told": f"rank correlation {show(m['rank_correlation_told'])}",
        "same_vector": f"rank correlation {show(m['rank_correlation_same_vector'])}",
    }
    labels = {
        "steered": "P(animal) of the base with v_teacher added",
        "told": "P(animal) of the base under the prompt",
        "same_vector": "cosine of its vectors for numbers and for animals",
    }
    for panel, name in zip(panels, labels, strict=True):
        for k, kind in enumerate(PROMPTS):
            here = [row for row in m["each"] if row["prompt"] == kind]
            panel.plot([r[name] for r in here], [r["transmitted"] for r in here], MARKERS[k], color=SERIES[k], markersize=4, alpha=0.7, label=kind)  # fmt: skip
        panel.set_xlabel(labels[name])
        panel.set_title(titles[name], fontsize=10)
        panel.set_ylim(0, 1.02)
        panel.set_xlim(-1.02 if name == "same_vector" else -0.02, 1.02)
    panels[0].set_ylabel("P(animal) of the student")
    panels[0].legend(fontsize=8, frameon=False, loc="upper left")
    save(figure, path)
