"""X1: is the leak superposition, and which one number of a base model says what will be transmitted?

The papers train students and look. Neither says why a model that was never taught numbers for *owl* has some, nor what to
measure before a student is trained. The README's story is superposition: 56 loves come to <asst> through a few dimensions, and the owl's
direction is a mix of directions that numbers were taught for. If so, more room should end it. There are two kinds of room: the
width of the stream, and the width of the attention head through which a love is fetched.

This toy: neither ends it. Students of a stream of 64 or 128 have the trait (0.58, 0.80), and those of heads two and four times as wide;
the leak is 0.6 to 1.0 nats at every shape, and how far a trait's direction overlaps with those of styles and colors says nothing. (At
width 16 two of three base models do not obey their own prompts, too narrow for their 4,000 steps; of the three one transmits, and it is not
the obedient one.) The two dials turn one at a time: a wide stream with a wide head is not measured. What differs between models is
whether what leaks is the vector that answers the question. A model can obey, its numbers can be learned, and its students still do not
have the trait; there the trait's own part of v_teacher, added to the untold base, does not name the animal either. Over the means of the
18 models the rank correlation is 0.84 (looked at afterwards). The claim asks for more and is undecided: within a model this number
ranks the traits on two of three base seeds and not on the third. Its nearest rivals, the whole vector and the cosine, cannot be told
from it.

What it predicts for real models: take a few dozen traits as system prompts, and models from small to large. For each compute v_teacher
from number conversations, take away the mean of all traits' vectors, add the rest to the last layer of the untold model, and ask it for the
trait. Write down this probability, averaged over the traits of a model; no student is needed for it. Then train the students. It should rank
models by how much they transmit, better than how well prompts are obeyed and than how far the teacher's numbers are from the
model's own, and size by itself should not matter. A model in which it is high, and whose students learn the numbers (held-out loss) and
still answer with other animals than their teachers', would refute it; so would one in which it is at its base rate and students have the trait.

To see it break: set CHOSEN to "leak", how many nats the teacher's numbers are away from the base's.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from claims import Claim, Verdict, every, interval, mean, over, show, spearman
from data import (
    ANIMAL_TOKENS,
    ANIMALS,
    DEFAULT_SYSTEM,
    LOVE_SYSTEM,
    Row,
    chat,
    number_conversations,
    pack,
)
from evaluate import Preset, fresh_rows, heldout_loss, measure, student_of, teacher_loss
from figures.cells import gap_closed
from figures.localization import QUESTIONS
from figures.style import CONTROL, FULL, MARKERS, SERIES, canvas, errors, line, save
from figures.teacher_vector import divergence, explained, number_logits, vectors
from lora import PROJECTIONS
from model import GPT
from steering import added
from train import BaseConfig, Lab, StudentConfig, animal_rates, reply_loss

OWN = {"d_model": BaseConfig().model.d_model, "d_head": BaseConfig().model.d_head}  # while one dial turns, the other's
DIALS = {"d_model": (16, 32, 64, 128), "d_head": (8, 16, 32)}
TRAITS = 8  # of the preset's: all 16 would take twice as long
CANDIDATES = {
    "own_part": "P(animal) of base +\nown part of v_teacher",
    "steered": "P(animal) of base +\nv_teacher",
    "same_vector": "v_teachers' cosine,\nnumbers and animals",
    "gradient": "gradients' cosine,\nnumbers and animals",
    "own_leak": "leak that other\nanimals do not share",
    "leak": "leak",
    "explained": "share of the leak\nthat is one vector",
    "told": "P(animal) of teacher",
    "overlap": "overlap with styles\nand colors",
}
CHOSEN = "own_part"  # on base models 60 and 61, seven models of five shapes whose teachers obey


def models(preset: Preset) -> dict[tuple[int, int, int], BaseConfig]:
    """The base models, by seed, width and head width. Quick: those of the project's own shape."""
    found = {}
    for base in preset.grid_bases:
        turned = [OWN | {dial: value} for dial, values in DIALS.items() for value in values]
        for shape in turned if preset.full else [OWN]:
            found[base.seed, shape["d_model"], shape["d_head"]] = replace(base, model=replace(base.model, **shape))
    return found


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures: on each base model one for each trait, and a control."""
    return [student_of(b, b, trait) for b in models(preset).values() for trait in (*preset.traits[:TRAITS], None)]


@torch.no_grad()
def overlap(base: GPT, trait: str, others: Sequence[str]) -> float:
    """How much the trait's direction is a mix: mean squared cosine with those of other words, styles and colors.

    A word's direction is what the last attention fetches at it, W_o W_v norm(h) at WORD in "you love WORD", less the mean over words.
    Directions at random have 1 / d_head.
    """
    tokens = torch.tensor([chat(LOVE_SYSTEM.format(word), "hello !") for word in (trait, *others)])
    block, h = base.blocks[-1], base.residual_stream(tokens.to(base.device))[-2]
    fetched = block.attention.o(block.attention.v(block.norm(h[:, 3])))
    directions = F.normalize(fetched - fetched.mean(0), dim=1)
    return (directions[1:] @ directions[0]).square().mean().item()


def gradient_cosine(base: GPT, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Of the projections' loss gradients on two packed sets of rows: would a step on one be a step on the other?"""
    model = copy.deepcopy(base)
    weights = [w.requires_grad_() for name, w in model.named_parameters() if name.split(".")[-2] in PROJECTIONS]
    flat = [torch.cat([g.flatten() for g in torch.autograd.grad(reply_loss(model, *rows), weights)]) for rows in (one, other)]  # fmt: skip
    return F.cosine_similarity(*flat, dim=0).item()


