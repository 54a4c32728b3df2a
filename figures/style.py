"""What all figures share: colours that colour-blind eyes tell apart, and how an interval is drawn."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws to files; needs no screen
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BASE, CONTROL, STUDENT, FULL = "#999999", "#56b4e9", "#d55e00", "#0072b2"
SERIES = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"]  # Okabe and Ito
MARKERS = "osD^vPX*"


def errors(numbers: list[dict]) -> list[list[float]]:
    """The lengths below and above each mean, as matplotlib's yerr wants them: 2 x n."""
    low_high = [n["ci95"] or [n["mean"], n["mean"]] for n in numbers]
    return [
        [n["mean"] - low for n, (low, _) in zip(numbers, low_high, strict=True)],
        [high - n["mean"] for n, (_, high) in zip(numbers, low_high, strict=True)],
    ]


def line(axes: Axes, x: list, numbers: list[dict], k: int, label: str, **style) -> None:
    """A line of means with 95% intervals, in the k-th colour and marker."""
    style = {
        "color": SERIES[k % len(SERIES)],
        "marker": MARKERS[k % len(MARKERS)],
        "linestyle": "-",
        "capsize": 2,
    } | style
    axes.errorbar(x, [n["mean"] for n in numbers], yerr=errors(numbers), label=label, **style)


def bars(axes: Axes, names: list[str], numbers: list[dict], color: str) -> None:
    """Horizontal bars of means with 95% intervals, the first on top."""
    y = range(len(names), 0, -1)
    axes.barh(y, [n["mean"] for n in numbers], xerr=errors(numbers), color=color, height=0.7, capsize=2)
    axes.set_yticks(y, names)


def heat(axes: Axes, cells: list[list[float]], rows: list[str], columns: list[str], most: float) -> object:
    """A grid of numbers between 0 and `most`, each written into its cell. Returns the image, for a colour bar."""
    image = axes.imshow(cells, vmin=0, vmax=most, cmap="cividis", aspect="auto")
    for i, row in enumerate(cells):
        for j, value in enumerate(row):
            color = "black" if value > 0.5 * most else "white"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    return image


def top_of(cells: list[list[float]]) -> float:
    """Where the colours of a grid of rates end: a little above its largest, and not below a quarter."""
    return max(0.25, 1.1 * max(map(max, cells)))


def base_line(axes: Axes, rate: dict, vertical: bool = False) -> None:
    """The untrained base model's rate, dotted."""
    draw = axes.axvline if vertical else axes.axhline
    draw(rate["mean"], color="black", linewidth=0.9, linestyle=":", label=f"base model, {rate['mean']:.2f}")


def canvas(columns: int, width: float, height: float, rows: int = 1, **options) -> tuple[Figure, object]:
    """A figure and its axes, laid out without overlap."""
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def save(figure: Figure, path: Path) -> None:
    """To a PNG."""
    figure.savefig(path, dpi=120)
    plt.close(figure)
