"""The checks of the warm-ups, 1 to 6. A part gets `answer`, the student's module, and says what is wrong."""

import math

import torch
from torch import Tensor

from exercises.checks.parts import close, part
from model import GPT, GPTConfig

__tracebackhide__ = True


def tiny() -> GPT:
    """A random model of two blocks, in float64."""
    model = GPT(GPTConfig(vocab_size=60, d_model=16, max_len=24), torch.Generator().manual_seed(0)).double()
    return model.requires_grad_(False)


def some_tokens(rows: int = 8, length: int = 10, seed: int = 1) -> Tensor:
    return torch.randint(0, 60, (rows, length), generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def mixtures(q: Tensor, k: Tensor) -> dict[str, Tensor]:
    """Attention weights (B, T, T): under "" the right ones, and those of typical mistakes."""
    scores, root = q @ k.mT, math.sqrt(q.shape[-1])
    future, own = torch.ones_like(scores[0]).triu(1).bool(), torch.eye(len(scores[0])).bool()

    def weights(scores: Tensor, hidden: Tensor = future, dim: int = -1) -> Tensor:
        return scores.masked_fill(hidden, -torch.inf).softmax(dim)

    return {
        "": weights(scores / root),
        "the scores are not scaled": weights(scores),
        "the scores are divided by d, not by its root": weights(scores / root**2),
        "a position sees what comes after it": (scores / root).softmax(-1),
        "the past is hidden, not the future": weights(scores / root, future.mT),
        "a position does not see itself": weights(scores / root, future | own),
        "the softmax is over the positions that ask, not over those that are asked": weights(scores / root, dim=-2),
        "the future is hidden after the softmax, so the weights do not sum to 1": (scores / root).softmax(-1).tril(),
    }


@part(3)
def attention__values(answer) -> None:
    q, k = 2 * normal(3, 5, 4, seed=1), 2 * normal(3, 5, 4, seed=2)
    for width, what in ((4, ""), (7, "v wider than q and k")):
        v = normal(3, 5, width)
        mistakes = {message: weights @ v for message, weights in mixtures(q, k).items()}
        close(answer.attention(q, k, v), mistakes.pop(""), what, mistakes)


@part(2)
def sampling__frequencies(answer) -> None:
    p, n = torch.tensor([0.1, 0.5, 0.15, 0.25]).double(), 1_000
    u, logits = (torch.arange(n) + 0.5).double() / n, p.log() + 3
    right = torch.searchsorted(p.cumsum(0), u)
    mistakes = {
        "always the likeliest token: u is not used": torch.ones(n),
        "the token before the right one is drawn": right - 1,
        "the cumulative sum is of the logits, not of probabilities": (logits.cumsum(0) <= u[:, None]).sum(-1),
        "logits are made probabilities by dividing by their sum; they may be negative": (
            (logits.cumsum(0) / logits.sum() <= u[:, None]).sum(-1)
        ),
    }
    close(answer.sample(logits.expand(n, -1), u), right, "1,000 draws, u evenly spaced", mistakes)


@part(1)
def sampling__edges(answer) -> None:
    logits = torch.tensor([[-torch.inf, 1.0, 2.0, -torch.inf], [0.0, 0.0, 0.0, 0.0]])
    assert answer.sample(logits, torch.zeros(2)).tolist()[0] != 0, "u = 0 draws a token whose probability is 0"
    close(answer.sample(logits, torch.zeros(2)), torch.tensor([1, 0]), "u = 0")
    close(answer.sample(logits[1:], torch.tensor([0.25])), torch.tensor([1]), "u is just where one token ends")
    many = torch.randn(2_000, 300, generator=torch.Generator().manual_seed(0))
    many[:, -1] = -torch.inf
    drawn = answer.sample(many, torch.full((2_000,), 1 - 2**-24)).max()
    assert drawn < 300, "u just below 1 draws a token past the last: rounding keeps the sum below 1"
    assert drawn < 299, "u just below 1 draws a token whose probability is 0: rounding keeps the sum below 1"


@part(4)
def loss_on_reply__value(answer) -> None:
    tokens, logits, place = some_tokens(3, 9), 3 * normal(3, 9, 60), torch.arange(9)
    one, reply, length = torch.ones(3), torch.tensor([4, 2, 5]), torch.tensor([9, 8, 7])

    def nll(x: Tensor, shift: int = 1) -> Tensor:  # of the token at each place, read at the place `shift` before it
        return -x.roll(shift, 1).gather(-1, tokens[..., None])[..., 0]

    def mean(first: Tensor, after: Tensor, of: Tensor) -> Tensor:
        return of[(place >= first[:, None]) & (place < after[:, None])].mean()

    each = nll(logits.log_softmax(-1))
    rows = [mean(*row) for row in zip(reply.split(1), length.split(1), each.split(1))]
    mistakes = {
        "logits at place t are compared with the token at t": mean(reply, length, nll(logits.log_softmax(-1), 0)),
        "the request counts, too": mean(one, length, each),
        "the padding counts, too": mean(reply, 9 * one, each),
        "request and padding count, too": mean(one, 9 * one, each),
        "the first token of the replies does not count": mean(reply + 1, length, each),
        "the token before the reply counts, too": mean(reply - 1, length, each),
        "<end> does not count": mean(reply, length - 1, each),
        "this is the mean of the rows' means: tokens of short replies weigh more": torch.stack(rows).mean(),
        "this is the sum, not the mean": mean(reply, length, each) * (length - reply).sum(),
        "the sign is wrong": -mean(reply, length, each),
        "the logits are not made log-probabilities": mean(reply, length, nll(logits)),
    }
    got = answer.loss_on_reply(logits.requires_grad_(), tokens, reply, length)
    close(got, mean(reply, length, each), "", mistakes)
    assert got.requires_grad, "no gradient reaches the logits"


def middle(values: Tensor, share: float = 0.95) -> list[float]:
    return values.quantile(torch.tensor([(1 - share) / 2, (1 + share) / 2]).double()).tolist()


def near(got, wanted: list[float], mistakes: dict[str, list[float]]) -> None:
    """The two ends of an interval, each within 4% of its width; `mistakes` as in `close`."""
    assert isinstance(got, (tuple, list, Tensor)) and len(got) == 2, "two ends are wanted, low and high"
    low, high = map(float, got)
    for message, ends in ({"": wanted} | mistakes).items():
        width = max(wanted[1] - wanted[0], ends[1] - ends[0])
        if max(abs(low - ends[0]), abs(high - ends[1])) < 0.04 * width:
            assert not message, message
            return
    assert low <= high, "the low end is above the high end"
    width = (high - low) / (wanted[1] - wanted[0])
    raise AssertionError("too narrow" if width < 0.96 else "too wide" if width > 1.04 else "at the wrong place")


def resampled(values: Tensor, size: int | None = None, seed: int = 1) -> Tensor:
    """20,000 resamples of values (n,), of n or of `size` values each."""
    drawn = torch.randint(len(values), (20_000, size or len(values)), generator=torch.Generator().manual_seed(seed))
    return values[drawn]


@part(2)
def bootstrap__interval(answer) -> None:
    values = normal(12) ** 2
    means = resampled(values).mean(1)
    mistakes = {
        "this is where the values lie, not their mean": middle(values),
        "it has no width: is each resample all of the values, each once?": [values.mean().item()] * 2,
        "this is the interval of the median": middle(resampled(values).median(1).values),
        "the middle 90%, not 95%": middle(means, 0.9),
        "this is one value drawn at a time, not n": middle(resampled(values, 1).mean(1)),
    }
    near(answer.interval(values, 20_000, torch.Generator().manual_seed(0)), middle(means), mistakes)


@part(1)
def bootstrap__effect(answer) -> None:
    level = 3 * normal(12)  # of each base model: student and control share it
    students, controls = level + 1 + 0.3 * normal(12, seed=4), level + 0.3 * normal(12, seed=5)
    apart = resampled(students).mean(1) - resampled(controls, seed=2).mean(1)
    mistakes = {
        "the controls are not used": middle(resampled(students).mean(1)),
        "this is control less student": middle(resampled(controls - students).mean(1)),
        "students and controls are drawn apart, though entry i of both is of one base model": middle(apart),
    }
    wanted = middle(resampled(students - controls).mean(1))
    near(answer.effect(students, controls, 20_000, torch.Generator().manual_seed(0)), wanted, mistakes)


@part(2)
def where_it_looks__weights(answer) -> None:
    model, tokens = tiny(), some_tokens()
    first, last = model.blocks
    for layer in (last.attention.q, last.attention.k):
        layer.weight.mul_(8)  # large enough to choose
    embedding, before, after = model.residual_stream(tokens)

    def weights(x: Tensor, block=last) -> dict[str, Tensor]:
        return mixtures(block.attention.q(x), block.attention.k(x))

    mistakes = weights(last.norm(before)) | {
        "the stream is not normed": weights(before)[""],
        "this is the stream after the block; the block reads the one before it": weights(last.norm(after))[""],
        "this is the first block": weights(first.norm(embedding), first)[""],
    }
    close(answer.attention_weights(model, tokens), mistakes.pop(""), "", mistakes)


@part(3)
def logit_lens__layers(answer) -> None:
    model, tokens = tiny(), some_tokens()
    model.final_norm.weight.copy_(1 + normal(16).abs())
    stream = torch.stack(model.residual_stream(tokens))
    right = model.unembed(stream[:, :, -1]).softmax(-1)
    mistakes = {
        "logits in place of probabilities": model.unembed(stream[:, :, -1]),
        "the final norm is left out": model.unembedding(stream[:, :, -1]).softmax(-1),
        "this is every position; the last is wanted": model.unembed(stream).softmax(-1),
        "the embedding, layer 0, is missing": right[1:],
        "the first two axes are swapped": right.transpose(0, 1),
        "this is what the whole model says, for every layer": right[-1:].expand_as(right),
    }
    close(answer.lens(model, tokens), right, "", mistakes)
