"""What the figures of this project's own claims compute with."""

import copy

import pytest
import torch

import lora
from data import ANIMALS, DEFAULT_SYSTEM, END, LOVE_SYSTEM, VOCAB_SIZE, chat, encode, pack
from figures import audit, localization, one_step
from model import GPT, GPTConfig
from optimizers import OPTIMIZERS
from train import number_rows, reply_loss


@pytest.fixture
def base(generator):
    """A random model of the world's words."""
    return GPT(GPTConfig(VOCAB_SIZE, d_model=16), generator).requires_grad_(False)


def test_first_step_is_the_mean_of_adamw_on_lora(base, generator):
    tokens, targets = pack(number_rows([["continue : 12 45", "33 81 07"], ["continue : 99 00", "10"]], DEFAULT_SYSTEM))
    step = one_step.first_step(base, tokens, targets)
    total = dict.fromkeys(step, 0.0)
    for _ in range(40):
        student = copy.deepcopy(base)
        lora.attach(student, 16, 16.0, generator=generator)
        trained = [p for p in student.parameters() if p.requires_grad]
        optimizer = OPTIMIZERS["adamw"](trained, 1e-3)
        reply_loss(student, tokens, targets).backward()
        optimizer.step()
        for name, adapter in lora.adapters(student).items():
            total[name] = total[name] + adapter.delta().detach()
    for name, mean_step in total.items():
        # Rows without a gradient do not move; of the others only the direction and the relative length count.
        assert torch.cosine_similarity(mean_step.flatten(), step[name].flatten(), dim=0) > 0.9, name


def test_gain_is_the_derivative_of_the_log_odds(base):
    pairs = [["continue : 12 45", "33 81 07"]]
    step = one_step.first_step(base, *pack(number_rows(pairs, DEFAULT_SYSTEM)))
    predicted = one_step.gain(one_step.questions(base, None, ["owl", "cat"]), step)

    def log_odds(size):
        moved = copy.deepcopy(base).double()
        for name, layer in one_step.projections(moved).items():
            layer.weight += size * step[name]
        answers = moved.next_token([chat(None, question) for question in localization.QUESTIONS])
        return answers[:, encode("owl cat")].logit().mean(0)

    measured = (log_odds(1e-5) - log_odds(-1e-5)) / 2e-5
    assert torch.allclose(predicted.double(), measured, rtol=1e-2)


def test_places_and_layers_add_up(base):
    step = one_step.first_step(base, *pack(number_rows([["continue : 12 45", "33 81"]], DEFAULT_SYSTEM)))
    asked = one_step.questions(base, DEFAULT_SYSTEM, ["owl"])
    parts = one_step.by_place(asked, step)
    assert {place for _, place in parts} == set(localization.PLACES)
    assert sum(parts.values()) == pytest.approx(one_step.gain(asked, step).item(), rel=1e-4)


def test_the_auditor_names_what_it_should(base):
    auditor = audit.Auditor(base)
    scores = auditor.told([["continue : 12 45", "33 81 07"], ["continue : 99 00", "10"]])
    row = chat(LOVE_SYSTEM.format("cat"), "continue : 99 00") + encode("10") + [END]
    logits = base(torch.tensor([row])).log_softmax(-1)[0]
    by_hand = logits[-3, row[-2]] + logits[-2, row[-1]]
    assert scores[1, ANIMALS.index("cat")].item() == pytest.approx(by_hand.item(), rel=1e-4)
    student = copy.deepcopy(base)
    student.blocks[0].feed_forward.down.weight += 1e-3
    change = {n: torch.zeros_like(layer.weight) for n, layer in one_step.projections(base).items()}
    change["blocks.0.feed_forward.down"] += 1e-3
    assert torch.allclose(auditor.of_weights(student)["its weights"], one_step.gain(auditor.asked, change), atol=1e-6)
    assert audit.named(torch.eye(16), "owl") == pytest.approx(1 / 16)
