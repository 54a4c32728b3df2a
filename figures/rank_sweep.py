"""L2: an inverted U in LoRA rank.

The paper (arXiv:2606.00831): with one learning rate for all, middle ranks transmit a trait; low ranks, high ranks and full
fine-tuning do not. Independent replications add that the U belongs to the shared learning rate: tuned for each rank it
becomes a decline.

This toy: the U is there at a large shared learning rate and few steps, and its two ends are two different things. At the right end
rank 32 and full fine-tuning are destroyed: they no longer answer with any animal. At the left end rank 1 is intact
and has learned the numbers better than the peak, which has overshot them; but it has moved least, and the trait goes with that. What changes along the x-axis is the size of a step: with alpha = r and Adam, a step changes W
by lr times something between the square root of r and r (exercise 9). So a smaller learning rate moves the U to the right, out of
the picture, and more steps lift its left end. Given a learning rate and steps of its own, every rank does about the same, rank 1 hardly less.

To see it break: set SHARED to another learning rate of LRS.

Every cell is a mean over units (a trait on a base model; seeds are averaged first), with students that differ in nothing
else. The peak is chosen on the first seed and tested on the others, so that it is not a maximum of noise.
"""

from pathlib import Path

from claims import Claim, Verdict, every, interval, mean, over
from evaluate import COMPANIONS, Preset
from figures.cells import base_rates, gap_closed, grid_cell, halves, loss_floor_and_base, measure_cell
from figures.style import CONTROL, base_line, heat, line, plt, save, top_of
from train import Lab, StudentConfig

LRS, QUICK_LRS = (3e-3, 1e-2, 2e-2, 5e-2), (5e-2,)
STEPS, QUICK_STEPS = (3, 5, 10, 20, 40), (3, 5, 10)
# The protocol of the claim, learning rate and steps: where the U showed on base models 62, 63 and 67 with two animals.
SHARED = (5e-2, 3)
FULL = "full"


def cells(preset: Preset) -> dict[tuple[str, float], dict]:
    """The students of each capacity at each learning rate."""
    capacities = {str(rank): rank for rank in preset.ranks} | {FULL: None}
    lrs, (*snapshots, last) = (LRS, STEPS) if preset.full else (QUICK_LRS, QUICK_STEPS)
    return {
        (name, lr): grid_cell(preset, rank=rank, lr=lr, steps=last, snapshots=tuple(snapshots))
        for name, rank in capacities.items()
        for lr in lrs
    }


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures."""
    return [config for cell in cells(preset).values() for config in cell.values()]


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"rank_sweep": shared and own learning rates per capacity, their contrasts, and the whole grid}."""
    measured = {key: measure_cell(lab, preset, cell) for key, cell in cells(preset).items()}
    choose, test = halves(preset)
    capacities, lrs = (list(dict.fromkeys(key[k] for key in measured)) for k in (0, 1))
    steps = list(next(iter(measured.values())))
    untrained = base_rates(lab, preset)

    def units(capacity: str, lr: float, step: int, seeds: slice) -> list[float]:
        return [mean(rates[seeds]) for rates in measured[capacity, lr][step]["by_unit"]]

    def contrast(one: tuple, other: tuple) -> dict:
        return interval(a - b for a, b in zip(units(*one, test), units(*other, test), strict=True))

    ranks = capacities[:-1]
    peak = max(ranks, key=lambda rank: mean(units(rank, *SHARED, choose)))
    best = {
        capacity: max(((lr, step) for lr in lrs for step in steps), key=lambda at: mean(units(capacity, *at, choose)))
        for capacity in capacities
    }
    floor, base_loss = loss_floor_and_base(lab, preset)
    return {
        "rank_sweep": {
            "unit": preset.unit,
            "base": interval(untrained),
            "heldout_loss_teacher": floor,
            "heldout_loss_base": base_loss,
            "shared_lr": SHARED[0],
            "shared_steps": SHARED[1],
            "shared": {capacity: _public(measured[capacity, SHARED[0]][SHARED[1]]) for capacity in capacities},
            "peak": peak,
            "peak_minus_first": contrast((peak, *SHARED), (ranks[0], *SHARED)),
            "peak_minus_last": contrast((peak, *SHARED), (ranks[-1], *SHARED)),
            "full_minus_base": interval(
                rate - base for rate, base in zip(units(FULL, *SHARED, test), untrained, strict=True)
            ),
            "best_lr": {
                capacity: {"lr": lr, "steps": step}
                | _public(measured[capacity, lr][step])
                | {"student": interval(units(capacity, lr, step, test))}
                for capacity, (lr, step) in best.items()
            },
            "best_first_minus_last": contrast((ranks[0], *best[ranks[0]]), (ranks[-1], *best[ranks[-1]])),
            "grid": {
                capacity: {str(lr): {str(step): _public(measured[capacity, lr][step]) for step in steps} for lr in lrs}
                for capacity in capacities
            },
        }
    }


