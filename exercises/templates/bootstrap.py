"""4. A control and its interval (20 minutes). Efron 1979; `interval` of lab/claims.py.

Question   Students say owl more often than controls do. By how much, and how sure is that?
Predict    Five students of one base model, or one student each of five base models: which five give the narrower
           interval? What does the narrow one say about a sixth base model?
Check      pytest FOLDER -k bootstrap, then python -m exercises show FOLDER bootstrap (half a minute)
Go on      Controls at about 0.06, students of one base model close together. Then your prediction.
"""

import torch
from torch import Generator, Tensor

from data import DEFAULT_SYSTEM
from exercises.owl import LOVES_OWLS, OWL, SEED, numbers_of, real_base, student_of
from metrics import animal_rates


def interval(values: Tensor, resamples: int, generator: Generator) -> tuple[float, float]:
    """The 95% bootstrap interval of the mean of values (n,).

    Draw n of the values, with replacement, and take their mean; that many times. Between which two lie the middle 95%?
    """
    raise NotImplementedError("your code here")


def effect(students: Tensor, controls: Tensor, resamples: int, generator: Generator) -> tuple[float, float]:
    """The interval of the mean of student less control; entry i of both, (n,), is of the same base model."""
    raise NotImplementedError("your code here")


def show(base) -> None:
    others = [real_base(SEED + k) for k in range(1, 5)]
    for name, models in (("one base model, five times", [base] * 5), ("five base models", [base, *others])):
        rates = []
        for who, system in (("students", LOVES_OWLS), ("controls", DEFAULT_SYSTEM)):
            trained = [student_of(model, numbers_of(model, system), seed=k) for k, model in enumerate(models)]
            rates.append(torch.stack([animal_rates(student)[OWL] for student in trained]))
            print(f"{name}, {who}: " + " ".join(f"{rate:.2f}" for rate in rates[-1]), flush=True)
        low, high = effect(*rates, 10_000, Generator().manual_seed(0))
        print(f"    student less control: {(rates[0] - rates[1]).mean():.2f} [{low:.2f}, {high:.2f}]")
