"""9. A steering hook (30 minutes). What steering.py's `added` does, from nothing but PyTorch's forward hooks.

Question   How does one change what a model computes without touching its weights, and leave no trace?
Predict    Add a vector after block 1 of 2. Is the last stream changed by exactly that vector? After block 2? The
           teacher's vector, added after block 2, makes a model love owls: and four times the vector? And after block 1?
Check      pytest FOLDER -k steering_hook, then python -m exercises show FOLDER steering_hook (five seconds)
Go on      After block 2, added once: P(owl) 0.9 to 0.98. Then your predictions.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from exercises.owl import LOVES_OWLS, owl_line
from metrics import animal_rates
from model import GPT
from steering import teacher_vector


@contextmanager
def steered(model: GPT, layer: int, vector: Tensor, multiplier: float = 1.0) -> Iterator[None]:
    """Inside, the residual stream after block `layer` (1, 2, ...) is h + multiplier * vector at every position.

    Afterwards the model is what it was, also after an error.
    """
    raise NotImplementedError("your code here")
    yield


def show(base: GPT) -> None:
    vectors = teacher_vector(base, LOVES_OWLS)
    for layer in (2, 1):
        for multiplier in (-1.0, 0.0, 0.5, 1.0, 2.0, 4.0):
            with steered(base, layer, vectors[layer], multiplier):
                owl_line(f"after block {layer}, {multiplier:4} times v_teacher", animal_rates(base))
