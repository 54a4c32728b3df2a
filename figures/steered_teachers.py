"""S2 and S6: teachers that are steered by a vector instead of told what to love.

The paper (arXiv:2606.00995): numbers of the base model with v_teacher added, never told anything, transmit the trait; numbers of the
prompted teacher with v_teacher projected out do not (S2). A teacher steered by a random vector has students that learn the
vector, and no behaviour goes with it (S6).

This toy: each trait on each base model has students, of the prompted teacher, of the base with v_teacher added after the last
block, and of the prompted teacher with v_teacher projected out after every block. Two more have a random vector, as long as
v_teacher, in its place: projected out, or added. Every teacher is the same model and differs in its stream alone; what it writes is all that
its student sees.

The vector is sufficient: its students have the trait as much as the prompted teacher's. It is not quite necessary as measured
here: projecting it out leaves a third of the log-odds (a random one, nearly all), and the numbers are then no less far from the
base's than before. Students of random vectors learn them, and some animal or other does become a little likelier.

To see it break: add the vector after the first block, where it is not yet what the prompt does (`last` in `teacher`).
"""

from dataclasses import replace
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from claims import Claim, Verdict, every, interval, over, show, under
from data import ANIMALS, DEFAULT_SYSTEM, number_conversations
from evaluate import COMPANIONS, Preset, measure, student_of
from figures.student_vector import log_odds, student_vectors
from figures.style import CONTROL, SERIES, bars, base_line, canvas, save
from figures.teacher_vector import REPLY, divergence, number_logits
from model import GPT
from steering import mean_difference, stream_at
from train import Lab, NumbersConfig, Steering, StudentConfig, animal_rates, steered

TEACHERS = {
    "prompted": "told to love it",
    "vector": "v_teacher added",
    "projected": "told, v_teacher projected out",
    "spared": "told, a random vector projected out",
    "random": "a random vector added",
}


def teacher(prompted: NumbersConfig, trait: str, kind: str) -> NumbersConfig:
    """What one of these teachers writes, given what the prompted one does."""
    n_layer, prompt, noise = prompted.base.model.n_layer, prompted.system, ANIMALS.index(trait)
    last, every = (n_layer,), tuple(range(1, n_layer + 1))
    return {
        "prompted": prompted,
        "vector": replace(prompted, system=DEFAULT_SYSTEM, steering=Steering(prompt, last)),
        "projected": replace(prompted, steering=Steering(prompt, every, projected_out=True)),
        "spared": replace(prompted, steering=Steering(prompt, every, projected_out=True, noise=noise)),
        "random": replace(prompted, system=DEFAULT_SYSTEM, steering=Steering(prompt, last, noise=noise)),
    }[kind]


def _configs(preset: Preset) -> dict[tuple, StudentConfig]:
    """By base, trait and kind of teacher; trait None for the controls."""
    own = {}
    for base in preset.bases:
        for trait in preset.costly_traits:
            told = student_of(base, base, trait)
            for kind in TEACHERS:
                own[base, trait, kind] = replace(told, numbers=teacher(told.numbers, trait, kind))
    return own | {(base, None, "control"): student_of(base, base, None) for base in preset.bases}


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures."""
    return list(_configs(preset).values())


def effect(base: GPT, numbers: NumbersConfig) -> float:
    """How far the teacher's numbers are from those of the base: KL(teacher || base), nats a number."""
    plain = number_logits(base, number_conversations(DEFAULT_SYSTEM, 64, "to test"))
    with steered(base, numbers.steering):
        written = number_logits(base, number_conversations(numbers.system, 64, "to test"))
    return divergence(written, plain)


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"teacher_vector_causal": gains by kind of teacher, "random_vectors": cosines and what the students answer}."""
    configs = _configs(preset)
    rows = {kind: [] for kind in TEACHERS}
    for base_config in preset.bases:
        base = lab.base(base_config)
        start = animal_rates(base).tolist()
        control = configs[base_config, None, "control"]
        usual, unmoved = max(measure(lab, control)["rates"]), student_vectors(lab.student(control), base)[-1]
        for trait in preset.costly_traits:
            k = ANIMALS.index(trait)
            for kind in TEACHERS:
                config = configs[base_config, trait, kind]
                student, measured = lab.student(config), measure(lab, config)
                vector, pushed = student_vectors(student, base)[-1], _pushed(base, config.numbers)
                rows[kind].append(
                    {
                        "base": base_config.seed,
                        "trait": trait,
                        "student": measured["rates"][k],
                        "untrained": start[k],
                        "gain": log_odds(measured["rates"][k]) - log_odds(start[k]),
                        "effect_nats": effect(base, config.numbers),
                        "cosine": F.cosine_similarity(vector, pushed, dim=0).item(),
                        "control_cosine": F.cosine_similarity(unmoved, pushed, dim=0).item(),
                        "largest": max(measured["rates"]),
                        "favorite": ANIMALS[measured["rates"].index(max(measured["rates"]))],
                        "control_largest": usual,
                    }
                    | {name: measured[name] for name in COMPANIONS}
                )

    def over(kind: str, name: str) -> dict:
        return interval(row[name] for row in rows[kind])

    def beyond(kind: str, share: float) -> dict:
        """Of the prompted teacher's student's gain in log-odds, less this share."""
        return interval(a["gain"] - share * b["gain"] for a, b in zip(rows[kind], rows["prompted"], strict=True))

    unit = f"a trait on a base model ({len(rows['prompted'])})"
    names = ("student", "gain", "effect_nats", "largest", *COMPANIONS)
    return {
        "teacher_vector_causal": {
            "unit": unit,
            "base": over("prompted", "untrained"),
            **{kind: {name: over(kind, name) for name in names} for kind in TEACHERS},
            "vector_minus_half": beyond("vector", 0.5),
            "projected_minus_quarter": beyond("projected", 0.25),
        },
        "random_vectors": {
            "unit": unit,
            "cosine": over("random", "cosine"),
            "cosine_vector": over("vector", "cosine"),
            "cosine_control": over("random", "control_cosine"),
            "largest": over("random", "largest"),
            "largest_prompted": over("prompted", "largest"),
            "largest_control": over("random", "control_largest"),
            **{name: over("random", name) for name in ("student", "effect_nats", *COMPANIONS)},
            # Below 0 where its favorite stands out less than a quarter as much as that of a trait's student.
            "largest_minus_quarter": interval(
                (r["largest"] - r["control_largest"]) - 0.25 * (p["largest"] - p["control_largest"])
                for r, p in zip(rows["random"], rows["prompted"], strict=True)
            ),
            "favorites": {animal: sum(row["favorite"] == animal for row in rows["random"]) for animal in ANIMALS},
        },
    }


def _pushed(base: GPT, numbers: NumbersConfig) -> Tensor:
    """What the steering and the prompt of a teacher do to the last layer's stream on numbers: (C,)."""
    with steered(base, numbers.steering):
        told = stream_at(base, number_conversations(numbers.system, 128, "to extract"), REPLY + 1)
    plain = stream_at(base, number_conversations(DEFAULT_SYSTEM, 128, "to extract"), REPLY + 1)
    return mean_difference(told, plain)[-1]


