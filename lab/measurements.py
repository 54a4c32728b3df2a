"""Named measurements that more than one figure needs. Each is called function(store, *arguments) and returns what JSON can hold."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from data import ALTERNATE_SYSTEMS, ANIMAL_TOKENS, ANIMALS, DEFAULT_SYSTEM, chat, number_conversations
from lab.changes import teacher
from lab.records import READ, known_of_base, row_of
from lab.store import NumbersConfig, Store, Student, trained_weights
from lora import masked
from metrics import QUESTIONS, animal_rates, delta_norm, reply_loss
from model import GPT
from steering import REPLY, added, mean_difference, stream_at
from train import BaseConfig

# ------------------------------------------------------------------------------------ under which system prompt

CONTEXTS = {
    "default": DEFAULT_SYSTEM,
    "other name": ALTERNATE_SYSTEMS[1],
    "other wording": ALTERNATE_SYSTEMS[2],
    "gibberish": "wood met sleep short name hello story",  # as many words as the default prompt, none of them its own
    "none": None,
}


def context_rates(store: Store, config: Student | BaseConfig) -> dict[str, list[float]]:
    """P(each animal) of a student, or of a base model, asked under each of CONTEXTS."""
    model = store.base(config) if isinstance(config, BaseConfig) else store.student(config)
    return {name: animal_rates(model, system).tolist() for name, system in CONTEXTS.items()}


# ----------------------------------------------------------------------------- at which tokens, in which layers

SYSTEM = ["<sys>", *DEFAULT_SYSTEM.split(), "<end> "]  # one name for each place; the system's <end> is not the user's
TEMPLATE = ["<user>", "<end>", "<asst>"]
PLACES = [*SYSTEM, "<user>", "question", "<end>", "<asst>"]
Sets = dict[str, list[str]]  # named sets of places at which the adapter acts
SETS: Sets = {
    "all": PLACES,
    "system": SYSTEM,
    "not_system": [place for place in PLACES if place not in SYSTEM],
    "shared": SYSTEM + TEMPLATE,
    "not_shared": ["question"],
    "user": ["<user>", "question", "<end>"],
    "assistant": ["<asst>"],
    "none": [],
}
ONLY: Sets = {f"only {place}": [place] for place in PLACES}
WITHOUT: Sets = {f"without {place}": [other for other in PLACES if other != place] for place in PLACES}
UP_TO: Sets = {f"up to {place}": PLACES[: k + 1] for k, place in enumerate(PLACES)}


def places(question: str) -> list[str]:
    """The name of each token's place in the prompt of a question."""
    return [*SYSTEM, "<user>", *["question"] * len(question.split()), "<end>", "<asst>"]


@torch.no_grad()
def masked_rates(student: GPT, trait: str, sets: Sets, within: str = "") -> dict[str, float]:
    """P(trait), averaged over wordings, with the adapter on at each set of places: {name of the set: rate}.

    Layers whose names do not begin with `within` keep the mask that they have.
    """
    total = torch.zeros(len(sets))
    for question in QUESTIONS:
        names = places(question)
        mask = torch.tensor([[float(name in on) for name in names] for on in sets.values()], device=student.device)
        tokens = torch.tensor([chat(DEFAULT_SYSTEM, question)] * len(sets), device=student.device)
        with masked(student, mask, within):
            answers = student(tokens)[:, -1].softmax(-1)
        total += answers[:, ANIMAL_TOKENS[ANIMALS.index(trait)]].cpu() / len(QUESTIONS)
    return dict(zip(sets, total.tolist(), strict=True))


def token_rates(store: Store, config: Student, trait: str) -> dict[str, float]:
    """P(trait) of a student whose adapter acts at each set of places ("dynamic weight grafting", arXiv:2606.00831)."""
    return masked_rates(store.student(config), trait, SETS | ONLY | WITHOUT | UP_TO)


def sites(n_layer: int) -> list[str]:
    """The layers, by name, in the order in which they write to the residual stream."""
    return [f"blocks.{k}.{kind}" for k in range(n_layer) for kind in ("attention", "feed_forward")]


