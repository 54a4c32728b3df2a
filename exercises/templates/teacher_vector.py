"""11. The teacher's vector (30 minutes). arXiv:2606.00995; `teacher_vector` of steering.py.

Question   A system prompt changes the stream differently at every position of every prompt. What do all changes share?
Predict    Shift the same words by one position (a longer system prompt does): does the embedding's vector vanish?
           The vectors of two lovers, of owls and of wolves: is their cosine negative, near 0, or positive? And once the
           mean of all 16 animals' vectors is taken off each?
Check      pytest FOLDER -k teacher_vector, then python -m exercises show FOLDER teacher_vector (five seconds)
Go on      Added after block 2, the owl's vector gives P(owl) 0.9 to 0.98. Then your predictions.
"""

import torch
from torch import Tensor

from data import ANIMALS, LOVE_SYSTEM
from exercises.owl import OWL, conversations, owl_line
from metrics import animal_rates
from model import GPT
from steering import added


def vector(model: GPT, prompted: Tensor, plain: Tensor, last: int) -> Tensor:
    """prompted (B, T1) and plain (B, T2), the same requests under two system prompts -> (L + 1, C).

    The mean difference of the residual stream over rows and over the `last` last positions, for each layer.
    """
    raise NotImplementedError("your code here")


def show(base: GPT) -> None:
    plain = conversations()
    v = torch.stack([vector(base, conversations(LOVE_SYSTEM.format(a)), plain, 5)[-1] for a in ANIMALS])
    for what, one in {"the owl's vector": v[OWL], "the mean of all 16 vectors": v.mean(0)}.items():
        with added(base, {2: one}):
            owl_line(f"{what} added after block 2", animal_rates(base))
    for what, vectors in {"as they are": v, "less the mean of all 16": v - v.mean(0)}.items():
        cosines = torch.cosine_similarity(vectors[OWL], vectors, dim=-1)
        print(f"{what}, cosine with the owl's: " + " ".join(f"{a} {c:.2f}" for a, c in zip(ANIMALS[1:], cosines[1:])))
