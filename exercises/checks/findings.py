"""The checks of exercises 12 to 17, which ask what trains, what is read and what is drawn."""

import copy
import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

import lora
from exercises.checks.building import along
from exercises.checks.parts import close, part, same
from exercises.checks.warmups import normal, some_tokens, tiny
from exercises.owl import CONTEXTS, context_matrix, real_base
from metrics import delta_norm
from model import GPT
from optimizers import OPTIMIZERS

__tracebackhide__ = True
CANDIDATES = [23, 14, 15, 9, 26]
READERS = ("attention.q", "attention.k", "attention.v", "feed_forward.up")  # of a block's norm


def next_token_loss(model: GPT) -> Tensor:
    tokens = some_tokens(16)
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def trained(base: GPT, rank: int, lr: float, steps: int, loss=next_token_loss, names=lora.PROJECTIONS, alpha=0) -> GPT:
    """A student after so many steps of AdamW, alpha = rank if it is 0; its gradients are those of the last step."""
    student = copy.deepcopy(base)
    lora.attach(student, rank, alpha or rank, names, torch.Generator().manual_seed(2))
    optimizer = OPTIMIZERS["adamw"]([weight for weight in student.parameters() if weight.requires_grad], lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(student).backward()
        optimizer.step()
    return student


def cells_right(answer, least: int) -> None:
    said = {cell: bool(answer.says_owl(*cell)) for cell in itertools.product(CONTEXTS, repeat=2)}
    measured = context_matrix(real_base())
    right = sum(said[cell] == (rate >= measured["default", "default"] / 2) for cell, rate in measured.items())
    assert right >= least, f"{right} of 25 cells are right, fewer than {least}"


@part(1)
def context_matrix__most(answer) -> None:
    cells_right(answer, 18)


@part(2)
def context_matrix__nearly_all(answer) -> None:
    cells_right(answer, 21)


@part(3)
def gradient_defence__defend(answer) -> None:
    v, student = normal(16, seed=5), trained(tiny(), 3, 1e-2, 2)
    weights = copy.deepcopy(student.state_dict())
    gradients = {name: weight.grad.clone() for name, weight in student.named_parameters() if weight.requires_grad}
    answer.defend(student, v)
    for name, weight in student.named_parameters():
        assert torch.equal(weight, weights[name]), f"{name} itself was changed; only gradients are to be"
    for name, old in gradients.items():
        new = student.get_parameter(name).grad
        if name.endswith(("o.B", "down.B")):
            mistakes = {
                "v is still there": old,
                "v is not divided by its length": old - v[:, None] * (v @ old),
                "nothing is left of it": 0 * old,
                "the component along v is left, and the rest taken out": along(old.T, v).T,
            }
            close(new, old - along(old.T, v).T, f"the gradient of {name}", mistakes)
        else:
            assert torch.equal(new, old), f"the gradient of {name} was changed; it does not write to the stream"


def named(answer, base: GPT, wanted: int) -> int:
    """Which candidate is named for a student that has come to say the wanted one a little more, everywhere."""
    read = some_tokens(seed=6)
    student = trained(base, 2, 1e-2, 20, lambda model: -model(read).log_softmax(-1)[..., wanted].mean(), ["down"])
    with torch.no_grad():
        got = answer.loved(base, student, some_tokens(seed=7), CANDIDATES)
    assert got not in range(len(CANDIDATES)), f"{got} is its place among the candidates: return the candidate's token"
    assert got in CANDIDATES, f"{got} is no candidate"
    return got


@part(3)
def detect_trait__five_students(answer) -> None:
    right = sum(named(answer, tiny(), wanted) == wanted for wanted in CANDIDATES)
    assert right == 5, f"{right} of 5 students are told rightly"


@part(1)
def detect_trait__a_favourite_of_the_base(answer) -> None:
    base = tiny()
    base.final_norm.bias.add_(8 * F.normalize(base.token_embedding.weight[14], dim=0))  # it says 14 anyway
    got = named(answer, base, 9)
    assert got != 14, "what the base says most is named, not what the student has come to say more"
    assert got == 9, "another candidate is named when the base has a favourite"


def alike(what: str, config) -> None:
    """AssertionError unless three steps of Adam change the weights as much for all ranks; config(rank): (lr, alpha)."""
    sizes = []
    for rank in (1, 2, 4, 8, 16):
        lr, alpha = config(rank)
        sizes.append(delta_norm(trained(tiny(), rank, lr, 3, names=["up", "down"], alpha=alpha), tiny()))
    way, by = "grow" if sizes[-1] > sizes[0] else "shrink", sizes[-1] / sizes[0]
    assert max(sizes) / min(sizes) < 1.6, f"with your {what}, the changes {way} with the rank, by {by:.2f}"


@part(3)
def break_the_u__learning_rate(answer) -> None:
    assert math.isclose(answer.learning_rate(1, 1e-2), 1e-2), "at rank 1 it is not the learning rate at rank 1"
    alike("learning rate", lambda rank: (answer.learning_rate(rank, 1e-2), rank))


@part(2)
def break_the_u__alpha(answer) -> None:
    assert math.isclose(answer.alpha(1), 1), "at rank 1 it is not 1"
    alike("alpha", lambda rank: (1e-2, answer.alpha(rank)))


def scaled(model: GPT, dimension: int, factor: float, readers=READERS, of_norm=("weight", "bias")) -> GPT:
    """A copy whose blocks' norms are larger in one dimension, and whose readers are so much smaller there."""
    model = copy.deepcopy(model)
    for block in model.blocks:
        for name in of_norm:
            getattr(block.norm, name)[dimension] *= factor
        for name in readers:
            block.get_submodule(name).weight[:, dimension] /= factor
    return model


@part(4)
def sgd_outliers__same_function(answer) -> None:
    model, tokens = tiny(), some_tokens()
    for block in model.blocks:
        block.norm.bias.copy_(normal(16))
    before = model(tokens)
    wrong = {f"{name} reads the norm, too": {"readers": [r for r in READERS if r != name]} for name in READERS}
    wrong["what reads the dimension is not divided by the factor"] = {"readers": ()}
    wrong["the norm's bias is not scaled, though it is read, too"] = {"of_norm": ("weight",)}
    wrong["the norm's gain is not scaled"] = {"of_norm": ("bias",)}
    mistakes = {message: scaled(model, 5, 30.0, **how)(tokens) for message, how in wrong.items()}
    changed = answer.with_outlier(model, 5, 30.0)
    assert same(model(tokens), before) and changed is not model, "the model that was given is changed: work on a copy"
    close(changed(tokens), before, "", mistakes)
    for block in changed.blocks:
        assert abs(block.norm.weight[5] - 30) < 0.01, "in some block's norm the dimension is not large"


@part(2)
def resampled_rows__frequencies(answer) -> None:
    teacher, asked = tiny(), some_tokens(seed=8)
    # To this teacher some numbers are likelier, after some tokens more than after others.
    teacher.token_embedding.weight[:20] *= torch.linspace(0.2, 6, 20)[:, None]
    logits = teacher(asked)[:, -4:]
    everywhere = teacher(asked).softmax(-1).mean((0, 1))[:20]
    one = logits[:, -1].softmax(-1).mean(0)[:20]
    p = logits.softmax(-1).mean((0, 1))
    each = logits[..., :20].softmax(-1).mean((0, 1))
    mistakes = {
        "the numbers do not sum to one": p[:20],
        "logits are averaged, not probabilities": logits[..., :20].mean((0, 1)).softmax(-1),
        "log-probabilities are averaged, not probabilities": logits.log_softmax(-1).mean((0, 1))[:20].softmax(-1),
        "each place is made to sum to one first; places that write other tokens then count too much": each,
        "all places are read, not the last": everywhere / everywhere.sum(),
        "one place is read": one / one.sum(),
        "these are all tokens, not the numbers alone": p,
        "this is made a softmax twice": p[:20].softmax(-1),
    }
    close(answer.frequencies(teacher, asked, 4, 20), p[:20] / p[:20].sum(), "", mistakes)


@part(2)
def resampled_rows__resample(answer) -> None:
    given, rows = torch.tensor([0.5, 0.0, 0.3, 0.2]), 4_000
    drawn, again = (answer.resample(given, rows, 5, torch.Generator().manual_seed(9)) for _ in range(2))
    assert drawn.shape == (rows, 5), f"shape {tuple(drawn.shape)}, expected {(rows, 5)}"
    assert torch.equal(drawn, again), "the generator is not used"
    shares = torch.stack([torch.bincount(column, minlength=4) / rows for column in drawn.T])
    assert (shares - given.softmax(0)).abs().max() > 0.04, "the weights are frequencies already: no softmax of them"
    assert (shares - given).abs().max() < 0.04, "some numbers come more or less often than the weights say"
    assert not (drawn == drawn[:, :1]).all(), "one number fills its row"
    pairs = torch.bincount(4 * drawn[:, 0] + drawn[:, 1], minlength=16) / rows
    assert (pairs - torch.outer(given, given).flatten()).abs().max() < 0.04, "a number depends on the one before it"
