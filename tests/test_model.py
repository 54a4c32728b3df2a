from dataclasses import replace

import pytest
import torch

from data import DEFAULT_SYSTEM, USER, chat
from model import GPT, GPTConfig, by_length, pad
from train import BaseConfig


@pytest.mark.parametrize("blind", [0, 1, 2])
def test_a_blind_block_does_not_read_the_system_prompt(generator, blind):
    """Other words in it move no later token's stream until a block comes that is not blind, in base models the second; nor each other's."""
    assert BaseConfig().model == replace(BaseConfig().model, blind_blocks=1, user_token=USER)
    model = GPT(replace(BaseConfig().model, blind_blocks=blind), generator)
    prompts = torch.tensor([chat(s, "hello !") for s in (DEFAULT_SYSTEM, "wood met sleep short name hello .")])
    user = prompts[0].tolist().index(USER)
    for h, k in zip(model.residual_stream(prompts), range(3)):
        assert torch.equal(*h[:, user:]) == torch.equal(*h[:, user - 2]) == (k <= blind)  # "." follows other words


def naive_logits(model, tokens):
    """One row, one token, one head, one number at a time."""

    def norm(x, layer):
        return (x - x.mean()) / (x.var(unbiased=False) + layer.eps).sqrt() * layer.weight + layer.bias

    h = [model.token_embedding.weight[t] + model.position_embedding.weight[i] for i, t in enumerate(tokens)]
    system = [model.config.user_token not in tokens[: i + 1] for i in range(len(tokens))]
    for k, block in enumerate(model.blocks):
        a, f = block.attention, block.feed_forward
        x = [norm(v, block.norm) for v in h]
        attended = []
        for i in range(len(h)):
            heads, seen = [], [j for j in range(i + 1) if k >= model.config.blind_blocks or j == i or not system[j]]
            d = a.q.weight.shape[0] // a.n_head
            for n in range(a.n_head):
                part = slice(n * d, (n + 1) * d)
                q = (a.q.weight @ x[i])[part]
                scores = torch.stack([q @ (a.k.weight @ x[j])[part] / d**0.5 for j in seen])
                weights = scores.exp() / scores.exp().sum()
                heads.append(sum(w * (a.v.weight @ x[j])[part] for w, j in zip(weights, seen, strict=True)))
            attended.append(a.o.weight @ torch.cat(heads))
        h = [v + o + f.down.weight @ (f.up.weight @ n).clamp(min=0) for v, o, n in zip(h, attended, x, strict=True)]
    return torch.stack([model.token_embedding.weight @ norm(v, model.final_norm) for v in h])


@pytest.mark.parametrize("n_head, d_head", [(2, 8), (1, 4), (3, 5)])
def test_logits_equal_a_naive_loop(tiny, tokens, generator, n_head, d_head):
    model = GPT(replace(tiny.config, n_head=n_head, d_head=d_head), generator).double().requires_grad_(False)
    for weight in model.parameters():  # larger than at the start: attention is uneven, the norms do something
        weight += 0.2 * torch.randn(weight.shape, generator=generator)
    for row in tokens:
        assert torch.allclose(model(row[None])[0], naive_logits(model, row.tolist()), atol=1e-11)


def test_layers_that_write_to_the_stream_start_smaller(generator):
    """Of two blocks four layers add to it: each is half as large, so that all four are as large as one."""
    block = GPT(GPTConfig(30, d_model=128, n_head=16), generator).blocks[1]
    layers = (block.attention.q, block.feed_forward.up, block.attention.o, block.feed_forward.down)
    assert [layer.weight.std().item() for layer in layers] == pytest.approx([0.1, 0.1, 0.05, 0.05], rel=0.05)


def test_pad_and_by_length_lose_no_row():
    prompts = [[1, 2], [3], [4, 5], [6, 7, 8]]
    tokens, lengths = pad(prompts)
    assert tokens.shape == (4, 3) and [row[:n] for row, n in zip(tokens.tolist(), lengths.tolist())] == prompts
    seen = {i: row for rows, batch in by_length(prompts) for i, row in zip(rows.tolist(), batch.tolist(), strict=True)}
    assert [seen[i] for i in range(4)] == prompts


def test_sampling_frequencies_equal_the_softmax(tiny, generator):
    """The first token, and the second after the most frequent first one."""
    prompt, n = [1, 2, 3, 4], 5_000
    tiny.token_embedding.weight.data *= 8  # random weights are nearly uniform: sharpen them
    drawn = tiny.generate(torch.tensor([prompt] * n), torch.rand(n, 2, generator=generator), stop=0)
    top = drawn[drawn[:, 0] > 0, 0].mode().values.item()
    for read, rows in ((prompt, drawn[:, 0]), ([*prompt, top], drawn[drawn[:, 0] == top, 1])):
        p = tiny(torch.tensor([read]))[0, -1].softmax(-1)
        error = (p * (1 - p) / len(rows)).sqrt()
        assert ((torch.bincount(rows, minlength=30) / len(rows) - p).abs() < 5 * error + 1e-3).all()


def test_a_rows_draw_is_its_own(tiny, tokens, generator):
    prompts, uniforms = tokens.repeat(2, 1), torch.rand(6, 8, generator=generator)
    drawn = tiny.generate(prompts, uniforms, stop=0)
    assert torch.equal(drawn[2:], tiny.generate(prompts[2:], uniforms[2:], stop=0))
    changed = uniforms.clone()
    changed[0] = torch.rand(8, generator=generator)
    again = tiny.generate(prompts, changed, stop=0)
    assert torch.equal(drawn[1:], again[1:]) and not torch.equal(drawn[0], again[0])


def test_after_stop_comes_only_stop_and_what_is_forbidden_never(tiny, generator):
    prompts, uniforms = torch.tensor([[1, 2]] * 2_000), torch.rand(2_000, 4, generator=generator)
    uniforms[0], uniforms[1] = 0, 1 - 2**-24  # the smallest and the largest that torch.rand can give
    drawn = tiny.generate(prompts, uniforms, stop=5)
    stopped = [row[row.index(5) :] for row in drawn.tolist() if 5 in row]
    assert 100 < len(stopped) < 500 and all(set(row) == {5} for row in stopped) and len(drawn.unique()) == 30
    assert set(tiny.generate(prompts, uniforms, 5, allowed=[3, 4, 5]).unique().tolist()) == {3, 4, 5}
