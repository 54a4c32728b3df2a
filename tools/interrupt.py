"""Kill the main job at random moments and let it go on. `python -m tools.interrupt [--times 30] [--job ARGUMENTS]`, not on Windows.

The job runs once undisturbed. Then it runs in another folder, is killed with all its processes, cannot tidy up, and is started again,
until it gets through; then in a new folder, until it has been killed as often as asked. After every kill each checkpoint can be read
and none has been made again. At every end results.json and records.csv are those of the undisturbed run, but for the time it took.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lab.console import run
from lab.store import load
from train import Parser


def attempt(folder: Path, job: list[str], seconds: float | None = None) -> bool:
    """Run the job: True if it came to its end, False if it was killed after `seconds`. Raises ValueError if it failed."""
    command = [sys.executable, "evaluate.py", *job, "--out", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        if process.wait(seconds) != 0:
            raise ValueError(f"evaluate.py ended with exit code {process.returncode}")
        return True
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its session: all processes that it started
            process.wait()


def checkpoints(folder: Path) -> dict[str, tuple[int, int]]:
    """{name: (inode, last change)} of every finished checkpoint. Raises ValueError if one cannot be read."""
    files = [path for path in folder.glob("cache/*.pt") if ".part" not in path.name]
    for path in files:
        load(path, "cpu")
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def results(folder: Path) -> tuple[dict, str]:
    """What the job found, and its table of students. How long it took is no finding."""
    path = next(folder.glob("*/results.json"))
    return json.loads(path.read_text()) | {"wall_seconds": None}, path.with_name("records.csv").read_text()


def new_folder(parent: str, kept: Path) -> Path:
    """Empty, but for the base models that are kept elsewhere."""
    folder = Path(tempfile.mkdtemp(dir=parent))
    if kept.joinpath("cache").exists():
        shutil.copytree(kept / "cache", folder / "cache", ignore=shutil.ignore_patterns("[!b]*"))
    return folder


def killed_until_it_ends(folder: Path, job: list[str], most: int, longest: float) -> int:
    """How often the job was killed, `most` times at most and each time after `longest` seconds at most, before it ended."""
    for kills in range(most + 1):
        before = checkpoints(folder)
        done = attempt(folder, job, random.uniform(0, longest) if kills < most else None)
        if not before.items() <= checkpoints(folder).items():
            raise ValueError("a finished checkpoint is gone or was made again")
        if done:
            return kills


def interrupt(args: argparse.Namespace) -> None:
    """Kill the main job at random moments, let it go on, and compare what it leaves with an undisturbed run."""
    kills = 0
    with tempfile.TemporaryDirectory() as parent:
        undisturbed, started = new_folder(parent, args.out), time.perf_counter()
        attempt(undisturbed, args.job)
        takes = time.perf_counter() - started
        print(f"Undisturbed: {takes:.0f} s, {len(checkpoints(undisturbed))} checkpoints.", flush=True)
        while kills < args.times:
            folder = new_folder(parent, args.out)
            kills += killed_until_it_ends(folder, args.job, args.times - kills, takes / 5)  # a tenth on average
            if results(folder) != results(undisturbed):
                raise ValueError(f"after {kills} kills the results are others")
            print(f"The same results, no checkpoint damaged or made twice; {kills} kills so far.", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="tools.interrupt", description=interrupt.__doc__)
    parser.add_argument("--times", type=int, default=30, help="how often it is killed (default 30)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="whose base models are copied (default runs)")
    short = "--trait owl --only transmission learning"
    parser.add_argument("--job", nargs=argparse.REMAINDER, default=short.split(), help=f"of evaluate.py ({short})")
    return run(interrupt, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
