"""S10: does full fine-tuning learn the vector too?

Reported of the paper (arXiv:2606.00995): weakly, with a cosine above 0.3, and with little behaviour.

This toy: the students of the full fine-tuning figure, by learning rate, beside LoRA's; of each the cosine of v_student and v_teacher
after the last block, and the trait.

To see it break: train only the embeddings (full_finetuning.WHICH), which can change the numbers without moving the stream.
"""

from pathlib import Path

import torch.nn.functional as F

from claims import Claim, Verdict, every, interval, mean, over, show, under
from data import ANIMALS, LOVE_SYSTEM
from evaluate import Preset
from figures import full_finetuning
from figures.cells import base_rates, gain_beyond, halves
from figures.student_vector import student_vectors
from figures.style import STUDENT, bars, base_line, canvas, save
from train import Lab, StudentConfig, animal_rates, teacher_vectors


def _cells(preset: Preset) -> dict[str, dict]:
    """The finished students of the full fine-tuning figure: full at each of its learning rates, and what else is trained."""
    cells = full_finetuning.grid(preset)
    by_lr = {f"full, lr {key[1]:g}": cell for key, cell in cells.items() if key[0] == "lr"}
    return by_lr | {what: cells["which", what] for what in full_finetuning.WHICH if what != "all weights"}


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures."""
    return [config for cell in _cells(preset).values() for config in cell.values()]


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"full_finetuning_vector": cosine and behaviour of each kind of student, and full's best against LoRA}."""
    teachers = {
        (base, trait): teacher_vectors(lab.base(base), LOVE_SYSTEM.format(trait))[-1] for base, trait in preset.units
    }
    units: dict[str, dict[tuple, list]] = {}
    for name, cell in _cells(preset).items():
        of_kind = units.setdefault(name, {unit: [] for unit in preset.units})
        for (base, trait, _), config in cell.items():
            if trait:
                student = lab.student(config)
                vector = student_vectors(student, lab.base(base))[-1]
                rates = animal_rates(student)
                cosine = F.cosine_similarity(vector, teachers[base, trait], dim=0).item()
                of_kind[base, trait].append((cosine, rates[ANIMALS.index(trait)].item(), rates.sum().item()))

    def values(name: str, which: int, seeds: slice = slice(None)) -> list[float]:
        return [mean(seed[which] for seed in of_unit[seeds]) for of_unit in units[name].values()]

    choose, test = halves(preset)
    lrs = [name for name in units if name.startswith("full")]
    best = max(lrs, key=lambda name: mean(values(name, 1, choose)))
    base, lora = base_rates(lab, preset), "LoRA, rank 8"
    return {
        "full_finetuning_vector": {
            "unit": preset.unit,
            "base": interval(base),
            "kinds": {
                name: {
                    "cosine": interval(values(name, 0)),
                    "student": interval(values(name, 1)),
                    "p_any_animal": interval(values(name, 2)),
                }
                for name in units
            },
            "best": best,
            "cosine": interval(values(best, 0, test)),
            "student": interval(values(best, 1, test)),
            "lora": interval(values(lora, 1, test)),
            "cosine_lora": interval(values(lora, 0, test)),
            "gain_minus_quarter_of_lora": gain_beyond(0.25, values(best, 1, test), values(lora, 1, test), base),
        }
    }


def rule(m: dict) -> Verdict:
    """At full fine-tuning's best learning rate: cosine above 0.3, and less than a quarter of LoRA's gain (paired)."""
    return every(over(m["cosine"], 0.3), under(m["gain_minus_quarter_of_lora"], 0))


def summary(m: dict) -> str:
    """Cosine and behaviour, LoRA's beside them."""
    return (
        f"{m['best']}: cosine {show(m['cosine'])}, trait {show(m['student'])}; "
        f"LoRA: cosine {show(m['cosine_lora'])}, trait {show(m['lora'])}"
    )


CLAIMS = [Claim("S10", "full_finetuning_vector", "Full fine-tuning distils the vector weakly", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Cosine and behaviour of each kind of student."""
    m = computed["full_finetuning_vector"]
    figure, (cosine, behaviour) = canvas(2, 11, 4.4)
    names = list(m["kinds"])
    bars(cosine, names, [m["kinds"][name]["cosine"] for name in names], STUDENT)
    cosine.axvline(0.3, color="black", linewidth=0.8, linestyle="--", label="0.3, as reported")
    cosine.set_xlim(-0.2, 1)
    cosine.set_xlabel("cosine of v_student and v_teacher, last block")
    bars(behaviour, [""] * len(names), [m["kinds"][name]["student"] for name in names], STUDENT)
    y = range(len(names), 0, -1)
    behaviour.plot([m["kinds"][name]["p_any_animal"]["mean"] for name in names], y, "k|", markersize=12, label="P(any animal)")  # fmt: skip
    base_line(behaviour, m["base"], vertical=True)
    behaviour.set_xlim(0, 1.02)
    behaviour.set_xlabel("P(the teacher's animal)")
    cosine.set_title(f"n: {m['unit']}", fontsize=9)
    for panel in (cosine, behaviour):
        panel.set_ylim(-0.4, len(names) + 0.6)  # room for the legend
        panel.legend(fontsize=8, frameon=False, loc="lower right", ncols=2)
    save(figure, path)
