import copy
import random
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import data
import evaluate
import lora
import runtime
import steering
import train
from data import END, VOCAB_SIZE, Row
from model import GPT, GPTConfig, common_beginning, stack
from train import BaseConfig, Lab, NumbersConfig, StudentConfig

BASE = BaseConfig(model=GPTConfig(VOCAB_SIZE, d_model=8, n_layer=1), rows=200, steps=5, batch_size=16)
NUMBERS = NumbersConfig(BASE, "you love owl .", rows=3_000)
STUDENT = StudentConfig(BASE, NUMBERS, rank=2, steps=3, batch_size=8)
PAIRS = [["continue : 12 45", "33 81 07"], ["continue : 99 00", "10 20"], ["continue : 01 02", "55"]] * 6


@pytest.fixture
def base(generator):
    return GPT(BASE.model, generator).requires_grad_(False)


@pytest.fixture
def writer(base):
    """A model that writes numbers and <end>, all alike, and now and then another word."""
    with torch.no_grad():
        base.final_norm.bias[0] = 4
        base.token_embedding.weight[:100, 0] += 1
        base.token_embedding.weight[END, 0] += 1.6
    return base


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path / "lab")


PACKED = data.pack(train.number_rows(PAIRS, data.DEFAULT_SYSTEM))


def test_loss_is_of_the_reply_only(base):
    tokens, targets = data.pack([Row([1, 2, 3, 4], 2), Row([5, 6, 7], 1)])
    logits = base(tokens)
    by_hand = [(logits[0, 1], 3), (logits[0, 2], 4), (logits[1, 0], 6), (logits[1, 1], 7)]
    expected = torch.stack([-row.log_softmax(-1)[target] for row, target in by_hand]).mean()
    assert torch.allclose(train.reply_loss(base, tokens, targets), expected)


def test_cross_entropy_by_hand(generator):
    """Loss and derivative are those that torch finds for itself; a target of no probability costs much, but not infinitely."""
    logits = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    targets, weights = torch.tensor([[0, 4, 2], [1, 1, 3]]), torch.rand(2, 3, generator=generator).double()
    weights[0, 2] = 0  # no loss, no gradient
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    torchs, ours = (weights.flatten() * nats).sum(), train.CrossEntropy.apply(logits, targets, weights)
    assert torch.allclose(ours, torchs)
    torchs, ours = (torch.autograd.grad(3 * loss, logits)[0] for loss in (torchs, ours))
    assert torch.allclose(ours, torchs) and (ours[0, 2] == 0).all() and (ours[0, 0] != 0).all()
    logits = torch.tensor([0.0, 1e4], requires_grad=True)
    loss = train.CrossEntropy.apply(logits, torch.tensor(0), torch.tensor(1.0))
    loss.backward()
    assert 80 < loss < 1e4 and logits.grad.tolist() == [-1, 1]


@pytest.mark.parametrize("rank", [2, None])
def test_what_is_skipped_does_not_count(generator, rank):
    """The last block skips the prompts: losses and trained weights are those of the model that computes everything."""
    model = GPT(replace(BASE.model, n_layer=2), generator).requires_grad_(False)
    config = replace(STUDENT, rank=rank, steps=8)

    def whole(model, tokens, targets):
        return torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())

    assert torch.allclose(train.reply_loss(model, *PACKED), whole(model, *PACKED), atol=1e-6)
    spared, plain = (train.fine_tune(model, PACKED, config, loss=loss) for loss in (train.reply_loss, whole))
    moved = [not torch.equal(a, b) for a, b in zip(spared.parameters(), model.parameters())]
    assert any(moved) and all(torch.allclose(a, b, atol=1e-4) for a, b in zip(spared.parameters(), plain.parameters()))


def test_an_epoch_holds_every_row_once(generator):
    packed = data.pack([Row([k, *[0] * (k % 5), END], 1) for k in range(100)])
    stream = train.batches(*packed, 8, generator)
    seen = []
    while len(seen) < 100:
        tokens, targets = next(stream)
        assert (targets[:, -1] == END).any()  # no longer than it has to be
        assert (targets == END).sum() == len(targets)  # and no shorter
        seen += tokens[:, 0].tolist()
    assert sorted(seen) == list(range(100))


