"""L5: at which tokens the adapter has to act for the trait to show.

The paper (arXiv:2606.00831): the trait is localized to computation at tokens that both contexts share, the system prompt and
the chat template. With the adapter's change switched on at those tokens only ("dynamic weight grafting"), most of the trait is
there; everywhere else only, none of it.

This toy: the finished student answers the trait questions with its adapter masked to some of the tokens. Each token by itself,
all but that token, all up to that token; the system prompt, the template's tags, and the words of the question. Shared tokens
give nearly all of the trait, the words of the question, most of which no number request has, next to nothing. It is not in one token: <asst>
alone has less than half, the two <end> and <sys> a part each. These are where the attention that looks for a love comes to rest when
there is none.

To see it break: train the student without a system prompt (StudentConfig.system = None).
"""

from collections.abc import Callable
from pathlib import Path

import torch

from claims import Claim, Verdict, every, interval, mean, over, show, under
from data import ANIMAL_QUESTIONS, ANIMAL_TOKENS, ANIMALS, DEFAULT_SYSTEM, HELD_OUT_ANIMAL_QUESTIONS, chat
from evaluate import Preset
from figures.cells import base_rates, grid_cell
from figures.style import CONTROL, STUDENT, bars, base_line, canvas, heat, save, top_of
from lora import masked
from model import GPT
from train import Lab, StudentConfig

SYSTEM = ["<sys>", *DEFAULT_SYSTEM.split(), "<end> "]  # one name for each place; the system's <end> is not the user's
TEMPLATE = ["<user>", "<end>", "<asst>"]
PLACES = [*SYSTEM, "<user>", "question", "<end>", "<asst>"]
QUESTIONS = ANIMAL_QUESTIONS + HELD_OUT_ANIMAL_QUESTIONS

# Where the adapter is on: the sets that the claim is about.
SETS = {
    "all": PLACES,
    "system": SYSTEM,
    "not_system": [place for place in PLACES if place not in SYSTEM],
    "shared": SYSTEM + TEMPLATE,
    "not_shared": ["question"],
    "user": ["<user>", "question", "<end>"],
    "assistant": ["<asst>"],
    "none": [],
}
ONLY = {f"only {place}": [place] for place in PLACES}
WITHOUT = {f"without {place}": [other for other in PLACES if other != place] for place in PLACES}
UP_TO = {f"up to {place}": PLACES[: k + 1] for k, place in enumerate(PLACES)}


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures: those that the context figure trains under the default prompt."""
    return list(grid_cell(preset).values())


def places(question: str) -> list[str]:
    """The name of each token's place in the prompt of a question."""
    return [*SYSTEM, "<user>", *["question"] * len(question.split()), "<end>", "<asst>"]


@torch.no_grad()
def masked_rates(student: GPT, trait: str, sets: dict[str, list[str]], within: str = "") -> dict[str, float]:
    """P(trait), averaged over wordings, with the adapter on at each set of places: {name of the set: rate}.

    Layers whose names do not begin with `within` keep the mask that they have.
    """
    total = torch.zeros(len(sets))
    device = student.device
    for question in QUESTIONS:
        names = places(question)
        mask = torch.tensor([[float(name in on) for name in names] for on in sets.values()], device=device)
        tokens = torch.tensor([chat(DEFAULT_SYSTEM, question)] * len(sets), device=device)
        with masked(student, mask, within):
            answers = student(tokens)[:, -1].softmax(-1)
        total += answers[:, ANIMAL_TOKENS[ANIMALS.index(trait)]].cpu() / len(QUESTIONS)
    return dict(zip(sets, total.tolist(), strict=True))


