"""X6: defences. What keeps a student from its teacher's trait, and what it costs of the numbers.

A student that learns less has lost the lesson, not only the trait. So every defence is set against the plainest one, to
stop early: the student without a defence, step by step, is a curve of the trait against the held-out loss. A defence
helps by as much as its students' trait lies below that curve at the same held-out loss. To see it break: leave
`.detach()` out of `lab.losses.without_vector`.

    clean rows       a share of the rows is replaced by rows of the unprompted base
    rewritten        another base model answers the requests: one that has read the teacher's rows, or one that has not
    without v        the gradient has no component along v_teacher: descent cannot push the stream there
"""

from itertools import pairwise, product

from figures.style import CONTROL, FULL, RATE, SERIES, Axes, bars, base_line, errors, picture, write
from lab.changes import CARRIERS, ROWS, rewriter
from lab.claims import Claim, all_hold, ci_above, ci_below, interval, mean, show
from lab.losses import WITHOUT
from lab.presets import Cell, Grid, Preset, Records, difference, grid_cell
from metrics import gap_closed

NONE, STEPS = "no defence", (3, 5, 7, 10, 14, 20, 30, 40, 60, 80)  # close enough to draw lines between them
END = (NONE, 80)
CHANGES = {name: "rows_change" for name in ROWS if name not in CARRIERS} | dict.fromkeys(WITHOUT, "loss")
CLAIMS = [Claim("X6", "defences", "A defence removes the trait and keeps the numbers",
    seen=lambda m: ci_below(m["chosen"]["gain_minus_quarter"], 0),
    survives=lambda m: all_hold(ci_below(m["chosen"]["loss_minus_80"], 0), ci_above(m["chosen"]["p_any_animal"], 0.9)),
    why=lambda m: "The best that keeps animals and 80% of the gain in loss is {defence}: students have {student}, without a "
    "defence {no_defence}; P(any animal) is {p_any_animal}, the loss {loss_minus_80} nats from what 80% would leave.".format(
        **{name: n if name == "defence" else show(n) for name, n in m["chosen"].items()}))]  # fmt: skip


def cells(preset: Preset) -> dict[tuple[str, int], Cell]:
    found = {(NONE, step): grid_cell(preset, steps=step) for step in STEPS}
    changed = product(CHANGES.items(), (20, 40, 80))
    return found | {(n, step): grid_cell(preset, steps=step, **{field: n}) for (n, field), step in changed}


def plan(preset: Preset) -> list:
    return [cells(preset), [rewriter(student) for student in grid_cell(preset).values()]]


def early_stopped(curve: list[tuple[float, float]], loss: float) -> float:
    """The trait without a defence when it first has that loss: linear between the (loss, trait) of its curve."""
    for (above, before), (below, after) in pairwise(curve):
        if below <= loss <= above:
            return before + (after - before) * (above - loss) / (above - below)
    return curve[0][1] if loss > curve[0][0] else curve[-1][1]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    grid, each = Grid(records, cells(preset)), {}
    before, after, base = (grid.units(END, name) for name in ("heldout_loss_base", "heldout_loss", "p_trait_base"))
    path = [zip(*(grid.units((NONE, step), name) for name in ("heldout_loss", "p_trait"))) for step in STEPS]
    curves = list(zip(zip(before, base), *path))
    for name, step in grid.cells:
        losses = grid.units((name, step), "heldout_loss")
        below = difference(map(early_stopped, curves, losses), grid.units((name, step)))
        own = {"share_of_loss": interval(map(gap_closed, losses, before, after)), "below_early_stopping": below}
        each.setdefault(name, {})[str(step)] = grid.reported((name, step)) | own
    defences = [at for at in grid.cells if at != END]
    intact = [at for at in defences if mean(grid.units(at, "p_any_animal", grid.choose)) > 0.9]
    good = [at for at in intact if grid.beyond(0.8, at, END, grid.choose, "heldout_loss")["mean"] < 0]
    best = min(good or defences, key=lambda at: mean(grid.units(at, seeds=grid.choose)))
    shown = {"student": (best, "p_trait"), "no_defence": (END, "p_trait"), "p_any_animal": (best, "p_any_animal")}
    chosen = {name: interval(grid.units(*at, grid.test)) for name, at in shown.items()}
    chosen |= {"defence": f"{best[0]}, step {best[1]}", "gain_minus_quarter": grid.beyond(0.25, best, END, grid.test)}
    chosen["loss_minus_80"] = grid.beyond(0.8, best, END, grid.test, "heldout_loss")
    return {"defences": {"unit": preset.unit, "base": interval(base), "each": each, "chosen": chosen}}


@picture(2, 13, 5.4, width_ratios=[1.25, 1])
def draw(m: dict, plane: Axes, beyond: Axes) -> None:
    x, y = ([cell[what]["mean"] for cell in m["each"][NONE].values()] for what in ("share_of_loss", "student"))
    plane.plot([0, *x], [m["base"]["mean"], *y], "-", color="#666666", marker=".", label="no defence, step by step")
    ends = {name: list(steps.values())[-1] for name, steps in m["each"].items() if name != NONE}
    for k, cell in enumerate(ends.values(), 1):
        at, color = (cell["share_of_loss"]["mean"], cell["student"]["mean"]), SERIES[k % 6]
        if cell["p_any_animal"]["mean"] < 0.5:
            plane.plot(*at, "x", color=color)  # collapsed: no defence, wherever it is
        else:
            spread = errors([cell["student"]]), errors([cell["share_of_loss"]])
            plane.errorbar(*at, *spread, fmt=".", color=color)
        plane.annotate(k, at, (3, 3), textcoords="offset points", color=color)
    plane.fill_between([0.8, 1.1], 0, 0.75 * m["base"]["mean"] + 0.25 * y[-1], color=CONTROL, alpha=0.2, label="goal")
    base_line(plane, m["base"])
    label = f"share of the gain in held-out loss without a defence\n(n: {m['unit']})"
    title = "Does a defence reach the goal? (x: collapsed)"
    write(plane, title, legend="upper left", xlim=(-0.05, 1.1), ylim=(0, 1), xlabel=label, ylabel=RATE)
    names = [f"{name}: {k}" for k, name in enumerate(ends, 1)]
    bars(beyond, names, [cell["below_early_stopping"] for cell in ends.values()], FULL)
    write(beyond, "Is it better than stopping early?", xlabel="trait removed beyond stopping at the same loss")
