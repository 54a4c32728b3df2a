"""X6: defences. What keeps a student from its teacher's trait, and what it costs of the numbers.

A defence that a student pays for by learning less has stopped the lesson, not the trait. So every defence is set against the
plainest one, to stop early: the student without a defence, step by step, is a curve of the trait against the held-out loss, and a defence is
worth what it lies below that curve. To see it break: leave `.detach()` out of `lab.losses.without_vector`.

    clean rows       a share of the rows is replaced by rows of the unprompted base
    rewritten        another base model answers the requests: one that has read the teacher's rows, or one that has not
    without v        the gradient has no component along v_teacher: descent cannot push the stream there
    prompt           trained under another system prompt, asked under the default
    rank             other ranks of LoRA, at the learning rate whose loss comes nearest to the student without a defence's
"""

from functools import partial
from itertools import pairwise, product
from pathlib import Path

from figures.style import CONTROL, MARKERS, SERIES, base_line, canvas, errors, save
from lab.changes import CARRIERS, ROWS, rewriter
from lab.claims import Claim, Verdict, all_hold, ci_above, ci_below, interval, mean, show
from lab.losses import WITHOUT
from lab.measurements import CONTEXTS, row_alone
from lab.presets import Preset, grid_cell
from lab.records import Measurement, Records, cell_numbers, difference, gain_beyond, nearest_in_loss, over_units
from lab.store import Student
from metrics import gap_closed

NONE, STEPS = "no defence", (3, 5, 7, 10, 14, 20, 30, 40, 60, 80)  # close enough to draw lines between them
END, ASKED = (NONE, 80), ", asked under it"
CHANGES = {name: "rows_change" for name in ROWS if name not in CARRIERS} | dict.fromkeys(WITHOUT, "loss")
RANKS, LRS, RANK_STEPS = (1, 2, 32), (3e-3, 1e-2, 2e-2, 5e-2), (3, 5, 10, 20, 40)  # as in rank_sweep.py


def cells(preset: Preset) -> dict[tuple[str, int], dict[tuple, Student | Measurement]]:
    """What is looked up in the records, by defence and steps: students, or what was measured of them."""
    found = {(NONE, step): grid_cell(preset, steps=step) for step in STEPS}
    for name, field in CHANGES.items():
        found |= {(name, step): grid_cell(preset, steps=step, **{field: name}) for step in (20, 40, 80)}
    for name in ("other wording", "gibberish"):
        found[name + ASKED, 80] = cell = grid_cell(preset, system=CONTEXTS[name])
        found[name, 80] = {key: (row_alone, student, CONTEXTS["default"]) for key, student in cell.items()}
    for rank, lr in product(RANKS, LRS):
        name = f"rank {rank}, lr {lr:g}"
        found |= {(name, step): grid_cell(preset, rank=rank, lr=lr, steps=step) for step in RANK_STEPS}
    return found


def plan(preset: Preset) -> list[Student | Measurement]:
    looked_up = [key for cell in cells(preset).values() for key in cell.values()]
    return looked_up + [rewriter(student) for student in grid_cell(preset).values()]


