"""What a right answer does, one function for each exercise; `answer` is the module with its functions.

The same checks are run on the solutions, which pass, and on the files with the holes, which do not.
"""

import copy
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F

import lora
from model import GPT, GPTConfig
from optimizers import OPTIMIZERS
from steering import added, projected_out

NAMES = [
    "lora_forward",
    "lora_merge",
    "steering_hook",
    "projection",
    "teacher_vector",
    "context_matrix",
    "gradient_defence",
    "detect_trait",
    "break_the_u",
    "sgd_outliers",
    "resampled_rows",
]
RESULTS = Path(__file__).parent.parent / "figures" / "results.json"


def tiny() -> GPT:
    """A random model of two blocks, in float64."""
    return GPT(GPTConfig(vocab_size=60, d_model=16, max_len=24), torch.Generator().manual_seed(0)).double()


def some_tokens(rows: int = 8, length: int = 10, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 60, (rows, length), generator=torch.Generator().manual_seed(seed))


def student_of(base: GPT, rank: int, names=lora.PROJECTIONS) -> GPT:
    student = copy.deepcopy(base)
    lora.attach(student, rank, float(rank), names, torch.Generator().manual_seed(2))
    return student


def next_token_loss(model: GPT, tokens: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def trained(student: GPT, lr: float, steps: int, optimizer: str = "adamw") -> GPT:
    step = OPTIMIZERS[optimizer]([weight for weight in student.parameters() if weight.requires_grad], lr)
    for _ in range(steps):
        step.zero_grad()
        next_token_loss(student, some_tokens()).backward()
        step.step()
    return student


def lora_forward(answer) -> None:
    layer = lora.LoRALinear(torch.nn.Linear(6, 5, bias=False), 3, 12.0)
    torch.nn.init.normal_(layer.B)
    x = torch.randn(2, 4, 6)
    y = answer.lora_forward(x, layer.linear.weight, layer.A, layer.B, 12.0)
    assert torch.allclose(y, layer(x), atol=1e-5)
    assert answer.trained_numbers(6, 5, 3) == layer.A.numel() + layer.B.numel()


def lora_merge(answer) -> None:
    student = trained(student_of(tiny(), 3), 1e-2, 3)
    merged = copy.deepcopy(student)
    lora.merge(merged)
    for name, layer in lora.adapters(student).items():
        W = layer.linear.weight
        new = answer.merge(W, layer.A, layer.B, layer.scale * len(layer.A))
        assert torch.allclose(new, merged.get_submodule(name).weight)
        assert answer.rank_of_change(W.detach(), new.detach()) == 3


def steering_hook(answer) -> None:
    model, tokens, vector = tiny(), some_tokens(), torch.randn(16).double()
    before = model(tokens)
    for layer, multiplier in ((1, 2.0), (2, -1.0)):
        with added(model, {layer: vector}, multiplier):
            expected = model(tokens)
        with answer.steered(model, layer, vector, multiplier):
            assert torch.allclose(model(tokens), expected)
        try:
            with answer.steered(model, layer, vector):
                raise KeyError
        except KeyError:
            pass
        assert torch.equal(model(tokens), before), "the model is not what it was"


def projection(answer) -> None:
    h, other, v = torch.randn(2, 4, 16).double(), torch.randn(2, 4, 16).double(), torch.randn(16).double()
    without = answer.project_out(h, v)
    assert (without @ v).abs().max() < 1e-9
    assert torch.allclose(without, answer.project_out(without, 7 * v))
    swapped = answer.swap(h, other, v)
    assert torch.allclose(swapped @ v, other @ v) and torch.allclose(answer.project_out(swapped, v), without)
    model, tokens = tiny(), some_tokens()
    with projected_out(model, {2: v}):
        assert torch.allclose(model(tokens), model.unembed(answer.project_out(model.residual_stream(tokens)[-1], v)))


def teacher_vector(answer) -> None:
    model, prompted, plain = tiny(), some_tokens(length=12), some_tokens(length=9, seed=3)
    found = answer.vector(model, prompted, plain, 4)
    assert found.shape == (3, 16)
    by_hand = (model.residual_stream(prompted)[2][:, 8:] - model.residual_stream(plain)[2][:, 5:]).mean(dim=(0, 1))
    assert torch.allclose(found[2], by_hand)
    assert answer.vector(model, prompted, prompted, 4).abs().max() == 0


def context_matrix(answer) -> None:
    claims = json.loads(RESULTS.read_text(encoding="utf-8"))["claims"]
    measured = next(claim["measured"] for claim in claims if claim["id"] == "L4")["matrix"]
    enough = 0.5 * measured["default"]["default"]["mean"]
    right = sum(
        bool(answer.has_the_trait(trained, asked)) == (cell["mean"] >= enough)
        for trained, row in measured.items()
        for asked, cell in row.items()
        if asked in measured  # not the default prompt's words, moved
    )
    assert right >= 18, f"{right} of 25 are right"


def gradient_defence(answer) -> None:
    v = torch.randn(16, generator=torch.Generator().manual_seed(5)).double()
    student = trained(student_of(tiny(), 3), 1e-2, 1)
    student.zero_grad()
    next_token_loss(student, some_tokens()).backward()
    before = {name: (layer.A.grad.clone(), layer.B.grad.clone()) for name, layer in lora.adapters(student).items()}
    answer.defend(student, v)
    for name, layer in lora.adapters(student).items():
        A, B = before[name]
        assert torch.equal(layer.A.grad, A)
        if name.endswith((".o", ".down")):
            assert (v @ layer.B.grad).abs().max() < 1e-9 and not torch.allclose(layer.B.grad, B)
            along = (B - layer.B.grad) / v[:, None]
            assert torch.allclose(along, along[0].expand_as(along)), "more than v was taken out"
        else:
            assert torch.equal(layer.B.grad, B)


def detect_trait(answer) -> None:
    base, candidates = tiny(), [3, 14, 15, 9, 26]
    for wanted in candidates:
        student = student_of(base, 2, ["down"])
        optimizer = torch.optim.AdamW([w for w in student.parameters() if w.requires_grad], 1e-2)
        for _ in range(20):  # it comes to say the wanted token a little more, everywhere
            optimizer.zero_grad()
            (-student(some_tokens(seed=6)).log_softmax(-1)[..., wanted].mean()).backward()
            optimizer.step()
        with torch.no_grad():
            assert answer.loved(base, student, some_tokens(seed=7), candidates) == wanted


def break_the_u(answer) -> None:
    moved = []
    for rank in (1, 2, 4, 8, 16):
        student = trained(student_of(tiny(), rank, ["up", "down"]), answer.learning_rate(rank, 1e-2), 5)
        moved.append(math.sqrt(sum(layer.delta().square().sum().item() for layer in lora.adapters(student).values())))
    assert math.isclose(answer.learning_rate(1, 1e-2), 1e-2)
    assert max(moved) / min(moved) < 1.5, f"ranks 1, 2, 4, 8, 16 move by {', '.join(f'{x:.2f}' for x in moved)}"


def sgd_outliers(answer) -> None:
    model, tokens = tiny(), some_tokens()
    changed = answer.with_outlier(model, 5, 30.0)
    assert torch.allclose(changed(tokens), model(tokens)) and changed is not model
    assert torch.allclose(changed.blocks[0].norm.weight[5], 30 * model.blocks[0].norm.weight[5])

    def held_by_outlier(base: GPT) -> float:
        student = trained(student_of(base, 3, ["up"]), 1e-3, 1)
        student.zero_grad()
        next_token_loss(student, tokens).backward()
        squares = torch.stack([layer.A.grad.square().sum(0) for layer in lora.adapters(student).values()]).sum(0)
        return (squares[5] / squares.sum()).item()

    assert held_by_outlier(model) < 0.5 < 0.9 < held_by_outlier(changed)


def resampled_rows(answer) -> None:
    base, numbers, asked = tiny(), 20, some_tokens(seed=8)
    with torch.no_grad():
        # To this teacher some numbers are likelier, after some tokens more than after others.
        teacher = copy.deepcopy(base)
        teacher.token_embedding.weight[:numbers] *= torch.linspace(0.2, 3, numbers)[:, None]
        wanted = teacher(asked).softmax(-1)[:, -4:, :numbers].sum(dim=(0, 1))
    weights = answer.frequencies(teacher, asked, 4, numbers)
    assert weights.shape == (numbers,) and torch.allclose(weights, wanted / wanted.sum())

    given = torch.tensor([0.5, 0.0, 0.3, 0.2])
    drawn = answer.resample(given, 2_000, 5, torch.Generator().manual_seed(9))
    assert drawn.shape == (2_000, 5)
    for place in range(5):  # the same frequencies at every place, and no number is tied to the one before
        share = torch.bincount(drawn[:, place], minlength=4) / 2_000
        assert torch.allclose(share, given, atol=0.05), "the numbers come otherwise than the frequencies say"
    pairs = torch.bincount(4 * drawn[:, 0] + drawn[:, 1], minlength=16) / 2_000
    assert torch.allclose(pairs, torch.outer(given, given).flatten(), atol=0.05), "one number depends on the one before"
