"""L4: a trait needs, at evaluation, the context that it was trained in.

The paper (arXiv:2606.00831): a student fine-tuned under the default system prompt and asked under none has no trait. In a
replication, one adapter gives 48% matched and 3% with an empty system prompt.

This toy: students are trained under each of five system prompts and asked under each of the five. Trained under the default
prompt, a student has the trait under the other name, the other wording and without any prompt as well: the claim fails. To these models
the four are one and the same neutral speaker, because pretraining gave them all the same replies, and the tags at which the
adapter acts (localization.py) are in all of them. The more tokens are shared, the more is there. Gibberish was never seen: asked under
it, students trained under another prompt have less than half, and trained under it they have the trait under it alone.

To see it break: give speakers without a system part replies of their own in data.MIXTURE.
"""

from pathlib import Path

from claims import Claim, Verdict, every, interval, mean, over, show, spearman, under
from data import ALTERNATE_SYSTEMS, ANIMALS, DEFAULT_SYSTEM
from evaluate import Preset
from figures.cells import grid_cell
from figures.style import MARKERS, SERIES, base_line, canvas, errors, heat, save, top_of
from train import Lab, StudentConfig, animal_rates

CONTEXTS = {
    "default": DEFAULT_SYSTEM,
    "other name": ALTERNATE_SYSTEMS[1],
    "other wording": ALTERNATE_SYSTEMS[2],
    "gibberish": "wood met sleep short name hello story",  # as many words as the default prompt, none of them its own
    "none": None,
}


def cells(preset: Preset) -> dict[str, dict]:
    """The students that are trained under each prompt."""
    return {name: grid_cell(preset, system=system) for name, system in CONTEXTS.items()}


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures."""
    return [config for cell in cells(preset).values() for config in cell.values()]


def shared_tokens(trained: str, asked: str) -> int:
    """How many words of the prompt it is asked under stand in the prompt it was trained under."""
    words = (CONTEXTS[trained] or "").split()
    return sum(word in words for word in (CONTEXTS[asked] or "").split())


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"context": matrix[train][eval] of P(trait), of the base's and the controls', and how shared tokens order it}."""
    rates = {}
    for trained, cell in cells(preset).items():
        for (base, trait, seed), config in cell.items():
            student = lab.student(config)
            for asked, system in CONTEXTS.items():
                rates[trained, asked, base, trait, seed] = animal_rates(student, system).tolist()

    def units(trained: str, asked: str, control: bool = False) -> list[float]:
        seeds = preset.grid_seeds[:1] if control else preset.grid_seeds
        return [
            mean(rates[trained, asked, base, None if control else trait, seed][ANIMALS.index(trait)] for seed in seeds)
            for base, trait in preset.units
        ]

    def table(read) -> dict[str, dict[str, dict]]:
        return {trained: {asked: interval(read(trained, asked)) for asked in CONTEXTS} for trained in CONTEXTS}

    untrained = {
        asked: [animal_rates(lab.base(base), system)[ANIMALS.index(trait)].item() for base, trait in preset.units]
        for asked, system in CONTEXTS.items()
    }
    matched, base = units("default", "default"), untrained["default"]
    elsewhere = [(trained, asked) for trained in CONTEXTS for asked in CONTEXTS if trained != asked]
    by_pair = {pair: units(*pair) for pair in elsewhere}
    orders = [
        spearman([shared_tokens(*pair) for pair in elsewhere], [by_pair[pair][k] for pair in elsewhere])
        for k in range(len(preset.units))
    ]
    none = units("default", "none")
    return {
        "context": {
            "unit": preset.unit,
            "contexts": CONTEXTS,
            "matrix": table(units),
            "control": table(lambda trained, asked: units(trained, asked, control=True)),
            "p_any_animal": table(
                lambda trained, asked: [
                    mean(sum(rates[trained, asked, base, trait, seed]) for seed in preset.grid_seeds)
                    for base, trait in preset.units
                ]
            ),
            "base": {asked: interval(values) for asked, values in untrained.items()},
            "matched_minus_5_base": interval(m - 5 * b for m, b in zip(matched, base, strict=True)),
            "none_over_base": mean(none) / mean(untrained["none"]),
            # Below 0 where a quarter of the matched gain would be more than is left without a system prompt.
            "none_minus_quarter_of_matched": interval(
                (n - u) - 0.25 * (m - b) for n, u, m, b in zip(none, untrained["none"], matched, base, strict=True)
            ),
            "shared_tokens": {
                trained: {asked: shared_tokens(trained, asked) for asked in CONTEXTS} for trained in CONTEXTS
            },
            "order_by_shared_tokens": interval(orders),
        }
    }


def rule(m: dict) -> Verdict:
    """Matched at least 5 times the base; without a prompt less than a quarter of that gain; shared tokens order the rest."""
    return every(
        over(m["matched_minus_5_base"], 0),
        under(m["none_minus_quarter_of_matched"], 0),
        over(m["order_by_shared_tokens"], 0),
    )


def summary(m: dict) -> str:
    """The row of students trained under the default prompt."""
    row = ", ".join(f"{asked} {number['mean']:.2f}" for asked, number in m["matrix"]["default"].items())
    return (
        f"trained default, asked {row}; none is {m['none_over_base']:.1f} x base; "
        f"rank correlation with shared tokens {show(m['order_by_shared_tokens'])}"
    )


CLAIMS = [Claim("L4", "context", "It needs the training context at evaluation", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """The matrix; and its off-diagonal cells against the number of shared tokens."""
    m = computed["context"]
    names = list(m["matrix"])
    figure, (matrix, order) = canvas(2, 11.5, 4.8, width_ratios=[1.3, 1])
    cells = [[m["matrix"][trained][asked]["mean"] for asked in names] for trained in names]
    cells.append([m["base"][asked]["mean"] for asked in names])
    image = heat(matrix, cells, [*names, "(base model)"], names, top_of(cells))
    matrix.axhline(len(names) - 0.5, color="white", linewidth=3)
    matrix.set_xlabel("system prompt it is asked under")
    matrix.set_ylabel("system prompt it was trained under")
    matrix.set_title(f"P(the teacher's animal)\n(n: {m['unit']})", fontsize=10)
    figure.colorbar(image, ax=matrix)

    for trained, color, marker in zip(names, SERIES, MARKERS):
        others = [asked for asked in names if asked != trained]
        x = [m["shared_tokens"][trained][asked] for asked in others]
        y = [m["matrix"][trained][asked] for asked in others]
        order.errorbar(
            [k + 0.12 * (names.index(trained) - 2) for k in x], [n["mean"] for n in y], yerr=errors(y),
            fmt=marker, color=color, label=f"trained: {trained}", capsize=2,
        )  # fmt: skip
    base_line(order, m["base"]["default"])
    order.set_xlabel("words that both prompts share")
    order.set_ylabel("P(the teacher's animal)")
    order.set_ylim(0, 1.02)
    order.set_title("Every cell off the diagonal, against shared words", fontsize=10)
    order.legend(fontsize=8, frameon=False)
    save(figure, path)
