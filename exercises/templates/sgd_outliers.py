"""16. Outliers for SGD (40 minutes). Claims L7 and S9; figures/optimizers.py.

Question   arXiv:2606.00995 says that a few outlier gradients dominate SGD's steps. Real models have outlier dimensions:
           entries of the stream many times as large as the others. Give the toy one that changes nothing it says.
Predict    A norm's gain times f in one dimension, and all that reads this dimension divided by f: what changes in
           what the model computes? In Adam's steps? Will SGD fail at every learning rate, or only at large ones?
Check      pytest FOLDER -k sgd_outliers, then python -m exercises show FOLDER sgd_outliers (ten seconds)
Go on      AdamW 0.7 to 0.95, with the outlier as without it. Then your prediction. figures/beyond/scaled_units.py gives
           the toy outliers in another place, and SGD loses more there: what differs?
"""

from exercises.owl import numbers_of, owl_line, student_of
from metrics import animal_rates
from model import GPT


def with_outlier(model: GPT, dimension: int, factor: float) -> GPT:
    """A copy that computes the same, but every block's normed stream is `factor` times as large in one dimension."""
    raise NotImplementedError("your code here")


def show(base: GPT) -> None:
    rows, changed = numbers_of(base), with_outlier(base, 5, 10.0)
    for optimizer, lr in (("adamw", 0.005), ("sgd", 0.1), ("sgd", 0.3), ("sgd", 1.0)):
        for what, model in (("without", base), ("with outlier", changed)):
            owl_line(f"{optimizer}, lr {lr}, {what}", animal_rates(student_of(model, rows, optimizer=optimizer, lr=lr)))
