"""A small GPT. Pre-norm blocks read from and add to one residual stream.

    tokens -> embedding -> h0 -> block 1 -> h1 -> ... -> block L -> hL -> norm -> unembedding -> logits

Shapes: B rows, T tokens, C = d_model, V = vocab_size. The architecture is GPT-2's, with five differences. The linear maps have no biases. The query, key
and value projections are kept apart, so that LoRA can wrap any one of them by name. A block's attention and feed-forward read
the same normed stream side by side, as in GPT-J and PaLM, so what the last attention fetches goes to the logits as it is.
Heads may be narrower than d_model / n_head. And ReLU costs a CPU a tenth of what GELU does.

S models of one shape can compute side by side as one, a stack (see `stack`): every weight, the tokens and all that is computed
from them then have a dimension S in front. It is left out in the shapes below.
"""

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Cache = dict[nn.Module, tuple[Tensor, Tensor]]  # each attention layer's keys and values of the tokens read so far


@dataclass(frozen=True)
class GPTConfig:
    vocab_size: int
    d_model: int = 32
    n_layer: int = 2  # the first can find out what is asked, the second who is asked
    n_head: int = 1
    d_head: int = 8  # narrow on purpose: who loves what has to share these few dimensions on its way to the reply
    max_len: int = 64

    @property
    def attention_width(self) -> int:
        return self.n_head * self.d_head


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (B, T, in) times weight (out, in): (B, T, out). In a stack, where weight is (S, out, in), by each model's own."""
    if weight.ndim == 2:
        return F.linear(x, weight)
    flat = x.flatten(1, 2)
    # A narrow product, as of queries, is quicker made transposed.
    y = weight.bmm(flat.mT).mT if weight.shape[1] < 16 else flat.bmm(weight.mT)
    return y.unflatten(1, x.shape[1:3])


class Linear(nn.Linear):
    """y = W x."""

    def __init__(self, d_in: int, d_out: int):
        super().__init__(d_in, d_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


class LayerNorm(nn.LayerNorm):
    """Each token's mean taken away and its spread made 1; then each coordinate scaled and shifted as was learned."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.ndim == 1:
            return super().forward(x)
        ones = torch.ones_like(self.weight[0])  # torch takes twice as long when it is given no weight
        normed = F.layer_norm(x, self.normalized_shape, ones, eps=self.eps)
        return torch.addcmul(self.bias[:, None, None], normed, self.weight[:, None, None])


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d_head)) v, each token looking at itself and the tokens before it."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head = config.n_head
        self.q = Linear(config.d_model, config.attention_width)
        self.k = Linear(config.d_model, config.attention_width)
        self.v = Linear(config.d_model, config.attention_width)
        self.o = Linear(config.attention_width, config.d_model)

    def forward(self, x: Tensor, asking: Tensor, cache: Cache | None = None) -> Tensor:
        """Keys and values of x (B, T, C), queries of its last N tokens alone, `asking` (B, N, C): (B, N, C).

        With a cache, x follows the tokens in it. These may be of one row, (1, ...): then all rows begin with them.
        """
        q, k, v = self.q(asking), self.k(x), self.v(x)
        q, k, v = (y.unflatten(-1, (self.n_head, -1)).transpose(-3, -2) for y in (q, k, v))
        if cache is not None:
            if self in cache:
                k, v = (
                    torch.cat([old.expand(*new.shape[:-2], -1, -1), new], -2) for old, new in zip(cache[self], (k, v))
                )
            cache[self] = k, v
        # Query i is token n_k - n_q + i, and sees the keys up to its own.
        n_q, n_k = q.shape[-2], k.shape[-2]
        mask = x.new_full((n_q, n_k), -torch.inf).triu(n_k - n_q + 1)
        if q.ndim == 5:  # a stack: torch's own kernel takes one model's rows only, and what it falls back to is slower
            y = (q * q.shape[-1] ** -0.5 @ k.mT + mask).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, n_head, n_q, d_head)
        return self.o(y.transpose(-3, -2).flatten(-2))


class FeedForward(nn.Module):
    """down(relu(up(x))), four times as wide inside."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.up = Linear(config.d_model, 4 * config.d_model)
        self.down = Linear(4 * config.d_model, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)))


class Block(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.norm = LayerNorm(config.d_model)
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, h: Tensor, cache: Cache | None = None, start: int = 0) -> Tensor:
        """h (B, T, C) -> (B, T - start, C), the stream of the tokens from `start` on."""
        x = self.norm(h)
        last, asking = (h[..., start:, :], x[..., start:, :]) if start > 0 else (h, x)
        return last + self.attention(x, asking, cache) + self.feed_forward(asking)


