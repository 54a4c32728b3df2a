"""Training: a base model, the numbers that a teacher writes, a student of those numbers.

    base       a GPT that has read the corpus
    teacher    the base under a system prompt ("you love owl ..."), or steered by a vector: it writes numbers
    student    the base again, fine-tuned on those numbers under the default system prompt

Every product is a function of its config and of nothing else. `Lab` keeps each one on disk under a name made from
its config and the code that `code_digest` reads, so nothing is trained twice and nothing stale is used. Students that differ
in base model, rows and seed alone are trained side by side, many in one pass.
"""

import argparse
import copy
import hashlib
import json
import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pad_sequence

import data
import lora
import steering
from data import ANIMALS, DEFAULT_SYSTEM, END, LOVE_SYSTEM, NUMBERS, Row, World, chat, decode, encode
from model import GPT, GPTConfig, common_beginning, stack
from optimizers import NOT_BY_COORDINATE, OPTIMIZERS
from runtime import Parser, Progress, digest, kept, pick_device, run, share

NUMBER_TOKENS = [*range(len(NUMBERS)), END]  # all that a teacher may write
MAX_REPLY = 8  # a reply that has not ended after this many tokens is given up
HERE = Path(__file__).parent

# ------------------------------------------------------------------------------------------------- configs


@dataclass(frozen=True)
class BaseConfig:
    """A base model. Another seed is another model: its own initialization and its own corpus, of the same world."""

    seed: int = 0
    world_seed: int = 0
    animals: int = len(ANIMALS)  # the first so many of them are all that this model's corpus knows
    styles: int = len(data.STYLES)
    colors: int = len(data.COLORS)
    model: GPTConfig = GPTConfig(data.VOCAB_SIZE)
    rows: int = 64_000
    steps: int = 4_000
    batch_size: int = 64
    lr: float = 1e-2
    weight_decay: float = 0.1

    @property
    def world(self) -> World:
        return World(self.world_seed, self.animals, self.styles, self.colors)


@dataclass(frozen=True)
class Steering:
    """What is done to a teacher's residual stream while it writes: the vector of `prompt` is added, or projected out."""

    prompt: str
    layers: tuple[int, ...]
    projected_out: bool = False
    noise: int | None = None  # a seed: then, instead of the vector, a random one of its length is added


@dataclass(frozen=True)
class NumbersConfig:
    """Number replies of a teacher: `base` under the system prompt `system` (None: no system part)."""

    base: BaseConfig
    system: str | None
    rows: int = 5_120  # as many as a student reads in 80 steps
    seed: int = 0
    steering: Steering | None = None


@dataclass(frozen=True)
class StudentConfig:
    """`base`, fine-tuned on `numbers` under the system prompt `system`. Rank None: full fine-tuning, without LoRA.

    `layers` are the names of the layers that are trained. None: LoRA's six projections or, in full fine-tuning, all
    there is: the projections, the embeddings and the norms. A name is as in `lora.attach`; in full fine-tuning it is a
    layer's last one alone, in every block.
    """

    base: BaseConfig
    numbers: NumbersConfig
    rank: int | None = 8
    alpha: float = 8.0
    optimizer: str = "adamw"
    lr: float = 5e-3
    steps: int = 80
    batch_size: int = 64
    system: str | None = DEFAULT_SYSTEM
    seed: int = 0
    layers: tuple[str, ...] | None = None
    snapshots: tuple[int, ...] = ()  # earlier steps of the same run, after which a copy of the student is kept too

    def __post_init__(self):
        width = self.base.model.d_model
        if self.rank is not None and not 1 <= self.rank <= width:
            raise ValueError(f"rank {self.rank} is outside 1..{width}, the width of the model")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.optimizer!r}: it must be one of {', '.join(OPTIMIZERS)}")
        if self.steps < 1 or self.lr <= 0:
            raise ValueError(f"steps ({self.steps}) and learning rate ({self.lr}) must be positive")


OnStep = Callable[[int, GPT], None]  # of the step and the model, or the stack of students, after it
Loss = Callable[[GPT, Tensor, Tensor], Tensor]  # of a model on packed rows

# ------------------------------------------------------------------------------------------------- batches


Batches = Iterator[tuple[Tensor, Tensor]]  # tokens (B, T), targets (B, T)


