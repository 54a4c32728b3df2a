"""What a command says: a line for each stage, errors in one line, arguments that torch can use."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import train

# Options that several commands have.
OUT = {"type": Path, "default": Path("runs"), "help": "folder for checkpoints (default runs)"}
FILE = {"type": Path, "metavar": "FILE"}


@contextmanager
def progress(what: str) -> Iterator[None]:
    """A stage, on stderr: what is being done and, when it is, how long it took."""
    started = time.perf_counter()
    print(f"  {what} ...", file=sys.stderr, flush=True)
    yield
    print(f"  {what}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)


def small(text: str) -> int:
    """A whole number: torch's seeds have 64 bits, and base models take twenty times a seed."""
    if not -(2**58) < int(text) < 2**58:
        raise ValueError
    return int(text)


def run(job: Callable[[argparse.Namespace], None], prog: str, argv: list[str] | None = None, /, **options) -> int:
    """`train.run`: `job` as a command with these options, whose whole numbers are `small`."""
    parser = train.Parser(prog=prog, description=job.__doc__)
    parser.register("type", int, small)
    for name, how in options.items():
        parser.add_argument(f"--{name}", **how)
    return train.run(job, parser, argv)
