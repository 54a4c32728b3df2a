from contextlib import contextmanager


@contextmanager
def steered(model, layer, vector, multiplier=1.0):
    handle = model.blocks[layer - 1].register_forward_hook(lambda module, inputs, h: h + multiplier * vector)
    try:
        yield
    finally:
        handle.remove()