def causal(m: dict) -> Verdict:
    """Students of the vector teacher gain over half of the log-odds that those of the prompted one gain; without the vector,
    less than a quarter."""
    return every(over(m["vector_minus_half"], 0), under(m["projected_minus_quarter"], 0))


def causal_summary(m: dict) -> str:
    """P(trait) of the three students, and how strong their teachers were."""
    return (
        f"student of the prompted teacher {show(m['prompted']['student'])}, of base + v_teacher {show(m['vector']['student'])}, "
        f"of the prompted one without it {show(m['projected']['student'])}, without a random vector "
        f"{m['spared']['student']['mean']:.2f}; KL of their numbers from the base's "
        + ", ".join(f"{m[kind]['effect_nats']['mean']:.2f}" for kind in ("prompted", "vector", "projected", "spared"))
    )


def general(m: dict) -> Verdict:
    """The student's vector has a cosine above 0.5 with the random one; no animal stands out a quarter as much as a trait does."""
    return every(over(m["cosine"], 0.5), under(m["largest_minus_quarter"], 0))


def general_summary(m: dict) -> str:
    """The cosine, and the most likely animal's probability beside a trait student's and a control's."""
    return (
        f"cosine {show(m['cosine'])}, of a control's {show(m['cosine_control'])}; the likeliest animal has {show(m['largest'])}, "
        f"of a trait's student {m['largest_prompted']['mean']:.2f}, of a control {m['largest_control']['mean']:.2f}"
    )


CLAIMS = [
    Claim(
        "S2", "teacher_vector_causal", "That vector is sufficient and necessary in the teacher", causal, causal_summary
    ),
    Claim("S6", "random_vectors", "Random vectors are learned too, without behaviour", general, general_summary),
]


def draw(computed: dict[str, dict], path: Path) -> None:
    """By kind of teacher: the trait, the strength of the teacher; and, for random vectors, the likeliest animal."""
    m, r = computed["teacher_vector_causal"], computed["random_vectors"]
    figure, (trait, strength, largest) = canvas(3, 13.5, 3.6, width_ratios=[1.3, 1, 1.2])
    names = list(TEACHERS.values())
    bars(trait, names, [m[kind]["student"] for kind in TEACHERS], SERIES[0])
    base_line(trait, m["base"], vertical=True)
    trait.set_xlim(0, 1)
    trait.set_xlabel("P(the trait) of its student")
    trait.set_title(f"The teacher is ...\n(n: {m['unit']})", fontsize=10)
    trait.legend(fontsize=8, frameon=False, loc="lower right")
    bars(strength, [""] * len(names), [m[kind]["effect_nats"] for kind in TEACHERS], SERIES[1])
    strength.set_xlabel("KL(its numbers || the base's), nats a number")
    strength.set_title("How strong the teacher is", fontsize=10)
    cells = [r["largest_prompted"], r["largest"], r["largest_control"]]
    bars(largest, ["student of the\nprompted teacher", "student of the\nrandom vector", "control"], cells, CONTROL)
    largest.set_xlim(0, 1)
    largest.set_xlabel("P(its likeliest animal, whichever that is)")
    largest.set_title(f"Students of random vectors learn them:\ncosine {show(r['cosine'])}", fontsize=10)
    save(figure, path)
