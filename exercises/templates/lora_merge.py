"""8. The merge, and what of it the owl needs (30 minutes). Hu et al. 2021, section 4.1; Eckart and Young 1936.

Question   After training, the adapter can disappear into the weight. Which weight does the same as layer and adapter?
Predict    What rank does new - old have, at most? Subtract the change again: is the old weight there exactly, or only
           nearly? A student of rank 8 loves owls: how many of the 8 directions of each change does the owl need?
Check      pytest FOLDER -k lora_merge, then python -m exercises show FOLDER lora_merge (five seconds)
Go on      Merged by your function as with adapters: P(owl) 0.7 to 0.95. Then your prediction.
"""

import copy

from torch import Tensor

from exercises.owl import numbers_of, owl_line, student_of
from lora import adapters
from metrics import animal_rates


def merge(W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """The weight (out, in) that computes W x + (alpha / r) B A x by itself."""
    raise NotImplementedError("your code here")


def rank_of_change(old: Tensor, new: Tensor) -> int:
    """The numerical rank of new - old: how many singular values are above a thousandth of the largest."""
    raise NotImplementedError("your code here")


def cut(change: Tensor, rank: int) -> Tensor:
    """The matrix of this rank that is nearest to `change` (out, in): its `rank` largest singular directions."""
    raise NotImplementedError("your code here")


def show(base) -> None:
    student = student_of(base, numbers_of(base))
    owl_line("with adapters", animal_rates(student))
    for rank in (8, 4, 2, 1):
        merged = copy.deepcopy(base)
        for name, layer in adapters(student).items():
            old = layer.linear.weight
            merged.get_submodule(name).weight.copy_(old + cut(merge(old, layer.A, layer.B, 8.0) - old, rank))
        owl_line(f"merged, cut to rank {rank}", animal_rates(merged))
