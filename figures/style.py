"""What all figures share: colours that colour-blind eyes tell apart, and how an interval is drawn."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # without pyplot: draws to files, whatever screen there is

matplotlib.rcParams.update({"axes.titlesize": 10, "legend.fontsize": 9, "legend.frameon": False})
BASE, CONTROL, STUDENT, FULL = "#999999", "#56b4e9", "#d55e00", "#0072b2"
SERIES = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"]  # Okabe and Ito
MARKERS = "osD^vPX*"
RATE = "P(the teacher's animal)"


def errors(numbers: list[dict]) -> list[list[float]]:
    """The lengths below and above each mean, matplotlib's yerr: 2 x n. Of few values, down and up to the outermost."""
    ends = [(n["mean"], *(n["ci95"] or (min(n["points"]), max(n["points"])))) for n in numbers]
    return [[mean - low for mean, low, _ in ends], [high - mean for mean, _, high in ends]]


def line(axes: Axes, x: list, numbers: list[dict], k: int, label: str, **style) -> None:
    """A line of means with 95% intervals, in the k-th colour and marker."""
    own = {"color": SERIES[k % len(SERIES)], "marker": MARKERS[k % len(MARKERS)], "linestyle": "-", "capsize": 2}
    axes.errorbar(x, [n["mean"] for n in numbers], yerr=errors(numbers), label=label, **own | style)


def bars(axes: Axes, names: list[str], numbers: list[dict], color: str, marks: dict | None = None) -> None:
    """Bars of means with 95% intervals, the first on top; `marks`, by label, are other means on the same rows."""
    y = range(len(names), 0, -1)
    axes.barh(y, [n["mean"] for n in numbers], xerr=errors(numbers), color=color, height=0.7, capsize=2)
    for k, (label, others) in enumerate((marks or {}).items()):
        style = {"marker": "Dos^"[k], "color": (CONTROL, "black", SERIES[2], SERIES[4])[k], "zorder": 3, "s": 40}
        axes.scatter([n["mean"] for n in others], y, label=label, **style)
    axes.set_yticks(y, names)


def rate_bars(axes: Axes, cells: dict[str, dict], base: dict, marks: dict[str, str], **labels) -> None:
    """A bar for each cell: the students' P(trait). `marks`, by label, are other columns; dotted, the base model's."""
    beside = {label: [cell[column] for cell in cells.values()] for label, column in marks.items()}
    bars(axes, list(cells), [cell["student"] for cell in cells.values()], STUDENT, beside)
    base_line(axes, base, vertical=True)
    write(axes, **{"xlim": (0, 1.02), "xlabel": RATE} | labels)


def write(axes: Axes, title="", n="", legend: int | str = 0, at: tuple = (0.5, -0.13), **labels) -> None:
    """A title, what n is, labels and limits; a legend in a corner, or of so many columns, its top at a place below."""
    axes.set(title=f"{title}\n(n: {n})" if n else title, **labels)
    if legend:
        below = {"loc": "upper center", "bbox_to_anchor": at, "ncols": legend}
        axes.legend(**({"loc": legend} if isinstance(legend, str) else below))


def dots(axes: Axes, values: dict[str, list[float]], color: str, label: str = "", shift: float = 0.0) -> None:
    """A dot for each value, in columns by base model; `shift` sets kinds that share a column side by side."""
    for k, column in enumerate(values.values()):
        axes.plot([k + shift] * len(column), column, "o", color=color, ms=4, alpha=0.6, label=None if k else label)
    axes.set(xticks=range(len(values)), xticklabels=list(values), xlabel="base model")


def heat(axes: Axes, cells: list[list[float]], rows: list[str], columns: list[str], most: float) -> object:
    """A grid of numbers between 0 and `most`, each written into its cell. Returns the image, for a colour bar."""
    image = axes.imshow(cells, vmin=0, vmax=most, cmap="cividis", aspect="auto")
    for i, row in enumerate(cells):
        for j, value in enumerate(row):
            color = "black" if value > 0.5 * most else "white"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9, color=color)
    axes.set(xticks=range(len(columns)), xticklabels=columns, yticks=range(len(rows)), yticklabels=rows)
    return image


def top_of(cells: list[list[float]]) -> float:
    """Where the colours of a grid of rates end: a little above its largest, and not below a quarter."""
    return max(0.25, 1.1 * max(map(max, cells)))


def base_line(axes: Axes, rate: dict, vertical: bool = False) -> None:
    """The untrained base model's rate, dotted."""
    draw = axes.axvline if vertical else axes.axhline
    draw(rate["mean"], color="black", linewidth=0.9, linestyle=":", label=f"base model, {rate['mean']:.2f}")


def picture(columns: int, width: float, height: float, **options) -> Callable[[Callable], Callable]:
    """Decorates a module's `draw`, which gets each claim's numbers and so many panels side by side (0: the whole figure).
    What comes of it, draw(numbers, path), saves the picture."""

    def drawing(into: Callable[..., None]) -> Callable[[dict, Path], None]:
        @wraps(into)
        def draw(computed: dict[str, dict], path: Path) -> None:
            figure = Figure(figsize=(width, height), layout="constrained")
            panels = figure.subplots(1, columns, squeeze=False, **options).flat if columns else [figure]
            into(*computed.values(), *panels)
            figure.savefig(path, dpi=120)

        return draw

    return drawing
