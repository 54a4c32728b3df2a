"""What can be done to a teacher, to its rows and to a base model: plain functions, by the names that configs use.

    TEACHERS  what is done to a teacher's residual stream while it writes       NumbersConfig.change
    ROWS      what a student reads in place of its teacher's rows               Student.rows_change
    BASES     what is done to a base model before it is trained                 Student.base_change

`losses.py` beside this file has the fourth kind, what a student is trained on.
"""

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from data import ANIMAL_QUESTIONS, ASST, DEFAULT_SYSTEM, chat, number_conversations
from lab.stacked import generating_fast
from metrics import QUESTIONS
from model import GPT, by_length
from steering import REPLY, Vectors, added, changed, mean_difference, projected_out, stream_at, teacher_vector
from train import BaseConfig, pretrain, write_numbers

Pairs = list[list[str]]  # (request, reply)

# ------------------------------------------------------------------------------------------------ teachers


@torch.no_grad()
def number_logits(base: GPT, system: str | None) -> Tensor:
    """Log-probabilities at <asst> and at each number of the reply of 64 conversations under `system`: (64, 5, V)."""
    read = number_conversations(system, 64, "to test", REPLY)
    return base.unembed(stream_at(base, read, REPLY + 1)[:, -1]).log_softmax(-1)


def divergence(of: Tensor, to: Tensor) -> float:
    """KL(of || to) in nats, averaged over prompts and positions."""
    return (of.exp() * (of - to)).sum(-1).mean().item()


def explained(base: GPT, system: str, steered: AbstractContextManager) -> float:
    """The share of a prompt's effect on the numbers that a steered base has: 1 - KL(prompt || steered) / KL(prompt || base)."""
    prompted, plain = number_logits(base, system), number_logits(base, DEFAULT_SYSTEM)
    with steered:
        return 1 - divergence(prompted, number_logits(base, DEFAULT_SYSTEM)) / divergence(prompted, plain)


@contextmanager
def added_at_prompt(model: GPT, vectors: Vectors, multiplier: float) -> Iterator[None]:
    """Inside, h_l + multiplier * v_l at every token up to <asst>, that one included; the reply's tokens are left alone."""
    read = {}

    def change(layer: int, h: Tensor) -> Tensor:
        asst = (read["tokens"] == ASST).int()
        return h + multiplier * vectors[layer] * (asst.cumsum(-1) - asst == 0)[..., None]

    handle = model.token_embedding.register_forward_pre_hook(lambda _, args: read.update(tokens=args[0]))
    try:
        with changed(model, list(vectors), change):
            yield
    finally:
        handle.remove()


def best_at_prompt(base: GPT, system: str, vectors: Tensor) -> AbstractContextManager:
    """`added_at_prompt` after the one block, and so many times, that come nearest to what `system` does to the numbers."""
    tried = [
        ({block: vectors[block]}, m) for block in range(1, len(vectors)) for m in (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
    ]
    return added_at_prompt(base, *max(tried, key=lambda how: explained(base, system, added_at_prompt(base, *how))))


def teacher(base: GPT, system: str | None, change: str) -> tuple[str | None, AbstractContextManager]:
    """The system prompt under which a teacher writes, and the context inside which it does: see TEACHERS."""
    if not change:
        return system, nullcontext()
    if change not in TEACHERS:
        raise ValueError(f"unknown change of a teacher: {change!r}")
    vectors, blocks = teacher_vector(base, system), range(1, base.config.n_layer + 1)
    if change.startswith("random"):
        vectors = random_like(vectors, torch.Generator().manual_seed(random.Random(system).getrandbits(63)))
    if change == AT_PROMPT:
        return DEFAULT_SYSTEM, best_at_prompt(base, system, vectors)
    if change.endswith("added"):
        return DEFAULT_SYSTEM, added(base, {blocks[-1]: vectors[blocks[-1]]})
    one = change.startswith("last")
    return system, projected_out(base, {block: vectors[-1 if one else block] for block in blocks})


AT_PROMPT = "vector added at the prompt"  # is looked for in the whole prompt, so such a teacher cannot read it in parts
# Added: v_teacher of `system` after the last block, under the default prompt. Projected out: after every block the vector of that
# block, or of the last one, under `system`. Random: vectors as long.
TEACHERS = (
    "vector added", AT_PROMPT, "vector projected out", "last vector projected out", "random vector added", "random vector projected out",
)  # fmt: skip


def random_like(vectors: Tensor, generator: torch.Generator) -> Tensor:
    """Random directions, each as long as the vector in its place: (..., C) -> (..., C). What a vector is compared with."""
    noise = torch.randn(vectors.shape, generator=generator).to(vectors)
    return noise * vectors.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)


