import copy
import json
from dataclasses import replace

import pytest
import torch

import evaluate
import lora
import train
from data import ANIMALS, VOCAB_SIZE, encode
from evaluate import CLAIMS, Preset, above, interval
from model import GPT, GPTConfig
from train import BaseConfig


def number(mean, half=0.01, n=48):
    return {"mean": mean, "ci95": [mean - half, mean + half], "n": n}


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
    assert above(number(0.5, 0.1), number(0.2, 0.1))
    assert not above(number(0.5, 0.2), number(0.2, 0.2))


L1 = {"traits": 16, "traits_top": 15, "student": number(0.5), "control": number(0.07), "base": number(0.06)}
S7 = {"own": number(0.5), "other": number(0.07), "other_minus_control": number(0.01, 0.02)}


def test_rule_of_transmission():
    holds = {claim.id: claim.holds for claim in CLAIMS}["L1"]
    assert holds(L1)
    assert not holds({**L1, "traits_top": 14})
    assert not holds({**L1, "student": number(0.5, 0.44)})
    assert not holds({**L1, "control": number(0.4, 0.2)})
    assert holds({**L1, "traits": 4, "traits_top": 4}) and not holds({**L1, "traits": 4, "traits_top": 3})


def test_rule_of_cross_model():
    holds = {claim.id: claim.holds for claim in CLAIMS}["S7"]
    assert holds(S7)
    assert not holds({**S7, "other": number(0.49, 0.05)})
    assert not holds({**S7, "other_minus_control": number(0.05, 0.02)})


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


def test_presets():
    quick, other, full = (evaluate.choose_preset(*args) for args in ((False, 0), (False, 1), (True, 0)))
    assert len(quick.traits) == 4 and len(quick.bases) == 2 and quick == evaluate.choose_preset(False, 0)
    assert not set(quick.bases) & set(other.bases)
    assert full.traits == tuple(ANIMALS) and len(full.bases) == 3
    assert evaluate.choose_preset(False, 0, "owl").traits == ("owl",)


def test_the_whole_story(tmp_path, monkeypatch, capsys):
    """Two tiny base models, two traits: from nothing to a table, a figure and a results file; then again, from disk."""
    shape = GPTConfig(VOCAB_SIZE, d_model=16, n_layer=1)
    bases = tuple(BaseConfig(seed, model=shape, rows=2_000, steps=250, batch_size=32) for seed in (0, 1))
    monkeypatch.setattr(evaluate, "choose_preset", lambda *_: Preset("tiny", ("owl", "cat"), bases))
    full_size = evaluate.student_of

    def small(*who):
        config = full_size(*who)
        return replace(config, numbers=replace(config.numbers, rows=300), rank=4, steps=10)

    monkeypatch.setattr("figures.transmission.student_of", small)
    assert evaluate.main(["--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "tiny" / "results.json").read_text(encoding="utf-8"))
    assert (tmp_path / "tiny" / "transmission.png").stat().st_size > 10_000
    assert [claim["id"] for claim in results["claims"]] == [claim.id for claim in CLAIMS]
    claims = {claim["id"]: claim for claim in results["claims"]}
    assert {id for id, claim in claims.items() if claim["holds"] is not None} == {"L1", "S7"}
    measured = claims["L1"]["measured"]
    assert measured["student"]["n"] == 4 and set(measured["per_trait"]) == {"owl", "cat"}
    for who in ("student", "control"):
        assert 0 < measured[f"{who}_p_any_animal"]["mean"] <= 1
        assert measured[f"{who}_heldout_loss"]["mean"] > 0 and measured[f"{who}_delta_norm"]["mean"] > 0
    assert len(claims["S7"]["measured"]["matrix"]) == 2
    assert "L1" in printed and "not measured yet" in printed

    monkeypatch.setattr(train, "fine_tune", lambda *_: pytest.fail("trained again"))
    assert evaluate.main(["--out", str(tmp_path)]) == 0
    again = json.loads((tmp_path / "tiny" / "results.json").read_text(encoding="utf-8"))
    assert again["claims"] == results["claims"]


@pytest.mark.parametrize(
    "arguments",
    [["--trait", "unicorn"], ["--only", "magic"], ["--device", "abacus"], ["--seed", "x"], ["--out", __file__]],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, refused):
    refused(evaluate.main, "evaluate.py", arguments)
