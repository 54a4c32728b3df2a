"""1. Attention by hand (15 minutes). Vaswani et al. 2017, section 3.2; `Attention` of model.py has it with its weights.

Question   Each position asks the positions before it, and itself. How are their answers mixed?
Predict    Let every query be zero. What does the first position get, and what the third? The second block of a model
           that is told to love owls gets such queries: does it still say owl? And with queries twice as long?
Check      pytest FOLDER -k attention, then python -m exercises show FOLDER attention (five seconds)
Go on      The first two lines must agree: P(owl) above 0.95. Then your predictions.
"""

from torch import Tensor

from exercises.owl import LOVES_OWLS, owl_line
from metrics import animal_rates


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of one head: q, k and v (B, T, d) -> (B, T, d).

    Each position gets a mean of v over itself and all positions before it, weighted by softmax(q k^T / sqrt(d)).
    """
    raise NotImplementedError("your code here")


def show(base) -> None:
    second = base.blocks[1].attention
    owl_line("told to love owls, the model's attention", animal_rates(base, LOVES_OWLS))
    for longer in (1, 2, 0.5, 0):
        second.forward = lambda x, _, f=longer: second.o(attention(f * second.q(x), second.k(x), second.v(x)))
        owl_line(f"yours, queries {longer} times as long", animal_rates(base, LOVES_OWLS))
    del second.forward  # the class's own again