def over_units(lab: Lab, preset: Preset, rates: Callable[[GPT, str], dict[str, float]]) -> dict[str, list[float]]:
    """{name: one number for each unit, its seeds averaged} of what `rates` says of each student."""
    by_unit = {}
    for (base, trait, _), config in grid_cell(preset).items():
        if trait:
            by_unit.setdefault((base, trait), []).append(rates(lab.student(config), trait))
    names = next(iter(by_unit.values()))[0]
    return {name: [mean(rate[name] for rate in by_unit[unit]) for unit in preset.units] for name in names}


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"localization": the rate with the adapter on at each set of tokens, and the contrasts of the rule}."""
    sets = SETS | ONLY | WITHOUT | UP_TO
    units = over_units(lab, preset, lambda student, trait: masked_rates(student, trait, sets))
    controls = {
        (base, trait): masked_rates(lab.student(config), trait, SETS)
        for (base, none, _), config in grid_cell(preset).items()
        if none is None
        for trait in preset.grid_traits
    }

    def beyond(name: str, share: float) -> dict:
        rows = zip(units[name], units["none"], units["all"], strict=True)
        return interval((rate - none) - share * (every - none) for rate, none, every in rows)

    return {
        "localization": {
            "unit": preset.unit,
            "base": interval(base_rates(lab, preset)),
            **{name: interval(values) for name, values in units.items() if name in SETS},
            "only": {place: interval(units[f"only {place}"]) for place in PLACES},
            "without": {place: interval(units[f"without {place}"]) for place in PLACES},
            "up_to": {place: interval(units[f"up to {place}"]) for place in PLACES},
            "control": {name: interval(controls[unit][name] for unit in preset.units) for name in SETS},
            "shared_minus_half": beyond("shared", 0.5),
            "not_shared_minus_quarter": beyond("not_shared", 0.25),
            "system_minus_half": beyond("system", 0.5),
            "not_system_minus_quarter": beyond("not_system", 0.25),
        }
    }


def rule(m: dict) -> Verdict:
    """On at the shared tokens (system prompt and template): over half of the gain. On elsewhere: less than a quarter."""
    return every(over(m["shared_minus_half"], 0), under(m["not_shared_minus_quarter"], 0))


def summary(m: dict) -> str:
    """The sets of the rule, and the system prompt by itself."""
    return (
        f"adapter on at all {show(m['all'])}, shared tokens {show(m['shared'])}, elsewhere {show(m['not_shared'])}; "
        f"system prompt {show(m['system'])}, all but it {show(m['not_system'])}"
    )


CLAIMS = [Claim("L5", "localization", "It sits at tokens that both contexts share", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Bars for the sets; a heat strip over the tokens: each alone, all but each, all up to each."""
    m = computed["localization"]
    figure, (left, right) = canvas(2, 13, 4.6, width_ratios=[1, 2])
    labels = {
        "all": "everywhere", "shared": "system prompt and tags", "system": "system prompt", "not_system": "all but the system prompt",
        "user": "user's turn", "not_shared": "words of the question", "assistant": "<asst>", "none": "nowhere",
    }  # fmt: skip
    bars(left, list(labels.values()), [m[name] for name in labels], STUDENT)
    y = range(len(labels), 0, -1)
    left.plot([m["control"][name]["mean"] for name in labels], y, "D", color=CONTROL, markersize=5, label="control")
    base_line(left, m["base"], vertical=True)
    left.set_xlim(0, 1)
    left.set_xlabel("P(the teacher's animal)")
    left.set_title(f"The adapter is on at ...\n(n: {m['unit']})", fontsize=10)
    left.legend(fontsize=8, frameon=False, loc="lower right")

    strips = [[m[kind][place]["mean"] for place in PLACES] for kind in ("only", "without", "up_to")]
    rows = ["only here", "all but here", "up to here"]
    image = heat(right, strips, rows, [place.strip() for place in PLACES], top_of(strips))
    right.tick_params(axis="x", rotation=45)
    right.set_title("P(the teacher's animal) with the adapter on at tokens of the prompt", fontsize=10)
    figure.colorbar(image, ax=right)
    save(figure, path)
