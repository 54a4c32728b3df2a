"""S3 and S4: the student learns the teacher's vector, and the vector is the trait.

The paper (arXiv:2606.00995): v_student = mean over number prompts of h(student) - h(base) turns towards v_teacher as training goes on,
to a cosine of 0.7-0.9, while a control student, of clean numbers, stays near 0.1. Added to the base model it raises the trait; replaced by the
base's component in the student, it takes the trait away.

This toy: every trait on every base model. Left, the cosine as training goes on, after each block. Middle, each student's vector
against the vectors of all teachers: the diagonal should win every row. Right, on the trait questions, in log-odds: what the
student gained, what the base gains from v_student after one block or after all, and what the student keeps without it. After the
last block the vector gives nearly all of the gain; added after both, what the first causes is counted twice.

To see it break: compare v_student with another base model's v_teacher.
"""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from claims import Claim, Verdict, around_zero, every, interval, mean, over, show, under
from data import (
    ANIMAL_TOKENS,
    ANIMALS,
    DEFAULT_SYSTEM,
    LOVE_SYSTEM,
    chat,
    number_conversations,
)
from evaluate import Preset, student_of
from figures.localization import QUESTIONS
from figures.style import CONTROL, STUDENT, bars, canvas, line, save
from figures.teacher_vector import REPLY, vectors
from model import GPT, by_length
from steering import added, mean_difference, random_like, replaced, stream_at
from train import Lab, StudentConfig, animal_rates

SNAPSHOTS = (1, 2, 5, 10, 20, 40)
READ = number_conversations(DEFAULT_SYSTEM, 128, "to extract")  # where v_teacher and v_student are read


def configs(preset: Preset) -> dict[tuple, StudentConfig]:
    """By base and trait, with snapshots."""
    return {
        (base, trait): replace(student_of(base, base, trait), snapshots=SNAPSHOTS)
        for base in preset.bases
        for trait in preset.traits
    }


def controls(preset: Preset) -> dict[tuple, StudentConfig]:
    """As many students of untold teachers: for each trait another seed and other rows, or one accident would count many times."""
    chosen = {}
    for base, trait in configs(preset):
        seed, control = 1 + ANIMALS.index(trait), student_of(base, base, None)
        chosen[base, trait] = replace(
            control, numbers=replace(control.numbers, seed=seed), seed=seed, snapshots=SNAPSHOTS
        )
    return chosen


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures."""
    return [*configs(preset).values(), *controls(preset).values()]


def log_odds(p: float) -> float:
    """ln(p / (1 - p))."""
    return torch.logit(torch.tensor(p, dtype=torch.float64), eps=1e-9).item()


def student_vectors(student: GPT, base: GPT) -> Tensor:
    """v_student, read where v_teacher is: the mean of h(student) - h(base) at <asst> and the reply's numbers, (L + 1, C)."""
    return mean_difference(*(stream_at(model, READ, REPLY + 1) for model in (student, base)))


@torch.no_grad()
def prompt_mean(model: GPT, prompts: list[list[int]]) -> Tensor:
    """The residual stream, averaged over all positions of all prompts: (L + 1, C)."""
    total = model.token_embedding.weight.new_zeros(model.config.n_layer + 1, model.config.d_model)
    for _, tokens in by_length(prompts):
        total += torch.stack([h.mean(1).sum(0) for h in model.residual_stream(tokens.to(total.device))])
    return total / len(prompts)


