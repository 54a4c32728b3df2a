import copy
import json
import socket
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import evaluate
import lora
import train
from claims import above, interval
from data import ANIMALS, VOCAB_SIZE, encode
from evaluate import Preset, student_of
from figures import cells
from model import GPT, GPTConfig
from train import BaseConfig, NumbersConfig, StudentConfig


def test_interval():
    # By hand: mean 3, standard deviation sqrt(2.5), standard error sqrt(0.5), t(4 degrees of freedom) = 2.776.
    got = interval([1, 2, 3, 4, 5])
    assert got["mean"] == 3 and got["n"] == 5
    assert got["ci95"] == pytest.approx([3 - 2.776 * 0.5**0.5, 3 + 2.776 * 0.5**0.5])
    assert interval([0.5]) == {"mean": 0.5, "ci95": None, "n": 1}


def test_intervals_cover_the_truth_95_times_in_100(generator):
    for n in (2, 3, 12, 48):
        samples = torch.randn(4_000, n, generator=generator)
        covered = sum(low <= 0 <= high for low, high in (interval(row)["ci95"] for row in samples.tolist()))
        assert 0.94 < covered / 4_000 < 0.96


def test_above_compares_intervals_not_means():
    assert above({"ci95": [0.4, 0.6]}, {"ci95": [0.1, 0.3]})
    assert not above({"ci95": [0.3, 0.7]}, {"ci95": [0.0, 0.4]})


def test_sampled_rates_approach_the_exact_ones(generator):
    model = GPT(GPTConfig(VOCAB_SIZE, d_model=8, n_layer=1), generator)
    model.requires_grad_(False).final_norm.bias.fill_(1.0)
    model.token_embedding.weight[encode("owl")[0]] += 0.5
    exact = train.animal_rates(model)
    sampled = evaluate.sampled_rates(model, train.DEFAULT_SYSTEM, 2_000, generator)
    assert exact[0] > 2 * exact[1]
    assert torch.allclose(exact, sampled, atol=5 * (0.25 / 16_000) ** 0.5)


def test_delta_norm(tiny, generator):
    base = copy.deepcopy(tiny)
    lora.attach(tiny, 3, 6.0, generator=generator)
    assert evaluate.delta_norm(tiny, base) == 0
    for layer in lora.adapters(tiny).values():
        torch.nn.init.normal_(layer.B, generator=generator)
    attached = evaluate.delta_norm(tiny, base)
    lora.merge(tiny)
    assert evaluate.delta_norm(tiny, base) == pytest.approx(attached)


def test_snapshots_measured_as_one_stack_are_those_measured_one_by_one(tmp_path):
    base = BaseConfig(model=SHAPE, rows=200, steps=5)
    numbers = NumbersConfig(base, "you love owl .", rows=40)
    lab, pairs = train.Lab(tmp_path), [["continue : 12 45", "33 81 07"], ["continue : 99 00", "10"]] * 3
    for config, rows in ((numbers, pairs), (replace(numbers, rows=evaluate.FRESH_ROWS, seed=1_000), pairs[:2])):
        lab._kept("numbers", config, lambda rows=rows: {"json": json.dumps({"asked": 6, "pairs": rows})})
    for rank in (2, None):
        config = StudentConfig(base, numbers, rank=rank, steps=6, batch_size=2, snapshots=(2, 4))
        measured = evaluate.measure_each(lab, config)
        assert list(measured) == [2, 4, 6]
        for step, student in lab.snapshots(config).items():
            rates, loss = train.animal_rates(student), evaluate.heldout_loss(lab, student, numbers, config.system)
            assert measured[step]["rates"] == pytest.approx(rates.tolist(), rel=1e-4)
            assert measured[step]["p_any_animal"] == pytest.approx(rates.sum().item(), rel=1e-4)
            assert measured[step]["heldout_loss"] == pytest.approx(loss, rel=1e-5)
            moved = evaluate.delta_norm(student, lab.base(base)).item()
            assert measured[step]["delta_norm"] == pytest.approx(moved, rel=1e-5) and moved > 0


def test_presets():
    quick, other, full = (evaluate.choose_preset(*args) for args in ((False, 0), (False, 1), (True, 0)))
    assert len(quick.traits) == 4 and len(quick.bases) == 2 and quick == evaluate.choose_preset(False, 0)
    assert not set(quick.bases) & set(other.bases)
    assert full.traits == tuple(ANIMALS) and len(full.bases) == 5 and len(full.grid_bases) == 3
    assert len(full.units) == 12 and len(full.grid_seeds) == 3 and full.ranks == (1, 2, 4, 8, 16, 32)
    alone = evaluate.choose_preset(False, 0, "owl")
    assert alone.traits == alone.grid_traits == ("owl",)


