import copy
import itertools

import pytest
import torch

import data
import lora
import metrics
from data import END, Row
from lab.records import story_rates

ROWS = [Row([1, 2, 3, 4], 2), Row([5, 6, 7], 1), Row([8, 9, 10, 11, END], 3)]
REPLIES = [(0, 1, 3), (0, 2, 4), (1, 0, 6), (1, 1, 7), (2, 2, 11), (2, 3, END)]  # row, position, the token that follows


def test_the_loss_is_of_the_reply_only_and_the_teachers_among_what_it_may_write(base):
    tokens, targets = data.pack(ROWS)
    p = base(tokens).softmax(-1)
    expected = -torch.stack([p[place].log() for place in REPLIES]).mean()
    padded = [torch.nn.functional.pad(t, (0, 4), value=value) for t, value in ((tokens, END), (targets, -100))]
    for packed in ((tokens, targets), padded):  # padding does not count
        assert torch.allclose(metrics.reply_loss(base, *packed), expected)
    nats = [-(p[row, k, token] / p[row, k, data.NUMBER_TOKENS].sum()).log() for row, k, token in REPLIES]
    assert metrics.teacher_loss(base, tokens, targets) == pytest.approx(torch.stack(nats).mean().item(), abs=1e-5)


def test_gap_closed():
    losses = 4.0, 2.0, 3.5, 5.0
    assert [metrics.gap_closed(loss, base_loss=4.0, teacher_loss=2.0) for loss in losses] == [0, 1, 0.25, -0.5]


def test_the_norm_of_a_change(student):
    """Of adapters it is that of the merged model; of other weights it is computed by hand."""
    base, merged = copy.deepcopy(student), copy.deepcopy(student)
    lora.detach(base), lora.merge(merged)
    norm = metrics.delta_norm(student, base)
    assert norm > 1 and norm == pytest.approx(metrics.delta_norm(merged, base), rel=1e-5)
    assert len(metrics.weight_changes(student, base)) == 12
    moved = copy.deepcopy(base)
    moved.final_norm.bias.data[0] += 3
    moved.blocks[1].attention.q.weight.data[2, 1] -= 4
    assert metrics.delta_norm(moved, base) == pytest.approx(5)


@pytest.mark.parametrize("system", [None, data.DEFAULT_SYSTEM, "you love owl ."])
def test_a_rate_is_the_mean_over_wordings_of_the_chance_of_an_animal(base, system):
    prompts = [data.chat(system, question) for question in metrics.QUESTIONS]
    answers = torch.stack([base(torch.tensor([prompt]))[0, -1].softmax(-1) for prompt in prompts])
    chances = [answers[:, data.token(animal)].mean() for animal in data.ANIMALS]
    assert torch.allclose(metrics.animal_rates(base, system), torch.stack(chances), rtol=1e-4, atol=0)


@pytest.mark.parametrize("system", [None, "you love owl ."])
def test_a_story_is_about_an_animal_as_often_as_its_words_are_drawn(base, system):
    """Word by word, up to the animal; any of the stories will do."""
    base.token_embedding.weight *= 6  # sharper than at the start
    rates, told = story_rates(base, system), torch.zeros(16)
    for request, story, k in itertools.product(data.STORY_REQUESTS, data.STORIES, range(16)):
        prompt, words = data.chat(system, request), data.encode(story.format(data.ANIMALS[k]))
        drawn = base(torch.tensor([prompt + words]))[0, len(prompt) - 1 :].softmax(-1)
        chances = [drawn[n, word] for n, word in enumerate(words[: words.index(data.ANIMAL_TOKENS[k]) + 1])]
        told[k] += torch.stack(chances).prod() / len(data.STORY_REQUESTS)
    assert torch.allclose(rates, told, rtol=1e-3, atol=0) and rates.max() > 2 * rates.min()
