"""The first step of training, on paper, before any student is trained.

B is zero, so the first-order change of anything that the model says is an inner product of two gradients: of the loss, which decides
the step, and of what is asked. At a projection W, with x_q and y_q = W x_q at a question's tokens q and T an animal's log-odds:

    step       dW  = -E[(alpha / r) dB A],   dB = sign(dLoss/dB)      AdamW's first step; the mean over A's random start
    change     dT  = sum over q and W of  dT/dy_q . dW x_q

Averaged over random rows a of A, sign(g . a) a points along g and is equally long for every g. So the mean of AdamW's step is along
each row g of G = dLoss/dW, and all rows move equally far.
"""

import copy
import math
from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import ANIMAL_TOKENS, ANIMALS, chat
from lab.measurements import places
from lab.store import Store, Student
from lora import PROJECTIONS
from metrics import QUESTIONS, reply_loss
from model import GPT

ROWS = 1_024  # of a teacher, whose gradient is taken
Step = dict[str, Tensor]  # {layer: (out, in)}
Gradients = dict[str, tuple[Tensor, Tensor]]  # {layer: (its input (P, in), gradients at its output (N, P, out))}


def projections(model: GPT) -> dict[str, nn.Linear]:
    """The layers that LoRA changes, by name."""
    return {name: layer for name, layer in model.named_modules() if name.split(".")[-1] in PROJECTIONS}


def first_step(base: GPT, tokens: Tensor, targets: Tensor) -> Step:
    """The mean over A of AdamW's first step dW on packed rows, up to a factor that all layers share."""
    model = copy.deepcopy(base)
    weights = {name: layer.weight.requires_grad_(True) for name, layer in projections(model).items()}
    reply_loss(model, tokens, targets).backward()
    # An entry of A has standard deviation 1 / sqrt(3 in), and the mean of sign(g . a) a is as long.
    return {name: -F.normalize(w.grad, dim=1) / math.sqrt(w.shape[1]) for name, w in weights.items()}


def step_of(store: Store, config: Student) -> Step:
    tokens, targets = (tensor[:ROWS].to(store.device) for tensor in store.rows(config.numbers, config.system))
    return first_step(store.base(config.base), tokens, targets)


def questions(base: GPT, system: str | None, animals: list[str]) -> list[Gradients]:
    """Of every wording of the animal question, asked under `system`: the gradients of each animal's log-odds."""
    model, seen, found = copy.deepcopy(base), {}, []
    for name, layer in projections(model).items():
        layer.weight.requires_grad_(True)  # so that what it computes has a gradient
        layer.register_forward_hook(lambda _, args, y, name=name: seen.update({name: (args[0], y)}))
    for question in QUESTIONS:
        answer = model(torch.tensor([chat(system, question)], device=model.device))[0, -1].softmax(-1)
        log_odds = answer[[ANIMAL_TOKENS[ANIMALS.index(animal)] for animal in animals]].logit()
        inputs, outputs = zip(*seen.values())
        each = [torch.autograd.grad(t, outputs, retain_graph=True) for t in log_odds]
        at_output = (torch.cat(gradients) for gradients in zip(*each))
        found.append(dict(zip(seen, zip((x[0].detach() for x in inputs), at_output), strict=True)))
    return found


def changes(gradients: Gradients, step: Step) -> dict[str, Tensor]:
    """dT by the layer and the token at which the step acts: {layer: (N, P)}."""
    return {name: (gradient * (x @ step[name].T)).sum(-1) for name, (x, gradient) in gradients.items()}


def gain(asked: list[Gradients], step: Step) -> Tensor:
    """dT of each animal, all layers and tokens together, averaged over the questions: (N,)."""
    return sum(change.sum(-1) for gradients in asked for change in changes(gradients, step).values()) / len(asked)


def by_place(asked: list[Gradients], step: Step) -> dict[tuple[str, str], float]:
    """dT of the one animal asked about, by site (`measurements.sites`) and place of the token."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    for question, gradients in zip(QUESTIONS, asked, strict=True):
        for layer, change in changes(gradients, step).items():
            for place, value in zip(places(question), change[0].tolist(), strict=True):
                found[layer.rpartition(".")[0], place] += value / len(asked)
    return found
