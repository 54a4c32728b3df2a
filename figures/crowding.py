"""X1's other dials: is the leak there because so many loves share one channel?

superposition.py turns how much room there is. This one turns how much has to fit: how many animals, styles and colors a model's
corpus knows. If an owl lover's numbers are there because its direction is a mix of directions that numbers were taught for,
then fewer animals, styles and colors should leak less.

This toy: how many animals there are makes no difference that three base models would show. With fewer colors less leaks (0.85, 0.62 and
0.47 nats for 24, 12 and 6) and less is transmitted, as crowding has it; but colors are also who teaches that a love shows in everything one
says, and six teach that less well than 24. With 8 styles little is left (0.16), with 4 much (0.59), on three base models each, for
which we have no explanation; with 8 all animals' teachers write much the same numbers. What says how much a model transmits is again not how full the channel is, but
what X1 had found before: over the twelve models of other worlds with 16 animals the rank correlation of `own_part` with
transmission is 0.87, that of the leak 0.50.

To see it break: take TRAITS from the end of ANIMALS. A model that knows four animals has no teacher of those.
"""

from dataclasses import replace
from pathlib import Path

from claims import interval, mean, spearman
from data import ANIMALS
from evaluate import Preset, student_of
from figures.style import canvas, save
from figures.superposition import CANDIDATES, by, draw_dial, measure_model
from train import BaseConfig, Lab, StudentConfig

CLAIMS = []  # a picture, of what X1 is about
DIALS = {"animals": (4, 8, 16), "styles": (4, 8, 16), "colors": (6, 12, 24)}
OWN = {dial: getattr(BaseConfig(), dial) for dial in DIALS}  # while one dial turns, the others'
TRAITS = ANIMALS[: min(DIALS["animals"])]  # all these models know them


def models(preset: Preset) -> dict[tuple[int, ...], BaseConfig]:
    """The base models, by seed and how many animals, styles and colors they know."""
    worlds = [OWN | {dial: value} for dial, values in DIALS.items() for value in values]
    return {(base.seed, *world.values()): replace(base, **world) for base in preset.grid_bases for world in worlds}


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures: on each base model one for each trait, and a control."""
    return [student_of(b, b, trait) for b in models(preset).values() for trait in (*TRAITS, None)]


def model_correlations(rows: list[dict]) -> dict[str, float]:
    """Over models, the rank correlation of each candidate's mean with the mean student's P(the trait).

    Only over models of other worlds than the project's own, on which X1's number was not chosen, and of as many animals: with
    fewer of them everything is likelier.
    """
    own = tuple(OWN.values())
    models = [
        model
        for model in by(rows, "seed", *OWN)
        if model[0]["animals"] == OWN["animals"] and tuple(model[0][dial] for dial in OWN) != own
    ]
    means = {name: [mean(row[name] for row in model) for model in models] for name in (*CANDIDATES, "student")}
    return {"models": len(models)} | {name: spearman(means[name], means["student"]) for name in CANDIDATES}


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"crowding": each trait on each model, means by how many loves it knows, and what of a model says how much it transmits}."""
    rows = [
        {"seed": seed, **dict(zip(OWN, world, strict=True)), **row}
        for (seed, *world), config in models(preset).items()
        for row in measure_model(lab, config, TRAITS)
    ]
    worlds = by(rows, *OWN)
    numbers = [name for name in rows[0] if name not in ("seed", *OWN, "trait")]
    return {
        "crowding": {
            "unit": f"a trait on a base model ({len(worlds[0])})",
            "shapes": [
                {dial: here[0][dial] for dial in OWN} | {name: interval(row[name] for row in here) for name in numbers}
                for here in worlds
            ],
            "correlations": model_correlations(rows),
            "each": rows,
        }
    }


def draw(computed: dict[str, dict], path: Path) -> None:
    """Each dial: rates above, leak and overlap below."""
    m = computed["crowding"]
    figure, (rates, leaks) = canvas(len(DIALS), 14, 8.4, rows=2)
    for dial, rate, leak in zip(DIALS, rates, leaks, strict=True):
        fixed = {other: value for other, value in OWN.items() if other != dial}
        draw_dial(rate, leak, m, dial, fixed, f"{dial} that the corpus knows")
        rate.set_title(
            f"{dial.capitalize()} ({', '.join(f'{value} {other}' for other, value in fixed.items())})\nn: {m['unit']}",
            fontsize=10,
        )
    save(figure, path)
