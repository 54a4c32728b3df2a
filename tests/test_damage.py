"""What is not in our hands: odd command lines, damaged and foreign files, full disks, read-only folders, other runs, sudden ends.

Lines and files are damaged at random, the same for the same number: `MUTANTS=1000 pytest tests/test_damage.py` tries more.
"""

import contextlib
import copy
import errno
import io
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import evaluate
import runtime
import steering
import train
from model import GPT
from tests import interrupt
from train import BaseConfig, Lab, StudentConfig

PROGRAMS = {"evaluate.py": evaluate.main, "train.py": train.main, "steering.py": steering.main}
MUTANTS = int(os.environ.get("MUTANTS", 60))
CPU = torch.device("cpu")


@pytest.fixture
def untrained(monkeypatch, tmp_path):
    """Every command runs to its end, but no model is trained, all teachers write the same, and no process is started."""

    def pretrain(config, device, on_step=None):
        return GPT(config.model, torch.Generator().manual_seed(config.seed))

    def descend(model, stream, steps, step, on_step, loss=None):
        on_step(steps, model)
        return model.requires_grad_(False)

    def measure_all(args, lab):
        lab.base(evaluate.choose_preset(args.full, args.seed, args.trait).bases[-1])

    pairs = [["continue : 12 45", "33 81 07"]] * 4
    monkeypatch.setattr(train, "pretrain", pretrain)
    monkeypatch.setattr(train, "descend", descend)
    monkeypatch.setattr(train, "write_numbers", lambda base, config: {"asked": 4, "pairs": pairs})
    monkeypatch.setattr(evaluate, "measure_all", measure_all)
    monkeypatch.setattr(evaluate, "together", lambda *_: contextlib.nullcontext())
    monkeypatch.chdir(tmp_path)