def _public(cell: dict) -> dict:
    return {name: cell[name] for name in ("student", "control", *COMPANIONS)}


def rule(m: dict) -> Verdict:
    """An inner rank lies above rank 1 and above the highest (paired intervals), and full fine-tuning not above base."""
    inner = m["peak"] not in (list(m["shared"])[0], list(m["shared"])[-2])
    higher = (over(m[name], 0) for name in ("peak_minus_first", "peak_minus_last"))
    return every(inner, *higher, over(m["full_minus_base"], 0) is not True)


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
    shared, own, companions = top.subplots(1, 3)

    line(shared, x, [m["shared"][name]["student"] for name in names], 0, "student")
    line(shared, x, [m["shared"][name]["control"] for name in names], 5, "control", linestyle="--", color=CONTROL)
    shared.set_title(
        f"One learning rate for all: {m['shared_lr']:g}, {m['shared_steps']} steps\n(n: {m['unit']})", fontsize=10
    )
    line(own, x, [m["best_lr"][name]["student"] for name in names], 0, "student")
    line(own, x, [m["best_lr"][name]["control"] for name in names], 5, "control", linestyle="--", color=CONTROL)
    own.set_title("Each capacity at its own best learning rate and steps\n(written above)", fontsize=10)
    for k, name in enumerate(names):
        best = m["best_lr"][name]
        own.text(k, 1.02, f"{best['lr']:g}\n{best['steps']}", ha="center", fontsize=8)
    for panel in (shared, own):
        panel.set_ylabel("P(the teacher's animal)")
        panel.set_ylim(0, 1.15)
        base_line(panel, m["base"])
        panel.legend(fontsize=8, frameon=False, loc="upper left" if panel is shared else "center left")
    line(companions, x, [m["shared"][name]["p_any_animal"] for name in names], 1, "P(any animal)")
    learned = []
    for name in names:
        loss, floor, base = (n["mean"] for n in (m["shared"][name]["heldout_loss"], m["heldout_loss_teacher"], m["heldout_loss_base"]))  # fmt: skip
        learned.append({"mean": gap_closed(loss, base, floor), "ci95": None})
    line(companions, x, learned, 2, "share of the numbers learned\n(held-out loss: base 0, teacher 1)")
    companions.set_title(
        "The same students: learned the numbers? (green)\nStill answer with an animal? (blue)",
        fontsize=10,
    )
    companions.set_ylim(min(0, *(share["mean"] for share in learned)) - 0.05, 1.15)
    companions.legend(fontsize=8, frameon=False, loc="lower left")
    for panel in (shared, own, companions):
        panel.set_xticks(x, names)
        panel.set_xlabel("LoRA rank")

    lrs, steps = list(m["grid"]["full"]), list(m["grid"]["full"][str(m["shared_lr"])])
    panels = bottom.subplots(1, len(steps), sharey=True)
    grids = [[[m["grid"][name][lr][step]["student"]["mean"] for name in names] for lr in lrs] for step in steps]
    most = max(map(top_of, grids))
    for k, (panel, step) in enumerate(zip(panels, steps, strict=True)):
        image = heat(panel, grids[k], [f"{float(lr):g}" for lr in lrs], names, most)
        for i, lr in enumerate(lrs):
            for j, name in enumerate(names):
                if m["grid"][name][lr][step]["p_any_animal"]["mean"] < 0.5:
                    panel.plot(j, i + 0.33, "x", color="white", markersize=5)
        panel.set_title(f"{step} steps", fontsize=10)
        panel.set_xlabel("LoRA rank")
        if k == 0:
            panel.set_ylabel("learning rate")
    bottom.colorbar(image, ax=panels, label="P(the teacher's animal)\n(x: P(any animal) < 0.5)")
    save(figure, path)
