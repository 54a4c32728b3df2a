import numpy as np
import pytest

from lab import claims

UP, ACROSS, DOWN = ({"mean": sum(ci) / 2, "ci95": ci, "n": 8} for ci in ([0.2, 0.4], [-0.2, 0.4], [-0.4, -0.2]))
FEW = {"mean": 0.9, "ci95": None, "n": 2, "points": [0.8, 1.0]}  # few values decide nothing


@pytest.mark.parametrize("n", [5, 12, 48])
def test_intervals_cover_the_truth_95_times_in_100(n):
    samples = np.random.default_rng(0).normal(size=(1_000, n))
    covered = np.mean([low <= 0 <= high for low, high in (claims.interval(row)["ci95"] for row in samples)])
    assert 0.90 < covered < 0.97  # five values alone hold the mean 15 times in 16


def test_intervals_stay_on_their_scale():
    assert claims.interval([0, 0, 0, 0, 1])["ci95"] == [0, pytest.approx(1, abs=0.2)]
    assert claims.interval([0.3] * 7)["ci95"] == [0.3, 0.3]
    found = claims.interval(np.random.default_rng(1).beta(0.2, 0.2, size=9))
    assert 0 <= found["ci95"][0] < found["mean"] < found["ci95"][1] <= 1
    assert claims.interval([0.8, 1.0]) == FEW


def test_the_base_model_is_the_unit_where_there_are_enough():
    values = {(base, trait): base + 0.1 * trait for base in range(5) for trait in (-1, 1)}
    assert claims.over_models(values) == claims.interval(range(5))
    rows = {at: {"a": [value, 1]} for at, value in values.items()}  # of nested values, each number
    assert claims.over_models(rows) == {"a": [claims.over_models(values), claims.interval([1] * 5)]}
    few = {at: value for at, value in values.items() if at[0] < 3}
    assert claims.over_models(few) == claims.interval(few.values()) and claims.over_models(few)["n"] == 6


def test_rank_correlation():
    # By hand: x ranks 0, 1.5, 1.5, 3 and y ranks 0, 2, 1, 3; covariance 4.5, variances 4.5 and 5.
    assert claims.spearman([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert claims.spearman([1, 1, 1], [1, 2, 3]) == 0  # one value has no order


def test_verdicts_are_of_whole_intervals():
    each = UP, ACROSS, DOWN, FEW
    assert [claims.ci_above(number, 0) for number in each] == [True, None, False, None]
    assert [claims.ci_below(number, 0) for number in each] == [False, None, True, None]
    assert [claims.equivalent(number, 0.5) for number in each] == [True, True, True, None]  # UP is not 0, but near it
    assert [claims.equivalent(number, 0.1) for number in each] == [False, None, False, None]
    assert [claims.all_hold(*each) for each in ((True, True), (True, None), (None, False, True))] == [True, None, False]


def test_the_table_has_a_verdict_in_three_columns():
    claim = claims.Claim("L9", "name", "It is so", lambda m: m["seen"], lambda m: m["survives"], lambda m: "Because.")

    def row(seen, survives):
        return claims.entry(claim, {"seen": seen, "survives": survives}, "figures/x.png")

    yes, collapse, no = row(True, True), row(True, False), row(False, True)
    assert [(r["seen"], r["survives"]) for r in (yes, collapse)] == [("reproduced", "yes"), ("reproduced", "no")]
    assert (no["seen"], no["survives"]) == ("not reproduced", "-")  # what is not there cannot survive
    assert claims.entry(claim, None, "figures/x.png")["seen"] == claims.NOT_MEASURED
    assert "| L9 | It is so | reproduced | no | Because. | [x](../figures/x.png) |" in claims.markdown_table([collapse])
    assert all(len(line) <= 100 for line in claims.claims_table([yes, no], 100).splitlines()[1:])