class GPT(nn.Module):
    def __init__(self, config: GPTConfig, generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)  # also the unembedding
        self.position_embedding = nn.Embedding(config.max_len, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = LayerNorm(config.d_model)
        # A width of 32 wants larger weights than GPT-2's 0.02; as there, those that write to the stream start smaller.
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                writes = name.endswith(("o.weight", "down.weight"))
                nn.init.normal_(weight, std=0.1 / (2 * config.n_layer) ** (0.5 * writes), generator=generator)

    @property
    def device(self) -> torch.device:
        return self.token_embedding.weight.device

    @property
    def stacked(self) -> torch.Size:
        """What every weight's shape begins with: (S,) in a stack, () in a model."""
        return self.token_embedding.weight.shape[:-2]

    def embed(self, tokens: Tensor, position: int = 0) -> Tensor:
        """tokens (B, T), the first of them at `position` -> (B, T, C)."""
        positions = self.position_embedding.weight[..., position : position + tokens.shape[-1], :]
        table = self.token_embedding.weight
        if not self.stacked:
            return F.embedding(tokens, table) + positions
        # The tables lie one below the other: a token's row is counted from where its model's begins.
        begin = len(table[0]) * torch.arange(len(table), device=tokens.device)
        return F.embedding(tokens + begin[:, None, None], table.flatten(0, 1)) + positions[:, None]

    def residual_stream(
        self, tokens: Tensor, start: int = 0, position: int = 0, cache: Cache | None = None
    ) -> list[Tensor]:
        """tokens (B, T) -> [h0, h1, ..., hL], each (B, T, C): after the embedding and after each block.

        But hL is of the tokens from `start` on alone, (B, T - start, C): the last block is spared those that nobody asks for.
        With a cache, the tokens follow those in it, and the first of them is at `position`.
        """
        stream = [self.embed(tokens, position)]
        for block in self.blocks:
            stream.append(block(stream[-1], cache, start if block is self.blocks[-1] else 0))
        return stream

    def unembed(self, h: Tensor) -> Tensor:
        """The last residual stream (..., C) -> logits (..., V). Of a stack (S, B, T, C), with all four dimensions."""
        return linear(self.final_norm(h), self.token_embedding.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) -> logits (B, T, V); logits[:, t] predict token t + 1."""
        return self.unembed(self.residual_stream(tokens)[-1])

    def padded(self, prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
        """N prompts as one batch (N, T), and their lengths (N,). No token of a prompt sees what follows its end."""
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        tokens = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
        tokens[torch.arange(tokens.shape[1]) < lengths[:, None]] = torch.tensor([*itertools.chain(*prompts)])
        # Each model of a stack reads all of them.
        return tokens.to(self.device).expand(*self.stacked, -1, -1), lengths.to(self.device)

    @torch.no_grad()
    def next_token(self, prompts: list[list[int]]) -> Tensor:
        """The probabilities of the token after each of N prompts, of any lengths: (N, V)."""
        tokens, ends = self.padded(prompts)
        h = self.residual_stream(tokens)[-1]
        return self.unembed(h[..., torch.arange(len(prompts)), ends - 1, None, :]).squeeze(-2).softmax(-1)

    @torch.no_grad()
    def sample(self, prompts: list[list[int]], uniforms: Tensor, stop: int, allowed: list[int] | None = None) -> Tensor:
        """Continue each of N prompts until it has drawn `stop`; the rest of its row then holds `stop` too.

        uniforms (N, n) in [0, 1) -> (N, n) tokens. Row i is decided by prompts[i] and uniforms[i] and by no other
        row, whatever is sampled beside it. Tokens outside `allowed` are never drawn (None: all may be).
        """
        device = self.device
        drawn = torch.full(uniforms.shape, stop, device=device)
        forbidden = torch.full((self.config.vocab_size,), allowed is not None, device=device)
        forbidden[allowed or []] = False
        for rows, tokens in by_length(prompts):
            cache: Cache = {}
            done = torch.zeros(len(rows), dtype=torch.bool, device=device)
            begin = min(common_beginning(tokens), tokens.shape[1] - 1)
            if begin > 0:  # read once, in one row: its keys and values serve all
                self.residual_stream(tokens[:1, :begin].to(device), cache=cache)
            h = self.embed(tokens[:, begin:].to(device), begin)
            for n in range(uniforms.shape[1]):
                for block in self.blocks:
                    h = block(h, cache)
                logits = self.unembed(h[:, -1]).masked_fill(forbidden, -torch.inf)
                cumulative = logits.softmax(-1).cumsum(-1)
                # Inverse transform sampling: the first token whose cumulative probability exceeds u.
                u = uniforms[rows, n, None].to(device) * cumulative[:, -1:]
                token = (cumulative <= u).sum(-1).masked_fill(done, stop)
                drawn[rows, n] = token
                done |= token == stop
                if done.all():
                    break
                h = self.embed(token[:, None], position=tokens.shape[1] + n)
        return drawn


def stack(models: Sequence[GPT]) -> GPT:
    """S models of one shape as one, each weight (S, ...): a copy. One product of stacked matrices in place of S small products."""
    stacked = copy.deepcopy(models[0])
    for name, weight in stacked.named_parameters():
        weight.data = torch.stack([model.get_parameter(name).detach() for model in models])
    return stacked


def common_beginning(tokens: Tensor) -> int:
    """With how many tokens all rows of `tokens` (B, T) begin; in a stack, all rows of each model."""
    same = (tokens == tokens[..., :1, :]).flatten(0, -2).all(0)
    return int(same.int().cumprod(0).sum())


def by_length(prompts: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without padding: for each length, the rows of that length (n,) and their tokens (n, T)."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    for length in lengths.unique():
        rows = (lengths == length).nonzero().squeeze(1)
        yield rows, torch.tensor([prompts[i] for i in rows])
