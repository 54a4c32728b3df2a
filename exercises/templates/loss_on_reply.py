"""3. Loss on the reply only (20 minutes). `pack` of data.py and `reply_loss` of metrics.py do it with marked targets.

Question   A student reads a request and a reply. It is to learn to reply. Which predictions count?
Predict    Row 0 of a batch has a reply of 1 number, row 1 one of 5. Which number has more weight in the mean? And if a
           student of an owl lover's numbers were trained to predict the requests as well, would it love owls less?
Check      pytest FOLDER -k loss_on_reply, then python -m exercises show FOLDER loss_on_reply (ten seconds)
Go on      Base about 4 nats, trained on replies 3.3 to 3.6, and P(owl) 0.7 to 0.95. Then your prediction.
"""

import torch
from torch import Tensor

from exercises.owl import numbers_of, owl_line, student_of
from metrics import animal_rates


def loss_on_reply(logits: Tensor, tokens: Tensor, reply: Tensor, length: Tensor) -> Tensor:
    """The mean of -log p over all tokens of all replies of a batch, in nats: a scalar.

    Row i of tokens (B, T) has a prompt, from place reply[i] on its reply, which ends with <end> at place length[i] - 1,
    and then padding. The <end> of a reply counts. logits (B, T, V): those at place t are about the token at t + 1.
    """
    raise NotImplementedError("your code here")


def show(base) -> None:
    def loss(model, tokens: Tensor, targets: Tensor, whole: bool = False) -> Tensor:
        replied = targets >= 0  # at the places before a reply's tokens
        reply, length = replied.int().argmax(1) + 1, tokens.shape[1] + 1 - replied.flip(1).int().argmax(1)
        return loss_on_reply(model(tokens), tokens, torch.ones_like(reply) if whole else reply, length)

    rows = numbers_of(base)
    students = student_of(base, rows, loss), student_of(base, rows, lambda *batch: loss(*batch, whole=True))
    for name, model in zip(("the base model", "trained on replies", "on requests and replies"), (base, *students)):
        owl_line(f"{name}: {loss(model, *rows):.2f} nats", animal_rates(model))
