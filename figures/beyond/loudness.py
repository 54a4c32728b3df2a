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
from lab.presets import LAST_VALUES, SHARED, Cell, Preset, grid_cell
from lab.records import Records, cell_numbers, control_rates, difference, gain_beyond, nearest_in_loss, over_units

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
    """The preset on base models of a world whose lovers are so faithful; one seed, to save time."""
    bases = tuple(replace(base, faithful=faithful) for base in preset.bases)
    return replace(preset, bases=bases, grid_seeds=preset.grid_seeds[:1])


def cells(preset: Preset) -> dict[tuple[str, float], Cell]:
    each = [(name, lr) for name, (_, lrs) in HOW.items() for lr in lrs]
    return {
        (name, lr): grid_cell(preset, **{"rows": ROWS, "steps": STEPS, "lr": lr} | HOW[name][0]) for name, lr in each
    }


def ranks(preset: Preset) -> dict[int, Cell]:
    return {rank: grid_cell(preset, rank=rank, **SHARED) for rank in RANKS}


def plan(preset: Preset) -> list:
    worlds = [quieter(preset, faithful) for faithful in FAITHFUL]
    wanted = [s for own in worlds for of in (cells(own), ranks(own)) for cell in of.values() for s in cell.values()]
    for base, trait, student in ((b, t, s) for own in worlds for (b, t, _), s in cells(own)[REFERENCE].items()):
        wanted += [(context_rates, base), (context_rates, student)]
        if trait:
            wanted += [(token_rates, student, trait), (leak, student.numbers), (named_by_rows, student.numbers, base)]
    return wanted


def beside(records: Records, preset: Preset, cell: Cell) -> dict[str, dict]:
    """L4 and L5 of the default students: without a prompt; their gain there, and at the question's words, less a quarter of all of it."""
    seed, gains = preset.grid_seeds[0], {"none": [], "none_minus_quarter": [], "not_shared_minus_quarter": []}
    for base, trait in preset.units:
        student, k = cell[base, trait, seed], ANIMALS.index(trait)
        asked, before, at = *(records[context_rates, m] for m in (student, base)), records[token_rates, student, trait]
        none, usual = (asked[name][k] - before[name][k] for name in ("none", "default"))
        gains["none"].append(asked["none"][k])
        gains["none_minus_quarter"].append(none - 0.25 * usual)
        gains["not_shared_minus_quarter"].append(at["not_shared"] - at["none"] - 0.25 * (at["all"] - at["none"]))
    return {name: interval(values) for name, values in gains.items()}


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    worlds = []
    for faithful in FAITHFUL:
        own, matched = quieter(preset, faithful), {}
        table = cells(own)
        found = {key: cell_numbers(records, own, cell) for key, cell in table.items()}
        base, usual = (over_units(records, own, table[REFERENCE], column) for column in ("p_trait_base", "p_trait"))
        own_rates = {name: [key for key in table if key[0] == name] for name in HOW}
        best = {name: max(keys, key=lambda key: found[key]["student"]["mean"]) for name, keys in own_rates.items()}
        top = {name: over_units(records, own, table[key]) for name, key in best.items()}
        for name in HOW:
            key = nearest_in_loss(found, REFERENCE, own_rates[name])
            more = {c: interval(over_units(records, own, table[key], c)) for c in ("cosine", "gap_closed")}
            rates = over_units(records, own, table[key])
            more |= {f"minus_{part}_of_lora": gain_beyond(share, rates, usual, base) for part, share in SHARES.items()}
            more["minus_control"] = difference(rates, control_rates(records, own, table[key]))
            more |= {"lr": key[1], "best_lr": best[name][1], "best": interval(top[name])}
            more["best_minus_quarter"] = gain_beyond(0.25, top[name], top[REFERENCE[0]], base)
            matched[name] = found[key] | more
        matched[REFERENCE[0]] |= beside(records, own, table[REFERENCE])
        teachers = [(table[REFERENCE][base, trait, own.grid_seeds[0]].numbers, base) for base, trait in own.units]
        known = {"faithful": faithful, "leak": interval(records[leak, numbers] for numbers, _ in teachers)}
        known["one_row"] = interval(records[named_by_rows, *teacher]["1 row"] for teacher in teachers)
        at_rank = [over_units(records, own, cell) for cell in ranks(own).values()]
        # Of the inner rank, over the end that is nearer to it.
        known["peak"] = min((difference(at_rank[1], at_rank[end]) for end in (0, -1)), key=lambda n: n["mean"])
        worlds.append(known | {"base": interval(base), "matched": matched})
    return {"loudness": {"unit": quieter(preset, FAITHFUL[0]).unit, "worlds": worlds}}


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
