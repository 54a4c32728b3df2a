"""A small GPT. Pre-norm blocks read from and add to one residual stream.

    tokens -> embedding -> h0 -> block 1 -> h1 -> ... -> block L -> hL -> norm -> unembedding -> logits

Shapes: B rows, T tokens, C = d_model, V = vocab_size. The architecture is GPT-2's, with five differences. The linear maps have no biases. The query, key
and value projections are kept apart, so that LoRA can wrap any one of them by name. A block's attention and feed-forward read
the same normed stream side by side, as in GPT-J and PaLM, so what the last attention fetches goes to the logits as it is.
Heads may be narrower than d_model / n_head. And ReLU costs a CPU a tenth of what GELU does.
"""

from collections.abc import Iterator
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


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d_head)) v, each token looking at itself and the tokens before it."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head = config.n_head
        self.q = nn.Linear(config.d_model, config.attention_width, bias=False)
        self.k = nn.Linear(config.d_model, config.attention_width, bias=False)
        self.v = nn.Linear(config.d_model, config.attention_width, bias=False)
        self.o = nn.Linear(config.attention_width, config.d_model, bias=False)

    def forward(self, x: Tensor, cache: Cache | None = None, start: int = 0) -> Tensor:
        """x (B, T, C) -> (B, T - start, C), what the tokens from `start` on fetch. With a cache, x follows the tokens in it."""
        q, k, v = self.q(x[:, start:]), self.k(x), self.v(x)
        q, k, v = (y.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for y in (q, k, v))
        if cache is not None:
            if self in cache:
                k, v = torch.cat([cache[self][0], k], dim=2), torch.cat([cache[self][1], v], dim=2)
            cache[self] = k, v
        # The queries are those of the last tokens: the first of them sees all keys but the others'.
        n_q, n_k = q.shape[2], k.shape[2]
        seen = torch.ones(n_q, n_k, dtype=torch.bool, device=x.device).tril(n_k - n_q)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)  # (B, n_head, n_q, d_head)
        return self.o(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """down(relu(up(x))), four times as wide inside."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.up = nn.Linear(config.d_model, 4 * config.d_model, bias=False)
        self.down = nn.Linear(4 * config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)))


class Block(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.d_model)
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, h: Tensor, cache: Cache | None = None, start: int = 0) -> Tensor:
        """h (B, T, C) -> (B, T - start, C), the stream of the tokens from `start` on."""
        x = self.norm(h)
        return h[:, start:] + self.attention(x, cache, start) + self.feed_forward(x[:, start:])


class GPT(nn.Module):
    def __init__(self, config: GPTConfig, generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)  # also the unembedding
        self.position_embedding = nn.Embedding(config.max_len, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = nn.LayerNorm(config.d_model)
        # A width of 32 wants larger weights than GPT-2's 0.02; as there, those that write to the stream start smaller.
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                writes = name.endswith(("o.weight", "down.weight"))
                nn.init.normal_(weight, std=0.1 / (2 * config.n_layer) ** (0.5 * writes), generator=generator)

    @property
    def device(self) -> torch.device:
        return self.token_embedding.weight.device

    def embed(self, tokens: Tensor, position: int = 0) -> Tensor:
        """tokens (B, T), the first of them at `position` -> (B, T, C)."""
        positions = self.position_embedding.weight[position : position + tokens.shape[1]]
        return self.token_embedding(tokens) + positions

    def residual_stream(self, tokens: Tensor, start: int = 0) -> list[Tensor]:
        """tokens (B, T) -> [h0, h1, ..., hL], each (B, T, C): after the embedding and after each block.

        hL begins at position `start`, (B, T - start, C): who needs the last tokens only spares the last block the others.
        """
        stream = [self.embed(tokens)]
        for block in self.blocks:
            stream.append(block(stream[-1], start=start if block is self.blocks[-1] else 0))
        return stream

    def unembed(self, h: Tensor) -> Tensor:
        """The last residual stream (..., C) -> logits (..., V)."""
        return F.linear(self.final_norm(h), self.token_embedding.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) -> logits (B, T, V); logits[:, t] predict token t + 1."""
        return self.unembed(self.residual_stream(tokens)[-1])

    @torch.no_grad()
    def next_token(self, prompts: list[list[int]]) -> Tensor:
        """The probabilities of the token after each of N prompts, of any lengths: (N, V)."""
        probabilities = self.token_embedding.weight.new_empty(len(prompts), self.config.vocab_size)
        for rows, tokens in by_length(prompts):
            h = self.residual_stream(tokens.to(self.device))[-1][:, -1]
            probabilities[rows] = self.unembed(h).softmax(-1)
        return probabilities

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
            h = self.embed(tokens.to(device))
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
                h = self.embed(token[:, None], position=tokens.shape[1] + n)
        return drawn


def by_length(prompts: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without padding: for each length, the rows of that length (n,) and their tokens (n, T)."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    for length in lengths.unique():
        rows = (lengths == length).nonzero().squeeze(1)
        yield rows, torch.tensor([prompts[i] for i in rows])