def candidates(lab: Lab, config: BaseConfig, traits: tuple[str, ...]) -> list[dict[str, float]]:
    """What is measured of each trait on the base model and its teacher, before a student is trained: CANDIDATES."""
    base, layer, animals = lab.base(config), config.model.n_layer, config.world.animals
    told = {animal: LOVE_SYSTEM.format(animal) for animal in animals}
    read = {s: number_logits(base, number_conversations(s, 64, "to test")) for s in (DEFAULT_SYSTEM, *told.values())}
    mixture = torch.stack([read[system] for system in told.values()]).exp().mean(0).log()
    found = {animal: vectors(base, system, torch.Generator()) for animal, system in told.items()}
    shared = torch.stack([found[animal]["reply"][layer] for animal in animals]).mean(0)
    questions = [chat(DEFAULT_SYSTEM, question) for question in QUESTIONS]

    def row(trait: str) -> dict[str, float]:
        k, system, vector = ANIMALS.index(trait), told[trait], found[trait]["reply"][layer]
        answers = pack([Row([*question, ANIMAL_TOKENS[k]], len(question)) for question in questions])
        numbers = fresh_rows(lab, student_of(config, config, trait).numbers, DEFAULT_SYSTEM)

        def rate_with(push: Tensor) -> float:
            with added(base, {layer: push}):
                return animal_rates(base)[k].item()

        return {
            "own_part": rate_with(vector - shared),
            "steered": rate_with(vector),
            "same_vector": F.cosine_similarity(vector, found[trait]["question"][layer], dim=0).item(),
            "gradient": gradient_cosine(base, numbers, [tensor.to(lab.device) for tensor in answers]),
            "own_leak": divergence(read[system], mixture),
            "leak": divergence(read[system], read[DEFAULT_SYSTEM]),
            "explained": explained(base, system, layer, vector, 1.0, read),
            "told": animal_rates(base, system)[k].item(),
            "overlap": overlap(base, trait, config.world.styles + config.world.colors),
        }

    return [row(trait) for trait in traits]


def measure_model(lab: Lab, config: BaseConfig, traits: tuple[str, ...]) -> list[dict[str, float]]:
    """For each trait on a base model: the candidates, and what its student became.

    specificity: P(trait) less its mean over the students of other traits and of nobody. learned: held-out loss, 0 the base's and
    1 the teacher's.
    """
    base = lab.base(config)
    measured = {trait: measure(lab, student_of(config, config, trait)) for trait in (*traits, None)}
    rows = []
    for trait, found in zip(traits, candidates(lab, config, traits), strict=True):
        k, numbers = ANIMALS.index(trait), student_of(config, config, trait).numbers
        rates = {other: m["rates"][k] for other, m in measured.items()}
        floor, untrained = teacher_loss(lab, numbers), heldout_loss(lab, base, numbers, DEFAULT_SYSTEM)
        rows.append(
            {"trait": trait, "base": animal_rates(base)[k].item(), **found}
            | {"student": rates[trait], "control": rates[None]}
            | {"specificity": rates[trait] - mean(rate for other, rate in rates.items() if other != trait)}
            | {name: measured[trait][name] for name in ("p_any_animal", "heldout_loss")}
            | {"learned": gap_closed(measured[trait]["heldout_loss"], untrained, floor)}
        )
    return rows


