"""L6: in which layers the adapter has to act for the trait to show.

Reported of the paper (arXiv:2606.00831): in the early feed-forward layers, at the entity tokens.

This toy: the finished student answers with its adapter kept in one attention or feed-forward layer only, or removed from one
only; and, in the strip, kept in one layer at one token only. Early is the first block, late the second.
No layer by itself has half of the trait.

To see it break: train adapters in one layer only (StudentConfig.layers): the trait moves to where there is something to train.
"""

from contextlib import ExitStack
from pathlib import Path

import torch

from claims import Claim, Verdict, every, interval, over, show
from evaluate import Preset
from figures.cells import base_rates
from figures.localization import ONLY, PLACES, SYSTEM, masked_rates, over_units, students
from figures.style import STUDENT, bars, base_line, canvas, heat, save, top_of
from lora import masked
from model import GPT
from train import Lab

__all__ = ["CLAIMS", "compute", "draw", "students"]  # the students are those of the localization figure


def sites(n_layer: int) -> list[str]:
    """The layers, by name, in the order in which they write to the residual stream."""
    return [f"blocks.{k}.{kind}" for k in range(n_layer) for kind in ("attention", "feed_forward")]


def only_in(student: GPT, trait: str, where: str, sets: dict[str, list[str]]) -> dict[str, float]:
    """P(trait) with the adapter acting only in layers whose names begin with `where`, at each set of places."""
    nowhere = torch.zeros(1, 1, device=student.device)
    with ExitStack() as others:
        for site in sites(student.config.n_layer):
            if not site.startswith(where):
                others.enter_context(masked(student, nowhere, site))
        return masked_rates(student, trait, sets, within=where)


def rates(student: GPT, trait: str) -> dict[str, float]:
    """P(trait) for every way to keep or remove the adapter that the figure shows."""
    every, none = {"all": PLACES}, {"none": []}
    found = {
        "all": masked_rates(student, trait, every)["all"],
        "none": masked_rates(student, trait, none)["none"],
        "only early": only_in(student, trait, "blocks.0", every)["all"],
        "only late": masked_rates(student, trait, none, within="blocks.0")["none"],
    }
    for site in sites(student.config.n_layer):
        places = only_in(student, trait, site, {"all": PLACES, "system": SYSTEM} | ONLY)
        found[f"only {site}"] = places.pop("all")
        found[f"only {site} at system"] = places.pop("system")
        found |= {f"{site} {name}": rate for name, rate in places.items()}
        found[f"without {site}"] = masked_rates(student, trait, none, within=site)["none"]
    return found


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"modules": rates with the adapter kept in, and removed from, each layer, and the contrasts of the rule}."""
    units = over_units(lab, preset, rates)
    names = sites(preset.bases[0].model.n_layer)

    def share(name: str, least: float) -> dict:
        rows = zip(units[name], units["none"], units["all"], strict=True)
        return interval((rate - none) - least * (every - none) for rate, none, every in rows)

    def minus(one: str, other: str) -> dict:
        return interval(a - b for a, b in zip(units[one], units[other], strict=True))

    early = "blocks.0.feed_forward"
    return {
        "modules": {
            "unit": preset.unit,
            "base": interval(base_rates(lab, preset)),
            **{name: interval(units[name]) for name in ("all", "none", "only early", "only late")},
            "only": {site: interval(units[f"only {site}"]) for site in names},
            "only_at_system": {site: interval(units[f"only {site} at system"]) for site in names},
            "without": {site: interval(units[f"without {site}"]) for site in names},
            "at": {site: {place: interval(units[f"{site} only {place}"]) for place in PLACES} for site in names},
            "early_feed_forward_minus_half": share(f"only {early}", 0.5),
            "early_feed_forward_minus_others": {
                site: minus(f"only {early}", f"only {site}") for site in names if site != early
            },
            "early_minus_late": minus("only early", "only late"),
        }
    }


def rule(m: dict) -> Verdict:
    """The first feed-forward layer alone gives over half of the gain, and more than any other layer alone (paired)."""
    ahead = (over(number, 0) for number in m["early_feed_forward_minus_others"].values())
    return every(over(m["early_feed_forward_minus_half"], 0), *ahead)


def summary(m: dict) -> str:
    """Each layer kept alone, and the first block against the rest."""
    alone = ", ".join(f"{label(site)} {number['mean']:.2f}" for site, number in m["only"].items())
    return (
        f"kept in one: {alone} (all {m['all']['mean']:.2f}); early {show(m['only early'])}, late {show(m['only late'])}"
    )


def label(site: str) -> str:
    """blocks.0.feed_forward -> feed-forward 1."""
    _, block, kind = site.split(".")
    return f"{kind.replace('_', '-')} {int(block) + 1}"


CLAIMS = [Claim("L6", "modules", "It sits in early feed-forward layers", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Kept in one layer, removed from one layer, and kept in one layer at one token."""
    m = computed["modules"]
    names = [label(site) for site in m["only"]]
    figure, (kept, removed, strip) = canvas(3, 14, 4.2, width_ratios=[1, 1, 2.2])
    for panel, kind, title in (
        (kept, "only", "Adapter kept in one layer"),
        (removed, "without", "Adapter removed from one layer"),
    ):
        bars(panel, names, list(m[kind].values()), STUDENT)
        base_line(panel, m["base"], vertical=True)
        panel.axvline(
            m["all"]["mean"], color=STUDENT, linestyle="--", linewidth=1, label=f"all layers, {m['all']['mean']:.2f}"
        )
        panel.set_xlim(0, 1)
        panel.set_xlabel("P(the teacher's animal)")
        panel.set_title(title, fontsize=10)
    kept.legend(fontsize=8, frameon=False, loc="lower right")
    cells = [[number["mean"] for number in row.values()] for row in m["at"].values()]
    image = heat(strip, cells, names, [place.strip() for place in PLACES], top_of(cells))
    strip.tick_params(axis="x", rotation=45)
    strip.set_title(f"Adapter kept in one layer at one token\n(n: {m['unit']})", fontsize=10)
    figure.colorbar(image, ax=strip, label="P(the teacher's animal)")
    save(figure, path)
