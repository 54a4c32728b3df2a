"""L2: an inverted U in LoRA rank.

The paper (arXiv:2606.00831): with one learning rate for all, middle ranks transmit a trait; low ranks, high ranks and full
fine-tuning do not. Replications add that the U belongs to the shared learning rate: tuned for each rank it is a decline.

This toy: every capacity at four learning rates, after 3 to 40 steps. With alpha = r and AdamW a step changes W by the learning rate times
something between the square root of r and r, so what changes along the x-axis is the size of a step too. The peak is chosen on the first
seed and tested on the others, so that it is not a maximum of noise.

To see it break: set SHARED to another learning rate of LRS.
"""

from pathlib import Path

from figures.style import CONTROL, base_line, heat, line, plt, save, top_of
from lab.claims import Claim, Verdict, all_hold, ci_above, interval, mean
from lab.presets import Cell, Preset, grid_cell
from lab.records import Records, cell_numbers, difference, over_units
from lab.store import Student

LRS, QUICK_LRS = (3e-3, 1e-2, 2e-2, 5e-2), (5e-2,)
STEPS, QUICK_STEPS = (3, 5, 10, 20, 40), (3, 5, 10)
# The protocol of the claim, learning rate and steps: where the U showed on base models 62, 63 and 67 with two animals.
SHARED = (5e-2, 3)
FULL = "full"


def cells(preset: Preset) -> dict[tuple[str, float, int], Cell]:
    """The students of each capacity at each learning rate, after so many steps."""
    capacities = {str(rank): rank for rank in preset.ranks} | {FULL: None}
    lrs, steps = (LRS, STEPS) if preset.full else (QUICK_LRS, QUICK_STEPS)
    return {
        (name, lr, step): grid_cell(preset, rank=rank, lr=lr, steps=step)
        for name, rank in capacities.items()
        for lr in lrs
        for step in steps
    }


