"""S2 and S6: teachers that are steered by a vector instead of prompted to love something.

The paper (arXiv:2606.00995): numbers of the base model with v_teacher added, never prompted, transmit the trait; numbers of the
prompted teacher with v_teacher projected out do not (S2). A teacher steered by a random vector has students that learn the
vector, and no behaviour goes with it (S6).

This toy: each animal on each base model has five teachers. One is prompted; the others are steered, as lab/changes.py says.

To see it break: in lab/changes.py, add the vector after the first block, where it is not yet what the prompt does.
"""

from dataclasses import replace
from pathlib import Path

import torch

from data import number_conversations
from figures.style import CONTROL, SERIES, bars, base_line, canvas, save
from lab.changes import TEACHERS, teacher
from lab.claims import Claim, Verdict, all_hold, ci_above, ci_below, interval, show
from lab.measurements import leak
from lab.presets import Preset, student_of
from lab.records import COMPANIONS, READ, Measurement, Records, gain_beyond
from lab.store import Store, Student
from metrics import animal_rates
from steering import REPLY, mean_difference, stream_at, student_vector

KINDS = {"prompted": "", **{change: change for change in TEACHERS}}  # of teachers
NAMES = ("p_trait", *COMPANIONS, "effect_nats", "largest", "largest_control", "cosine", "cosine_control")


def pairs(preset: Preset, kind: str) -> list[tuple[Student, Student]]:
    """A student of this kind of teacher and a control, for each animal on each base model."""
    prompted = [student_of(base, base, trait) for base in preset.bases for trait in preset.costly_traits]
    students = [replace(student, numbers=replace(student.numbers, change=KINDS[kind])) for student in prompted]
    return [(student, student_of(student.base, student.base, None)) for student in students]


def compare(store: Store, student: Student, control: Student) -> dict[str, float]:
    """KL(teacher || base) of the numbers; P(the likeliest animal), and the cosine of v_student with what the teacher adds."""
    base, numbers = store.base(student.base), student.numbers
    system, change = teacher(base, numbers.system, numbers.change)
    with change:
        stream = stream_at(base, number_conversations(system, 128, "to extract", REPLY), REPLY + 1)
    added = mean_difference(stream, stream_at(base, READ, REPLY + 1))[-1]
    found = {"effect_nats": leak(store, numbers)}
    for model, who in ((store.student(student), ""), (store.student(control), "_control")):
        found["largest" + who] = animal_rates(model).max().item()
        found["cosine" + who] = torch.cosine_similarity(student_vector(model, base)[-1], added, dim=0).item()
    return found


def plan(preset: Preset) -> list[Student | Measurement]:
    everyone = [pair for kind in KINDS for pair in pairs(preset, kind)]
    return [student for student, _ in everyone] + [(compare, *pair) for pair in everyone]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"teacher_vector_causal": what is measured of each kind of teacher, "random_vectors": of the random ones}."""
    rows = {kind: [records[pair[0]] | records[compare, *pair] for pair in pairs(preset, kind)] for kind in KINDS}
    found = {kind: {name: interval(row[name] for row in rows[kind]) for name in NAMES} for kind in KINDS}
    base = [row["p_trait_base"] for row in rows["prompted"]]
    rates = torch.tensor([base, *([row["p_trait"] for row in rows[kind]] for kind in KINDS)], dtype=torch.float64)
    odds = dict(zip(("base", *KINDS), rates.logit(eps=1e-9).tolist()))  # in logs; a rate may have been rounded to 1
    random, prompted = rows["random vector added"], rows["prompted"]
    likeliest = ((random, "largest"), (prompted, "largest"), (prompted, "largest_control"))
    return {
        "teacher_vector_causal": {
            **found,
            "unit": f"an animal on a base model ({len(base)})",
            "base": interval(base),
            "vector_minus_half": gain_beyond(0.5, odds["vector added"], odds["prompted"], odds["base"]),
            "projected_minus_quarter": gain_beyond(0.25, odds["vector projected out"], odds["prompted"], odds["base"]),
        },
        "random_vectors": {
            **found["random vector added"],
            "largest_prompted": found["prompted"]["largest"],
            # Below 0 where its favorite stands out less than a quarter as much as that of a trait's student.
            "largest_minus_quarter": gain_beyond(0.25, *([row[name] for row in of] for of, name in likeliest)),
        },
    }


def causal(m: dict) -> Verdict:
    """Students of v_teacher gain over half of the log-odds that the prompted teacher's gain; without it, below a quarter."""
    return all_hold(ci_above(m["vector_minus_half"], 0), ci_below(m["projected_minus_quarter"], 0))


def causal_text(m: dict) -> str:
    """P(trait) by kind of teacher, and how strong the teachers were."""
    cells = [f"{kind} {show(m[kind]['p_trait'])}, KL {m[kind]['effect_nats']['mean']:.2f}" for kind in KINDS]
    return f"student, and KL of its teacher's numbers from the base's: {'; '.join(cells)}"


def general(m: dict) -> Verdict:
    """The student's vector has a cosine above 0.5 with the random one; no animal stands out a quarter as much as a trait."""
    return all_hold(ci_above(m["cosine"], 0.5), ci_below(m["largest_minus_quarter"], 0))


def general_text(m: dict) -> str:
    """The cosine, and the likeliest animal's probability, beside a control's."""
    cosine, largest = (f"{show(m[name])}, of a control {show(m[name + '_control'])}" for name in ("cosine", "largest"))
    return f"cosine {cosine}; the likeliest animal has {largest}, of a trait's student {show(m['largest_prompted'])}"


CLAIMS = [
    Claim("S2", "teacher_vector_causal", "That vector is sufficient and necessary in the teacher", causal, causal_text),
    Claim("S6", "random_vectors", "Random vectors are learned too, without behaviour", general, general_text),
]


def draw(computed: dict[str, dict], path: Path) -> None:
    """P(trait) by kind of teacher; and, for random vectors, the likeliest animal."""
    m, r = computed["teacher_vector_causal"], computed["random_vectors"]
    figure, (trait, largest) = canvas(2, 11, 3.6, sharex=True)
    bars(trait, list(KINDS), [m[kind]["p_trait"] for kind in KINDS], SERIES[0])
    base_line(trait, m["base"], vertical=True)
    trait.set(xlim=(0, 1), xlabel=f"P(the trait); n: {m['unit']}", title="Students of teachers that are ...")
    trait.legend(fontsize=8, frameon=False, loc="lower right")
    likeliest = [r[name] for name in ("largest_prompted", "largest", "largest_control")]
    bars(largest, ["prompted", "random vector added", "control"], likeliest, CONTROL)
    largest.set(xlabel="P(whichever animal is likeliest)", title="Does any animal stand out?")
    save(figure, path)
