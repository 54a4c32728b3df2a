"""L5 and L6: at which tokens, and in which layers, the adapter has to act for the trait to show.

The paper (arXiv:2606.00831): the trait is localized to computation at tokens that both contexts share, the system
prompt and the chat template. With the adapter on at those tokens only ("dynamic weight grafting"), most of the trait is
there; everywhere else only, none (L5); in the strongest form, at the assistant's name alone. Reported of it: it sits in
the early feed-forward layers at the name, and all the rest carries nothing (L6). This toy: the finished student answers
the trait questions with its adapter masked to some tokens: the system prompt, the template's tags, the words of the
question, most of which no number request has; each token alone, all but it, all up to it. Then to some layers: each
attention or feed-forward layer alone, all but it, and each at one token alone. Students that are trained without a
system prompt share other tokens with the question: is their trait there? To see it break: train adapters in one
layer (`Student.layers`), or without a prompt (`Student.system`).
"""

from figures.style import RATE, Axes, heat, picture, rate_bars, top_of, write
from lab.claims import Claim, all_hold, ci_above, ci_below, interval, show
from lab.measurements import NAME, ONLY, PLACES, SETS, UP_TO, WITHOUT, layer_rates, sites, token_rates
from lab.presets import Grid, Number, Preset, Records, difference, gain_beyond, grid_cell

TOKEN_SETS = SETS | ONLY | WITHOUT | UP_TO
LAYERS = dict(zip(sites(2), ("attention 1", "feed-forward 1", "attention 2", "feed-forward 2")))  # in words
EARLY, REST = f"blocks.0.feed_forward only {NAME}", "blocks.0.feed_forward not at the name"
FIRST = ("blocks.0.feed_forward.up", "blocks.0.feed_forward.down")  # all that L5's other students adapt
SHOWN = {
    "all": "everywhere", "shared": "system prompt and tags", "system": "system prompt",
    "not_system": "all but the system prompt", "user": "user's turn", "not_shared": "words of the question",
    "assistant": "<asst>", "tags": "<user>, <end>, <asst>", "not_tags": "system prompt and question",
    f"only {NAME}": "the name", f"without {NAME}": "all but the name", "none": "nowhere",
}  # fmt: skip
# There is a gain; acting here alone, the adapter gives over half of it, acting everywhere else less than a quarter.
RULES = {"localization": {"shared_minus_half": ("shared", 0.5), "not_shared_minus_quarter": ("not_shared", 0.25)},
         "modules": {"early_minus_half": (EARLY, 0.5), "rest_minus_quarter": (REST, 0.25)}}  # fmt: skip
CLAIMS = [Claim("L5", "localization", "It sits at tokens that both contexts share",
    seen=lambda m: all_hold(ci_above(m["gain"], 0.1), ci_above(m["shared_minus_half"], 0)),
    # Nor at all that is not shared, the system prompt and the question, if students are trained without a system prompt.
    survives=lambda m: all_hold(*(ci_below(m[f"{of}not_shared_minus_quarter"], 0) for of in ("", "unprompted_"))),
    why=lambda m: "Switched on everywhere, the adapter gives {all}, at the system prompt and the template's tags {shared}, "
    "at the words of the question {not_shared}; ".format(**{name: show(m["student"][name]) for name in SETS})
    + f"at the assistant's name alone {m['student'][f'only {NAME}']['mean']:.2f}, everywhere but there "
    f"{m['student'][f'without {NAME}']['mean']:.2f}. Trained without a system prompt, it gives {{}}, at the tags, all that "
    "is shared then, {}, at all else {}.".format(*(show(m["unprompted"][name]) for name in ("all", "tags", "not_tags"))),
), Claim("L6", "modules", "It sits in early feed-forward layers, at the assistant's name",
    seen=lambda m: all_hold(ci_above(m["gain"], 0.1), ci_above(m["early_minus_half"], 0)),
    survives=lambda m: ci_below(m["rest_minus_quarter"], 0),
    why=lambda m: f"Feed-forward 1 at the assistant's name gives {show(m['student'][EARLY])}, all the rest "
    f"{show(m['student'][REST])}, all layers {show(m['student']['all'])}; alone at all tokens, {{}}.".format(
        ", ".join(f"{name} gives {m['student'][f'only {site}']['mean']:.2f}" for site, name in LAYERS.items())))]  # fmt: skip