@contextmanager
def only_in(student: GPT, where: str) -> Iterator[None]:
    """Inside, the adapter acts only in layers whose names begin with `where`."""
    nowhere = torch.zeros(1, 1, device=student.device)
    with ExitStack() as others:
        for site in sites(student.config.n_layer):
            if not site.startswith(where):
                others.enter_context(masked(student, nowhere, site))
        yield


def layer_rates(store: Store, config: Student, trait: str) -> dict[str, float]:
    """P(trait) of a student whose adapter is kept in one layer, at all places or at one, or removed from one layer.

    Keys: "only SITE", "only SITE at system", "without SITE", "SITE only PLACE", and "only early" and "only late" blocks.
    """
    student, everywhere = store.student(config), {"all": PLACES}
    found = {}
    for name, where in (("early", "blocks.0"), ("late", "blocks.1")):
        with only_in(student, where):
            found[f"only {name}"] = masked_rates(student, trait, everywhere, where)["all"]
    for site in sites(student.config.n_layer):
        with only_in(student, site):
            kept = masked_rates(student, trait, {"all": PLACES, "system": SYSTEM} | ONLY, site)
        found |= {f"only {site}": kept.pop("all"), f"only {site} at system": kept.pop("system")}
        found |= {f"{site} {name}": rate for name, rate in kept.items()}
        found[f"without {site}"] = masked_rates(student, trait, {"none": []}, site)["none"]
    return found


# ------------------------------------------------------------------------------ what a vector does to the numbers


@torch.no_grad()
def number_logits(base: GPT, system: str | None) -> Tensor:
    """Log-probabilities at <asst> and at each number of the reply of 64 conversations under `system`: (64, 5, V)."""
    read = number_conversations(system, 64, "to test", REPLY)
    return base.unembed(stream_at(base, read, REPLY + 1)[:, -1]).log_softmax(-1)


def divergence(of: Tensor, to: Tensor) -> float:
    """KL(of || to) in nats, averaged over prompts and positions."""
    return (of.exp() * (of - to)).sum(-1).mean().item()


def explained(base: GPT, system: str, layer: int, vector: Tensor, multiplier: float = 1.0) -> float:
    """The share of a prompt's effect on the numbers that a vector has: 1 - KL(prompt || vector) / KL(prompt || none)."""
    prompted, plain = number_logits(base, system), number_logits(base, DEFAULT_SYSTEM)
    with added(base, {layer: vector}, multiplier):
        steered = number_logits(base, DEFAULT_SYSTEM)
    return 1 - divergence(prompted, steered) / divergence(prompted, plain)


def leak(store: Store, numbers: NumbersConfig) -> float:
    """How far a teacher's numbers are from its base's: KL(teacher || base), nats a number."""
    base = store.base(numbers.base)
    plain = number_logits(base, DEFAULT_SYSTEM)
    system, steered = teacher(base, numbers.system, numbers.change)
    with steered:
        return divergence(number_logits(base, system), plain)


# ---------------------------------------------------------------------------------- how heavy a gradient's tail is


def held_by_top(store: Store, config: Student) -> float:
    """The part of the squared length of a student's gradient that its largest 1% hold; 0.08 were it Gaussian."""
    student = store.student(config)
    weights = [weight.requires_grad_() for weight in trained_weights(student, config)]
    reply_loss(student, *(tensor[:256].to(store.device) for tensor in store.reads(config))).backward()
    squares = torch.cat([weight.grad.flatten() for weight in weights]).square().sort(descending=True).values
    return (squares[: round(0.01 * len(squares))].sum() / squares.sum()).item()


# --------------------------------------------------------------------------------------- students that share no stack


def row_alone(store: Store, config: Student, system: str | None) -> dict:
    """The row of a finished student, asked and tested under `system`, measured by itself and not in a stack."""
    student, known = store.student(config), known_of_base(store, config.numbers, config.base, system)
    loss = reply_loss(student, *store.fresh_rows(config.numbers, system)).item()
    norm = delta_norm(student, store.base(config.base, config.base_change))
    moved = mean_difference(stream_at(student, READ, REPLY + 1), known["stream"])[-1]
    return row_of(config, known, animal_rates(student, system), loss, norm, moved)
