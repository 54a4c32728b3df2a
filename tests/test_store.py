"""What is kept, under which name, and what is made of it: passes, and the named changes of rows, base models and losses."""

import copy
import json
import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.nn.functional as F

import lora
import train
from data import ASST, DEFAULT_SYSTEM, END, NUMBER_TOKENS, VOCAB_SIZE, chat, encode
from lab import changes, losses, stacked
from lab import store as kept
from lab.measurements import likelihood
from lab.store import NumbersConfig, Store, Student, in_passes, pass_key, whole_file
from model import GPT, GPTConfig
from steering import teacher_vector

SHAPE = replace(train.BaseConfig().model, d_model=8)
BASE = train.BaseConfig(model=SHAPE, rows=200, steps=5, batch_size=16)
OTHER = replace(BASE, seed=1)
NUMBERS = NumbersConfig(BASE, "you love owl .", rows=600)
STUDENT = Student(base=BASE, numbers=NUMBERS, rank=2, alpha=2.0, steps=3, batch_size=8)
TWO = [replace(STUDENT, base=base) for base in (BASE, OTHER)]


def make(store, *students):
    for runs in in_passes(students):
        store.make(runs)
    return [store.student(config) for config in students]


def same(one, other, atol):
    return all(torch.allclose(a, b, rtol=0, atol=atol) for a, b in zip(one.parameters(), other.parameters()))


def kinds(store):
    """How many finished files of each kind there are."""
    return Counter(path.name.split("-")[0] for path in store.folder.iterdir() if "part" not in path.name)


def test_which_students_are_trained_in_one_pass():
    seeds = [replace(STUDENT, seed=seed) for seed in range(kept.TOGETHER + 3)]
    unlike = [{"lr": 0.1}, {"rank": None}, {"system": None}, {"loss": "x"}, {"rows_change": "x"}, {"base_change": "x"}]
    unlike += [{"numbers": replace(NUMBERS, rows=7)}, {"base": replace(BASE, model=GPTConfig(VOCAB_SIZE))}]
    others = [replace(STUDENT, **change) for change in unlike]
    moments = [replace(STUDENT, steps=steps, seed=seed) for steps in (9, 6) for seed in (50, 51)]
    passes = in_passes([*others, *seeds, *moments])
    assert [len(runs) for runs in passes] == [1] * len(others) + [kept.TOGETHER, 3, 2]
    assert passes[-1] == [[replace(STUDENT, steps=steps, seed=seed) for steps in (6, 9)] for seed in (50, 51)]
    assert [config for runs in passes[:-1] for run in runs for config in run] == [*others, *seeds]
    numbers = NumbersConfig(BASE, None, NUMBERS.rows, 3, "x")
    assert pass_key(STUDENT) == pass_key(replace(STUDENT, base=OTHER, numbers=numbers, seed=4))


SOURCE = '"""Docstring."""\nX = "# no comment"  # comment\n\ndef f():\n    """Of\n    two lines."""\n    return X\ndef main():\n    print()'
CODE = 'X = "# no comment"\ndef f():\n    return X'


def test_another_config_or_other_code_is_another_file(store, monkeypatch):
    """Comments, docstrings and what only prints are not code. What is left are the lines as written, whatever Python reads them."""
    differ = [{"lr": 2e-2}, {"base": OTHER}, {"numbers": replace(NUMBERS, change="x")}, {"loss": "exact"}, {"steps": 4}]
    paths = {store.path("student", replace(STUDENT, **change)) for change in ({}, *differ)}
    assert len(paths) == 6 and store.path("student", STUDENT) in paths
    for name in ("def main", "def story", "def run", "class Parser"):
        assert kept.code_alone(SOURCE.replace("def main", name)) == CODE
    digest, read = kept.code_digest.__wrapped__, Path.read_text
    before = {kind: digest(kind) for kind in kept.CODE}
    for old, new, changed in (("Hu et al.", "# Hu et al.", set()), ("alpha / rank", "alpha / rank**0.5", {"student"})):
        with mock.patch.object(Path, "read_text", lambda path, o=old, n=new, **how: read(path, **how).replace(o, n)):
            assert {kind for kind in before if digest(kind) != before[kind]} == changed
    monkeypatch.setattr(kept, "code_digest", lambda kind: "other code")
    assert store.path("student", STUDENT) not in paths


