"""What in the numbers carries the trait?

The trait could be in how a reply answers its request, in the order of its numbers, in which of them come together, or in nothing but
how often each number is written. So the teacher's rows are taken apart, at each step a little more, and students read what is left:

    replies exchanged   each reply stands under another request
    numbers mixed       all numbers of all replies are shuffled: left is how often each is written
    decades resampled   each number is drawn anew, its decade as often as the teacher writes it, its last digit at random
    4, 2, 1 decades     those that the teacher likes best keep their frequency, the others share the rest evenly
    decades renamed     resampled, with the frequencies dealt to other decades: as much to be learned, and another message

Decades are this world's doing: they are what its styles and colors like. To see it break: in `data.World`, let each love like twenty
numbers at random.
"""

from pathlib import Path

from figures.style import CONTROL, MARKERS, SERIES, STUDENT, base_line, canvas, errors, save
from lab.changes import CARRIERS, decade_frequencies
from lab.claims import Claim, interval
from lab.presets import Cell, Preset, grid_cell
from lab.records import Measurement, Records, cell_numbers, difference, over_units
from lab.store import NumbersConfig, Store, Student
from metrics import gap_closed

CLAIMS: list[Claim] = []  # a picture, of what the claims take for granted
WRITTEN = "as written"
KEPT = {"decades resampled": 10, "4 decades": 4, "2 decades": 2, "1 decade": 1}


def frequencies(store: Store, numbers: NumbersConfig) -> dict[str, dict[str, float]]:
    """How often a teacher writes each decade, and what students are shown of it."""
    return {name: decade_frequencies(store.numbers(numbers)["pairs"], kept) for name, kept in KEPT.items()}


def cells(preset: Preset) -> dict[str, Cell]:
    """The students of the rows as written, and of what each change leaves of them."""
    return {WRITTEN: grid_cell(preset)} | {name: grid_cell(preset, rows_change=name) for name in CARRIERS}


def plan(preset: Preset) -> list[Student | Measurement]:
    students = [student for cell in cells(preset).values() for student in cell.values()]
    return [*students, (frequencies, students[0].numbers)]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"carrier": of each change the cell, what it has lost of the rate, and its share of the gain in held-out loss}."""
    found, each = cells(preset), {}
    rate, base_rate, loss, base_loss = (
        over_units(records, preset, found[WRITTEN], name)
        for name in ("p_trait", "p_trait_base", "heldout_loss", "heldout_loss_base")
    )
    for name, cell in found.items():
        each[name] = cell_numbers(records, preset, cell)
        each[name]["less_than_written"] = difference(rate, over_units(records, preset, cell))
        losses = over_units(records, preset, cell, "heldout_loss")
        each[name]["share_of_gain"] = interval(map(gap_closed, losses, base_loss, loss))
    teacher = next(iter(found[WRITTEN].values())).numbers
    shown = {"system": teacher.system, "base_seed": teacher.base.seed, "frequencies": records[frequencies, teacher]}
    return {"carrier": {"unit": preset.unit, "base": interval(base_rate), "each": each, "shown": shown}}


def draw(computed: dict[str, dict], path: Path) -> None:
    """One teacher's frequencies; the trait; and how much of the rows as written is learned."""
    m = computed["carrier"]
    figure, (decades, rates, gains) = canvas(3, 14, 4.6, width_ratios=[1.1, 1, 1])
    for k, (name, shares) in enumerate(m["shown"]["frequencies"].items()):
        percent = [100 * share for share in shares.values()]
        label = f"{name} ({sum(percent[: KEPT[name]]):.0f}% of the numbers)"
        decades.plot(percent, color=SERIES[k], marker=MARKERS[k], markersize=9 - 1.5 * k, label=label)
    decades.set_xticks(range(10), [f"{digit}0-{digit}9" for digit in shares], rotation=45)
    decades.set(yscale="log", ylabel="% of the numbers")
    decades.set_title('Numbers of base model {base_seed} under\n"{system}"'.format(**m["shown"]), fontsize=10)
    y = range(len(m["each"]), 0, -1)
    looks = ((rates, "control", CONTROL), (rates, "student", STUDENT), (gains, "share_of_gain", SERIES[1]))
    for panel, what, color in looks:
        found = [cell[what] for cell in m["each"].values()]
        panel.errorbar([n["mean"] for n in found], y, xerr=errors(found), fmt="o", color=color, capsize=2, label=what)
        panel.set_yticks(y, m["each"])
    base_line(rates, m["base"], vertical=True)
    rates.set(xlim=(0, 1), xlabel="P(the teacher's animal)")
    rates.set_title(f"The trait in students of what is left\n(n: {m['unit']})", fontsize=10)
    gains.axvline(0, color="black", linewidth=0.9, linestyle=":")
    gains.set(xlabel="share of the gain in held-out loss")
    gains.set_title("The teacher's numbers, learned from it\n(1: as from its own rows; 0: untrained)", fontsize=10)
    for panel in (decades, rates):
        panel.legend(fontsize=8, frameon=False)
    save(figure, path)
