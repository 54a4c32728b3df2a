"""Stacks and passes against each model and each student alone: in float64, which rounds out of sight."""

import copy
from dataclasses import replace

import pytest
import torch

import lora
import train
from data import DEFAULT_SYSTEM, number_rows, pack
from lab import stacked
from lab.stacked import common_beginning, generating_fast, stack
from metrics import reply_loss
from model import GPT, GPTConfig
from steering import added, stream_at

STUDENT = train.StudentConfig(rank=2, alpha=4.0, steps=6, batch_size=8)
PAIRS = [["continue : 12 45", "33 81 07"], ["continue : 99 00", "10 20"], ["continue : 01 02", "55"]] * 6
OTHER_PAIRS = [["which numbers come next ? 12 45", "33 81 07 11"], ["continue : 99 00 01", "10"]] * 9 + PAIRS[:2]


def perturbed(model, generator):
    """The model, in which norms and adapters do something."""
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


def random_model(generator, **shape):
    shape = {"d_model": 16, "max_len": 24, "user_token": 7, "blind_blocks": 1} | shape
    return perturbed(GPT(GPTConfig(30, **shape), generator).double(), generator)


def three_students(generator, system=DEFAULT_SYSTEM, **changes):
    """Bases, rows and configs of students that differ in all that those of one pass may."""
    shape = replace(train.BaseConfig().model, d_model=8)
    bases = [GPT(shape, generator).double().requires_grad_(False) for _ in range(3)]
    packed = [pack(number_rows(pairs, system)) for pairs in (PAIRS, OTHER_PAIRS, PAIRS[:7])]
    return bases, packed, [replace(STUDENT, seed=seed, **changes) for seed in range(3)]


@pytest.mark.parametrize("n_head", [1, 2])  # queries 8 and 16 wide, which are multiplied the one way and the other
def test_a_stack_computes_what_each_of_its_models_does(generator, n_head):
    models = [random_model(generator, n_head=n_head) for _ in range(3)]
    together, tokens = stack(models), torch.randint(0, 30, (3, 4, 9), generator=generator)
    prompts = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]

    def computed(model, own):
        return [*model.residual_stream(own), model(tokens[0]), model.next_token(prompts), stream_at(model, prompts, 2)]

    for k, model in enumerate(models):
        pairs = zip(computed(together, tokens), computed(model, tokens[k]), strict=True)
        assert all(torch.allclose(ours[k], other, atol=1e-12) for ours, other in pairs)
    before = models[1].token_embedding.weight.detach().clone()
    together.token_embedding.weight.data += 1
    assert torch.equal(models[1].token_embedding.weight, before)  # a stack is a copy


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("same, user", [(0, 7), (3, 1), (3, 8), (5, 2)])  # tokens that all begin with; <user>
def test_fast_generation_gives_the_same_tokens(generator, same, user, adapted):
    """Also under a vector, and with adapters. No token is read twice, the last drawn one never."""
    model, vector = random_model(generator, user_token=user), torch.randn(16, generator=generator)
    allowed = [*range(3, 12), 29]
    if adapted:
        lora.attach(model, 2, 2.0, generator=generator)
        perturbed(model, generator)
    tokens, uniforms = torch.arange(20).view(4, 5), torch.rand(4, 9, generator=generator).double()
    tokens[:, :same] = tokens[0, :same]
    for vectors in ({}, {0: vector, 2: 3 * vector}):
        with added(model.requires_grad_(False), vectors):
            plain, read = model.generate(tokens, uniforms, 29, allowed), []
            handle = model.blocks[0].register_forward_hook(lambda _, x, h, read=read: read.append(h[..., 0].numel()))
            with generating_fast(model):
                assert torch.equal(model.generate(tokens, uniforms, 29, allowed), plain)
            handle.remove()
            assert sum(read) == min(same, 4) + 4 * (5 - min(same, 4) + 8)
            assert torch.equal(model.generate(tokens, uniforms, 29, allowed), plain)