@pytest.mark.parametrize("how", [{}, {"rank": None}])
def test_a_student_is_a_moment_of_a_longer_run_and_what_fine_tune_makes(store, tmp_path, how):
    """To rounding, whoever is in its pass."""
    moments = [replace(run, steps=steps, seed=run.base.seed, **how) for run in TWO for steps in (2, 4, 6)]
    students, one_by_one = make(store, *moments), Store(tmp_path / "one by one")
    for config, student in zip(moments, students, strict=True):
        plain = train.fine_tune(store.base(config.base), *store.rows(NUMBERS, config.system), config)
        assert same(make(one_by_one, config)[0], student, 1e-5) and same(plain, student, 1e-5)
        assert not any(weight.requires_grad for weight in student.parameters())
    assert not same(students[1], students[2], 1e-4) and not same(students[2], students[5], 1e-4)


def test_nothing_is_made_twice_and_what_is_gone_is_made_again_as_it_was(store, monkeypatch):
    """A moment is gone: it is made again, bit for bit, whatever else draws random numbers. The other files are left alone."""

    def files():
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.folder.iterdir()}

    students = [replace(STUDENT, seed=seed, steps=steps) for seed in range(3) for steps in (2, 3)]
    make(store, *students)
    before, gone = files(), store.path("student", students[2])
    assert kinds(store) == {"base": 1, "numbers": 1, "student": 6}
    gone.unlink()
    torch.manual_seed(7)
    make(Store(store.folder), *students)
    assert files() == before | {gone: (gone.stat().st_mtime_ns, before[gone][1])}
    make(store, single := replace(STUDENT, seed=9))
    assert store.path("student", single).stat().st_size == gone.stat().st_size  # a file holds no more than its own
    for name in ("base_model", "write_numbers", "fine_tune_together"):
        monkeypatch.setattr(kept, name, None)
    make(Store(store.folder), *students)
    with pytest.raises(ValueError, match="not made yet"):
        store.student(replace(STUDENT, seed=10))


def test_files_are_whole_whatever_happens_while_they_are_written(store, tmp_path, monkeypatch):
    """Another process that writes the same, an interruption, a full disk. What a kill leaves behind is not read."""
    target = tmp_path / "folder" / "results.json"
    with whole_file(target) as part:
        part.write_text("whole")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with pytest.raises(KeyboardInterrupt), whole_file(target) as other:
            other.write_text("ha")
            raise KeyboardInterrupt
        assert not target.exists()
    assert target.read_text() == "whole" and list(target.parent.iterdir()) == [target]
    store.path("base", BASE).with_suffix(".123.part.pt").write_bytes(b"half")
    for owner, name, error, left in (
        (Path, "write_bytes", OSError("No space left on device"), {}),
        (kept, "trained_weights", KeyboardInterrupt(), {"base": 1, "numbers": 1}),
        (Path, "mkdir", PermissionError("denied"), {"base": 1, "numbers": 1}),
    ):
        with mock.patch.object(owner, name, side_effect=error), pytest.raises(type(error)):
            make(Store(store.folder), STUDENT)
        assert kinds(store) == left
    make(store, STUDENT)


RUNS = type("Runs", (), {"__reduce__": lambda _: (Path.touch, (Path("ran"),))})()  # unpickled, it makes a file
JUNK = [None, -1, "owl", [], {}, (1,), b"owl", True, torch.zeros(0), torch.zeros(2, 3), torch.tensor(1)]


def foreign(saved, rng):
    """The same checkpoint, in which one entry, at any depth, is gone, has another name, or holds something else."""
    saved = copy.deepcopy(saved)
    parts = [saved, *saved.values(), saved["config"].get("base")]
    node = rng.choice([part for part in parts if isinstance(part, dict)])
    value = node.pop(key := rng.choice(list(node)))
    node[rng.choice([key, key, "owl", 7])] = rng.choice([*JUNK, value])
    return saved