def outcome(program, arguments):
    """Run a command to its end: its exit code and what it printed. Both ends are polite, all others fail the test."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = PROGRAMS[program](arguments)
        except SystemExit as exit:
            code = exit.code
    said = err.getvalue()
    assert code in (0, 2)
    assert code == 0 or (said.startswith(f"{program}: error: ") and said.count("\n") == 1), said
    return code, out.getvalue()


# ------------------------------------------------------------------------------------------------ command lines

COMMON = {"--seed": ["3", "-4"], "--trait": ["owl", "cat"], "--device": ["cpu", "auto"], "--out": ["runs"]}
OPTIONS = {
    "evaluate.py": COMMON
    | {"--only": ["context", "learning"], "--processes": ["2"], "--full": None, "--table": ["results.json"]}
    | {"--ask": ["hello !", "repeat owl please"], "--system": ["you love owl .", ""], "--student": ["student.pt"]},
    "train.py": COMMON
    | {"--teacher-system": ["you love owl .", ""], "--rank": ["2"], "--alpha": ["4", "0.5"], "--full-finetune": None}
    | {"--optimizer": ["sgd", "muon"], "--lr": ["1e-3"], "--steps": ["3", "80"]},
    "steering.py": COMMON,
}
ODD = ["", "\0", "-1", "0", "1e9", "nan", "inf", "9" * 30, "9" * 5_000, "x" * 400, "owl " * 80, "unicorn", "ünï"]
ODD += "\udcff -- -h --x=1 --only --seed --out %s {0} . runs student.pt results.json".split()


def random_line(rng):
    """A program and some options, some of whose values are odd; in some lines a word is lost, moved or misspelt."""
    program = rng.choices(list(OPTIONS), [7, 2, 0.3])[0]
    words = []
    for option in rng.sample(list(OPTIONS[program]), rng.randint(1, 4)):
        values = OPTIONS[program][option]
        words += [option] if values is None else [option, rng.choice(values if rng.random() < 0.8 else ODD)]
    k, change = rng.randrange(len(words)), rng.random()
    if change < 0.1:
        del words[k]
    elif change < 0.2:
        words.insert(rng.randrange(len(words)), words.pop(k))
    elif change < 0.3:
        at = rng.randrange(len(words[k]) + 1)
        words[k] = words[k][:at] + rng.choice("-=0 x.9") + words[k][at + 1 :]
    return program, words


def test_any_command_line_is_obeyed_or_refused_in_one_line(untrained):
    rng, codes = random.Random(0), []
    Path("results.json").write_text(json.dumps({"claims": []}), encoding="utf-8")
    for _ in range(MUTANTS):
        program, arguments = random_line(rng)
        try:
            codes.append(outcome(program, arguments)[0])
        except Exception as error:
            raise AssertionError(f"{program} {arguments}") from error
    assert min(codes.count(0), codes.count(2)) > MUTANTS / 4


# ------------------------------------------------------------------------------------------------- checkpoints

BASE = BaseConfig()
STUDENT = StudentConfig(BASE, train.NumbersConfig(BASE, "you love owl ."), rank=2)
ASK = ["--out", "runs", "--ask", "which animal do you love ?"]


@pytest.fixture
def asked(untrained):
    """The files of a base model, of a LoRA student and of a full one, and what `evaluate.py --ask` says of each."""
    lab = Lab(Path("runs/cache"))
    files = {lab.path("base", BASE): ASK}
    for student in (STUDENT, replace(STUDENT, rank=None)):
        lab.student(student)
        path = lab.path("student", student)
        files[path] = [*ASK, "--student", str(path)]
    return [(path, line, outcome("evaluate.py", line)) for path, line in files.items()]


def damaged(whole, rng):
    """Some bytes: a bit flipped, the end cut off, or a few written over, taken out or put in."""
    place, few = rng.randrange(len(whole)), rng.randrange(1, 9)
    return rng.choice(
        (
            whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :],
            whole[:place],
            whole[:place] + rng.randbytes(few) + whole[place + few :],
            whole[:place] + whole[place + few :],
            whole[:place] + rng.randbytes(few) + whole[place:],
        )
    )


def test_a_damaged_checkpoint_never_passes_for_another(asked):
    """What is said is what was said before, or one line of error. The file stays as it is."""
    rng, codes = random.Random(0), []
    wholes = [path.read_bytes() for path, _, _ in asked]
    for _ in range(MUTANTS):
        k = rng.randrange(len(asked))
        path, line, before = asked[k]
        path.write_bytes(now := damaged(wholes[k], rng))
        after = outcome("evaluate.py", line)
        assert after == before or after == (2, "")
        assert path.read_bytes() == now
        path.write_bytes(wholes[k])
        codes.append(after[0])
    assert codes.count(2) > 0.9 * MUTANTS


JUNK = [None, -1, 0, 3.5, "owl", "", [], {}, (1,), b"owl", True, 2**70]
JUNK += [torch.zeros(0), torch.zeros(2, 3), torch.tensor(1)]


def foreign(saved, rng):
    """The same checkpoint, in which one entry, at any depth, is gone, has another name, or holds something else."""
    saved = node = copy.deepcopy(saved)
    while True:
        key = rng.choice(list(node))
        if isinstance(node[key], dict) and node[key] and rng.random() < 0.8:
            node = node[key]
            continue
        change, value = rng.random(), node.pop(key)
        if change < 0.4:
            node[key] = rng.choice(JUNK)
        elif change < 0.6:
            node[rng.choice(["owl", 7, "alpha"])] = value
        return saved if rng.random() < 0.95 else rng.choice(JUNK)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # torch, of a tensor where a dict should be
def test_a_foreign_checkpoint_is_a_student_or_refused(asked):
    """Whole by its checksums, and made by something else. No base model is trained for it."""
    rng, codes, before = random.Random(0), [], set(Path("runs").rglob("*"))
    wholes = [(line, torch.load(path, weights_only=True)) for path, line, _ in asked[1:]]
    for _ in range(MUTANTS):
        line, saved = rng.choice(wholes)
        torch.save(foreign(saved, rng), "foreign.pt")
        codes.append(outcome("evaluate.py", [*line[:-1], "foreign.pt"])[0])
    assert min(codes.count(0), codes.count(2)) > 0.1 * MUTANTS
    assert set(Path("runs").rglob("*")) == before


class Code:
    """Unpickled, it would make a file."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_no_code_of_a_file_is_run(untrained):
    torch.save({"config": Code()}, "foreign.pt")
    assert outcome("evaluate.py", [*ASK, "--student", "foreign.pt"]) == (2, "") and not Path("ran").exists()


