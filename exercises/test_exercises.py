"""`pytest exercises -k NAME`: is the hole filled, and rightly?"""

import importlib

import pytest

from exercises import checks


@pytest.mark.parametrize("name", checks.NAMES)
def test_exercise(name):
    getattr(checks, name)(importlib.import_module(f"exercises.{name}"))
