import torch


def lens(model, tokens):
    return torch.stack([model.unembed(h[:, -1]).softmax(-1) for h in model.residual_stream(tokens)])
