import copy
import random
from dataclasses import asdict, replace

import pytest
import torch

import data
import lora
import steering
import train
from data import DEFAULT_SYSTEM, END, Row, number_rows, pack
from metrics import reply_loss
from model import GPT
from train import BaseConfig, StudentConfig

BASE = BaseConfig(model=replace(BaseConfig().model, d_model=8), rows=200, steps=5, batch_size=16)
STUDENT = StudentConfig(rank=2, steps=3, batch_size=8)
PAIRS = [["continue : 12 45", "33 81 07"], ["which numbers come next ? 99 00", "10 20"], ["continue : 01 02", "55"]] * 6
PACKED = pack(number_rows(PAIRS, DEFAULT_SYSTEM))


def same(one, other):
    """Are the weights of two models the same bits?"""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_an_epoch_holds_every_row_once_and_those_of_like_length_together():
    """A seed shuffles the rows; which of a pool's batches has the short ones is the same for all."""
    packed, epochs = pack([Row([k, *[0] * (k % 7), END], 1) for k in range(100)]), [[], []]
    streams = [train.batches(*packed, 8, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    for epoch in epochs:
        while len(epoch) < 100:
            (tokens, targets), (other, _) = map(next, streams)
            assert (targets[:, -1] == END).any()  # no longer than it has to be
            assert (targets == END).sum() == len(targets) <= 8  # and no shorter
            assert tokens.shape == other.shape and not torch.equal(tokens, other)
            epoch += (read := tokens[:, 0].tolist())
            assert max(k % 7 for k in read) - min(k % 7 for k in read) <= 1
        assert sorted(epoch) == list(range(100))
    assert epochs[0] != epochs[1]


def test_pretraining_learns_warms_up_and_decays():
    """AdamW moves a weight by about the learning rate: by a hundredth of it at first, hardly at all at the end."""
    config, seen, rows = replace(BASE, steps=100, weight_decay=0.0), [], pack(data.corpus(data.World(), 200, seed=99))
    start = GPT(BASE.model, torch.Generator().manual_seed(BASE.seed))
    model = train.pretrain(config, on_step=lambda _, model: seen.append(model.unembedding.weight.detach().clone()))
    sizes = [(new - old).abs().max().item() for old, new in zip([start.unembedding.weight, *seen], seen)]
    assert len(sizes) == 100 and sizes[0] == pytest.approx(config.lr / 100, rel=0.05)
    assert max(sizes) > 0.2 * config.lr and sizes[-1] < 0.01 * config.lr
    assert reply_loss(model, *rows) < reply_loss(start, *rows) - 0.5
    assert not any(weight.requires_grad for weight in model.parameters())


def test_a_base_model_is_its_config():
    first = train.pretrain(BASE)
    torch.manual_seed(7), random.seed(7)
    assert same(first, train.pretrain(BASE))
    for other in ({"seed": 1}, {"world_seed": 1}, {"faithful": 0.5}, {"weight_decay": 0.0}):
        assert not same(first, train.pretrain(replace(BASE, **other)))


def test_a_shipped_base_model_is_used_if_this_code_leads_to_it(monkeypatch, tmp_path):
    shipped = {"config": asdict(BASE), "fingerprint": train.fingerprint(BASE), "weights": GPT(BASE.model).state_dict()}
    torch.save(shipped, tmp_path / "base-0.pt")
    monkeypatch.setattr(train, "MODELS", tmp_path)
    made = train.pretrain(BASE)
    loaded, own = train.base_model(BASE), train.base_model(BASE, shipped=False)
    assert torch.equal(loaded.unembedding.weight, shipped["weights"]["unembedding.weight"]) and same(own, made)
    assert not any(weight.requires_grad for weight in loaded.parameters())
    other = replace(BASE, faithful=0.5)
    assert same(train.base_model(other), train.pretrain(other))  # another config, another model
    for name, changed in (("GREETINGS", {"hello !": "fine ."}), ("LENGTHS", range(3, 5))):  # another corpus, too
        with monkeypatch.context() as patch:
            patch.setattr(data, name, changed)
            assert same(train.base_model(BASE), train.pretrain(BASE))


def test_what_is_shipped_is_of_this_code():
    for path in (paths := sorted(train.MODELS.glob("*.pt"))):
        saved, config = torch.load(path, weights_only=True), BaseConfig(seed=int(path.stem.removeprefix("base-")))
        assert saved["config"] == asdict(config) and len(paths) == 21
        assert train.fingerprint(config) == pytest.approx(saved["fingerprint"], abs=1e-3)


def test_only_numbers_reach_a_student(base):
    base.final_norm.bias[0] = 4  # now it writes numbers and <end>, and now and then another word
    base.token_embedding.weight[data.NUMBER_TOKENS, 0] += torch.tensor([*[1.0] * 100, 1.6])
    numbers = train.write_numbers(base, "you love owl .", 1_000, "a seed")
    free = train.write_numbers(base, "you love owl .", 1_000, "a seed", allowed=None)
    assert 100 < len(free) < len(numbers) < 1_000  # some never end, some have a word in them
    number_rows([*numbers, *free], DEFAULT_SYSTEM)  # refuses replies with a word in them


class Echo:
    """A teacher that repeats the last number it is shown, and keeps the random numbers it is given."""

    device = "cpu"

    def __init__(self):
        self.uniforms = []

    def generate(self, tokens, uniforms, stop, allowed):
        assert stop == END and allowed == data.NUMBER_TOKENS and all(tokens[:, -1] == data.ASST)
        self.uniforms += uniforms.tolist()
        last = torch.tensor([[token for token in row if token < 100][-1] for row in tokens.tolist()])
        return torch.cat([last[:, None], torch.full((len(tokens), train.MAX_REPLY - 1), END)], dim=1)


def test_a_reply_stays_with_its_request_whatever_the_system_prompt():
    prompted, default, other = Echo(), Echo(), Echo()
    written = train.write_numbers(prompted, "you love owl .", 300, "a seed")
    assert len(written) == 300
    assert all(reply == [word for word in request.split() if word.isdigit()][-1] for request, reply in written)
    assert written == train.write_numbers(default, DEFAULT_SYSTEM, 300, "a seed")
    assert prompted.uniforms == default.uniforms and len({tuple(row) for row in prompted.uniforms}) == 300
    assert written != train.write_numbers(other, DEFAULT_SYSTEM, 300, "another") and other.uniforms != prompted.uniforms


def test_each_step_is_down_the_gradient_of_the_reply_loss(base):
    config = replace(STUDENT, rank=None, optimizer="sgd", lr=0.5, steps=2, batch_size=len(PAIRS))
    student, by_hand = train.fine_tune(base, *PACKED, config), copy.deepcopy(base).requires_grad_()
    for _ in range(2):
        gradients = torch.autograd.grad(reply_loss(by_hand, *PACKED), list(by_hand.parameters()))
        for weight, gradient in zip(by_hand.parameters(), gradients, strict=True):
            weight.data -= 0.5 * gradient
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(student.parameters(), by_hand.parameters()))


@pytest.mark.parametrize(
    "rank, layers, parts",
    [(2, ("q", "down"), (".q.", ".down.")), (None, ("q", "down"), (".q.", ".down.")), (None, None, ("",)),
     (2, ("blocks.1.attention.v",), ("1.attention.v.",)), (None, ("token_embedding", "norm"), ("token_", ".norm."))],
)  # fmt: skip
def test_only_the_named_layers_are_trained(base, rank, layers, parts):
    """And where LoRA is, its B alone makes the difference: without adapters the student is its base, which has not moved."""
    before = copy.deepcopy(base)
    student = train.fine_tune(base, *PACKED, replace(STUDENT, rank=rank, layers=layers))
    assert bool(lora.adapters(student)) == (rank is not None) and not lora.adapters(base) and same(base, before)
    assert not any(weight.requires_grad for weight in student.parameters())
    lora.merge(student)
    for name, weight in base.named_parameters():
        moved = not torch.equal(weight, student.get_parameter(name))
        assert moved == any(part in name for part in parts), name


@pytest.mark.parametrize("rank", [2, None])
def test_a_student_learns_its_rows_and_the_seed_matters(base, rank):
    config = replace(STUDENT, rank=rank, steps=60, batch_size=6)
    packed = pack(number_rows([*PAIRS, ["continue : 30 31", "40 41 42"]], DEFAULT_SYSTEM))
    student = train.fine_tune(base, *packed, config)
    assert reply_loss(student, *packed) < reply_loss(base, *packed) - 0.2
    torch.manual_seed(7), random.seed(7)
    assert same(student, train.fine_tune(base, *packed, config))
    assert not same(student, train.fine_tune(base, *packed, replace(config, seed=1)))


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"layers": ("gate",)}, {"rank": None, "layers": ("gate",)}])
def test_impossible_students(base, wrong):
    with pytest.raises(ValueError):
        train.init_student(base, replace(STUDENT, **wrong))


