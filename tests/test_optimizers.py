import pytest
import torch

from optimizers import OPTIMIZERS, ClippedSGD, Muon


def by_hand(name, weight, gradients, lr):
    """The steps that the table in optimizers.py writes down."""
    m = v = torch.zeros_like(weight)
    for t, g in enumerate(gradients, 1):
        if name == "sgd":
            step = g
        elif name == "momentum":
            step = m = 0.9 * m + g
        elif name == "signsgd":
            step = g.sign()
        elif name == "rmsprop":
            v = 0.99 * v + 0.01 * g**2
            step = g / v.sqrt()
        else:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            step = m / (1 - 0.9**t) / (v / (1 - 0.999**t)).sqrt()
        weight = weight - lr * step
    return weight


@pytest.mark.parametrize("name", ["sgd", "momentum", "signsgd", "rmsprop", "adamw"])
def test_steps_by_hand(name, generator):
    weight, *gradients = torch.randn(4, 6, 4, generator=generator).double()
    moved = torch.nn.Parameter(weight.clone())
    optimizer = OPTIMIZERS[name]([moved], lr=0.01)
    for gradient in gradients:
        moved.grad = gradient.clone()
        optimizer.step()
    assert torch.allclose(moved, by_hand(name, weight, gradients, 0.01), atol=1e-6)


def test_clipping_cuts_the_largest_to_the_next_largest_over_all_weights(generator):
    """Of 100 coordinates in two tensors the ten largest are cut to the eleventh; the others stay."""
    gradients = [torch.randn(30, 2, generator=generator), 5 * torch.randn(40, generator=generator)]
    weights = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient.clone()
    ClippedSGD(weights, lr=0.5, top=0.10).step()
    limit = torch.cat([gradient.flatten() for gradient in gradients]).abs().sort().values[-11]
    for weight, gradient in zip(weights, gradients, strict=True):
        assert torch.allclose(weight, -0.5 * gradient.sign() * gradient.abs().minimum(limit))


@pytest.mark.parametrize("shape", [(8, 4), (4, 8), (5, 5)])
def test_muon_equals_torchs_own(shape, generator):
    """torch.optim.Muon computes in bfloat16, so equal to a hundredth."""
    ours = torch.nn.Parameter(torch.randn(shape, generator=generator))
    theirs = torch.nn.Parameter(ours.detach().clone())
    one, other = Muon([ours], lr=0.1), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0)
    for _ in range(3):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step()
        other.step()
    assert torch.allclose(ours, theirs, atol=0.01)
