import math

import torch


def attention_weights(model, tokens):
    block = model.blocks[-1]
    x = block.norm(model.residual_stream(tokens)[-2])
    q, k = block.attention.q(x), block.attention.k(x)
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
