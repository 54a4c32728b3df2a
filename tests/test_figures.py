"""The rules by which a claim holds, on numbers where it is true, false and undecided; and what the figures measure with."""

import pytest
import torch

import evaluate
from data import DEFAULT_SYSTEM, END, VOCAB_SIZE, Row, encode, pack
from figures import context, gradient, steerability, student_vector
from lab.presets import choose_preset
from model import GPT, GPTConfig
from train import BaseConfig

MODULES = list(evaluate.FIGURES.values())
CLAIMS = {claim.id: claim for module in MODULES for claim in module.CLAIMS}


def number(mean, half=0.01, n=8):
    return {"mean": mean, "ci95": [mean - half, mean + half], "n": n}


UP, DOWN, UNDECIDED = number(0.3, 0.1), number(-0.3, 0.1), number(0.1, 0.3)
HIGH, NEAR = number(0.95), number(0.5, 0.45)  # NEAR crosses every threshold


def u(peak="8", first=UP, last=UP):
    return {"peak": peak, "peak_minus_first": first, "peak_minus_last": last}


def curve(student, control=DOWN):
    return {"curve": {"student": [[student]], "control": [[control]]}}


def optimizers(how, share, sgd, other):
    """Measured of SGD and of Muon or momentum."""
    known = {"sgd": sgd, "muon": other, "momentum": other}
    return {how: {name: {f"minus_{share}_of_adamw": number} for name, number in known.items()}}


VECTOR, OUT = "vector added at the prompt", "last vector projected out"
RANKS = {"shared": dict.fromkeys(["1", "8", "32", "full"])}
ASST, WAYS = "teacher, <asst>", ("its vector", "256 rows")

