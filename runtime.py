"""What every command of this project shares and no lesson needs: files kept whole, a progress line, polite errors."""

import argparse
import ast
import ctypes
import hashlib
import io
import itertools
import math
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path

import torch


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write to; on leaving, the file takes the name `path`, and after an error it is gone.

    Whatever the moment of an interruption, `path` is its old self or its new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


class Progress:
    """One line on stderr: what is being made, how far it is, and how many seconds are left."""

    def __init__(self, what: str, steps: int):
        self.what, self.steps, self.started, self.shown = what, steps, time.perf_counter(), 0.0

    def __call__(self, step: int, *_: object) -> None:
        if worker()[0] != 0:
            return  # the first process speaks for all
        now = time.perf_counter()
        passed, end = now - self.started, "\n" if step == self.steps else "\r"
        if step == self.steps:
            text = f"  {self.what}: {passed:.1f} s"
        elif sys.stderr.isatty() and now - self.shown > 0.2:
            text = f"  {self.what}: {step}/{self.steps}, {passed / max(step, 1) * (self.steps - step):.0f} s left"
        else:
            return
        self.shown = now
        print(f"{text:<78}", end=end, file=sys.stderr, flush=True)


def digest(*sources: str) -> str:
    """A digest of code. What cannot change a product does not count: comments, layout, docstrings, a command's `tell` and `main`."""
    dumps = []
    for source in sources:
        tree = ast.parse(source)
        tree.body = [
            node
            for node in tree.body
            if not isinstance(node, ast.If) and getattr(node, "name", "") not in ("tell", "main")
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                del node.body[0]
        dumps.append(ast.dump(tree))
    return hashlib.sha256("".join(dumps).encode()).hexdigest()


def kept(path: Path, config: dict, make: Callable[[], dict], device: torch.device) -> dict:
    """What `make` returns, from `path` if it was made before. Raises ValueError for a file that is not of `config`."""
    if not path.exists():
        file = io.BytesIO()
        torch.save({"config": config, "content": make()}, file)
        with whole_file(path) as part:
            part.write_bytes(file.getbuffer())  # torch itself says of a full disk what no user understands
    saved = load(path, device)
    if saved.get("config") != config or "content" not in saved:
        raise ValueError(f"{path} is the checkpoint of another config; delete it and run again")
    return saved["content"]


def load(path: Path, device: torch.device) -> dict:
    """The checkpoint in `path`; runs no code from it. Raises ValueError if it is truncated, altered or something else."""
    file = io.BytesIO(path.read_bytes())
    try:
        if zipfile.ZipFile(file).testzip() is not None:  # torch itself does not look at the checksums that it writes
            raise ValueError("a checksum is wrong")
        file.seek(0)
        saved = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # zipfile and torch raise many kinds
        raise ValueError(f"{path} is no whole checkpoint ({type(error).__name__}); delete it and run again") from None
    if not isinstance(saved, dict):
        raise ValueError(f"{path} is no checkpoint of this project")
    return saved


def worker() -> tuple[int, int]:
    """Which process this is and of how many: (0, 1), unless torchrun started several."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def together(processes: int, command: list[str]) -> Iterator[None]:
    """Inside, so many processes run `command` and share its work; this is the first of them. None are started under torchrun."""
    if worker()[1] > 1 or processes < 2:
        yield
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes), "RANK": "0"}
    others = [
        subprocess.Popen([sys.executable, *command], env={**os.environ, "RANK": str(rank)})
        for rank in range(1, processes)
    ]
    try:
        yield
    except BaseException:
        for other in others:
            other.terminate()
        raise
    finally:
        for other in others:
            other.wait()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        meeting_place.cache_clear()
        os.environ.pop("WORLD_SIZE")


_shared = itertools.count()  # calls of `share`, of which each process makes the same ones in the same order


@cache
def meeting_place() -> torch.distributed.Store:
    """What all processes can count in together. The first call waits until all of them are there."""
    patience = timedelta(hours=3)  # one process may have a long job when the others have none left
    store, rank, processes = next(torch.distributed.rendezvous("env://", timeout=patience))
    torch.distributed.init_process_group("gloo", timeout=patience, rank=rank, world_size=processes, store=store)
    return store


def share(jobs: list, do: Callable[[object], None]) -> None:
    """Do every job, in order, each in the first process that is free; return when all are done.

    The processes are those that `together` or torchrun started.
    """
    if worker()[1] == 1:
        for job in jobs:
            do(job)
        return
    store, name = meeting_place(), f"jobs of share {next(_shared)}"

    def all_here(meet: Callable[[], object]) -> object:
        try:
            return meet()
        except RuntimeError:  # what torch raises when the other end is gone
            raise ValueError("another of the processes that share the work has stopped; run again to go on") from None

    while (n := all_here(lambda: store.add(name, 1))) <= len(jobs):
        do(jobs[n - 1])
    all_here(torch.distributed.barrier)


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the fastest there is. Raises ValueError for one that is not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there.get(name):
        raise ValueError(f"device {name!r} is not one of {', '.join(d for d in there if there[d])}, which are here")
    return torch.device(name)


def keep_memory() -> None:
    """Let this process keep the memory that it frees. A training step frees what the next one takes again, and a system that
    takes it back in between hands it out page by page: up to a third of a step's time. Only glibc does, and has the switches.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return
    trim_threshold, mmap_threshold = -1, -3
    mallopt(mmap_threshold, 2**25)  # the most it takes: 32 MiB
    mallopt(trim_threshold, 2**31 - 1)


def small(text: str) -> int:
    """A whole number of the command line: torch's seeds have 64 bits, and base models take up to ten times a seed."""
    if not -(2**59) < int(text) < 2**59:
        raise ValueError
    return int(text)


def finite(text: str) -> float:
    """A number of the command line: a config that holds "not a number" equals no config, not even itself."""
    if not math.isfinite(float(text)):
        raise ValueError
    return float(text)


class Parser(argparse.ArgumentParser):
    """argparse, but an error is one line, and a number is one that torch can use."""

    def __init__(self, **options):
        super().__init__(**options)
        self.register("type", int, small)
        self.register("type", float, finite)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}\n")


def run(job: Callable[[argparse.Namespace], None], parser: Parser, argv: list[str] | None = None) -> int:
    """Parse and do `job`. Bad input: one line and exit code 2. Ctrl-C: exit code 130; what is complete stays."""
    args = parser.parse_args(argv)
    # Tensors this small gain nothing from a second thread. And with one, sums are rounded alike wherever a run is made.
    torch.set_num_threads(1)
    keep_memory()
    try:
        job(args)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if worker()[0] == 0:
            print(f"\n{parser.prog}: stopped; what is complete is kept, the next run goes on from it", file=sys.stderr)
        return 130
    return 0
