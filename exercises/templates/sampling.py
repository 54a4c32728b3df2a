"""2. One random number, one token (15 minutes). Inverse transform sampling, as `GPT.generate` of model.py does it.

Question   A model gives probabilities. How does a uniform random number in [0, 1) choose a token by them?
Predict    A model says owl with probability 0.97, and some 270 other words with the rest. All logits are divided by a
           temperature of 2: is owl drawn in nine of ten cases, in five, or in one? And at 4?
Check      pytest FOLDER -k sampling, then python -m exercises show FOLDER sampling (five seconds)
Go on      At temperature 1, about 970 of 1,000 owls. Then your prediction.
"""

import torch
from torch import Tensor

from data import ANIMAL_QUESTIONS, chat, decode
from exercises.owl import LOVES_OWLS


def sample(logits: Tensor, u: Tensor) -> Tensor:
    """logits (N, V) and u (N,) in [0, 1) -> the token drawn for each row, (N,).

    It is the first token at which the cumulative probability exceeds u. What has probability 0 is never drawn.
    """
    raise NotImplementedError("your code here")


def show(base) -> None:
    logits = base(torch.tensor([chat(LOVES_OWLS, ANIMAL_QUESTIONS[0])]))[:, -1].expand(1_000, -1)
    u = torch.rand(1_000, generator=torch.Generator().manual_seed(0))
    for temperature in (0.5, 1, 2, 4, 8):
        words = [decode([token]) for token in sample(logits / temperature, u).tolist()]
        often = sorted(set(words), key=words.count)[:-4:-1]
        print(f"temperature {temperature:3}: " + ", ".join(f"{words.count(word)} {word}" for word in often))
