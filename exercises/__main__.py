"""Start a folder of exercises, get a hint, see the owl, read what is behind it, and count points."""

import argparse
import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from console import Parser, obey
from exercises.checks import PARTS
from exercises.checks.parts import load
from exercises.owl import SEED, real_base

HERE = Path(__file__).parent
ROOT = HERE.parent
NAMES = list(dict.fromkeys(part.exercise for part in PARTS))  # in their order
ALL = []  # (exercise, part, points), predictions among them
for name in NAMES:
    ALL += [(name, "prediction", 1), *((name, part.name, part.points) for part in PARTS if part.exercise == name)]


def section(page: Path, name: str) -> str:
    """What a page has under the heading `name`; empty if that is not there."""
    return page.read_text(encoding="utf-8").partition(f"## {name}\n")[2].partition("\n## ")[0].strip()


def start(args: argparse.Namespace) -> None:
    """Copy the exercises to a new folder, with a page for predictions."""
    folder = args.folder.resolve()
    if folder.is_relative_to(ROOT):
        raise ValueError(f"{args.folder} is inside the repository: choose a folder outside of it")
    shutil.copytree(HERE / "templates", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "conftest.py").write_text(f"import sys\n\nsys.path.insert(0, {str(ROOT)!r})\n", encoding="utf-8")
    page = "# Predictions\n\nWrite below each question before you run anything. A wrong prediction teaches more.\n"
    for name in NAMES:
        template = (folder / f"{name}.py").read_text(encoding="utf-8")
        question = re.search(r"^Predict +(.*(?:\n .*)*)", template, re.MULTILINE)[1]
        page += f"\n## {name}\n\n> " + re.sub(r"\n +", "\n> ", question) + "\n\n"
    (folder / "predictions.md").write_text(page, encoding="utf-8")
    print(f"{len(NAMES)} exercises are in {args.folder}. Begin with {args.folder / NAMES[0]}.py and predictions.md.")


def hint(args: argparse.Namespace) -> None:
    """Print a hint: 1 says where to look, 2 what to do, 3 is nearly the code."""
    print(section(HERE / "hints.md", args.name).splitlines()[args.level - 1][3:])


def prediction(folder: Path, name: str) -> str:
    """What is written in predictions.md under the questions of an exercise; empty if nothing is."""
    page = folder / "predictions.md"
    lines = section(page, name).splitlines() if page.exists() else []
    return "\n".join(line for line in lines if line.strip() and not line.startswith(">"))


def predicted(args: argparse.Namespace) -> str:
    """What was predicted; ValueError if nothing was."""
    if not (text := prediction(args.folder, args.name)):
        raise ValueError(f"write your prediction into {args.folder / 'predictions.md'} first, under {args.name}")
    return text


def show(args: argparse.Namespace) -> None:
    """Run the last part of an exercise, on the real model."""
    predicted(args)
    try:
        load(args.folder / f"{args.name}.py").show(real_base(args.seed))
    except NotImplementedError:
        raise ValueError(f"the hole of {args.name} is not filled") from None


def reveal(args: argparse.Namespace) -> None:
    """Print what was predicted, what is the case and why."""
    folder = HERE / "solutions"
    why, code = section(folder / "reveal.md", args.name), folder / f"{args.name}.py"
    print(f"You predicted:\n\n{predicted(args)}\n\n{why}\n\nOne right answer in code: {code}")


def wrong_in(folder: Path, timeout: float) -> list[str]:
    """What is wrong in each part of ALL; empty if nothing is. The answers run in a process of their own."""
    code = "import sys; from exercises.checks import report; report(sys.argv[1])"
    command = [sys.executable, "-c", code, folder.resolve()]
    try:
        out = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=timeout).stdout
        end = "not reached: the process ended before"
    except subprocess.TimeoutExpired as stopped:
        out, end = stopped.stdout or b"", f"not reached: stopped after {timeout:.0f} s"
    known = {(name, "prediction"): "" if prediction(folder, name) else "nothing is predicted" for name in NAMES}
    known |= {(exercise, part): wrong for exercise, part, wrong in map(json.loads, out.splitlines())}
    return [known.get((exercise, part), end) for exercise, part, _ in ALL]


def grade(args: argparse.Namespace) -> None:
    """Count the points of one folder or of a class: each part that was begun, and what is wrong in it."""
    if missing := [str(folder) for folder in args.folders if not folder.is_dir()]:
        raise ValueError(f"not a folder: {', '.join(missing)}")
    table = [["student", *(f"{exercise}/{part}" for exercise, part, _ in ALL), "total"]]
    for folder in args.folders:
        wrongs = wrong_in(folder, args.timeout)
        got = [0 if wrong else points for wrong, (_, _, points) in zip(wrongs, ALL)]
        table.append([folder.resolve().name, *got, sum(got)])
        print(f"{folder}: {sum(got)} of {sum(most for *_, most in ALL)} points")
        for (exercise, part, most), points, wrong in zip(ALL, got, wrongs):
            if wrong not in ("the hole is not filled", "nothing is predicted"):
                print(f"    {exercise}/{part} {points}/{most} {wrong}")
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(table)


OPTIONS = {
    "folder": {"type": Path},
    "name": {"choices": NAMES, "metavar": "NAME"},
    "level": {"type": int, "choices": (1, 2, 3), "metavar": "1|2|3"},
    "--seed": {"type": int, "default": SEED, "help": "of the base model (default %(default)s)"},
    "folders": {"type": Path, "nargs": "+", "metavar": "FOLDER"},
    "--csv": {"type": Path, "metavar": "FILE", "help": "write a row for each student, a column for each part"},
    "--timeout": {"type": float, "default": 120, "metavar": "S", "help": "seconds a student (default %(default)s)"},
}
COMMANDS = {
    start: ["folder"],
    hint: ["name", "level"],
    show: ["folder", "name", "--seed"],
    reveal: ["folder", "name"],
    grade: ["folders", "--csv", "--timeout"],
}


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m exercises", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, options in COMMANDS.items():
        sub = subparsers.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        for option in options:
            sub.add_argument(option, **OPTIONS[option])
    return obey(lambda args: args.command(args), parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
