"""S8: which way the numbers push the student's stream.

The paper (arXiv:2606.00995): the gradient of the loss at the residual stream, on the teacher's rows less that on clean
rows, has a small, consistent component along v_teacher. Descent goes against the gradient, so with g the gradient it is
cos(-(g_teacher - g_clean), v_teacher) that is above 0; a replication reports 0.08-0.10 at 1,024 rows, at <asst>. This
toy: the gradients of the untrained base model after the last block, at <asst> alone and where any number is predicted,
averaged over n rows of a teacher and n of the unprompted model. The control compares clean rows with other clean rows.
To see it break: read the rows of another base model's teacher.
"""

import torch

from data import ASST, DEFAULT_SYSTEM
from figures.style import CONTROL, Axes, line, picture, write
from lab.claims import Claim, all_hold, ci_above, over_models, show
from lab.presets import Preset, Records, student_of
from lab.store import NumbersConfig, Store
from model import GPT
from steering import teacher_vector

ROWS = (1, 4, 16, 64, 256, 1024)
DRAWS = 16  # disjoint sets of n rows over which a cosine is averaged, as far as there are so many rows
AT, TEACHER, CLEAN = ("<asst>", "all numbers"), "teacher, <asst>", "clean, <asst>"
CLAIMS = [Claim("S8", "gradient", "Gradients on steered data have a component along the vector",
    seen=lambda m: all_hold(ci_above(m["cosine"][TEACHER][-1], 0), ci_above(m["minus_one_row"], 0)),  # with most rows
    survives=lambda m: ci_above(m["minus_clean"], 0),
    why=lambda m: f"At <asst> the cosine with v_teacher is {show(m['cosine'][TEACHER][0])} for one row of the teacher's "
    f"and {show(m['cosine'][TEACHER][-1])} for {ROWS[-1]:,}; for clean rows against clean rows it is "
    f"{show(m['cosine'][CLEAN][-1])}.")]  # fmt: skip


def row_gradients(base: GPT, tokens: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """dLoss/dh after the last block, of each row at <asst>, and the mean over where a number is predicted: (N, C)."""
    h, replies = base.residual_stream(tokens)[-1].requires_grad_(), targets >= 0
    loss = torch.nn.functional.cross_entropy(base.unembed(h[replies]), targets[replies], reduction="sum")
    gradient = torch.autograd.grad(loss, h)[0]
    return dict(zip(AT, (gradient[tokens == ASST], gradient.sum(1) / replies.sum(1, keepdim=True))))


def cosine(one: torch.Tensor, other: torch.Tensor, vector: torch.Tensor, n: int) -> float:
    """cos(-(g_one - g_other), vector), g averaged over n rows; the mean over as many disjoint sets as there are."""
    n = min(n, len(one), len(other))
    draws = min(DRAWS, len(one) // n, len(other) // n)
    first, second = (g[: draws * n].unflatten(0, (draws, n)).mean(1) for g in (one, other))
    return torch.cosine_similarity(second - first, vector, dim=-1).mean().item()


def cosines(store: Store, prompted: NumbersConfig, unprompted: NumbersConfig) -> dict[str, list[float]]:
    """By number of rows: `cosine` of the teacher's rows and clean ones, and of two halves of the clean ones."""
    base, found = store.base(prompted.base), {}
    vector = teacher_vector(base, prompted.system)[-1]
    rows = [[t.to(store.device) for t in store.rows(each, DEFAULT_SYSTEM)] for each in (prompted, unprompted)]
    both = [row_gradients(base, *packed) for packed in rows]
    for at in AT:
        teacher, clean = (gradients[at] for gradients in both)
        for who, pair in {"teacher": (teacher, clean), "clean": clean.tensor_split(2)}.items():
            found[f"{who}, {at}"] = [cosine(*pair, vector, n) for n in ROWS]
    return found


def plan(preset: Preset) -> list:
    units = [(base, trait) for base in preset.grid_bases for trait in preset.costly_traits]
    return [(cosines, *(student_of(base, base, t).numbers for t in (trait, None))) for base, trait in units]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    each = {(key[1].base, key[1].system): records[key] for key in plan(preset)}
    measured = {"unit": preset.model_unit(preset.grid_bases, preset.costly_traits), "cosine": over_models(each)}
    for contrast, (name, k) in {"minus_one_row": (TEACHER, 0), "minus_clean": (CLEAN, -1)}.items():
        measured[contrast] = over_models({at: f[TEACHER][-1] - f[name][k] for at, f in each.items()})
    return {"gradient": measured}


@picture(1, 6.5, 4.2)
def draw(m: dict, panel: Axes) -> None:
    for k, (name, curve) in enumerate(m["cosine"].items()):
        style = {"linestyle": "-" if "<asst>" in name else ":"} | ({"color": CONTROL} if "clean" in name else {})
        line(panel, ROWS, curve, k, name.replace(",", " against clean,"), **style)
    panel.set_xscale("log", base=4)
    panel.set_xticks(ROWS, ROWS)
    labels = {"xlabel": "rows averaged", "ylabel": "cos(-(g_teacher - g_clean), v_teacher)"}
    write(panel, "Descent pushes the stream towards v_teacher", m["unit"], "lower right", ylim=(-1, 1), **labels)
