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


def test_no_change_at_the_start(tiny, tokens, generator):
    before = tiny(tokens)
    lora.attach(tiny, rank=4, alpha=8.0, generator=generator)
    assert torch.equal(before, tiny(tokens))
    assert len(lora.adapters(tiny)) == 12
    assert all(layer.A.abs().max() > 0 for layer in lora.adapters(tiny).values())


def test_the_formula(generator):
    linear = torch.nn.Linear(5, 7, bias=False).double()
    layer = LoRALinear(linear, rank=2, alpha=3.0)
    torch.nn.init.normal_(layer.B, generator=generator)
    x = torch.randn(2, 4, 5, generator=generator).double()
    expected = torch.stack(
        [torch.stack([linear.weight @ v + 3 / 2 * layer.B @ (layer.A @ v) for v in row]) for row in x]
    )
    assert torch.allclose(layer(x), expected, atol=1e-12)
    assert torch.linalg.matrix_rank(layer.delta()) == 2


def test_gradients(generator):
    layer = LoRALinear(torch.nn.Linear(4, 3, bias=False).double(), rank=2, alpha=5.0)
    torch.nn.init.normal_(layer.B, generator=generator)
    x = torch.randn(6, 4, generator=generator).double()
    upstream = torch.randn(6, 3, generator=generator).double()
    layer(x).backward(upstream)
    # dL/dB = (alpha / r) g^T (x A^T),  dL/dA = (alpha / r) B^T g^T x
    assert torch.allclose(layer.B.grad, 2.5 * upstream.T @ (x @ layer.A.T))
    assert torch.allclose(layer.A.grad, 2.5 * layer.B.T @ upstream.T @ x)
    assert layer.linear.weight.grad is None


def test_only_adapters_are_trainable(adapted):
    trainable = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert trainable == {f"{name}.{matrix}" for name in lora.adapters(adapted) for matrix in "AB"}


def test_merged_equals_attached(adapted, tokens):
    attached = adapted(tokens)
    lora.merge(adapted)
    assert not lora.adapters(adapted)
    assert torch.allclose(adapted(tokens), attached, atol=1e-10)


def test_train_and_eval_do_not_merge(adapted):
    weights = [layer.linear.weight.clone() for layer in lora.adapters(adapted).values()]
    adapted.eval()
    adapted.train()
    assert all(torch.equal(old, layer.linear.weight) for old, layer in zip(weights, lora.adapters(adapted).values()))


def test_detach_restores_bit_for_bit(tiny, tokens, generator):
    before, weights = tiny(tokens), {k: v.clone() for k, v in tiny.state_dict().items()}
    lora.attach(tiny, rank=3, alpha=6.0, generator=generator)
    for layer in lora.adapters(tiny).values():
        torch.nn.init.normal_(layer.B, generator=generator)
    assert not torch.allclose(before, tiny(tokens))
    lora.detach(tiny)
    assert torch.equal(before, tiny(tokens))
    assert tiny.state_dict().keys() == weights.keys()
    assert all(torch.equal(weights[k], v) for k, v in tiny.state_dict().items())


def test_masks(adapted, tokens):
    attached = adapted(tokens)
    with lora.masked(adapted, torch.ones(3, 9)):
        assert torch.allclose(adapted(tokens), attached, atol=1e-12)  # the same sum in another order
    with lora.masked(adapted, torch.zeros(3, 9)):
        off = adapted(tokens)
    half = torch.zeros(3, 9)
    half[:, 5:] = 1
    with pytest.raises(RuntimeError), lora.masked(adapted, half):
        assert torch.equal(adapted(tokens)[:, :5], off[:, :5])
        assert not torch.allclose(adapted(tokens)[:, 5:], off[:, 5:])
        raise RuntimeError
    assert torch.equal(adapted(tokens), attached)  # the mask is gone, also after an error
    lora.detach(adapted)
    assert torch.equal(adapted(tokens), off)


