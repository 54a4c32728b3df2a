"""What a command says: a line for each stage, errors in one line, arguments that torch can use."""

import argparse
import math
import sys
import time
from collections.abc import Callable

import train


class Progress:
    """A stage, on stderr: what is being done and, when it is, how long it took."""

    def __init__(self, what: str):
        self.what = what

    def __enter__(self) -> None:
        self.started = time.perf_counter()
        print(f"  {self.what} ...", file=sys.stderr, flush=True)

    def __exit__(self, error: type | None, *_: object) -> None:
        if error is None:
            print(f"  {self.what}: {time.perf_counter() - self.started:.1f} s", file=sys.stderr, flush=True)


def small(text: str) -> int:
    """A whole number: torch's seeds have 64 bits, and base models take up to ten times a seed."""
    if not -(2**59) < int(text) < 2**59:
        raise ValueError
    return int(text)


def finite(text: str) -> float:
    """A number: a config that holds "not a number" equals no config, not even itself."""
    if not math.isfinite(float(text)):
        raise ValueError
    return float(text)


def run(job: Callable[[argparse.Namespace], None], parser: train.Parser, argv: list[str] | None = None) -> int:
    """`train.run`, for arguments whose numbers torch can use."""
    parser.register("type", int, small)
    parser.register("type", float, finite)
    return train.run(job, parser, argv)
