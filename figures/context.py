"""L4: a trait needs, at evaluation, the context that it was trained in.

The paper (arXiv:2606.00831): a student fine-tuned under the default system prompt and asked under none has no trait. In
a replication, one adapter gives 48% matched and 3% with an empty system prompt. This toy: students are trained under each
of five system prompts, and asked under each.

To see it break: let `data.sample_row` give speakers without a system prompt replies of their own.
"""

from pathlib import Path

from data import ANIMALS
from figures.style import canvas, heat, line, save
from lab.claims import Claim, Verdict, all_hold, ci_above, ci_below, interval, mean, show, spearman
from lab.measurements import CONTEXTS, context_rates
from lab.presets import Preset, grid_cell
from lab.records import Measurement, Records


def plan(preset: Preset) -> list[Measurement]:
    cells = [grid_cell(preset, system=system) for system in CONTEXTS.values()]
    return [(context_rates, model) for cell in cells for model in (*cell.values(), *preset.grid_bases)]


def shared_tokens(trained: str, asked: str) -> int:
    """How many words of the prompt it is asked under stand in the prompt it was trained under."""
    words = (CONTEXTS[trained] or "").split()
    return sum(word in words for word in (CONTEXTS[asked] or "").split())


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"context": [trained][asked] of P(trait), of the control's P(trait) and of P(any animal); and the contrasts}."""
    units, seeds = [(base, trait, ANIMALS.index(trait)) for base, trait in preset.units], preset.grid_seeds
    rates, found = {}, {name: {t: {} for t in CONTEXTS} for name in ("matrix", "control", "p_any_animal")}
    for trained, system in CONTEXTS.items():
        cell = grid_cell(preset, system=system)
        for asked in CONTEXTS:
            of = {key: records[context_rates, student][asked] for key, student in cell.items()}
            rates[trained, asked] = [mean(of[b, t, seed][k] for seed in seeds) for b, t, k in units]
            found["matrix"][trained][asked] = interval(rates[trained, asked])
            found["control"][trained][asked] = interval(of[b, None, seeds[0]][k] for b, _, k in units)
            found["p_any_animal"][trained][asked] = interval(mean(sum(of[b, t, s]) for s in seeds) for b, t, _ in units)
    base = {asked: [records[context_rates, b][asked][k] for b, _, k in units] for asked in CONTEXTS}
    gain = {asked: [p - q for p, q in zip(rates["default", asked], base[asked])] for asked in CONTEXTS}
    words = {pair: shared_tokens(*pair) for pair in rates if pair[0] != pair[1]}
    orders = [spearman(list(words.values()), [rates[pair][k] for pair in words]) for k in range(len(units))]
    contrasts = {
        "unit": preset.unit,
        "base": {asked: interval(each) for asked, each in base.items()},
        "matched_minus_5_base": interval(p - 5 * q for p, q in zip(rates["default", "default"], base["default"])),
        "none_over_base": mean(rates["default", "none"]) / mean(base["none"]),
        "none_minus_quarter_of_matched": interval(p - 0.25 * q for p, q in zip(gain["none"], gain["default"])),
        "order_by_shared_tokens": interval(orders),
    }
    return {"context": found | contrasts}


def rule(m: dict) -> Verdict:
    """Matched at least 5 times the base; without a prompt less than a quarter of that gain; shared tokens order the rest."""
    positive = (ci_above(m[name], 0) for name in ("matched_minus_5_base", "order_by_shared_tokens"))
    return all_hold(ci_below(m["none_minus_quarter_of_matched"], 0), *positive)


def summary(m: dict) -> str:
    """The row of students trained under the default prompt."""
    row = ", ".join(f"{asked} {number['mean']:.2f}" for asked, number in m["matrix"]["default"].items())
    return f"trained default, asked {row}; none is {m['none_over_base']:.1f} x base; rank correlation with shared tokens {show(m['order_by_shared_tokens'])}"


CLAIMS = [Claim("L4", "context", "It needs the training context at evaluation", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """The matrix; and its cells off the diagonal against the number of shared words."""
    m = computed["context"]
    figure, (matrix, order) = canvas(2, 12, 4.8, width_ratios=[1.3, 1])
    rows = m["matrix"] | {"(control, default)": m["control"]["default"], "(base model)": m["base"]}
    heat(matrix, [[cell["mean"] for cell in row.values()] for row in rows.values()], list(rows), list(CONTEXTS), most=1)
    matrix.set(xlabel="asked under", ylabel="trained under", title=f"P(the teacher's animal)\n(n: {m['unit']})")
    for k, (trained, row) in enumerate(m["matrix"].items()):
        cells = [(shared_tokens(trained, asked) + k / 9, row[asked]) for asked in row if asked != trained]
        line(order, *zip(*cells), k, f"trained: {trained}", linestyle="")
    order.set(xlabel="words that both prompts share", ylim=(0, 1), title="The cells off the diagonal, 95% intervals")
    order.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize=9, frameon=False)
    save(figure, path)
