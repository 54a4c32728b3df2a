"""7. LoRA's forward (20 minutes). Hu et al. 2021, section 4.1; lora.py draws it.

Question   A layer computes W x. LoRA leaves W alone and adds (alpha / r) B A x. How many numbers are trained?
Predict    For in = 32, out = 128, r = 4: how many, and what share of W's? A student has come to love owls. Now double
           alpha in all of its layers, and double it again: does it love owls more?
Check      pytest FOLDER -k lora_forward, then python -m exercises show FOLDER lora_forward (five seconds)
Go on      As trained, P(owl) 0.7 to 0.95, and the same for your layers. Then your prediction.
"""

from torch import Tensor

from exercises.owl import numbers_of, owl_line, student_of
from lora import adapters
from metrics import animal_rates


def lora_forward(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """x (..., in), W (out, in), A (r, in), B (out, r) -> W x + (alpha / r) B A x, (..., out)."""
    raise NotImplementedError("your code here")


def trained_numbers(n_in: int, n_out: int, rank: int) -> int:
    """How many numbers LoRA of this rank trains for a layer of W (out, in)."""
    raise NotImplementedError("your code here")


def show(base) -> None:
    student = student_of(base, numbers_of(base))
    owl_line("the student as trained, alpha 8", animal_rates(student))
    for alpha in (0.0, 4.0, 8.0, 16.0, 32.0):
        for layer in adapters(student).values():
            layer.forward = lambda x, it=layer, alpha=alpha: lora_forward(x, it.linear.weight, it.A, it.B, alpha)
        owl_line(f"your layers, alpha {alpha:.0f}", animal_rates(student))
