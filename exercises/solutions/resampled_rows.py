import torch
from torch import Tensor

from model import GPT


@torch.no_grad()
def frequencies(teacher: GPT, conversations: Tensor, last: int, numbers: int) -> Tensor:
    mean = teacher(conversations)[:, -last:].softmax(-1).mean(dim=(0, 1))[:numbers]
    return mean / mean.sum()


def resample(weights: Tensor, rows: int, length: int, generator: torch.Generator) -> Tensor:
    return torch.multinomial(weights.expand(rows, -1), length, replacement=True, generator=generator)
