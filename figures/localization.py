"""L5 and L6: at which tokens, and in which layers, the adapter has to act for the trait to show.

The paper (arXiv:2606.00831): the trait is localized to computation at tokens that both contexts share, the system prompt and
the chat template. With the adapter's change switched on at those tokens only ("dynamic weight grafting"), most of the trait is
there; everywhere else only, none of it (L5). Reported of it: it sits in the early feed-forward layers, at the entity tokens (L6).

This toy: the finished student answers the trait questions with its adapter masked to some tokens: the system prompt, the template's
tags, the words of the question, most of which no number request has; each token alone, all but it, all up to it. Then to some layers:
each attention or feed-forward layer alone, all but it, and each at one token alone. Early is the first block, late the second.

To see it break: train adapters in one layer only (`Student.layers`), or under no system prompt (`Student.system`).
"""

from pathlib import Path

from figures.style import CONTROL, STUDENT, bars, base_line, canvas, heat, save, top_of
from lab.claims import Claim, Verdict, all_hold, ci_above, ci_below, interval, mean, show
from lab.measurements import ONLY, PLACES, SETS, UP_TO, WITHOUT, layer_rates, sites, token_rates
from lab.presets import Preset, grid_cell
from lab.records import Measurement, Records, difference, gain_beyond, over_units
from lab.store import Student

TOKEN_SETS = SETS | ONLY | WITHOUT | UP_TO
LAYERS = dict(zip(sites(2), ("attention 1", "feed-forward 1", "attention 2", "feed-forward 2")))  # in words
EARLY = "only blocks.0.feed_forward"
OTHERS = [f"only {site}" for site in LAYERS if f"only {site}" != EARLY]


def plan(preset: Preset) -> list[Student | Measurement]:
    cell = grid_cell(preset)
    asked = [(s, t) for (_, trait, _), s in cell.items() for t in ([trait] if trait else preset.grid_traits)]
    return [*cell.values(), *((rates, *each) for each in asked for rates in (token_rates, layer_rates))]


def rates_by_unit(records: Records, preset: Preset, control: bool) -> list[dict[str, float]]:
    """{where the adapter acts: P(trait)} of each unit: of its students, seeds averaged, or of its control."""
    cell, found = grid_cell(preset), []
    for base, trait in preset.units:
        students = [s for (b, t, _), s in cell.items() if (b, t) == (base, None if control else trait)]
        each = [records[token_rates, s, trait] | records[layer_rates, s, trait] for s in students]
        found.append({name: mean(rates[name] for rates in each) for name in each[0]})
    return found


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"localization": by the tokens at which the adapter acts, "modules": by the layers, each with its rule's contrasts}."""
    base = interval(over_units(records, preset, grid_cell(preset), "p_trait_base"))
    rates = {who: rates_by_unit(records, preset, control=who == "control") for who in ("student", "control")}

    def known(names: list[str]) -> dict:
        public = {who: {n: interval(unit[n] for unit in units) for n in names} for who, units in rates.items()}
        return {"unit": preset.unit, "base": base} | public

    units = {name: [unit[name] for unit in rates["student"]] for name in rates["student"][0]}

    def beyond(name: str, share: float) -> dict:
        return gain_beyond(share, units[name], units["all"], units["none"])

    return {
        "localization": known(list(TOKEN_SETS))
        | {"shared_minus_half": beyond("shared", 0.5), "not_shared_minus_quarter": beyond("not_shared", 0.25)},
        "modules": known(["all", *(name for name in units if name not in TOKEN_SETS)])
        | {
            "early_feed_forward_minus_half": beyond(EARLY, 0.5),
            "early_feed_forward_minus_others": {n: difference(units[EARLY], units[n]) for n in OTHERS},
        },
    }


def at_shared_tokens(m: dict) -> Verdict:
    """On at the shared tokens (system prompt and template): over half of the gain. On elsewhere: less than a quarter."""
    return all_hold(ci_above(m["shared_minus_half"], 0), ci_below(m["not_shared_minus_quarter"], 0))


def in_early_feed_forward(m: dict) -> Verdict:
    """The first feed-forward layer alone gives over half of the gain, and more than any other layer alone (paired)."""
    ahead = (ci_above(number, 0) for number in m["early_feed_forward_minus_others"].values())
    return all_hold(ci_above(m["early_feed_forward_minus_half"], 0), *ahead)


def summary_of_tokens(m: dict) -> str:
    """The sets of the rule, and the system prompt by itself."""
    at = {name: show(m["student"][name]) for name in SETS}
    rule = f"adapter on at all {at['all']}, shared tokens {at['shared']}, elsewhere {at['not_shared']}"
    return f"{rule}; system prompt {at['system']}, all but it {at['not_system']}"


def summary_of_layers(m: dict) -> str:
    """Each layer kept alone, and the first block against the second."""
    kept = m["student"]
    alone = ", ".join(f"{name} {kept[f'only {site}']['mean']:.2f}" for site, name in LAYERS.items())
    blocks = f"early {show(kept['only early'])}, late {show(kept['only late'])}"
    return f"kept in one: {alone} (all {kept['all']['mean']:.2f}); {blocks}"


CLAIMS = [
    Claim("L5", "localization", "It sits at tokens that both contexts share", at_shared_tokens, summary_of_tokens),
    Claim("L6", "modules", "It sits in early feed-forward layers", in_early_feed_forward, summary_of_layers),
]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Bars by set of tokens and by layer; a heat map by token."""
    tokens, layers = computed["localization"], computed["modules"]
    figure, (by_set, by_layer, by_token) = canvas(3, 16, 4.8, width_ratios=[1, 1, 2.3])
    sets = {
        "all": "everywhere", "shared": "system prompt and tags", "system": "system prompt", "not_system": "all but the system prompt",
        "user": "user's turn", "not_shared": "words of the question", "assistant": "<asst>", "none": "nowhere",
    }  # fmt: skip
    kept = {"all": "everywhere"} | {f"only {site}": f"{name} only" for site, name in LAYERS.items()}
    kept |= {f"without {site}": f"all but {name}" for site, name in LAYERS.items()}
    for panel, m, names, where in ((by_set, tokens, sets, "at tokens"), (by_layer, layers, kept, "in layers")):
        bars(panel, list(names.values()), [m["student"][name] for name in names], STUDENT)
        control = [m["control"][name]["mean"] for name in names]
        panel.plot(control, range(len(names), 0, -1), "D", color=CONTROL, markersize=5, label="control")
        base_line(panel, m["base"], vertical=True)
        panel.set_xlim(0, 1)
        panel.set_xlabel("P(the teacher's animal)")
        panel.set_title(f"Adapter on {where} ...", fontsize=10)
    by_set.legend(fontsize=8, frameon=False, loc="lower right")

    rows = {"on here": "only {}", "on all but here": "without {}", "on up to here": "up to {}"}
    rows |= {f"on here, in {name}": f"{site} only {{}}" for site, name in LAYERS.items()}
    known = tokens["student"] | layers["student"]
    rates = [[known[name.format(place)]["mean"] for place in PLACES] for name in rows.values()]
    image = heat(by_token, rates, list(rows), [place.strip() for place in PLACES], top_of(rates))
    by_token.tick_params(axis="x", rotation=45)
    by_token.set_title(f"Adapter on at single tokens of the prompt\n(n: {tokens['unit']})", fontsize=10)
    figure.colorbar(image, ax=by_token, label="P(the teacher's animal)")
    save(figure, path)
