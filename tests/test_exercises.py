"""Every exercise: its solution passes the check, and the file with the hole says what to do and does not."""

import importlib
from pathlib import Path

import pytest

from exercises import checks


@pytest.mark.parametrize("name", checks.NAMES)
def test_solution_passes_and_hole_fails(name):
    check = getattr(checks, name)
    check(importlib.import_module(f"exercises.solutions.{name}"))
    hole = importlib.import_module(f"exercises.{name}")
    parts = [f"\n{part}  " for part in ("Question", "Predict", "Check", "Hints")]
    assert all(part in hole.__doc__ for part in (*parts, f"pytest exercises -k {name}"))
    with pytest.raises(NotImplementedError):
        check(hole)


WRONG = {
    "lora_forward": ("alpha / len(A)", "alpha"),
    "lora_merge": ("alpha / len(A)", "alpha"),
    "steering_hook": ("handle.remove()", "pass"),
    "projection": ("u = v / v.norm()", "u = v"),
    "teacher_vector": ("h[:, -last:]", "h[:, :last]"),
    "context_matrix": ('"gibberish" not in (trained, asked)', "False"),
    "gradient_defence": ('(".o", ".down")', '(".o", ".down", ".up")'),
    "detect_trait": ("logits - before", "before - logits"),
    "break_the_u": ("rank**0.5", "rank"),
    "sgd_outliers": ("reader.weight[:, dimension] /= factor", "pass"),
    "resampled_rows": ("replacement=True", "replacement=False"),
}


@pytest.mark.parametrize("name", checks.NAMES)
def test_a_wrong_answer_fails(name):
    module = importlib.import_module(f"exercises.solutions.{name}")
    text = Path(module.__file__).read_text(encoding="utf-8")
    assert WRONG[name][0] in text
    answer = type(module)(name)
    exec(text.replace(*WRONG[name]), vars(answer))
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        getattr(checks, name)(answer)