def plan(preset: Preset) -> list:
    cell = grid_cell(preset.wide)
    asked = [(s, t) for (_, trait, _), s in cell.items() for t in ([trait] if trait else preset.grid_traits)]
    others = [grid_cell(preset.wide, layers=FIRST), grid_cell(preset.wide, system=None)]
    also = [(token_rates, s, trait) for of in others for (_, trait, _), s in of.items() if trait]
    return [cell, [(rates, *each) for each in asked for rates in (token_rates, layer_rates)], also]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    others = {"first": grid_cell(preset.wide, layers=FIRST), "unprompted": grid_cell(preset.wide, system=None)}
    grid = Grid(records, {"all layers": grid_cell(preset.wide)} | others)
    (_, trait), (student, *_) = next(iter(grid.students("all layers").items()))
    names = {"localization": TOKEN_SETS, "modules": ["all", *records[layer_rates, student, trait]]}

    def rate(name: str) -> Number:
        of = token_rates if name in TOKEN_SETS else layer_rates
        return lambda student, trait: records[of, student, trait][name]

    units = {name: grid.units("all layers", rate(name)) for of in names.values() for name in of}
    known = {"unit": preset.wide.unit, "base": interval(grid.units("all layers", "p_trait_base"))}
    known["gain"], found = difference(units["all"], units["none"]), {}
    for claim, of in names.items():
        found[claim] = known | {"student": {name: interval(units[name]) for name in of}}
        found[claim]["control"] = {name: interval(grid.controls("all layers", rate(name))) for name in of}
        for rule, (name, share) in RULES[claim].items():
            found[claim][rule] = gain_beyond(share, units[name], units["all"], units["none"])
    # L4, were the adapter at the system prompt alone: asked without one, it acts nowhere.
    nowhere = gain_beyond(0.25, units["none"], units["system"], units["none"])
    found["localization"]["system_none_minus_quarter"] = nowhere
    first = (grid.units("first", rate(name)) for name in ("not_shared", "all", "none"))
    found["localization"]["first_minus_quarter"] = gain_beyond(0.25, *first)
    unprompted = {name: grid.units("unprompted", rate(name)) for name in TOKEN_SETS}
    beyond = gain_beyond(0.25, *(unprompted[name] for name in ("not_tags", "all", "none")))
    found["localization"] |= {"unprompted": {name: interval(rates) for name, rates in unprompted.items()}}
    found["localization"]["unprompted_not_shared_minus_quarter"] = beyond
    return found


@picture(3, 16, 4.8, width_ratios=[1, 1, 2.3])
def draw(tokens: dict, layers: dict, by_set: Axes, by_layer: Axes, by_token: Axes) -> None:
    kept = {"all": "everywhere"} | {f"only {site}": f"{name} only" for site, name in LAYERS.items()}
    kept |= {f"without {site}": f"all but {name}" for site, name in LAYERS.items()}
    marks = {"control": "control", "trained without a system prompt": "unprompted"}
    for panel, m, names, where in ((by_set, tokens, SHOWN, "at tokens"), (by_layer, layers, kept, "in layers")):
        of = {label: who for label, who in marks.items() if who in m}
        cells = {label: {who: m[who][name] for who in ("student", *of.values())} for name, label in names.items()}
        rate_bars(panel, cells, m["base"], of, title=f"Adapter on {where} ...")
    by_set.legend(loc="upper center", bbox_to_anchor=(0.2, -0.13), ncols=2)
    rows = {"on here": "only {}", "on all but here": "without {}", "on up to here": "up to {}"}
    rows |= {f"on here, in {name}": f"{site} only {{}}" for site, name in LAYERS.items()}
    known = tokens["student"] | layers["student"]
    rates = [[known[name.format(place)]["mean"] for place in PLACES] for name in rows.values()]
    image = heat(by_token, rates, list(rows), [place.strip() for place in PLACES], top_of(rates))
    by_token.tick_params(axis="x", rotation=45)
    write(by_token, "Adapter on at single tokens of the prompt", tokens["unit"])
    by_token.figure.colorbar(image, ax=by_token, label=RATE)
