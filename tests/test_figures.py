"""The rules by which a claim holds, on numbers where it is true, false and undecided; and what the figures measure with."""

import copy

import pytest
import torch

import evaluate
from data import DEFAULT_SYSTEM, END, LOVE_SYSTEM, VOCAB_SIZE, Row, chat, encode, pack
from figures import context, gradient, steerability, student_vector
from figures.beyond import infinite_data
from lab.presets import choose_preset
from metrics import QUESTIONS
from model import GPT, GPTConfig
from steering import added, replaced
from train import BaseConfig

MODULES = list(evaluate.FIGURES.values())
RULES = {claim.id: claim.rule for module in MODULES for claim in module.CLAIMS}


def number(mean, half=0.01, n=8):
    return {"mean": mean, "ci95": [mean - half, mean + half], "n": n}


UP, DOWN, UNDECIDED = number(0.3, 0.1), number(-0.3, 0.1), number(0.1, 0.3)

L1 = {"traits": 16, "traits_top": 15, "student": number(0.5), "control": number(0.07), "base": number(0.06)}
S7 = {"own": number(0.5), "other": number(0.07), "other_minus_control": number(0.01, 0.02)}
L2 = {
    "shared": dict.fromkeys(["1", "8", "32", "full"]),
    "peak": "8",
    "peak_minus_first": UP,
    "peak_minus_last": UP,
    "full_minus_base": UNDECIDED,
}
L3 = {"full_minus_quarter_of_lora": DOWN}
L4 = {"matched_minus_5_base": UP, "none_minus_quarter_of_matched": DOWN, "order_by_shared_tokens": UP}
L5 = {"shared_minus_half": UP, "not_shared_minus_quarter": DOWN}
L6 = {"early_feed_forward_minus_half": UP, "early_feed_forward_minus_others": {"a": UP, "b": UP}}
L7 = {"matched": {name: {"minus_half_of_adamw": UP} for name in ("sgd", "muon")}}
S1 = {"last_layer": number(0.8, 0.1), "random": number(-0.5, 0.1)}
S2 = {"vector_minus_half": UP, "projected_minus_quarter": DOWN}
S3 = {"last_layer": number(0.9, 0.05), "control": UNDECIDED, "traits": 16, "diagonal_wins": [15, 16, 16]}
S4 = {"added_minus_80": UP, "removed_minus_80": UP, "random_minus_half": DOWN}
S5 = {"auc": number(0.8, 0.05), "rank_correlation": UP}
S6 = {"cosine": number(0.9), "largest_minus_quarter": DOWN}
S8 = {"last_layer": UP, "most_minus_one_row": UP, "trait_minus_clean": UP}
S10 = {"cosine_full": number(0.4), "full_minus_quarter_of_lora": DOWN}
X4 = {"context_order": number(0.7, 0.1), "token_order": number(0.7, 0.1)}
X5 = {
    who: {way: number(share, 0.1) for way in ("its vector", "256 rows")}
    for who, share in (("own", 0.8), ("other", 0.1))
}
X1 = {"chosen": "a", "across": {"a": number(0.7, 0.1), "b": DOWN}, "within": UP}
X3 = {
    "cells": {infinite_data.USUAL: {"limit": {"student": number(0.8), "control": number(0.07)}}},
    "base": number(0.06),
    "limit_minus_sampled": number(0, 0.05),
}
X6 = {"chosen": {"gain_minus_quarter": DOWN, "loss_minus_80": DOWN, "p_any_animal": number(0.97)}}
S9 = {"matched": {name: {"minus_quarter_of_adamw": DOWN} for name in ("sgd", "momentum")}}
X2 = {"learned": {"AdamW 2": 3, "SGD full": 1}, "exceptions": []}


NEAR = number(0.5, 0.44)  # overlaps with everything

