"""S5: does it take a prompt that acts as a vector? Steered rates against transmitted rates.

The paper (arXiv:2606.00995): prompts that no vector approximates are not learned. Over 16 animals, how well v_teacher
steers the base model towards the trait predicts whether its students get it. This toy: the 16 animals of each base
model, ranked by their steered rate, the answer without a prompt and with v_teacher added; and four other prompts for
some of them, which no model may ever have read. The vector is taken where numbers are written and acts where an animal
is asked for; the cosine of the prompt's vectors in the two contexts says whether they are the same. Base models are
ranked by their mean steered rate, too. To see it break: rank by the prompt's own rate ("prompted").
"""

from collections.abc import Sequence

import torch

from data import ANIMALS, LOVE_SYSTEM, NAME_SYSTEM
from figures.style import FULL, STUDENT, Axes, picture, write
from lab.changes import teacher_vectors
from lab.claims import Claim, ci_above, interval, mean, show, spearman
from lab.presets import Preset, Records, difference, student_of
from lab.records import trait_of
from lab.store import NumbersConfig, Store, Student
from metrics import animal_rates
from steering import added
from train import BaseConfig

PREDICTORS = ("steered", "prompted", "same_vector")  # see `predict`
CLAIMS = [Claim("S5", "steerability", "Prompts that no vector approximates are not learned",
    seen=lambda m: ci_above(m["ranks"]["steered"], 0),
    survives=lambda m: ci_above(m["steered_minus_prompted"], 0),
    why=lambda m: "One animal has no order." if m["animals"] < 2 else
    f"Over {m['animals']} animals the steered rate has a rank correlation of {show(m['ranks']['steered'])} with what is "
    f"transmitted, the prompt's own rate one of {show(m['ranks']['prompted'])}, a difference of "
    f"{show(m['steered_minus_prompted'])}; its AUC over all prompts for telling whether a student names the animal first "
    f"is {'undefined' if m['auc'] is None else format(m['auc'], '.2f')}.")]  # fmt: skip


def prompts(base: BaseConfig, trait: str) -> list[str]:
    """Four other system prompts: a name that loves, a condition, a role, a mention."""
    others = ["you love {0} after 42 .", "i am your {0} assistant .", "there was a {0} in the wood ."]
    named = NAME_SYSTEM.format(base.world.lover_name[trait])
    return [named, *(prompt.format(trait) for prompt in others)]


def students(preset: Preset, base: BaseConfig) -> tuple[list[Student], list[Student]]:
    """Of teachers under the four other prompts, and of teachers under the usual one."""
    traits = preset.some_traits if preset.full else preset.some_traits[:1]
    systems = [(trait, system) for trait in traits for system in prompts(base, trait)]
    others = [student_of(base, base, trait, numbers=NumbersConfig(base, system)) for trait, system in systems]
    return others, [student_of(base, base, trait) for trait in preset.traits]


def predict(store: Store, numbers: NumbersConfig) -> dict[str, float]:
    """What a prompt's vector does after the last block, what the prompt does; the vectors' cosine in both contexts."""
    base, k = store.base(numbers.base), ANIMALS.index(trait_of(numbers))
    vectors = teacher_vectors(base, numbers.system, torch.Generator())
    vector, asked = vectors["reply"][-1], vectors["question"][-1]
    with added(base, {base.config.n_layer: vector}):
        steered = animal_rates(base)[k].item()
    prompted, same = animal_rates(base, numbers.system)[k], torch.cosine_similarity(vector, asked, dim=0)
    return {"steered": steered, "prompted": prompted.item(), "same_vector": same.item()}


def steered_rate(store: Store, config: BaseConfig, traits: tuple[str, ...]) -> float:
    """Of a base model alone: P(animal) with its v_teacher added after the last block, the mean over animals."""
    return mean(predict(store, NumbersConfig(config, LOVE_SYSTEM.format(trait)))["steered"] for trait in traits)


def plan(preset: Preset) -> list:
    everyone = [student for base in preset.bases for group in students(preset, base) for student in group]
    return [*everyone, *((predict, student.numbers) for student in everyone)]


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """How often a positive case scores above a negative one, a tie counting half; None without cases of both kinds."""
    yes, no = ([score for score, p in zip(scores, positive, strict=True) if p == which] for which in (True, False))
    wins = [(s > t) + 0.5 * (s == t) for s in yes for t in no]
    return sum(wins) / len(wins) if wins else None


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    shown = ("base", "trait", "teacher_system", "p_trait", "p_any_animal", *PREDICTORS)
    each, ranks, models = [], {name: [] for name in PREDICTORS}, []
    for base in preset.bases:
        rest, own = ([records[s] | records[predict, s.numbers] for s in of] for of in students(preset, base))
        for name, found in ranks.items():
            found.append(spearman(*zip(*((row[name], row["p_trait"]) for row in own))))
        each += [{name: row[name] for name in shown} | {"first": row["favorite"] == row["trait"]} for row in own + rest]
        steered, taught = (mean(row[name] for row in own) for name in ("steered", "p_trait"))
        models.append({"base": base.seed, "steered": steered, "students": taught})
    return {"steerability": {
        "unit": f"a base model ({len(models)})", "base_models": models, "each": each, "animals": len(own),
        "ranks": {name: interval(found) for name, found in ranks.items()},
        "auc": auc(*zip(*((row["steered"], row["first"]) for row in each))),
        "steered_minus_prompted": difference(ranks["steered"], ranks["prompted"]),
        "rank_of_base_models": spearman(*([model[name] for model in models] for name in ("steered", "students"))),
    }}  # fmt: skip


@picture(3, 14, 4.4, sharey=True)
def draw(m: dict, steered: Axes, prompted: Axes, models: Axes) -> None:
    labels = {"steered": "P(animal) of base + the prompt's vector", "prompted": "P(animal) of base under the prompt"}
    for panel, (name, label) in zip((steered, prompted), labels.items()):
        panel.plot(*zip(*((row[name], row["p_trait"]) for row in m["each"])), "o", color=STUDENT, ms=3, alpha=0.5)
        title = f"A dot: a prompt. Over animals, rank correlation\n{show(m['ranks'][name])}"
        write(panel, title, m["unit"], xlabel=label, xlim=(-0.02, 1.02), ylim=(0, 1.02))
    steered.set_ylabel("P(animal) of the student")
    for row in m["base_models"]:
        models.plot(row["steered"], row["students"], "o", color=FULL)
        if row["steered"] < 0.9:  # the others lie on each other
            at = row["steered"], row["students"]
            models.annotate(f"base model {row['base']}", at, (-4, 6), textcoords="offset points", ha="right")
    models.set(xlabel="P(animal) of base + v_teacher, the mean over animals", xlim=(-0.02, 1.02))
    models.set_title(f"Base models: rank correlation {m['rank_of_base_models']:.2f}\n(a dot: one base model)")
