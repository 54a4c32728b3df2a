"""Intervals, and the verdicts that follow from them."""

import pytest
import torch

from lab import claims

UP, ACROSS, DOWN = ({"mean": sum(ci) / 2, "ci95": ci, "n": 8} for ci in ([0.2, 0.4], [-0.2, 0.4], [-0.4, -0.2]))
ALONE = {"mean": 0.9, "ci95": None, "n": 1}  # one value decides nothing


def test_interval_by_hand():
    # Mean 3, standard deviation sqrt(2.5), standard error sqrt(0.5), t(4 degrees of freedom) = 2.776.
    ci = pytest.approx([3 - 2.776 * 0.5**0.5, 3 + 2.776 * 0.5**0.5])
    assert claims.interval([1, 2, 3, 4, 5]) == {"mean": 3, "ci95": ci, "n": 5}
    assert claims.interval([0.5]) == {"mean": 0.5, "ci95": None, "n": 1}


@pytest.mark.parametrize("n", [2, 3, 12, 48])
def test_intervals_cover_the_truth_95_times_in_100(generator, n):
    samples = torch.randn(4_000, n, generator=generator).tolist()
    covered = sum(low <= 0 <= high for low, high in (claims.interval(row)["ci95"] for row in samples))
    assert 0.94 < covered / 4_000 < 0.96


def test_rank_correlation():
    assert claims.spearman([1, 2, 3, 4], [10, 20, 25, 99]) == pytest.approx(1)
    # By hand: x ranks 0, 1.5, 1.5, 3 and y ranks 0, 2, 1, 3; covariance 4.5, variances 4.5 and 5.
    assert claims.spearman([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


def test_verdicts_are_of_whole_intervals():
    each = UP, ACROSS, DOWN, ALONE
    assert [claims.ci_above(number, 0) for number in each] == [True, None, False, None]
    assert [claims.ci_below(number, 0) for number in each] == [False, None, True, None]
    assert [claims.contains_zero(number) for number in each] == [False, True, False, None]
    assert [claims.ci_separated(number, DOWN) for number in each] == [True, None, None, None]
    assert (claims.ci_separated(DOWN, UP), claims.ci_separated(UP, ALONE)) == (False, None)
    rules = (True, True), (True, None), (None, False, True)
    assert [claims.all_hold(*conditions) for conditions in rules] == [True, None, False]
