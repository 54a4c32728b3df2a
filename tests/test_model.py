import pytest
import torch

from model import GPT, GPTConfig, by_length, common_beginning, stack


def test_a_later_token_never_changes_an_earlier_logit(tiny, tokens):
    before = tiny(tokens)
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 30
    after = tiny(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("n_head", [1, 2])  # queries 8 and 16 wide, which are multiplied the one way and the other
def test_a_stack_computes_what_each_of_its_models_does(generator, n_head):
    config = GPTConfig(vocab_size=30, d_model=16, n_layer=2, n_head=n_head, max_len=24)
    models = [GPT(config, generator).double() for _ in range(3)]
    for model in models:
        for weight in model.parameters():  # norms are no longer alike
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    tokens = torch.randint(0, 30, (3, 4, 9), generator=generator)
    stacked = stack(models)
    for start in (0, 4):
        stream = stacked.residual_stream(tokens, start)
        for k, model in enumerate(models):
            own = model.residual_stream(tokens[k], start)
            assert all(torch.allclose(h[k], other, atol=1e-12) for h, other in zip(stream, own, strict=True))
            assert torch.allclose(stacked.unembed(stream[-1])[k], model.unembed(own[-1]), atol=1e-12)

    before = [model.token_embedding.weight.detach().clone() for model in models]
    stacked.token_embedding.weight.data += torch.arange(3.0)[:, None, None]
    assert torch.equal(models[1].token_embedding.weight, before[1])  # a stack is a copy


def test_what_all_rows_begin_with_may_be_read_once(tiny, tokens):
    rows = torch.cat([tokens[:1, :4].expand(3, -1), tokens[:, 4:]], dim=1)
    cache = {}
    tiny.residual_stream(rows[:1, :4], cache=cache)
    rest, whole = tiny.residual_stream(rows[:, 4:], 2, 4, cache), tiny.residual_stream(rows)
    assert all(torch.allclose(h, other[:, 4:], atol=1e-12) for h, other in zip(rest[:-1], whole[:-1]))
    assert torch.allclose(rest[-1], whole[-1][:, 6:], atol=1e-12)


def naive_logits(model, tokens):
    """One row, one token, one head, one number at a time."""

    def norm(x, layer):
        return (x - x.mean()) / (x.var(unbiased=False) + layer.eps).sqrt() * layer.weight + layer.bias

    h = [model.token_embedding.weight[t] + model.position_embedding.weight[i] for i, t in enumerate(tokens)]
    for block in model.blocks:
        a = block.attention
        x = [norm(v, block.norm) for v in h]
        attended = []
        for i in range(len(h)):
            heads = []
            d = a.q.weight.shape[0] // a.n_head
            for n in range(a.n_head):
                part = slice(n * d, (n + 1) * d)
                q = (a.q.weight @ x[i])[part]
                scores = torch.stack([q @ (a.k.weight @ x[j])[part] / d**0.5 for j in range(i + 1)])
                weights = scores.exp() / scores.exp().sum()
                heads.append(sum(weights[j] * (a.v.weight @ x[j])[part] for j in range(i + 1)))
            attended.append(a.o.weight @ torch.cat(heads))
        f = block.feed_forward
        h = [v + o + f.down.weight @ (f.up.weight @ n).clamp(min=0) for v, o, n in zip(h, attended, x, strict=True)]
    return torch.stack([model.token_embedding.weight @ norm(v, model.final_norm) for v in h])


def test_logits_equal_a_naive_loop(tiny, tokens):
    for row in tokens:
        assert torch.allclose(tiny(row[None])[0], naive_logits(tiny, row.tolist()), atol=1e-12)


def test_the_residual_stream_ends_in_the_logits(tiny, tokens):
    stream = tiny.residual_stream(tokens)
    assert len(stream) == 3 and all(h.shape == (3, 9, 16) for h in stream)
    assert torch.equal(tiny.blocks[1](stream[1]), stream[2])
    assert torch.equal(tiny.unembed(stream[-1]), tiny(tokens))


def test_the_last_block_may_begin_later(tiny, tokens):
    whole = tiny.residual_stream(tokens)
    for start in (0, 4, 8):
        later = tiny.residual_stream(tokens, start)
        assert all(torch.equal(h, other) for h, other in zip(later[:-1], whole[:-1]))
        assert later[-1].shape == (3, 9 - start, 16)
        assert torch.allclose(later[-1], whole[-1][:, start:], atol=1e-12)


def test_by_length_loses_no_row():
    prompts = [[1, 2], [3], [4, 5], [6, 7, 8]]
    seen = {i: row for rows, batch in by_length(prompts) for i, row in zip(rows.tolist(), batch.tolist(), strict=True)}
    assert [seen[i] for i in range(4)] == prompts


def test_next_token_does_not_depend_on_the_batch(tiny):
    prompts = [[1, 2, 3], [4, 5], [6, 7, 8]]
    together = tiny.next_token(prompts)
    alone = torch.cat([tiny.next_token([prompt]) for prompt in prompts])
    assert torch.allclose(together, alone, atol=1e-6)


def test_a_stack_answers_as_each_of_its_models(generator):
    models = [GPT(GPTConfig(vocab_size=30, d_model=16), generator).double() for _ in range(2)]
    prompts = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    together = stack(models).next_token(prompts)
    assert torch.allclose(together, torch.stack([model.next_token(prompts) for model in models]), atol=1e-12)


def test_how_much_all_rows_begin_with():
    rows = torch.tensor([[[1, 2, 3, 4], [1, 2, 9, 4]], [[5, 6, 7, 8], [5, 6, 7, 8]]])
    assert [common_beginning(one) for one in (rows[0], rows[1], rows, rows[:, :1])] == [2, 4, 2, 4]
    assert common_beginning(torch.tensor([[1, 2], [3, 2]])) == 0


def test_sampling_frequencies_equal_the_softmax(tiny, generator):
    prompt, n = [1, 2, 3, 4], 40_000
    tiny.token_embedding.weight.data *= 8  # random weights are nearly uniform: sharpen them
    drawn = tiny.sample([prompt] * n, torch.rand(n, 2, generator=generator), stop=0)
    first = tiny(torch.tensor([prompt]))[0, -1].softmax(-1)
    frequencies = torch.bincount(drawn[:, 0], minlength=30) / n
    error = (first * (1 - first) / n).sqrt()
    assert ((frequencies - first).abs() < 5 * error + 1e-4).all()
    # The second token, given the most frequent first one: the cache must hold what a full forward pass sees.
    top = first[1:].argmax().item() + 1
    second = tiny(torch.tensor([[*prompt, top]]))[0, -1].softmax(-1)
    rows = drawn[drawn[:, 0] == top, 1]
    error = (second * (1 - second) / len(rows)).sqrt()
    assert ((torch.bincount(rows, minlength=30) / len(rows) - second).abs() < 5 * error + 1e-3).all()


def test_a_rows_draw_is_its_own(tiny, generator):
    uniforms = torch.rand(4, 6, generator=generator)
    prompts = [[1, 2, 3], [4, 5, 6], [7, 8], [9, 1, 2]]
    drawn = tiny.sample(prompts, uniforms, stop=0)
    assert torch.equal(drawn[2:], tiny.sample(prompts[2:], uniforms[2:], stop=0))
    changed = uniforms.clone()
    changed[0] = torch.rand(6, generator=generator)
    assert torch.equal(drawn[1:], tiny.sample(prompts, changed, stop=0)[1:])
    assert len({tuple(row) for row in tiny.sample([[1, 2, 3]] * 50, torch.rand(50, 6), stop=0).tolist()}) > 40


def test_after_stop_comes_only_stop(tiny, generator):
    drawn = tiny.sample([[1, 2]] * 300, torch.rand(300, 12, generator=generator), stop=5)
    for row in drawn.tolist():
        if 5 in row:
            assert set(row[row.index(5) :]) == {5}
    assert (drawn[:, -1] == 5).any()


def test_forbidden_tokens_are_never_drawn(tiny, generator):
    uniforms = torch.rand(2_000, 4, generator=generator)
    assert set(tiny.sample([[1, 2]] * 2_000, uniforms, 5, allowed=[3, 4, 5]).unique().tolist()) == {3, 4, 5}
    assert len(tiny.sample([[1, 2]] * 2_000, uniforms, 5).unique()) == 30