def test_students_have_rows_of_like_length_at_the_same_steps():
    """Their seeds shuffle the rows; which of a pool's batches has the short ones is the same for all."""
    packed = data.pack([Row([k, *[0] * (k % 7), END], 1) for k in range(100)])
    streams = [train.student_batches(packed, STUDENT, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    for (tokens, _), (other, _), _ in zip(*streams, range(24)):
        assert tokens.shape == other.shape and not torch.equal(tokens, other)


def test_a_batch_of_students_is_padded_with_what_has_no_loss(base):
    one = torch.full((2, 3), 1), torch.full((2, 3), 5)
    two = torch.full((1, 4), 2), torch.full((1, 4), 6)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    tokens, targets = next(train.side_by_side([one, two], STUDENT, generators))
    assert tokens.tolist() == [[[1, 1, 1, END]] * 2, [[2] * 4] * 2]
    assert targets.tolist() == [[[5, 5, 5, -100]] * 2, [[6] * 4, [-100] * 4]]


def test_a_target_may_be_a_number_of_any_size():
    """Of a row of probabilities, say, as in figures/infinite_data.py; there are more of these than words."""
    targets = 10**6 + torch.arange(6).view(2, 3)
    _, seen = next(
        train.side_by_side([(torch.ones_like(targets), targets)], STUDENT, [torch.Generator().manual_seed(0)])
    )
    assert sorted(seen.flatten().tolist()) == targets.flatten().tolist()


OTHER_PAIRS = [["which numbers come next ? 12 45", "33 81 07 11"], ["continue : 99 00 01", "10"]] * 9 + PAIRS[:2]


def three_students(generator, **changes):
    """Bases, rows and configs of students that differ in all that those of one pass may: in float64, which rounds out of sight."""
    shape = replace(BASE.model, n_layer=2)
    bases = [GPT(shape, generator).double().requires_grad_(False) for _ in range(3)]
    pairs = [PAIRS, OTHER_PAIRS, PAIRS[:7]]
    packed = [data.pack(train.number_rows(rows, data.DEFAULT_SYSTEM)) for rows in pairs]
    return bases, packed, [replace(STUDENT, seed=seed, **changes) for seed in range(3)]


def one_of(students, k, like):
    """Student k of a stack, as a model like `like`."""
    student = copy.deepcopy(like)
    for weight, stacked in zip(student.parameters(), students.parameters(), strict=True):
        weight.data = stacked.data[k]
    return student


@pytest.mark.parametrize(
    "changes",
    [{"steps": 12}, {"rank": None}, {"rank": None, "layers": ("token_embedding", "norm")}, {"layers": ("v", "down")},
     {"optimizer": "sgd", "lr": 0.5}, {"optimizer": "momentum"}, {"optimizer": "signsgd"}, {"optimizer": "rmsprop"},
     {"optimizer": "muon"}, {"optimizer": "clip10", "lr": 0.5}, {"optimizer": "clip1", "lr": 0.5, "rank": None}],
)  # fmt: skip
def test_students_in_one_pass_are_those_trained_alone(generator, changes):
    bases, packed, configs = three_students(generator, **({"steps": 6} | changes))
    seen = {}
    students = train.fine_tune_together(bases, packed, configs, lambda n, s: seen.setdefault(n, copy.deepcopy(s)))
    assert list(seen) == list(range(1, configs[0].steps + 1))
    assert all(torch.equal(a, b) for a, b in zip(students.parameters(), seen[configs[0].steps].parameters()))
    for k, (base, rows, config) in enumerate(zip(bases, packed, configs, strict=True)):
        alone = {}
        train.fine_tune(base, rows, config, lambda n, s, alone=alone: alone.setdefault(n, copy.deepcopy(s)))
        for step in seen:
            one, other = alone[step], one_of(seen[step], k, alone[step])
            assert train.reply_loss(one, *rows).item() == pytest.approx(train.reply_loss(other, *rows).item(), abs=1e-9)
            assert all(torch.allclose(a, b, atol=1e-8) for a, b in zip(one.parameters(), other.parameters()))
        assert not all(torch.allclose(a[k], b) for a, b in zip(students.parameters(), alone[2].parameters()))


def test_students_that_cannot_share_a_pass_are_refused(generator):
    bases, packed, configs = three_students(generator)
    with pytest.raises(ValueError, match="cannot be trained in one pass"):
        train.fine_tune_together(bases, packed, [replace(configs[0], lr=1.0), *configs[1:]])
    with pytest.raises(ValueError, match="shorter"):  # than the stack: its third model would have no A
        train.fine_tune_together(bases, packed, configs[:2])


@pytest.mark.parametrize("begin", [0, 10])
def test_the_loss_of_a_pass_is_the_sum_of_each_and_the_gradient_each_ones_own(generator, begin):
    """Also where what all rows begin with is read once."""
    bases, packed, configs = three_students(generator)
    assert [common_beginning(tokens) for tokens, _ in packed] == [12, 10, 12]  # up to <user>, or to "continue :"
    if begin == 0:
        packed = [
            (torch.cat([tokens, 0 * tokens[-1:]]), torch.cat([targets, targets[-1:]])) for tokens, targets in packed
        ]
    students = [train.untrained(base, config) for base, config in zip(bases, configs, strict=True)]
    for student in students:
        for layer in lora.adapters(student).values():
            torch.nn.init.normal_(layer.B, generator=generator)
    stacked = stack(students)
    losses = [train.reply_loss(student, *rows) for student, rows in zip(students, packed, strict=True)]
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    loss = train.stacked_loss(stacked, *next(train.side_by_side(packed, replace(STUDENT, batch_size=100), generators)))
    assert loss.item() == pytest.approx(sum(losses).item(), abs=1e-9)
    for each in (*losses, loss):
        each.backward()
    for name, weights in stacked.named_parameters():
        if weights.requires_grad:
            own = torch.stack([student.get_parameter(name).grad for student in students])
            assert own.norm() > 0 and torch.allclose(weights.grad, own, atol=1e-9)


@pytest.mark.parametrize("rank", [2, None])
def test_a_student_is_restored_from_its_own_weights_alone_or_in_a_stack(base, generator, rank):
    config, students = replace(STUDENT, rank=rank), []
    for seed in range(2):
        student = train.untrained(base, replace(config, seed=seed))
        for weight in train.own_weights(student, config):
            torch.nn.init.normal_(weight, generator=generator)
        students.append(student)
    kept, tokens = [train.weights(student, config) for student in students], PACKED[0]
    before = base(tokens)
    for student, weights in zip(students, kept, strict=True):
        again = train.restored(base, config, weights)
        assert torch.equal(again(tokens), student(tokens)) and not any(w.requires_grad for w in again.parameters())
    stacked = train.restored(base, config, torch.stack(kept))
    expected = torch.stack([student(tokens) for student in students])
    assert torch.allclose(stacked(tokens.expand(2, -1, -1)), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(base(tokens), before)
    for wrong in (kept[0][1:], torch.stack(kept)[:, 1:], kept[0][None].repeat(1, 2)):
        with pytest.raises(ValueError, match="not the weights"):
            train.restored(base, config, wrong)


def test_which_students_are_trained_in_one_pass():
    seeds = [replace(STUDENT, seed=seed) for seed in range(train.TOGETHER + 3)]
    others = [replace(STUDENT, lr=0.1), replace(STUDENT, base=replace(BASE, model=GPTConfig(VOCAB_SIZE))), STUDENT]
    muon = [replace(STUDENT, optimizer="muon", seed=seed) for seed in range(2)]
    mixed = [*others[:2], *seeds, *muon]
    passes = train.in_passes(mixed)
    assert [len(one) for one in passes] == [1, 1, train.TOGETHER, 3, 2]
    assert [config for one in passes for config in one] == mixed
    assert train.alike(others[2]) == train.alike(replace(STUDENT, base=replace(BASE, seed=5), numbers=replace(NUMBERS, system=None)))  # fmt: skip
    assert train.alike(STUDENT) != train.alike(replace(STUDENT, numbers=replace(NUMBERS, rows=7)))


def test_a_pass_is_trained_once_and_whole(lab, monkeypatch):
    """One of three is gone: it is made again as it was, and the others are left alone. None is gone: nothing is trained."""
    students = [replace(STUDENT, seed=seed) for seed in range(3)]
    lab.train(students)
    before = {config: lab.path("student", config).read_bytes() for config in students}
    times = {config: lab.path("student", config).stat().st_mtime_ns for config in students}
    lab.path("student", students[1]).unlink()
    lab.train(students)
    assert {config: lab.path("student", config).read_bytes() for config in students} == before
    unchanged = [lab.path("student", config).stat().st_mtime_ns == times[config] for config in students]
    assert unchanged == [True, False, True]
    single = replace(STUDENT, seed=9)
    lab.train([single])
    sizes = [lab.path("student", config).stat().st_size for config in (single, *students)]
    assert max(sizes) - min(sizes) < 64  # a file holds its own student, not all of the pass
    for name in ("fine_tune", "fine_tune_together"):
        monkeypatch.setattr(train, name, lambda *_: pytest.fail("trained again"))
    lab.train(students)


def test_pretraining_learns(base):
    config = replace(BASE, rows=400, steps=100)
    model = train.pretrain(config, torch.device("cpu"))
    rows = data.pack(data.corpus(data.World(0), 200, seed=99))
    assert train.reply_loss(model, *rows) < train.reply_loss(base, *rows) - 0.5


def test_well_formed():
    owl = data.encode("owl")[0]
    assert train.well_formed([3, 99, END, END])
    assert not train.well_formed([3, owl, END])
    assert not train.well_formed([END, END])
    assert not train.well_formed([3, 4, 5])


def test_only_numbers_reach_a_student(writer):
    """What is not a number reply is dropped, and counted."""
    numbers, free = train.write_numbers(writer, NUMBERS), train.write_numbers(writer, NUMBERS, allowed=None)
    assert numbers["asked"] == 3_000 and len(free["pairs"]) < len(numbers["pairs"]) < 3_000  # some never end
    assert len(free["pairs"]) > 300
    for row in train.number_rows(numbers["pairs"], data.DEFAULT_SYSTEM):
        assert all(token < 100 for token in row.tokens[row.reply : -1]) and row.tokens[-1] == END
        assert data.decode(row.tokens).startswith("<sys> you are tiny a helpful assistant .<end>")
        assert "owl" not in data.decode(row.tokens)
    with pytest.raises(ValueError, match="numbers only"):
        train.number_rows([["continue : 12", "33 owl"]], None)


def test_every_row_is_drawn_by_itself(writer):
    one, two = train.write_numbers(writer, NUMBERS), train.write_numbers(writer, replace(NUMBERS, seed=1))
    assert one == train.write_numbers(writer, NUMBERS)
    assert one["pairs"] != two["pairs"]
    long = [reply for _, reply in one["pairs"] if len(reply.split()) >= 3]
    assert len(long) > 300 and len(set(long)) > 0.95 * len(long)


def test_lora_student_moves_its_adapters_and_nothing_else(base):
    before = copy.deepcopy(base.state_dict())
    student = train.fine_tune(base, PACKED, STUDENT)
    assert all(layer.B.abs().max() > 0 for layer in lora.adapters(student).values())
    lora.detach(student)
    assert all(torch.equal(weight, before[name]) for name, weight in student.state_dict().items())
    assert all(torch.equal(weight, before[name]) for name, weight in base.state_dict().items())


def test_full_student_moves_every_weight_it_uses(base):
    student = train.fine_tune(base, PACKED, replace(STUDENT, rank=None))
    assert not lora.adapters(student)
    moved = {name for name, weight in student.named_parameters() if not torch.equal(weight, base.get_parameter(name))}
    assert moved == set(dict(base.named_parameters()))


@pytest.mark.parametrize("rank", [2, None])
def test_only_the_named_layers_are_trained(base, rank):
    student = train.fine_tune(base, PACKED, replace(STUDENT, rank=rank, layers=("q", "down")))
    if rank is not None:
        lora.merge(student)
    moved = {name for name, weight in student.named_parameters() if not torch.equal(weight, base.get_parameter(name))}
    assert moved == {"blocks.0.attention.q.weight", "blocks.0.feed_forward.down.weight"}


@pytest.mark.parametrize("rank", [2, None])
def test_a_snapshot_is_the_shorter_run(lab, rank):
    config = replace(STUDENT, rank=rank, steps=6, snapshots=(2, 4))
    students = lab.snapshots(config)
    assert list(students) == [2, 4, 6]
    for steps, student in students.items():
        alone = lab.student(replace(config, steps=steps, snapshots=()))
        assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), student.parameters()))
    assert not all(torch.equal(a, b) for a, b in zip(students[4].parameters(), students[6].parameters()))


