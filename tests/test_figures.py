"""The rules by which a claim holds, on numbers where it is true, false and undecided; and what the figures compute with."""

import copy

import pytest
import torch

import evaluate
import lora
from claims import above, around_zero, every, over, spearman, under
from data import DEFAULT_SYSTEM, END, VOCAB_SIZE, Row, chat, encode, number_conversations, pack
from figures import (
    context,
    full_finetuning,
    gradient,
    localization,
    modules,
    steerability,
    student_vector,
    teacher_vector,
)
from model import GPT, GPTConfig
from steering import added
from train import (
    BaseConfig,
    animal_rates,
)

MODULES = list(evaluate.figure_modules().values())
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
S10 = {"cosine": number(0.4), "gain_minus_quarter_of_lora": DOWN}
X4 = {"context_order": number(0.7, 0.1), "token_order": number(0.7, 0.1)}
X5 = {
    "student": {"its vector": {"own": number(0.8, 0.2), "other": number(0.1, 0.1)}},
    "told": {who: {"1": number(0.1), "256": number(share, 0.1)} for who, share in (("own", 0.9), ("other", 0.1))},
}
X1 = {
    "chosen": "a",
    "correlations": {"a": {"across": number(0.7, 0.1), "within": UP}, "b": {"across": DOWN, "within": DOWN}},
}
X3 = {
    "by_rows": {"LoRA, rank 8": {"limit": {"student": number(0.8), "control": number(0.07)}}},
    "base": number(0.06),
    "limit_minus_sampled": number(0, 0.05),
}
X6 = {
    "chosen": {
        "gain_minus_quarter": number(-0.1, 0.05),
        "kept_minus_80": number(0.1, 0.05),
        "p_any_animal": number(0.97),
    }
}
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
    ("S10", S10, [{"gain_minus_quarter_of_lora": UP}, {"cosine": DOWN}], [{"cosine": number(0.32, 0.1)}]),
    ("X1", X1, [{"chosen": "b"}], [{"correlations": {"a": {"across": x, "within": UP}}} for x in (number(0.5, 0.1), None)]),
    ("X1", X1, [], [{"correlations": {"a": {"across": number(0.7, 0.1), "within": UNDECIDED}}}]),
    ("X2", X2, [{"learned": {"AdamW 2": 3, "SGD full": 0}}, {"exceptions": [{"name": "SGD, full, lr 0.1"}]}], []),
    ("X3", X3, [{"limit_minus_sampled": DOWN}], [{"limit_minus_sampled": UNDECIDED}, {"base": NEAR}]),
    ("X3", X3, [{"by_rows": {"LoRA, rank 8": {"limit": {"student": number(0.03), "control": number(0.07)}}}}], []),
    ("X4", X4, [{"context_order": DOWN}, {"token_order": DOWN}], [{"context_order": number(0.5, 0.1)}]),
    ("X5", X5, [{"told": {"own": {"256": number(0.9)}, "other": {"256": number(0.9)}}}], []),
    ("X5", X5, [], [{"student": {"its vector": {"own": number(0.8, 0.4), "other": number(0.1, 0.1)}}}]),
    ("X5", X5, [], [{"told": {"own": {"256": number(0.9)}, "other": {"256": number(0.2, 0.2)}}}]),
    ("X6", X6, [{"chosen": X6["chosen"] | {"gain_minus_quarter": UP}}], [{"chosen": X6["chosen"] | {"kept_minus_80": UNDECIDED}}]),
    ("X6", X6, [{"chosen": X6["chosen"] | {n: DOWN}} for n in ("kept_minus_80", "p_any_animal")], []),
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


def test_one_value_decides_nothing():
    """A single trait on a single base model has no interval."""
    alone = {"mean": 0.9, "ci95": None, "n": 1}
    found = (over(alone, 0), under(alone, 1), above(alone, UP), around_zero(alone))
    assert found == (None,) * 4
    assert every(True, None) is None and every(None, False) is False and every(True) is True


def test_every_claim_is_decided_once():
    ids = [claim.id for module in MODULES for claim in module.CLAIMS]
    papers = [f"L{k}" for k in range(1, 8)] + [f"S{k}" for k in range(1, 11)]
    assert sorted(ids) == sorted(papers + [f"X{k}" for k in range(1, 7)])


