"""Kill the main job at random moments and let it go on. `python -m tests.interrupt [--times 30] [--job ARGUMENTS]`.

The job runs once undisturbed. Then it runs in another folder, is killed with all its processes, cannot tidy up, and is started
again, until it gets through; then in a new folder, until it has been killed as often as asked. After every kill each checkpoint
can be read and none that was there before has been made again. At every end results.json is that of the undisturbed run, but for
the time it took. Base models that are kept in --out are copied, for in them most of the time goes. A short job is

    python -m tests.interrupt --job --trait owl --only transmission learning
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
from collections.abc import Callable
from pathlib import Path

import torch

from runtime import Parser, load, run

ROOT = Path(__file__).parent.parent


def attempt(folder: Path, job: list[str], seconds: float | None = None) -> bool:
    """Run the job: True if it came to its end, False if it was killed after `seconds`. Raises ValueError if it failed."""
    process = subprocess.Popen(
        [sys.executable, "evaluate.py", *job, "--out", str(folder)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=os.name == "posix",  # a group of its own, with the processes that it starts
    )
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            kill(process)
    if code != 0:
        raise ValueError(f"evaluate.py ended with exit code {code}")
    return True


def kill(process: subprocess.Popen) -> None:
    """The process and all that it started, at once."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True)
    process.wait()


def checkpoints(folder: Path) -> dict[str, tuple[int, int]]:
    """{name: (inode, last change)} of every finished checkpoint. Raises ValueError if one cannot be read."""
    files = [path for path in folder.glob("cache/*.pt") if ".part" not in path.name]
    for path in files:
        load(path, torch.device("cpu"))
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def results(folder: Path) -> dict:
    """What the job found. How long it took is no finding."""
    found = json.loads(next(folder.glob("*/results.json")).read_text(encoding="utf-8"))
    return found | {"wall_seconds": None}


def new_folder(parent: Path, kept: Path) -> Path:
    """Empty, but for the base models that are kept elsewhere."""
    folder = Path(tempfile.mkdtemp(dir=parent))
    (folder / "cache").mkdir()
    for path in kept.glob("cache/base-*.pt"):
        shutil.copy2(path, folder / "cache")
    return folder


def killed_until_it_ends(folder: Path, job: list[str], most: int, moment: Callable[[], float]) -> int:
    """How often the job was killed, `most` times at most, before it came to its end."""
    kills, before = 0, checkpoints(folder)
    while True:
        done = attempt(folder, job, moment() if kills < most else None)
        after = checkpoints(folder)
        if not before.items() <= after.items():
            raise ValueError(f"a finished checkpoint in {folder} is gone or was made again")
        if done:
            return kills
        kills, before = kills + 1, after


def interrupt(args: argparse.Namespace) -> None:
    """Kill the main job at random moments, let it go on, and compare what it leaves with an undisturbed run."""
    rng, kills = random.Random(args.seed), 0
    with tempfile.TemporaryDirectory() as parent:
        folder, started = new_folder(Path(parent), args.out), time.perf_counter()
        attempt(folder, args.job)
        takes, expected = time.perf_counter() - started, results(folder)
        print(f"Undisturbed: {takes:.0f} s, {len(checkpoints(folder))} checkpoints.", flush=True)
        while kills < args.times:
            folder = new_folder(Path(parent), args.out)
            # Each attempt gets on by a tenth of the job on average, so the kills fall everywhere in it.
            now = killed_until_it_ends(folder, args.job, args.times - kills, lambda: rng.uniform(0, takes / 5))
            if results(folder) != expected:
                raise ValueError(f"after {now} kills the results are others (seed {args.seed})")
            kills += now
            print(f"Killed {now} times, then finished with the same results; {kills} kills so far.", flush=True)
    print("No checkpoint was damaged, none was made twice.")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="tests.interrupt", description=interrupt.__doc__)
    parser.add_argument("--times", type=int, default=30, help="how often it is killed (default 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="base models kept there are copied (default runs)"
    )
    parser.add_argument(
        "--job", nargs=argparse.REMAINDER, default=[], help="for evaluate.py (default: the quick preset)"
    )
    return run(interrupt, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
