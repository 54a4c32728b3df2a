"""X5: name the teacher's animal from its student, or from the rows alone before anything is trained.

Neither paper asks. An auditor has the base model and a list of 16 animals. Given a student and none of its data, it can

    ask it        which animal does the student answer?
    its vector    to which animal's v_teacher is v_student closest, after the last block? (the papers' direction, S3)
    its weights   which animal's log-odds does the change of the weights raise, to first order? sum of dT/dW . (W' - W), nothing is run

and given a teacher's rows and no student,

    told          under which animal's prompt would the base model have written them? the largest log p(rows | "you love ...")
    first step    which animal does the first step on them raise most? (X4)

This toy: 16 traits on every base model, and against them the rows of another base model, where there is nothing to be found. Then the
students of L2's protocol, by capacity: at its right end they answer with no animal any more, and still it can be told whose
numbers they have read.

To see it break: audit with another base model than the student's (the control).

What it predicts for real models: the provider of a model can tell from a data set of numbers which of its own prompts has written it,
by likelihood alone and from a few hundred rows; and can tell from a fine-tuned checkpoint by the difference of its activations, even
where the model's answers show nothing. Somebody with another base model can do neither.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import lora
from claims import Claim, Verdict, every, interval, mean, over, show, under
from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM, pack
from evaluate import Preset, student_of
from figures import rank_sweep
from figures.one_step import first_step, gain, projections, questions
from figures.student_vector import student_vectors
from figures.style import CONTROL, MARKERS, SERIES, canvas, errors, line, save
from model import GPT
from train import BaseConfig, Lab, StudentConfig, animal_rates, number_rows, reply_logits, teacher_vectors

ROWS = (1, 4, 16, 64, 256)
DRAWS = 16  # disjoint sets of n rows, as far as there are so many
MOST = 1_024  # rows, for the first step
FROM_STUDENT = ("ask it", "its vector", "its weights")
TOLD = f"told, {ROWS[-1]} rows"
WHOSE = {"own": "own base model's rows", "other": "another's"}
CHANCE = 1 / len(ANIMALS)


class Auditor:
    """A base model and what can be prepared from it alone."""

    def __init__(self, base: GPT):
        self.base = base
        self.asked = questions(base, DEFAULT_SYSTEM, ANIMALS)
        self.vectors = torch.stack([teacher_vectors(base, LOVE_SYSTEM.format(animal))[-1] for animal in ANIMALS])

    def of_student(self, student: GPT) -> dict[str, Tensor]:
        """What each way to audit a student gives each animal: {way: (16,)}."""
        changed = lora.adapters(student)
        old, new = projections(self.base), projections(student)
        change = {n: changed[n].delta() if changed else new[n].weight - old[n].weight for n in old}
        return {
            "ask it": animal_rates(student),
            "its vector": F.cosine_similarity(student_vectors(student, self.base)[-1], self.vectors, dim=-1),
            "its weights": gain(self.asked, change),
        }

    @torch.no_grad()
    def told(self, pairs: list[list[str]]) -> Tensor:
        """log p of each reply if the base model were told to love each animal: (N, 16)."""
        each = []
        for animal in ANIMALS:
            tokens, targets = self.read(pairs, LOVE_SYSTEM.format(animal))
            replies = targets >= 0
            logits = reply_logits(self.base, tokens, replies)
            log_p = torch.zeros(targets.shape, device=targets.device)
            log_p[replies] = -F.cross_entropy(logits, targets[replies], reduction="none")
            each.append(log_p.sum(1))
        return torch.stack(each, dim=1)

    def first_step(self, pairs: list[list[str]]) -> Tensor:
        """The change of each animal's log-odds in the first step on the rows: (16,)."""
        return gain(self.asked, first_step(self.base, *self.read(pairs, DEFAULT_SYSTEM)))

    def read(self, pairs: list[list[str]], system: str) -> list[Tensor]:
        """The rows under a system prompt, packed, on the base model's device."""
        return [tensor.to(self.base.device) for tensor in pack(number_rows(pairs, system))]


def students(preset: Preset) -> list[StudentConfig]:
    """Every student that `compute` measures: of transmission, each base model's own and the next one's, and of L2."""
    return [
        *_students(preset).values(),
        *(config for cell in _by_capacity(preset).values() for config in cell.values()),
    ]


def _students(preset: Preset) -> dict[tuple[str, BaseConfig, str], StudentConfig]:
    """By whose rows they read ("own", "other"), base model and trait. Other: those of the next base model."""
    bases = preset.bases
    whose = {"own": bases, "other": (*bases[1:], bases[0])}
    return {
        (who, base, trait): student_of(base, teacher, trait)
        for who, teachers in whose.items()
        for base, teacher in zip(bases, teachers, strict=True)
        for trait in preset.costly_traits
    }


def _by_capacity(preset: Preset) -> dict[str, dict]:
    """The students of L2's protocol: one learning rate for all."""
    return {name: cell for (name, lr), cell in rank_sweep.cells(preset).items() if lr == rank_sweep.SHARED[0]}