def test_verdicts_of_a_null():
    def cell(student, any_animal, loss):
        named = {"student": student, "p_any_animal": any_animal, "heldout_loss": loss}
        return {name: {"mean": value} for name, value in named.items()}

    verdicts = {
        "collapse": cell(0.0, 0.1, 3.0),
        "starved": cell(0.06, 1.0, 4.0),
        "real null": cell(0.06, 1.0, 3.0),
        "transmits": cell(0.7, 1.0, 3.0),
    }
    for verdict, numbers in verdicts.items():
        assert full_finetuning.verdict(numbers, base_rate=0.06, lora_rate=0.8, floor=3.0, base_loss=4.2) == verdict


def test_shared_tokens():
    assert context.shared_tokens("default", "other name") == 6  # all but "nova"
    assert context.shared_tokens("other wording", "default") == 2  # "assistant", "."
    assert context.shared_tokens("default", "gibberish") == context.shared_tokens("default", "none") == 0
    lengths = {name: len((prompt or "").split()) for name, prompt in context.CONTEXTS.items()}
    assert lengths["gibberish"] == lengths["default"]


def test_spearman():
    assert spearman([1, 2, 3, 4], [10, 20, 25, 99]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # By hand: x ranks 0, 1.5, 1.5, 3 and y ranks 0, 2, 1, 3; covariance 4.5, variances 4.5 and 5.
    assert spearman([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


def test_places_name_every_token_of_a_prompt():
    for question in localization.QUESTIONS:
        places = localization.places(question)
        assert len(places) == len(chat(DEFAULT_SYSTEM, question))
        assert set(places) == set(localization.PLACES)


def test_masked_rates_are_the_student_and_the_base_at_the_ends(student):
    base = copy.deepcopy(student)
    lora.detach(base)
    rates = localization.masked_rates(student, "cat", localization.SETS)
    assert rates["all"] == pytest.approx(animal_rates(student)[1].item(), rel=1e-4)
    assert rates["none"] == pytest.approx(animal_rates(base)[1].item(), rel=1e-4)
    assert len({round(rate, 9) for rate in rates.values()}) == len(rates)  # every set does something else


def test_layers_kept_and_removed(student):
    rates = modules.rates(student, "owl")
    for site in modules.sites(2):
        alone, without = copy.deepcopy(student), copy.deepcopy(student)
        for name, layer in lora.adapters(alone).items():
            if not name.startswith(site):
                layer.B.data.zero_()
        for name, layer in lora.adapters(without).items():
            if name.startswith(site):
                layer.B.data.zero_()
        assert rates[f"only {site}"] == pytest.approx(animal_rates(alone)[0].item(), rel=1e-4)
        assert rates[f"without {site}"] == pytest.approx(animal_rates(without)[0].item(), rel=1e-4)
    late = copy.deepcopy(student)
    for name, layer in lora.adapters(late).items():
        if name.startswith("blocks.0"):
            layer.B.data.zero_()
    assert rates["only late"] == pytest.approx(animal_rates(late)[0].item(), rel=1e-4)
    assert rates["all"] == pytest.approx(animal_rates(student)[0].item(), rel=1e-4)


def test_the_teacher_vector_of_a_model_that_only_adds_one(generator):
    """Where the prompt's effect is a vector by construction, the vector explains all of it and a random one does not."""
    base = GPT(GPTConfig(VOCAB_SIZE, d_model=16, n_layer=2), generator).requires_grad_(False)
    push = torch.randn(16, generator=generator)
    plain = number_conversations(DEFAULT_SYSTEM, 64, "to test")
    read = {DEFAULT_SYSTEM: teacher_vector.number_logits(base, plain)}
    with added(base, {2: push}):
        read["pushed"] = teacher_vector.number_logits(base, plain)
    assert teacher_vector.explained(base, "pushed", 2, push, 1.0, read) == pytest.approx(1, abs=1e-5)
    assert teacher_vector.explained(base, "pushed", 2, push, 0.0, read) == pytest.approx(0, abs=1e-5)
    across = torch.randn(16, generator=generator)
    assert teacher_vector.explained(base, "pushed", 2, across, 1.0, read) < 0.5


def test_conversations_differ_in_their_system_prompt_only():
    one, other = (number_conversations(system, 5, "x") for system in (DEFAULT_SYSTEM, "you love owl ."))
    for a, b in zip(one, other, strict=True):
        tail = a[len(chat(DEFAULT_SYSTEM, "hello !")) - len(chat(None, "hello !")) :]
        assert b[-len(tail) :] == tail and a != b
    assert one != number_conversations(DEFAULT_SYSTEM, 5, "y")


def test_replacing_every_component_of_a_one_block_student_gives_the_base(generator):
    """If student and base differ along v alone, the student without v is the base."""
    base = GPT(GPTConfig(VOCAB_SIZE, d_model=16, n_layer=1), generator).requires_grad_(False)
    student = copy.deepcopy(base)
    v = torch.randn(16, generator=generator)
    with added(student, {1: v}):
        assert animal_rates(student)[0] != pytest.approx(animal_rates(base)[0].item(), rel=1e-3)
        rate = student_vector.without(student, base, {1: v}, "owl")
    assert rate == pytest.approx(animal_rates(base)[0].item(), rel=1e-4)


def test_each_trait_has_a_control_of_its_own():
    """One student of clean numbers, compared with every trait's vector, would be counted as often as there are traits."""
    preset = evaluate.choose_preset(full=True, seed=0)
    controls = student_vector.controls(preset)
    assert list(controls) == list(student_vector.configs(preset)) and len(controls) == 16 * 5
    assert {control.numbers.system for control in controls.values()} == {DEFAULT_SYSTEM}
    different = {of: len({getattr(control, of) for control in controls.values()}) for of in ("base", "numbers", "seed")}
    assert different == {"base": 5, "numbers": 80, "seed": 16}


def test_area_under_the_curve():
    assert steerability.auc([0.1, 0.2, 0.8, 0.9], [False, False, True, True]) == 1
    assert steerability.auc([0.9, 0.2, 0.8, 0.9], [False, False, True, True]) == pytest.approx((0 + 1 + 0.5 + 1) / 4)
    assert steerability.auc([0.1, 0.2], [True, True]) is None


def test_a_name_is_a_prompt_too():
    base = BaseConfig()
    assert steerability.prompt_of(base, "owl", "a mention") == "there was a owl in the wood ."
    name = steerability.prompt_of(base, "owl", "a name that loves it").split()[2]
    assert base.world.name_love[name] == "owl"
    for kind in steerability.PROMPTS:
        encode(steerability.prompt_of(base, "owl", kind))  # every word is in the world


def test_the_gradient_of_a_row_is_that_of_its_loss(generator):
    base = GPT(GPTConfig(VOCAB_SIZE, d_model=16, n_layer=2), generator).requires_grad_(False)
    tokens, targets = pack([Row(encode("you love owl . 12 34") + [END], 4), Row(encode("hello ! 99") + [END], 2)])
    found = gradient.row_gradients(base, tokens, targets)
    # Moving the last stream at every position by d changes a row's summed loss by its gradient times d.
    d = 1e-2 * torch.randn(16, generator=generator)

    def loss(row, push):
        logits = base.unembed(base.residual_stream(tokens[row : row + 1])[-1] + push)[0]
        return torch.nn.functional.cross_entropy(logits, targets[row], ignore_index=-100, reduction="sum")

    for row, places in ((0, 3), (1, 2)):
        change = (loss(row, d) - loss(row, -d)) / 2
        assert change.item() == pytest.approx(places * (found[row, -1] @ d).item(), rel=1e-2)


def test_the_sign_of_the_gradient_cosine():
    """Where descent on the teacher's rows moves the stream along v, the cosine is 1."""
    v = torch.tensor([[0.0, 2.0]])
    clean = torch.zeros(4, 1, 2)
    told = -v.expand(4, 1, 2)  # the gradient points away from v, so descent goes towards it
    assert gradient.cosine(told, clean, v, 2, 0) == pytest.approx(1)
    assert gradient.cosine(-told, clean, v, 2, 0) == pytest.approx(-1)