@torch.no_grad()
def without(student: GPT, base: GPT, vector: dict[int, Tensor], trait: str) -> float:
    """P(trait) of the student with its component along the vectors replaced by the base's."""
    total = 0.0
    for question in QUESTIONS:
        tokens = torch.tensor([chat(DEFAULT_SYSTEM, question)], device=base.device)
        with replaced(student, vector, base, tokens):
            total += student(tokens)[0, -1].softmax(-1)[ANIMAL_TOKENS[ANIMALS.index(trait)]].item()
    return total / len(QUESTIONS)


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"alignment": cosines by step and layer, the matrix, "student_vector_causal": log-odds added and removed}."""
    layers = range(1, preset.bases[0].model.n_layer + 1)
    steps = (*SNAPSHOTS, students(preset)[0].steps)
    cosines = {(who, step, layer): [] for who in ("student", "control") for step in steps for layer in layers}
    matrices, rows = [], []
    told, untold = configs(preset), controls(preset)
    for config in preset.bases:
        base, generator = lab.base(config), torch.Generator().manual_seed(config.seed)
        teachers = {t: vectors(base, LOVE_SYSTEM.format(t), generator)["reply"] for t in preset.traits}
        matrix = []
        for trait in preset.traits:
            run = lab.snapshots(told[config, trait])
            found = {("student", step): student_vectors(student, base) for step, student in run.items()}
            for step, student in lab.snapshots(untold[config, trait]).items():
                found["control", step] = student_vectors(student, base)
            for (who, step), vector in found.items():
                for layer in layers:
                    cosine = F.cosine_similarity(vector[layer], teachers[trait][layer], dim=0)
                    cosines[who, step, layer].append(cosine.item())
            last = found["student", steps[-1]][-1]
            matrix.append([F.cosine_similarity(last, teachers[t][-1], dim=0).item() for t in preset.traits])
            rows.append(_causal(base, run[steps[-1]], trait, generator) | {"base": config.seed})
        matrices.append(matrix)

    n = len(preset.traits)
    top = [sum(max(row) == row[k] for k, row in enumerate(matrix)) for matrix in matrices]
    unit = f"a trait on a base model ({len(rows)})"

    def gains(name: str) -> dict:
        return interval(row[name] for row in rows)

    return {
        "alignment": {
            "unit": unit,
            "traits": n,
            "curve": {
                who: {
                    str(layer): {str(step): interval(cosines[who, step, layer]) for step in steps} for layer in layers
                }
                for who in ("student", "control")
            },
            "last_layer": interval(cosines["student", steps[-1], layers[-1]]),
            "control": interval(cosines["control", steps[-1], layers[-1]]),
            "matrix": [[mean(matrix[i][j] for matrix in matrices) for j in range(n)] for i in range(n)],
            "order": list(preset.traits),
            "diagonal_wins": top,
        },
        "student_vector_causal": {
            "unit": unit,
            **{name: gains(name) for name in rows[0] if name not in ("trait", "base")},
            "added_minus_80": interval(row["added, all blocks"] - 0.8 * row["student"] for row in rows),
            "removed_minus_80": interval(0.2 * row["student"] - row["replaced, all blocks"] for row in rows),
            "random_minus_half": interval(row["random, added"] - 0.5 * row["student"] for row in rows),
            "each": rows,
        },
    }


def _causal(base: GPT, student: GPT, trait: str, generator: torch.Generator) -> dict:
    """Gains in log-odds of the trait over the base model, on the trait questions."""
    k = ANIMALS.index(trait)
    numbers = [prompt[:-REPLY] for prompt in READ]
    v = prompt_mean(student, numbers) - prompt_mean(base, numbers)
    noise = random_like(v, generator)
    start = log_odds(animal_rates(base)[k].item())
    blocks = range(1, len(v))

    def add(vector: Tensor, layers) -> float:
        with added(base, {layer: vector[layer] for layer in layers}):
            return log_odds(animal_rates(base)[k].item()) - start

    def remove(vector: Tensor, layers) -> float:
        rate = without(student, base, {layer: vector[layer] for layer in layers}, trait)
        return log_odds(rate) - start

    return {
        "trait": trait,
        "student": log_odds(animal_rates(student)[k].item()) - start,
        **{f"added, block {layer}": add(v, [layer]) for layer in blocks},
        "added, all blocks": add(v, blocks),
        "random, added": add(noise, blocks),
        **{f"replaced, block {layer}": remove(v, [layer]) for layer in blocks},
        "replaced, all blocks": remove(v, blocks),
        "random, replaced": remove(noise, blocks),
    }


def aligned(m: dict) -> Verdict:
    """Cosine above 0.8 after the last block, the control's interval around 0, 15 of 16 rows won on every base model."""
    wins = all(top >= m["traits"] * 15 / 16 for top in m["diagonal_wins"])
    return every(over(m["last_layer"], 0.8), around_zero(m["control"]), wins)


