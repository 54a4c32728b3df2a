"""`pytest FOLDER -k NAME`: is the hole filled, and rightly? `python -m exercises start` copies this beside answers."""

from pathlib import Path

import pytest

from exercises.checks import PARTS
from exercises.checks.parts import load, wrong


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.exercise}-{part.name}")
def test(part):
    if message := wrong(part, load(Path(__file__).parent / f"{part.exercise}.py")):
        pytest.fail(message, pytrace=False)
