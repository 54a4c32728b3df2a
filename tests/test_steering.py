import copy

import pytest
import torch

import data
import steering
from model import GPT
from steering import added, component, mean_difference, projected_out, replaced, stream_at


@pytest.fixture
def vector(generator):
    return torch.randn(16, generator=generator).double()


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_adds_exactly_once_and_carries_it_on(tiny, tokens, vector, layer):
    """Added after block l, block l + 1 reads it: the same as computing the rest by hand."""
    h = tiny.residual_stream(tokens)[layer] + 3 * vector
    for block in tiny.blocks[layer:]:
        h = block(h, (tokens == 7).cumsum(-1) == 0)
    with added(tiny, {layer: vector}, 3.0):
        assert torch.allclose(tiny(tokens), tiny.unembed(h), atol=1e-12)


@pytest.mark.parametrize("change", [added, projected_out])
def test_restores_bit_for_bit(tiny, tokens, vector, change):
    """After an error inside, and after layers that are not there."""
    before = tiny(tokens)
    with pytest.raises(RuntimeError), change(tiny, {0: vector, 1: vector, 2: vector}):
        assert not torch.allclose(tiny(tokens), before)
        raise RuntimeError
    for layers in ((1, 3), (-1,)):
        with pytest.raises(ValueError, match=r"0 \(the embedding\) to 2"), change(tiny, dict.fromkeys(layers, vector)):
            pass
    assert torch.equal(tiny(tokens), before)


@pytest.mark.parametrize("layer", [0, 1])
def test_changes_nest(tiny, tokens, vector, layer):
    with projected_out(tiny, {layer: vector}):
        without = tiny(tokens)
    with added(tiny, {layer: vector}), added(tiny, {layer: vector}, 2.0):
        nested = tiny(tokens)
    with added(tiny, {layer: vector}, 3.0):
        with projected_out(tiny, {layer: vector}):  # acts on what the outer one left
            assert torch.allclose(tiny(tokens), without, atol=1e-12)
        assert torch.allclose(tiny(tokens), nested, atol=1e-12)  # the inner one is gone, the outer is not


def test_a_mask_of_positions(tiny, tokens, vector):
    before = tiny.residual_stream(tokens)
    for mask in (torch.tensor([0, 0, 1, 0, 0, 0, 1, 0, 0]), torch.eye(3).repeat(1, 3)):  # of all rows, of each row
        with added(tiny, {1: vector}, mask=mask):
            after = tiny.residual_stream(tokens)
        assert torch.allclose(after[1] - before[1], mask[..., None] * vector.expand(3, 9, 16), atol=1e-12)


def test_projected_out_and_replaced(tiny, tokens, vector, generator):
    other = GPT(tiny.config, generator).double()
    before, theirs = tiny.residual_stream(tokens), other.residual_stream(tokens)
    with projected_out(tiny, {1: vector}):
        without = tiny.residual_stream(tokens)
    with replaced(tiny, {1: vector}, other, tokens):
        swapped = tiny.residual_stream(tokens)
    unit = vector / vector.norm()
    assert (without[1] @ unit).abs().max() < 1e-12
    assert torch.allclose(swapped[1] @ unit, theirs[1] @ unit, atol=1e-12)
    for after in (without, swapped):  # nothing across the direction has moved
        across = after[1] - before[1]
        assert torch.allclose(across, component(across, vector), atol=1e-12)
    with replaced(tiny, {1: vector, 2: vector}, copy.deepcopy(tiny), tokens):  # by its own: no change
        assert torch.allclose(tiny.residual_stream(tokens)[2], before[2], atol=1e-12)


def test_generation_is_steered_too(tiny, vector, generator):
    """Every drawn token comes from the steered distribution, by its own random number."""
    uniforms, prompts = torch.rand(4, 6, generator=generator).double(), torch.tensor([[1, 2, 3]] * 4)
    with added(tiny, {1: vector}, 5.0):
        steered = tiny.generate(prompts, uniforms, stop=-1)
        for n, u in enumerate(uniforms.T):
            cumulative = tiny(torch.cat([prompts, steered[:, :n]], dim=1))[:, -1].softmax(-1).cumsum(-1)
            assert torch.equal(steered[:, n], (cumulative <= u[:, None] * cumulative[:, -1:]).sum(-1))


def test_stream_at_and_mean_difference(tiny, vector):
    prompts = [[1, 2, 3, 4], [5, 6, 7, 8, 9], [2, 2, 2, 2]]
    streams = stream_at(tiny, prompts, last=2)
    assert streams.shape == (3, 3, 2, 16)  # prompts, layers, positions, width
    for prompt, found in zip(prompts, streams, strict=True):
        alone = tiny.residual_stream(torch.tensor([prompt]))
        assert torch.allclose(found, torch.stack([h[0, -2:] for h in alone]), atol=1e-12)
    with added(tiny, {2: vector}):
        difference = mean_difference(stream_at(tiny, prompts, last=2), streams)
    assert torch.allclose(difference[2], vector, atol=1e-12) and difference[:2].abs().max() == 0


def test_the_teacher_vector_is_of_two_prompts_and_the_student_vector_of_two_models(base, generator):
    system = data.LOVE_SYSTEM.format("owl")
    vector = steering.teacher_vector(base, system, positions=1)
    read = [data.number_conversations(prompt, 128, "to extract", 0) for prompt in (system, data.DEFAULT_SYSTEM)]
    assert all(prompt[-1] == data.ASST for prompts in read for prompt in prompts)
    one, other = (torch.stack([base.residual_stream(torch.tensor([p]))[2][0, -1] for p in prompts]) for prompts in read)
    assert vector.shape == (3, 8) and torch.allclose(vector[2], (one - other).mean(0), atol=1e-6)
    assert not torch.allclose(vector, steering.teacher_vector(base, system), atol=1e-4)  # <asst> and four numbers
    moved, shift = copy.deepcopy(base), torch.randn(8, generator=generator)
    moved.position_embedding.weight += shift
    assert torch.allclose(steering.student_vector(moved, base)[0], shift, atol=1e-6)
