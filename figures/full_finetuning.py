"""L3 and S10: what becomes of the trait and of the vector under full fine-tuning, and why.

The papers: the trait disappears (arXiv:2606.00831, L3); full fine-tuning learns the vector weakly, with a cosine above
0.3 and little behaviour (reported of arXiv:2606.00995, S10). Replications add that a full fine-tune at LoRA's learning
rate has collapsed, that repeating few rows kills transmission at high capacity, and that many rows bring it back. This
toy: full fine-tuning in L2's protocol and at its own learning rates; other choices of what is trained; few rows many
times. To see it break: leave only LoRA and the embeddings in WHICH: these change numbers, not the stream.
"""

from functools import partial

from figures.style import FULL, Axes, bars, picture, rate_bars
from lab.claims import Claim, all_hold, ci_above, ci_below, interval, show
from lab.presets import SHARED, Cell, Grid, Preset, Records, grid_cell
from lab.store import Store, Student
from lora import PROJECTIONS
from metrics import reply_loss

STEPS, LAST = (20, 40, 80), 80
WHICH_LR = 2e-3  # at which LoRA, rank 8, transmits and full fine-tuning is intact, on base models of an earlier world
LRS, QUICK_LRS = (3e-4, 1e-3, 3e-3, 1e-2), (WHICH_LR,)
LORA, ALL, SAME_LAYERS = "LoRA, rank 8", "all weights", "LoRA's layers"
WHICH: dict[str, dict] = {
    LORA: {"rank": 8}, ALL: {"rank": None}, SAME_LAYERS: {"rank": None, "layers": PROJECTIONS},
    "the embeddings": {"rank": None, "layers": ("token_embedding", "position_embedding")},  # also the unembedding
    "the norms": {"rank": None, "layers": ("norm", "final_norm")},
}  # fmt: skip
FEW_ROWS, QUICK_FEW_ROWS = (160, 640), (160,)  # read 16 times and 4 times; the usual rows are read once
CLAIMS = [Claim("L3", "full_finetuning", "It disappears under full fine-tuning",
    # It gains less than a quarter of LoRA's gain at L2's learning rate and steps, then at its own best.
    seen=lambda m: ci_below(m["shared"]["minus_quarter_of_lora"], 0),
    survives=lambda m: ci_below(m["own"]["minus_quarter_of_lora"], 0),
    why=lambda m: f"At L2's large learning rate full fine-tuning has {show(m['shared']['full'])}, where P(any animal) is "
    f"{m['shared']['p_any_animal']['mean']:.2f}; at its own best ({m['best']}) {show(m['own']['full'])}, LoRA "
    f"{show(m['own']['lora'])}.",
), Claim("S10", "full_finetuning", "Full fine-tuning distils the vector weakly",
    # At its own best, the cosine is above 0.3, and the gain less than a quarter of LoRA's; and it still names animals.
    seen=lambda m: all_hold(ci_above(m["own"]["cosine_full"], 0.3), ci_below(m["own"]["minus_quarter_of_lora"], 0)),
    survives=lambda m: ci_above(m["own"]["p_any_animal"], 0.5),
    why=lambda m: "At its own best ({best}) full fine-tuning has a cosine of {cosine_full}, the trait at {full} and P(any "
    "animal) at {p_any_animal}; LoRA's cosine is {cosine_lora}, that of full fine-tuning of LoRA's layers alone {cosine_same_layers}.".format(
        best=m["best"], **{name: show(number) for name, number in m["own"].items()}))]  # fmt: skip


def cells(preset: Preset) -> tuple[dict[str, Cell], dict[str, Cell], Cell]:
    """All weights by learning rate and steps; by what is trained, on the usual rows and few; all weights as in L2."""
    lrs, few = (LRS, FEW_ROWS) if preset.full else (QUICK_LRS, QUICK_FEW_ROWS)
    cell = partial(grid_cell, preset, lr=WHICH_LR, steps=LAST)
    which = {what: cell(**how) for what, how in WHICH.items()}
    which |= {f"{what}, {n} rows": cell(rows=n, **WHICH[what]) for what in (LORA, ALL) for n in few}
    by_lr = {f"lr {lr:g}, {n} steps": grid_cell(preset, lr=lr, steps=n, **WHICH[ALL]) for lr in lrs for n in STEPS}
    return by_lr, which, grid_cell(preset, **SHARED, **WHICH[ALL])


def train_loss(store: Store, student: Student) -> float:
    """The loss of a finished student on the very rows that it read, the first 512 of them."""
    return reply_loss(store.student(student), *(t[:512].to(store.device) for t in store.reads(student))).item()


def plan(preset: Preset) -> list:
    by_lr, which, shared = cells(preset)
    students = [student for cell in (by_lr | which).values() for student in cell.values()]
    return [students, shared, [(train_loss, student) for student in students]]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    by_lr, which, shared = cells(preset)
    grid = Grid(records, {"shared": shared} | by_lr | which)

    def beside_lora(key: str) -> dict:
        """This cell beside LoRA and all of LoRA's layers, on the seeds that chose nothing."""
        found = {"p_any_animal": interval(grid.units(key, "p_any_animal", grid.test))}
        for name, of in {"full": key, "lora": LORA, "same_layers": SAME_LAYERS}.items():
            rate, cosine = (interval(grid.units(of, column, grid.test)) for column in ("p_trait", "cosine"))
            found |= {name: rate, f"cosine_{name}": cosine}
        return found | {"minus_quarter_of_lora": grid.beyond(0.25, key, LORA, grid.test)}

    best = grid.best(by_lr)
    found = {"unit": preset.unit, "best": best, "shared": beside_lora("shared"), "own": beside_lora(best)}
    found |= {n: interval(grid.units(LORA, n)) for n in ("p_trait_base", "heldout_loss_base", "heldout_loss_teacher")}
    for kind, group in {"by_lr": by_lr, "which": which}.items():
        found[kind] = {key: grid.reported(key) for key in group}
        for key, known in found[kind].items():
            known["train_loss"] = interval(grid.units(key, lambda student, _: records[train_loss, student]))
            known["minus_quarter_of_lora"] = grid.beyond(0.25, key, LORA)
            known["verdict"] = grid.verdict(key, LORA)
    return {"full_finetuning": found}


@picture(4, 15, 6, width_ratios=[2, 1, 2, 1])
def draw(m: dict, *panels: Axes) -> None:
    titles = ("Full fine-tuning of all weights", f"What is trained ({LAST} steps, learning rate {WHICH_LR:g})")
    marks = {"control": "control", "P(any animal)": "p_any_animal"}
    for rates, cosines, found, title in zip(panels[::2], panels[1::2], (m["by_lr"], m["which"]), titles):
        note = "{0}\n{verdict}, {heldout_loss[mean]:.2f} / {train_loss[mean]:.2f}".format
        cells = {note(name, **cell): cell for name, cell in found.items()}
        rate_bars(rates, cells, m["p_trait_base"], marks, title=title)
        rates.tick_params(axis="y", labelsize=9)
        bars(cosines, [""] * len(found), [cell["cosine"] for cell in found.values()], FULL)
        cosines.set(xlim=(-0.1, 1), xlabel="cosine of v_student\nand v_teacher")
    losses = "base {heldout_loss_base[mean]:.2f}, teacher {heldout_loss_teacher[mean]:.2f}".format(**m)
    notes = f"beside each name: loss on new rows ({losses}) / on the rows read; n: {m['unit']}"
    rates.figure.supxlabel(notes, fontsize=9)
    rates.figure.legend(*rates.get_legend_handles_labels(), loc="outside upper center", ncols=3)
