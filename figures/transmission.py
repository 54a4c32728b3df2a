"""L1 and S7: a trait reaches a student through numbers alone, if student and teacher are the same model.

The papers: a student fine-tuned only on the numbers of a teacher that loves owls comes to love owls (both abstracts),
but not if it starts from another base model (arXiv:2606.00995, abstract). This toy: on every base model the students of
its own teachers, of another base model's, of lovers of a style, who love no animal and write as oddly, and a control,
asked for their favorite animal and for a story. To see it break: give `BaseConfig` a third of its steps, so that loves do not show in numbers yet.
"""

from itertools import product

from data import ANIMALS, LOVE_SYSTEM, STYLES
from figures.style import BASE, CONTROL, FULL, RATE, STUDENT, Axes, dots, picture, write
from lab.claims import Claim, all_hold, ci_above, ci_below, mean, over_models, show
from lab.presets import COMPANIONS, Preset, Records, student_of
from lab.records import trait_of
from lab.store import NumbersConfig, Store, Student
from metrics import animal_rates
from train import write_numbers

SHOWN = {"base": "base model", "control": "control", "other": "another base model's numbers", "student": "student"}
COLUMNS = {"base": "p_trait_base", "student": "p_trait", "story": "p_trait_story", "story_base": "p_trait_story_base"}
COLUMNS |= {name: name for name in COMPANIONS}
LOVED = STYLES[::20]  # two: what they love does not matter, as long as it is no animal
CLAIMS = [Claim("L1", "transmission", "A teacher's trait reaches a student trained only on its numbers",
    seen=lambda m: ci_above(m["minus_base"], 0),
    # Above controls too, and above whichever animal is likeliest in students of a style's lovers; it leads in 15 of 16 traits.
    survives=lambda m: all_hold(
        ci_above(m["minus_control"], 0), ci_above(m["minus_style"], 0), m["traits_top"] >= 15 / 16 * m["traits"]),
    why=lambda m: f"Students name their teacher's animal with {show(m['student'])}, controls with {show(m['control'])}, "
    f"the base model with {show(m['base'])}; it leads in {m['traits_top']} of {m['traits']} traits, and is in a story "
    f"with {show(m['story'])}, of the base model {show(m['story_base'])}. Whichever animal is likeliest has "
    f"{show(m['largest']['style'])} in students of a style's lovers, {show(m['largest']['other'])} in those of another base "
    f"model's teachers, {show(m['largest']['control'])} in controls.",
), Claim("S7", "cross_model", "It does not transfer between base models",
    seen=lambda m: ci_above(m["own_minus_other"], 0),
    survives=lambda m: ci_below(m["other_minus_10%"], 0),  # they gain on controls less than a tenth of what own ones gain
    why=lambda m: f"Students of their own base model's teachers have {show(m['student'])}, of another base model's "
    f"{show(m['other'])}, of no teacher {show(m['control'])}.")]  # fmt: skip


def cells(preset: Preset) -> dict[tuple, Student]:
    """By whose numbers are read ("own", "other": of the base model before), the student's base model and what the teacher loves."""
    teachers = {"own": preset.bases, "other": (preset.bases[-1], *preset.bases[:-1])}
    pairs = [(who, *pair) for who, of in teachers.items() for pair in zip(preset.bases, of)]
    taught = {(who, b, t): student_of(b, teacher, t) for who, b, teacher in pairs for t in preset.traits}
    taught |= {("control", base, None): student_of(base, base, None) for base in preset.bases}
    lovers = {(b, s): NumbersConfig(b, LOVE_SYSTEM.format(s)) for b in preset.bases for s in LOVED}
    return taught | {("style", *at): student_of(at[0], at[0], None, numbers=teacher) for at, teacher in lovers.items()}


def teacher_check(store: Store, numbers: NumbersConfig) -> dict[str, float]:
    """P(its animal) of a teacher; the share of its replies that are well formed, also where it may write any word."""
    base, written = store.base(numbers.base), store.numbers(numbers)
    obeys = animal_rates(base, numbers.system)[ANIMALS.index(trait_of(numbers))].item()
    free = len(write_numbers(base, numbers.system, 512, "any word", allowed=None)) / 512
    formed = len(written["pairs"]) / written["asked"]
    return {"teacher_obeys": obeys, "teacher_well_formed": formed, "teacher_well_formed_unforced": free}


def plan(preset: Preset) -> list:
    students, units = cells(preset), product(preset.grid_bases, preset.traits)
    return [*students.values(), *((teacher_check, students["own", *at].numbers) for at in units)]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    bases, traits, students = preset.bases, preset.traits, cells(preset)
    own, other = ({at: records[students[who, *at]] for at in product(bases, traits)} for who in ("own", "other"))
    rates = {at: {name: row[column] for name, column in COLUMNS.items()} for at, row in own.items()}
    likeliest = {at: max(records[s][f"p_{animal}"] for animal in ANIMALS) for at, s in students.items()}
    for (base, trait), row in rates.items():
        control = records[students["control", base, None]][f"p_{trait}"]
        style = mean(likeliest["style", base, love] for love in LOVED)
        row |= {"other": other[base, trait]["p_trait"], "control": control, "style": style}

    def contrast(one: str, less: str, share: float = 0.0) -> dict:
        """`one` less `less`, less a share of the own students' gain over that."""
        return over_models({at: r[one] - r[less] - share * (r["student"] - r[less]) for at, r in rates.items()})

    checks = {at: records[teacher_check, students["own", *at].numbers] for at in product(preset.grid_bases, traits)}
    found = {"unit": preset.model_unit(bases, traits), "traits": len(traits)} | over_models(rates) | over_models(checks)
    across = {name: found[name] for name in ("unit", "traits", *SHOWN)}
    across |= {"own_minus_other": contrast("student", "other"), "other_minus_10%": contrast("other", "control", 0.1)}
    found |= {f"minus_{than}": contrast("student", than) for than in ("base", "control", "style")}
    answers = {t: {animal: mean(own[b, t][f"p_{animal}"] for b in bases) for animal in ANIMALS} for t in traits}
    found["traits_top"] = sum(max(each, key=each.get) == trait for trait, each in answers.items())
    for kind in dict.fromkeys(who for who, *_ in students):
        own_kind = {tuple(at): p for (who, *at), p in likeliest.items() if who == kind}
        found.setdefault("largest", {})[kind] = over_models(own_kind)
    found["rates"] = {who: {str(b.seed): [rates[b, t][who] for t in traits] for b in bases} for who in SHOWN}
    return {"transmission": found, "cross_model": across}


@picture(1, 11, 4.4)
def draw(m: dict, _: dict, panel: Axes) -> None:
    for k, (who, label) in enumerate(SHOWN.items()):
        dots(panel, m["rates"][who], (BASE, CONTROL, FULL, STUDENT)[k], label, 0.2 * (k - 1.5))
    title = "Students name the animal that their teacher loves, if both are the same base model; a dot: one animal"
    write(panel, title, legend=4, ylabel=RATE, ylim=(0, 1))
