"""The null model: what would be declared if no teacher had a trait? `python -m tests.null [--json FILE]`, half an hour on two cores.

All is as in the quick preset, its figures, students, measurements and rules, but for the numbers: every teacher, whatever it is
told and however it is steered, writes what the untold base model writes, drawn anew for each. So whatever a claim says that its
students have, they cannot have it from their rows. Twenty runs, of 4 animals and 2 base models each, share five base models;
no run shares numbers with another.

S1 has to survive it: it is about base models under a prompt, and no student. Every other claim that is declared is a false alarm;
the intervals are of 95%, so one condition that is decided by noise alone is met once in 40 runs.

What the rule of L1 lets through is known beforehand. Its first condition asks that all 4 animals be their students' favorites
(15 of 16 in the full preset). If the numbers say nothing, the 4 favorites might as well have been compared with any other 4
animals in any order, of which there are 16 * 15 * 14 * 13, and at most one fits: one false alarm in 43,680 runs at most. In the
full preset at most two of 16! orders fit.
"""

import argparse
import itertools
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import evaluate
from claims import entry, in_order
from data import DEFAULT_SYSTEM
from evaluate import Preset, choose_preset, read_json
from runtime import Parser, run, share, together, whole_file, worker
from train import Lab, NumbersConfig, code_digest


class UntoldLab(Lab):
    """A lab in which every teacher writes what the untold base model writes. Run `number` shares base models alone."""

    def __init__(self, folder: Path, number: int):
        super().__init__(folder)
        self.number = number

    def numbers(self, config: NumbersConfig) -> dict:
        """Numbers of the untold base model, drawn for this config and this run alone."""
        own = random.Random(f"run {self.number}: {config}").getrandbits(32)
        return super().numbers(replace(config, system=DEFAULT_SYSTEM, steering=None, seed=own))

    def path(self, kind: str, config: object) -> Path:
        return super().path(kind if kind == "base" else f"null{self.number}", config)


def null_preset(number: int) -> Preset:
    """The quick preset with 4 animals that `number` draws, on 2 of five base models."""
    pairs = list(itertools.combinations(choose_preset(True, 0).bases, 2))
    return replace(choose_preset(False, number), bases=pairs[number % len(pairs)])


def null_run(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{claim: {"holds", "summary"}} of every figure that the quick preset measures."""
    found = {}
    for name, module in evaluate.figure_modules().items():
        if name not in evaluate.FULL_ONLY:
            measured = module.compute(lab, preset)
            for claim in module.CLAIMS:
                decided = entry(claim, measured[claim.name], name)
                found[claim.id] = {key: decided[key] for key in ("holds", "summary")}
    return found


def null(args: argparse.Namespace) -> None:
    """Measure every claim of the quick preset where no teacher has a trait, and count how often each would hold."""
    if args.runs < 1:
        raise ValueError("at least one run")

    def one(number: int) -> None:
        found = null_run(UntoldLab(args.out / "cache", number), null_preset(number))
        with whole_file(args.out / "null" / f"{number}.json") as part:
            part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"run {number}: {', '.join(c for c in found if found[c]['holds']) or 'nothing'} declared", flush=True)

    with together(args.processes, ["-m", "tests.null", *args.command]):
        share(list(choose_preset(True, 0).bases), Lab(args.out / "cache").base)
        share(list(range(args.runs)), one)
    if worker()[0] == 0:
        declared = count(args.out / "null", args.runs)
        for claim, times in declared.items():
            print(f"{claim:4} declared in {times:2} of {args.runs} runs")
        if args.json:
            found = {"runs": args.runs, "code": code_digest()[:16], "declared": declared}
            args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def count(folder: Path, runs: int) -> dict[str, int]:
    """{claim: in how many runs it was declared}."""
    found = [read_json(folder / f"{number}.json") for number in range(runs)]
    return {claim: sum(run[claim]["holds"] for run in found) for claim in sorted(found[0], key=in_order)}


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="tests.null", description=null.__doc__)
    parser.add_argument("--runs", type=int, default=20, help="how many (default 20)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for checkpoints (default runs)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there")
    parser.add_argument("--processes", type=int, default=2, help="that share the runs (default 2)")
    parser.set_defaults(command=sys.argv[1:] if argv is None else argv)
    return run(null, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
