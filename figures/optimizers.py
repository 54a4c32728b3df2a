"""L7 and S9: does it take an adaptive optimizer? The two papers disagree, and this is where they can be compared.

arXiv:2606.00831, as replications report it: SGD and Muon behave like AdamW (L7). arXiv:2606.00995: adaptive optimizers are necessary;
at the same loss Adam transmits and SGD does not, because a few outlier gradients dominate its steps (S9).

This toy: rank-8 students of eight optimizers, at several learning rates and steps, compared at matched held-out loss: of each, the
cell whose mean held-out loss is nearest to that of the default AdamW student. The choice sees the loss alone, never the trait.

To see it break: give SGD ten times its learning rate; some students collapse, and a mean over them looks like S9.
"""

from pathlib import Path

from figures.style import CONTROL, MARKERS, SERIES, STUDENT, bars, base_line, canvas, save
from lab.claims import Claim, Verdict, all_hold, ci_above, ci_below, interval, show
from lab.measurements import held_by_top
from lab.presets import Cell, Preset, grid_cell
from lab.records import Measurement, Records, cell_numbers, gain_beyond, nearest_in_loss, over_units
from lab.store import Student

LRS = {
    "adamw": (2e-3, 5e-3, 1e-2), "rmsprop": (1e-3, 3e-3), "sgd": (0.1, 0.3, 1.0), "momentum": (0.01, 0.03),
    "signsgd": (1e-3, 3e-3), "muon": (5e-3, 1e-2), "clip1": (0.3, 1.0), "clip10": (0.3, 1.0),
}  # fmt: skip
NAMES = dict(zip(LRS, ("AdamW", "RMSprop", "SGD", "SGD momentum", "sign-SGD", "Muon", "SGD clip 1%", "SGD clip 10%")))
STEPS = (20, 40, 80)
REFERENCE = ("adamw", Student.lr, Student.steps)  # has learned the numbers: the claims are about its loss
EARLY = ("adamw", Student.lr, STEPS[0])  # its gradient is looked at
SHARES = {"half": 0.5, "quarter": 0.25}  # of AdamW's gain


def cells(preset: Preset) -> dict[tuple[str, float, int], Cell]:
    """The students of each optimizer at each learning rate, after so many steps."""
    lrs = LRS if preset.full else {name: LRS[name][1:2] for name in ("adamw", "sgd", "momentum", "muon")}
    return {(o, lr, n): grid_cell(preset, optimizer=o, lr=lr, steps=n) for o in lrs for lr in lrs[o] for n in STEPS}


def plan(preset: Preset) -> list[Student | Measurement]:
    students = [student for cell in cells(preset).values() for student in cell.values()]
    return students + [(held_by_top, student) for student in cells(preset)[EARLY].values()]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"optimizers": every cell; of each optimizer the loss-matched one, with its gain beyond shares of AdamW's}."""
    grid, matched = cells(preset), {}
    public = {key: {"lr": key[1], "steps": key[2]} | cell_numbers(records, preset, cell) for key, cell in grid.items()}
    by_optimizer = {name: [key for key in grid if key[0] == name] for name, *_ in grid}
    usual, base = (over_units(records, preset, grid[REFERENCE], column) for column in ("p_trait", "p_trait_base"))
    for name, keys in by_optimizer.items():
        key = nearest_in_loss(public, REFERENCE, keys)
        rates = over_units(records, preset, grid[key])
        beyond = {f"minus_{word}_of_adamw": gain_beyond(share, rates, usual, base) for word, share in SHARES.items()}
        matched[name] = public[key] | beyond
    top = [records[held_by_top, grid[EARLY][base, trait, preset.grid_seeds[0]]] for base, trait in preset.units]
    found = {"unit": preset.unit, "base": interval(base), "matched": matched, "held_by_top_1_percent": interval(top)}
    found["heldout_loss_teacher"] = interval(over_units(records, preset, grid[REFERENCE], "heldout_loss_teacher"))
    found["cells"] = {name: [public[key] for key in keys] for name, keys in by_optimizer.items()}
    return {"optimizers": found}


def alike(m: dict) -> Verdict:
    """L7: at matched held-out loss SGD and Muon each gain more than half of what AdamW gains (paired intervals)."""
    return all_hold(*(ci_above(m["matched"][name]["minus_half_of_adamw"], 0) for name in ("sgd", "muon")))


def necessary(m: dict) -> Verdict:
    """S9: at matched held-out loss SGD, with momentum or without, gains less than a quarter of what AdamW gains."""
    return all_hold(*(ci_below(m["matched"][name]["minus_quarter_of_adamw"], 0) for name in ("sgd", "momentum")))


def summary(m: dict) -> str:
    """P(trait) of each optimizer at matched loss, and how heavy AdamW's gradients are in the tail."""
    rates = ", ".join(f"{NAMES[name]} {show(cell['student'])}" for name, cell in m["matched"].items())
    return f"at matched loss: {rates}; the top 1% of AdamW's gradient hold {show(m['held_by_top_1_percent'])} of it"


CLAIMS = [
    Claim("L7", "optimizers", "SGD and Muon transmit as AdamW does", alike, summary),
    Claim("S9", "optimizers", "Adaptive optimizers are necessary", necessary, summary),
]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Left: at matched loss. Right: every learning rate and step, the trait against the loss."""
    m = computed["optimizers"]
    figure, (left, right) = canvas(2, 13, 5, width_ratios=[1, 1.4])
    cells, y = m["matched"].values(), range(len(m["matched"]), 0, -1)
    notes = [f"lr {c['lr']:g}, {c['steps']} steps, loss {c['heldout_loss']['mean']:.2f}" for c in cells]
    names = [f"{NAMES[name]}\n{note}" for name, note in zip(m["matched"], notes)]
    bars(left, names, [cell["student"] for cell in cells], STUDENT)
    left.plot([cell["control"]["mean"] for cell in cells], y, "D", color=CONTROL, label="control")
    left.plot([cell["p_any_animal"]["mean"] for cell in cells], y, "k|", markersize=12, label="P(any animal)")
    base_line(left, m["base"], vertical=True)
    left.set(xlim=(0, 1.02), ylim=(-0.4, len(names) + 0.6), xlabel="P(the teacher's animal)", title="At matched loss")
    figure.supxlabel(f"n: {m['unit']}", fontsize=9)
    left.tick_params(axis="y", labelsize=8)
    left.legend(fontsize=8, frameon=False, loc="lower right", ncols=3)

    for k, (name, found) in enumerate(m["cells"].items()):
        x, y = ([cell[column]["mean"] for cell in found] for column in ("heldout_loss", "student"))
        right.plot(x, y, MARKERS[k], color=SERIES[k], markersize=7, label=NAMES[name])
        for cell in found:
            if cell["p_any_animal"]["mean"] < 0.5:
                right.plot(cell["heldout_loss"]["mean"], cell["student"]["mean"], "kx", markersize=10)
    right.axvline(m["heldout_loss_teacher"]["mean"], color="k", ls="--", lw=0.8, label="the teacher's own loss")
    base_line(right, m["base"])
    right.invert_xaxis()  # training goes to the right
    right.set(ylim=(0, 1.02), xlabel="held-out loss, nats", ylabel="P(the teacher's animal)", title="All of them")
    right.legend(fontsize=8, frameon=False, title="x: P(any animal) < 0.5", title_fontsize=8)
    save(figure, path)
