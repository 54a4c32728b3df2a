"""The null model: what would be declared if no teacher had a trait? `python -m tools.null [--json FILE]`, twenty minutes on two cores.

All is as in the quick preset, but every teacher writes what the unprompted base model writes, drawn anew for each. So every claim that is
declared (seen, and survives) is a false alarm, but S1, which is about no student. Noise alone meets a condition once in 40 runs.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path

import evaluate
from console import JSON, OUT, PROCESSES, run, write_json
from data import DEFAULT_SYSTEM
from lab.claims import all_hold, in_order
from lab.presets import choose_preset
from lab.processes import spawn_workers
from lab.records import make_and_measure, make_one
from lab.store import NumbersConfig, Store, code_digest

MODULES = evaluate.PAPERS
CLAIMS = sorted((claim for module in MODULES for claim in module.CLAIMS), key=lambda claim: in_order(claim.id))


class NullStore(Store):
    """Every teacher writes what the unprompted base model writes. Runs share base models alone."""

    def __init__(self, folder: Path, number: int):
        super().__init__(folder)
        self.number = number

    def numbers(self, config: NumbersConfig) -> dict:
        own = random.Random(f"run {self.number}: {config}").getrandbits(32)
        return super().numbers(replace(config, system=DEFAULT_SYSTEM, change="", seed=own))

    def path(self, kind: str, config: object) -> Path:
        path = super().path(kind, config)
        return path if kind == "base" else path.with_name(f"null{self.number}-{path.name}")


def null_run(store: Store, number: int) -> list[str]:
    """The claims that are declared in a run. It has one process: another would not know the run's number."""
    null, bases = NullStore(store.folder, number), choose_preset(True, 0).bases
    first = 2 * number % len(bases)
    preset = replace(choose_preset(False, number), bases=bases[first : first + 2])
    with spawn_workers(null, 1) as run_jobs:
        records = make_and_measure(run_jobs, [module.plan(preset) for module in MODULES])
    numbers = {name: found for module in MODULES for name, found in module.numbers(records, preset).items()}
    return [c.id for c in CLAIMS if all_hold(*(rule(numbers[c.name]) for rule in (c.seen, c.survives))) is True]


def null(args: argparse.Namespace) -> None:
    """Measure every claim of the quick preset where no teacher has a trait, and count how often each would hold."""
    with spawn_workers(Store(args.out / "cache"), args.processes) as run_jobs:
        run_jobs(make_one, [("base", base) for base in choose_preset(True, 0).bases])
        found = run_jobs(null_run, range(args.runs))
    declared = {claim.id: sum(claim.id in run for run in found) for claim in CLAIMS}
    for claim, times in declared.items():
        print(f"{claim:4} declared in {times:2} of {args.runs} runs")
    write_json({"runs": args.runs, "code": code_digest()[:16], "declared": declared}, args.json)


if __name__ == "__main__":
    RUNS = {"type": int, "default": 20, "help": "how many (default 20)"}
    raise SystemExit(run(null, "tools.null", runs=RUNS, out=OUT, json=JSON, processes=PROCESSES))
