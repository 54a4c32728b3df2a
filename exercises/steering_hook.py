"""3. A steering hook (two hours). What steering.py's `added` does, from nothing but PyTorch's forward hooks.

Question   How does one change what a model computes without touching its weights, and leave no trace?
Predict    Add a vector after block 1 of 2. Is the last stream changed by exactly that vector? After block 2?
Check      pytest exercises -k steering_hook
Hints      A hook that returns something replaces the module's output. register_forward_hook gives a handle; remove it
           in a `finally`, so that an error inside leaves the model clean as well.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from model import GPT


@contextmanager
def steered(model: GPT, layer: int, vector: Tensor, multiplier: float = 1.0) -> Iterator[None]:
    """Inside, the residual stream after block `layer` (1, 2, ...) is h + multiplier * vector at every position."""
    raise NotImplementedError("your code here")
    yield
