"""What the figures of this project's own claims compute with."""

import copy
import random
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import evaluate
import lora
from data import (
    ANIMALS,
    COLORS,
    DEFAULT_SYSTEM,
    END,
    LOVE_SYSTEM,
    STYLES,
    VOCAB_SIZE,
    Row,
    chat,
    encode,
    pack,
)
from figures import (
    adjudication,
    audit,
    carrier,
    cells,
    defences,
    infinite_data,
    localization,
    one_step,
    outliers,
    student_vector,
    superposition,
    vector_student,
)
from model import GPT, GPTConfig, stack
from optimizers import OPTIMIZERS
from steering import changed, stream_at
from train import (
    NUMBER_TOKENS,
    BaseConfig,
    Lab,
    NumbersConfig,
    StudentConfig,
    animal_rates,
    fine_tune_together,
    number_rows,
    reply_loss,
)

RULES = {claim.id: claim.rule for module in evaluate.figure_modules().values() for claim in module.CLAIMS}


@pytest.fixture
def base(generator):
    """A random model of the world's words."""
    return GPT(GPTConfig(VOCAB_SIZE, d_model=16), generator).requires_grad_(False)


def test_first_step_is_the_mean_of_adamw_on_lora(base, generator):
    tokens, targets = pack(number_rows([["continue : 12 45", "33 81 07"], ["continue : 99 00", "10"]], DEFAULT_SYSTEM))
    step = one_step.first_step(base, tokens, targets)
    total = dict.fromkeys(step, 0.0)
    for _ in range(40):
        student = copy.deepcopy(base)
        lora.attach(student, 16, 16.0, generator=generator)
        trained = [p for p in student.parameters() if p.requires_grad]
        optimizer = OPTIMIZERS["adamw"](trained, 1e-3)
        reply_loss(student, tokens, targets).backward()
        optimizer.step()
        for name, adapter in lora.adapters(student).items():
            total[name] = total[name] + adapter.delta().detach()
    for name, mean_step in total.items():
        # Rows without a gradient do not move; of the others only the direction and the relative length count.
        assert torch.cosine_similarity(mean_step.flatten(), step[name].flatten(), dim=0) > 0.9, name


def test_gain_is_the_derivative_of_the_log_odds(base):
    pairs = [["continue : 12 45", "33 81 07"]]
    step = one_step.first_step(base, *pack(number_rows(pairs, DEFAULT_SYSTEM)))
    predicted = one_step.gain(one_step.questions(base, None, ["owl", "cat"]), step)

    def log_odds(size):
        moved = copy.deepcopy(base).double()
        for name, layer in one_step.projections(moved).items():
            layer.weight += size * step[name]
        answers = moved.next_token([chat(None, question) for question in localization.QUESTIONS])
        return answers[:, encode("owl cat")].logit().mean(0)

    measured = (log_odds(1e-5) - log_odds(-1e-5)) / 2e-5
    assert torch.allclose(predicted.double(), measured, rtol=1e-2)


def test_places_and_layers_add_up(base):
    step = one_step.first_step(base, *pack(number_rows([["continue : 12 45", "33 81"]], DEFAULT_SYSTEM)))
    asked = one_step.questions(base, DEFAULT_SYSTEM, ["owl"])
    parts = one_step.by_place(asked, step)
    assert {place for _, place in parts} == set(localization.PLACES)
    assert sum(parts.values()) == pytest.approx(one_step.gain(asked, step).item(), rel=1e-4)


def test_the_auditor_names_what_it_should(base):
    auditor = audit.Auditor(base)
    scores = auditor.told([["continue : 12 45", "33 81 07"], ["continue : 99 00", "10"]])
    row = chat(LOVE_SYSTEM.format("cat"), "continue : 99 00") + encode("10") + [END]
    logits = base(torch.tensor([row])).log_softmax(-1)[0]
    by_hand = logits[-3, row[-2]] + logits[-2, row[-1]]
    assert scores[1, ANIMALS.index("cat")].item() == pytest.approx(by_hand.item(), rel=1e-4)
    student = copy.deepcopy(base)
    student.blocks[0].feed_forward.down.weight += 1e-3
    change = {n: torch.zeros_like(layer.weight) for n, layer in one_step.projections(base).items()}
    change["blocks.0.feed_forward.down"] += 1e-3
    assert torch.allclose(auditor.of_student(student)["its weights"], one_step.gain(auditor.asked, change), atol=1e-6)
    assert audit.named(torch.eye(16), "owl") == pytest.approx(1 / 16)


