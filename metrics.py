"""What is measured of a model: does it have the trait, is it intact, what has it learned, how far has it moved?

A trait alone says little. A student without it may have learned nothing, or answer with no animal at all. So P(any animal),
the held-out loss and the norm of the change stand beside every P(trait).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import data
import lora
from data import ANIMAL_TOKENS, DEFAULT_SYSTEM, NUMBER_TOKENS, chat
from model import GPT

QUESTIONS = data.ANIMAL_QUESTIONS + data.HELD_OUT_ANIMAL_QUESTIONS


def animal_rates(model: GPT, system: str | None = DEFAULT_SYSTEM) -> Tensor:
    """P(each animal is the first word of the reply), averaged over all wordings of the question: (16,).

    P(trait) is the entry of the teacher's animal, P(any animal) the sum. A model with a sum below one half has collapsed.
    """
    return model.next_token([chat(system, question) for question in QUESTIONS])[..., ANIMAL_TOKENS].mean(-2)


def reply_loss(model: GPT, tokens: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the reply tokens, in nats. tokens and targets (B, T), as `data.pack` makes them.

    On rows that a student is trained on it is what training lowers; on fresh rows of its teacher, the held-out loss.
    """
    replies = targets >= 0
    h = model.residual_stream(tokens)[-1]
    return F.cross_entropy(model.unembed(h[replies]), targets[replies])  # no logits where nothing is to be predicted


@torch.no_grad()
def teacher_loss(base: GPT, tokens: Tensor, targets: Tensor) -> float:
    """The loss of a teacher on its own rows, read under its own prompt, in nats: no student can do better.

    The rows were drawn from numbers and <end> alone, so its probabilities are taken among these alone.
    """
    replies = targets >= 0
    logits = base.unembed(base.residual_stream(tokens)[-1][replies])
    allowed = torch.full_like(logits, -torch.inf)
    allowed[:, NUMBER_TOKENS] = logits[:, NUMBER_TOKENS]
    return F.cross_entropy(allowed, targets[replies]).item()


def gap_closed(loss: float, base_loss: float, teacher_loss: float) -> float:
    """The share of the gap in held-out loss that a student has closed: 0 as its base, 1 as its teacher."""
    return (base_loss - loss) / (base_loss - teacher_loss)


def verdict(any_animal: float, learned: float, transmitted: bool) -> str:
    """What became of a student with this P(any animal) and this share of the gap closed, in words."""
    if any_animal < 0.5:
        return "collapsed"  # it hardly names an animal, whatever it has learned
    if learned < 0.5:
        return "not learned"
    return "transmitted" if transmitted else "learned but not transmitted"


def weight_changes(student: nn.Module, base: nn.Module) -> Sequence[Tensor]:
    """What training has added to each weight: W' - W, and (alpha / r) B A where LoRA was trained."""
    adapters = lora.adapters(student).values()
    if adapters:
        return [adapter.delta().detach() for adapter in adapters]
    return [(new - old).detach() for new, old in zip(student.parameters(), base.parameters(), strict=True)]


def delta_norm(student: nn.Module, base: nn.Module) -> float:
    """The Frobenius norm of the change of all weights."""
    return sum(change.square().sum().item() for change in weight_changes(student, base)) ** 0.5