# Of each rule: numbers with which it holds, with which it fails and with which it is undecided.
CASES = [
    ("L1", "seen", {"minus_base": UP}, [{"minus_base": DOWN}], [{"minus_base": UNDECIDED}]),
    ("L1", "survives", {"minus_control": UP, "minus_style": UP, "traits_top": 15, "traits": 16}, [{"traits_top": 14}, {"minus_control": DOWN}, {"minus_style": DOWN}], [{"minus_style": UNDECIDED}]),
    ("S7", "seen", {"own_minus_other": UP}, [{"own_minus_other": DOWN}], [{"own_minus_other": UNDECIDED}]),
    ("S7", "survives", {"other_minus_10%": DOWN}, [{"other_minus_10%": UP}], [{"other_minus_10%": UNDECIDED}]),
    ("L2", "seen", RANKS | {"at_shared": u(), "full_minus_base": UNDECIDED}, [{"at_shared": u("1")}, {"at_shared": u("32")}, {"at_shared": u(last=DOWN)}, {"full_minus_base": UP}], [{"at_shared": u(first=UNDECIDED)}]),
    ("L2", "survives", RANKS | {"at_best": u()}, [{"at_best": u("1")}, {"at_best": u(first=DOWN)}], [{"at_best": u(last=UNDECIDED)}]),
    ("L3", "seen", {"shared": {"minus_quarter_of_lora": DOWN}}, [{"shared": {"minus_quarter_of_lora": UP}}], [{"shared": {"minus_quarter_of_lora": UNDECIDED}}]),
    ("L3", "survives", {"own": {"minus_quarter_of_lora": DOWN}}, [{"own": {"minus_quarter_of_lora": UP}}], [{"own": {"minus_quarter_of_lora": UNDECIDED}}]),
    ("L4", "seen", {"none_minus_quarter": DOWN}, [{"none_minus_quarter": UP}], [{"none_minus_quarter": UNDECIDED}]),
    ("L4", "survives", {"none_minus_quarter_log_odds": DOWN, "p_any_animal": {"default": {"none": HIGH}}}, [{"none_minus_quarter_log_odds": UP}, {"p_any_animal": {"default": {"none": DOWN}}}], [{"none_minus_quarter_log_odds": UNDECIDED}]),
    ("L5", "seen", {"gain": UP, "shared_minus_half": UP}, [{"shared_minus_half": DOWN}, {"gain": DOWN}], [{"shared_minus_half": UNDECIDED}]),
    ("L5", "survives", {"not_shared_minus_quarter": DOWN, "unprompted_not_shared_minus_quarter": DOWN}, [{"not_shared_minus_quarter": UP}, {"unprompted_not_shared_minus_quarter": UP}], [{"not_shared_minus_quarter": UNDECIDED}]),
    ("L6", "seen", {"gain": UP, "early_minus_half": UP}, [{"early_minus_half": DOWN}, {"gain": DOWN}], [{"gain": UNDECIDED}]),
    ("L6", "survives", {"rest_minus_quarter": DOWN}, [{"rest_minus_quarter": UP}], [{"rest_minus_quarter": UNDECIDED}]),
    ("L7", "seen", optimizers("best", "half", UP, UP), [optimizers("best", "half", DOWN, UP)], [optimizers("best", "half", UP, UNDECIDED)]),
    ("L7", "survives", optimizers("matched", "half", UP, UP), [optimizers("matched", "half", UP, DOWN)], [optimizers("matched", "half", UNDECIDED, UP)]),
    ("S9", "seen", optimizers("matched", "quarter", DOWN, UP), [optimizers("matched", "quarter", UP, DOWN)], [optimizers("matched", "quarter", UNDECIDED, UP)]),
    ("S9", "survives", optimizers("matched", "quarter", UP, DOWN) | optimizers("best", "quarter", DOWN, UP), [optimizers("matched", "quarter", DOWN, UP), optimizers("best", "quarter", UP, DOWN)], [optimizers("best", "quarter", UNDECIDED, DOWN)]),
    ("S1", "seen", {"explained": {"template": [DOWN, number(0.8, 0.1)]}}, [{"explained": {"template": [UP, number(0.3, 0.1)]}}], [{"explained": {"template": [UP, number(0.65, 0.1)]}}]),
    ("S1", "survives", {"explained": {"random": [UP, DOWN]}}, [{"explained": {"random": [DOWN, UP]}}], [{"explained": {"random": [DOWN, UNDECIDED]}}]),
    ("S2", "seen", {f"{VECTOR} minus 0.5": UP, f"{OUT} minus 0.25": DOWN}, [{f"{VECTOR} minus 0.5": DOWN}, {f"{OUT} minus 0.25": UP}], [{f"{OUT} minus 0.25": UNDECIDED}]),
    ("S2", "survives", {"random vector added minus 0.25": DOWN, "random vector projected out minus 0.5": UP}, [{"random vector added minus 0.25": UP}, {"random vector projected out minus 0.5": DOWN}], [{"random vector added minus 0.25": UNDECIDED}]),
    ("S3", "seen", curve(number(0.9, 0.05)), [curve(UP)], [curve(number(0.7, 0.05))]),
    ("S3", "survives", curve(UP, number(0.1, 0.05)) | {"own_nearest": HIGH}, [curve(UP, HIGH), {"own_nearest": UP}], [curve(UP, number(0.1, 0.15)), {"own_nearest": NEAR}]),
    ("S4", "seen", {"added_minus_half": UP, "replaced_minus_half": DOWN}, [{"added_minus_half": DOWN}, {"replaced_minus_half": UP}], [{"added_minus_half": UNDECIDED}]),
    ("S4", "survives", {"random_added_minus_half": DOWN, "random_replaced_minus_half": UP}, [{"random_added_minus_half": UP}, {"random_replaced_minus_half": DOWN}], [{"random_replaced_minus_half": UNDECIDED}]),
    ("S5", "seen", {"ranks": {"steered": UP}}, [{"ranks": {"steered": DOWN}}], [{"ranks": {"steered": UNDECIDED}}]),
    ("S5", "survives", {"steered_minus_prompted": UP}, [{"steered_minus_prompted": DOWN}], [{"steered_minus_prompted": UNDECIDED}]),
    ("S6", "seen", {"cosine": number(0.9)}, [{"cosine": UP}], [{"cosine": number(0.6, 0.2)}]),
    ("S6", "survives", {"cosine_control": number(0.1, 0.05), "largest_minus_quarter": DOWN}, [{"cosine_control": HIGH}, {"largest_minus_quarter": UP}], [{"largest_minus_quarter": UNDECIDED}]),
    ("S8", "seen", {"cosine": {ASST: [DOWN, UP]}, "minus_one_row": UP}, [{"cosine": {ASST: [UP, DOWN]}}, {"minus_one_row": DOWN}], [{"minus_one_row": UNDECIDED}]),
    ("S8", "survives", {"minus_clean": UP}, [{"minus_clean": DOWN}], [{"minus_clean": UNDECIDED}]),
    ("S10", "seen", {"own": {"cosine_full": number(0.4), "minus_quarter_of_lora": DOWN}}, [{"own": {"cosine_full": number(0.4), "minus_quarter_of_lora": UP}}, {"own": {"cosine_full": DOWN, "minus_quarter_of_lora": DOWN}}], [{"own": {"cosine_full": UNDECIDED, "minus_quarter_of_lora": DOWN}}]),
    ("S10", "survives", {"own": {"p_any_animal": HIGH}}, [{"own": {"p_any_animal": UP}}], [{"own": {"p_any_animal": NEAR}}]),
    ("X1", "seen", {"chosen": "a", "across": {"a": number(0.7, 0.1), "b": DOWN}}, [{"chosen": "b"}], [{"across": {"a": number(0.5, 0.1)}}]),
    ("X1", "survives", {"within": UP}, [{"within": DOWN}], [{"within": UNDECIDED}]),
    ("X2", "seen", {"learned": {"AdamW 2": 3}, "exceptions": []}, [{"exceptions": ["SGD, full, lr 0.1"]}, {"learned": {"AdamW 2": 0}}], []),
    ("X2", "survives", {"learned": {"AdamW 2": 3, "SGD full": 1}}, [{"learned": {"AdamW 2": 3, "SGD full": 0}}], []),
    ("X3", "seen", {"limit_minus_base": UP}, [{"limit_minus_base": DOWN}], [{"limit_minus_base": UNDECIDED}]),
    ("X3", "survives", {"limit_minus_control": UP, "limit_minus_sampled": number(0, 0.05)}, [{"limit_minus_control": DOWN}, {"limit_minus_sampled": DOWN}], [{"limit_minus_sampled": UNDECIDED}]),
    ("X4", "seen", {"context_order": number(0.7, 0.1), "token_order": number(0.7, 0.1)}, [{"context_order": DOWN}, {"token_order": DOWN}], [{"context_order": number(0.5, 0.1)}]),
    ("X4", "survives", {"token_minus_clean": UP}, [{"token_minus_clean": DOWN}], [{"token_minus_clean": UNDECIDED}]),
    ("X5", "seen", {"own": dict.fromkeys(WAYS, HIGH)}, [{"own": dict.fromkeys(WAYS, UP)}], [{"own": {WAYS[0]: HIGH, WAYS[1]: NEAR}}]),
    ("X5", "survives", {"other": dict.fromkeys(WAYS, number(0.1))}, [{"other": dict.fromkeys(WAYS, HIGH)}], [{"other": dict.fromkeys(WAYS, NEAR)}]),
    ("X6", "seen", {"chosen": {"gain_minus_quarter": DOWN}}, [{"chosen": {"gain_minus_quarter": UP}}], [{"chosen": {"gain_minus_quarter": UNDECIDED}}]),
    ("X6", "survives", {"chosen": {"loss_minus_80": DOWN, "p_any_animal": HIGH}}, [{"chosen": {"loss_minus_80": UP, "p_any_animal": HIGH}}, {"chosen": {"loss_minus_80": DOWN, "p_any_animal": UP}}], [{"chosen": {"loss_minus_80": DOWN, "p_any_animal": NEAR}}]),
]  # fmt: skip