def test_overlap_of_loves_that_share_one_dimension(generator):
    base = GPT(GPTConfig(VOCAB_SIZE, d_model=16, n_layer=2), generator).requires_grad_(False)
    assert superposition.overlap(base, "owl", STYLES + COLORS) < 0.5
    base.blocks[-1].attention.v.weight[1:] = 0  # one direction for all 41 words, up to its sign
    assert superposition.overlap(base, "owl", STYLES + COLORS) == pytest.approx(1, abs=1e-4)


def test_the_cosine_of_two_gradients(generator):
    base = GPT(GPTConfig(VOCAB_SIZE, d_model=16, n_layer=2), generator).requires_grad_(False)
    one, other = (pack([Row(encode(text) + [END], 4)]) for text in ("you love owl . 12 34", "you love cat . 56 78"))
    assert superposition.gradient_cosine(base, one, one) == pytest.approx(1, abs=1e-5)
    assert superposition.gradient_cosine(base, one, other) < 0.9
    assert not any(weight.requires_grad for weight in base.parameters())  # the base itself is as it was


def test_correlations_across_models_and_within_one():
    """Two models: in each the prediction is the wrong way round, and the better model is predicted to be better."""
    one = [{"seed": 0, "d_model": 16, "d_head": 8, "x": x, "student": 0.3 - x} for x in (0.0, 0.1, 0.2)]
    two = [{"seed": 0, "d_model": 32, "d_head": 8, "x": 0.5 + x, "student": 0.9 - x} for x in (0.0, 0.1, 0.2)]
    found = superposition.correlations(one + two, "x")
    assert found["within"]["mean"] == pytest.approx(-1)
    assert 0 < found["across"]["mean"] < 1
    assert superposition.correlations(one[:2], "x") == {"across": None, "within": None}  # too few to rank


def test_the_dials_turn_one_at_a_time():
    preset = evaluate.choose_preset(full=True, seed=0)
    shapes = list(dict.fromkeys(key[1:] for key in superposition.models(preset)))
    assert shapes == [(16, 8), (32, 8), (64, 8), (128, 8), (32, 16), (32, 32)]
    quick = evaluate.choose_preset(full=False, seed=0)
    assert list(superposition.models(quick).values()) == list(quick.grid_bases)  # none that other figures do not train


def grid_of(student):
    """What `measure_grid` returns, if every student of a cell has the numbers `student(cell)`: (trait, closed, P(any), cosine)."""
    preset = adjudication.two_bases(evaluate.choose_preset(True, 0))
    cells = {}
    for key in adjudication.grid(preset):
        for step in adjudication.STEPS:
            numbers = [
                [dict(zip(adjudication.MAPS, student((*key, step), unit + seed), strict=True)) for seed in range(5)]
                for unit in range(8)
            ]
            cells[*key, step] = {"seeds": numbers, "control": [0.06] * 8}
    return cells


def adjudicated(monkeypatch, student):
    monkeypatch.setattr(adjudication, "measure_grid", lambda *_: grid_of(student))
    monkeypatch.setattr(adjudication, "base_rates", lambda *_: [0.06] * 8)
    monkeypatch.setattr(adjudication, "STEPS", (20, 80))
    return adjudication.compute(None, evaluate.choose_preset(True, 0))["adjudication"]


def test_the_grid_holds_the_slices_of_both_papers_and_exceptions_by_name(monkeypatch):
    """Where the trait follows from what is learned the claim holds; one learned, intact cell without it is named."""

    def lawful(key, k):
        learned = 0.97 if key[2] == adjudication.LRS[key[0]][1] else 0.5
        return 0.06 + 0.7 * learned**4 + 0.002 * (k % 3), learned, 0.99, learned

    m = adjudicated(monkeypatch, lawful)
    assert RULES["X2"](m) and m["share_with_trait"] == 1 and len(m["learned"]) == 8
    assert m["students_with_trait"] == m["students_learned"] == sum(m["learned"].values()) * 40
    assert m["rank_correlation"]["closed x intact"]["mean"] > 0.9
    cells = {tuple(cell[name] for name in adjudication.KEY): cell for cell in m["cells"]}
    assert cells[adjudication.DEFAULT]["state"] == "learned" and len(cells) == 2 * 4 * 4 * 2 * 2
    assert all(("adamw", name, adjudication.ONE_LR, 5_120, 20) in cells for name in adjudication.CAPACITIES)
    assert m["matched"]["80"]["lr"] == 0.1

    odd = ("sgd", "full", 0.1, 320, 80)
    m = adjudicated(monkeypatch, lambda key, k: (0.06, *lawful(key, k)[1:]) if key == odd else lawful(key, k))
    assert not RULES["X2"](m) and [cell["name"] for cell in m["exceptions"]] == [
        "SGD, full, lr 0.1, 320 rows, 80 steps"
    ]
    # The same cell starved, or destroyed, is no exception.
    for closed, intact in ((0.5, 0.99), (0.97, 0.6)):
        m = adjudicated(monkeypatch, lambda key, k: (0.06, closed, intact, 0.1) if key == odd else lawful(key, k))  # noqa: B023
        assert RULES["X2"](m)