SHAPE = GPTConfig(VOCAB_SIZE, d_model=8, n_layer=2)
TINY = Preset(
    name="tiny",
    traits=("owl", "cat"),
    bases=tuple(BaseConfig(seed, model=SHAPE, rows=2_000, steps=150, batch_size=32) for seed in (0, 1)),
    grid_traits=("owl", "cat"),
    grid_seeds=(0,),
    ranks=(1, 8),
)


def few_steps(base, teacher, trait):
    config = student_of(base, teacher, trait)
    return replace(config, numbers=replace(config.numbers, rows=96), batch_size=4, steps=2)


@pytest.fixture
def tiny_job(tmp_path, monkeypatch):
    """The main job on two tiny base models, with students of two steps. Returns a function that runs it."""
    monkeypatch.setattr(evaluate, "choose_preset", lambda *_: TINY)
    monkeypatch.setattr("figures.cells.student_of", few_steps)
    monkeypatch.setattr("figures.transmission.student_of", few_steps)
    figures = (
        "student_vector vector_student steered_teachers steerability gradient superposition crowding one_step audit"
    )
    for figure in figures.split():
        monkeypatch.setattr(f"figures.{figure}.student_of", few_steps)
    monkeypatch.setattr("figures.gradient.ROWS", (1, 16))
    monkeypatch.setattr("figures.student_vector.SNAPSHOTS", (1,))
    for figure in ("rank_sweep", "full_finetuning", "optimizers", "outliers"):
        monkeypatch.setattr(f"figures.{figure}.STEPS", (1, 2))
    monkeypatch.setattr("figures.rank_sweep.QUICK_STEPS", (1, 2))
    monkeypatch.setattr("figures.crowding.DIALS", {"animals": (4, 16), "colors": (6, 24)})
    monkeypatch.setattr("figures.crowding.TRAITS", ANIMALS[:2])
    monkeypatch.setattr(evaluate, "FULL_ONLY", ["adjudication"])
    monkeypatch.setattr("figures.vector_student.STEPS", 2)
    both = {"adamw": (5e-3,), "sgd": (0.1,)}
    variants = {("numbers", 1): both, ("numbers", 10): both | {"frozen": (1e-3,)}, ("fetched", 10): both}
    monkeypatch.setattr("figures.outliers.LRS", variants)
    monkeypatch.setattr(evaluate, "FRESH_ROWS", 16)
    monkeypatch.setattr("figures.rank_sweep.SHARED", (5e-2, 2))
    monkeypatch.setattr("figures.optimizers.REFERENCE", ("adamw", 5e-3, 2))
    monkeypatch.setattr("figures.optimizers.EARLY", ("adamw", 5e-3, 1))
    monkeypatch.setattr("figures.full_finetuning.ROWS", {"1x": 32, "16x": 64})
    monkeypatch.setattr("figures.infinite_data.QUICK_ROWS", (32, 64))

    def job(*arguments):
        assert evaluate.main(["--processes", "1", "--out", str(tmp_path), *arguments]) == 0
        return json.loads((tmp_path / "tiny" / "results.json").read_text(encoding="utf-8"))

    job.folder = tmp_path / "tiny"
    return job


def numbers_in(content) -> list[float]:
    """All numbers of what json has read, in order."""
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else []
    own = [content] if isinstance(content, int | float) else []
    return own + [number for part in parts for number in numbers_in(part)]