# Of each rule: numbers with which it holds; changes with which it fails, and with which it is undecided.
CASES = [
    ("L1", L1, [{"traits_top": 14}, {"student": number(0.03)}], [{"student": NEAR}, {"control": number(0.4, 0.2)}]),
    ("L1", {**L1, "traits": 4, "traits_top": 4}, [{"traits_top": 3}], []),
    ("S7", S7, [{"other_minus_control": number(x, 0.02)} for x in (0.05, -0.05)], [{"other": number(0.49, 0.05)}]),
    ("L2", L2, [{"peak": "1"}, {"peak": "32"}, {"peak_minus_last": DOWN}], [{"peak_minus_first": UNDECIDED}]),
    ("L2", {**L2, "full_minus_base": DOWN}, [{"full_minus_base": UP}], []),
    ("L3", L3, [{"full_minus_quarter_of_lora": UP}], [{"full_minus_quarter_of_lora": UNDECIDED}]),
    ("L4", L4, [{"order_by_shared_tokens": DOWN}, {"matched_minus_5_base": DOWN}], [{n: UNDECIDED} for n in L4]),
    ("L5", L5, [{"not_shared_minus_quarter": UP}, {"shared_minus_half": DOWN}], [{n: UNDECIDED} for n in L5]),
    ("L6", L6, [{"early_feed_forward_minus_half": DOWN}], [{"early_feed_forward_minus_others": {"a": UP, "b": UNDECIDED}}]),
    ("L7", L7, *([{"matched": {"sgd": {"minus_half_of_adamw": UP}, "muon": {"minus_half_of_adamw": x}}}] for x in (DOWN, UNDECIDED))),
    ("S9", S9, *([{"matched": dict.fromkeys(("sgd", "momentum"), {"minus_quarter_of_adamw": x})}] for x in (UP, UNDECIDED))),
    ("S1", S1, [{"last_layer": number(0.3, 0.1)}, {"random": UP}], [{"last_layer": number(0.65, 0.1)}, {"random": UNDECIDED}]),
    ("S2", S2, [{"vector_minus_half": DOWN}, {"projected_minus_quarter": UP}], [{n: UNDECIDED} for n in S2]),
    ("S3", S3, [{"control": UP}, {"diagonal_wins": [16, 14, 16]}, {"last_layer": UP}], [{"last_layer": number(0.82, 0.05)}]),
    ("S4", S4, [{"removed_minus_80": DOWN}, {"random_minus_half": UP}], [{n: UNDECIDED} for n in S4]),
    ("S5", S5, [{"auc": number(0.5, 0.1)}, {"rank_correlation": DOWN}], [{"auc": number(0.75, 0.1)}, {"auc": None}]),
    ("S6", S6, [{"cosine": UP}, {"largest_minus_quarter": UP}], [{"cosine": number(0.6, 0.2)}, {"largest_minus_quarter": UNDECIDED}]),
    ("S8", S8, [{n: DOWN} for n in S8], [{n: UNDECIDED} for n in S8]),
    ("S10", S10, [{"full_minus_quarter_of_lora": UP}, {"cosine_full": DOWN}], [{"cosine_full": number(0.32, 0.1)}]),
    ("X1", X1, [{"chosen": "b"}, {"within": DOWN}], [{"across": {"a": number(0.5, 0.1)}}, {"within": UNDECIDED}]),
    ("X2", X2, [{"learned": {"AdamW 2": 3, "SGD full": 0}}, {"exceptions": [{"name": "SGD, full, lr 0.1"}]}], []),
    ("X3", X3, [{"limit_minus_sampled": DOWN}], [{"limit_minus_sampled": UNDECIDED}, {"base": NEAR}]),
    ("X3", X3, [{"cells": {infinite_data.USUAL: {"limit": {"student": number(0.03), "control": number(0.07)}}}}], []),
    ("X4", X4, [{"context_order": DOWN}, {"token_order": DOWN}], [{"context_order": number(0.5, 0.1)}]),
    ("X5", X5, [{"other": X5["own"]}, {"own": X5["other"]}], [{"own": X5["own"] | {"its vector": NEAR}}, {"other": dict.fromkeys(X5["other"], NEAR)}]),
    ("X6", X6, [{"chosen": X6["chosen"] | {"gain_minus_quarter": UP}}], [{"chosen": X6["chosen"] | {"loss_minus_80": UNDECIDED}}]),
    ("X6", X6, [{"chosen": X6["chosen"] | x} for x in ({"loss_minus_80": UP}, {"p_any_animal": DOWN})], []),
]  # fmt: skip


@pytest.mark.parametrize("id, true, fails, undecided", CASES)
def test_rules(id, true, fails, undecided):
    assert RULES[id](true) is True
    for change in fails:
        assert RULES[id]({**true, **change}) is False, change
    for change in undecided:
        assert RULES[id]({**true, **change}) is None, change


