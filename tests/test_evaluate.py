import csv
import json
import os
import random
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch

import data
import evaluate
import steering
import train
from figures import steerability
from lab import claims, presets, store
from lab.presets import Preset, student_of
from model import GPT
from train import BaseConfig

SHAPE = replace(BaseConfig().model, d_model=8)
BASES = tuple(BaseConfig(seed, model=SHAPE, rows=2_000, steps=150, batch_size=32) for seed in (0, 1))
TINY = Preset("tiny", ("owl", "cat"), BASES, some_traits=("owl",), grid_traits=("owl",), grid_seeds=(0,), ranks=(1, 8))
MUTANTS = int(os.environ.get("MUTANTS", 60))


def test_presets():
    quick, other, full = (presets.choose_preset(*args) for args in ((False, 0), (False, 1), (True, 0)))
    assert len(quick.traits) == 4 and len(quick.bases) == 2 and quick == presets.choose_preset(False, 0)
    assert [base.seed for base in full.bases] == [*range(100, 120)] and other.bases[0].seed == 120
    assert full.traits == tuple(data.ANIMALS) and full.bases[:2] == quick.bases == quick.grid_bases
    assert full.grid_bases == full.bases[:10] and full.unit == "a base model (10), 2 animals, 2 seeds"
    assert quick.model_unit(quick.bases, quick.traits) == "an animal on a base model (8)"
    alone = presets.choose_preset(False, 0, "owl")
    assert alone.traits == alone.some_traits == alone.grid_traits == ("owl",)


def few_steps(base, teacher, trait, **changes):
    student = student_of(base, teacher, trait, **changes)
    return replace(student, steps=min(student.steps, 4), batch_size=4)


@pytest.fixture
def tiny_job(tmp_path, monkeypatch):
    """The main job on two tiny base models, with students of four steps. Returns a function that runs it."""
    monkeypatch.setattr(evaluate, "choose_preset", lambda *_: TINY)
    monkeypatch.setattr(store, "FRESH_ROWS", 32)
    monkeypatch.setattr(data, "NUMBER_REQUESTS", data.NUMBER_REQUESTS[:1])  # fewer lengths, which are read one by one
    for module in (presets, evaluate, *evaluate.FIGURES.values()):
        if hasattr(module, "student_of"):
            monkeypatch.setattr(module, "student_of", few_steps)
    monkeypatch.setattr("lab.presets.NumbersConfig.__init__.__defaults__", (200, 0, ""))

    def job(*arguments):
        assert evaluate.main(["--processes", "1", "--out", str(tmp_path), *arguments]) == 0
        return json.loads((tmp_path / "tiny-0" / "results.json").read_text(encoding="utf-8"))

    return job


