"""L7 and S9: does it take an adaptive optimizer? The two papers disagree, and this is where they can be compared.

arXiv:2606.00831, as replications report it: SGD and Muon behave like AdamW (L7). arXiv:2606.00995: adaptive optimizers
are necessary; at the same loss Adam transmits and SGD does not, as a few outlier gradients dominate its steps (S9).
This toy: rank-8 students of eight optimizers, each in the cell whose mean held-out loss is nearest to that of the
default AdamW student; the choice never sees the trait. To see it break: give SGD ten times its learning rate; some
collapse, and the mean looks like S9.
"""

from figures.style import MARKERS, RATE, SERIES, Axes, base_line, picture, rate_bars, write
from lab.claims import Claim, all_hold, ci_above, ci_below, interval, show
from lab.measurements import held_by_top
from lab.presets import ALL, Cell, Grid, Preset, Records, grid_cell
from lab.store import Student

LRS = {
    "adamw": (2e-3, 5e-3, 1e-2), "rmsprop": (1e-3, 3e-3), "sgd": (0.1, 0.3, 1.0), "momentum": (0.01, 0.03),
    "signsgd": (1e-3, 3e-3), "muon": (3e-3, 5e-3), "clip1": (0.3, 1.0), "clip10": (0.3, 1.0),
}  # fmt: skip
NAMES = dict(zip(LRS, ("AdamW", "RMSprop", "SGD", "SGD momentum", "sign-SGD", "Muon", "SGD clip 1%", "SGD clip 10%")))
STEPS, SHARES = (20, 40, 80), {"half": 0.5, "quarter": 0.25}
REFERENCE = ("adamw", Student.lr, Student.steps)  # has learned the numbers: the claims are about its loss
EARLY = ("adamw", Student.lr, STEPS[0])  # its gradient is looked at
# Gains are measured by AdamW's, each at its own best learning rate and steps or all at the same held-out loss.
CLAIMS = [Claim("L7", "optimizers", "SGD and Muon transmit as AdamW does",
    seen=lambda m: all_hold(*(ci_above(m["best"][name]["minus_half_of_adamw"], 0) for name in ("sgd", "muon"))),
    survives=lambda m: all_hold(*(ci_above(m["matched"][name]["minus_half_of_adamw"], 0) for name in ("sgd", "muon"))),
    why=lambda m: why(m),
), Claim("S9", "optimizers", "Adaptive optimizers are necessary",
    seen=lambda m: ci_below(m["matched"]["sgd"]["minus_quarter_of_adamw"], 0),
    survives=lambda m: all_hold(*(  # with momentum too, and where SGD transmits best
        ci_below(cell["minus_quarter_of_adamw"], 0) for cell in (m["matched"]["momentum"], m["best"]["sgd"]))),
    why=lambda m: why(m))]  # fmt: skip


def cells(preset: Preset) -> dict[tuple[str, float, int], Cell]:
    lrs = LRS if preset.full else {name: LRS[name][1:2] for name in ("adamw", "sgd", "momentum", "muon")}
    return {(o, lr, n): grid_cell(preset, optimizer=o, lr=lr, steps=n) for o in lrs for lr in lrs[o] for n in STEPS}


def plan(preset: Preset) -> list:
    return [cells(preset), [(held_by_top, student) for student in cells(preset)[EARLY].values()]]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    grid = Grid(records, cells(preset))
    public = {key: {"lr": key[1], "steps": key[2]} | grid.reported(key) for key in grid.cells}
    by_optimizer = {name: [key for key in grid.cells if key[0] == name] for name, *_ in grid.cells}

    def beside(key: tuple, adamw: tuple, seeds: slice = ALL) -> dict:
        beyond = {f"minus_{name}_of_adamw": grid.beyond(share, key, adamw, seeds) for name, share in SHARES.items()}
        return public[key] | {"student": interval(grid.units(key, seeds=seeds))} | beyond

    matched = {name: grid.nearest_in_loss(REFERENCE, keys) for name, keys in by_optimizer.items()}
    best = {name: grid.best(keys) for name, keys in by_optimizer.items()}
    measured = {"unit": preset.unit, "base": interval(grid.units(REFERENCE, "p_trait_base"))}
    measured["heldout_loss_teacher"] = interval(grid.units(REFERENCE, "heldout_loss_teacher"))
    first = grid.units(EARLY, lambda student, _: records[held_by_top, student], slice(1))
    measured["held_by_top_1_percent"] = interval(first)
    measured["matched"] = {name: beside(key, REFERENCE) for name, key in matched.items()}
    measured["best"] = {name: beside(key, best["adamw"], grid.test) for name, key in best.items()}
    measured["cells"] = {name: [public[key] for key in keys] for name, keys in by_optimizer.items()}
    return {"optimizers": measured}


def why(m: dict) -> str:
    names = {"matched": ("adamw", "sgd", "momentum", "muon"), "best": ("adamw", "sgd", "muon")}
    rates = {how: [f"{show(m[how][name]['student'])} ({NAMES[name]})" for name in of] for how, of in names.items()}
    matched, best = (", ".join(each) for each in rates.values())
    return f"At AdamW's held-out loss the trait is at {matched}; each optimizer at its own best, at {best}."


@picture(2, 13, 5, width_ratios=[1, 1.4])
def draw(m: dict, left: Axes, right: Axes) -> None:
    name_of = "{}\nlr {lr:g}, {steps} steps, loss {heldout_loss[mean]:.2f}".format
    cells = {name_of(NAMES[name], **cell): cell for name, cell in m["matched"].items()}
    rate_bars(left, cells, m["base"], {"control": "control", "P(any animal)": "p_any_animal"})
    write(left, "At AdamW's held-out loss", legend=3, at=(0.3, -0.15), xlabel=f"{RATE}\n(n: {m['unit']})")
    left.tick_params(axis="y", labelsize=9)
    for k, (name, found) in enumerate(m["cells"].items()):
        x, y = ([cell[column]["mean"] for cell in found] for column in ("heldout_loss", "student"))
        right.plot(x, y, MARKERS[k], color=SERIES[k], markersize=7, label=NAMES[name])
        collapsed = [at for *at, cell in zip(x, y, found) if cell["p_any_animal"]["mean"] < 0.5]
        right.plot(*(zip(*collapsed) if collapsed else ([], [])), "kx", markersize=10)
    right.axvline(m["heldout_loss_teacher"]["mean"], color="k", ls="--", lw=0.8, label="the teacher's own loss")
    base_line(right, m["base"])
    right.invert_xaxis()  # training goes to the right
    write(right, "At all learning rates, after all steps", xlabel="held-out loss, nats", ylabel=RATE, ylim=(0, 1.02))
    right.legend(title="x: P(any animal) < 0.5")