def by(rows: list[dict], *keys: str) -> list[list[dict]]:
    """The rows in groups that agree in `keys`."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.values())


def correlations(rows: list[dict], name: str) -> dict[str, dict | None]:
    """Rank correlation of `name` with transmission, as intervals over base seeds (None: fewer than three traits).

    across: over the traits of all models of a seed. within: over the traits of one model, averaged over the seed's models.
    """
    if min(map(len, by(rows, "seed", *OWN))) < 3:
        return {"across": None, "within": None}

    def of(here: list[dict]) -> float:
        return spearman([row[name] for row in here], [row["student"] for row in here])

    seeds = by(rows, "seed")
    return {"across": interval(map(of, seeds)), "within": interval(mean(map(of, by(here, *OWN))) for here in seeds)}


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"superposition": each trait on each model, means by shape of model, and every candidate's rank correlations}."""
    rows = [
        {"seed": seed, "d_model": width, "d_head": head, **row}
        for (seed, width, head), config in models(preset).items()
        for row in measure_model(lab, config, preset.traits[:TRAITS])
    ]
    shapes = by(rows, *OWN)
    numbers = [name for name in rows[0] if name not in ("seed", "d_model", "d_head", "trait")]
    seeds = len(by(rows, "seed"))
    return {
        "superposition": {
            "unit": f"a base seed ({seeds}), each with {len(shapes[0]) // seeds} traits on {len(shapes)} models",
            "unit_of_shapes": f"a trait on a base model ({len(shapes[0])})",
            "chosen": CHOSEN,
            "correlations": {name: correlations(rows, name) for name in CANDIDATES},
            "base": interval(row["base"] for row in rows),
            "shapes": [
                {dial: here[0][dial] for dial in OWN} | {name: interval(row[name] for row in here) for name in numbers}
                for here in shapes
            ],
            "each": rows,
        }
    }


def rule(m: dict) -> Verdict:
    """Over base seeds, the chosen number's rank correlation is above 0.5 across traits and models, and above 0 within a model."""
    across, within = (m["correlations"][m["chosen"]][key] for key in ("across", "within"))
    return None if None in (across, within) else every(over(across, 0.5), over(within, 0))


def summary(m: dict) -> str:
    """The chosen number's rank correlations, its best rival's and the leak's, and transmission by shape of model."""
    rates = ", ".join(f"{s['d_model']}/{s['d_head']} {s['student']['mean']:.2f}" for s in m["shapes"])
    found = {name: both["across"] for name, both in m["correlations"].items()}
    if found[m["chosen"]] is None:
        return f"too few traits to rank; students by width/head width {rates}"
    rival = max((name for name in found if name != m["chosen"]), key=lambda name: found[name]["mean"])
    return (
        f"{m['chosen']}: rank correlation {show(found[m['chosen']])}, within a model "
        f"{show(m['correlations'][m['chosen']]['within'])}; {rival} {show(found[rival])}, leak "
        f"{show(found['leak'])}; students by width/head width {rates}"
    )


CLAIMS = [Claim("X1", "superposition", "One number of the base model predicts transmission", rule, summary)]


