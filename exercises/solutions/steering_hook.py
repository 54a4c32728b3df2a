from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from model import GPT


@contextmanager
def steered(model: GPT, layer: int, vector: Tensor, multiplier: float = 1.0) -> Iterator[None]:
    handle = model.blocks[layer - 1].register_forward_hook(lambda module, inputs, h: h + multiplier * vector)
    try:
        yield
    finally:
        handle.remove()
