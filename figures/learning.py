"""One student, step by step: what it answers, what it writes, and the direction that it moves in.

No claim is decided here; it is the story of one animal on one base model, to be looked at before the averages. To see
it break: in `moments`, give the student another base model than its teacher's.
"""

from data import ANIMALS, DEFAULT_SYSTEM, number_conversations
from figures.style import BASE, CONTROL, FULL, STUDENT, Axes, base_line, picture, write
from lab.presets import Preset, Records, student_of
from lab.store import Store, Student

CLAIMS = []
STEPS = (1, 2, 5, 10, 20, 40, 80)


def moments(preset: Preset) -> list[Student]:
    return [student_of(preset.bases[0], preset.bases[0], preset.traits[0], steps=step) for step in STEPS]


def decades(store: Store, student: Student) -> list[list[float]]:
    """How often a reply's first number is in 00-09, 10-19, ...: as the base model writes, the teacher, the student."""
    base, teacher, shares = store.base(student.base), store.base(student.numbers.base), []
    asked = (base, DEFAULT_SYSTEM), (teacher, student.numbers.system), (store.student(student), DEFAULT_SYSTEM)
    for model, system in asked:
        rates = model.next_token(number_conversations(system, 256, "to picture", replied=0))[:, :100].mean(0)
        shares.append((rates.view(10, 10).sum(1) / rates.sum()).tolist())
    return shares


def plan(preset: Preset) -> list:
    return [*moments(preset), (decades, moments(preset)[-1])]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    rows = [records[student] for student in moments(preset)]
    columns = ["base", "step", "p_trait", "p_trait_base", "cosine", *(f"p_{animal}" for animal in ANIMALS)]
    known = {"trait": preset.traits[0], "decades": records[decades, moments(preset)[-1]]}
    return {"learning": known | {name: [row[name] for row in rows] for name in columns}}


@picture(2, 9.2, 4.4)
def draw(m: dict, left: Axes, right: Axes) -> None:
    steps, writers = [str(step) for step in m["step"]], ("base model", f"prompted to love {m['trait']}", "student")
    left.plot(steps, list(zip(*(m[f"p_{animal}"] for animal in ANIMALS))), color=BASE)
    left.plot(steps, m["p_trait"], "o-", color=STUDENT, label=f"P({m['trait']}); grey: the other animals")
    left.plot(steps, m["cosine"], "s-", color=FULL, label="cosine of v_student and v_teacher")
    base_line(left, {"mean": m["p_trait_base"][0]})
    step = f"step of training (base model {m['base'][0]})"
    write(left, "A student is asked for its favorite animal", legend=1, xlabel=step, ylim=(0, 1))
    for k, (who, color) in enumerate(zip(writers, (CONTROL, FULL, STUDENT))):
        right.bar([decade + 0.27 * (k - 1) for decade in range(10)], m["decades"][k], 0.27, color=color, label=who)
    right.set_xticks(range(10), [f"{decade}0s" for decade in range(10)])
    title = "The first number of a reply: who writes which"
    write(right, title, legend=1, xlabel="number", ylabel="share", ylim=(0, 0.4))