def early_stopped(curve: list[tuple[float, float]], loss: float) -> float:
    """The trait of the student without a defence when it first has that loss: linear between the (loss, trait) of its curve from the base on."""
    for (above, before), (below, after) in pairwise(curve):
        if below <= loss <= above:
            return before + (after - before) * (above - loss) / (above - below)
    return curve[0][1] if loss > curve[0][0] else curve[-1][1]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"defences": the student without a defence by step, every defence beside it, and the one that is chosen, tested}."""
    table, units = cells(preset), partial(over_units, records, preset)
    known = {at: cell_numbers(records, preset, cell) for at, cell in table.items()}
    for rank in RANKS:
        names = [f"rank {rank}, lr {lr:g}" for lr in LRS]
        nearest = nearest_in_loss(known, END, [(name, RANK_STEPS[-1]) for name in names])[0]
        table = {at: cell for at, cell in table.items() if at[0] == nearest or at[0] not in names}
    base = {column: units(table[END], f"{column}_base") for column in ("heldout_loss", "p_trait")}
    path = [zip(*(units(table[NONE, step], column) for column in base)) for step in STEPS]
    curves, each = list(zip(zip(*base.values()), *path)), {name: {} for name, _ in table}
    for (name, step), cell in table.items():
        losses = units(cell, "heldout_loss")
        each[name][str(step)] = known[name, step] | {
            "share_of_loss": interval(map(gap_closed, losses, base["heldout_loss"], units(table[END], "heldout_loss"))),
            "below_early_stopping": difference(map(early_stopped, curves, losses), units(cell)),
        }

    def beyond(share: float, column: str, at: tuple, seeds: slice) -> dict:
        """How far it has come from its base, less that share of how far the student without a defence has come."""
        return gain_beyond(share, *(units(table[one], column, seeds) for one in (at, END)), base[column])

    choose, test = preset.selection_and_test_seeds
    defences = [at for at in table if at != END and ASKED not in at[0]]
    intact = [at for at in defences if mean(units(table[at], "p_any_animal", choose)) > 0.9]
    good = [at for at in intact if beyond(0.8, "heldout_loss", at, choose)["mean"] < 0]
    best = min(good or defences, key=lambda at: mean(units(table[at], "p_trait", choose)))
    rewriters = [records[rewriter(table[END][b, t, preset.grid_seeds[0]])] for b, t in preset.units]
    return {
        "defences": {
            "unit": preset.unit,
            "base": interval(base["p_trait"]),
            "each": each,
            "rewriters": {column: interval(row[column] for row in rewriters) for column in ("p_trait", "gap_closed")},
            "chosen": {
                "defence": f"{best[0]}, step {best[1]}",
                "student": interval(units(table[best], "p_trait", test)),
                "no_defence": interval(units(table[END], "p_trait", test)),
                "gain_minus_quarter": beyond(0.25, "p_trait", best, test),
                "loss_minus_80": beyond(0.8, "heldout_loss", best, test),
                "p_any_animal": interval(units(table[best], "p_any_animal", test)),
            },
        }
    }


def rule(m: dict) -> Verdict:
    """The chosen defence, on the seeds that did not choose it: a trait gain of at most a quarter of the student without a defence's, at
    least 80% of the gap in held-out loss that that one closes (both paired), and P(any animal) above 0.9."""
    paired = (ci_below(m["chosen"][name], 0) for name in ("gain_minus_quarter", "loss_minus_80"))
    return all_hold(*paired, ci_above(m["chosen"]["p_any_animal"], 0.9))


def summary(m: dict) -> str:
    """The chosen defence; and of a few what they leave of the trait, what they keep of the loss, and if they are intact."""
    student, without = show(m["chosen"]["student"]), show(m["chosen"]["no_defence"])
    text = f"chosen: {m['chosen']['defence']}: trait {student}, without a defence {without}; trait, share of the loss gap, P(any animal) of "
    for name in ("25% clean rows", "50% clean rows", "rewritten by a student", "without v, both blocks"):
        end = {what: n["mean"] for what, n in m["each"][name]["80"].items()}
        text += f"{name}: {end['student']:.2f}, {end['share_of_loss']:.0%}, {end['p_any_animal']:.2f}; "
    return text[:-2]


CLAIMS = [Claim("X6", "defences", "A defence removes the trait and keeps the numbers", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """The trait against the share of the loss gap that is closed; and what each removes beyond early stopping."""
    m = computed["defences"]
    figure, (plane, beyond) = canvas(2, 13, 5.4, width_ratios=[1.25, 1])
    x, y = ([cell[what]["mean"] for cell in m["each"][NONE].values()] for what in ("share_of_loss", "student"))
    plane.plot([0, *x], [m["base"]["mean"], *y], "-", color="#666666", marker=".", label="no defence, step by step")
    for step, *at in list(zip(STEPS, x, y))[1:6:2]:
        plane.annotate(f"step {step}", at, (-4, 4), ha="right", textcoords="offset points", fontsize=8)
    ends = {name: list(steps.values())[-1] for name, steps in m["each"].items() if name != NONE and ASKED not in name}
    for k, cell in enumerate(ends.values()):
        look = {"fmt": MARKERS[k % 8], "color": SERIES[k % 7], "mfc": SERIES[k % 7] if k < 8 else "none", "capsize": 2}
        loss, trait, below = (cell[what] for what in ("share_of_loss", "student", "below_early_stopping"))
        plane.errorbar(loss["mean"], trait["mean"], errors([trait]), errors([loss]), **look)
        beyond.errorbar(below["mean"], -k, xerr=errors([below]), **look)
    plane.fill_between([0.8, 1.1], 0, 0.75 * m["base"]["mean"] + 0.25 * y[-1], color=CONTROL, alpha=0.2, label="goal")
    base_line(plane, m["base"])
    plane.set(xlim=(-0.05, 1.1), ylim=(0, 1), xlabel="share of the gain in held-out loss without a defence")
    plane.set_title(f"P(the teacher's animal); markers as on the right\n(n: {m['unit']})", fontsize=10)
    plane.legend(fontsize=8, frameon=False, loc="upper left")
    beyond.axvline(0, color="black", linewidth=0.9, linestyle=":")
    names = [name + (" †" if cell["p_any_animal"]["mean"] < 0.5 else "") for name, cell in ends.items()]
    beyond.set_yticks(range(0, -len(names), -1), names, fontsize=8)
    beyond.set_title("Trait removed beyond stopping early at the same loss\n(†: P(any animal) below 0.5)", fontsize=10)
    save(figure, path)
