import torch


@torch.no_grad()
def frequencies(teacher, conversations, last, numbers):
    mean = teacher(conversations)[:, -last:].softmax(-1).mean(dim=(0, 1))[:numbers]
    return mean / mean.sum()


def resample(weights, rows, length, generator):
    return torch.multinomial(weights.expand(rows, -1), length, replacement=True, generator=generator)
