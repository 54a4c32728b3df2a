"""The first step of training, on paper, before any student is trained.

In the first step B is zero, and the first-order change of anything that the model says is an inner product of two gradients: of the
loss, which decides the step, and of what is asked. At a projection W, with x_q and y_q = W x_q at the tokens q of a question and T
the log-odds of an animal:

    step       dW  = -E[(alpha / r) dB A],   dB = sign(dLoss/dB)      AdamW's first step; the mean over A's random start
    change     dT  = sum over q and W of  dT/dy_q . dW x_q

The mean over A: sign(G a) a, for a random row a of A, points on average along each row of G = dLoss/dW, whatever that row's length.
So AdamW with LoRA begins with the gradient, each of its rows made equally long.
"""

import copy
import math

import torch
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
    for layer in projections(model).values():
        layer.weight.requires_grad_(True)
    reply_loss(model, tokens, targets).backward()
    # An entry of A has standard deviation 1 / sqrt(3 in); the mean of sign(g . a) a is along g / |g|, as long as that.
    return {
        name: -nn.functional.normalize(layer.weight.grad, dim=1) / math.sqrt(layer.in_features)
        for name, layer in projections(model).items()
    }


def step_of(store: Store, config: Student) -> Step:
    """`first_step` of a student, before it is trained."""
    tokens, targets = (tensor[:ROWS].to(store.device) for tensor in store.rows(config.numbers, config.system))
    return first_step(store.base(config.base), tokens, targets)


def log_odds_gradients(base: GPT, prompt: list[int], animals: list[str]) -> Gradients:
    """Of each layer: its input at each token, (P, in), and the gradients of each animal's log-odds at its output, (N, P, out)."""
    model, seen = copy.deepcopy(base), {}
    for name, layer in projections(model).items():
        layer.weight.requires_grad_(True)  # so that what it computes has a gradient
        layer.register_forward_hook(lambda _, args, y, name=name: seen.update({name: (args[0], y)}))
    answer = model(torch.tensor([prompt], device=model.device))[0, -1].softmax(-1)
    log_odds = answer[[ANIMAL_TOKENS[ANIMALS.index(animal)] for animal in animals]].logit()
    each = [torch.autograd.grad(t, [y for _, y in seen.values()], retain_graph=True) for t in log_odds]
    return {
        name: (x[0].detach(), torch.stack([gradients[k][0] for gradients in each]))
        for k, (name, (x, _)) in enumerate(seen.items())
    }


def questions(base: GPT, system: str | None, animals: list[str]) -> list[Gradients]:
    """`log_odds_gradients` of every wording of the animal question, asked under `system`."""
    return [log_odds_gradients(base, chat(system, question), animals) for question in QUESTIONS]


def changes(gradients: Gradients, step: Step) -> dict[str, Tensor]:
    """dT by the layer and the token at which the step acts: {layer: (N, P)}."""
    return {name: (gradient * (x @ step[name].T)).sum(-1) for name, (x, gradient) in gradients.items()}


def gain(asked: list[Gradients], step: Step) -> Tensor:
    """dT of each animal, all layers and tokens together, averaged over the questions: (N,)."""
    return sum(change.sum(-1) for gradients in asked for change in changes(gradients, step).values()) / len(asked)


def by_place(asked: list[Gradients], step: Step) -> dict[tuple[str, str], float]:
    """dT of the one animal asked about, by site (`measurements.sites`) and place of the token."""
    found: dict[tuple[str, str], float] = {}
    for question, gradients in zip(QUESTIONS, asked, strict=True):
        for layer, change in changes(gradients, step).items():
            site = layer.rpartition(".")[0]
            for place, value in zip(places(question), change[0].tolist(), strict=True):
                found[site, place] = found.get((site, place), 0.0) + value / len(asked)
    return found
