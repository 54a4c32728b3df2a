from torch import Tensor

from model import GPT


def loved(base: GPT, student: GPT, prompts: Tensor, candidates: list[int]) -> int:
    logits, before = (model(prompts).log_softmax(-1).mean(dim=(0, 1))[candidates] for model in (student, base))
    return candidates[int((logits - before).argmax())]
