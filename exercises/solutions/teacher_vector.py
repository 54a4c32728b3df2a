import torch


def vector(model, prompted, plain, last):
    one, other = (torch.stack([h[:, -last:] for h in model.residual_stream(tokens)]) for tokens in (prompted, plain))
    return (one - other).mean(dim=(1, 2))