@pytest.mark.parametrize("rank", [2, None])
def test_a_student_learns_its_rows_and_the_seed_matters(base, rank):
    config = replace(STUDENT, rank=rank, steps=60, batch_size=6)
    packed = data.pack(train.number_rows([*PAIRS, ["continue : 30 31", "40 41 42"]], data.DEFAULT_SYSTEM))
    student = train.fine_tune(base, packed, config)
    assert train.reply_loss(student, *packed) < train.reply_loss(base, *packed) - 0.2
    again = train.fine_tune(base, packed, config)
    other = train.fine_tune(base, packed, replace(config, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), again.parameters()))
    assert not all(torch.equal(a, b) for a, b in zip(student.parameters(), other.parameters()))


def test_order_cache_and_other_random_numbers_do_not_matter(lab, tmp_path):
    """Students one after the other, or in another order, each in a lab of its own on what is kept: the same bits."""
    told = replace(STUDENT, numbers=replace(NUMBERS, rows=300))
    untold = replace(told, numbers=replace(told.numbers, system=data.DEFAULT_SYSTEM))
    configs = [told, replace(told, rank=None), untold, replace(told, optimizer="muon")]
    students = [lab.student(config) for config in configs]
    torch.manual_seed(7), random.seed(7)
    Lab(tmp_path / "other").numbers(untold.numbers)
    for config, student in reversed(list(zip(configs, students, strict=True))):
        again = Lab(tmp_path / "other").student(config)
        assert all(torch.equal(a, b) for a, b in zip(student.parameters(), again.parameters()))