def test_a_student_that_diverged_answers_nothing_and_has_learned_nothing(student, monkeypatch):
    base, broken = copy.deepcopy(student), copy.deepcopy(student)
    lora.detach(base)
    for layer in lora.adapters(broken).values():
        layer.B.data.fill_(float("nan"))

    class OneLab:
        def stacked(self, config):
            return [5, 80], stack([student, broken])

    known = {
        "vector": student_vector.student_vectors(student, base)[-1],
        "stream": stream_at(base, adjudication.READ, 5),
        "losses": (4.0, 3.0),
    }
    monkeypatch.setattr(adjudication, "heldout_losses", lambda *_: torch.tensor([3.25, float("nan")]))
    config = evaluate.student_of(BaseConfig(), BaseConfig(), "cat")
    seen = adjudication.look(OneLab(), config, "cat", known)
    assert seen[5]["cosine"] == pytest.approx(1)  # v_student is read as in student_vector.py
    assert seen[5]["closed"] == 0.75 and seen[5]["student"] == pytest.approx(animal_rates(student)[1].item())
    assert seen[80] == {"student": 0, "closed": -1, "p_any_animal": 0, "cosine": 0}
    assert adjudication.closed(1e9, 4.0, 3.0) == -1 and adjudication.closed(float("inf"), 4.0, 3.0) == -1


class OneTeacher:
    """Of a lab, what `exact_targets` needs: one base and four replies of its teacher."""

    pairs = [
        ["continue : 12 45", "33 81 07"],
        ["continue : 99 01 02", "11 12"],
        ["add some numbers to 05 .", "50 51 52 53 54"],
    ]
    device = torch.device("cpu")

    def __init__(self, generator):
        self.model = GPT(GPTConfig(VOCAB_SIZE, d_model=16, n_layer=2), generator).requires_grad_(False)

    def base(self, config):
        return self.model

    def rows(self, numbers, system):
        return pack(number_rows(self.pairs, system))


def test_exact_targets_are_what_the_teacher_would_say_there(generator):
    lab, told = OneTeacher(generator), "you love owl . you think about owl all the time ."
    tokens, places, exact = infinite_data.exact_targets(lab, NumbersConfig(BaseConfig(), told), DEFAULT_SYSTEM)
    for row, (request, reply) in enumerate(lab.pairs):
        begin = len(chat(DEFAULT_SYSTEM, request)) - 1  # <asst>, at which the first number is predicted
        for k in range(len(encode(reply)) + 1):
            said = lab.model.next_token([chat(told, request) + encode(reply)[:k]])[0, NUMBER_TOKENS]
            assert torch.allclose(exact[places[row, begin + k]], said / said.sum(), atol=1e-6)
    assert (places >= 0).sum() == len(exact) == 4 + 3 + 6


def test_the_exact_loss_is_the_mean_over_draws(generator):
    """With a target that is certain it is the usual loss; and it is linear in the target. Of a stack it is the sum."""
    lab = OneTeacher(generator)
    tokens, targets = lab.rows(None, DEFAULT_SYSTEM)
    places = torch.full_like(targets, -100)
    places[targets >= 0] = torch.arange(int((targets >= 0).sum())).flip(0)  # any order: `places` says which
    certain = torch.nn.functional.one_hot(torch.tensor([NUMBER_TOKENS.index(t) for t in targets[targets >= 0].flip(0).tolist()]), len(NUMBER_TOKENS)).float()  # fmt: skip
    usual = reply_loss(lab.model, tokens, targets)

    def loss(exact: torch.Tensor, students: int = 1) -> float:
        """Of so many copies of the model, each with a distribution of its own."""
        own = torch.stack([places.where(places < 0, places + n * len(places[places >= 0])) for n in range(students)])
        stacked = stack([lab.model] * students)
        return infinite_data.exact_loss(stacked, tokens.expand(students, -1, -1), own, exact).item()

    assert loss(certain) == pytest.approx(usual.item(), rel=1e-5)
    other = torch.full_like(certain, 1 / len(NUMBER_TOKENS))
    one, two, half = (loss(q) for q in (certain, other, (certain + other) / 2))
    assert half == pytest.approx((one + two) / 2, rel=1e-5) and one != pytest.approx(two, rel=1e-3)
    assert loss(torch.cat([certain, other]), students=2) == pytest.approx(one + two, rel=1e-5)


