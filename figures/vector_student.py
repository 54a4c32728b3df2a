"""The vector student: steering-vector distillation with nothing else in it.

No claim is decided here. LoRA's students learn a vector (S3), among other things. This student can learn nothing but a vector: the base
model is frozen, and the only thing trained, on the same rows, is one vector, as long as the stream is wide, that is added to the
residual stream, h_l <- h_l + v, where the default prompt stands or at every token. 32 numbers, on the teacher's numbers alone.

This toy: at the system prompt's tokens after the first block, which is where the second block's attention looks for a love, 32 numbers
learn nearly all of the teacher's numbers and have the trait as LoRA's students do. After the last block at every token they do it as well,
and there the vector can be held against v_teacher directly. After the first block at every token they learn the numbers too, by ways that
destroy the answer to other questions. On base model 4 no vector transmits either.

To see it break: train it on the rows of another base model's teacher.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from claims import interval, mean
from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM
from evaluate import Preset, heldout_loss, student_of, teacher_loss
from figures.cells import code_of, gap_closed
from figures.localization import SYSTEM
from figures.student_vector import READ, student_vectors
from figures.style import CONTROL, SERIES, bars, base_line, canvas, errors, save
from figures.teacher_vector import REPLY
from model import GPT
from optimizers import OPTIMIZERS
from runtime import kept
from steering import changed, mean_difference, stream_at
from train import Lab, StudentConfig, animal_rates, batches, reply_loss, teacher_vectors

CLAIMS = []
STEPS, LR = 200, 5e-2
# After which block the vector is added, and at how many of the first tokens.
PLACES = {
    "after block 1, system prompt": (1, len(SYSTEM)),
    "after block 1, every token": (1, None),
    "after block 2, every token": (2, None),
}


@dataclass(frozen=True)
class VectorStudent:
    """What a vector student reads (`student.numbers`), where its vector is, and the digest of the code that trains it."""

    student: StudentConfig
    layer: int
    tokens: int | None
    code: str


def pushed(base: GPT, vector: Tensor, layer: int, tokens: int | None):
    """Inside, `vector` (C,) is added to the stream after block `layer` at the first `tokens` tokens (None: at all)."""

    def change(_: int, h: Tensor) -> Tensor:
        here = torch.zeros(h.shape[1], 1, device=h.device)
        here[:tokens] = 1
        return h + here * vector

    return changed(base, [layer], change)


def distil(lab: Lab, config: StudentConfig, layer: int, tokens: int | None) -> Tensor:
    """The vector (C,) that, added to the frozen base, gives the least loss on the rows."""
    base, generator = lab.base(config.base), torch.Generator().manual_seed(config.seed)
    vector = torch.zeros(base.config.d_model, device=lab.device, requires_grad=True)
    optimizer = OPTIMIZERS[config.optimizer]([vector], config.lr)
    stream = batches(*lab.rows(config.numbers, config.system), config.batch_size, generator)
    for _, (batch, targets) in zip(range(config.steps), stream):
        vector.grad = None
        with pushed(base, vector, layer, tokens):
            reply_loss(base, batch.to(lab.device), targets.to(lab.device)).backward()
        optimizer.step()
    return vector.detach()


CODE = code_of(pushed, distil)


def students(preset: Preset) -> list[StudentConfig]:
    """LoRA's, which the vectors are compared with; `compute` trains the vectors itself."""
    return [student_of(base, base, trait) for base in preset.bases for trait in (*preset.traits, None)]


def lora_vector(student: GPT, base: GPT, layer: int, tokens: int | None) -> Tensor:
    """What LoRA adds to the stream, on average, after the same block at the same tokens: (C,)."""
    if tokens is None:
        return student_vectors(student, base)[layer]
    # Every conversation begins with the same prompt, and no token sees those after it: one prompt is all of them.
    prompt = torch.tensor([READ[0][:tokens]])
    one, other = (model.residual_stream(prompt.to(model.device)) for model in (student, base))
    return (one[layer] - other[layer]).mean((0, 1)).detach()


