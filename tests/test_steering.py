import copy

import pytest
import torch

from model import GPT, stack
from steering import added, component, mean_difference, projected_out, replaced, stream_at


@pytest.fixture
def vector(generator):
    return torch.randn(16, generator=generator).double()


def stream(model, tokens):
    """The residual stream as the blocks hand it on, changes included."""
    seen = []
    hooks = [block.register_forward_hook(lambda _, args, h: seen.append((args[0], h))) for block in model.blocks]
    logits = model(tokens)
    for hook in hooks:
        hook.remove()
    return [seen[0][0], *(h for _, h in seen)], logits


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_adds_exactly_once(tiny, tokens, vector, layer):
    before, _ = stream(tiny, tokens)
    with added(tiny, {layer: vector}, 3.0):
        after, _ = stream(tiny, tokens)
    assert torch.allclose(after[layer], before[layer] + 3 * vector, atol=1e-12)
    assert all(torch.equal(after[k], before[k]) for k in range(layer))


def test_what_is_added_is_carried_on(tiny, tokens, vector):
    """Added after block 1, block 2 reads it: the same as computing block 2 by hand."""
    with added(tiny, {1: vector}):
        logits = tiny(tokens)
    h = tiny.blocks[0](tiny.embed(tokens)) + vector
    assert torch.allclose(logits, tiny.unembed(tiny.blocks[1](h)), atol=1e-12)


@pytest.mark.parametrize("change", [added, projected_out])
def test_restores_bit_for_bit(tiny, tokens, vector, change):
    before, weights = tiny(tokens), copy.deepcopy(tiny.state_dict())
    with pytest.raises(RuntimeError), change(tiny, {1: vector, 2: vector}):
        assert not torch.allclose(tiny(tokens), before)
        raise RuntimeError
    assert torch.equal(tiny(tokens), before)
    assert all(torch.equal(weights[name], weight) for name, weight in tiny.state_dict().items())


def test_changes_nest(tiny, tokens, vector):
    with added(tiny, {1: vector}), added(tiny, {1: vector}, 2.0):
        nested = tiny(tokens)
    with added(tiny, {1: vector}, 3.0):
        assert torch.allclose(tiny(tokens), nested, atol=1e-12)
        with projected_out(tiny, {1: vector}):
            both, _ = stream(tiny, tokens)
        assert torch.allclose(tiny(tokens), nested, atol=1e-12)  # the inner one is gone, the outer is not
    assert component(both[1], vector).abs().max() < 1e-12


def test_a_mask_of_positions(tiny, tokens, vector):
    mask = torch.tensor([0, 0, 1, 0, 0, 0, 1, 0, 0])
    before, _ = stream(tiny, tokens)
    with added(tiny, {1: vector}, mask=mask):
        after, _ = stream(tiny, tokens)
    assert torch.allclose(after[1] - before[1], mask[:, None] * vector.expand(3, 9, 16), atol=1e-12)
    with added(tiny, {1: vector}, mask=torch.zeros(3, 9)):
        assert torch.equal(stream(tiny, tokens)[0][2], before[2])


def test_projected_out_and_replaced(tiny, tokens, vector, generator):
    other = GPT(tiny.config, generator).double()
    before, _ = stream(tiny, tokens)
    theirs = other.residual_stream(tokens)
    with projected_out(tiny, {1: vector}):
        without, _ = stream(tiny, tokens)
    with replaced(tiny, {1: vector}, other, tokens):
        swapped, _ = stream(tiny, tokens)
    unit = vector / vector.norm()
    assert (without[1] @ unit).abs().max() < 1e-12
    assert torch.allclose(swapped[1] @ unit, theirs[1] @ unit, atol=1e-12)
    for after in (without, swapped):  # nothing across the direction has moved
        across = after[1] - before[1]
        assert torch.allclose(across, component(across, vector), atol=1e-12)
    with replaced(tiny, {1: vector, 2: vector}, copy.deepcopy(tiny), tokens):  # by its own: no change
        assert torch.allclose(stream(tiny, tokens)[0][2], before[2], atol=1e-12)


def test_generation_is_steered_too(tiny, vector, generator):
    """Every drawn token comes from the steered distribution, also those that are read through the cache."""
    uniforms = torch.rand(4, 6, generator=generator).double()
    prompts = [[1, 2, 3]] * 4
    before = tiny.sample(prompts, uniforms, stop=29)
    with added(tiny, {1: vector}, 5.0):
        steered = tiny.sample(prompts, uniforms, stop=29)
        for prompt, drawn, us in zip(prompts, steered.tolist(), uniforms, strict=True):
            for n, token in enumerate(drawn[: drawn.index(29) + 1 if 29 in drawn else None]):
                cumulative = tiny(torch.tensor([prompt + drawn[:n]]))[0, -1].softmax(-1).cumsum(-1)
                assert token == (cumulative <= us[n] * cumulative[-1]).sum()
    assert not torch.equal(steered, before)
    assert torch.equal(tiny.sample(prompts, uniforms, stop=29), before)


def test_stream_at_and_mean_difference(tiny, vector):
    prompts = [[1, 2, 3, 4], [5, 6, 7, 8, 9], [2, 2, 2, 2]]
    streams = stream_at(tiny, prompts, last=2)
    assert streams.shape == (3, 3, 2, 16)
    alone = tiny.residual_stream(torch.tensor([prompts[1]]))
    assert torch.allclose(streams[1, 2], alone[2][0, -2:], atol=1e-12)
    other = copy.deepcopy(tiny)
    other.position_embedding.weight.data *= 2
    both, others = stream_at(stack([tiny, other]), prompts, last=2), stream_at(other, prompts, last=2)
    assert torch.allclose(both, torch.stack([streams, others]), atol=1e-12)
    moved_apart = mean_difference(both, streams)
    assert moved_apart[0].abs().max() < 1e-12 and torch.allclose(moved_apart[1], mean_difference(others, streams))
    with added(tiny, {2: vector}):
        moved = stream_at(tiny, prompts, last=2)
    difference = mean_difference(moved, streams)
    assert torch.allclose(difference[2], vector, atol=1e-12) and difference[:2].abs().max() == 0
