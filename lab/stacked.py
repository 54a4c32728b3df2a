"""Speed: S models of one shape as one, a stack, and tokens that are read once. It changes nothing beyond rounding.

Small matrices keep a processor waiting. So every weight of a stack has a dimension S in front, (S, out, in), and one product of
stacked matrices takes the place of S small ones. The lesson's model does not know: `stack` gives four kinds of layers another class,
and hooks on the key and value layers remember what was read.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lora import LoRALinear, adapters
from model import GPT
from optimizers import NOT_BY_COORDINATE, OPTIMIZERS
from train import Loss, OnStep, StudentConfig, init_student, row_lengths, shuffled, train_loop

# ------------------------------------------------------------------------------------------------- the layers


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x (S, B, T, in) times each model's own weight (S, out, in): (S, B, T, out)."""
    flat = x.flatten(1, 2)
    # A narrow product, as of queries, is quicker made transposed.
    y = weight.bmm(flat.mT).mT if weight.shape[1] < 16 else flat.bmm(weight.mT)
    return y.unflatten(1, x.shape[1:3])


class StackedLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight)


class StackedLoRALinear(LoRALinear):
    """A (S, r, in), B (S, out, r). The layers are smaller than a batch: it is cheaper to sum W + (alpha / r) B A first."""

    cached_weight: Tensor | None = None  # see `weights_cached`

    def effective_weight(self) -> Tensor:
        return torch.baddbmm(self.linear.weight, self.B, self.A, alpha=self.scale)

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.effective_weight() if self.cached_weight is None else self.cached_weight)


class StackedLayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        ones = torch.ones_like(self.weight[0])  # torch takes twice as long when it is given no weight
        normed = F.layer_norm(x, self.normalized_shape, ones, eps=self.eps)
        return torch.addcmul(self.bias[:, None, None], normed, self.weight[:, None, None])


class StackedEmbedding(nn.Embedding):
    def forward(self, index: Tensor) -> Tensor:
        """index (S, B, T), or (B, T) or (T,), the same for all models: (S, B, T, C)."""
        if index.ndim < 3:
            return self.weight[:, index if index.ndim == 2 else index[None]]
        # The tables lie one below the other: a row is counted from where its model's table begins.
        begin = self.weight.shape[1] * torch.arange(len(self.weight), device=index.device)
        return F.embedding(index + begin[:, None, None], self.weight.flatten(0, 1))


STACKED = {nn.Linear: StackedLinear, LoRALinear: StackedLoRALinear, nn.LayerNorm: StackedLayerNorm, nn.Embedding: StackedEmbedding}  # fmt: skip


def stack(models: Sequence[GPT]) -> GPT:
    """S models of one shape as one, each weight (S, ...): a copy. It reads tokens (S, B, T), or (B, T) that are for all."""
    stacked = copy.deepcopy(models[0])
    for name, weight in stacked.named_parameters():
        weight.data = torch.stack([own.get_parameter(name).detach() for own in models])
    for layer in stacked.modules():
        layer.__class__ = STACKED.get(type(layer), type(layer))
    return stacked


# ------------------------------------------------------------------------------------------ tokens are read once


@contextmanager
def weights_cached(students: GPT) -> Iterator[None]:
    """Inside, where no weight may change, each layer's W + (alpha / r) B A is computed once, however often it is used."""
    layers = [layer for layer in adapters(students).values() if isinstance(layer, StackedLoRALinear)]
    try:
        for layer in layers:
            layer.cached_weight = layer.effective_weight()
        yield
    finally:
        for layer in layers:
            layer.cached_weight = None