@pytest.mark.parametrize("id, rule, true, fails, undecided", CASES)
def test_rules(id, rule, true, fails, undecided):
    decide = getattr(CLAIMS[id], rule)
    assert decide(true) is True
    for change in fails:
        assert decide({**true, **change}) is False, change
    for change in undecided:
        assert decide({**true, **change}) is None, change


def test_every_claim_is_decided_once_and_every_rule_tested_both_ways():
    ids = [*(f"L{k}" for k in range(1, 8)), *(f"S{k}" for k in range(1, 11)), *(f"X{k}" for k in range(1, 7))]
    assert sorted(claim.id for module in MODULES for claim in module.CLAIMS) == sorted(ids)
    rules = [(id, rule) for id, rule, _, fails, _ in CASES if fails]
    assert sorted(rules) == sorted((id, rule) for id in ids for rule in ("seen", "survives"))


def test_shared_tokens():
    assert context.shared_tokens("default", "other name") == 6  # all but "nova"
    assert context.shared_tokens("other wording", "default") == 2  # "assistant", "."
    assert context.shared_tokens("default", "gibberish") == context.shared_tokens("default", "none") == 0
    assert len(context.CONTEXTS["gibberish"].split()) == len(DEFAULT_SYSTEM.split())


def test_controls_of_a_base_model_have_seeds_and_rows_of_their_own():
    preset = choose_preset(full=True, seed=0)
    controls = [run[-1] for base in preset.bases for run in student_vector.runs(preset, base)[1]]
    assert {control.numbers.system for control in controls} == {DEFAULT_SYSTEM}
    different = {of: len({getattr(control, of) for control in controls}) for of in ("base", "numbers", "seed")}
    assert different == {"base": 20, "numbers": 80, "seed": 4}


