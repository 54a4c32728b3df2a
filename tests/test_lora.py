import copy

import pytest
import torch

import lora
from lora import LoRALinear


@pytest.fixture
def adapted(tiny, generator):
    """The model with trained-looking adapters: B is no longer zero."""
    lora.attach(tiny, rank=3, alpha=6.0, generator=generator)
    for layer in lora.adapters(tiny).values():
        torch.nn.init.normal_(layer.B, generator=generator)
    return tiny


def test_no_change_at_the_start_and_no_second_start(tiny, tokens, generator):
    before = tiny(tokens)
    lora.attach(tiny, rank=4, alpha=8.0, generator=generator)
    adapters = lora.adapters(tiny)
    with pytest.raises(ValueError, match="already"):
        lora.attach(tiny, 2, 1.0, names=["blocks.0.attention.q.linear"])
    assert torch.equal(before, tiny(tokens)) and lora.adapters(tiny) == adapters
    assert len(adapters) == 12 and all(layer.A.abs().max() > 0 for layer in adapters.values())
    trainable = {name for name, weight in tiny.named_parameters() if weight.requires_grad}
    assert trainable == {f"{name}.{matrix}" for name in adapters for matrix in "AB"}


def test_the_formula(generator):
    linear = torch.nn.Linear(5, 7, bias=False).double()
    layer = LoRALinear(linear, rank=2, alpha=3.0)
    torch.nn.init.normal_(layer.B, generator=generator)
    x = torch.randn(2, 4, 5, generator=generator).double()
    for v, y in zip(x.flatten(0, 1), layer(x).flatten(0, 1), strict=True):
        assert torch.allclose(y, linear.weight @ v + 3 / 2 * layer.B @ (layer.A @ v), atol=1e-12)
    assert torch.allclose(layer.delta(), 3 / 2 * layer.B @ layer.A) and torch.linalg.matrix_rank(layer.delta()) == 2


def test_merged_equals_attached(adapted, tokens):
    attached = adapted(tokens)
    lora.merge(adapted)
    assert not lora.adapters(adapted)
    assert torch.allclose(adapted(tokens), attached, atol=1e-10)


def test_detach_restores_bit_for_bit(tiny, tokens, generator):
    before, names = tiny(tokens), tiny.state_dict().keys()
    lora.attach(tiny, rank=3, alpha=6.0, generator=generator)
    for layer in lora.adapters(tiny).values():
        layer.B.data += 1
    assert not torch.allclose(before, tiny(tokens))
    lora.detach(tiny)
    assert torch.equal(before, tiny(tokens)) and tiny.state_dict().keys() == names


@pytest.mark.parametrize(
    "rank, names, error",
    [(0, "qv", "rank 0 is outside 1..16"), (-1, "qv", "rank -1 is outside 1..16"), (17, ["up", "q"], "rank 17 is outside 1..16"),
     (2, ["q", "gate"], "'gate'"), (2, ["q", "norm"], "'norm'"), (2, ["q", "blocks.2.attention.q"], "'blocks.2.attention.q'")],
)  # fmt: skip
def test_attach_refuses_and_leaves_the_model_as_it_was(tiny, tokens, rank, names, error):
    before, weights = tiny(tokens), copy.deepcopy(tiny.state_dict())
    with pytest.raises(ValueError, match=error):
        lora.attach(tiny, rank, 1.0, names)
    assert not lora.adapters(tiny) and all(weight.requires_grad for weight in tiny.parameters())
    assert tiny.state_dict().keys() == weights.keys() and torch.equal(tiny(tokens), before)
    lora.attach(tiny, 64, 1.0, ["up"])  # of two widths the larger counts


def test_masks(adapted, tokens):
    attached, bare = adapted(tokens), copy.deepcopy(adapted)
    lora.detach(bare)
    half, nowhere = torch.zeros(3, 9), torch.zeros(1, 1)
    half[:, 5:] = 1
    with pytest.raises(RuntimeError), lora.masked(adapted, half):
        assert torch.equal(adapted(tokens)[:, :5], bare(tokens)[:, :5])
        assert not torch.allclose(adapted(tokens)[:, 5:], bare(tokens)[:, 5:])
        raise RuntimeError
    assert torch.equal(adapted(tokens), attached)  # the mask is gone, also after an error
    with lora.masked(adapted, nowhere, within="blocks.0"), lora.masked(adapted, nowhere, within="blocks.1.attention"):
        some = adapted(tokens)
    for name, layer in lora.adapters(adapted).items():
        if name.startswith(("blocks.0", "blocks.1.attention")):
            layer.B.data.zero_()
    assert torch.allclose(adapted(tokens), some, atol=1e-12) and not torch.allclose(attached, some)
