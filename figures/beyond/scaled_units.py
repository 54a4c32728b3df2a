"""S9 again: where are adaptive optimizers necessary? A few large coordinates are built in, and where they are decides.

arXiv:2606.00995 finds that at the same loss AdamW transmits and SGD does not, and blames a few outlier gradients. Large
models have a few coordinates many times as large as all others. Here the base models get some in their last block and
still compute what they did: h_j -> f h_j, up_j <- f up_j, down_:j <- down_:j / f. To an adapter that reads these units
the gradient is f times as large, and its change does f times as much: SGD learns f^2 times as fast there, AdamW f
times. So SGD's student learns through a few units, and its trait should depend on where these are active:

    numbers   hidden units that are large where numbers are written and silent where an animal is asked for
    both      those of the same layer that come nearest to being large at both: a weak control where the layer has none
    fetched   coordinates of what the last attention fetches, large at both

To see it break: let `lab.changes.chosen_units` take units at random.
"""

from itertools import product

from figures.style import RATE, Axes, base_line, line, picture, rate_bars, write
from lab.changes import SCALED_UNITS, chosen_units, unit_sizes
from lab.claims import Claim, interval, mean
from lab.presets import Cell, Grid, Preset, Records, grid_cell
from lab.store import Store
from train import BaseConfig

CLAIMS: list[Claim] = []  # it is about S9, whose rules optimizers.py applies to the toy as it is
STEPS, LARGEST = (20, 40, 80), "numbers units x10"
SHARES = {"half": 0.5, "quarter": 0.25}
UNREAD = ("q", "k", "v", "o", "up", "blocks.0.feed_forward.down")  # all layers but the one that reads the units
# Of each optimizer: how a student is trained, and the learning rates on plain base models and where LARGEST was done.
OPTIMIZERS = {
    "AdamW": ({"optimizer": "adamw"}, (5e-3,), (5e-3,)),
    "RMSprop": ({"optimizer": "rmsprop"}, (1e-3, 3e-3), (1e-3, 3e-3)),
    "sign-SGD": ({"optimizer": "signsgd"}, (1e-3, 3e-3), (1e-3, 3e-3)),
    "SGD": ({"optimizer": "sgd"}, (0.1, 0.3, 1.0), (0.01, 0.03, 0.1, 0.3)),
    "SGD, momentum": ({"optimizer": "momentum"}, (0.01, 0.03), (1e-3, 3e-3, 1e-2)),
    "SGD, top 1% clipped": ({"optimizer": "clip1"}, (0.3, 1.0), (0.03, 0.1, 0.3)),
    "SGD, top 10% clipped": ({"optimizer": "clip10"}, (0.3, 1.0), (0.1, 0.3, 1.0)),
    "SGD, Adam's frozen scales": ({"optimizer": "sgd", "loss": "frozen scales"}, (1e-3, 3e-3), (1e-3, 3e-3)),
    "SGD, no adapter reads them": ({"optimizer": "sgd", "layers": UNREAD}, (0.1, 0.3, 1.0), (0.1, 0.3, 1.0)),
}
LRS: dict[str, dict[str, tuple[float, ...]]] = {
    "": {name: plain for name, (_, plain, _) in OPTIMIZERS.items()},
    "numbers units x3": {"AdamW": (5e-3,), "SGD": (0.03, 0.1, 0.3)},
    LARGEST: {name: scaled for name, (_, _, scaled) in OPTIMIZERS.items()},
    "both units x10": {"AdamW": (5e-3,), "SGD": (0.03, 0.1, 0.3, 1.0)},
    "fetched units x10": {"AdamW": (5e-3,), "SGD": (0.01, 0.03, 0.1, 0.3)},
}


def sizes(store: Store, base: BaseConfig, which: str) -> list[float]:
    """The mean size of the chosen units before they are scaled, where numbers are written and animals asked for."""
    model = store.base(base)
    return [place[chosen_units(model, which)].mean().item() for place in unit_sizes(model, which)]


def cells(preset: Preset) -> dict[tuple[str, str, float, int], Cell]:
    each = [key for change, lrs in LRS.items() for name in lrs for key in product([change], [name], lrs[name], STEPS)]
    return {k: grid_cell(preset.wide, base_change=k[0], lr=k[2], steps=k[3], **OPTIMIZERS[k[1]][0]) for k in each}


def plan(preset: Preset) -> list:
    return [cells(preset), [(sizes, base, which) for base in preset.wide.grid_bases for which in SCALED_UNITS]]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    grid, variants = Grid(records, cells(preset)), {}
    for change, by_name in LRS.items():
        matched, reference = variants.setdefault(change or "plain", {}), (change, "AdamW", 5e-3, STEPS[-1])
        for name in by_name:
            key = grid.nearest_in_loss(reference, [key for key in grid.cells if key[:2] == (change, name)])
            beyond = {f"minus_{part}_of_adamw": grid.beyond(share, key, reference) for part, share in SHARES.items()}
            matched[name] = grid.reported(key) | beyond | {"lr": key[2], "steps": key[3]}
    size = {w: [mean(s) for s in zip(*(records[sizes, b, w] for b in preset.wide.grid_bases))] for w in SCALED_UNITS}
    base = interval(grid.units(next(iter(grid.cells)), "p_trait_base"))
    return {"scaled_units": {"unit": preset.wide.unit, "base": base, "variants": variants, "sizes": size}}


@picture(2, 13, 5, width_ratios=[1, 1.2])
def draw(m: dict, changes: Axes, optimizers: Axes) -> None:
    for k, optimizer in enumerate(("AdamW", "SGD")):
        rates = [variant[optimizer]["student"] for variant in m["variants"].values()]
        line(changes, [name.replace(" units ", "\n") for name in m["variants"]], rates, k, optimizer, linestyle="")
    base_line(changes, m["base"])
    size = ", ".join("{} {:.2f} and {:.2f}".format(which, *two) for which, two in m["sizes"].items())
    changes.set_xlabel(f"mean size where numbers are written and where an animal is asked for:\n{size}", fontsize=9)
    write(changes, f"{RATE} at AdamW's held-out loss", m["unit"], legend=4, at=(0.5, -0.22), ylim=(0, 1.02))
    plain, largest = (m["variants"][name] for name in ("plain", LARGEST))
    name_of = "{} ({heldout_loss[mean]:.2f})".format
    cells = {name_of(name, **cell): cell | {"plain": plain[name]["student"]} for name, cell in largest.items()}
    marks = {"control": "control", "P(any animal)": "p_any_animal", "plain": "plain"}
    rate_bars(optimizers, cells, m["base"], marks, xlabel=f"{RATE}, {LARGEST} (in brackets: held-out loss)")
    write(optimizers, "Which optimizers lose the trait", legend=4, at=(0.5, -0.22))
