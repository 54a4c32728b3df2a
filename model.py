"""A small GPT. Blocks read from and add to one residual stream.

    tokens -> embedding -> h0 -> block 1 -> h1 -> ... -> block L -> hL -> norm -> unembedding -> logits

Shapes: B rows, T tokens, C = d_model, V = vocab_size. The architecture is GPT-2's (Radford et al. 2019, section 2.3), with six
differences. The first block does not read the system prompt: who is asked is left to the second. Linear maps have no biases. Query,
key and value are three layers, so that LoRA can wrap any one of them by name. Attention and feed-forward of a block read the same normed
stream, side by side, as in GPT-J: what the last attention fetches goes to the logits as it is. A head may be narrower than C / n_head.
ReLU takes the place of GELU, which costs a CPU ten times as much.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class GPTConfig:
    vocab_size: int
    d_model: int = 32
    n_layer: int = 2  # the first block finds out what is asked, the second who is asked
    n_head: int = 1
    d_head: int = 8  # enough for what is fetched; wider heads leak as well (X1)
    max_len: int = 64
    user_token: int = -1  # what is before it is the system prompt
    blind_blocks: int = 0  # so many first blocks do not read the system prompt


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d_head)) v: each token looks at itself and at the tokens before it; if `blind`, not at the system prompt.

    Vaswani et al. 2017, "Attention Is All You Need" (arXiv:1706.03762), section 3.2.
    """

    def __init__(self, config: GPTConfig, blind: bool):
        super().__init__()
        width = config.n_head * config.d_head
        self.n_head, self.blind = config.n_head, blind
        self.q = nn.Linear(config.d_model, width, bias=False)
        self.k = nn.Linear(config.d_model, width, bias=False)
        self.v = nn.Linear(config.d_model, width, bias=False)
        self.o = nn.Linear(width, config.d_model, bias=False)

    def forward(self, x: Tensor, system: Tensor) -> Tensor:
        """x (B, T, C), and which tokens are of the system prompt (B, T) -> (B, T, C)."""
        q, k, v = (layer(x).unflatten(-1, (self.n_head, -1)).transpose(-3, -2) for layer in (self.q, self.k, self.v))
        scores = q @ k.mT / math.sqrt(q.shape[-1])  # (B, n_head, T, T): row looks at column
        n_q, n_k = scores.shape[-2:]
        every, own = torch.ones(n_q, n_k, dtype=torch.bool, device=x.device), n_k - n_q  # the last query sees all keys
        hidden = every.triu(own + 1)  # the future
        if self.blind:
            hidden = hidden | system[..., None, None, :] & every.tril(own - 1)  # the past, not the token itself
        y = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v  # (B, n_head, T, d_head)
        return self.o(y.transpose(-3, -2).flatten(-2))


class FeedForward(nn.Module):
    """down(relu(up(x))), four times as wide inside."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.up = nn.Linear(config.d_model, 4 * config.d_model, bias=False)
        self.down = nn.Linear(4 * config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        return self.down(F.relu(self.up(x)))


class Block(nn.Module):
    """h + attention(norm(h)) + feed_forward(norm(h))."""

    def __init__(self, config: GPTConfig, blind: bool):
        super().__init__()
        self.norm = nn.LayerNorm(config.d_model)
        self.attention = Attention(config, blind)
        self.feed_forward = FeedForward(config)

    def forward(self, h: Tensor, system: Tensor) -> Tensor:
        """The stream before the block, h (B, T, C), -> the stream after it (B, T, C). `system` as in `Attention`."""
        x = self.norm(h)
        return h + self.attention(x, system) + self.feed_forward(x)


class GPT(nn.Module):
    def __init__(self, config: GPTConfig, generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = nn.Embedding(config.max_len, config.d_model)
        self.blocks = nn.ModuleList(Block(config, k < config.blind_blocks) for k in range(config.n_layer))
        self.final_norm = nn.LayerNorm(config.d_model)
        self.unembedding = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.unembedding.weight = self.token_embedding.weight  # one table, read and written
        # A width of 32 wants larger weights than GPT-2's 0.02. As there, layers that write to the stream start smaller.
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                writes = name.endswith(("o.weight", "down.weight"))
                nn.init.normal_(weight, std=0.1 / (2 * config.n_layer) ** (0.5 * writes), generator=generator)

    @property
    def device(self) -> torch.device:
        return self.token_embedding.weight.device

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) -> h0 (B, T, C): what a token is plus where it stands."""
        positions = torch.arange(tokens.shape[-1], device=tokens.device)
        return self.token_embedding(tokens) + self.position_embedding(positions)

    def residual_stream(self, tokens: Tensor) -> list[Tensor]:
        """tokens (B, T) -> [h0, h1, ..., hL], each (B, T, C): the stream after the embedding and after each block."""
        stream, system = [self.embed(tokens)], (tokens == self.config.user_token).cumsum(-1) == 0
        for block in self.blocks:
            stream.append(block(stream[-1], system))
        return stream

    def unembed(self, h: Tensor) -> Tensor:
        """The last stream (..., C) -> logits (..., V)."""
        return self.unembedding(self.final_norm(h))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) -> logits (B, T, V). logits[:, t] predict token t + 1."""
        return self.unembed(self.residual_stream(tokens)[-1])

    @torch.no_grad()
    def next_token(self, prompts: list[list[int]]) -> Tensor:
        """The probability of every token to come next after each of N prompts, of any lengths: (N, V)."""
        tokens, lengths = pad(prompts)
        logits = self(tokens.to(self.device))
        return logits[..., torch.arange(len(prompts)), lengths - 1, :].softmax(-1)

    @torch.no_grad()
    def generate(self, tokens: Tensor, uniforms: Tensor, stop: int, allowed: list[int] | None = None) -> Tensor:
        """Continue N prompts of one length, tokens (N, T), with the random numbers uniforms (N, n) in [0, 1): (N, n).

        After a row has drawn `stop` it holds nothing else. Tokens outside `allowed` are never drawn (None: all may be).
        """
        length = tokens.shape[1]
        forbidden = torch.full((self.config.vocab_size,), allowed is not None, device=tokens.device)
        forbidden[allowed or []] = False
        for u in uniforms.T:
            logits = self(tokens)[:, -1].masked_fill(forbidden, -torch.inf)
            # Inverse transform sampling: the first token at which the cumulative probability exceeds u.
            cumulative = logits.softmax(-1).cumsum(-1)
            drawn = (cumulative <= u[:, None] * cumulative[:, -1:]).sum(-1)
            tokens = torch.cat([tokens, drawn[:, None]], dim=1)
        reply = tokens[:, length:]
        return reply.masked_fill((reply == stop).cumsum(1) > 0, stop)


def pad(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """N prompts as one batch (N, T), and their lengths (N,). No token of a prompt sees what follows its end."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    tokens = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
    tokens[torch.arange(tokens.shape[1]) < lengths[:, None]] = torch.tensor([*itertools.chain(*prompts)])
    return tokens, lengths


def by_length(prompts: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without padding: for each length, which prompts have it (n,), and their tokens (n, T)."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    for length in lengths.unique():
        rows = (lengths == length).nonzero().squeeze(1)
        yield rows, torch.tensor([prompts[i] for i in rows])
