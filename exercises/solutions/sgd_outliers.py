import copy

import torch


@torch.no_grad()
def with_outlier(model, dimension, factor):
    model = copy.deepcopy(model)
    for block in model.blocks:
        block.norm.weight[dimension] *= factor
        block.norm.bias[dimension] *= factor
        for reader in (block.attention.q, block.attention.k, block.attention.v, block.feed_forward.up):
            reader.weight[:, dimension] /= factor
    return model