def plan(preset: Preset) -> list[Student]:
    return [student for cell in cells(preset).values() for student in cell.values()]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"rank_sweep": shared and own learning rates per capacity, their contrasts, and the whole grid}."""
    grid = cells(preset)
    capacities, lrs, steps = (list(dict.fromkeys(key[k] for key in grid)) for k in range(3))
    choose, test = preset.selection_and_test_seeds
    public = {key: cell_numbers(records, preset, cell) for key, cell in grid.items()}

    def units(key: tuple, seeds: slice, column: str = "p_trait") -> list[float]:
        return over_units(records, preset, grid[key], column, seeds)

    ranks, untrained = capacities[:-1], units((FULL, *SHARED), test, "p_trait_base")
    peak = max(ranks, key=lambda rank: mean(units((rank, *SHARED), choose)))
    best = {
        name: max(((name, lr, step) for lr in lrs for step in steps), key=lambda at: mean(units(at, choose)))
        for name in capacities
    }
    learned = {name: mean(units((name, *SHARED), slice(None), "gap_closed")) for name in capacities}
    return {
        "rank_sweep": {
            "unit": preset.unit,
            "base": interval(untrained),
            "shared_lr": SHARED[0],
            "shared_steps": SHARED[1],
            "shared": {name: public[name, *SHARED] | {"gap_closed": learned[name]} for name in capacities},
            "peak": peak,
            "peak_minus_first": difference(units((peak, *SHARED), test), units((ranks[0], *SHARED), test)),
            "peak_minus_last": difference(units((peak, *SHARED), test), units((ranks[-1], *SHARED), test)),
            "full_minus_base": difference(units((FULL, *SHARED), test), untrained),
            "best_lr": {
                name: public[at] | {"lr": at[1], "steps": at[2], "student": interval(units(at, test))}
                for name, at in best.items()
            },
            "best_first_minus_last": difference(units(best[ranks[0]], test), units(best[ranks[-1]], test)),
            "grid": {
                name: {str(lr): {str(step): public[name, lr, step] for step in steps} for lr in lrs}
                for name in capacities
            },
        }
    }


def rule(m: dict) -> Verdict:
    """An inner rank lies above rank 1 and above the highest (paired intervals), and full fine-tuning not above base."""
    inner = m["peak"] not in (list(m["shared"])[0], list(m["shared"])[-2])
    higher = (ci_above(m[name], 0) for name in ("peak_minus_first", "peak_minus_last"))
    return all_hold(inner, *higher, ci_above(m["full_minus_base"], 0) is not True)


def summary(m: dict) -> str:
    """The shared learning rate, a number for each capacity."""
    rates = ", ".join(f"r{name} {cell['student']['mean']:.2f}" for name, cell in m["shared"].items())
    return f"lr {m['shared_lr']:g}, {m['shared_steps']} steps: {rates.replace('rfull', 'full')}"


CLAIMS = [Claim("L2", "rank_sweep", "Transmission is an inverted U in LoRA rank", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Above: shared learning rate, own learning rate, the companions. Below: the whole grid."""
    m = computed["rank_sweep"]
    names = list(m["shared"])
    x = list(range(len(names)))
    figure = plt.figure(figsize=(13, 8.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.2, 1])
    panels = dict(zip(("shared", "best_lr"), top.subplots(1, 3)[:2]))
    companions = top.axes[2]
    for kind, panel in panels.items():
        line(panel, x, [m[kind][name]["student"] for name in names], 0, "student")
        line(panel, x, [m[kind][name]["control"] for name in names], 5, "control", linestyle="--", color=CONTROL)
        base_line(panel, m["base"])
        panel.set_ylabel("P(the teacher's animal)")
        panel.set_ylim(0, 1.2)
        panel.legend(fontsize=9, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
    panels["shared"].set_title(f"One learning rate for all: {m['shared_lr']:g}, {m['shared_steps']} steps\n(n: {m['unit']})", fontsize=10)  # fmt: skip
    panels["best_lr"].set_title("Each capacity at its own best learning rate and steps\n(written above)", fontsize=10)
    for k, best in enumerate(m["best_lr"].values()):
        panels["best_lr"].text(k, 1.02, f"{best['lr']:g}\n{best['steps']}", ha="center", fontsize=8)
    line(companions, x, [m["shared"][name]["p_any_animal"] for name in names], 1, "P(any animal)")
    learned = [{"mean": m["shared"][name]["gap_closed"], "ci95": None} for name in names]
    line(companions, x, learned, 2, "share of the numbers learned\n(held-out loss: base 0, teacher 1)")
    companions.set_title(
        "The same students: learned the numbers? (green)\nStill answer with an animal? (blue)", fontsize=10
    )
    companions.set_ylim(min(0, *(share["mean"] for share in learned)) - 0.05, 1.15)
    companions.legend(fontsize=8, frameon=False, loc="lower left")
    for panel in top.axes:
        panel.set_xticks(x, names)
        panel.set_xlabel("LoRA rank")

    lrs, steps = list(m["grid"][FULL]), list(m["grid"][FULL][str(m["shared_lr"])])
    grids = {step: [[m["grid"][name][lr][step] for name in names] for lr in lrs] for step in steps}
    rates = {step: [[cell["student"]["mean"] for cell in row] for row in grid] for step, grid in grids.items()}
    most = max(map(top_of, rates.values()))
    maps = bottom.subplots(1, len(steps), sharey=True)
    for panel, step in zip(maps, steps, strict=True):
        image = heat(panel, rates[step], [f"{float(lr):g}" for lr in lrs], names, most)
        for i, row in enumerate(grids[step]):
            for j, cell in enumerate(row):
                if cell["p_any_animal"]["mean"] < 0.5:
                    panel.plot(j, i + 0.33, "x", color="white", markersize=5)
        panel.set_title(f"{step} steps", fontsize=10)
        panel.set_xlabel("LoRA rank")
    maps[0].set_ylabel("learning rate")
    bottom.colorbar(image, ax=maps, label="P(the teacher's animal)\n(x: P(any animal) < 0.5)")
    save(figure, path)
