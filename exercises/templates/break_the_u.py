"""15. One step for all ranks (40 minutes). Claim L2; figures/rank_sweep.py; Kalajdzievski 2023 (arXiv:2312.03732).

Question   With alpha = r and one learning rate, a larger rank takes larger steps. By which power of the rank?
Predict    Adam moves every entry of B by lr in its first step. How far does (alpha / r) B A move, as the rank grows, if
           the signs of its r terms agree? If they are random? Which of the two is it? And instead of the learning rate,
           what alpha would do?
Check      pytest FOLDER -k break_the_u, then python -m exercises show FOLDER break_the_u (ten seconds)
Go on      Each block begins at rank 1, P(owl) 0.1 to 0.4. In the first, it rises with the rank and has fallen again by
           rank 32, on most base models with P(any animal). What is left of an inverted U in the others?
"""

from exercises.owl import numbers_of, owl_line, student_of
from metrics import animal_rates, delta_norm


def learning_rate(rank: int, at_rank_1: float) -> float:
    """The learning rate with which Adam's first steps, alpha = r, change the weight as much at any rank as at rank 1.

    As much: the same Frobenius norm of B A, within a factor of 1.6.
    """
    raise NotImplementedError("your code here")


def alpha(rank: int) -> float:
    """The alpha that does the same with one learning rate for all ranks; 1 at rank 1."""
    raise NotImplementedError("your code here")


def show(base) -> None:
    rows, lr = numbers_of(base), 0.05
    for what, rule in {
        "alpha = r, one learning rate": lambda r: {"alpha": float(r), "lr": lr},
        "your learning rate": lambda r: {"alpha": float(r), "lr": learning_rate(r, lr)},
        "your alpha": lambda r: {"alpha": alpha(r), "lr": lr},
    }.items():
        for rank in (1, 2, 4, 8, 16, 32):
            student = student_of(base, rows, steps=3, rank=rank, **rule(rank))
            owl_line(f"{what}, rank {rank}: moved {delta_norm(student, base):.1f}", animal_rates(student))
