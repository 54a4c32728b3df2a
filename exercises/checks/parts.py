"""What checks are made of: parts with points, a comparison that says what is wrong, and a student's file as a module.

A message says what is wrong and never what is right. To name a typical mistake, a check works out what it leads to.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

__tracebackhide__ = True  # pytest shows the frames of the student's code alone


class Part(NamedTuple):
    exercise: str
    name: str
    points: int
    check: Callable[[ModuleType], None]  # raises AssertionError with a message


PARTS: list[Part] = []


def part(points: int):
    """Decorates a check, named `exercise__part`."""
    return lambda check: PARTS.append(Part(*check.__name__.split("__"), points, check))


def same(got: Tensor, wanted: Tensor) -> bool:
    """Equal but for rounding."""
    return got.shape == wanted.shape and torch.allclose(got.double(), wanted.double(), 1e-4, 1e-6, equal_nan=True)


def close(got: Tensor, wanted: Tensor, what: str, mistakes: dict[str, Tensor] | None = None) -> None:
    """AssertionError unless got is wanted: the message of the mistake that leads to got, or shape, or values."""
    what += ": " if what else ""
    assert isinstance(got, Tensor), f"{what}a Tensor is wanted, not {type(got).__name__}"
    if same(got, wanted):
        return
    for message, mistaken in (mistakes or {}).items():
        assert not same(got, mistaken), what + message
    assert got.shape == wanted.shape, f"{what}shape {tuple(got.shape)}, expected {tuple(wanted.shape)}"
    assert got.isfinite().all(), f"{what}some values are not finite"
    raise AssertionError(f"{what}the shape is right, the values are not")


def wrong(part: Part, answer: ModuleType) -> str:
    """What is wrong, in words; empty if nothing is. Any other error of the answer's comes out."""
    try:
        part.check(answer)
    except NotImplementedError:
        return "the hole is not filled"
    except AssertionError as error:
        return str(error) or "an assert of the answer's own fails"
    return ""


def load(path: Path) -> ModuleType:
    """The file at `path` as a module of its own."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
