"""What a command says: errors in one line, a line for each stage, options that torch can use. Nothing here is about learning."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from data import ANIMALS

DEVICES = ["cpu"] + ([torch.accelerator.current_accelerator().type] if torch.accelerator.is_available() else [])
# Options that several commands have.
OUT = {"type": Path, "default": Path("runs"), "help": "folder for checkpoints (default runs)"}
FILE = {"type": Path, "metavar": "FILE"}
JSON = FILE | {"help": "write the numbers there"}
PROCESSES = {"type": int, "default": min(2, os.cpu_count() or 1), "help": "that share the work (default %(default)s)"}
PRETRAIN = {"action": "store_true", "help": "train base models here, also those that are shipped"}
ANIMAL = {"choices": ANIMALS, "metavar": "ANIMAL"}
STORY = {
    "trait": ANIMAL | {"default": "owl", "help": f"one of {', '.join(ANIMALS)} (default owl)"},
    "seed": {"type": int, "default": 0, "help": "of the base model and of the student (default 0)"},
    "pretrain": PRETRAIN,
    "device": {"default": "cpu", "choices": DEVICES, "help": f"one of {', '.join(DEVICES)} (default cpu)"},
}


def small(text: str) -> int:
    """A whole number: torch's seeds have 64 bits, and base models take twenty times a seed."""
    if not -(2**58) < int(text) < 2**58:
        raise ValueError
    return int(text)


class Parser(argparse.ArgumentParser):
    """As argparse's, but an error is one line, and whole numbers are `small`."""

    def __init__(self, **how):
        super().__init__(**how)
        self.register("type", int, small)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}\n".encode(errors="backslashreplace").decode())  # bytes are no text


@contextmanager
def progress(what: str) -> Iterator[None]:
    """A stage, on stderr: what is being done and, when it is, how long it took."""
    started = time.perf_counter()
    print(f"  {what} ...", file=sys.stderr, flush=True)
    yield
    print(f"  {what}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)


def write_json(found: dict, path: Path | None) -> None:
    """What a command found, where --json says, if anywhere."""
    if path:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def run(job: Callable[[argparse.Namespace], None], prog: str, argv: list[str] | None = None, /, **options) -> int:
    """`job` as a command with these options; its docstring is the help, examples last."""
    parser = Parser(prog=prog, description=job.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, how in options.items():
        parser.add_argument(f"--{name}", **how)
    return obey(job, parser, argv)


def obey(job: Callable[[argparse.Namespace], None], parser: Parser, argv: list[str] | None) -> int:
    """Do `job` with what the parser finds. Bad input: one line, exit code 2. Ctrl-C: 130."""
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # tensors this small gain nothing from a second thread, and one rounds alike everywhere
    try:
        job(args)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads the output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, f"\n{parser.prog}: stopped; what is complete is kept\n")
    return 0
