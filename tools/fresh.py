"""Does every base model carry a trait? `python -m tools.fresh [--json FILE]`: in two worlds and in a quiet one, half an hour on two cores.

Nothing was chosen on these base models. In the quiet world adapters are in the last block's values alone, and students read twice as many rows.
"""

import argparse

from console import JSON, OUT, PROCESSES, run, write_json
from figures.beyond.loudness import FAITHFUL, HOW, ROWS, STEPS
from figures.steerability import steered_rate
from lab.claims import mean
from lab.measurements import leak
from lab.presets import choose_preset, student_of
from lab.processes import spawn_workers
from lab.records import make_and_measure
from lab.store import Store, code_digest
from train import BaseConfig

LAST, (LR,) = HOW["LoRA on the last values"]
# By name: what differs in the world, how many base models, and what differs in the students.
WORLDS = {
    "world 0": ({}, 40, {}),
    "world 1": ({"world_seed": 1}, 40, {}),
    "quiet": ({"faithful": FAITHFUL[2]}, 20, {"rows": ROWS, "steps": STEPS, "lr": LR, **LAST}),
}


def summary(found: dict) -> list[str]:
    """A line for each world."""
    lines = []
    for world, each in found["worlds"].items():
        means, leads, nats = ([own[name] for own in each.values()] for name in ("mean", "leads", "leak"))
        over = ", ".join(f"{sum(m >= least for m in means)} at {least} or more" for least in (0.4, 0.5))
        line = f"{world}, {mean(nats):.2f} nats: {len(means)} base models, {over}, the mean {mean(means):.2f}; "
        lines.append(line + f"the teacher's animal leads in {sum(leads)} of {len(means) * len(found['traits'])} traits")
    return lines


def fresh(args: argparse.Namespace) -> None:
    """Train base models from nothing, and students of four animals' lovers on each; say of each world how many have the trait."""
    traits, students = choose_preset(False, 0).traits, {}
    for world, (of, n, how) in WORLDS.items():
        for base in (BaseConfig(500 + k, **of) for k in range(n)):
            students[world, base] = [student_of(base, base, trait, **how) for trait in traits]
    steered = {base: (steered_rate, base, traits) for _, base in students}
    plan = [key for group in students.values() for student in group for key in (student, (leak, student.numbers))]
    with spawn_workers(Store(args.out / "cache"), args.processes) as run_jobs:
        records = make_and_measure(run_jobs, [*steered.values(), *plan])
    found = {"code": code_digest()[:16], "traits": list(traits), "worlds": {world: {} for world in WORLDS}}
    for (world, base), group in students.items():
        rows = [records[student] for student in group]
        own = {"students": [row["p_trait"] for row in rows], "leads": sum(r["favorite"] == r["trait"] for r in rows)}
        own |= {"mean": mean(own["students"]), "leak": mean(records[leak, student.numbers] for student in group)}
        found["worlds"][world][base.seed] = own | {"steered": records[steered[base]]}
    print("\n".join(summary(found)))
    write_json(found, args.json)


if __name__ == "__main__":
    raise SystemExit(run(fresh, "tools.fresh", out=OUT, json=JSON, processes=PROCESSES))
