"""The checks of exercises 7 to 11, which build what lora.py and steering.py have."""

import torch
import torch.nn.functional as F
from torch import Tensor

from exercises.checks.parts import close, part
from exercises.checks.warmups import normal, some_tokens, tiny
from steering import added

__tracebackhide__ = True


@part(3)
def lora_forward__y(answer) -> None:
    x, W, A, B = normal(2, 4, 6), normal(5, 6, seed=4), normal(3, 6, seed=5), normal(5, 3, seed=6)
    y, change = x @ W.T, x @ A.T @ B.T
    mistakes = {
        "alpha / r is missing": y + change,
        "r is missing": y + 12 * change,
        "alpha is missing": y + change / 3,
        "the width is taken for the rank": y + 12 / 6 * change,
        "W x is missing": 4 * change,
        "W x is scaled, too": 4 * (y + change),
        "the adapter's change is missing": y,
    }
    close(answer.lora_forward(x, W, A, B, 12.0), y + 4 * change, "", mistakes)
    for shape in ((6,), (3, 6), (2, 3, 4, 6)):
        x = normal(*shape)
        close(answer.lora_forward(x, W, A, 0 * B, 2.0), x @ W.T, f"B is zero and x has shape {shape}")


@part(1)
def lora_forward__count(answer) -> None:
    got = answer.trained_numbers(6, 5, 3)
    wrong = {30: "this is W, which is not trained", 63: "W is not trained", 18: "B is missing", 15: "A is missing"}
    assert got == 33, f"in 6, out 5, rank 3: {got} is not right; {wrong.get(got, 'count A and B')}"


@part(2)
def lora_merge__merge(answer) -> None:
    W, A, B = normal(5, 6, seed=4), normal(3, 6, seed=5), normal(5, 3, seed=6)
    change, given = B @ A, W.clone()
    mistakes = {
        "alpha / r is missing": W + change,
        "r is missing": W + 12 * change,
        "this is the change alone": 4 * change,
        "W is scaled, too": 4 * (W + change),
    }
    close(answer.merge(given, A, B, 12.0), W + 4 * change, "", mistakes)
    assert torch.equal(given, W), "W was changed in place: give back a new weight"


@part(1)
def lora_merge__rank(answer) -> None:
    for size in (1e-5, 1e4):
        old = normal(12, 9).float() / 100
        got = answer.rank_of_change(old, old + size * (normal(12, 2, seed=5) @ normal(2, 9, seed=6)).float())
        assert got != 9, f"a change of rank 2 and size {size}: {got}; does rounding count, or old?"
        assert got == 2, f"a change of rank 2 and size {size}: {got}. Large or small is meant beside the largest"


@part(1)
def lora_merge__cut(answer) -> None:
    change = normal(7, 5)
    U, S, V = torch.linalg.svd(change, full_matrices=False)
    mistakes = {
        "these are the smallest directions": U[:, -2:] * S[-2:] @ V[-2:],
        "the singular values are missing": U[:, :2] @ V[:2],
        "torch's svd gives V transposed already": U[:, :2] * S[:2] @ V.T[:2],
        "these are the first columns, not directions": F.pad(change[:, :2], (0, 3)),
    }
    close(answer.cut(change, 2), U[:, :2] * S[:2] @ V[:2], "cut to rank 2", mistakes)


@part(2)
def steering_hook__inside(answer) -> None:
    model, tokens, vector = tiny(), some_tokens(), normal(16)

    def said(layer: int, multiplier: float) -> Tensor:
        with added(model, {layer: vector}, multiplier):
            return model(tokens)

    for layer, multiplier in ((1, 2.0), (2, -1.0)):
        mistakes = {
            "nothing is changed: does the hook return something?": model(tokens),
            "another block is changed: layers count from 1": said(3 - layer, multiplier),
            "the multiplier is missing": said(layer, 1.0),
        }
        with answer.steered(copied := tiny(), layer, vector, multiplier):
            close(copied(tokens), said(layer, multiplier), f"after block {layer}", mistakes)


@part(2)
def steering_hook__after(answer) -> None:
    model, tokens = tiny(), some_tokens()
    before = model(tokens)
    with answer.steered(model, 1, normal(16)):
        model(tokens)
    assert torch.equal(model(tokens), before), "the hook is still there afterwards, or a weight was changed"
    try:
        with answer.steered(model, 2, normal(16)):
            raise KeyError
    except KeyError:
        assert torch.equal(model(tokens), before), "after an error inside, the hook is still there"
    else:
        raise AssertionError("an error inside does not come out: it must not be swallowed")


def along(h: Tensor, v: Tensor) -> Tensor:
    return (h @ v)[..., None] * v / (v @ v)


@part(2)
def projection__project_out(answer) -> None:
    h, v = normal(2, 4, 16), normal(16, seed=4)
    mistakes = {
        "v is not divided by its length": h - (h @ v)[..., None] * v,
        "v is divided by its length once; it stands in the formula twice": h - (h @ v)[..., None] * v / v.norm(),
        "this is the component; it is to be taken away": along(h, v),
    }
    close(answer.project_out(h, v), h - along(h, v), "", mistakes)


@part(2)
def projection__swap(answer) -> None:
    h, other, v = normal(2, 4, 16), normal(2, 4, 16, seed=5), normal(16, seed=4)
    mistakes = {
        "h keeps its own component as well": h + along(other, v),
        "nothing is put in the component's place": h - along(h, v),
        "h and other are the wrong way round": other - along(other, v) + along(h, v),
        "all of other is there": h - along(h, v) + other,
    }
    close(answer.swap(h, other, v), h - along(h, v) + along(other, v), "", mistakes)


@part(4)
def teacher_vector__values(answer) -> None:
    model, prompted, plain = tiny(), some_tokens(length=12), some_tokens(length=9, seed=3)
    one, other = (torch.stack(model.residual_stream(tokens)) for tokens in (prompted, plain))  # (L + 1, B, T, C)

    def difference(a: Tensor, b: Tensor) -> Tensor:
        return a.mean((1, 2)) - b.mean((1, 2))

    right = difference(one[:, :, -4:], other[:, :, -4:])
    mistakes = {
        "the sign is wrong": -right,
        "these are the first positions": difference(one[:, :, :4], other[:, :, :4]),
        "all positions are averaged": difference(one, other),
        "this is one position only": difference(one[:, :, -1:], other[:, :, -1:]),
        "the embedding, layer 0, is missing": right[1:],
        "the rows are not averaged": (one[:, :, -4:] - other[:, :, -4:]).mean(2),
        "the positions are not averaged": (one[:, :, -4:] - other[:, :, -4:]).mean(1),
        "this is the sum, not the mean": 32 * right,
        "the positions are not aligned at their ends": difference(one[:, :, 5:9], other[:, :, -4:]),
    }
    close(answer.vector(model, prompted, plain, 4), right, "", mistakes)