def test_the_prompts_of_steerability_and_the_area_under_its_curve():
    name, *others = steerability.prompts(BaseConfig(), "owl")
    assert name.split()[2] == BaseConfig().world.lover_name["owl"] and all("owl" in other for other in others)
    assert steerability.auc([0.1, 0.2, 0.8, 0.9], [False, False, True, True]) == 1
    assert steerability.auc([0.9, 0.2, 0.8, 0.9], [False, False, True, True]) == pytest.approx((0 + 1 + 0.5 + 1) / 4)
    assert steerability.auc([0.1, 0.2], [True, True]) is None


def test_the_gradient_of_a_row_is_that_of_its_loss_and_descent_goes_against_it(generator):
    base = GPT(GPTConfig(VOCAB_SIZE, d_model=16, n_layer=2), generator).double().requires_grad_(False)
    tokens, targets = pack([Row(encode("you love owl . 12 34") + [END], 4), Row(encode("hello ! 99") + [END], 2)])
    found = gradient.row_gradients(base, tokens, targets)["all numbers"]
    # Moving the last stream at every position by d changes a row's summed loss by its gradient times d.
    d = 1e-4 * torch.randn(16, generator=generator).double()

    def loss(row, push):
        logits = base.unembed(base.residual_stream(tokens[row : row + 1])[-1] + push)[0]
        return torch.nn.functional.cross_entropy(logits, targets[row], ignore_index=-100, reduction="sum")

    for row, places in ((0, 3), (1, 2)):
        change = (loss(row, d) - loss(row, -d)) / 2
        assert change.item() == pytest.approx(places * (found[row] @ d).item(), rel=1e-2)
    v = torch.tensor([0.0, 2.0])
    clean, prompted = torch.zeros(4, 2), -v.expand(4, 2)  # the gradient points away from v: descent goes towards it
    assert gradient.cosine(prompted, clean, v, 2) == pytest.approx(1)
    assert gradient.cosine(-prompted, clean, v, 2) == pytest.approx(-1)