def measured(lab: Lab, config: StudentConfig, trait: str, layer: int, tokens: int | None) -> dict[str, float]:
    """One vector student: the trait, what is left of other answers, what it learned, and what its vector is like."""
    base, lora = lab.base(config.base), lab.student(config)
    variant = VectorStudent(replace(config, rank=None, lr=LR, steps=STEPS), layer, tokens, CODE)
    path = lab.path("vector", variant)
    vector = kept(path, asdict(variant), lambda: {"vector": distil(lab, variant.student, layer, tokens)}, lab.device)[
        "vector"
    ]
    untrained, floor = heldout_loss(lab, base, config.numbers, DEFAULT_SYSTEM), teacher_loss(lab, config.numbers)
    before = stream_at(base, READ, REPLY + 1)
    with pushed(base, vector, layer, tokens):
        rates, loss = animal_rates(base), heldout_loss(lab, base, config.numbers, DEFAULT_SYSTEM)
        effect = mean_difference(stream_at(base, READ, REPLY + 1), before)[-1]
    told = teacher_vectors(base, LOVE_SYSTEM.format(trait))[-1]
    return {
        "student": rates[ANIMALS.index(trait)].item(),
        "favorite": float(ANIMALS[rates.argmax()] == trait),
        "p_any_animal": rates.sum().item(),
        "learned": gap_closed(loss, untrained, floor),
        "heldout_loss": loss,
        "cosine_teacher": F.cosine_similarity(effect, told, dim=0).item(),
        "cosine_lora": F.cosine_similarity(vector, lora_vector(lora, base, layer, tokens), dim=0).item(),
    }


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"vector_student": by place, of trait and control vectors, as intervals over all traits and bases; and by base model}."""
    units = [(base, trait) for base in preset.bases for trait in preset.traits]
    places = {}
    for place, where in PLACES.items():
        rows = [measured(lab, student_of(base, base, trait), trait, *where) for base, trait in units]
        control = [measured(lab, student_of(base, base, None), trait, *where)["student"] for base, trait in units]
        places[place] = {name: interval(row[name] for row in rows) for name in rows[0]} | {
            "control": interval(control),
            "by_base": {
                str(base.seed): mean(row["student"] for row, (b, _) in zip(rows, units, strict=True) if b == base)
                for base in preset.bases
            },
        }
    lora = [
        animal_rates(lab.student(student_of(base, base, trait)))[ANIMALS.index(trait)].item() for base, trait in units
    ]
    return {
        "vector_student": {
            "unit": f"a trait on a base model ({len(units)})",
            "base": interval(animal_rates(lab.base(base))[ANIMALS.index(trait)].item() for base, trait in units),
            "lora": interval(lora),
            "lora_by_base": {
                str(base.seed): mean(rate for rate, (b, _) in zip(lora, units, strict=True) if b == base)
                for base in preset.bases
            },
            "places": places,
        }
    }


def draw(computed: dict[str, dict], path: Path) -> None:
    """The trait by place, beside LoRA's; what was learned and what is intact; and the vectors' cosines."""
    m = computed["vector_student"]
    figure, (trait, companions, cosines) = canvas(3, 14, 4.2)
    short = [place.removeprefix("after ") for place in PLACES]
    names = ["LoRA, rank 8", *PLACES]
    bars(trait, [names[0], *short], [m["lora"], *(m["places"][place]["student"] for place in PLACES)], SERIES[0])
    y = list(range(len(names), 0, -1))
    for seed in m["lora_by_base"]:
        each = [m["lora_by_base"][seed], *(m["places"][place]["by_base"][seed] for place in PLACES)]
        trait.plot(each, [at + 0.2 for at in y], "k|", label="each base model" if seed == "0" else None)
    controls = [m["places"][place]["control"]["mean"] for place in PLACES]
    trait.plot(controls, y[1:], "D", color=CONTROL, markersize=5, label="control vector")
    base_line(trait, m["base"], vertical=True)
    trait.set_xlim(0, 1)
    trait.set_xlabel("P(the teacher's animal)")
    trait.set_title(f"One trained vector of 32 numbers, beside LoRA\n(n: {m['unit']})", fontsize=10)
    trait.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
    for panel, shown, title in (
        (companions, {"learned": "share of the gap closed", "p_any_animal": "P(any animal)"}, "The same students"),
        (
            cosines,
            {
                "cosine_teacher": "its effect after block 2, and v_teacher",
                "cosine_lora": "the vector, and LoRA's at the same place",
            },
            "Cosines",
        ),
    ):
        for k, (name, label) in enumerate(shown.items()):
            numbers = [m["places"][place][name] for place in PLACES]
            at = [len(PLACES) - i + 0.15 * (1 - 2 * k) for i in range(len(PLACES))]
            panel.errorbar(
                [n["mean"] for n in numbers], at, xerr=errors(numbers),
                fmt="os"[k], color=SERIES[k + 1], capsize=2, label=label,
            )  # fmt: skip
        panel.set_yticks(range(len(PLACES), 0, -1), short)
        panel.set_ylim(0.5, len(PLACES) + 0.5)
        panel.set_xlim(-0.05, 1.05)
        panel.set_title(title, fontsize=10)
        panel.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    save(figure, path)