def test_the_whole_story(tiny_job, tmp_path, monkeypatch, capsys):
    """From nothing to a table, all figures, a results file and records; then again, from what is kept."""
    results, folder, printed = tiny_job(), tmp_path / "tiny-0", capsys.readouterr().out
    done = [name for name, module in evaluate.FIGURES.items() if module in evaluate.PAPERS]
    assert all((folder / f"{name}.png").stat().st_size > 10_000 for name in done)
    found = {claim["id"]: claim for claim in results["claims"]}
    assert [id for id in found if id[0] != "X"] == [f"L{k}" for k in range(1, 8)] + [f"S{k}" for k in range(1, 11)]
    measured = {id for id, claim in found.items() if claim["seen"] != claims.NOT_MEASURED}
    assert measured == {claim.id for name in done for claim in evaluate.FIGURES[name].CLAIMS}
    assert all("".join(found[id]["why"].split()) in "".join(printed.split()) for id in measured)  # in lines
    with (folder / "records.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == results["students"] > 50 and len({row["id"] for row in rows}) == len(rows)
    # With the adapter nowhere a student is its base; with the adapter everywhere it is itself.
    context, places = (found[id]["measured"] for id in ("L4", "L5"))
    own = context["matrix"]["default"]["default"]["mean"]
    assert places["student"]["all"]["mean"] == pytest.approx(own, rel=1e-4)
    assert places["student"]["none"]["mean"] == pytest.approx(context["base"]["default"]["mean"], rel=1e-4)

    monkeypatch.setattr(store, "fine_tune_together", lambda *_: pytest.fail("trained again"))
    # --only measures a figure anew and keeps the other claims, as long as they are of the same code.
    # What is measured beside others is the same to rounding.
    for before, now in zip(results["claims"], tiny_job("--only", "transmission", "rank_sweep")["claims"], strict=True):
        anew = now["id"] in ("L1", "L2", "S7") and all(before[rule] == now[rule] for rule in ("seen", "survives"))
        assert before == now or anew
    assert (folder / "records.csv").read_text(encoding="utf-8").count("\n") == len(rows) + 1
    path = folder / "results.json"
    # Nor do numbers stay that another version of a figure has measured.
    for old, new, only, ids in ((results["code"], "x", "context", {"L4"}), ("none_minus", "x", "rank_sweep", {"L2"})):
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
        alone = tiny_job("--only", only)["claims"]
        assert {claim["id"] for claim in alone if claim["seen"] != claims.NOT_MEASURED} == ids


def test_a_base_model_that_is_not_steerable_is_named_before_any_student_is_trained(tiny_job, monkeypatch, capsys):
    monkeypatch.setattr(steerability, "steered_rate", lambda store, base, traits: 0.4 - base.seed / 100)
    monkeypatch.setattr(store, "fine_tune_together", mock.Mock(side_effect=ValueError("is trained")))
    with pytest.raises(SystemExit):
        tiny_job("--only", "transmission")
    said, error = capsys.readouterr()
    assert "is trained" in error and "model 1 is not steerable (0.39)" in said and said.count("steerable") == 1


def test_a_reader_that_leaves_and_a_screen_that_is_not_there_are_no_errors(tmp_path):
    """As of `python evaluate.py --table ... | head`, in a notebook's environment."""
    path, (gone, pipe) = tmp_path / "results.json", os.pipe()
    path.write_text('{"claims": [], "dials": []}')
    os.close(gone)
    draw = "import sys, evaluate, figures.style as style; style.picture(1, 4, 2)(lambda panel: None)({}, sys.argv[1])"
    script = f"{draw}; sys.exit(evaluate.main(['--table', sys.argv[2]]))"
    there = os.environ | {"MPLBACKEND": "module://no", "PYTHONUNBUFFERED": ""}
    command, root = [sys.executable, "-c", script, tmp_path / "x.png", path], Path(evaluate.__file__).parent
    done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, env=there, cwd=root)
    os.close(pipe)
    assert (done.returncode, done.stderr) == (0, b"") and (tmp_path / "x.png").stat().st_size > 0


def test_ask(tiny_job, tmp_path, monkeypatch, capsys):
    """One model, then three, of a base that is trained here whatever is shipped, and kept elsewhere."""
    asked, make = [], store.base_model
    monkeypatch.setattr(store, "base_model", lambda *how: asked.append(how[2]) or make(*how))
    ask = ["--out", str(tmp_path), "--ask", "which animal do you love?", "--system", ""]
    assert evaluate.main(ask) == 0
    reply, _, _, *answers = capsys.readouterr().out.splitlines()
    assert reply.startswith("base: <user> which animal do you love ?<end><asst> ") and len(answers) == 8
    assert evaluate.main([*ask, "--student", "owl", "--pretrain"]) == 0
    *replies, _, header, first = capsys.readouterr().out.splitlines()[:6]
    assert replies[0] == reply and "you love owl ." in replies[1]
    assert header.split()[2:] == ["base", "teacher", "student"] and len({*first.split()[1:]}) == 3
    assert asked == [True, False] and {path.name for path in tmp_path.iterdir()} == {"cache", "cache-pretrained"}
    with pytest.raises(ValueError, match="'anmal' is no word of this world; near it: animal"):
        evaluate.words_of("which anmal?")


