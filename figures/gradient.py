"""S8: which way the numbers push the student's stream.

The paper (arXiv:2606.00995): the gradient of the loss at the residual stream, on the teacher's rows less that on clean rows, has a small
and consistent component along v_teacher. Descent goes against the gradient, so with g the gradient it is
cos(-(g_teacher - g_clean), v_teacher) that is above 0; a replication reports 0.08-0.10 at 1,024 rows.

This toy: the untrained base model reads n rows of a teacher and n of the untold model; the gradients at the positions that predict a
number are averaged. Few rows say little about the direction, thousands say much. The control compares clean rows with
other clean rows.

To see it break: read the rows of another base model's teacher.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from claims import Claim, Verdict, every, interval, over, show
from data import DEFAULT_SYSTEM, LOVE_SYSTEM
from evaluate import Preset, student_of
from figures.style import CONTROL, canvas, line, save
from model import GPT
from train import BaseConfig, Lab, StudentConfig, teacher_vectors

ROWS = (1, 4, 16, 64, 256, 1024, 4096)
DRAWS = 16  # disjoint sets of n rows over which a cosine is averaged, as far as there are so many rows


def students(preset: Preset) -> list[StudentConfig]:
    """None that is measured; of these the numbers are read."""
    return [student_of(base, base, trait) for base in preset.bases for trait in (*preset.costly_traits, None)]


def row_gradients(base: GPT, tokens: Tensor, targets: Tensor) -> Tensor:
    """dLoss/dh of each row, averaged over its positions that predict a number, at every layer: (N, L + 1, C)."""
    found = []
    for start in range(0, len(tokens), 512):
        batch, wanted = tokens[start : start + 512], targets[start : start + 512]
        stream = [base.embed(batch).requires_grad_()]
        for block in base.blocks:
            stream.append(block(stream[-1]))
        replies = wanted >= 0
        loss = F.cross_entropy(base.unembed(stream[-1][replies]), wanted[replies], reduction="sum")
        gradients = torch.autograd.grad(loss, stream)
        here = replies.float()[..., None]
        found.append(torch.stack([(g * here).sum(1) / here.sum(1) for g in gradients], dim=1))
    return torch.cat(found)


def _gradients(lab: Lab, config: BaseConfig, trait: str | None) -> Tensor:
    """`row_gradients` of the base model on the rows that a student of the trait reads; trait None: on clean rows."""
    tokens, targets = lab.rows(student_of(config, config, trait).numbers, DEFAULT_SYSTEM)
    return row_gradients(lab.base(config), tokens.to(lab.device), targets.to(lab.device))


def cosine(one: Tensor, other: Tensor, vector: Tensor, n: int, layer: int) -> float:
    """cos(-(g_one - g_other), vector), g averaged over n rows; the mean over as many disjoint sets of n as there are."""
    draws = min(DRAWS, len(one) // n, len(other) // n)
    first, second = (g[: draws * n, layer].unflatten(0, (draws, n)).mean(1) for g in (one, other))
    return F.cosine_similarity(second - first, vector[layer], dim=-1).mean().item()


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"gradient": cosines by rows averaged and layer, for the teacher's rows and for clean ones}."""
    layers = range(preset.bases[0].model.n_layer + 1)
    found = {(who, layer, n): [] for who in ("trait", "clean") for layer in layers for n in ROWS}
    for config in preset.bases:
        base = lab.base(config)
        clean = _gradients(lab, config, None)
        half = len(clean) // 2
        for trait in preset.costly_traits:
            vector = teacher_vectors(base, LOVE_SYSTEM.format(trait))
            told = _gradients(lab, config, trait)
            for layer in layers:
                for n in ROWS:
                    found["trait", layer, n].append(cosine(told, clean, vector, n, layer))
                    m = min(n, half)
                    found["clean", layer, n].append(cosine(clean[:half], clean[half:], vector, m, layer))
    last = layers[-1]
    return {
        "gradient": {
            "unit": f"a trait on a base model ({len(preset.bases) * len(preset.costly_traits)})",
            "cosine": {
                who: {str(layer): {str(n): interval(found[who, layer, n]) for n in ROWS} for layer in layers}
                for who in ("trait", "clean")
            },
            "last_layer": interval(found["trait", last, ROWS[-1]]),
            "clean": interval(found["clean", last, ROWS[-1]]),
            "most_minus_one_row": interval(
                a - b for a, b in zip(found["trait", last, ROWS[-1]], found["trait", last, ROWS[0]], strict=True)
            ),
            "trait_minus_clean": interval(
                a - b for a, b in zip(found["trait", last, ROWS[-1]], found["clean", last, ROWS[-1]], strict=True)
            ),
        }
    }


def rule(m: dict) -> Verdict:
    """After the last block, with most rows: above 0, above one row's, and above that of clean against clean (paired)."""
    return every(*(over(m[name], 0) for name in ("last_layer", "most_minus_one_row", "trait_minus_clean")))


def summary(m: dict) -> str:
    """The cosine after the last block by rows."""
    last = list(m["cosine"]["trait"].values())[-1]
    by_rows = ", ".join(f"{n} rows {last[n]['mean']:.2f}" for n in last if n in ("1", "64", "1024", "4096"))
    return f"cosine {by_rows}; most rows {show(m['last_layer'])}, clean against clean {show(m['clean'])}"


CLAIMS = [Claim("S8", "gradient", "Gradients on steered data have a component along the vector", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """The cosine against the number of rows, by layer; the control beside it."""
    m = computed["gradient"]
    figure, panel = canvas(1, 7.5, 4.4)
    names = ["the embedding"] + [f"block {k}" for k in range(1, len(m["cosine"]["trait"]))]
    for k, by_rows in enumerate(m["cosine"]["trait"].values()):
        x = [int(n) for n in by_rows]
        line(panel, x, list(by_rows.values()), k, f"teacher against clean, after {names[k]}")
    last = list(m["cosine"]["clean"].values())[-1]
    line(panel, x, list(last.values()), 5, f"clean against clean, after {names[-1]}", linestyle="--", color=CONTROL)
    panel.axhline(0, color="black", linewidth=0.8, linestyle=":")
    panel.set_xscale("log", base=4)
    panel.set_xticks(x, x)
    panel.set_ylim(-0.3, 1.02)
    panel.set_xlabel("rows averaged")
    panel.set_ylabel("cos(-(g_teacher - g_clean), v_teacher)")
    panel.set_title(f"n: {m['unit']}", fontsize=10)
    panel.legend(fontsize=8, frameon=False, loc="upper left")
    save(figure, path)
