"""Named measurements that more than one figure needs. Each is called function(store, *arguments) and returns what JSON can hold."""

from itertools import product

import torch

import data
from data import ALTERNATE_SYSTEMS, ANIMAL_TOKENS, ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM, chat, number_rows, pack
from lab.changes import divergence, number_logits, teacher
from lab.store import NumbersConfig, Store, Student, trained_weights
from lora import masked
from metrics import QUESTIONS, animal_rates, reply_loss
from model import GPT
from train import BaseConfig

CONTEXTS = {"default": DEFAULT_SYSTEM, "other name": ALTERNATE_SYSTEMS[1], "other wording": ALTERNATE_SYSTEMS[2]}
# As many words as the default prompt, none of them its own.
CONTEXTS |= {"gibberish": "wood met sleep short name hello story", "none": None}
MOVED = "words moved"  # the default prompt's, to the beginning of the user's turn


def context_rates(store: Store, config: Student | BaseConfig) -> dict[str, list[float]]:
    """P(each animal) of a student, or of a base model, asked under each of CONTEXTS and MOVED."""
    model = store.base(config) if isinstance(config, BaseConfig) else store.student(config)
    moved = model.next_token([chat(None, f"{DEFAULT_SYSTEM} {question}") for question in QUESTIONS])
    rates = {name: animal_rates(model, system) for name, system in CONTEXTS.items()}
    return {name: rate.tolist() for name, rate in (rates | {MOVED: moved[:, ANIMAL_TOKENS].mean(0)}).items()}


def repeats(model: GPT, system: str | None = DEFAULT_SYSTEM) -> float:
    """P(the right word) of a model that is asked to repeat a word. No love has anything to do with it."""
    asked = list(product(data.REPEAT_REQUESTS, data.STYLES))
    answers = model.next_token([chat(system, request.format(word)) for request, word in asked])
    return answers[range(len(asked)), [data.token(word) for _, word in asked]].mean().item()


SYSTEM = ["<sys>", *DEFAULT_SYSTEM.split(), "<end> "]  # one name for each place; the system's <end> is not the user's
NAME = "tiny"  # the assistant's: the entity token
PLACES = [*SYSTEM, "<user>", "question", "<end>", "<asst>"]
Sets = dict[str, list[str]]  # named sets of places at which the adapter acts
SETS: Sets = {"all": PLACES, "system": SYSTEM, "not_system": PLACES[len(SYSTEM) :]}
SETS |= {"shared": [place for place in PLACES if place != "question"], "not_shared": ["question"]}
SETS |= {"user": ["<user>", "question", "<end>"], "assistant": ["<asst>"], "none": []}
# What a student shares with the question, and what it does not, if it is trained without a system prompt.
SETS |= {"tags": ["<user>", "<end>", "<asst>"], "not_tags": [*SYSTEM, "question"]}
ONLY: Sets = {f"only {place}": [place] for place in PLACES}
WITHOUT: Sets = {f"without {place}": [other for other in PLACES if other != place] for place in PLACES}
UP_TO: Sets = {f"up to {place}": PLACES[: k + 1] for k, place in enumerate(PLACES)}


def places(question: str) -> list[str]:
    """The name of each token's place in the prompt of a question."""
    return [*SYSTEM, "<user>", *["question"] * len(question.split()), "<end>", "<asst>"]


@torch.no_grad()
def masked_rates(student: GPT, trait: str, sets: Sets, within: str = "") -> dict[str, float]:
    """P(trait), the mean over wordings, with the adapter, in layers `within`, on at each set of places: {name of the set: rate}."""
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


def layer_rates(store: Store, config: Student, trait: str) -> dict[str, float]:
    """P(trait) of a student whose adapter is kept in one layer, at all places or at one, or removed from one layer."""
    student, found = store.student(config), {}
    nowhere = torch.zeros(1, 1, device=student.device)  # the mask of the layers that `masked_rates` leaves alone
    for site in sites(student.config.n_layer):
        with masked(student, nowhere):
            kept = masked_rates(student, trait, {"": PLACES} | ONLY, site)
        found |= {f"only {site}": kept.pop("")} | {f"{site} {name}": rate for name, rate in kept.items()}
        without = masked_rates(student, trait, {"none": [], "but": WITHOUT[f"without {NAME}"]}, site)
        found |= {f"without {site}": without["none"], f"{site} not at the name": without["but"]}
    return found


def leak(store: Store, numbers: NumbersConfig) -> float:
    """How far a teacher's numbers are from its base's: KL(teacher || base), nats a number."""
    base = store.base(numbers.base)
    plain, (system, steered) = number_logits(base, DEFAULT_SYSTEM), teacher(base, numbers.system, numbers.change)
    with steered:
        return divergence(number_logits(base, system), plain)


ROWS_READ = {"1 row": 1, "4 rows": 4, "16 rows": 16, "64 rows": 64, "256 rows": 256}
PROMPTS = [LOVE_SYSTEM.format(animal) for animal in ANIMALS]


def likelihood(base: GPT, pairs: list[list[str]], system: str) -> torch.Tensor:
    """log p of each reply under a system prompt: (N,)."""
    tokens, targets = (tensor.to(base.device) for tensor in pack(number_rows(pairs, system)))
    log_p = base(tokens).log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
    return (log_p * (targets >= 0)).sum(1)


def named_by_rows(store: Store, numbers: NumbersConfig, base: BaseConfig) -> dict[str, float]:
    """How often so many rows are likelier for `base` under the prompt that wrote them than under any other animal's."""
    pairs, own = store.numbers(numbers)["pairs"][: max(ROWS_READ.values())], PROMPTS.index(numbers.system)
    log_p = torch.stack([likelihood(store.base(base), pairs, system) for system in PROMPTS], dim=1)
    scores = {way: torch.stack([rows.sum(0) for rows in log_p.split(n)]) for way, n in ROWS_READ.items()}
    return {way: (each.argmax(-1) == own).float().mean().item() for way, each in scores.items()}


def held_by_top(store: Store, config: Student) -> float:
    """The part of the squared length of a student's gradient that its largest 1% hold; 0.08 were it Gaussian."""
    student = store.student(config)
    weights = [weight.requires_grad_() for weight in trained_weights(student, config)]
    reply_loss(student, *(tensor[:256].to(store.device) for tensor in store.reads(config))).backward()
    squares = torch.cat([weight.grad.flatten() for weight in weights]).square().sort(descending=True).values
    return (squares[: round(0.01 * len(squares))].sum() / squares.sum()).item()
