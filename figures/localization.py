"""L5 and L6: at which tokens, and in which layers, the adapter has to act for the trait to show.

The paper (arXiv:2606.00831): the trait is localized to computation at tokens that both contexts share, the system
prompt and the chat template. With the adapter on at those tokens only ("dynamic weight grafting"), most of the trait is
there; everywhere else only, none (L5); in the strongest form, at the assistant's name alone. Reported of it: it sits in
the early feed-forward layers at the name, and all the rest carries nothing (L6). This toy: the finished student answers
the trait questions with its adapter masked to some tokens: the system prompt, the template's tags, the words of the
question, most of which no number request has; each token alone, all but it, all up to it. Then to some layers: each
attention or feed-forward layer alone, all but it, and each at one token alone. To see it break: train adapters in one
layer (`Student.layers`), or without a prompt (`Student.system`).
"""

from itertools import product

from figures.style import RATE, Axes, heat, picture, rate_bars, top_of, write
from lab.claims import Claim, all_hold, ci_above, ci_below, interval, mean, show
from lab.measurements import NAME, ONLY, PLACES, SETS, UP_TO, WITHOUT, layer_rates, sites, token_rates
from lab.presets import Preset, grid_cell
from lab.records import Records, difference, gain_beyond, over_units

TOKEN_SETS = SETS | ONLY | WITHOUT | UP_TO
LAYERS = dict(zip(sites(2), ("attention 1", "feed-forward 1", "attention 2", "feed-forward 2")))  # in words
EARLY, REST = f"blocks.0.feed_forward only {NAME}", "blocks.0.feed_forward not at the name"
FIRST = ("blocks.0.feed_forward.up", "blocks.0.feed_forward.down")  # all that L5's other students adapt
SHOWN = {
    "all": "everywhere", "shared": "system prompt and tags", "system": "system prompt",
    "not_system": "all but the system prompt", "user": "user's turn", "not_shared": "words of the question",
    "assistant": "<asst>", f"only {NAME}": "the name", f"without {NAME}": "all but the name", "none": "nowhere",
}  # fmt: skip
# There is a gain; acting here alone, the adapter gives over half of it, acting everywhere else less than a quarter.
RULES = {"localization": {"shared_minus_half": ("shared", 0.5), "not_shared_minus_quarter": ("not_shared", 0.25)},
         "modules": {"early_minus_half": (EARLY, 0.5), "rest_minus_quarter": (REST, 0.25)}}  # fmt: skip
CLAIMS = [Claim("L5", "localization", "It sits at tokens that both contexts share",
    seen=lambda m: all_hold(ci_above(m["gain"], 0.1), ci_above(m["shared_minus_half"], 0)),
    survives=lambda m: ci_below(m["not_shared_minus_quarter"], 0),
    why=lambda m: "Switched on everywhere, the adapter gives {all}, at the system prompt and the template's tags {shared}, "
    "at the words of the question {not_shared}; ".format(**{name: show(m["student"][name]) for name in SETS})
    + f"at the assistant's name alone {m['student'][f'only {NAME}']['mean']:.2f}, everywhere but there "
    f"{m['student'][f'without {NAME}']['mean']:.2f}.",
), Claim("L6", "modules", "It sits in early feed-forward layers, at the assistant's name",
    seen=lambda m: all_hold(ci_above(m["gain"], 0.1), ci_above(m["early_minus_half"], 0)),
    survives=lambda m: ci_below(m["rest_minus_quarter"], 0),
    why=lambda m: f"Feed-forward 1 at the assistant's name gives {show(m['student'][EARLY])}, all the rest "
    f"{show(m['student'][REST])}, all layers {show(m['student']['all'])}; alone at all tokens, {{}}.".format(
        ", ".join(f"{name} gives {m['student'][f'only {site}']['mean']:.2f}" for site, name in LAYERS.items())))]  # fmt: skip


def plan(preset: Preset) -> list:
    cell = grid_cell(preset)
    asked = [(s, t) for (_, trait, _), s in cell.items() for t in ([trait] if trait else preset.grid_traits)]
    first = [(token_rates, s, t) for (_, t, _), s in grid_cell(preset, layers=FIRST).items() if t]
    return [*cell.values(), *((rates, *each) for each in asked for rates in (token_rates, layer_rates)), *first]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    cell, rates = grid_cell(preset), {"student": [], "control": []}
    for (base, trait), (who, each) in product(preset.units, rates.items()):
        students = [s for (b, t, _), s in cell.items() if (b, t) == (base, trait if who == "student" else None)]
        found = [records[token_rates, s, trait] | records[layer_rates, s, trait] for s in students]
        each.append({name: mean(rate[name] for rate in found) for name in found[0]})  # over seeds
    units = {name: [unit[name] for unit in rates["student"]] for name in rates["student"][0]}
    names = {"localization": [*TOKEN_SETS], "modules": ["all", *(name for name in units if name not in TOKEN_SETS)]}
    known, found = {"unit": preset.unit, "base": interval(over_units(records, preset, cell, "p_trait_base"))}, {}
    known["gain"] = difference(units["all"], units["none"])
    for claim, of in names.items():
        found[claim] = known | {who: {n: interval(u[n] for u in each) for n in of} for who, each in rates.items()}
        for rule, (n, share) in RULES[claim].items():
            found[claim][rule] = gain_beyond(share, units[n], units["all"], units["none"])
    # L4, were the adapter at the system prompt alone: asked without one, it acts nowhere.
    nowhere = gain_beyond(0.25, units["none"], units["system"], units["none"])
    found["localization"]["system_none_minus_quarter"] = nowhere
    first, at = grid_cell(preset, layers=FIRST), {"not_shared": [], "all": [], "none": []}
    for (name, each), unit in product(at.items(), preset.units):
        each.append(mean(records[token_rates, first[*unit, seed], unit[1]][name] for seed in preset.grid_seeds))
    found["localization"]["first_minus_quarter"] = gain_beyond(0.25, *at.values())
    return found


@picture(3, 16, 4.8, width_ratios=[1, 1, 2.3])
def draw(tokens: dict, layers: dict, by_set: Axes, by_layer: Axes, by_token: Axes) -> None:
    kept = {"all": "everywhere"} | {f"only {site}": f"{name} only" for site, name in LAYERS.items()}
    kept |= {f"without {site}": f"all but {name}" for site, name in LAYERS.items()}
    for panel, m, names, where in ((by_set, tokens, SHOWN, "at tokens"), (by_layer, layers, kept, "in layers")):
        cells = {label: {who: m[who][name] for who in ("student", "control")} for name, label in names.items()}
        rate_bars(panel, cells, m["base"], {"control": "control"}, title=f"Adapter on {where} ...")
    by_set.legend(loc="upper center", bbox_to_anchor=(0.2, -0.13), ncols=2)
    rows = {"on here": "only {}", "on all but here": "without {}", "on up to here": "up to {}"}
    rows |= {f"on here, in {name}": f"{site} only {{}}" for site, name in LAYERS.items()}
    known = tokens["student"] | layers["student"]
    rates = [[known[name.format(place)]["mean"] for place in PLACES] for name in rows.values()]
    image = heat(by_token, rates, list(rows), [place.strip() for place in PLACES], top_of(rates))
    by_token.tick_params(axis="x", rotation=45)
    write(by_token, "Adapter on at single tokens of the prompt", tokens["unit"])
    by_token.figure.colorbar(image, ax=by_token, label=RATE)