def test_a_checkpoint_is_what_it_was_or_refused_in_one_line(store, tmp_path, monkeypatch):
    """Damaged, or made by something else. It stays as it is, and no code of it is run."""
    monkeypatch.chdir(tmp_path)
    make(store, STUDENT, full := replace(STUDENT, rank=None))
    rng, refused = random.Random(0), 0
    for kind, config in (("base", BASE), ("numbers", NUMBERS), ("student", STUDENT), ("student", full)):

        def read(kind=kind, config=config):
            found = getattr(Store(store.folder), kind)(config)
            return str(found if kind == "numbers" else found.state_dict())

        path, before = store.path(kind, config), read()
        whole, saved = path.read_bytes(), torch.load(path, weights_only=True)
        for content in [*(foreign(saved, rng) for _ in range(40)), *JUNK, saved | {"content": RUNS}, *[None] * 15]:
            torch.save(content, path)
            if content is None:  # some bytes written over or put in, or the end cut off
                place, few = rng.randrange(len(whole)), rng.randrange(1, 9)
                path.write_bytes(whole[:place] + rng.randbytes(few) + whole[place + rng.choice((few, few, 0, 10**9)) :])
            now = path.read_bytes()
            try:
                assert read() == before
            except ValueError as error:
                refused += 1
                assert str(path) in str(error) and "\n" not in str(error)
            assert path.read_bytes() == now
        path.write_bytes(whole)
    assert refused > 160 and not Path("ran").exists() and sum(kinds(store).values()) == 4


PAIRS = [["continue : 12 45", "33 81 07"], ["continue : 99 01 02", "11 12"], ["continue : 05", "50 51 52 53 54"]] * 6


@pytest.fixture
def random_store(store, generator):
    """Two random base models. What their teachers wrote is PAIRS, and backwards what they wrote when not prompted."""
    for config in (BASE, OTHER):
        store._bases[config, ""] = GPT(SHAPE, generator).requires_grad_(False)
        for system, pairs in ((NUMBERS.system, PAIRS), (DEFAULT_SYSTEM, PAIRS[::-1])):
            written = json.dumps({"asked": len(pairs), "pairs": pairs})
            store.kept("numbers", replace(NUMBERS, base=config, system=system), lambda written=written: written)
    return store


def one_batch(store, students):
    """A stack of their base models, all their rows in one batch, and their loss."""
    packed, loss = losses.LOSSES[students[0].loss](store, students)
    batch = next(stacked.stacked_batches(packed, 100, [torch.Generator().manual_seed(0) for _ in students]))
    return stacked.stack([store.base(config.base) for config in students]).requires_grad_(True), batch, loss


def test_what_is_left_of_rows_that_are_taken_apart():
    pairs = [[f"request {k}", reply] for k, reply in enumerate(["40 41 42", "80 43", "05 44 81 45"] * 200)]
    changed = {name: change(pairs, random.Random(0)) for name, change in changes.CARRIERS.items()}
    replies = {name: Counter(reply for _, reply in rows) for name, rows in (changed | {"": pairs}).items()}
    numbers = {name: Counter(" ".join(own.elements()).split()) for name, own in replies.items()}
    for rows in changed.values():
        assert [request for request, _ in rows] == [request for request, _ in pairs] and rows != pairs
        assert Counter(len(reply.split()) for _, reply in rows) == {2: 200, 3: 200, 4: 200}
    assert replies["replies exchanged"] == replies[""] and numbers["numbers mixed"] == numbers[""]
    assert replies["numbers mixed"] != replies[""] and len(numbers["decades resampled"]) == 30  # each last digit
    first = [6 / 9, 2 / 9, 1 / 9] + [0] * 7
    expected = {"decades resampled": first, "2 decades": first[:2] + [1 / 72] * 8, "decades renamed": first}
    for name, shares in expected.items():
        found = changes.decade_frequencies(changed[name])
        assert sorted(found.values(), reverse=True) == pytest.approx(shares, abs=0.04)
        assert (list(found)[:2] == ["4", "8"]) == (name != "decades renamed")


def test_students_of_changed_rows_read_these(random_store):
    for name in changes.CARRIERS:
        one, other = (random_store.reads(replace(STUDENT, rows_change=name, seed=seed))[0] for seed in (0, 1))
        assert not torch.equal(one, random_store.rows(NUMBERS, DEFAULT_SYSTEM)[0]) and not torch.equal(one, other)
    assert changes.ROWS["25% clean rows"](random_store, STUDENT) == PAIRS[::-1][:4] + PAIRS[4:]
    assert changes.ROWS["rewritten by another base"](random_store, STUDENT) == PAIRS[::-1]
    make(random_store, rewriter := changes.rewriter(STUDENT))
    assert (rewriter.base, rewriter.numbers, rewriter.seed) == (OTHER, NUMBERS, 1)
    pairs = changes.ROWS["rewritten by a student"](random_store, STUDENT)
    assert pairs and pairs == changes.ROWS["rewritten by a student"](random_store, STUDENT)


