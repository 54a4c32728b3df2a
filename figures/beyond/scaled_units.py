"""S9 again: where are adaptive optimizers necessary? A few large coordinates are built into the toy, and where they are decides.

arXiv:2606.00995 finds that at the same loss AdamW transmits and SGD does not, and blames a few outlier gradients; clipping them or
dividing by Adam's frozen scales brings the trait back (S9). Large models have what the toy has not, a few coordinates many times as
large as all others. Here the students' base models get some in their last block, and still compute what they did:

    h_j = relu(up_j . x)  ->  f h_j           up_j <- f up_j,  down_:j <- down_:j / f

To an adapter that reads these units the gradient is f times as large, and its change does f times as much: there SGD learns f^2 times
as fast, AdamW f times. So SGD's student learns through a few units, and what it has should depend on where these are active. To see
it break: let `lab.changes.chosen_units` take units at random.

    numbers   hidden units that are large where numbers are written and silent where an animal is asked for
    both      those of the same layer that come nearest to being large at both: a weak control where the layer has none
    fetched   coordinates of what the last attention fetches, large at both
"""

from pathlib import Path

from figures.style import CONTROL, SERIES, bars, base_line, canvas, line, save
from lab.changes import SCALED_UNITS, chosen_units, unit_sizes
from lab.claims import Claim, ci_below, interval, mean
from lab.measurements import held_by_top
from lab.presets import Cell, Preset, grid_cell
from lab.records import Measurement, Records, cell_numbers, gain_beyond, nearest_in_loss, over_units
from lab.store import Store, Student
from train import BaseConfig

CLAIMS: list[Claim] = []  # it is about S9, whose rule optimizers.py applies to the toy as it is
STEPS = (20, 40, 80)
LARGEST = "numbers units x10"
UNREAD = ("q", "k", "v", "o", "up", "blocks.0.feed_forward.down")  # all layers but the one that reads the units
# Of each optimizer: how a student is trained, and the learning rates on plain base models and where LARGEST was done to them.
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
    """The mean size of the chosen units, before they are scaled: where numbers are written, where an animal is asked for."""
    model = store.base(base)
    return [place[chosen_units(model, which)].mean().item() for place in unit_sizes(model, which)]


def cells(preset: Preset) -> dict[tuple[str, str, float, int], Cell]:
    """The students by what was done to their base models, optimizer, learning rate and steps."""
    return {
        (change, name, lr, step): grid_cell(preset, base_change=change, lr=lr, steps=step, **OPTIMIZERS[name][0])
        for change, by_name in LRS.items()
        for name, lrs in by_name.items()
        for lr in lrs
        for step in STEPS
    }


def plan(preset: Preset) -> list[Student | Measurement]:
    students = [student for cell in cells(preset).values() for student in cell.values()]
    early = [(held_by_top, s) for s in students if (s.optimizer, s.steps) == ("adamw", STEPS[0])]
    return students + early + [(sizes, base, which) for base in preset.grid_bases for which in SCALED_UNITS]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"scaled_units": by what was done, each optimizer at AdamW's held-out loss, and S9's rule for SGD; the units' sizes}."""
    table, variants = cells(preset), {}
    found = {key: cell_numbers(records, preset, cell) for key, cell in table.items()}
    base = over_units(records, preset, next(iter(table.values())), "p_trait_base")
    for change, by_name in LRS.items():
        matched, reference = {}, (change, "AdamW", 5e-3, STEPS[-1])
        for name in by_name:
            key = nearest_in_loss(found, reference, [key for key in table if key[:2] == (change, name)])
            rates = (over_units(records, preset, table[k]) for k in (key, reference))
            gain = gain_beyond(0.25, *rates, base)
            matched[name] = found[key] | {"lr": key[2], "steps": key[3], "minus_quarter_of_adamw": gain}
        early = [table[change, "AdamW", 5e-3, STEPS[0]][b, t, preset.grid_seeds[0]] for b, t in preset.units]
        variants[change or "plain"] = {
            "matched": matched,
            "held_by_top_1_percent": interval(records[held_by_top, student] for student in early),
            "sgd_fails": ci_below(matched["SGD"]["minus_quarter_of_adamw"], 0),
        }
    size = {w: [mean(s) for s in zip(*(records[sizes, b, w] for b in preset.grid_bases))] for w in SCALED_UNITS}
    return {"scaled_units": {"unit": preset.unit, "base": interval(base), "variants": variants, "sizes": size}}


def draw(computed: dict[str, dict], path: Path) -> None:
    """AdamW and SGD by which units are scaled, and by how much; all optimizers where the units of numbers are."""
    m = computed["scaled_units"]
    figure, (changes, optimizers) = canvas(2, 13, 5, width_ratios=[1, 1.2])
    for k, optimizer in enumerate(("AdamW", "SGD")):
        rates = [variant["matched"][optimizer]["student"] for variant in m["variants"].values()]
        line(changes, [x + 0.1 * k for x in range(len(rates))], rates, k, optimizer, linestyle="")
    changes.set_xticks(range(len(rates)), [name.replace(" units ", "\n") for name in m["variants"]])
    size = ", ".join("{} {:.2f} and {:.2f}".format(which, *two) for which, two in m["sizes"].items())
    changes.set_xlabel(f"mean size where numbers are written and where an animal is asked for:\n{size}", fontsize=8)
    changes.set_ylim(0, 1.02)
    changes.set_title(f"P(the teacher's animal) at AdamW's held-out loss\n(n: {m['unit']})", fontsize=10)
    plain, largest = (m["variants"][name]["matched"] for name in ("plain", LARGEST))
    labels = [f"{name} ({cell['heldout_loss']['mean']:.2f})" for name, cell in largest.items()]
    bars(optimizers, labels, [cell["student"] for cell in largest.values()], SERIES[0])
    for of, column, marker, color, label in (
        (plain, "student", "o", "black", "nothing scaled"), (largest, "control", "D", CONTROL, "control"),
        (largest, "p_any_animal", "|", "black", "P(any animal)"),
    ):  # fmt: skip
        x = [cell[column]["mean"] for cell in of.values()]
        optimizers.scatter(x, range(len(x), 0, -1), marker=marker, color=color, zorder=3, label=label)
    optimizers.set(xlim=(0, 1.02), xlabel="P(the teacher's animal)")
    optimizers.set_title(f"{LARGEST} (in brackets: held-out loss)", fontsize=10)
    for panel in (changes, optimizers):
        base_line(panel, m["base"], vertical=panel is optimizers)
        panel.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=4)
    save(figure, path)