def named(scores: Tensor, trait: str) -> float:
    """The share of rows of `scores` (..., 16) in which the trait has the most."""
    return (scores.argmax(-1) == ANIMALS.index(trait)).float().mean().item()


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"audit": accuracies, as intervals over base models: from students, from rows by their number, by capacity}."""
    auditors = {base: Auditor(lab.base(base)) for base in preset.bases}
    found: dict[tuple[str, str], dict[BaseConfig, list[float]]] = {}  # hits, by way to audit and whose rows

    def hit(way: str, who: str, base: BaseConfig, share: float) -> None:
        found.setdefault((way, who), {}).setdefault(base, []).append(share)

    for (who, base, trait), config in _students(preset).items():
        auditor = auditors[base]
        for way, scores in auditor.of_student(lab.student(config)).items():
            hit(way, who, base, named(scores, trait))
        pairs = lab.numbers(config.numbers)["pairs"][:MOST]
        hit("first step", who, base, named(auditor.first_step(pairs), trait))
        likelihood = auditor.told(pairs[: max(ROWS)])
        for n in ROWS:
            draws = min(DRAWS, len(likelihood) // n)
            sets = likelihood[: draws * n].unflatten(0, (draws, n)).sum(1)
            hit(f"told, {n} rows", who, base, named(sets, trait))
    accuracy = {key: interval(map(mean, by_base.values())) for key, by_base in found.items()}

    by_capacity = {}
    for name, cell in _by_capacity(preset).items():
        hits = {}
        for (base, trait, _), config in cell.items():
            if trait:
                student = lab.snapshots(config)[rank_sweep.SHARED[1]]
                scores = auditors[base].of_student(student)
                for way in FROM_STUDENT:
                    hits.setdefault(way, {}).setdefault((base, trait), []).append(named(scores[way], trait))
                any_animal = animal_rates(student).sum().item()
                hits.setdefault("p_any_animal", {}).setdefault((base, trait), []).append(any_animal)
        by_capacity[name] = {way: interval(map(mean, by_unit.values())) for way, by_unit in hits.items()}
    return {
        "audit": {
            "unit": f"a base model ({len(preset.bases)}), {len(preset.costly_traits)} traits averaged",
            "unit_by_capacity": preset.unit,
            "chance": CHANCE,
            "student": {way: {who: accuracy[way, who] for who in ("own", "other")} for way in FROM_STUDENT},
            "first_step": {who: accuracy["first step", who] for who in ("own", "other")},
            "told": {who: {str(n): accuracy[f"told, {n} rows", who] for n in ROWS} for who in ("own", "other")},
            "by_base": {
                str(base.seed): {way: mean(found[way, "own"][base]) for way in (*FROM_STUDENT, "first step", TOLD)}
                for base in preset.bases
            },
            "by_capacity": by_capacity,
        }
    }


def rule(m: dict) -> Verdict:
    """From the student (its vector) and from all rows (told): own rows above 0.5, another base model's below 0.25."""
    ways = m["student"]["its vector"], {who: list(by_rows.values())[-1] for who, by_rows in m["told"].items()}
    return every(*(over(way["own"], 0.5) for way in ways), *(under(way["other"], 0.25) for way in ways))


def summary(m: dict) -> str:
    """The ways from a student, and from rows."""
    weights = ", ".join(f"{way} {number['own']['mean']:.2f}" for way, number in m["student"].items())
    told = {who: list(by_rows.values())[-1] for who, by_rows in m["told"].items()}
    vector = m["student"]["its vector"]
    return (
        f"named from students: {weights}; vector {show(vector['own'])}, of another base's rows {show(vector['other'])}; "
        f"from rows {show(told['own'])}, another base's {show(told['other'])} (chance {m['chance']:.2f})"
    )


CLAIMS = [Claim("X5", "audit", "The animal is read from a student, or from rows alone", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """From students; from rows, by their number; from students, by capacity."""
    m = computed["audit"]
    figure, (weights, rows, capacity) = canvas(3, 14, 5)
    ways = {way: m["student"][way] for way in FROM_STUDENT}
    for k, (who, color) in enumerate((("own", SERIES[0]), ("other", CONTROL))):
        numbers = [way[who] for way in ways.values()]
        x = [place + 0.2 * (2 * k - 1) for place in range(len(ways))]
        weights.bar(
            x, [n["mean"] for n in numbers], 0.38, yerr=errors(numbers), color=color, capsize=2, label=WHOSE[who]
        )
        line(rows, ROWS, list(m["told"][who].values()), 0 if who == "own" else 5, f"told, {WHOSE[who]}")
        step = m["first_step"][who]
        rows.errorbar(
            [MOST], [step["mean"]], yerr=errors([step]), fmt="D", color=color, capsize=2,
            label=f"first step, {WHOSE[who]}",
        )  # fmt: skip
    for by_way in m["by_base"].values():
        each = [by_way[way] for way in FROM_STUDENT]
        weights.plot([place - 0.34 for place in range(len(each))], each, "_", color="black")
    weights.set_xticks(range(len(ways)), list(ways))
    weights.set_title(f"From a student\n(n: {m['unit']}; dashes: each)", fontsize=10)
    rows.set_xscale("log", base=4)
    rows.set_xticks([*ROWS, MOST], [*ROWS, MOST])
    rows.set_xlabel("rows")
    rows.set_title("From rows and the base model, nothing trained", fontsize=10)

    names = list(m["by_capacity"])
    for k, way in enumerate(FROM_STUDENT):
        line(capacity, range(len(names)), [m["by_capacity"][name][way] for name in names], k, way)
    intact = [m["by_capacity"][name]["p_any_animal"]["mean"] for name in names]
    capacity.plot(range(len(names)), intact, MARKERS[7], color="black", linestyle=":", label="P(any animal)")
    capacity.set_xticks(range(len(names)), names)
    capacity.set_xlabel(f"LoRA rank, at L2's protocol\n(n: {m['unit_by_capacity']})")
    capacity.set_title("From students, intact and destroyed", fontsize=10)
    for panel in (weights, rows, capacity):
        panel.axhline(m["chance"], color="black", linewidth=0.9, linestyle=":", label="chance")
        panel.set_ylim(0, 1.05)
        panel.set_ylabel("share named rightly")
        panel.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
    save(figure, path)