def test_attach_by_name(tiny):
    lora.attach(tiny, 2, 2.0, names=["blocks.0.attention.q", "up"])
    assert set(lora.adapters(tiny)) == {"blocks.0.attention.q", "blocks.0.feed_forward.up", "blocks.1.feed_forward.up"}
    with pytest.raises(ValueError, match="'gate'"):
        lora.attach(tiny, 2, 2.0, names=["gate"])


def test_masks_within_some_layers_only(adapted, tokens):
    attached, nowhere = adapted(tokens), torch.zeros(1, 1)
    with lora.masked(adapted, nowhere, within="blocks.0"), lora.masked(adapted, nowhere, within="blocks.1.attention"):
        some = adapted(tokens)
    for name, layer in lora.adapters(adapted).items():
        if name.startswith(("blocks.0", "blocks.1.attention")):
            layer.B.data.zero_()
    assert torch.allclose(adapted(tokens), some, atol=1e-12) and not torch.allclose(attached, some)


@pytest.mark.parametrize("rank", [0, -1, 17])
def test_impossible_ranks(tiny, rank):
    with pytest.raises(ValueError, match=f"rank {rank} is outside 1..16"):
        lora.attach(tiny, rank, 1.0)


def test_a_rank_above_the_smaller_width_is_allowed_and_adds_no_rank(generator):
    layer = LoRALinear(torch.nn.Linear(4, 12, bias=False), rank=12, alpha=12.0, generator=generator)
    torch.nn.init.normal_(layer.B, generator=generator)
    assert torch.linalg.matrix_rank(layer.delta()) == 4


def test_a_sum_that_is_used_twice_may_be_computed_once(adapted, tokens, monkeypatch):
    sums = []
    summed = LoRALinear.summed
    monkeypatch.setattr(LoRALinear, "summed", lambda layer: sums.append(layer) or summed(layer))

    def gradients():
        loss = adapted(tokens).square().sum() + adapted(tokens[:1]).sum()
        return loss, *torch.autograd.grad(loss, [w for w in adapted.parameters() if w.requires_grad])

    layers = len(lora.adapters(adapted))
    plain, twice = gradients(), len(sums)
    with lora.summed_once(adapted):
        once = gradients()
    assert twice == 2 * layers and len(sums) == 3 * layers
    assert all(torch.allclose(a, b, rtol=1e-10) and a.norm() > 0 for a, b in zip(plain, once, strict=True))
    with pytest.raises(KeyError), lora.summed_once(adapted):
        raise KeyError
    adapted.blocks[0].attention.q.B.data += 1
    assert not torch.equal(
        adapted(tokens).square().sum() + adapted(tokens[:1]).sum(), once[0]
    )  # nothing is kept outside


def test_save_and_load(adapted, tokens, tmp_path):
    attached = adapted(tokens)
    lora.save(adapted, tmp_path / "adapter.pt")
    lora.detach(adapted)
    lora.load(adapted, tmp_path / "adapter.pt")
    assert torch.equal(adapted(tokens), attached)
    saved = torch.load(tmp_path / "adapter.pt", weights_only=True)
    assert set(saved["blocks.0.attention.q"]) == {"alpha", "A", "B"}


def test_restore_refuses_what_is_no_layer_here_or_of_another_shape(tiny, tokens, generator):
    before = tiny(tokens)
    good = {"alpha": 2.0, "A": torch.randn(2, 16, generator=generator), "B": torch.zeros(16, 2)}
    for name in ("q", "final_norm", "blocks.9.attention.q", "blocks.0.feed_forward.up"):
        with pytest.raises(ValueError, match="layer"):
            lora.restore(tiny, {name: good})
    assert not lora.adapters(tiny) and torch.equal(before, tiny(tokens))
    lora.restore(tiny, {"blocks.0.attention.q": good, "blocks.1.attention.q": good})
    trained = {name for name, weight in tiny.named_parameters() if weight.requires_grad}
    assert trained == {f"blocks.{n}.attention.q.{name}" for n in (0, 1) for name in "AB"}