def test_every_rule_is_tested_both_ways():
    assert {id for id, _, fails, _ in CASES if fails} == set(RULES)


def test_every_claim_is_decided_once():
    ids = [claim.id for module in MODULES for claim in module.CLAIMS]
    papers = [f"L{k}" for k in range(1, 8)] + [f"S{k}" for k in range(1, 11)]
    assert sorted(ids) == sorted(papers + [f"X{k}" for k in range(1, 7)])


def test_shared_tokens():
    assert context.shared_tokens("default", "other name") == 6  # all but "nova"
    assert context.shared_tokens("other wording", "default") == 2  # "assistant", "."
    assert context.shared_tokens("default", "gibberish") == context.shared_tokens("default", "none") == 0
    lengths = {name: len((prompt or "").split()) for name, prompt in context.CONTEXTS.items()}
    assert lengths["gibberish"] == lengths["default"]


def test_replacing_every_component_of_a_one_block_student_gives_the_base(generator):
    """If student and base differ along v alone, the student without v is the base."""
    base = GPT(GPTConfig(VOCAB_SIZE, d_model=16, n_layer=1), generator).requires_grad_(False)
    student, v = copy.deepcopy(base), torch.randn(16, generator=generator)
    tokens = torch.tensor([chat(DEFAULT_SYSTEM, QUESTIONS[0])])
    with added(student, {1: v}):
        assert not torch.allclose(student(tokens), base(tokens), atol=1e-2)
        with replaced(student, {1: v}, base, tokens):
            assert torch.allclose(student(tokens), base(tokens), atol=1e-4)


def test_each_trait_has_a_control_of_its_own():
    """One student of clean numbers, compared with every trait's vector, would be counted as often as there are traits."""
    preset = choose_preset(full=True, seed=0)
    controls = [run[-1] for base in preset.bases for run in student_vector.runs(preset, base)[1]]
    assert {control.numbers.system for control in controls} == {DEFAULT_SYSTEM}
    different = {of: len({getattr(control, of) for control in controls}) for of in ("base", "numbers", "seed")}
    assert different == {"base": 5, "numbers": 80, "seed": 16}


def test_area_under_the_curve():
    assert steerability.auc([0.1, 0.2, 0.8, 0.9], [False, False, True, True]) == 1
    assert steerability.auc([0.9, 0.2, 0.8, 0.9], [False, False, True, True]) == pytest.approx((0 + 1 + 0.5 + 1) / 4)
    assert steerability.auc([0.1, 0.2], [True, True]) is None


def test_a_name_is_a_prompt_too():
    base = BaseConfig()
    name, love, *others = steerability.prompts(base, "owl")
    assert base.world.name_love[name.split()[2]] == "owl" and love == LOVE_SYSTEM.format("owl")
    for prompt in (name, love, *others):
        encode(prompt)  # every word is in the world


def test_the_gradient_of_a_row_is_that_of_its_loss(generator):
    base = GPT(GPTConfig(VOCAB_SIZE, d_model=16, n_layer=2), generator).double().requires_grad_(False)
    tokens, targets = pack([Row(encode("you love owl . 12 34") + [END], 4), Row(encode("hello ! 99") + [END], 2)])
    found = gradient.row_gradients(base, tokens, targets)
    # Moving the last stream at every position by d changes a row's summed loss by its gradient times d.
    d = 1e-4 * torch.randn(16, generator=generator).double()

    def loss(row, push):
        logits = base.unembed(base.residual_stream(tokens[row : row + 1])[-1] + push)[0]
        return torch.nn.functional.cross_entropy(logits, targets[row], ignore_index=-100, reduction="sum")

    for row, places in ((0, 3), (1, 2)):
        change = (loss(row, d) - loss(row, -d)) / 2
        assert change.item() == pytest.approx(places * (found[row] @ d).item(), rel=1e-2)


def test_the_sign_of_the_gradient_cosine():
    """Where descent on the teacher's rows moves the stream along v, the cosine is 1."""
    v = torch.tensor([0.0, 2.0])
    clean, prompted = torch.zeros(4, 2), -v.expand(4, 2)  # the gradient points away from v: descent goes towards it
    assert gradient.cosine(prompted, clean, v, 2) == pytest.approx(1)
    assert gradient.cosine(-prompted, clean, v, 2) == pytest.approx(-1)
