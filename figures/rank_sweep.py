"""L2: an inverted U in LoRA rank.

The paper (arXiv:2606.00831): with one learning rate for all, middle ranks transmit a trait; low ranks, high ranks and
full fine-tuning do not. Replications: the U belongs to the shared learning rate; tuned for each, it is a decline. This
toy: every capacity at four learning rates, after 3 to 40 steps. With alpha = r and AdamW a step changes W by the
learning rate times something between the square root of r and r, so what changes along the x-axis is the size of a step
too. To see it break: set `presets.SHARED` to another learning rate of LRS.
"""

from itertools import product

from figures.style import RATE, Axes, Figure, base_line, heat, line, picture, top_of, write
from lab.claims import Claim, Verdict, all_hold, ci_above, interval
from lab.presets import SHARED, Cell, Grid, Preset, Records, difference, grid_cell

LRS, STEPS = (3e-3, 1e-2, 2e-2, 5e-2), (3, 5, 10, 20, 40)
FULL = "full"
CLAIMS = [Claim("L2", "rank_sweep", "Transmission is an inverted U in LoRA rank",
    # At one learning rate for all, and full fine-tuning does not lie above the base model.
    seen=lambda m: all_hold(inverted_u(m, "at_shared"), ci_above(m["full_minus_base"], 0) is not True),
    survives=lambda m: inverted_u(m, "at_best"),  # each rank at its own best learning rate and steps
    why=lambda m: "At learning rate {shared_lr:g} and {shared_steps} steps the trait is at {} by rank (P(any animal) in full "
    "{p_any_animal[mean]:.2f}); with each rank's own best at {}.".format(
        *(", ".join(f"{cell['student']['mean']:.2f} ({name})" for name, cell in m[at].items()) for at in ("shared", "best_lr")),
        **m, p_any_animal=m["shared"][FULL]["p_any_animal"]))]  # fmt: skip


def plan(preset: Preset) -> dict[tuple[str, float, int], Cell]:
    capacities = {str(rank): rank for rank in preset.ranks} | {FULL: None}
    keys = product(capacities, *((LRS, STEPS) if preset.full else (LRS[-1:], STEPS[:3])))
    return {(n, lr, step): grid_cell(preset, rank=capacities[n], lr=lr, steps=step) for n, lr, step in keys}


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    grid = Grid(records, plan(preset))
    public = {key: grid.reported(key) for key in grid.cells}
    capacities, lrs, steps = (list(dict.fromkeys(key[k] for key in grid.cells)) for k in range(3))

    def ends(at: dict[str, tuple]) -> dict:
        """The rank that is best on the seeds that choose, less the first and the last rank on the others."""
        first, *_, last = ranks = [at[name] for name in capacities if name != FULL]
        peak, less = grid.best(ranks), {"peak_minus_first": first, "peak_minus_last": last}
        trait = {key: grid.units(key, seeds=grid.test) for key in ranks}
        return {"peak": peak[0]} | {name: difference(trait[peak], trait[end]) for name, end in less.items()}

    shared = {name: (name, *SHARED.values()) for name in capacities}
    best = {name: grid.best([key for key in grid.cells if key[0] == name]) for name in capacities}
    full, base = (grid.units(shared[FULL], column, grid.test) for column in ("p_trait", "p_trait_base"))
    own = {n: {"lr": k[1], "steps": k[2], "student": interval(grid.units(k, seeds=grid.test))} for n, k in best.items()}
    by_lr = {n: {str(lr): {str(step): public[n, lr, step] for step in steps} for lr in lrs} for n in capacities}
    return {"rank_sweep": {
        "unit": preset.unit, "base": interval(base), "shared_lr": SHARED["lr"], "shared_steps": SHARED["steps"],
        "shared": {name: public[key] for name, key in shared.items()}, "at_shared": ends(shared),
        "best_lr": {name: public[key] | own[name] for name, key in best.items()}, "at_best": ends(best),
        "full_minus_base": difference(full, base), "grid": by_lr,
    }}  # fmt: skip


def inverted_u(m: dict, at: str) -> Verdict:
    """An inner rank lies above rank 1 and above the highest (paired intervals)."""
    inner = m[at]["peak"] in list(m["shared"])[1:-2]  # the last is full fine-tuning
    return all_hold(inner, *(ci_above(m[at][name], 0) for name in ("peak_minus_first", "peak_minus_last")))


LINES = {"student": (0, "student"), "control": (5, "control"), "P(any animal)": (1, "p_any_animal")}


@picture(2, 11, 4.4)
def draw(m: dict, shared: Axes, best: Axes) -> None:
    names = list(m["shared"])
    for kind, panel in (("shared", shared), ("best_lr", best)):
        for label, (k, name) in LINES.items():
            line(panel, names, [m[kind][n][name] for n in names], k, label, linestyle="-" if k == 0 else ":")
        base_line(panel, m["base"])
        panel.set(ylabel=RATE, ylim=(0, 1.2))
    for k, own in enumerate(m["best_lr"].values()):
        best.text(k, 1.04, "{lr:g}\n{steps}".format(**own), ha="center", fontsize=9)
    one = f"One learning rate for all: {m['shared_lr']:g}, {m['shared_steps']} steps\n(n: {m['unit']})"
    own = "Each capacity at its own best learning rate and steps\n(written above)"
    for panel, title in ((shared, one), (best, own)):
        write(panel, title, legend=4, xlabel="LoRA rank")


@picture(0, 16, 3.8)
def draw_grid(m: dict, figure: Figure) -> None:
    names, lrs = list(m["shared"]), m["grid"][FULL]
    steps = list(lrs[str(m["shared_lr"])])
    grids = {step: [[m["grid"][name][lr][step] for name in names] for lr in lrs] for step in steps}
    rates = {step: [[cell["student"]["mean"] for cell in row] for row in grid] for step, grid in grids.items()}
    maps = figure.subplots(1, len(steps), sharey=True)
    for panel, step in zip(maps, steps, strict=True):
        image = heat(panel, rates[step], [f"{float(lr):g}" for lr in lrs], names, max(map(top_of, rates.values())))
        for i, row in enumerate(grids[step]):
            collapsed = [j for j, cell in enumerate(row) if cell["p_any_animal"]["mean"] < 0.5]
            panel.plot(collapsed, [i + 0.33] * len(collapsed), "x", color="white", markersize=5)
        panel.set(title=f"{step} steps", xlabel="LoRA rank")
    maps[0].set_ylabel("learning rate")
    figure.colorbar(image, ax=maps, label=f"{RATE}\n(x: P(any animal) < 0.5)")


MORE = {"rank_grid": draw_grid}  # pictures beside `draw`, by name