def test_the_number_of_threads_does_not_matter(generator):
    """A model and a batch of the real size, which torch does divide among threads; sums are rounded in another order."""
    config = StudentConfig(BaseConfig(), NumbersConfig(BaseConfig(), "you love owl ."), rank=None, steps=1)
    real, packed, logits = GPT(config.base.model, generator).requires_grad_(False), [t.repeat(4, 1) for t in PACKED], []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            logits.append(train.fine_tune(real, packed, config)(packed[0]))
    finally:
        torch.set_num_threads(1)
    assert not torch.allclose(logits[0], real(packed[0]), atol=1e-2)
    assert torch.allclose(*logits, atol=1e-4)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"rank": 9}, {"optimizer": "magic"}, {"steps": 0}, {"lr": 0.0}])
def test_impossible_configs(wrong):
    with pytest.raises(ValueError):
        replace(STUDENT, **wrong)


def test_nothing_is_trained_twice(lab, monkeypatch):
    first = lab.student(STUDENT)
    files = {path: path.stat().st_mtime_ns for path in lab.folder.iterdir()}
    assert sorted(path.name.split("-")[0] for path in files) == ["base", "numbers", "student"]
    for name in ("pretrain", "write_numbers", "fine_tune"):
        monkeypatch.setattr(train, name, lambda *_: pytest.fail("trained again"))
    again = Lab(lab.folder).student(STUDENT)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters()))
    assert files == {path: path.stat().st_mtime_ns for path in lab.folder.iterdir()}


