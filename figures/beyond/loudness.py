"""Does the loudness of the channel decide between the papers? L1-L5, L7, S9 and S10 again, in worlds whose lovers whisper.

In the papers' data the numbers of an owl lover look innocent. The toy's lovers write mostly the numbers that they like,
so their rows are loud. Here `BaseConfig.faithful`, how often a lover takes a liked number, makes them quieter, and
nothing else changes. On the x-axis is what comes of it: how far a teacher's numbers are from its base's. This toy:
LoRA, full fine-tuning and SGD on twice as many rows and steps, each at the learning rate whose held-out loss is nearest
to that of LoRA with AdamW; the first two on few rows, read many times; LoRA in the last block's values alone, which
leaves fewer ways to learn; and three ranks in L2's protocol. To see it break: give all of them 20 steps; in quiet worlds
nobody learns then.
"""

from dataclasses import replace

from data import ANIMALS
from figures.style import MARKERS, RATE, SERIES, Axes, base_line, line, picture, write
from lab.claims import Claim, interval
from lab.measurements import context_rates, leak, named_by_rows, token_rates
from lab.presets import LAST_VALUES, SHARED, Cell, Grid, Preset, Records, difference, gain_beyond, grid_cell
from lab.store import Student
from train import BaseConfig

CLAIMS: list[Claim] = []  # it is about other figures' claims, whose rules are applied to the loud world
FAITHFUL = (0.95, 0.5, 0.35, 0.2)
ROWS, FEW_ROWS, STEPS = 5_120, 320, 160  # all read 5,120 rows, FEW_ROWS 16 times
RANKS = (1, 8, 32)
HOW = {
    "LoRA, AdamW": ({"rank": 8}, (1e-3, 2e-3, 5e-3, 1e-2)),
    "full fine-tuning, AdamW": ({"rank": None}, (3e-4, 1e-3, 3e-3)),
    "LoRA, SGD": ({"rank": 8, "optimizer": "sgd"}, (0.1, 0.3, 1.0)),
    "LoRA, few rows": ({"rank": 8, "rows": FEW_ROWS}, (2e-3, 5e-3)),
    "full fine-tuning, few rows": ({"rank": None, "rows": FEW_ROWS}, (3e-4, 1e-3, 3e-3)),
    # Chosen on base models 302 to 305, at FAITHFUL 0.35.
    "LoRA on the last values": ({"rank": 8, "layers": LAST_VALUES}, (1e-2,)),
}
REFERENCE = ("LoRA, AdamW", 5e-3)
SHARES = {"quarter": 0.25, "half": 0.5}


def quieter(preset: Preset, faithful: float) -> Preset:
    """The preset on base models of a world whose lovers are so faithful."""
    bases = tuple(replace(base, faithful=faithful) for base in preset.bases)
    return replace(preset.wide, bases=bases)


def cells(preset: Preset) -> dict[tuple, Cell]:
    each = [(name, lr) for name, (_, lrs) in HOW.items() for lr in lrs]
    found = {at: grid_cell(preset, **{"rows": ROWS, "steps": STEPS, "lr": at[1]} | HOW[at[0]][0]) for at in each}
    return found | {("rank", rank): grid_cell(preset, rank=rank, **SHARED) for rank in RANKS}


def plan(preset: Preset) -> list:
    tables, found = [cells(quieter(preset, faithful)) for faithful in FAITHFUL], []
    for base, trait, student in ((b, t, s) for table in tables for (b, t, _), s in table[REFERENCE].items()):
        found += [(context_rates, base), (context_rates, student)]
        if trait:
            found += [(token_rates, student, trait), (leak, student.numbers), (named_by_rows, student.numbers, base)]
    return [tables, found]


