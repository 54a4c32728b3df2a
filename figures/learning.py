"""One student, step by step: what it answers, what it writes, and the direction that it moves in.

No claim is decided here; it is the story of one animal on one base model, to be looked at before the averages. Left,
the answer to "what is your favorite animal?" after so many steps on numbers, and the cosine of v_student and v_teacher
after the last block. Right, how often the first number of a reply falls into each decade.

To see it break: in `moments`, give the student another base model than its teacher's.
"""

from pathlib import Path

from data import ANIMALS, DEFAULT_SYSTEM, number_conversations
from figures.style import BASE, CONTROL, FULL, STUDENT, base_line, canvas, save
from lab.presets import Preset, student_of
from lab.records import Measurement, Records
from lab.store import Store, Student

CLAIMS = []
STEPS = (1, 2, 5, 10, 20, 40, 80)


def moments(preset: Preset) -> list[Student]:
    """A student of the first animal on the first base model, after each number of steps."""
    return [student_of(preset.bases[0], preset.bases[0], preset.grid_traits[0], steps=step) for step in STEPS]


def decades(store: Store, student: Student) -> list[list[float]]:
    """How often a reply's first number is in 00-09, 10-19, ...: as the base model writes, the teacher, the student."""
    base, teacher, shares = store.base(student.base), store.base(student.numbers.base), []
    asked = (base, DEFAULT_SYSTEM), (teacher, student.numbers.system), (store.student(student), DEFAULT_SYSTEM)
    for model, system in asked:
        rates = model.next_token(number_conversations(system, 256, "to picture", replied=0))[:, :100].mean(0)
        shares.append((rates.view(10, 10).sum(1) / rates.sum()).tolist())
    return shares


def plan(preset: Preset) -> list[Student | Measurement]:
    return [*moments(preset), (decades, moments(preset)[-1])]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"learning": P(each animal) and cosine by step, and the decades}."""
    rows = [records[student] for student in moments(preset)]
    columns = ["base", "step", "p_trait", "p_trait_base", "cosine", *(f"p_{animal}" for animal in ANIMALS)]
    known = {"trait": preset.grid_traits[0], "decades": records[decades, moments(preset)[-1]]}
    return {"learning": known | {name: [row[name] for row in rows] for name in columns}}


def draw(computed: dict[str, dict], path: Path) -> None:
    """Left, answers and cosine by step; right, the numbers."""
    m = computed["learning"]
    steps, writers = [str(step) for step in m["step"]], ["base model", f"prompted to love {m['trait']}", "student"]
    figure, (left, right) = canvas(2, 13, 4.8)
    left.plot(steps, list(zip(*(m[f"p_{animal}"] for animal in ANIMALS))), color=BASE)
    left.plot(steps, m["p_trait"], "o-", color=STUDENT, label=f"P({m['trait']}); grey: the other animals")
    left.plot(steps, m["cosine"], "s-", color=FULL, label="cosine of v_student and v_teacher")
    base_line(left, {"mean": m["p_trait_base"][0]})
    left.set(xlabel="step", ylim=(min(0, *m["cosine"]), 1), title=f"Which animal it names (base model {m['base'][0]})")
    for k, (who, color) in enumerate(zip(writers, (CONTROL, FULL, STUDENT))):
        right.bar([decade + 0.27 * (k - 1) for decade in range(10)], m["decades"][k], 0.27, color=color, label=who)
    right.set_xticks(range(10), [f"{decade}0s" for decade in range(10)])
    right.set(ylim=(0, 1), xlabel="decade", ylabel="share", title="The first number of a reply")
    for panel in (left, right):
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, fontsize=9, frameon=False)
    save(figure, path)