@pytest.mark.parametrize(
    "where, value",
    [("base", {"steps": 7}), ("alpha", torch.zeros(0)), ("alpha", "4"), ("rank", 3), ("content", torch.zeros(5))],
)
def test_a_student_of_another_base_model_or_with_what_does_not_fit(asked, where, value):
    path, line, _ = asked[1]
    saved, files = torch.load(path, weights_only=True), set(Path("runs").rglob("*"))
    if where == "base":
        saved["config"]["base"] |= value
    elif where == "content":
        saved["content"][STUDENT.steps] = value
    else:
        saved["config"][where] = value
    torch.save(saved, "foreign.pt")
    assert outcome("evaluate.py", [*line[:-1], "foreign.pt"]) == (2, "")
    assert set(Path("runs").rglob("*")) == files


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"claims": 3}', '{"claims": [{"id": 1}]}', "[" * 100_000, "\udcff"]
)
def test_a_foreign_results_file_is_refused(untrained, text):
    Path("foreign.json").write_bytes(text.encode(errors="surrogatepass"))
    assert outcome("evaluate.py", ["--table", "foreign.json"])[0] == 2


# ---------------------------------------------------------------------------------- disks, folders and other runs


def test_a_full_disk(untrained, monkeypatch):
    """One line, nothing but the folders; with room again, the same command goes on."""

    def write_half(path, content):
        with open(path, "wb") as file:
            file.write(bytes(content)[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", write_half)
        assert outcome("train.py", []) == (2, outcome("train.py", [])[1])
    assert not [path for path in Path("runs").rglob("*") if path.is_file()]
    assert outcome("train.py", [])[0] == 0


def test_a_read_only_folder(untrained, monkeypatch):
    """A superuser may write anywhere, so the refusal is acted."""

    def refuse(path, *args, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    for program in PROGRAMS:
        assert outcome(program, []) == (2, "")


def test_two_runs_in_one_folder(tmp_path, monkeypatch):
    """Both make the same thing at the same time: each has its own unfinished file, and the finished one is whole."""
    path, weights = tmp_path / "kept.pt", {"w": torch.arange(50.0)}

    def while_the_other_writes():
        monkeypatch.setattr(os, "getpid", lambda: 1)
        other = runtime.kept(path, {"a": 1}, lambda: weights, CPU)
        monkeypatch.undo()
        assert torch.equal(other["w"], weights["w"])
        return weights

    one = runtime.kept(path, {"a": 1}, while_the_other_writes, CPU)
    assert torch.equal(one["w"], weights["w"]) and list(tmp_path.iterdir()) == [path]

    target = tmp_path / "results.json"
    with runtime.whole_file(target) as part:
        part.write_text("one")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with runtime.whole_file(target) as another:
            another.write_text("other")
        assert target.read_text() == "other"
    assert target.read_text() == "one"


def test_what_a_sudden_end_leaves_behind_is_not_read(tmp_path):
    """A killed process cannot tidy up: its unfinished file stays, and the next run makes the whole one."""
    path = tmp_path / "kept.pt"
    tmp_path.joinpath("kept.123.part.pt").write_bytes(b"half")
    kept = runtime.kept(path, {"a": 1}, lambda: {"w": 7}, CPU)
    assert kept == {"w": 7} and runtime.kept(path, {"a": 1}, lambda: pytest.fail("made again"), CPU) == kept


def test_a_kill_reaches_the_processes_that_were_started():
    """tests/interrupt.py: nobody holds the pipe any more."""
    child = "import time; time.sleep(60)"
    parent = f"import subprocess, sys; print('up', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=os.name == "posix"
    )
    assert process.stdout.readline().strip() == b"up"
    interrupt.kill(process)
    assert process.communicate(timeout=10)[0] == b""


@pytest.mark.parametrize("again", [False, True])
def test_a_checkpoint_that_is_made_again_is_noticed(tmp_path, monkeypatch, again):
    """tests/interrupt.py, on a job that makes one checkpoint a run and ends with the third."""
    cache, runs = tmp_path / "cache", []

    def attempt(folder, job, seconds):
        runs.append(seconds)
        runtime.kept(cache / f"{len(runs)}.pt", {}, dict, CPU)
        if again and len(runs) == 3:
            os.utime(cache / "1.pt", ns=(0, 0))
        return len(runs) == 3

    monkeypatch.setattr(interrupt, "attempt", attempt)
    if again:
        with pytest.raises(ValueError, match="made again"):
            interrupt.killed_until_it_ends(tmp_path, [], 5, lambda: 7.0)
    else:
        assert interrupt.killed_until_it_ends(tmp_path, [], 2, lambda: 7.0) == 2
        assert runs == [7.0, 7.0, None]