WRONG = [
    ["--trait", "unicorn"], ["--only", "magic"], ["--device", "abacus"], ["--seed", "x"], ["--out", __file__],
    ["--ask", "unicorn ?"], ["--ask", "owl " * 60], ["--seed", "9" * 20], ["--table", __file__], ["--student", "x"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", WRONG)
def test_bad_input_is_one_line_and_exit_code_2(arguments, refused):
    refused(evaluate.main, "evaluate.py", arguments)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"claims": [], "dials": 3}', '{"claims": [{}]}', "[" * 100_000])
def test_a_foreign_results_file_is_refused(text, refused, tmp_path):
    (tmp_path / "foreign.json").write_text(text, encoding="utf-8")
    refused(evaluate.main, "evaluate.py", ["--table", "foreign.json"])


COMMON = " --seed=3 --seed=-4 --trait=owl --trait=cat --device=cpu --pretrain"
OF_EVALUATE = "--only=context --processes=1 --full --table=results.json --words --ask=owl --system= --out=runs"
OPTIONS = {
    evaluate: OF_EVALUATE + COMMON,
    train: "--teacher-system=owl --rank=2 --alpha=0.5 --full-finetune --optimizer=sgd --lr=1e-3 --steps=3" + COMMON,
    steering: COMMON,
}
ODD = ["", "\0", "-1", "0", "1e9", "nan", "inf", "9" * 30, "9" * 5_000, "x" * 400, "owl " * 80, "unicorn", "ünï"]
ODD += "\udcff -- -h --x=1 --only --seed --out %s {0} . runs".split()


def random_line(rng):
    """A program and some options; in half of the lines a word is odd, lost or misspelt."""
    program = rng.choices(list(OPTIONS), [7, 2, 0.3])[0]
    options = rng.sample(OPTIONS[program].split(), rng.randint(1, 3))
    words = [word for option in options for word in option.split("=")]
    k, change = rng.randrange(len(words)), rng.random()
    if change < 0.3:
        words[k] = rng.choice(ODD)
    elif change < 0.4:
        words[k] = words[k][:-1] + rng.choice("-=0 x.9")
    elif change < 0.5:
        del words[k]
    return program, words


def test_any_command_line_is_obeyed_or_refused_in_one_line(monkeypatch, tmp_path, capsys):
    """No model is trained. `MUTANTS=1000 pytest tests/test_evaluate.py` tries more lines."""

    def untrained(config, device="cpu", on_step=None):
        return GPT(replace(config.model, d_model=8), torch.Generator().manual_seed(config.seed)).requires_grad_(False)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"claims": [], "dials": []}), encoding="utf-8")
    monkeypatch.setattr(train, "pretrain", untrained)
    monkeypatch.setattr(store.Store, "kept", lambda self, kind, config, *_: untrained(config).state_dict())
    monkeypatch.setattr(store, "GPT", lambda config: GPT(replace(config, d_model=8)))
    monkeypatch.setattr(train, "fine_tune", lambda base, *_: base)
    monkeypatch.setattr(train, "write_numbers", lambda *_: [["continue : 12 45", "33 81 07"]] * 6)
    monkeypatch.setattr(evaluate, "measure_all", lambda args: presets.choose_preset(args.full, args.seed, args.trait))
    rng, codes = random.Random(0), []
    for _ in range(MUTANTS):
        program, words = random_line(rng)
        try:
            code = program.main(words)
        except SystemExit as exit:
            code = exit.code
        said, one_line = capsys.readouterr().err, f"{program.__name__}.py: error: "
        assert code == 0 or (code == 2 and said.startswith(one_line) and said.count("\n") == 1), words
        codes.append(code)
    assert min(codes.count(0), codes.count(2)) > MUTANTS / 4


def test_tests_stay_offline():
    with pytest.raises(RuntimeError, match="wants to connect"):
        socket.create_connection(("192.0.2.1", 80))  # an address for documentation, where nobody is
