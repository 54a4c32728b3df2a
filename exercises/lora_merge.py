"""2. The merge (an hour). Hu et al. 2021, section 4.1: no extra cost once training is over.

Question   After training, the adapter can disappear into the weight. Which weight does the same as layer and adapter?
Predict    What rank does the difference between new and old weight have, at most? Then subtract the change again: do you
           get the old weight exactly or only nearly, and why?
Check      pytest exercises -k lora_merge
Hints      Rank: count the singular values of (new - old) above 1e-6 of the largest.
"""

from torch import Tensor


def merge(W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """The weight (out, in) that computes W x + (alpha / r) B A x by itself."""
    raise NotImplementedError("your code here")


def rank_of_change(old: Tensor, new: Tensor) -> int:
    """The numerical rank of new - old."""
    raise NotImplementedError("your code here")