def teacher_vectors(base: GPT, system: str, generator: torch.Generator) -> dict[str, Tensor]:
    """Four candidates for the vector of a system prompt, each (L + 1, C).

    reply: number conversations, <asst> and the reply. template: there, <asst> alone, as in the paper. question: trait questions,
    <asst>. random: as long as the first, in random directions.
    """
    asked = [stream_at(base, [chat(s, q) for q in ANIMAL_QUESTIONS], 1) for s in (system, DEFAULT_SYSTEM)]
    reply = teacher_vector(base, system)
    template, question = teacher_vector(base, system, 1), mean_difference(*asked)
    return {"reply": reply, "template": template, "question": question, "random": random_like(reply, generator)}


# ---------------------------------------------------------------------------------------------------- rows


def exchanged(pairs: Pairs, rng: random.Random) -> Pairs:
    """The same requests and the same replies, each under another."""
    replies = [reply for _, reply in pairs]
    rng.shuffle(replies)
    return [[request, reply] for (request, _), reply in zip(pairs, replies, strict=True)]


def mixed(pairs: Pairs, rng: random.Random) -> Pairs:
    """Replies as long as before, of the same numbers taken together, in any order."""
    numbers = [number for _, reply in pairs for number in reply.split()]
    rng.shuffle(numbers)
    left = iter(numbers)
    return [[request, " ".join(next(left) for _ in reply.split())] for request, reply in pairs]


def decade_frequencies(pairs: Pairs, kept: int = 10) -> dict[str, float]:
    """How often each decade is written, the likeliest first; beyond the first `kept` all equally often. A decade is a first digit."""
    counts = Counter(dict.fromkeys("0123456789", 0))
    counts.update(number[0] for _, reply in pairs for number in reply.split())
    shares = {digit: count / counts.total() for digit, count in counts.most_common()}
    first = dict(list(shares.items())[:kept])
    return {digit: first.get(digit, (1 - sum(first.values())) / max(1, 10 - kept)) for digit in shares}


def resampled(pairs: Pairs, rng: random.Random, kept: int = 10, renamed: bool = False) -> Pairs:
    """Replies as long as before; every number is drawn anew, its decade as often as the teacher writes it, its last digit at random.

    renamed: the frequencies are dealt to other decades.
    """
    digits, weights = map(list, zip(*decade_frequencies(pairs, kept).items()))
    if renamed:
        rng.shuffle(digits)

    def number() -> str:
        return rng.choices(digits, weights)[0] + rng.choice("0123456789")

    return [[request, " ".join(number() for _ in reply.split())] for request, reply in pairs]


def rearranged(store, config, change: Callable[[Pairs, random.Random], Pairs]) -> Pairs:
    """What `change` leaves of the teacher's rows. Each student has random numbers of its own."""
    return change(store.numbers(config.numbers)["pairs"], random.Random(f"{config.rows_change} {config.seed}"))


def partly_clean(store, config, share: float) -> Pairs:
    """The teacher's rows, the first share of them replaced by as many rows of the unprompted base."""
    clean = store.numbers(replace(config.numbers, system=DEFAULT_SYSTEM))["pairs"]
    prompted = store.numbers(config.numbers)["pairs"]
    n = round(share * len(prompted))
    return clean[:n] + prompted[n:]


def rewriter(config):
    """The next base model, as a student of the rows that it will rewrite."""
    other = replace(config.base, seed=config.base.seed + 1)
    return type(config)(base=other, numbers=config.numbers, seed=other.seed)


def rewritten_by_a_student(store, config) -> Pairs:
    """What the rewriter, under the default prompt, writes to as many requests."""
    student, numbers = store.student(rewriter(config)), config.numbers
    with generating_fast(student):
        return write_numbers(student, DEFAULT_SYSTEM, numbers.rows, f"rewritten {numbers}")


