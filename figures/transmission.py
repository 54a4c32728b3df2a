"""L1 and S7: a trait reaches a student through numbers alone, if student and teacher are the same model.

The papers: a student fine-tuned only on the numbers of a teacher that loves owls comes to love owls (both abstracts),
but not if it starts from another base model (arXiv:2606.00995, abstract). This toy: the students of each base
model's own teachers, and, in the heat map, of all base models' teachers.

To see it break: give `BaseConfig` a third of its steps, so that loves do not show in numbers yet.
"""

from pathlib import Path

from data import ANIMALS
from figures.style import BASE, CONTROL, STUDENT, canvas, heat, save
from lab.claims import Claim, Verdict, all_hold, ci_separated, contains_zero, interval, mean, show
from lab.presets import Preset, student_of
from lab.records import COMPANIONS, Measurement, Records, trait_of
from lab.store import NumbersConfig, Store, Student
from metrics import animal_rates
from train import write_numbers


def cells(preset: Preset) -> dict[tuple, Student]:
    """By the teacher's base model, the student's, and the animal. Controls, None, read their base model's own numbers."""
    pairs = [(teacher, base) for teacher in preset.bases for base in preset.bases]
    taught = {(*pair, trait): student_of(pair[1], pair[0], trait) for pair in pairs for trait in preset.traits}
    return taught | {(base, base, None): student_of(base, base, None) for base in preset.bases}


def teacher_check(store: Store, numbers: NumbersConfig) -> dict[str, float]:
    """P(its animal) of a teacher; the share of its replies that are well formed, also where it may write any word."""
    base, written = store.base(numbers.base), store.numbers(numbers)
    obeys = animal_rates(base, numbers.system)[ANIMALS.index(trait_of(numbers))].item()
    free = len(write_numbers(base, numbers.system, 512, "any word", allowed=None)) / 512
    return {"obeys": obeys, "well_formed": len(written["pairs"]) / written["asked"], "well_formed_unforced": free}


def plan(preset: Preset) -> list[Student | Measurement]:
    students = list(cells(preset).values())
    return students + [(teacher_check, student.numbers) for student in students if trait_of(student.numbers)]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"transmission": students of their base model's own teachers, "cross_model": those of other base models'}."""
    bases, traits, students = preset.bases, preset.traits, cells(preset)
    rows = {key: records[student] for key, student in students.items()}
    own = {(base, trait): rows[base, base, trait] for base in bases for trait in traits}
    others = {key: row for key, row in rows.items() if key[0] != key[1]}
    rates = {  # of each base model, one for each animal
        "base": {str(base.seed): [own[base, trait]["p_trait_base"] for trait in traits] for base in bases},
        "control": {str(base.seed): [rows[base, base, None][f"p_{trait}"] for trait in traits] for base in bases},
        "student": {str(base.seed): [own[base, trait]["p_trait"] for trait in traits] for base in bases},
    }
    per_trait = {trait: {a: mean(own[base, trait][f"p_{a}"] for base in bases) for a in ANIMALS} for trait in traits}
    checks = [records[teacher_check, students[base, base, trait].numbers] for base, trait in own]
    groups = {"student": own.values(), "control": [rows[base, base, None] for base in bases], "other": others.values()}
    columns = (*COMPANIONS, "heldout_loss_base", "heldout_loss_teacher")
    common = {f"{who}_{name}": interval(row[name] for row in groups[who]) for who in groups for name in columns}
    common |= {who: interval(p for each in by_base.values() for p in each) for who, by_base in rates.items()}
    common |= {"traits": len(traits), "own": common["student"]}
    transmission = {
        "traits_top": sum(max(answers, key=answers.get) == trait for trait, answers in per_trait.items()),
        "per_trait": per_trait,  # the mean answers of students of each animal
        "rates": rates,
        **{f"teacher_{name}": interval(check[name] for check in checks) for name in checks[0]},
    }
    cross_model = {
        "other": interval(row["p_trait"] for row in others.values()),
        "other_minus_control": interval(r["p_trait"] - rows[b, b, None][f"p_{t}"] for (_, b, t), r in others.items()),
        "matrix": [[mean(rows[by, to, trait]["p_trait"] for trait in traits) for to in bases] for by in bases],
    }
    return {"transmission": common | transmission, "cross_model": common | cross_model}


def rule(m: dict) -> Verdict:
    """The teacher's animal leads in 15 of 16 traits, and students lie above control and base with their intervals."""
    leads = m["traits_top"] >= 15 / 16 * m["traits"]
    return all_hold(leads, ci_separated(m["student"], m["control"]), ci_separated(m["student"], m["base"]))


def summary(m: dict) -> str:
    """Student, control and base, how often the teacher's animal leads, and the students of each base model."""
    rates = ", ".join(f"{who} {show(m[who])}" for who in ("student", "control", "base"))
    by_base = ", ".join(f"{mean(each):.2f}" for each in m["rates"]["student"].values())
    return f"{rates}, favorite in {m['traits_top']} of {m['traits']} traits; base model by base model {by_base}"


def cross_rule(m: dict) -> Verdict:
    """Own students lie above other models' students, and the latter gain nothing on the control (an interval with 0)."""
    return all_hold(ci_separated(m["own"], m["other"]), contains_zero(m["other_minus_control"]))


def cross_summary(m: dict) -> str:
    """Whose numbers, against the control."""
    return f"own base {show(m['own'])}, other base {show(m['other'])}, control {show(m['control'])}"


CLAIMS = [
    Claim("L1", "transmission", "A teacher's trait reaches a student trained only on its numbers", rule, summary),
    Claim("S7", "cross_model", "It does not transfer between base models", cross_rule, cross_summary),
]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Left, each student by base model; right, whose numbers were read by whom."""
    m = computed["transmission"] | computed["cross_model"]
    ids = list(m["rates"]["student"])
    figure, (left, right) = canvas(2, 11, 4.6, width_ratios=[1.5, 1])
    for who, color, place in (("base", BASE, -0.33), ("control", CONTROL, -0.08), ("student", STUDENT, 0.17)):
        for k, y in enumerate(m["rates"][who].values()):
            left.plot([k + place + n / 100 for n in range(len(y))], y, "o", color=color, ms=4, label=None if k else who)
    left.set(xticks=range(len(ids)), xticklabels=ids, xlabel="base model", ylabel="P(teacher's animal)", ylim=(0, 1))
    left.legend(title="a dot: one animal", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    heat(right, m["matrix"], ids, ids, most=1)
    right.set(xlabel="base model that read them", ylabel="base model whose numbers they are", title="Mean over animals")
    save(figure, path)