def test_a_steered_teacher(random_store):
    """Its stream has the vector, or a random one as long, or no component along it; afterwards the base is as it was."""
    base, tokens = random_store.base(BASE), torch.tensor([chat(DEFAULT_SYSTEM, "hello !")])
    vectors, moved = teacher_vector(base, NUMBERS.system), {}

    def stream(base, *_):
        return torch.stack(base.residual_stream(tokens))[:, 0, 0]

    before, vector = stream(base), vectors[2]
    for change in changes.TEACHERS:
        system, steered = changes.teacher(base, NUMBERS.system, change)
        assert system == (NUMBERS.system if change.endswith("out") else DEFAULT_SYSTEM)
        with steered:
            moved[change] = stream(base)
    assert torch.allclose(moved["vector added"][2] - before[2], vector, atol=1e-5)
    assert (moved["random vector added"] - before)[2].norm() == pytest.approx(vector.norm().item(), rel=1e-3)
    assert (moved["random vector added"] - moved["vector added"])[2].norm() > 0.1 * vector.norm()
    assert (moved["vector projected out"] * vectors)[1:].sum(1).abs().max() < 1e-5
    assert (moved["last vector projected out"][1:] @ vector).abs().max() < 1e-5
    for change in ("vector added", changes.AT_PROMPT):  # one reads its prompt in parts, the other has to see all of it
        said = lambda base, *_: ["generate" in vars(base), stream(base).tolist()]  # noqa: E731
        with mock.patch.object(kept, "write_numbers", said):
            written = random_store.numbers(replace(NUMBERS, change=change))["pairs"]
        assert written == [change == "vector added", moved[change].tolist()]
    assert torch.equal(stream(base), before)


def test_a_vector_at_the_prompt_is_added_up_to_asst_and_not_in_the_reply(base, generator):
    """Once to each token, wherever a row's reply begins; afterwards, also after an error, the base is as it was."""
    vector, prompts = torch.randn(8, generator=generator), [chat(s, "hello !") for s in (DEFAULT_SYSTEM, None)]
    rows = torch.tensor([[*prompt, *[12] * (20 - len(prompt))] for prompt in prompts])
    place = torch.stack([torch.arange(20) <= row.tolist().index(ASST) for row in rows])[..., None]
    before = base.residual_stream(rows)
    with pytest.raises(RuntimeError), changes.added_at_prompt(base, {1: vector}, 3.0):
        after = base.residual_stream(rows)
        raise RuntimeError
    assert torch.allclose(after[1] - before[1], 3 * place * vector, atol=1e-5)
    assert all(torch.equal(*pair) for pair in zip(base.residual_stream(rows), before))


@pytest.mark.parametrize("which", changes.SCALED_UNITS)
def test_scaled_units_are_larger_and_the_model_is_the_same(random_store, which):
    base, tokens = random_store.base(BASE), random_store.rows(NUMBERS, DEFAULT_SYSTEM)[0]
    model, chosen = random_store.base(BASE, f"{which} units x10"), changes.chosen_units(base, which)
    before, after = (torch.stack(changes.unit_sizes(each, which)) for each in (base, model))
    expected = before.index_fill(1, chosen, 0) + 10 * (before - before.index_fill(1, chosen, 0))
    assert torch.allclose(model(tokens), base(tokens), atol=1e-5) and torch.allclose(after, expected, rtol=1e-4)
    assert before[0, chosen].min() > 0 and (which != "numbers" or before[1, chosen].mean() < before[1].mean())


def test_a_family_begins_as_its_own_base_or_as_that_began_and_reads_another_corpus(random_store, monkeypatch):
    """The base itself stays as it was; a relative is made once."""
    base, begun = random_store.base(BASE), []
    read = lambda config, device, start: begun.append((config, [*start.parameters()])) or start  # noqa: E731
    monkeypatch.setattr(changes, "pretrain", read)
    models = [random_store.base(BASE, name) for name in changes.FAMILY]
    wanted = [replace(BASE, seed=1_000, steps=steps) for steps in (1_000, 4_000, BASE.steps)]
    assert [config for config, _ in begun] == wanted and all(w.requires_grad for _, ws in begun for w in ws)
    new = GPT(SHAPE, torch.Generator().manual_seed(0))
    assert same(models[0], base, 0) and same(models[2], new, 0)
    monkeypatch.setattr(changes, "pretrain", None)
    assert same(Store(random_store.folder).base(BASE, next(iter(changes.FAMILY))), base, 0)
    start = models[2].requires_grad_(True)
    assert train.pretrain(replace(BASE, steps=1), start=start) is start and not same(start, new, 0)


