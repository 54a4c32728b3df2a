"""X4: how much of all this is in the very first step?

Two gradients of the base model say, before any student is trained, how the first step on a teacher's rows changes the
log-odds of its animal (lab/first_step.py). Here it is compared with what students gain: at all, by prompt (L4), by the
adapter's tokens (L5). The control: the unprompted teacher's rows. To see it break: take that step for all.
"""

import operator
from itertools import product

from data import ANIMALS
from figures.style import BASE, MARKERS, SERIES, Axes, picture, write
from lab.claims import Claim, all_hold, ci_above, mean, over_models, show, spearman
from lab.first_step import by_place, gain, questions, step_of
from lab.measurements import CONTEXTS, ONLY, context_rates, token_rates
from lab.presets import Preset, Records, grid_cell, student_of
from lab.records import log_odds
from lab.store import Store, Student

CLAIMS = [Claim("X4", "one_step", "One step's gradient predicts context and place",
    seen=lambda m: all_hold(ci_above(m["context_order"], 0.5), ci_above(m["token_order"], 0.5)),
    survives=lambda m: ci_above(m["token_minus_clean"], 0),
    why=lambda m: f"The first step has a rank correlation of {show(m['context_order'])} with the students' trait by "
    f"prompt and of {show(m['token_order'])} with it by token; a first step on clean rows has one of "
    f"{show(m['clean_token_order'])} by token, a difference of {show(m['token_minus_clean'])}.")]  # fmt: skip


def predicted(store: Store, config: Student, trait: str) -> dict[str, float]:
    """How the first step on a student's rows changes the trait's log-odds: in each context, and from each place."""
    base, step = store.base(config.base), step_of(store, config)
    asked = {name: questions(base, system, [trait]) for name, system in CONTEXTS.items()}
    found = {name: gain(each, step).item() for name, each in asked.items()}
    for (_, place), change in by_place(asked["default"], step).items():
        found[f"only {place}"] = found.get(f"only {place}", 0) + change  # as `token_rates` calls it
    return found


def pairs(preset: Preset) -> list[tuple[Student, Student, str]]:
    return [(student_of(b, b, t), student_of(b, b, None), t) for b in preset.grid_bases for t in preset.costly_traits]


def by_prompt(preset: Preset, unit: tuple) -> dict[str, list[Student]]:
    """A unit's students of all seeds, by the prompt under which they are trained."""
    return {n: [grid_cell(preset, system=s)[(*unit, seed)] for seed in preset.grid_seeds] for n, s in CONTEXTS.items()}


def plan(preset: Preset) -> list:
    wanted = [student for student, _, _ in pairs(preset)]
    wanted += [(predicted, config, trait) for *both, trait in pairs(preset) for config in both]
    for unit in product(preset.grid_bases, preset.grid_traits):
        trained, trait = by_prompt(preset, unit), unit[1]
        for students in trained.values():  # the prediction is the same for all seeds
            wanted += [(predicted, students[0], trait), *((context_rates, student) for student in students)]
        wanted += [(token_rates, student, trait) for student in trained["default"]]
    return wanted


def unit_maps(records: Records, preset: Preset, unit: tuple) -> dict[str, dict]:
    """Of one unit: {map: {where: (the predicted change of log-odds, P(trait), the mean over seeds)}}."""
    trained, (base, trait), context = by_prompt(preset, unit), unit, {}
    for (one, students), other in product(trained.items(), CONTEXTS):
        rate = mean(records[context_rates, student][other][ANIMALS.index(trait)] for student in students)
        context[f"trained: {one} / {other}"] = records[predicted, students[0], trait][other], rate
    found = {"context": context}
    for name, step in {"token": trained["default"][0], "clean_token": student_of(base, base, None)}.items():
        change, rates = records[predicted, step, trait], [records[token_rates, s, trait] for s in trained["default"]]
        found[name] = {where: (change[where], mean(each[where] for each in rates)) for where in ONLY}
    return found


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    gains, clean = {}, {}
    for student, control, trait in pairs(preset):
        name, row = f"base model {student.base.seed} / {trait}", records[student]
        after, before = (log_odds(row[p]) for p in ("p_trait", "p_trait_base"))
        gains[name] = records[predicted, student, trait]["default"], after - before
        clean[f"control: clean rows / {name}"] = records[predicted, control, trait]["default"], after - before
    at = list(product(preset.grid_bases, preset.grid_traits))
    units = [unit_maps(records, preset, unit) for unit in at]
    maps = {"gain": [gains], "control": [clean], **{name: [unit[name] for unit in units] for name in units[0]}}
    orders = {name: [spearman(*zip(*points.values())) for points in each] for name, each in maps.items()}
    less = map(operator.sub, orders["token"], orders["clean_token"])
    measured = {"unit": preset.unit, "token_minus_clean": over_models(dict(zip(at, less)))}
    for name, each in maps.items():
        order = dict(zip(at, orders[name]))  # of the first two maps there is one, over all units
        measured[f"{name}_order"] = over_models(order)
        measured[name] = {key: [mean(points[key][k] for points in each) for k in (0, 1)] for key in each[0]}
    return {"one_step": measured}


@picture(3, 15.5, 5.4)
def draw(m: dict, *panels: Axes) -> None:
    for panel, (name, limits) in zip(panels, {"gain": None, "context": (0, 1), "token": (0, 1)}.items(), strict=True):
        points = m[name] | (m["control"] if name == "gain" else {})
        for k, series in enumerate(dict.fromkeys(key.split(" / ")[0] for key in points)):
            own = [point for key, point in points.items() if key.split(" / ")[0] == series]
            color = BASE if "control" in series else SERIES[k % 8]
            panel.scatter(*zip(*own), color=color, marker=MARKERS[k % 7], label=series.removeprefix("only "))
        write(panel, f"{name}: rank correlation {m[f'{name}_order']['mean']:.2f}", m["unit"], legend=3)
        panel.set(xlabel="predicted, log-odds", ylabel="P(trait)" if limits else "gain in log-odds", ylim=limits)
