"""1. LoRA's forward (an hour). Hu et al. 2021, section 4.1; lora.py draws it, and takes another order of the same sum.

Question   A layer computes W x. LoRA leaves W alone and adds (alpha / r) B A x. How many numbers are trained?
Predict    For in = 32, out = 128, r = 4: how many, and what share of W's? What does the layer compute before any training?
Check      pytest exercises -k lora_forward
Hints      x is (..., in), so A must be applied from the right as A^T. B A x costs less than (B A) x when x is short.
"""

from torch import Tensor


def lora_forward(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """x (..., in), W (out, in), A (r, in), B (out, r) -> W x + (alpha / r) B A x, (..., out)."""
    raise NotImplementedError("your code here")


def trained_numbers(n_in: int, n_out: int, rank: int) -> int:
    """How many numbers LoRA of this rank trains for a layer of W (out, in)."""
    raise NotImplementedError("your code here")
