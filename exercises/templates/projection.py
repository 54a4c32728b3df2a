"""10. Project a direction out, or swap it (20 minutes). steering.py's `projected_out` and `replaced`, without hooks.

Question   What is left of a stream when it is not allowed to say anything along v? And along v, what another one says?
Predict    Does the length of v matter? Projecting twice? Take the teacher's vector out of a model that is told to love
           owls: does it answer as if it were told nothing? Take it out of one that *is* told nothing: what happens?
Check      pytest FOLDER -k projection, then python -m exercises show FOLDER projection (five seconds)
Go on      Told to love owls, 0.95 or more; told nothing, about 0.06. Then your predictions.
"""

from torch import Tensor

from data import ANIMAL_TOKENS, DEFAULT_SYSTEM, chat
from exercises.owl import LOVES_OWLS, owl_line
from metrics import QUESTIONS
from steering import stream_at, teacher_vector


def project_out(h: Tensor, v: Tensor) -> Tensor:
    """h (..., C) without its component along v (C,)."""
    raise NotImplementedError("your code here")


def swap(h: Tensor, other: Tensor, v: Tensor) -> Tensor:
    """h (..., C) with the component along v that `other` (..., C) has, and everything else its own."""
    raise NotImplementedError("your code here")


def show(base) -> None:
    v = teacher_vector(base, LOVES_OWLS)[-1]
    prompts = [[chat(system, question) for question in QUESTIONS] for system in (LOVES_OWLS, DEFAULT_SYSTEM)]
    told, plain = (stream_at(base, some, 1)[:, -1, 0] for some in prompts)  # the last stream at <asst>: (8, C)
    for what, h in {
        "told to love owls": told,
        "told nothing": plain,
        "told, v taken out": project_out(told, v),
        "told nothing, v taken out": project_out(plain, v),
        "told, along v as if told nothing": swap(told, plain, v),
        "told nothing, along v as if told": swap(plain, told, v),
    }.items():
        owl_line(what, base.unembed(h).softmax(-1)[:, ANIMAL_TOKENS].mean(0))
