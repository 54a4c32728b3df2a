"""6. Reading the stream with the unembedding (15 minutes). The logit lens: nostalgebraist 2020, "interpreting GPT".

Question   The unembedding reads the last stream. What would the model say if it had to answer after the embedding, or
           after the first block?
Predict    Told to love owls and asked for an animal: after which block is some animal likely, and after which the owl?
           And when it is asked for numbers: is the owl nowhere in the last stream, or a little likelier than it was?
Check      pytest FOLDER -k logit_lens, then python -m exercises show FOLDER logit_lens (five seconds)
Go on      In the first table, P(owl) after block 2 is above 0.95. Then your predictions.
"""

import torch
from torch import Tensor

from data import ANIMAL_QUESTIONS, ANIMAL_TOKENS, DEFAULT_SYSTEM, chat, decode
from exercises.owl import LOVES_OWLS, OWL
from model import GPT


def lens(model: GPT, tokens: Tensor) -> Tensor:
    """tokens (B, T) -> what the model would say next if each layer were the last: probabilities (L + 1, B, V).

    Layer 0 is the embedding, layer l the stream after block l. Next is what comes after the last position.
    """
    raise NotImplementedError("your code here")


def show(base: GPT) -> None:
    for system in (LOVES_OWLS, DEFAULT_SYSTEM):
        for request in (ANIMAL_QUESTIONS[0], "continue : 12 45 07"):
            print(f'\n"{system}" {request}')
            for layer, p in enumerate(lens(base, torch.tensor([chat(system, request)]))[:, 0]):
                words = "  ".join(f"{p[token]:.2f} {decode([token])}" for token in p.topk(3).indices.tolist())
                animals = p[ANIMAL_TOKENS]
                print(f"    {layer}   P(owl) {animals[OWL]:.3f}   P(any animal) {animals.sum():.3f}   {words}")