def aligned_summary(m: dict) -> str:
    """Cosines at the last layer, and the rows that the diagonal wins."""
    wins = ", ".join(map(str, m["diagonal_wins"]))
    return f"cosine {show(m['last_layer'])}, control {show(m['control'])}; diagonal wins {wins} of {m['traits']} rows"


def causal(m: dict) -> Verdict:
    """Added after every block: 80% of the gain in log-odds. Replaced there: 80% of it gone. Random vectors: not half."""
    return every(over(m["added_minus_80"], 0), over(m["removed_minus_80"], 0), under(m["random_minus_half"], 0))


def causal_summary(m: dict) -> str:
    """Gains in log-odds over the base model."""
    return (
        f"log-odds gained: student {show(m['student'])}, base + v_student {show(m['added, all blocks'])}, "
        f"student with v_student replaced {show(m['replaced, all blocks'])}, base + random {show(m['random, added'])}"
    )


CLAIMS = [
    Claim("S3", "alignment", "The student learns a vector aligned with the teacher's", aligned, aligned_summary),
    Claim(
        "S4", "student_vector_causal", "That vector is sufficient and necessary in the student", causal, causal_summary
    ),
]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Cosines over training; the matrix; log-odds added and removed."""
    alignment, causes = computed["alignment"], computed["student_vector_causal"]
    figure, (curve, matrix, log) = canvas(3, 16, 4.8, width_ratios=[1, 1.15, 1])
    for k, (layer, by_step) in enumerate(alignment["curve"]["student"].items()):
        steps = [int(step) for step in by_step]
        line(curve, steps, list(by_step.values()), k, f"student, after block {layer}")
        control = list(alignment["curve"]["control"][layer].values())
        line(curve, steps, control, k, f"control, after block {layer}", linestyle=":", markersize=3)
    curve.axhline(0, color="black", linewidth=0.8)
    curve.set_xscale("log")
    curve.set_xticks(steps, steps)
    curve.set_ylim(-1, 1.02)
    curve.set_xlabel("training steps")
    curve.set_ylabel("cosine of v_student and v_teacher")
    curve.set_title(f"(n: {alignment['unit']})", fontsize=10)
    curve.legend(fontsize=7, frameon=False, ncols=2, loc="lower right")

    image = matrix.imshow(alignment["matrix"], vmin=-1, vmax=1, cmap="PuOr")
    names = alignment["order"]
    matrix.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    matrix.set_yticks(range(len(names)), names, fontsize=8)
    matrix.set_xlabel("v_teacher of")
    matrix.set_ylabel("v_student of the student of")
    wins = ", ".join(map(str, alignment["diagonal_wins"]))
    matrix.set_title(
        f"After the last block: mean over base models\n(diagonal largest in {wins} of {len(names)} rows)", fontsize=10
    )
    figure.colorbar(image, ax=matrix, label="cosine", shrink=0.8)

    shown = {name: number for name, number in causes.items() if name == "student" or "," in name}
    bars(log, list(shown), list(shown.values()), STUDENT)
    log.axvline(causes["student"]["mean"], color=STUDENT, linestyle="--", linewidth=1)
    log.axvline(0, color=CONTROL, linewidth=1)
    log.set_xlabel("log-odds of the trait, gained over the base model")
    log.set_title("v_student added to the base model,\nreplaced in the student", fontsize=10)
    save(figure, path)
