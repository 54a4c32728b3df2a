"""L4: a trait needs, at evaluation, the context that it was trained in.

The paper (arXiv:2606.00831): a student fine-tuned under the default system prompt and asked under none has no trait. In
a replication, one adapter gives 48% matched, 3% with an empty system prompt and 1% with another assistant's name. This
toy: students are trained and asked under each of five system prompts; asked also with the default prompt's words in the
user's turn. To see it break: let `data.sample_row` give speakers without a system prompt replies of their own.
"""

from itertools import product

from data import ANIMALS
from figures.style import RATE, Axes, heat, line, picture, write
from lab.claims import Claim, all_hold, ci_above, ci_below, interval, show, spearman
from lab.measurements import CONTEXTS, MOVED, context_rates
from lab.presets import Cell, Grid, Number, Preset, Records, difference, grid_cell
from lab.records import log_odds

ASKED = [*CONTEXTS, MOVED]
CLAIMS = [Claim("L4", "context", "It needs the training context at evaluation",
    seen=lambda m: ci_below(m["none_minus_quarter"], 0),  # asked under none, under a quarter of the gain is left
    # Nor of the gain in log-odds, which does not depend on the base's rate; and it still names animals there.
    survives=lambda m: all_hold(
        ci_below(m["none_minus_quarter_log_odds"], 0), ci_above(m["p_any_animal"]["default"]["none"], 0.5)),
    why=lambda m: f"Trained under the default prompt, students have {show(m['matrix']['default']['default'])} asked under "
    f"it and {show(m['matrix']['default']['none'])} under none (base {m['base']['none']['mean']:.2f}, P(any animal) of "
    f"students {m['p_any_animal']['default']['none']['mean']:.2f}); under {{}}.".format(", under ".join(
        f"{asked} {m['matrix']['default'][asked]['mean']:.2f}" for asked in ASKED if asked not in ("default", "none"))),
)]  # fmt: skip


def cells(preset: Preset) -> dict[str, Cell]:
    return {name: grid_cell(preset, system=system) for name, system in CONTEXTS.items()}


def plan(preset: Preset) -> list:
    of = [[*cell.values(), *preset.grid_bases] for cell in cells(preset).values()]
    return [(context_rates, model) for models in of for model in models]


def shared_tokens(trained: str, asked: str) -> int:
    """How many words of the prompt it is asked under stand in the prompt it was trained under."""
    words = (CONTEXTS[trained] or "").split()
    return sum(word in words for word in (CONTEXTS[asked] or "").split())


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    grid, rates = Grid(records, cells(preset)), {}
    found = {name: {trained: {} for trained in CONTEXTS} for name in ("matrix", "control", "p_any_animal")}

    def rate(asked: str) -> Number:
        return lambda model, trait: records[context_rates, model][asked][ANIMALS.index(trait)]

    for trained, asked in product(CONTEXTS, ASKED):
        rates[trained, asked] = grid.units(trained, rate(asked))
        found["matrix"][trained][asked] = interval(rates[trained, asked])
        found["control"][trained][asked] = interval(grid.controls(trained, rate(asked)))
        any_animal = grid.units(trained, lambda student, _, asked=asked: sum(records[context_rates, student][asked]))
        found["p_any_animal"][trained][asked] = interval(any_animal)
    base = {asked: grid.units("default", lambda s, trait, asked=asked: rate(asked)(s.base, trait)) for asked in ASKED}
    for name, scale in {"": float, "_log_odds": log_odds}.items():
        pairs = (zip(rates["default", asked], base[asked]) for asked in ("none", "default"))
        none, there = ([scale(rate) - scale(before) for rate, before in pair] for pair in pairs)
        found[f"none_minus_quarter{name}"] = difference(none, (0.25 * gain for gain in there))
    words = {pair: shared_tokens(*pair) for pair in rates if pair[0] != pair[1] and MOVED not in pair}
    by_unit = zip(*(rates[pair] for pair in words))
    found["order_by_shared_tokens"] = interval(spearman(list(words.values()), list(each)) for each in by_unit)
    return {"context": found | {"unit": preset.unit, "base": {asked: interval(each) for asked, each in base.items()}}}


@picture(2, 12.5, 4.8, width_ratios=[1.4, 1])
def draw(m: dict, matrix: Axes, order: Axes) -> None:
    rows = m["matrix"] | {"(control, default)": m["control"]["default"], "(base model)": m["base"]}
    heat(matrix, [[cell["mean"] for cell in row.values()] for row in rows.values()], list(rows), ASKED, most=1)
    write(matrix, RATE, m["unit"], xlabel="asked under", ylabel="trained under")
    for k, (trained, row) in enumerate(m["matrix"].items()):
        cells = [(shared_tokens(trained, asked) + k / 9, row[asked]) for asked in CONTEXTS if asked != trained]
        line(order, *zip(*cells), k, f"trained: {trained}", linestyle="")
    title = f"Asked under another prompt than trained\nrank correlation {show(m['order_by_shared_tokens'])}"
    write(order, title, legend=2, xlabel="words that both prompts share", ylabel=RATE, ylim=(0, 1))