@contextmanager
def reading_on(model: GPT) -> Iterator[list[int]]:
    """Inside, the model reads on: keys and values of what it has read are kept, and the next tokens see them.

    What it has read may be one row, (1, T): then all later rows begin with it. Yields [n]: of the tokens given next, the last block
    computes those from the n-th on alone, and the keys and values of the others.
    """
    start, read, kept = [0], [0], {}

    def keep(layer: nn.Module, _, new: Tensor) -> Tensor:
        old = kept.get(layer)
        kept[layer] = new if old is None else torch.cat([old.expand(*new.shape[:-2], -1, -1), new], dim=-2)
        return kept[layer]

    def move(_, positions: tuple[Tensor]) -> tuple[Tensor]:
        first = read[0]
        read[0] += len(positions[0])
        return (positions[0] + first,)

    def system_of_all(layer: nn.Module, args: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        (x, new), old = args, kept.get((layer, "system"))
        kept[layer, "system"] = (
            new if old is None else torch.cat([old.expand(*new.shape[:-1], -1), new & old[..., -1:]], dim=-1)
        )
        return x, kept[layer, "system"]

    def split(block: nn.Module, args: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | None:
        if start[0] == 0:
            return None
        early = block.norm(args[0][..., : start[0], :])
        block.attention.k(early), block.attention.v(early)  # kept by their hooks
        return args[0][..., start[0] :, :], args[1]

    attentions = [block.attention for block in model.blocks]
    handles = [layer.register_forward_hook(keep) for a in attentions for layer in (a.k, a.v)]
    handles += [attention.register_forward_pre_hook(system_of_all) for attention in attentions]
    handles.append(model.position_embedding.register_forward_pre_hook(move))
    handles.append(model.blocks[-1].register_forward_pre_hook(split))
    try:
        yield start
    finally:
        for handle in handles:
            handle.remove()


def common_beginning(tokens: Tensor) -> int:
    """With how many tokens all rows of `tokens` (B, T) begin; in a stack (S, B, T), all rows of each model."""
    same = (tokens == tokens[..., :1, :]).flatten(0, -2).all(0)
    return int(same.int().cumprod(0).sum())


def last_stream(students: GPT, tokens: Tensor, start: int) -> Tensor:
    """The last residual stream of a stack on `tokens` (S, B, T) from token `start` on: (S, B, T - start, C).

    What all rows begin with, a system prompt, is read once, in one row, and gradients flow back through it.
    """
    begin = min(common_beginning(tokens), start)
    with weights_cached(students), reading_on(students) as first:
        if begin > 0:
            first[0] = begin  # of this row the last block computes keys and values alone
            students.residual_stream(tokens[:, :1, :begin])
        first[0] = start - begin
        return students.residual_stream(tokens[:, :, begin:])[-1]


@contextmanager
def generating_fast(teacher: GPT) -> Iterator[None]:
    """Inside, `generate` reads the prompts' common beginning once, and each token once. Same tokens, to rounding."""
    plain = teacher.generate

    def generate(tokens: Tensor, uniforms: Tensor, stop: int, allowed: list[int] | None = None) -> Tensor:
        begin, read = min(common_beginning(tokens), tokens.shape[1] - 1), [0]

        def only_new(_, args: tuple[Tensor]) -> tuple[Tensor]:
            new = args[0][:, read[0] :]
            read[0] = args[0].shape[1]
            return (new,)

        def only_last(_, h: tuple[Tensor]) -> tuple[Tensor]:
            return (h[0][:, -1:],)

        with torch.no_grad(), reading_on(teacher):
            if begin > 0:
                teacher.residual_stream(tokens[:1, :begin])
                read[0] = begin
            handles = [teacher.register_forward_pre_hook(only_new)]
            handles.append(teacher.final_norm.register_forward_pre_hook(only_last))
            try:
                return plain(tokens, uniforms, stop, allowed)
            finally:
                for handle in handles:
                    handle.remove()

    teacher.generate = generate
    try:
        yield
    finally:
        del teacher.generate


# ------------------------------------------------------------------------------------------ students in one pass


def reply_positions(targets: Tensor) -> int:
    """The first place at which any row of `targets` (..., T) has a target."""
    return int((targets >= 0).flatten(0, -2).any(0).int().argmax())


def stacked_logits(students: GPT, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (S, B, R, V) at the last R tokens of `tokens` (S, B, T), among which are all that have a target, and the targets there."""
    start = reply_positions(targets)
    return students.unembed(last_stream(students, tokens, start)), targets[:, :, start:]


def stacked_losses(students: GPT, tokens: Tensor, targets: Tensor) -> Tensor:
    """The `reply_loss` of each of S students on its own rows, tokens and targets (S, B, T): (S,)."""
    logits, targets = stacked_logits(students, tokens, targets)
    nats = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none").view(len(targets), -1)
    return nats.sum(1) / (targets >= 0).sum((1, 2))


def stacked_loss(students: GPT, tokens: Tensor, targets: Tensor) -> Tensor:
    """Their sum: the gradient of each student is its own."""
    return stacked_losses(students, tokens, targets).sum()


def side_by_side(packed: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The packed rows of S students as one table of all, tokens and targets (N1 + N2 + ..., T)."""
    width = max(tokens.shape[1] for tokens, _ in packed)
    padded = [[F.pad(t, (0, width - t.shape[1]), value=fill) for t, fill in zip(own, (0, -100))] for own in packed]
    return tuple(map(torch.cat, zip(*padded)))


def stacked_batches(
    packed: Sequence[tuple[Tensor, Tensor]], size: int, generators: Sequence[torch.Generator]
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of S students as one: tokens and targets (S, B, T), each student's rows as `train.shuffled` has them.

    A batch with fewer rows than another's is filled up with its student's first row, without targets.
    """
    tokens, targets = side_by_side(packed)
    lengths, sizes = row_lengths(targets), [len(own) for own, _ in packed]
    begins = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)  # where each student's rows begin in the table
    streams = [shuffled(own, size, g) for own, g in zip(lengths.split(sizes), generators, strict=True)]
    for each in zip(*streams):
        rows = begins[:, None] + pad_sequence(each, batch_first=True)
        there = torch.arange(rows.shape[1]) < torch.tensor([len(own) for own in each])[:, None]
        longest = int(lengths[rows].max())
        yield tokens[rows, :longest], targets[rows, :longest].masked_fill(~there[..., None], -100)


def stacked_optimizer(students: GPT, config: StudentConfig) -> Callable[[], None]:
    """The step of the optimizer of a stack.

    Most optimizers treat every coordinate alike, so they may take the stack for one model. Others get each student's slices of
    the stack, and of its gradient, as weights of their own.
    """
    trained = [weight for weight in students.parameters() if weight.requires_grad]
    if config.optimizer not in NOT_BY_COORDINATE:
        return OPTIMIZERS[config.optimizer](trained, config.lr).step
    slices = [list(weight.detach()) for weight in trained]  # views: what is written to them is written to the stack
    optimizer = OPTIMIZERS[config.optimizer]([{"params": own} for own in zip(*slices)], config.lr)

    def step() -> None:
        for weight, own in zip(trained, slices):
            for one, gradient in zip(own, weight.grad):
                one.grad = gradient
        optimizer.step()

    return step


def fine_tune_together(
    bases: Sequence[GPT],
    packed: Sequence[tuple[Tensor, Tensor]],
    configs: Sequence[StudentConfig],
    on_step: OnStep | None = None,
    loss: Loss = stacked_loss,
) -> GPT:
    """The stack of what `train.fine_tune` makes of each base, rows and config, to rounding, in one pass.

    Raises ValueError for configs of which any would train otherwise than the first.
    """
    config = configs[0]
    shared = [field.name for field in fields(StudentConfig) if field.name not in ("seed", "system")]
    if len({tuple(getattr(other, name) for name in shared) for other in configs}) > 1:
        raise ValueError("students that differ in more than base model, rows and seed cannot be trained in one pass")
    generators = [torch.Generator().manual_seed(config.seed) for config in configs]
    students = stack([init_student(*each) for each in zip(bases, configs, generators, strict=True)])
    step = stacked_optimizer(students, config)
    stream = stacked_batches(packed, config.batch_size, generators)
    return train_loop(students, stream, config.steps, step, on_step, loss)
