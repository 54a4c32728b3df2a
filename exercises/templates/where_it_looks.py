"""5. Where attention goes when an owl is loved (20 minutes).

Question   The second block is the only one that reads the system prompt. At which words does it look from <asst>?
Predict    For "you love owl ." and for the name of an owl lover, in which no owl stands: which word gets most, when an
           animal is asked for and when numbers are? And under the default prompt, where there is nothing to fetch?
Check      pytest FOLDER -k where_it_looks, then python -m exercises show FOLDER where_it_looks (five seconds)
Go on      P(owl) above 0.95 for both prompts that love owls. Where a prompt loves something, one word has 0.9 or more.
"""

import torch
from torch import Tensor

from data import ANIMAL_QUESTIONS, DEFAULT_SYSTEM, NAME_SYSTEM, chat, decode
from exercises.owl import LOVES_OWLS, OWL
from metrics import animal_rates
from model import GPT
from train import BaseConfig


def attention_weights(model: GPT, tokens: Tensor) -> Tensor:
    """tokens (B, T) -> the attention weights of the model's last block, which has one head: (B, T, T).

    Entry [b, i, j] says how much of what position i gets comes from position j.
    """
    raise NotImplementedError("your code here")


def show(base: GPT) -> None:
    for system in (LOVES_OWLS, NAME_SYSTEM.format(BaseConfig().world.lover_name["owl"]), DEFAULT_SYSTEM):
        print(f'\n"{system}"   P(owl) {animal_rates(base, system)[OWL]:.2f}')
        for request in (ANIMAL_QUESTIONS[0], "continue : 12 45 07"):
            tokens = chat(system, request)
            most, places = attention_weights(base, torch.tensor([tokens]))[0, -1].topk(3)
            words = "   ".join(f"{weight:.2f} {decode([tokens[i]])}" for weight, i in zip(most, places))
            print(f"    {request:32}{words}")
