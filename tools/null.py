"""The null model: what would be declared if no teacher had a trait? `python -m tools.null [--json FILE]`, half an hour on two cores.

All is as in the quick preset but for the numbers: every teacher, however prompted or steered, writes what the unprompted base model
writes, drawn anew for each. So whatever a claim says that its students have, they cannot have it from their rows. S1 has to survive,
for it is about no student. Every other claim that is declared is a false alarm. The intervals are of 95%: one condition that is
decided by noise alone is met once in 40 runs.
"""

import argparse
import itertools
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import evaluate
from data import DEFAULT_SYSTEM
from lab.claims import in_order
from lab.console import run
from lab.presets import choose_preset
from lab.processes import spawn_workers
from lab.records import make_and_measure, make_base
from lab.store import NumbersConfig, Store, code_digest
from train import Parser

MODULES = [module for module in evaluate.FIGURES.values() if module not in evaluate.FULL_ONLY]
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
    null, pairs = NullStore(store.folder, number), list(itertools.combinations(choose_preset(True, 0).bases, 2))
    preset = replace(choose_preset(False, number), bases=pairs[number % len(pairs)])
    plan = [key for module in MODULES for key in module.plan(preset)]
    records = make_and_measure(lambda do, jobs: [do(null, job) for job in jobs], plan)
    numbers = {name: found for module in MODULES for name, found in module.numbers(records, preset).items()}
    return [claim.id for claim in CLAIMS if claim.rule(numbers[claim.name])]


def null(args: argparse.Namespace) -> None:
    """Measure every claim of the quick preset where no teacher has a trait, and count how often each would hold."""
    with spawn_workers(Store(args.out / "cache"), args.processes) as run_jobs:
        run_jobs(make_base, list(choose_preset(True, 0).bases))
        found = run_jobs(null_run, range(args.runs))
    declared = {claim.id: sum(claim.id in run for run in found) for claim in CLAIMS}
    for claim, times in declared.items():
        print(f"{claim:4} declared in {times:2} of {args.runs} runs")
    if args.json:
        found = {"runs": args.runs, "code": code_digest()[:16], "declared": declared}
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="tools.null", description=null.__doc__)
    parser.add_argument("--runs", type=int, default=20, help="how many (default 20)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for checkpoints (default runs)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there")
    parser.add_argument("--processes", type=int, default=2, help="that share the runs (default 2)")
    return run(null, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