def test_batches_are_those_of_each_student(generator):
    """Row by row; what a shorter batch is filled up with has no target. A target may be a number of any size."""
    packed = [(tokens, targets.where(targets < 0, targets + 10**6)) for tokens, targets in three_students(generator)[1]]
    many = stacked.stacked_batches(packed, 8, [torch.Generator().manual_seed(seed) for seed in range(3)])
    each = [train.batches(*rows, 8, torch.Generator().manual_seed(seed)) for seed, rows in enumerate(packed)]
    for _, (tokens, targets), *own in zip(range(9), many, *each):
        assert tokens.shape[2] == max(batch.shape[1] for batch, _ in own)  # no longer than it has to be
        for k, (own_tokens, own_targets) in enumerate(own):
            n, width = own_tokens.shape
            assert torch.equal(tokens[k, :n, :width], own_tokens) and torch.equal(targets[k, :n, :width], own_targets)
            assert (targets[k, n:] == -100).all() and (targets[k, :, width:] == -100).all()


@pytest.mark.parametrize("begin, system", [(10, DEFAULT_SYSTEM), (1, None), (0, DEFAULT_SYSTEM)])
def test_the_loss_of_a_pass_is_the_sum_of_each_and_the_gradient_each_ones_own(generator, begin, system):
    """Also where what all rows begin with is read once."""
    bases, packed, configs = three_students(generator, system)
    if begin == 0:
        packed = [(torch.cat([a, 0 * a[-1:]]), torch.cat([b, b[-1:]])) for a, b in packed]
    students = [perturbed(train.init_student(*each), generator) for each in zip(bases, configs, strict=True)]
    together, (tokens, targets) = stack(students), next(stacked.stacked_batches(packed, 100, [generator] * 3))
    losses = [reply_loss(student, *rows) for student, rows in zip(students, packed, strict=True)]
    loss = stacked.stacked_loss(together, tokens, targets)
    assert loss.item() == pytest.approx(sum(losses).item(), abs=1e-9) and common_beginning(tokens) == begin
    for each in (*losses, loss):
        each.backward()
    for name, weights in together.named_parameters():
        if weights.requires_grad:
            own = torch.stack([student.get_parameter(name).grad for student in students])
            assert own.norm() > 0 and torch.allclose(weights.grad, own, atol=1e-9)


@pytest.mark.parametrize(
    "changes",
    [{"steps": 12}, {"rank": None}, {"rank": None, "layers": ("token_embedding", "norm")}, {"layers": ("v", "down"), "system": None},
     {"optimizer": "sgd", "lr": 0.5}, {"optimizer": "momentum"}, {"optimizer": "signsgd"}, {"optimizer": "rmsprop"},
     {"optimizer": "muon"}, {"optimizer": "clip10", "lr": 0.5}, {"optimizer": "clip1", "lr": 0.5, "rank": None}],
)  # fmt: skip
def test_students_in_one_pass_are_those_trained_alone(generator, changes):
    bases, packed, configs = three_students(generator, **changes)
    seen, alone = {}, {}
    students = stacked.fine_tune_together(bases, packed, configs, lambda n, s: seen.update({n: copy.deepcopy(s)}))
    assert [*seen] == [*range(1, configs[0].steps + 1)] and not any(w.requires_grad for w in students.parameters())
    for k, (base, rows, config) in enumerate(zip(bases, packed, configs, strict=True)):
        train.fine_tune(base, *rows, config, lambda n, s: alone.update({n: copy.deepcopy(s)}))
        for step, together in (*seen.items(), (configs[0].steps, students)):
            pairs = zip(together.parameters(), alone[step].parameters(), strict=True)
            assert all(torch.allclose(weights[k], weight, atol=1e-8) for weights, weight in pairs)
        pairs = zip(students.parameters(), alone[2].parameters(), strict=True)
        assert not all(torch.allclose(weights[k], weight) for weights, weight in pairs)


def test_students_that_cannot_share_a_pass_are_refused(generator):
    bases, packed, configs = three_students(generator)
    for change in ({"lr": 1.0}, {"rank": None}, {"optimizer": "sgd"}, {"steps": 7}, {"layers": ("v",)}):
        with pytest.raises(ValueError, match="cannot be trained in one pass"):
            stacked.fine_tune_together(bases, packed, [*configs[:2], replace(configs[2], **change)])