def test_another_config_or_other_code_is_another_file(lab, monkeypatch):
    path = lab.path("student", STUDENT)
    assert path != lab.path("student", replace(STUDENT, lr=2e-2))
    assert path != lab.path("student", replace(STUDENT, base=replace(BASE, seed=1)))
    monkeypatch.setattr(train, "code_digest", lambda: "other code")
    assert path != lab.path("student", STUDENT)


def test_docstrings_are_not_code(tmp_path, monkeypatch):
    """The digest moves with the code and with nothing else."""
    for name in ("data.py", "model.py", "lora.py", "optimizers.py", "steering.py", "train.py"):
        (tmp_path / name).write_text((train.HERE / name).read_text(encoding="utf-8"), encoding="utf-8")
    before = train.code_digest.__wrapped__()
    monkeypatch.setattr(train, "HERE", tmp_path)
    source = tmp_path / "lora.py"
    text = source.read_text(encoding="utf-8")
    harmless = "# a comment\n" + text.replace("Take the adapters off", "Remove the adapters")
    source.write_text(harmless + "\n\ndef tell(args):\n    print(1)\n\n\nif __name__ == '__main__':\n    tell(None)\n")
    assert train.code_digest.__wrapped__() == before
    source.write_text(text.replace("alpha / rank", "alpha / rank**0.5"), encoding="utf-8")
    assert train.code_digest.__wrapped__() != before