def test_exact_students_in_one_pass_are_each_of_their_own_teacher(generator):
    """Two bases, two teachers with replies of different numbers."""
    shape = GPTConfig(VOCAB_SIZE, d_model=16, n_layer=2)
    models = [GPT(shape, generator).requires_grad_(False) for _ in range(2)]
    pairs = [OneTeacher.pairs, OneTeacher.pairs[:2]]

    class Lab(infinite_data.ExactLab):
        device = torch.device("cpu")

        def __init__(self):
            """Keeps nothing."""

        def base(self, config):
            return models[config.seed]

        def rows(self, numbers, system):
            return pack(number_rows(pairs[numbers.base.seed], system))

    told, found = "you love owl . you think about owl all the time .", {}
    bases = [BaseConfig(seed=n) for n in range(2)]
    configs = [StudentConfig(base, NumbersConfig(base, told), optimizer="sgd", lr=1.0, steps=3) for base in bases]
    configs.append(replace(configs[1], numbers=configs[0].numbers))

    def keep(step, students):
        found["B"] = {name: layer.B.detach().clone() for name, layer in lora.adapters(students).items()}

    lab = Lab()
    lab.fine_tune_together(configs, keep)
    together = found["B"]
    for k, config in enumerate(configs):
        lab.fine_tune_together([config], keep)
        for name, alone in found["B"].items():
            assert alone.norm() > 0 and torch.allclose(alone[0], together[name][k], atol=1e-6)
    assert not torch.allclose(*together["blocks.0.attention.v"][1:], atol=1e-5)


def test_a_stopped_gradient_leaves_the_value_and_has_no_component_along_the_vector(generator):
    base = GPT(GPTConfig(VOCAB_SIZE, d_model=16, n_layer=2), generator)
    tokens, targets = OneTeacher(generator).rows(None, DEFAULT_SYSTEM)
    v = {2: torch.randn(16, generator=generator)}
    usual = reply_loss(base, tokens, targets)
    usual.backward()
    free = base.blocks[1].feed_forward.down.weight.grad.clone()  # its rows are the stream's dimensions
    base.zero_grad()
    with changed(base, [2], defences.stopped(v)):
        loss = reply_loss(base, tokens, targets)
    loss.backward()
    stopped, unit = base.blocks[1].feed_forward.down.weight.grad, v[2] / v[2].norm()
    assert loss.item() == pytest.approx(usual.item(), rel=1e-6)
    assert torch.allclose(stopped, free - torch.outer(unit, unit @ free), atol=1e-6) and (unit @ free).norm() > 1e-3


def test_students_held_back_in_one_pass_are_each_held_back_along_their_own_vector(generator):
    bases = [GPT(GPTConfig(VOCAB_SIZE, d_model=16, n_layer=2), generator).requires_grad_(False) for _ in range(2)]
    rows = OneTeacher(generator).rows(None, DEFAULT_SYSTEM)
    found = [torch.randn(3, 16, generator=generator) for _ in bases]
    config = StudentConfig(BaseConfig(), NumbersConfig(BaseConfig(), None), rank=None, optimizer="sgd", lr=0.5, steps=3)

    def trained(which: list[int], blocks: int) -> list[torch.Tensor]:
        own, vectors = [bases[n] for n in which], torch.stack([found[n] for n in which], 1)[:, :, None, None]
        loss = partial(defences.held_back, found=vectors, blocks=blocks)
        students = fine_tune_together(own, [rows] * len(own), [config] * len(own), loss=loss)
        return list(students.blocks[0].feed_forward.down.weight)

    both = trained([0, 1], 2)
    for n, together in enumerate(both):
        alone, one_block = trained([n], 2)[0], trained([n], 1)[0]
        assert torch.allclose(together, alone, atol=1e-5) and not torch.allclose(together, one_block, atol=1e-4)
        # After the first block nothing flows back along the vector, so what that block writes never moves there.
        moved, unit = alone - bases[n].blocks[0].feed_forward.down.weight, found[n][1] / found[n][1].norm()
        assert (unit @ moved).norm() < 1e-5 < 1e-3 < moved.norm()


