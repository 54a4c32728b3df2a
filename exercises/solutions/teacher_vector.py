import torch
from torch import Tensor

from model import GPT


def vector(model: GPT, prompted: Tensor, plain: Tensor, last: int) -> Tensor:
    one, other = (torch.stack([h[:, -last:] for h in model.residual_stream(tokens)]) for tokens in (prompted, plain))
    return (one - other).mean(dim=(1, 2))