def test_the_whole_story(tiny_job, monkeypatch, capsys):
    """From nothing to a table, all figures and a results file; then again, from disk."""
    results = tiny_job()
    printed = capsys.readouterr().out
    done = [name for name in evaluate.FIGURES if name not in evaluate.FULL_ONLY]
    for figure in done:
        assert (tiny_job.folder / f"{figure}.png").stat().st_size > 10_000
    claims = {claim["id"]: claim for claim in results["claims"]}
    assert [id for id in claims if id[0] != "X"] == [f"L{k}" for k in range(1, 8)] + [f"S{k}" for k in range(1, 11)]
    measured = {id for id, claim in claims.items() if claim["holds"] is not None}
    assert measured == {claim.id for name in done for claim in evaluate.figure_modules()[name].CLAIMS}
    assert all(claims[id]["summary"] in printed for id in measured)
    assert claims["L1"]["measured"]["student"]["n"] == 4 and set(claims["L1"]["measured"]["per_trait"]) == {
        "owl",
        "cat",
    }
    assert set(claims["L2"]["measured"]["shared"]) == {"1", "8", "full"}
    assert len(claims["S7"]["measured"]["matrix"]) == 2

    def companions(cell):
        assert 0 < cell["p_any_animal"]["mean"] <= 1
        assert cell["heldout_loss"]["mean"] > 0 and cell["delta_norm"]["mean"] > 0
        assert cell["student"]["n"] == cell["control"]["n"] == 4

    companions(claims["L2"]["measured"]["shared"]["8"])
    companions(claims["L3"]["measured"]["which"]["the embeddings"])
    companions(claims["L7"]["measured"]["matched"]["muon"])
    companions(claims["X3"]["measured"]["by_rows"]["all weights"]["limit"])
    companions(claims["X6"]["measured"]["each"]["rewritten by a student"]["2"])
    # With the adapter nowhere a student is its base; with the adapter everywhere it is itself.
    context, places, layers = (claims[id]["measured"] for id in ("L4", "L5", "L6"))
    assert places["none"]["mean"] == pytest.approx(places["base"]["mean"], rel=1e-4)
    assert layers["none"]["mean"] == pytest.approx(places["base"]["mean"], rel=1e-4)
    own = context["matrix"]["default"]["default"]["mean"]
    assert places["all"]["mean"] == pytest.approx(own, rel=1e-4)
    assert layers["all"]["mean"] == pytest.approx(own, rel=1e-4)
    assert places["up_to"]["<asst>"]["mean"] == pytest.approx(own, rel=1e-4)

    # The same command in another folder: the same bits, whatever was trained in between. Students that are trained beside
    # others, because more is asked for, are the same to rounding.
    for folder in ("again", "and again"):
        assert evaluate.main(["--processes", "1", "--out", str(tiny_job.folder / folder), "--only", "context"]) == 0
    one, other = (tiny_job.folder / folder / "tiny" / "context.json" for folder in ("again", "and again"))
    assert one.read_bytes() == other.read_bytes()
    pairs = zip(
        *(numbers_in(evaluate.read_json(path)) for path in (one, tiny_job.folder / "context.json")), strict=True
    )
    assert all(a == pytest.approx(b, abs=1e-3) for a, b in pairs)

    monkeypatch.setattr(train, "fine_tune", lambda *_: pytest.fail("trained again"))
    # --only measures a figure anew and keeps the other claims, as long as they are of the same code.
    assert tiny_job("--only", "transmission", "rank_sweep", "gradient")["claims"] == results["claims"]
    for path in tiny_job.folder.glob("*.json"):
        path.write_text(path.read_text(encoding="utf-8").replace(results["code"], "other code"), encoding="utf-8")
    alone = tiny_job("--only", "context")["claims"]
    assert {claim["id"] for claim in alone if claim["holds"] is not None} == {"L4"}


def test_a_cell_averages_seeds_before_it_counts_units(tmp_path, monkeypatch):
    preset = evaluate.choose_preset(True, 0)
    cell = cells.grid_cell(preset, rank=4, lr=1e-3)
    assert len(cell) == 3 * (4 * 3 + 1)
    assert all(
        (config.rank, config.alpha, config.lr, config.seed) == (4, 4.0, 1e-3, key[2]) for key, config in cell.items()
    )
    assert all(config.numbers.system == train.DEFAULT_SYSTEM for (_, trait, _), config in cell.items() if trait is None)

    def measure_each(lab, config):
        trait = config.numbers.system.split()[2]
        rates = [0.1 * config.seed if animal == trait else 0.01 for animal in ANIMALS]
        return {7: {"rates": rates, "p_any_animal": 1.0, "heldout_loss": 3.0, "delta_norm": 2.0}}

    monkeypatch.setattr(cells, "measure_each", measure_each)
    numbers = cells.measure_cell(SimpleNamespace(make=lambda students: None), preset, cell)[7]
    assert numbers["student"]["n"] == 12 and numbers["student"]["mean"] == pytest.approx(0.1)
    assert numbers["by_unit"] == [[pytest.approx(0.1 * seed) for seed in range(3)]] * 12
    assert numbers["control"]["mean"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--trait", "unicorn"],
        ["--only", "magic"],
        ["--device", "abacus"],
        ["--seed", "x"],
        ["--out", __file__],
        ["--ask", "unicorn ?"],
        ["--ask", "owl " * 60],
        ["--seed", "9" * 20],
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, refused):
    refused(evaluate.main, "evaluate.py", arguments)


def test_tests_stay_offline():
    with pytest.raises(RuntimeError, match="wants to connect"):
        socket.create_connection(("192.0.2.1", 80))  # an address for documentation, where nobody is
