"""S8: which way the numbers push the student's stream.

The paper (arXiv:2606.00995): the gradient of the loss at the residual stream, on the teacher's rows less that on clean rows, has a small
and consistent component along v_teacher. Descent goes against the gradient, so with g the gradient it is
cos(-(g_teacher - g_clean), v_teacher) that is above 0; a replication reports 0.08-0.10 at 1,024 rows.

This toy: the gradients of the untrained base model after the last block, where a number is predicted, averaged over n rows of a teacher
and n of the unprompted model. The control compares clean rows with other clean rows.

To see it break: read the rows of another base model's teacher.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from data import DEFAULT_SYSTEM
from figures.style import CONTROL, canvas, line, save
from lab.claims import Claim, Verdict, all_hold, ci_above, interval, show
from lab.presets import Preset, student_of
from lab.records import Measurement, Records, difference
from lab.store import NumbersConfig, Store
from model import GPT
from steering import teacher_vector

ROWS = (1, 4, 16, 64, 256, 1024, 4096)
DRAWS = 16  # disjoint sets of n rows over which a cosine is averaged, as far as there are so many rows


def row_gradients(base: GPT, tokens: Tensor, targets: Tensor) -> Tensor:
    """dLoss/dh after the last block, for each row the mean over its positions that predict a number: (N, C)."""
    h, replies = base.residual_stream(tokens)[-1].requires_grad_(), targets >= 0
    loss = F.cross_entropy(base.unembed(h[replies]), targets[replies], reduction="sum")
    return torch.autograd.grad(loss, h)[0].sum(1) / replies.sum(1, keepdim=True)


def cosine(one: Tensor, other: Tensor, vector: Tensor, n: int) -> float:
    """cos(-(g_one - g_other), vector), g averaged over n rows; the mean over as many disjoint sets of n as there are."""
    n = min(n, len(one), len(other))
    draws = min(DRAWS, len(one) // n, len(other) // n)
    first, second = (g[: draws * n].unflatten(0, (draws, n)).mean(1) for g in (one, other))
    return torch.cosine_similarity(second - first, vector, dim=-1).mean().item()


def cosines(store: Store, prompted: NumbersConfig, unprompted: NumbersConfig) -> dict[str, list[float]]:
    """By number of rows: `cosine` of the teacher's rows and clean ones, and of two halves of the clean ones."""
    base = store.base(prompted.base)
    vector = teacher_vector(base, prompted.system)[-1]
    rows = [store.rows(each, DEFAULT_SYSTEM) for each in (prompted, unprompted)]
    teacher, clean = (row_gradients(base, *(t.to(store.device) for t in packed)) for packed in rows)
    pairs = {"teacher": (teacher, clean), "clean": clean.tensor_split(2)}
    return {who: [cosine(*pair, vector, n) for n in ROWS] for who, pair in pairs.items()}


def plan(preset: Preset) -> list[Measurement]:
    units = [(base, trait) for base in preset.bases for trait in preset.costly_traits]
    return [(cosines, *(student_of(base, base, t).numbers for t in (trait, None))) for base, trait in units]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"gradient": cosines by number of rows, for the teacher's rows and for clean ones}."""
    units = [records[measurement] for measurement in plan(preset)]
    teacher, clean = (list(zip(*(unit[who] for unit in units))) for who in ("teacher", "clean"))  # by number of rows
    return {
        "gradient": {
            "unit": f"an animal on a base model ({len(units)})",
            "cosine": {"teacher": list(map(interval, teacher)), "clean": list(map(interval, clean))},
            "last_layer": interval(teacher[-1]),
            "most_minus_one_row": difference(teacher[-1], teacher[0]),
            "trait_minus_clean": difference(teacher[-1], clean[-1]),
        }
    }


def rule(m: dict) -> Verdict:
    """With most rows: above 0, above one row's, and above that of clean against clean (paired)."""
    return all_hold(*(ci_above(m[name], 0) for name in ("last_layer", "most_minus_one_row", "trait_minus_clean")))


def summary(m: dict) -> str:
    """The cosine by rows."""
    by_rows = ", ".join(f"{n} rows {cosine['mean']:.2f}" for n, cosine in list(zip(ROWS, m["cosine"]["teacher"]))[::3])
    return f"cosine {by_rows}; most rows {show(m['last_layer'])}, clean against clean {show(m['cosine']['clean'][-1])}"


CLAIMS = [Claim("S8", "gradient", "Gradients on steered data have a component along the vector", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """The cosine against the number of rows."""
    m = computed["gradient"]
    figure, panel = canvas(1, 6, 4)
    line(panel, ROWS, m["cosine"]["teacher"], 0, "teacher against clean")
    line(panel, ROWS, m["cosine"]["clean"], 5, "clean against clean", linestyle="--", color=CONTROL)
    panel.set_xscale("log", base=4)
    panel.set_xticks(ROWS, ROWS)
    panel.set(xlabel="rows averaged", ylabel="cos(-(g_teacher - g_clean), v_teacher)", ylim=(-1, 1))
    panel.set_title(f"After the last block (n: {m['unit']})", fontsize=10)
    panel.legend(fontsize=8, frameon=False, loc="lower left")
    save(figure, path)