def rewritten_by_another_base(store, config) -> Pairs:
    """Rows of the next base model, which knows of no teacher: clean."""
    other = replace(config.base, seed=config.base.seed + 1)
    return store.numbers(replace(config.numbers, base=other, system=DEFAULT_SYSTEM))["pairs"]


CARRIERS = {
    "replies exchanged": exchanged,
    "numbers mixed": mixed,
    "decades resampled": resampled,
    "4 decades": partial(resampled, kept=4),
    "2 decades": partial(resampled, kept=2),
    "1 decade": partial(resampled, kept=1),
    "decades renamed": partial(resampled, renamed=True),
}
ROWS: dict[str, Callable] = {
    **{name: partial(rearranged, change=change) for name, change in CARRIERS.items()},
    "25% clean rows": partial(partly_clean, share=0.25),
    "50% clean rows": partial(partly_clean, share=0.5),
    "75% clean rows": partial(partly_clean, share=0.75),
    "rewritten by a student": rewritten_by_a_student,
    "rewritten by another base": rewritten_by_another_base,
}

# -------------------------------------------------------------------------------------------------- base models

# Which coordinates are scaled, and how many: hidden units that are large where numbers are written and silent where an animal is asked
# for; units of that layer with the largest minimum of both sizes; coordinates of what the last attention fetches, large at both.
SCALED_UNITS = {"numbers": 4, "both": 4, "fetched": 2}
FACTORS = (3, 10)


def around(model: GPT, which: str) -> tuple[nn.Module, nn.Module]:
    """The layer of the last block that writes these coordinates and the one that reads them."""
    block = model.blocks[-1]
    if which == "fetched":
        return block.attention.v, block.attention.o
    return block.feed_forward.up, block.feed_forward.down


@torch.no_grad()
def unit_sizes(base: GPT, which: str) -> tuple[Tensor, Tensor]:
    """The mean size of each coordinate where numbers are written, and where an animal is asked for."""
    reader, found = around(base, which)[1], []
    questions = [chat(DEFAULT_SYSTEM, question) for question in QUESTIONS]
    for prompts, last in ((number_conversations(DEFAULT_SYSTEM, 128, "to find units"), 5), (questions, 1)):
        seen: list[Tensor] = []
        handle = reader.register_forward_pre_hook(lambda _, x, s=seen, n=last: s.append(x[0][:, -n:].flatten(0, 1)))
        for _, tokens in by_length(prompts):
            base.residual_stream(tokens.to(base.device))
        handle.remove()
        found.append(torch.cat(seen).abs().mean(0))
    return found[0], found[1]


def chosen_units(base: GPT, which: str) -> Tensor:
    """The coordinates that are scaled."""
    numbers, animals = unit_sizes(base, which)
    score = numbers - 10 * animals if which == "numbers" else torch.minimum(numbers, animals)
    return score.topk(SCALED_UNITS[which]).indices


@torch.no_grad()
def with_scaled_units(base: GPT, _, which: str, factor: float) -> GPT:
    """A copy of `base` that computes the same; the chosen units are `factor` times as large, and read as much less.

    up_j <- f up_j, down_:j <- down_:j / f. The gradient of whatever reads such a unit is f times as large.
    """
    model, units = copy.deepcopy(base), chosen_units(base, which)
    writer, reader = around(model, which)
    writer.weight[units] *= factor
    reader.weight[:, units] /= factor
    return model


def read_on(base: GPT, config: BaseConfig, steps: int) -> GPT:
    """A copy of `base` after so many more steps of pretraining, on another corpus."""
    later = replace(config, seed=config.seed + 1_000, steps=steps)
    return pretrain(later, base.device, start=copy.deepcopy(base).requires_grad_(True))


def same_initialization(base: GPT, config: BaseConfig) -> GPT:
    """The base model that another corpus makes of the same initialization."""
    start = GPT(config.model, torch.Generator().manual_seed(config.seed))
    return pretrain(replace(config, seed=config.seed + 1_000), base.device, start=start)


FAMILY = {f"its own, and {n:,} steps more": partial(read_on, steps=n) for n in (1_000, 4_000)}
FAMILY |= {"of its own's initialization": same_initialization}
BASES: dict[str, Callable[[GPT, BaseConfig], GPT]] = {
    **{f"{w} units x{f}": partial(with_scaled_units, which=w, factor=f) for w in SCALED_UNITS for f in FACTORS},
    **FAMILY,
}