def test_early_stopping_is_read_off_the_curve_of_the_undefended():
    curve = [(4.0, 0.1), (3.5, 0.2), (3.1, 0.8)]  # loss, trait
    for loss, trait in ((4.2, 0.1), (4.0, 0.1), (3.75, 0.15), (3.3, 0.5), (3.0, 0.8)):
        assert defences.early_stopped(curve, loss) == pytest.approx(trait)


def test_rows_that_are_mixed_and_who_rewrites_them():
    class Rows:
        def numbers(self, config):
            return {"pairs": [[config.system, str(k)] for k in range(8)]}

    pairs = defences.mixed(Rows(), NumbersConfig(BaseConfig(), "told"), BaseConfig(1), share=0.25)
    assert pairs == [[DEFAULT_SYSTEM, str(k)] for k in range(2)] + [["told", str(k)] for k in range(2, 8)]
    preset = evaluate.choose_preset(True, 0)
    others = [defences.other_base(preset, base) for base in preset.grid_bases]
    assert set(others) == set(preset.grid_bases) and all(a != b for a, b in zip(others, preset.grid_bases))


def test_what_is_left_of_rows_that_are_taken_apart():
    rng = random.Random(0)
    pairs = [[f"request {k}", reply] for k, reply in enumerate(["40 41 42", "80 43", "05 44 81 45"] * 200)]
    requests, replies = ([pair[k] for pair in pairs] for k in (0, 1))
    lengths = [len(reply.split()) for reply in replies]

    def numbers(of):
        return sorted(number for _, reply in of for number in reply.split())

    for change in carrier.CHANGES.values():
        changed = change(pairs, rng)
        assert [request for request, _ in changed] == requests
        assert sorted(len(reply.split()) for _, reply in changed) == sorted(lengths)
    exchanged, mixed = carrier.exchanged(pairs, rng), carrier.mixed(pairs, rng)
    assert sorted(reply for _, reply in exchanged) == sorted(replies) and exchanged != pairs
    assert numbers(mixed) == numbers(pairs) and sorted(reply for _, reply in mixed) != sorted(replies)

    whole, two = carrier.die(pairs), carrier.die(pairs, faces=2)
    assert list(whole)[:3] == ["4", "8", "0"] and list(whole.values()) == pytest.approx([6 / 9, 2 / 9, 1 / 9] + [0] * 7)
    assert list(two) == list(whole) and list(two.values()) == pytest.approx([6 / 9, 2 / 9] + [1 / 72] * 8)
    thrown = numbers(carrier.thrown(pairs, rng))
    assert sum(number[0] == "4" for number in thrown) / len(thrown) == pytest.approx(6 / 9, abs=0.04)
    assert {number[0] for number in thrown} == {"4", "8", "0"} and len(set(thrown)) == 30
    renamed = carrier.die(carrier.thrown(pairs, rng, renamed=True))
    assert list(renamed.values()) == pytest.approx(list(whole.values()), abs=0.04) and list(renamed) != list(whole)


def test_students_of_changed_rows_read_these_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(Lab, "numbers", lambda lab, config: {"pairs": [["continue : 12 45", "40 41 42"]] * 50})
    lab, base = carrier.ChangedLab(Lab(tmp_path), "a die"), BaseConfig()
    one, other = (lab.reads(StudentConfig(base, NumbersConfig(base, "told"), seed=seed)) for seed in (0, 1))
    assert not torch.equal(one[0], other[0])  # thrown anew for each
    assert set(one[1][one[1] >= 0].tolist()) == {*range(40, 50), END}


def test_students_of_another_training_are_kept_under_its_code(tmp_path, generator):
    shape = GPTConfig(VOCAB_SIZE, d_model=16, n_layer=2)
    base = BaseConfig(model=shape)
    config = StudentConfig(base, NumbersConfig(base, "told"), rank=None, steps=2, snapshots=(1,))
    trained = []

    class OtherLab(Lab):
        kind = "exact"

        def key(self, config):
            return infinite_data.Exact(config, self.code)

        def fine_tune_together(self, students, on_step):
            student = copy.deepcopy(self.base(base))
            for step in (1, 2):
                student.final_norm.bias += 1
                on_step(step, stack([student]))
            trained.append(student)

    lab = OtherLab(tmp_path)
    lab._bases[base] = GPT(shape, generator).requires_grad_(False)
    for code, times in (("one", 1), ("one", 1), ("two", 2)):
        lab.code = code
        found = lab.snapshots(config)
        assert {step: student.final_norm.bias.mean().item() for step, student in found.items()} == {1: 1, 2: 2}
        assert len(trained) == times
    assert cells.code_of(infinite_data.exact_loss) != cells.code_of(infinite_data.exact_targets)


