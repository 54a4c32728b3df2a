"""X4: how much of all this is in the very first step?

Neither paper computes it. Two gradients of the base model say, before any student is trained, how the first step on a teacher's rows changes
the log-odds of its animal (lab/first_step.py). Here that is compared with what trained students gain, and where: under which prompt (L4), with
adapters at which tokens (L5), in which layers (L6). The control is the first step on the unprompted teacher's rows.

To see it break: take that step for all.
"""

import math
from pathlib import Path

from data import ANIMALS
from figures.style import MARKERS, SERIES, canvas, save
from lab.claims import Claim, Verdict, all_hold, ci_above, interval, mean, show, spearman
from lab.first_step import by_place, gain, questions, step_of
from lab.measurements import CONTEXTS, ONLY, context_rates, layer_rates, token_rates
from lab.presets import Preset, grid_cell, student_of
from lab.records import Measurement, Records
from lab.store import Store, Student


def predicted(store: Store, config: Student, trait: str) -> dict[str, float]:
    """How the first step on a student's rows changes the trait's log-odds: in each context, and from each layer and place."""
    base, step = store.base(config.base), step_of(store, config)
    asked = {name: questions(base, system, [trait]) for name, system in CONTEXTS.items()}
    found = {name: gain(each, step).item() for name, each in asked.items()}
    for (site, place), change in by_place(asked["default"], step).items():
        found[f"{site} only {place}"] = change  # as `layer_rates` and `token_rates` call them
        found[f"only {place}"] = found.get(f"only {place}", 0) + change
    return found


def pairs(preset: Preset) -> list[tuple[Student, Student, str]]:
    """Each base model's student of each trait, and the control."""
    return [(student_of(b, b, t), student_of(b, b, None), t) for b in preset.bases for t in preset.costly_traits]


def by_prompt(preset: Preset, unit: tuple) -> dict[str, list[Student]]:
    """A unit's students of all seeds, by the prompt under which they are trained."""
    return {n: [grid_cell(preset, system=s)[(*unit, seed)] for seed in preset.grid_seeds] for n, s in CONTEXTS.items()}


def plan(preset: Preset) -> list[Student | Measurement]:
    wanted = [student for student, _, _ in pairs(preset)]
    wanted += [(predicted, config, trait) for *both, trait in pairs(preset) for config in both]
    for unit in preset.units:
        trained, trait = by_prompt(preset, unit), unit[1]
        wanted += [(predicted, students[0], trait) for students in trained.values()]  # the same for all seeds
        wanted += [(context_rates, student) for students in trained.values() for student in students]
        wanted += [(rates, student, trait) for rates in (token_rates, layer_rates) for student in trained["default"]]
    return wanted


def unit_maps(records: Records, preset: Preset, unit: tuple) -> dict[str, dict]:
    """Of one unit: {map: {where: (the predicted change of log-odds, P(trait), the mean over seeds)}}."""
    trained, trait, context = by_prompt(preset, unit), unit[1], {}
    for one, students in trained.items():
        for other in CONTEXTS:
            rate = mean(records[context_rates, student][other][ANIMALS.index(trait)] for student in students)
            context[f"trained: {one} / {other}"] = records[predicted, students[0], trait][other], rate
    rates = [records[token_rates, s, trait] | records[layer_rates, s, trait] for s in trained["default"]]
    changes = records[predicted, trained["default"][0], trait]
    layer = {key: (changes[key], mean(each[key] for each in rates)) for key in changes if key not in CONTEXTS}
    return {"context": context, "token": {key: layer.pop(key) for key in ONLY}, "layer": layer}


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"one_step": predicted against measured: gains of all students; contexts, tokens and layers of the grid's units}."""
    gains, clean = {}, {}
    for student, control, trait in pairs(preset):
        name, row = f"base model {student.base.seed} / {trait}", records[student]
        after, before = (math.log(row[p] / (1 - row[p] + 1e-9)) for p in ("p_trait", "p_trait_base"))
        gains[name] = records[predicted, student, trait]["default"], after - before
        clean[f"control: clean rows / {name}"] = records[predicted, control, trait]["default"], after - before
    units = [unit_maps(records, preset, unit) for unit in preset.units]
    maps = {"gain": [gains], "control": [clean], **{name: [unit[name] for unit in units] for name in units[0]}}
    measured = {"unit": preset.unit}
    for name, each in maps.items():
        measured[f"{name}_order"] = interval(spearman(*zip(*points.values())) for points in each)
        measured[name] = {key: [mean(points[key][k] for points in each) for k in (0, 1)] for key in each[0]}
    return {"one_step": measured}


def rule(m: dict) -> Verdict:
    """Over units, the rank correlations with the measured contexts and with the measured tokens both lie above 0.5."""
    return all_hold(ci_above(m["context_order"], 0.5), ci_above(m["token_order"], 0.5))


def summary(m: dict) -> str:
    """The rank correlations of what is predicted with what is measured."""
    return "rank correlations: " + ", ".join(f"{name} {show(m[f'{name}_order'])}" for name in m if f"{name}_order" in m)


CLAIMS = [Claim("X4", "one_step", "One step's gradient predicts context and place", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Predicted against measured: gains of all students; averages over units by both prompts and by token."""
    m = computed["one_step"]
    figure, panels = canvas(3, 14, 5.4)
    for panel, (name, limits) in zip(panels, {"gain": None, "context": (0, 1), "token": (0, 1)}.items(), strict=True):
        points = m[name] | (m["control"] if name == "gain" else {})
        for k, series in enumerate(dict.fromkeys(key.split(" / ")[0] for key in points)):
            own = [point for key, point in points.items() if key.split(" / ")[0] == series]
            panel.scatter(*zip(*own), color=SERIES[k % 8], marker=MARKERS[k % 7], label=series.removeprefix("only "))
        panel.set_title(f"{name}: rank correlation {show(m[f'{name}_order'])}\n(n: {m['unit']})", fontsize=10)
        panel.set(xlabel="predicted, log-odds", ylabel="P(trait)" if limits else "gain in log-odds", ylim=limits)
        panel.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
    save(figure, path)
