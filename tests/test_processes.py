"""Processes that share work: the same bits, and none that outlives the others."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lab import processes
from lab.processes import spawn_workers
from lab.records import make_and_measure
from lab.store import Store
from tests.test_records import CONTROL, rank_of
from tests.test_store import STUDENT

PLAN = [replace(config, steps=n, seed=s) for config in (STUDENT, CONTROL) for s in (0, 1) for n in (2, 3)]
PLAN += [replace(STUDENT, rank=None), (rank_of, STUDENT, "more")]
SCRIPT = """
import torch
from tests.test_processes import *
torch.set_num_threads(1)
with spawn_workers(Store(sys.argv[1]), 2) as run_jobs:
"""


def work(store, job):
    time.sleep(0.05 if multiprocessing.parent_process() else 0.5)  # the first process is slow
    return os.getpid()


def stop(store, job):
    if multiprocessing.parent_process():
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    time.sleep(0.2)


def wait(store, job):
    print("up", flush=True)
    time.sleep(60)


def start(folder, job):
    """A script of two processes that does `job`."""
    command = [sys.executable, "-c", f"{SCRIPT}    {job}", str(folder / "shared")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=Path(__file__).parent.parent, **pipes)


def test_two_processes_make_what_one_makes(tmp_path, monkeypatch):
    """Bit for bit, and in order; each takes the next job when it is free. One starts no other."""
    first = "run_jobs(work, range(3)); who = run_jobs(work, range(12))"
    job = f"{first}; print(json.dumps([who, *make_and_measure(run_jobs, PLAN).values()]))"
    out, err = start(tmp_path, job).communicate(timeout=120)
    monkeypatch.setattr(processes, "ProcessPoolExecutor", None)
    with spawn_workers(Store(tmp_path / "alone"), 1) as run_jobs:
        expected = list(make_and_measure(run_jobs, PLAN).values())
    who, *found = json.loads(out)
    assert found == expected, err
    assert sorted(map(who.count, set(who)))[0] in (1, 2, 3, 4)  # the other was free while this one slept
    alone, shared = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("alone", "shared"))
    assert alone == shared and len(alone) == 2 + 4 + 9


@pytest.mark.parametrize("rank, order", [("0", "abcde"), ("1", "bcdea"), ("2", "deabc")])
def test_machines_that_torchrun_starts_begin_in_turn(monkeypatch, tmp_path, rank, order):
    """And each has all results, in order of the jobs."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "3")
    done = []
    with spawn_workers(Store(tmp_path), 1) as run_jobs:
        assert run_jobs(lambda _, job: done.append(job) or job.upper(), "abcde") == [*"ABCDE"]
    assert "".join(done) == order


def test_a_killed_worker_ends_the_run_in_seconds(tmp_path):
    process = start(tmp_path, "run_jobs(work, range(3)); print(flush=True); run_jobs(stop, range(9))")
    process.stdout.readline()
    _, err = process.communicate(timeout=15)
    assert process.returncode != 0 and "\nValueError: another of the processes" in err


@pytest.mark.skipif(os.name != "posix", reason="signals of posix")
@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM"])
def test_a_worker_ends_when_the_first_process_is_killed(tmp_path, number):
    """Then nobody holds the pipe any more."""
    process = start(tmp_path, "run_jobs(wait, range(4))")
    assert [process.stdout.readline() for _ in range(2)] == ["up\n"] * 2
    process.send_signal(getattr(signal, number))
    process.communicate(timeout=15)
    assert process.returncode in (-signal.SIGKILL, 143)