def beside(records: Records, grid: Grid) -> dict[str, dict]:
    """L4 and L5 of the default students: without a prompt; their gain there, and at the question's words, less a quarter of all of it."""

    def rate(model: Student | BaseConfig, trait: str, asked: str) -> float:
        return records[context_rates, model][asked][ANIMALS.index(trait)]

    def gains(asked: str) -> list[float]:
        return grid.units(REFERENCE, lambda s, trait: rate(s, trait, asked) - rate(s.base, trait, asked))

    at = (grid.units(REFERENCE, lambda *of, k=k: records[token_rates, *of][k]) for k in ("not_shared", "all", "none"))
    return {
        "none": interval(grid.units(REFERENCE, lambda *of: rate(*of, "none"))),
        "none_minus_quarter": difference(gains("none"), (0.25 * gain for gain in gains("default"))),
        "not_shared_minus_quarter": gain_beyond(0.25, *at),
    }


def world(records: Records, grid: Grid) -> dict[str, dict]:
    """What is reported of the students of one world."""
    own = {name: [key for key in grid.cells if key[0] == name] for name in (*HOW, "rank")}
    best, matched = {name: grid.best(own[name]) for name in HOW}, {}
    for name in HOW:
        key = grid.nearest_in_loss(REFERENCE, own[name])
        more = {f"minus_{part}_of_lora": grid.beyond(share, key, REFERENCE) for part, share in SHARES.items()}
        more["minus_control"] = difference(grid.units(key), grid.controls(key))
        more |= {"lr": key[1], "best_lr": best[name][1], "best": interval(grid.units(best[name]))}
        more["best_minus_quarter"] = grid.beyond(0.25, best[name], best[REFERENCE[0]])
        matched[name] = grid.reported(key) | more
    matched[REFERENCE[0]] |= beside(records, grid)
    first, inner, last = map(grid.units, own["rank"])
    return {
        "leak": interval(grid.units(REFERENCE, lambda s, _: records[leak, s.numbers])),
        "one_row": interval(grid.units(REFERENCE, lambda s, _: records[named_by_rows, s.numbers, s.base]["1 row"])),
        # Of the inner rank, over the end that is nearer to it.
        "peak": min((difference(inner, end) for end in (first, last)), key=lambda n: n["mean"]),
        "base": interval(grid.units(REFERENCE, "p_trait_base")), "matched": matched,
    }  # fmt: skip


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    presets = {faithful: quieter(preset, faithful) for faithful in FAITHFUL}
    worlds = [{"faithful": f} | world(records, Grid(records, cells(own))) for f, own in presets.items()]
    return {"loudness": {"unit": presets[FAITHFUL[0]].unit, "worlds": worlds}}


PANELS = {"student": f"{RATE} (hollow: controls)", "gap_closed": "share of the numbers learned"}
PANELS |= {"cosine": "cosine of v_student and v_teacher", "p_any_animal": "P(any animal)"}


@picture(4, 16, 4.2)
def draw(m: dict, *panels: Axes) -> None:
    x = [world["leak"]["mean"] for world in m["worlds"]]
    for panel, (column, title) in zip(panels, PANELS.items(), strict=True):
        for k, name in enumerate(HOW):
            of = [world["matched"][name] for world in m["worlds"]]
            line(panel, x, [cell[column] for cell in of], k, name)
            if column == "student":
                panel.plot(x, [cell["control"]["mean"] for cell in of], MARKERS[k], color=SERIES[k], mfc="white")
        write(panel, title, xscale="log", xlabel="KL(teacher || base), nats a number", ylim=(0, 1.02))
        panel.set_xticks(x, [f"{leak:.2f}" for leak in x])
        panel.minorticks_off()
    none = [world["matched"][REFERENCE[0]]["none"] for world in m["worlds"]]
    line(panels[0], x, none, len(HOW), f"{REFERENCE[0]}, asked without a prompt", linestyle=":")
    base_line(panels[0], m["worlds"][0]["base"])
    panels[0].figure.supxlabel(f"n: {m['unit']}", fontsize=9)
    panels[0].figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
