import pytest
import torch

from optimizers import OPTIMIZERS, Muon, SignSGD, orthogonal


@pytest.fixture
def weight(generator):
    return torch.nn.Parameter(torch.randn(6, 4, generator=generator).double())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_goes_downhill(name, weight):
    target = torch.ones_like(weight)
    optimizer = OPTIMIZERS[name]([weight], lr=0.01)
    before = (weight - target).norm()
    for _ in range(20):
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()
    assert (weight - target).norm() < before


def test_sign_sgd_moves_every_weight_alike(weight, generator):
    before, gradient = weight.detach().clone(), torch.randn(6, 4, generator=generator).double()
    weight.grad = gradient
    SignSGD([weight], lr=0.1).step()
    assert torch.allclose(weight, before - 0.1 * gradient.sign())


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (7, 1)])
def test_orthogonal(shape, generator):
    matrix = torch.randn(shape, generator=generator).double()
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    u2, s2, v2 = torch.linalg.svd(orthogonal(matrix), full_matrices=False)
    assert ((s2 > 0.6) & (s2 < 1.3)).all()
    # The same directions: only the singular values have changed.
    assert torch.allclose(
        u.T @ orthogonal(matrix) @ v.T, torch.diag((u.T @ orthogonal(matrix) @ v.T).diag()), atol=1e-9
    )


@pytest.mark.parametrize("shape", [(8, 4), (4, 8)])
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
    assert not torch.allclose(ours, theirs + 0.05, atol=0.01)