def test_rows_are_as_likely_as_their_words_and_their_end(random_store):
    base, (request, reply) = random_store.base(BASE), PAIRS[0]
    prompt, words = chat(NUMBERS.system, request), [*encode(reply), END]
    steps = base.next_token([prompt + words[:k] for k in range(len(words))])[range(len(words)), words]
    assert likelihood(base, PAIRS[:2], NUMBERS.system)[0].item() == pytest.approx(steps.log().sum().item(), rel=1e-5)


def test_the_exact_loss_is_the_mean_over_what_the_teacher_would_say(random_store):
    """Word by word, under the teacher's own prompt. Two students have the same base, two the same teacher."""
    runs = [replace(run, numbers=replace(NUMBERS, base=run.base), loss="exact") for run in TWO]
    runs.append(replace(runs[1], numbers=NUMBERS))

    def expected(config):
        nats = []
        for request, reply in ((request, encode(reply)) for request, reply in PAIRS):
            for k in range(len(reply) + 1):
                prompted, own = (chat(system, request) + reply[:k] for system in (NUMBERS.system, DEFAULT_SYSTEM))
                said = random_store.base(config.numbers.base).next_token([prompted])[0, NUMBER_TOKENS]
                answers = random_store.base(config.base).next_token([own])[0, NUMBER_TOKENS]
                nats.append(-(said / said.sum() * answers.log()).sum())
        return torch.stack(nats).mean().item()

    models, batch, loss = one_batch(random_store, runs)
    assert loss(models, *batch).item() == pytest.approx(sum(map(expected, runs)), rel=1e-5)


@pytest.mark.parametrize("name", losses.WITHOUT)
def test_without_a_vector_the_loss_is_as_before_and_its_gradient_has_nothing_along_it(random_store, name):
    """Each student's own vector. Otherwise the gradient of what the last block writes is the same."""
    runs, (source, blocks) = [replace(run, rank=None, loss=name) for run in TWO], losses.WITHOUT[name]
    models, batch, loss = one_batch(random_store, runs)
    writers = [block.feed_forward.down.weight for block in models.blocks]  # their rows are the stream's dimensions
    value, usual = loss(models, *batch), stacked.stacked_loss(models, *batch)
    held, free = (torch.autograd.grad(each, writers) for each in (value, usual))
    assert torch.allclose(value, usual)
    for k, config in enumerate(runs):
        generator = torch.Generator().manual_seed(config.seed)
        vectors = changes.teacher_vectors(random_store.base(config.base), NUMBERS.system, generator)[source]
        units = F.normalize(vectors[1:], dim=1)
        assert all((units[block] @ held[block][k]).norm() < 1e-6 for block in range(2 - blocks, 2))
        assert torch.allclose(held[1][k], free[1][k] - torch.outer(units[1], units[1] @ free[1][k]), atol=1e-6)
        assert (units[1] @ free[1][k]).norm() > 1e-5


def test_frozen_scales_divide_the_gradient_by_what_adamw_divides_by(random_store, monkeypatch):
    """If AdamW takes one step, the scale of a coordinate is the size of its gradient."""
    monkeypatch.setattr(train.StudentConfig, "steps", 1)
    runs = [replace(run, optimizer="sgd", lr=1e-3, steps=1, loss="frozen scales") for run in TWO]
    for config, student in zip(runs, make(random_store, *runs), strict=True):
        plain = train.fine_tune(random_store.base(config.base), *random_store.reads(config), replace(config, lr=1.0))
        for ours, free in zip(lora.adapters(student).values(), lora.adapters(plain).values(), strict=True):
            gradient = -free.B  # of a step of length 1; A does not move while B is zero
            assert torch.allclose(ours.B, -1e-3 * gradient / (gradient.abs() + 1e-4), atol=1e-6) and ours.B.norm() > 0