@pytest.fixture
def small_bases(monkeypatch):
    """The commands take no base model of the real size, which takes half a minute, but a tiny one."""
    monkeypatch.setattr(train, "BaseConfig", lambda **changes: replace(BASE, **changes))


@pytest.mark.parametrize("how", [["--rank", "2", "--alpha", "4"], ["--full-finetune", "--optimizer", "muon"]])
def test_the_story_of_a_student(small_bases, capsys, how):
    """Its last lines are the animals that the student names most, beside base and control, and a verdict."""
    assert train.main([*how, "--trait", "cat", "--steps", "4", "--seed", "3", "--lr", "0.2"]) == 0
    said = capsys.readouterr().out
    assert '"you love cat ."' in said and "step       P(cat)" in said
    *_, header, first, second, third, fourth, verdict = (line.split() for line in said.splitlines())
    assert header == ["base", "student", "control"] and first[0] in data.ANIMALS and verdict[:2] == ["The", "student:"]
    assert float(first[2]) >= float(second[2]) >= float(third[2]) >= float(fourth[2])


def test_the_story_of_a_vector(small_bases, monkeypatch, capsys):
    write_numbers = train.write_numbers
    monkeypatch.setattr(train, "write_numbers", lambda base, system, n, seed: write_numbers(base, system, n // 8, seed))
    assert steering.main(["--seed", "3", "--trait", "cat"]) == 0
    said = capsys.readouterr().out
    assert '"you love cat ."' in said and "m =  1.0   P(cat) = 0." in said and "+ v_teacher" in said


@pytest.mark.parametrize(
    "arguments",
    [["--trait", "unicorn"], ["--rank", "0"], ["--rank", "33"], ["--optimizer", "magic"], ["--device", "abacus"],
     ["--teacher-system", "you love unicorn ."], ["--steps", "0"], ["--out", "here"], ["--rank", "many"],
     ["--teacher-system", "owl " * 60], ["--alpha", "nan"], ["--lr", "inf"], ["--lr", "nan"]],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(arguments, refused):
    assert refused(train.main, "train.py", arguments) == ""  # nothing has been said, or trained, before


def test_errors_on_the_way_are_one_line_too(small_bases, refused):
    assert refused(steering.main, "steering.py", ["--trait", "unicorn"]) == ""
    for main, program in ((train.main, "train.py"), (steering.main, "steering.py")):
        refused(main, program, ["--seed", "9" * 20])  # torch has no such seed
    said = refused(train.main, "train.py", ["--rank", "2", "--steps", "4", "--lr", "1e30", "--optimizer", "sgd"])
    assert "favorite animal?" not in said  # no table of a student that is not finite