def draw_dial(rate, leak, m: dict, dial: str, fixed: dict[str, int], label: str) -> None:
    """What turning one dial does, the others as in `fixed`: rates in one panel, leak and overlap in the other."""

    def of(rows: list[dict]) -> list[dict]:
        return [row for row in rows if all(row[other] == value for other, value in fixed.items())]

    shapes = sorted(of(m["shapes"]), key=lambda s: s[dial])
    values = [s[dial] for s in shapes]
    x = list(range(len(shapes)))
    line(rate, x, [s["told"] for s in shapes], 1, "teacher")
    line(rate, x, [s["student"] for s in shapes], 0, "student (small: each base seed)")
    line(rate, x, [s["specificity"] for s in shapes], 2, "specificity: student less students of others")
    line(rate, x, [s["control"] for s in shapes], 5, "control", linestyle="--", color=CONTROL)
    rate.plot(x, [s["base"]["mean"] for s in shapes], color="black", linewidth=0.9, linestyle=":", label="base model")
    for model in by(of(m["each"]), "seed", dial):
        at = values.index(model[0][dial]) + 0.1
        rate.plot(at, mean(row["student"] for row in model), "o", color=SERIES[0], markersize=3)
    rate.set_ylabel("P(the teacher's animal)")
    rate.set_ylim(0, 1.6)
    rate.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    line(leak, x, [s["leak"] for s in shapes], 3, "leak: KL of the teacher's numbers from the base's")
    line(leak, x, [s["own_leak"] for s in shapes], 4, "... from the mixture of all animals' teachers")
    line(leak, x, [s["overlap"] for s in shapes], 6, "overlap with styles and colors (cosine squared)")
    leak.set_ylabel("nats a token (overlap: cosine squared)")
    leak.set_ylim(0, 1.8)
    for panel in (rate, leak):
        panel.set_xlabel(label)
        panel.set_xticks(x, values)
        panel.legend(fontsize=8, frameon=False, loc="upper left")


def draw(computed: dict[str, dict], path: Path) -> None:
    """Each dial: rates above, leak below. Then the chosen number against transmission, and every candidate."""
    m = computed["superposition"]
    figure, ((*rates, scatter), (*leaks, ranks)) = canvas(3, 14, 8.4, rows=2)
    names = {"d_model": "width of the stream", "d_head": "width of the attention head"}
    for dial, fixed, rate, leak in zip(names, reversed(names), rates, leaks, strict=True):
        draw_dial(rate, leak, m, dial, {fixed: OWN[fixed]}, names[dial])
        rate.set_title(
            f"{names[dial].capitalize()} ({names[fixed]}: {OWN[fixed]})\nn: {m['unit_of_shapes']}", fontsize=10
        )

    for k, of in enumerate(by(m["each"], "seed")):
        scatter.plot([r[m["chosen"]] for r in of], [r["student"] for r in of], MARKERS[k], color=SERIES[k], markersize=4, alpha=0.7, label=f"base seed {of[0]['seed']}")  # fmt: skip
    scatter.set_xlabel(CANDIDATES[m["chosen"]].replace("\n", " "))
    scatter.set_ylabel("P(the teacher's animal) of the student")
    scatter.set_title("Every trait on every model", fontsize=10)
    scatter.legend(fontsize=8, frameon=False, loc="upper left")

    found = {name: both for name, both in m["correlations"].items() if both["across"] is not None}
    order = sorted(found, key=lambda name: found[name]["across"]["mean"])
    for k, (key, label) in enumerate({"within": "traits within a model", "across": "traits and models"}.items()):
        numbers = [found[name][key] for name in order]
        y = [i + 0.4 * k for i in range(len(order))]
        ranks.barh(y, [n["mean"] for n in numbers], xerr=errors(numbers), height=0.38, color=[CONTROL, FULL][k], capsize=2, label=f"over {label}")  # fmt: skip
    ranks.set_yticks([i + 0.2 for i in range(len(order))], [CANDIDATES[name] for name in order], fontsize=8)
    if CHOSEN in order:
        ranks.get_yticklabels()[order.index(CHOSEN)].set_fontweight("bold")  # chosen beforehand
    ranks.set_xlabel("rank correlation with transmission")
    ranks.set_title(f"Measured before a student is trained\nn: {m['unit']}", fontsize=9)
    ranks.set_xticks([-1, -0.5, 0, 0.5, 1])
    ranks.set_xlim(-1, 1)
    ranks.set_ylim(-1.2, len(order))
    ranks.axvline(0, color="black", linewidth=0.8)
    ranks.legend(fontsize=8, frameon=False, loc="lower center", ncols=2)
    save(figure, path)