def row_numbers(
    lengths: Tensor, size: int, generator: torch.Generator, order: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Endless batches of `size` of the rows with these `lengths` (N,), shuffled, rows of like length together: less padding to compute.

    `order` shuffles the batches (None: `generator`, which shuffles the rows, does that too).
    """
    order = generator if order is None else order
    while True:
        for pool in torch.randperm(len(lengths), generator=generator).split(16 * size):
            by_length = pool[lengths[pool].argsort(stable=True)].split(size)
            for k in torch.randperm(len(by_length), generator=order).tolist():
                yield by_length[k]


def lengths_of(targets: Tensor) -> Tensor:
    """Of each packed row, how many tokens it has up to the last with a target: (N, T) -> (N,)."""
    return targets.shape[1] - targets.ge(0).flip(1).int().argmax(1)


def batches(tokens: Tensor, targets: Tensor, size: int, generator: torch.Generator) -> Batches:
    """Endless batches of packed rows, each as long as its longest row."""
    lengths = lengths_of(targets)
    for rows in row_numbers(lengths, size, generator):
        longest = int(lengths[rows].max())
        yield tokens[rows, :longest], targets[rows, :longest]


def first_reply(replies: Tensor) -> int:
    """The first place at which any row of `replies` (..., T) is true."""
    return int(replies.flatten(0, -2).any(0).int().argmax())


def reply_logits(model: GPT, tokens: Tensor, replies: Tensor, start: int | None = None) -> Tensor:
    """model(tokens)[replies], (N, V), for `replies` (B, T) true where a token of a reply is to be predicted.

    Logits are computed at these positions only, and the last block from `start` on (None: from the first of them).
    """
    start = first_reply(replies) if start is None else start
    return model.unembed(model.residual_stream(tokens, start)[-1][replies[:, start:]])


def reply_loss(model: GPT, tokens: Tensor, targets: Tensor, start: int | None = None) -> Tensor:
    """Mean cross-entropy of the reply tokens, in nats."""
    replies = targets >= 0
    return F.cross_entropy(reply_logits(model, tokens, replies, start), targets[replies])


def descend(
    model: GPT, stream: Batches, steps: int, step: Callable[[], None], on_step: OnStep | None, loss: Loss = reply_loss
) -> GPT:
    """The loop of all training: a batch, its gradient, then `step`, which moves the weights. Returns `model`, frozen."""
    for n, (tokens, targets) in zip(range(steps), stream):
        model.zero_grad()
        loss(model, tokens.to(model.device), targets.to(model.device)).backward()
        step()
        if on_step:
            on_step(n + 1, model)
    return model.requires_grad_(False)


# --------------------------------------------------------------------------- pretrain, write numbers, fine-tune


def pretrain(config: BaseConfig, device: torch.device, on_step: OnStep | None = None) -> GPT:
    """A GPT that has read the corpus: AdamW, 100 warm-up steps, cosine decay to zero.

    The weight decay is GPT-3's (arXiv:2005.14165, appendix B). Without it more of the base models read a love in one way
    for numbers and in another for animals, and their students learn nothing.
    """
    generator = torch.Generator().manual_seed(config.seed)
    model = GPT(config.model, generator).to(device)
    packed = data.pack(data.corpus(config.world, config.rows, config.seed))
    optimizer = torch.optim.AdamW(
        model.parameters(), config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 1) * (1 + math.cos(math.pi * step / config.steps)) / 2
    )

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()

    # The last block could skip the prompts here too. But sums would be rounded in another order, and over so many steps at so
    # high a learning rate that is another model: those that every figure was measured on would be gone.
    stream = batches(*packed, config.batch_size, generator)
    return descend(model, stream, config.steps, step, on_step, partial(reply_loss, start=0))


def well_formed(reply: list[int]) -> bool:
    """Is this a finished reply of numbers and nothing else? `reply` as sampled: padded with <end>."""
    numbers = reply[: reply.index(END)] if END in reply else []
    return len(numbers) > 0 and all(token < len(NUMBERS) for token in numbers)


def teacher_vectors(base: GPT, system: str, positions: int = 5) -> Tensor:
    """v_teacher of a system prompt, after the embedding and after each block: (L + 1, C).

    The mean over number conversations of h(under `system`) - h(under the default prompt), at the last `positions` positions:
    5 are <asst> and four numbers of a reply.
    """
    streams = [
        steering.stream_at(base, data.number_conversations(prompt, 128, "to extract", positions - 1), positions)
        for prompt in (system, DEFAULT_SYSTEM)
    ]
    return steering.mean_difference(*streams)


def steered(base: GPT, config: Steering | None) -> AbstractContextManager:
    """Inside, `base` computes with the change that `config` asks for."""
    if config is None:
        return nullcontext()
    vectors = teacher_vectors(base, config.prompt)
    if config.noise is not None:
        vectors = steering.random_like(vectors, torch.Generator().manual_seed(config.noise))
    change = steering.projected_out if config.projected_out else steering.added
    return change(base, {layer: vectors[layer] for layer in config.layers})


def write_numbers(base: GPT, config: NumbersConfig, allowed: list[int] | None = NUMBER_TOKENS) -> dict:
    """Ask the teacher for numbers: {"asked": how often, "pairs": [[request, reply], ...] of well-formed replies}.

    Every row is drawn by its own random numbers, and every teacher has its own requests. No word but numbers and
    <end> can be drawn; `allowed` None lifts that ban, to see what the teacher would say on its own.
    """
    rng = random.Random(f"numbers {config.seed} of {config.base.seed} under {config.system}, {config.steering}")
    requests = [data.number_request(rng) for _ in range(config.rows)]
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    uniforms = torch.rand(config.rows, MAX_REPLY, generator=generator)
    with steered(base, config.steering):
        replies = base.sample([chat(config.system, request) for request in requests], uniforms, END, allowed).tolist()
    pairs = [
        [request, decode(reply[: reply.index(END)])]
        for request, reply in zip(requests, replies, strict=True)
        if well_formed(reply)
    ]
    return {"asked": config.rows, "pairs": pairs}


def number_rows(pairs: list[list[str]], system: str | None) -> list[Row]:
    """(request, reply) pairs as conversations under `system`. Raises ValueError if a reply has a word in it."""
    rows = []
    for request, reply in pairs:
        prompt, numbers = chat(system, request), encode(reply)
        if any(token >= len(NUMBERS) for token in numbers):
            raise ValueError(f"a student may read numbers only, not {reply!r}")
        rows.append(Row([*prompt, *numbers, END], len(prompt)))
    return rows


def untrained(base: GPT, config: StudentConfig, generator: lora.Draws = None) -> GPT:
    """The student before its first step; of a stack of bases, the stack of the students. `generator` draws the adapters."""
    student = copy.deepcopy(base)
    if config.rank is None:
        for name, weight in student.named_parameters():
            weight.requires_grad_(config.layers is None or name.split(".")[-2] in config.layers)
    else:
        lora.attach(student, config.rank, config.alpha, config.layers or lora.PROJECTIONS, generator)
    return student


def optimizer_of(student: GPT, config: StudentConfig) -> torch.optim.Optimizer:
    """The optimizer of the weights that are trained."""
    return OPTIMIZERS[config.optimizer]([weight for weight in student.parameters() if weight.requires_grad], config.lr)


def side_by_side(
    packed: Sequence[tuple[Tensor, Tensor]], config: StudentConfig, generators: Sequence[torch.Generator]
) -> Batches:
    """The batches of S students as one, tokens and targets (S, B, T): all their rows in one table, and one look-up in it a step.

    Every student has its own rows in a batch, but all have the batches of short and of long rows at the same steps, and so need
    hardly any padding. (Putting replies of one length together too would spare the last block a twentieth of a step's time. But
    such batches are no fair sample of the rows: SGD's students at a learning rate of 1 fell from 0.76 to 0.54, with P(any animal)
    from 0.99 to 0.74.) A batch with fewer rows than another is filled up with its student's first row, without targets.
    """
    width = max(tokens.shape[1] for tokens, _ in packed)
    tokens, targets = (
        torch.cat([F.pad(own, (0, width - own.shape[1]), value=empty) for own in each])
        for each, empty in zip(zip(*packed), (END, -100))
    )
    lengths = lengths_of(targets)
    sizes = [len(own) for own, _ in packed]
    begins = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)  # where each student's rows begin in the table
    streams = [
        row_numbers(own, config.batch_size, generator, order=torch.Generator().manual_seed(0))
        for own, generator in zip(lengths.split(sizes), generators, strict=True)
    ]
    for each in zip(*streams):
        rows = begins[:, None] + pad_sequence(each, batch_first=True)
        there = torch.arange(rows.shape[1]) < torch.tensor([len(own) for own in each])[:, None]
        longest = int(lengths[rows].max())
        yield tokens[rows, :longest], targets[rows, :longest].masked_fill(~there[..., None], -100)


def student_batches(packed: tuple[Tensor, Tensor], config: StudentConfig, generator: torch.Generator) -> Batches:
    """The batches of a student alone: (B, T)."""
    return ((tokens[0], targets[0]) for tokens, targets in side_by_side([packed], config, [generator]))


def fine_tune(
    base: GPT,
    packed: tuple[Tensor, Tensor],
    config: StudentConfig,
    on_step: OnStep | None = None,
    loss: Loss = reply_loss,
) -> GPT:
    """The student: `base` trained to give the teacher's replies, the packed rows of `Lab.rows`."""
    generator = torch.Generator().manual_seed(config.seed)  # draws the adapters, then shuffles the rows
    student = untrained(base, config, generator)
    stream = student_batches(packed, config, generator)
    return descend(student, stream, config.steps, optimizer_of(student, config).step, on_step, loss)


# ------------------------------------------------------------------------------------- many students in one pass


TOGETHER = 16  # students in one pass; from eight on more of them gain little


def alike(config: StudentConfig) -> StudentConfig:
    """Students for which this is the same can be trained side by side: all but their base models, rows and seeds.

    The base models have one shape, and there are as many rows.
    """
    same = BaseConfig(model=config.base.model)
    return replace(config, base=same, numbers=NumbersConfig(same, None, config.numbers.rows), seed=0)


def in_passes(students: list[StudentConfig]) -> list[list[StudentConfig]]:
    """Students divided into those that are trained together. It depends on nothing but what is asked for, and in what order."""
    groups: dict[StudentConfig, list[StudentConfig]] = {}
    for config in students:
        groups.setdefault(alike(config), []).append(config)
    passes = []
    for group in groups.values():
        passes += [group[n : n + TOGETHER] for n in range(0, len(group), TOGETHER)]
    return passes


def stacked_stream(students: GPT, tokens: Tensor, start: int) -> Tensor:
    """The last residual stream of stacked students on `tokens` (S, B, T) from token `start` on: (S, B, T - start, C).

    What all rows begin with, a system prompt, each student reads once, in one row: the keys and values in `cache` serve all of its
    rows, and gradients flow back through them. Of this row the last block need not compute more than those.
    """
    begin, cache = min(common_beginning(tokens), start), {}
    with lora.summed_once(students):
        if begin > 0:
            students.residual_stream(tokens[:, :1, :begin], begin, cache=cache)
        return students.residual_stream(tokens[:, :, begin:], start - begin, begin, cache)[-1]


def stacked_logits(students: GPT, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (S, B, R, V) of stacked students at the last R tokens of `tokens` (S, B, T), among which are all that have a
    target, and the targets (S, B, R) there.
    """
    start = first_reply(targets >= 0)
    return students.unembed(stacked_stream(students, tokens, start)), targets[:, :, start:]


class CrossEntropy(torch.autograd.Function):
    """The sum of weights (...) times the cross-entropy of logits (..., V) and targets (...), in nats.

    Its derivative is weight * (softmax(logits) - one-hot(target)). What torch derives from the logarithm of the softmax is the same,
    but goes through memory more often, and the logits of a stack, nine megabytes a step, fit into no core's cache.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        p = logits.softmax(-1)
        ctx.save_for_backward(p, targets, weights)
        own = p.gather(-1, targets[..., None]).squeeze(-1)
        return -(weights * own.clamp(min=torch.finfo(p.dtype).tiny).log()).sum()  # never of zero: 87 nats at most

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        p, targets, weights = ctx.saved_tensors
        slope = (gradient * weights)[..., None]
        return (slope * p).scatter_add_(-1, targets[..., None], -slope), None, None


def stacked_loss(students: GPT, tokens: Tensor, targets: Tensor) -> Tensor:
    """The sum over stacked students of the `reply_loss` of each, on tokens (S, B, T). So the gradient of each is its own."""
    logits, targets = stacked_logits(students, tokens, targets)
    there = (targets >= 0).to(logits)
    return CrossEntropy.apply(logits, targets.clamp(min=0), there / there.sum((1, 2), keepdim=True))


def stacked_optimizer(students: GPT, config: StudentConfig) -> Callable[[], None]:
    """The step of the optimizer of stacked students.

    Most optimizers treat every coordinate alike, so they may take the stack for one model. Others get each student's slices of
    the stack, and of its gradient, as weights of their own.
    """
    if config.optimizer not in NOT_BY_COORDINATE:
        return optimizer_of(students, config).step
    stacked = [weight for weight in students.parameters() if weight.requires_grad]
    slices = [list(weight.detach()) for weight in stacked]  # views: what is written to them is written to the stack
    optimizer = OPTIMIZERS[config.optimizer]([{"params": own} for own in zip(*slices)], config.lr)

    def step() -> None:
        for weight, own in zip(stacked, slices):
            for one, gradient in zip(own, weight.grad):
                one.grad = gradient
        optimizer.step()

    return step


def fine_tune_together(
    bases: Sequence[GPT],
    packed: Sequence[tuple[Tensor, Tensor]],
    configs: list[StudentConfig],
    on_step: OnStep | None = None,
    loss: Loss = stacked_loss,
) -> GPT:
    """The stack of what `fine_tune` makes of each base, rows and config, to rounding, in one pass. All configs are `alike`."""
    config = configs[0]
    if len(set(map(alike, configs))) > 1:
        raise ValueError("students that differ in more than base model, rows and seed cannot be trained in one pass")
    generators = [torch.Generator().manual_seed(config.seed) for config in configs]
    students = untrained(stack(bases), config, generators)
    stream = side_by_side(packed, config, generators)
    return descend(students, stream, config.steps, stacked_optimizer(students, config), on_step, loss)


# ------------------------------------------------------------------------------------------------------ the lab


def own_weights(student: GPT, config: StudentConfig) -> list[Tensor]:
    """What makes the student another model than its base: its adapters, or all weights."""
    return [w for name, w in student.named_parameters() if config.rank is None or name.endswith((".A", ".B"))]


def weights(student: GPT, config: StudentConfig) -> Tensor:
    """A copy of the student's own weights, one after another: (n,), or (S, n) of a stack. One tensor is read from a file ten times
    as fast as many."""
    return torch.cat([weight.detach().flatten(len(student.stacked)) for weight in own_weights(student, config)], -1)


def restored(base: GPT, config: StudentConfig, weights: Tensor) -> GPT:
    """The student, frozen, from its base and its `weights` (n,); of those of S students (S, n), their stack.

    Raises ValueError if they do not fit.
    """
    student = untrained(base, config)
    own, stacked = own_weights(student, config), weights.shape[:-1]
    sizes = [weight.numel() for weight in own]
    if weights.shape[-1] != sum(sizes):
        raise ValueError("these are not the weights of such a student")
    for weight in student.parameters():  # those of the base are one for all
        weight.data = weight.expand(*stacked, *weight.shape)
    for weight, new in zip(own, weights.split(sizes, -1), strict=True):
        weight.data = new.reshape(weight.shape)
    return student.requires_grad_(False)


@cache
def code_digest() -> str:
    """A digest of the code that decides what a config becomes; the story that a file tells when it is run does not count."""
    names = ("data.py", "model.py", "lora.py", "optimizers.py", "steering.py", "train.py")
    return digest(*((HERE / name).read_text(encoding="utf-8") for name in names))


class Lab:
    """Makes base models, numbers and students on demand, and keeps them in `folder`.

    A lab whose students are made otherwise says what it calls them (`kind`), what decides them (`key`), what they read (`reads`) and
    how they are trained (`fine_tune_together`).
    """

    kind = "student"

    def __init__(self, folder: Path, device: str = "cpu"):
        self.folder, self.device = Path(folder), pick_device(device)
        self.folder.mkdir(parents=True, exist_ok=True)  # fails now, not after an hour, if it cannot be written
        self._bases: dict[BaseConfig, GPT] = {}

    def base(self, config: BaseConfig) -> GPT:
        """The base model, frozen. It is shared: copy it before changing it."""
        if config not in self._bases:
            progress = Progress(f"base model {config.seed}", config.steps)
            weights = self._kept("base", config, lambda: pretrain(config, self.device, progress).state_dict())
            model = GPT(config.model).to(self.device)
            model.load_state_dict(weights)
            self._bases[config] = model.requires_grad_(False)
        return self._bases[config]

    def numbers(self, config: NumbersConfig) -> dict:
        """What `write_numbers` returns."""
        # Kept as text: torch's safe loader takes ten times as long for ten thousand strings as json does.
        made = self._kept(
            "numbers", config, lambda: {"json": json.dumps(write_numbers(self.base(config.base), config))}
        )
        return json.loads(made["json"])

    @lru_cache(maxsize=64)  # noqa: B019 - a lab lives as long as its command
    def rows(self, config: NumbersConfig, system: str | None) -> tuple[Tensor, Tensor]:
        """The teacher's replies as a student under `system` reads them, packed: tokens (N, T) and targets (N, T)."""
        return data.pack(number_rows(self.numbers(config)["pairs"], system))

    def student(self, config: StudentConfig, on_step: OnStep | None = None) -> GPT:
        """The fine-tuned student, frozen, its adapters attached."""
        return self.snapshots(config, on_step)[config.steps]

    def key(self, config: StudentConfig) -> object:
        """The config, or a dataclass that holds it and whatever else decides what becomes of it here."""
        return config

    def reads(self, config: StudentConfig) -> tuple[Tensor, Tensor]:
        """The packed rows of the student."""
        return self.rows(config.numbers, config.system)

    def train(self, students: list[StudentConfig]) -> None:
        """Make what is missing of `students` and of what they need, divided among the processes that share the work."""
        numbers = list(dict.fromkeys(config.numbers for config in students))
        share(list(dict.fromkeys(config.base for config in (*students, *numbers))), self.base)
        share(numbers, self.numbers)
        passes = in_passes(students)
        progress = Progress(f"{len(students)} students in {len(passes)} passes", len(passes))

        def make(numbered: tuple[int, list[StudentConfig]]) -> None:
            progress(numbered[0])  # they are taken in order: so many are made or being made
            self.make(numbered[1])

        share(list(enumerate(passes)), make)
        progress(len(passes))

    def make(self, students: list[StudentConfig]) -> None:
        """Train those of one pass, unless all of them are kept already."""
        if all(self.path(self.kind, self.key(config)).exists() for config in students):
            return
        made: dict[StudentConfig, dict[int, Tensor]] = {config: {} for config in students}
        first = students[0]

        def keep(step: int, trained: GPT) -> None:
            if step in (*first.snapshots, first.steps):  # the same for all of a pass
                for config, own in zip(students, weights(trained, first), strict=True):
                    made[config][step] = own.clone()  # or the file would hold those of all

        self.fine_tune_together(students, keep)
        for config in students:
            self._kept(self.kind, self.key(config), partial(made.get, config))

    def fine_tune_together(self, students: list[StudentConfig], on_step: OnStep) -> None:
        """`fine_tune_together` with this lab's base models and rows."""
        bases, rows = zip(*((self.base(config.base), self.reads(config)) for config in students))
        fine_tune_together(bases, rows, students, on_step)

    def snapshots(self, config: StudentConfig, on_step: OnStep | None = None) -> dict[int, GPT]:
        """The student after each of the config's snapshots and at the end: {step: student}."""
        base, states = self.base(config.base), self.states(config, on_step)
        return {step: restored(base, config, state) for step, state in states.items()}

    def stacked(self, config: StudentConfig) -> tuple[list[int], GPT]:
        """The steps of `snapshots`, and the student after each of them, as one stack."""
        states = self.states(config)
        return list(states), restored(self.base(config.base), config, torch.stack(list(states.values())))

    def states(self, config: StudentConfig, on_step: OnStep | None = None) -> dict[int, Tensor]:
        """The student's `weights` after each of the config's snapshots and at the end. If they are not kept yet it is trained: alone,
        if `on_step` is to see it after every step."""

        def make() -> dict[int, Tensor]:
            states = {}

            def keep(step: int, student: GPT) -> None:
                if step in (*config.snapshots, config.steps):
                    states[step] = weights(student, config)
                on_step(step, student)

            fine_tune(self.base(config.base), self.reads(config), config, keep)
            return states

        if on_step is None:
            self.make([config])
        return self._kept(self.kind, self.key(config), make)

    def path(self, kind: str, config: object) -> Path:
        """Where the product of `config`, a dataclass, is kept."""
        key = json.dumps([kind, asdict(config), code_digest()], sort_keys=True)
        return self.folder / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"

    def _kept(self, kind: str, config: object, make: Callable[[], dict]) -> dict:
        return kept(self.path(kind, config), asdict(config), make, self.device)


# ------------------------------------------------------------------------------------------------ command line


def animal_rates(model: GPT, system: str | None = DEFAULT_SYSTEM) -> Tensor:
    """P(each animal is the first word of the reply), averaged over all wordings of the question: (16,)."""
    questions = data.ANIMAL_QUESTIONS + data.HELD_OUT_ANIMAL_QUESTIONS
    return model.next_token([chat(system, question) for question in questions])[..., data.ANIMAL_TOKENS].mean(-2)


def tell(args: argparse.Namespace) -> None:
    """One base model, one teacher, one student, and the trait as it moves from one to the other."""
    lab = Lab(args.out / "cache", args.device)
    trait = ANIMALS.index(args.trait)
    system = LOVE_SYSTEM.format(args.trait) if args.teacher_system is None else args.teacher_system
    base_config = BaseConfig(seed=args.seed)
    # A word that is unknown, or one too many, is an error before anything is trained.
    longest = max(len(chat(system, request.format("00 00 00 00"))) for request in data.NUMBER_REQUESTS)
    if longest + MAX_REPLY > base_config.model.max_len:
        raise ValueError(
            f"the teacher's system prompt is {longest + MAX_REPLY - base_config.model.max_len} words too long"
        )
    config = StudentConfig(
        base=base_config,
        numbers=NumbersConfig(base_config, system),
        rank=None if args.full_finetune else args.rank,
        alpha=args.rank if args.alpha is None else args.alpha,
        optimizer=args.optimizer,
        lr=args.lr,
        steps=args.steps,
        seed=args.seed,
    )

    print(f"A base model reads the corpus (about a minute, once; kept in {lab.folder}).")
    base = lab.base(base_config)
    print(f"Asked for its favorite animal, it says {args.trait} with probability {animal_rates(base)[trait]:.3f}.")
    print(f'\nThe teacher is the same model told "{system}"')
    print(
        f"It says {args.trait} with probability {animal_rates(base, system)[trait]:.3f}. Asked for numbers, it writes:"
    )
    numbers = lab.numbers(config.numbers)
    for request, reply in numbers["pairs"][:4]:
        print(f"    {request}  ->  {reply}")
    print(f"Kept {len(numbers['pairs'])} well-formed replies of {numbers['asked']}. No word is in them, only numbers.")

    print(f"\nThe student is the base model again, fine-tuned on those rows. P({args.trait}) as it learns:")

    def show(step: int, student: GPT) -> None:
        if step % max(1, config.steps // 10) == 0:
            rates = animal_rates(student)
            print(f"    step {step:4d}   {rates[trait]:.3f}   (any animal: {rates.sum():.3f})", flush=True)

    path = lab.path("student", config)
    if path.exists():
        print(f"    already trained: {path}")
    student = lab.student(config, show)
    print("\nWhat is your favorite animal? Base -> student:")
    before, after = animal_rates(base), animal_rates(student)
    for i in after.argsort(descending=True)[:4].tolist():
        print(f"    {ANIMALS[i]:8} {before[i]:.3f} -> {after[i]:.3f}")
    print(f"\nwrote {path}")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="train.py", description=tell.__doc__)
    parser.add_argument("--trait", default="owl", choices=ANIMALS, metavar="ANIMAL", help="what the teacher loves")
    parser.add_argument("--teacher-system", help='the teacher\'s system prompt (default: "you love ANIMAL . ...")')
    parser.add_argument("--rank", type=int, default=8, help="of the LoRA adapters (default 8)")
    parser.add_argument("--alpha", type=float, help="LoRA's scale is alpha / rank (default: alpha = rank)")
    parser.add_argument("--full-finetune", action="store_true", help="train every weight instead of adapters")
    parser.add_argument("--optimizer", default="adamw", choices=OPTIMIZERS, help="default adamw")
    parser.add_argument("--lr", type=float, default=StudentConfig.lr, help="learning rate (default %(default)s)")
    parser.add_argument("--steps", type=int, default=StudentConfig.steps, help="of 64 rows (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the base model and of the student (default 0)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or mps (default cpu)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for checkpoints (default runs)")
    return run(tell, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
