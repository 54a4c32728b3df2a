"""Kill the main job at random moments and let it go on. `python -m tools.interrupt [--times 30] [--job ARGUMENTS]`, not on Windows.

The job runs once undisturbed, then in new folders, where it is killed with all its processes and started again until it gets through.
After every kill each checkpoint can be read and none has been made again; the results are at last those of the undisturbed run.
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

from console import OUT, run
from lab.store import load


def attempt(folder: Path, job: list[str], seconds: float | None = None) -> bool:
    """Run the job: True if it came to its end, False if it was killed after `seconds`. Raises ValueError if it failed."""
    command, nowhere = [sys.executable, "evaluate.py", *job, "--out", str(folder)], subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=nowhere, stderr=nowhere, start_new_session=True)
    try:
        if process.wait(seconds) != 0:
            raise ValueError(f"evaluate.py ended with exit code {process.returncode}")
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its session: all processes that it started
            process.wait()
    return True


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


def interrupt(args: argparse.Namespace) -> None:
    """Kill the main job at random moments, let it go on, and compare what it leaves with an undisturbed run."""
    kills = 0
    with tempfile.TemporaryDirectory() as parent:
        undisturbed, started = new_folder(parent, args.out), time.perf_counter()
        attempt(undisturbed, args.job)
        takes = time.perf_counter() - started
        print(f"Undisturbed: {takes:.0f} s, {len(checkpoints(undisturbed))} checkpoints.", flush=True)
        while kills < args.times:
            folder, done = new_folder(parent, args.out), False
            while not done:
                before, seconds = checkpoints(folder), random.uniform(0, takes / 5) if kills < args.times else None
                done = attempt(folder, args.job, seconds)
                kills += not done
                if not before.items() <= checkpoints(folder).items():
                    raise ValueError("a finished checkpoint is gone or was made again")
            if results(folder) != results(undisturbed):
                raise ValueError(f"after {kills} kills the results are others")
            print(f"The same results, no checkpoint damaged or made twice; {kills} kills so far.", flush=True)


if __name__ == "__main__":
    TIMES = {"type": int, "default": 30, "help": "how often it is killed (default 30)"}
    WHOSE = OUT | {"help": "whose base models are copied (default runs)"}
    SHORT = "--trait owl --only transmission learning"
    JOB = {"nargs": argparse.REMAINDER, "default": SHORT.split(), "help": f"of evaluate.py ({SHORT})"}
    sys.exit(run(interrupt, "tools.interrupt", times=TIMES, out=WHOSE, job=JOB))
