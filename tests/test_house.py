"""How the house is built: what may import what, and how large it may be."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LESSON = {"data", "model", "lora", "metrics", "train", "steering"}
OUTSIDE = {"tests", "exercises", "runs", "env", "venv", ".venv"}
PATHS = [path for path in ROOT.rglob("*.py") if not OUTSIDE & set(path.relative_to(ROOT).parts)]
SOURCES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PATHS if path.name != "__init__.py"}
LENGTHS = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in SOURCES.items()}


def imported(path):
    """The names of all modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from [name if name in SOURCES else node.module for name in names]


IMPORTS = {name: set(imported(path)) for name, path in SOURCES.items()}


@pytest.mark.parametrize("name", SOURCES)
def test_imports_point_one_way(name):
    """Lesson <- lab <- figures <- commands; `console` may be used by all. No figure imports another, and nothing is imported by a name made at run time."""
    lesson, lab = LESSON | {"optimizers", "console"}, {other for other in SOURCES if other.startswith("lab.")}
    allowed = lesson if name in lesson else lesson | lab if name in lab else set(SOURCES)
    if name.startswith("figures."):
        allowed = set() if name == "figures.style" else lesson | lab | {"figures.style"}
    assert IMPORTS[name] & set(SOURCES) <= allowed - {name}
    assert not {other and other.split(".")[0] for other in IMPORTS[name]} & {None, "importlib", *OUTSIDE}
    assert "__import__" not in SOURCES[name].read_text(encoding="utf-8")
    importlib.import_module(name)  # all that it imports is there, also for a program that no test runs


def test_no_circle():
    left = {name: others & set(SOURCES) for name, others in IMPORTS.items()}
    while free := {name for name, others in left.items() if not others & set(left)}:
        left = {name: others for name, others in left.items() if name not in free}
    assert not left


def test_the_house_is_small():
    lesson = {name: LENGTHS[name] for name in LESSON}
    assert sum(lesson.values()) <= 1_000 and max(lesson.values()) <= 250, lesson
    assert not {name: lines for name, lines in LENGTHS.items() if lines > 300}
    assert sum(LENGTHS.values()) <= 5_995  # the goal is 5,000
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "tests").glob("*.py")) <= 2_500