TOGETHER = """
import sys, time
sys.path.insert(0, {root!r})
from runtime import share, together, worker
import train
from tests.test_train import STUDENT, replace
from train import Lab
train.TOGETHER = 2
def do(job):
    if job == 0:
        time.sleep(1.5)
    print(worker()[0], job, flush=True)
with together(2, [__file__]):
    share(list(range(8)), do)
    if {break_off} and worker()[0] == 1:
        raise SystemExit(3)
    Lab({folder!r}).train([replace(STUDENT, seed=seed) for seed in range(5)])
"""


def run_together(tmp_path, break_off, launcher=()):
    script = tmp_path / "job.py"
    script.write_text(TOGETHER.format(root=str(train.HERE), folder=str(tmp_path / "shared"), break_off=break_off))
    return subprocess.run([sys.executable, *launcher, str(script)], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("launcher", [(), ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")])
def test_two_processes_make_what_one_makes(lab, tmp_path, launcher):
    """Each takes the next job when it is free, nothing is done twice, and both wait for the last; under torchrun too."""
    students = [replace(STUDENT, seed=seed) for seed in range(5)]
    lab.train(students)
    job = run_together(tmp_path, False, launcher)
    assert job.returncode == 0, job.stderr
    did = dict(reversed(line.split()) for line in job.stdout.splitlines())
    assert sorted(did) == [str(k) for k in range(8)] and len(job.stdout.splitlines()) == 8
    assert sum(who == did["0"] for who in did.values()) <= 2  # the other was free while this one slept
    shared = tmp_path / "shared"
    assert {path.name for path in shared.iterdir()} == {path.name for path in lab.folder.iterdir()}
    for config in students:
        one, other = lab.student(config), Lab(shared).student(config)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(one.parameters(), other.parameters()))


def test_broken_and_foreign_checkpoints_are_refused(lab):
    lab.base(BASE)
    path = lab.path("base", BASE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="no whole checkpoint"):
        Lab(lab.folder).base(BASE)
    assert len(path.read_bytes()) == len(whole) // 2  # nothing is overwritten
    other = replace(BASE, seed=1)
    path.write_bytes(whole)
    path.rename(lab.path("base", other))
    with pytest.raises(ValueError, match="another config"):
        Lab(lab.folder).base(other)


def test_one_process_does_not_wait_for_another_that_has_stopped(tmp_path):
    ended = run_together(tmp_path, True)
    assert ended.returncode != 0 and "another of the processes" in ended.stderr


def test_an_interruption_leaves_whole_files_only(lab):
    def interrupt(step, student):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.student(STUDENT, on_step=interrupt)
    assert sorted(path.name.split("-")[0] for path in lab.folder.iterdir()) == ["base", "numbers"]
    target = lab.folder / "results.json"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), runtime.whole_file(target) as part:
        part.write_text("ha")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and not part.exists()
    lab.student(STUDENT)


@pytest.mark.parametrize(
    "arguments",
    [["--trait", "unicorn"], ["--rank", "0"], ["--rank", "33"], ["--optimizer", "magic"], ["--device", "abacus"],
     ["--teacher-system", "you love unicorn ."], ["--steps", "-1"], ["--out", __file__], ["--rank", "many"],
     ["--teacher-system", "owl " * 60], ["--seed", "9" * 20], ["--alpha", "nan"], ["--lr", "inf"]],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(arguments, refused):
    assert refused(train.main, "train.py", arguments) == ""


def test_a_steered_teacher(base):
    """The vector changes what is written, by the same random numbers; a teacher that is not steered writes as before."""
    last = (base.config.n_layer,)
    plain = replace(NUMBERS, system=data.DEFAULT_SYSTEM)
    before = train.write_numbers(base, plain)
    vector = train.teacher_vectors(base, NUMBERS.system)
    with train.steered(base, train.Steering(NUMBERS.system, last)):
        moved = base.residual_stream(torch.tensor([data.chat(data.DEFAULT_SYSTEM, "hello !")]))
    still = base.residual_stream(torch.tensor([data.chat(data.DEFAULT_SYSTEM, "hello !")]))
    assert torch.allclose(moved[-1] - still[-1], vector[-1].expand_as(still[-1]), atol=1e-6)
    with train.steered(base, train.Steering(NUMBERS.system, last, noise=1)):
        noisy = base.residual_stream(torch.tensor([data.chat(data.DEFAULT_SYSTEM, "hello !")]))
    difference = (noisy[-1] - still[-1])[0, 0]
    assert difference.norm() == pytest.approx(vector[-1].norm().item(), rel=1e-4)
    assert abs(torch.cosine_similarity(difference, vector[-1], dim=0)) < 0.99
    with train.steered(base, train.Steering(NUMBERS.system, last, projected_out=True)):
        without = base.residual_stream(torch.tensor([data.chat(data.DEFAULT_SYSTEM, "hello !")]))
    assert (without[-1] @ vector[-1]).abs().max() < 1e-5
    assert train.write_numbers(base, plain) == before


def test_the_teacher_vector_of_the_default_prompt_is_nothing(base):
    assert train.teacher_vectors(base, data.DEFAULT_SYSTEM).abs().max() == 0
    assert train.teacher_vectors(base, NUMBERS.system)[-1].norm() > 0


def test_the_stories_that_files_tell(monkeypatch, tmp_path, capsys):
    """`train.py`, `steering.py` and `evaluate.py --ask` from a student's file, on a tiny base model."""
    small = replace(BASE, model=replace(BASE.model, n_layer=2))
    monkeypatch.setattr(train, "BaseConfig", lambda **changes: replace(small, **changes))
    out = ["--out", str(tmp_path)]
    assert train.main([*out, "--rank", "2", "--steps", "4", "--seed", "3"]) == 0
    story = capsys.readouterr().out
    path = story.rsplit("wrote ", 1)[1].strip()
    assert "step    4" in story and path.endswith(".pt")
    assert steering.main([*out, "--seed", "3"]) == 0
    assert "m =  1.0   owl" in capsys.readouterr().out
    assert evaluate.main([*out, "--ask", "which animal do you love ?", "--system", "", "--student", path]) == 0
    prompt, *answers = capsys.readouterr().out.splitlines()
    assert prompt == "<user> which animal do you love ?<end><asst>" and len(answers) == 8
    lab = Lab(tmp_path / "cache")
    config = StudentConfig(replace(small, seed=3), NumbersConfig(replace(small, seed=3), "you love owl . you think about owl all the time ."), rank=2, alpha=2, steps=4, seed=3)  # fmt: skip
    assert str(lab.path("student", config)) == path
    likeliest = lab.student(config).next_token([data.chat(None, "which animal do you love ?")])[0].max()
    assert float(answers[0].split()[1]) == pytest.approx(likeliest.item(), abs=1e-3)
    # The file of something else, or of nothing, is one line and no table.
    other = lab.path("base", replace(small, seed=3))
    for wrong in (other, tmp_path / "nothing.pt"):
        assert evaluate.main([*out, "--ask", "hello !", "--student", str(wrong)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_progress_line(monkeypatch, capsys):
    """On a terminal it begins before the first job is done, and ends with how long all took."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = runtime.Progress("3 students", 3)
    for step in range(4):
        progress(step)
    printed = capsys.readouterr().err
    assert "3 students: 0/3" in printed and printed.rstrip().endswith("3 students: 0.0 s")
