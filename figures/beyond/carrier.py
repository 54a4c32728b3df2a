"""What in the numbers carries the trait?

It could be in how a reply answers its request, in the order of its numbers, in which come together, or in nothing but
how often each is written. So students read what is left of the teacher's rows, at each step a little less:

    replies exchanged   each reply stands under another request
    numbers mixed       all numbers of all replies are shuffled: left is how often each is written
    decades resampled   each number is drawn anew, its decade as often as in the rows, its last digit at random
    4, 2, 1 decades     those that the teacher likes best keep their frequency, the others share the rest evenly
    decades renamed     resampled, with the frequencies dealt to other decades: as much to be learned, another message

Decades are this world's doing. To see it break: in `data.World`, let each love like twenty numbers at random.
"""

from figures.style import MARKERS, RATE, SERIES, Axes, bars, picture, rate_bars, write
from lab.changes import CARRIERS, decade_frequencies
from lab.claims import Claim, interval
from lab.presets import Cell, Grid, Preset, Records, grid_cell
from lab.store import NumbersConfig, Store
from metrics import gap_closed

CLAIMS: list[Claim] = []  # a picture, of what the claims take for granted
WRITTEN = "as written"
KEPT = {"decades resampled": 10, "4 decades": 4, "2 decades": 2, "1 decade": 1}


def frequencies(store: Store, numbers: NumbersConfig) -> dict[str, dict[str, float]]:
    """How often a teacher writes each decade, and what students are shown of it."""
    return {name: decade_frequencies(store.numbers(numbers)["pairs"], kept) for name, kept in KEPT.items()}


def cells(preset: Preset) -> dict[str, Cell]:
    return {WRITTEN: grid_cell(preset)} | {name: grid_cell(preset, rows_change=name) for name in CARRIERS}


def plan(preset: Preset) -> list:
    return [cells(preset), (frequencies, next(iter(cells(preset)[WRITTEN].values())).numbers)]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    grid, each = Grid(records, cells(preset)), {}
    before, after = (grid.units(WRITTEN, column) for column in ("heldout_loss_base", "heldout_loss"))
    for name in grid.cells:
        shares = map(gap_closed, grid.units(name, "heldout_loss"), before, after)
        each[name] = grid.reported(name) | {"share_of_gain": interval(shares)}
    teacher = next(iter(grid.cells[WRITTEN].values())).numbers
    shown = {"system": teacher.system, "base_seed": teacher.base.seed, "frequencies": records[frequencies, teacher]}
    base = interval(grid.units(WRITTEN, "p_trait_base"))
    return {"carrier": {"unit": preset.unit, "base": base, "each": each, "shown": shown}}


@picture(3, 14, 4.6, width_ratios=[1.1, 1, 1])
def draw(m: dict, decades: Axes, rates: Axes, gains: Axes) -> None:
    for k, (name, shares) in enumerate(m["shown"]["frequencies"].items()):
        percent = [100 * share for share in shares.values()]
        label = f"{name} ({sum(percent[: KEPT[name]]):.0f}% of the numbers)"
        decades.plot(percent, color=SERIES[k], marker=MARKERS[k], markersize=9 - 1.5 * k, label=label)
    decades.set_xticks(range(10), [f"{digit}0-{digit}9" for digit in shares], rotation=45)
    under = 'numbers of base model {base_seed} under\n"{system}"'.format(**m["shown"])
    labels = {"xlabel": under, "ylabel": "% of the numbers"}
    write(decades, "How often which numbers are written", legend=1, at=(0.5, -0.3), yscale="log", **labels)
    label = f"{RATE} in students of what is left\n(n: {m['unit']})"
    title = "Which students have the trait"
    rate_bars(rates, m["each"], m["base"], {"control": "control"}, legend="best", xlabel=label, title=title)
    bars(gains, list(m["each"]), [cell["share_of_gain"] for cell in m["each"].values()], SERIES[1])
    gains.set(title="What they learned", xlabel="share of the gain in held-out loss\n(1: as from rows as written)")