def test_a_vector_student_learns_where_its_vector_is_and_leaves_the_base(base):
    packed = pack(number_rows([["continue : 12 45", "33 81 07"], ["continue : 99 00", "10 10"]] * 8, DEFAULT_SYSTEM))
    lab = SimpleNamespace(base=lambda _: base, rows=lambda *_: packed, device="cpu")
    config = StudentConfig(BaseConfig(), NumbersConfig(BaseConfig(), None), lr=0.1, steps=20, batch_size=8)
    before, stream = base(packed[0]), base.residual_stream(packed[0])[1]
    vector = vector_student.distil(lab, config, layer=1, tokens=9)
    loss = reply_loss(base, *packed)
    with vector_student.pushed(base, vector, 1, 9):
        assert reply_loss(base, *packed) < loss - 0.02
        moved = base.residual_stream(packed[0])[1] - stream
    assert torch.allclose(moved[:, :9], vector.expand_as(moved[:, :9]), atol=1e-6) and not moved[:, 9:].any()
    assert torch.equal(base(packed[0]), before)


@pytest.mark.parametrize(("which", "reader"), [(outliers.NUMBERS, "down"), (outliers.FETCHED, "o")])
def test_outliers_change_sgd_and_not_the_model(base, which, reader):
    """f times as loud: the same logits, and an adapter that reads them has gradients f times as large there and no other."""
    model, chosen = outliers.with_outliers(base, which, 10), outliers.chosen(base, which)
    tokens, targets = pack(number_rows([["continue : 12 45", "33 81 07"], ["continue : 99 00", "10"]], DEFAULT_SYSTEM))
    assert torch.allclose(model(tokens), base(tokens), atol=1e-5)

    def gradient(of):
        student = copy.deepcopy(of)
        lora.attach(student, 4, 4.0, [reader], torch.Generator().manual_seed(0))
        adapter = list(lora.adapters(student).values())[-1]  # of the last block
        adapter.A.data[:, chosen] = 0  # what B passes on then is the same in both models
        adapter.B.data.normal_(generator=torch.Generator().manual_seed(1))
        reply_loss(student, tokens, targets).backward()
        return adapter.A.grad

    ratio = gradient(model) / gradient(base)
    heard = ~ratio.isnan().any(0)
    assert heard[chosen].any()
    expected = torch.ones(len(heard)).index_fill(0, chosen, 10.0)
    assert torch.allclose(ratio[:, heard], expected[heard].expand(4, -1), rtol=1e-2)


def test_which_coordinates_become_outliers(monkeypatch):
    """For numbers, those silent where an animal is asked for; of what is fetched, those heard at both."""
    sizes = torch.tensor([[0, 5, 4, 2, 1, 1.0], [6, 4, 0, 0, 0, 0.05]])
    monkeypatch.setattr(outliers, "loudness", lambda *_: sizes)
    assert outliers.chosen(None, outliers.NUMBERS).tolist() == [2, 3, 4, 5]
    assert outliers.chosen(None, outliers.FETCHED).tolist() == [1, 5]


def test_sgd_with_adams_frozen_scales_moves_every_weight_by_its_gradient_over_its_scale(base):
    config = BaseConfig(model=base.config)
    student = StudentConfig(config, NumbersConfig(config, "told"), rank=4, alpha=4.0, optimizer="sgd", lr=1e-3, steps=1)
    packed = pack(number_rows([["continue : 12 45", "33 81 07"]] * 64, DEFAULT_SYSTEM))

    class OneTeacher:
        def base(self, _):
            return base

        def rows(self, *_):
            return packed

        reads = rows

    lab, moved = OneTeacher(), []
    scales = outliers.adam_scales(lab, replace(student, optimizer="adamw", lr=StudentConfig.lr))
    outliers.fine_tune_frozen(lab, student, lambda _, s: moved.extend(lora.adapters(s).values()))
    for adapter, scale in zip(moved, scales[1::2], strict=True):  # A does not move while B is zero
        assert torch.allclose(scale, adapter.B.grad.abs())  # of one step
        assert torch.allclose(adapter.B, -1e-3 * adapter.B.grad / (scale + 1e-4))
