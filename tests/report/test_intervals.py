"""Intervals, shares and times to a solution, against SciPy, by hand and at their edges."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from tprnn.report.rows import intervals
from tprnn.report.rows.intervals import (
    Times,
    accuracies,
    alike_needed,
    iterations,
    lengths,
    log_rank,
    losses,
    median_time,
    share,
)


@pytest.mark.parametrize(("k", "n"), [(0, 3), (2, 3), (3, 3), (0, 10_000), (9_998, 10_000), (10_000, 10_000)])
def test_shares_are_the_exact_binomial_interval(k: int, n: int) -> None:
    exact = stats.binomtest(k, n).proportion_ci()
    assert share(k, n) == pytest.approx((exact.low, exact.high), rel=1e-9)


def test_an_interval_by_hand() -> None:
    """Losses of 0.1, 0.2, 0.4: log 0.2 in the mean, s = log 2; t_2 = 4.303, sqrt(4/3) = 1.155."""
    found = losses([0.1, 0.2, 0.4])
    half = math.hypot(4.302653 * math.log(2) * math.sqrt(4 / 3), math.log1p(1e-7 / 0.2))
    assert (found.low, found.high) == pytest.approx((0.2 * math.exp(-half), 0.2 * math.exp(half)), rel=1e-6)


def test_equal_numbers_leave_an_interval_with_a_width() -> None:
    all_right = accuracies([10_000] * 3, 10_000)
    assert all_right.high == 1
    assert all_right.low == pytest.approx(1 - 0.0369 / 100, abs=1e-4)  # the exact interval of one test set
    none_right = accuracies([0] * 3, 10_000)
    assert (none_right.low, none_right.high) == pytest.approx((0, 1 - all_right.low), abs=1e-9)
    same = iterations([900] * 3, 100)
    assert (same.low, same.middle, same.high) == (800, 900, 1000)
    assert (lengths([70] * 3, 10, 10).low, lengths([70] * 3, 10, 10).high) == (60, 80)
    assert losses([0.0] * 3).low == 0
    assert 1e-7 < losses([0.0] * 3).high < 1.2e-7


def test_ends_lie_on_the_grid_and_no_lower_than_its_first_step() -> None:
    found = iterations([100, 100, 500], 100)
    assert found.low == 100
    assert found.high % 100 == 0
    none = lengths([0, 0, 10], 10, 10)
    assert (none.low, none.high % 10) == (0, 0)


def test_one_run_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two runs"):
        losses([0.1])


def test_more_seeds_that_scatter_alike_make_an_interval_narrower() -> None:
    few, many = accuracies([9700, 9800], 10_000), accuracies([9700, 9800] * 5, 10_000)
    assert many.high - many.low < few.high - few.low


def test_six_equal_outcomes_are_not_enough() -> None:
    assert alike_needed() == 7
    assert (6 / 7) ** 6 / 7 > 0.05 >= (7 / 8) ** 7 / 8


# ---- times


def test_without_censoring_the_median_is_the_median() -> None:
    assert median_time(Times([100, 300, 200], [], 0)).value == 200
    assert median_time(Times([100, 200], [], 0)).value == 150
    found = median_time(Times(list(range(100, 2100, 100)), [], 0))
    assert (found.value, found.low, found.high) == (1050, 500, 1500)


def test_a_run_that_was_cut_is_a_bound() -> None:
    found = median_time(Times([1000], [2000, 3000], 0))
    assert (found.value, found.bound, found.high) == (2000, True, math.inf)
    found = median_time(Times([100, 200], [150], 0))  # Kaplan–Meier: 2/3 after 100, then 0 at 200
    assert (found.value, found.bound) == (200, False)


@pytest.mark.parametrize(("solved", "never"), [([], 9), ([100], 8)])
def test_runs_that_met_another_end_give_no_bound(solved: list[float], never: int) -> None:
    """Nine that diverged at iteration 100 of 1,000 are not "> 100": they never solve."""
    found = median_time(Times(solved, [], never))
    assert (found.value, found.bound) == (math.inf, False)


def test_a_competing_end_stays_at_risk() -> None:
    """Two solved at 500 and 600, one diverged early: as if it had been cut at the end, not at its own iteration."""
    assert median_time(Times([500, 600], [], 1)).value == median_time(Times([500, 600], [10_000], 0)).value == 600


def test_the_log_rank_test_needs_two_runs_of_each() -> None:
    assert log_rank(Times([100, 200, 300], [], 0), Times([700], [], 0)) is None
    assert log_rank(Times([], [1000], 1), Times([], [], 3)) is None


def test_few_runs_have_the_exact_p_of_all_ways_to_split_them() -> None:
    """Three against three that are all apart: 2 of the 20 ways, whatever the distance; chi-squared says 0.025."""
    for late in ([400, 500, 600], [40_000, 50_000, 60_000]):
        assert log_rank(Times([100, 200, 300], [], 0), Times(late, [], 0)) == pytest.approx(0.1)
    assert log_rank(Times([100, 200], [], 0), Times([], [5000], 1)) == pytest.approx(1 / 3)
    assert log_rank(Times([100, 200], [], 0), Times([100, 200], [], 0)) == 1


def apart(one: Times, two: Times) -> float:
    """Solved in the first group less what was expected there, death by death; nobody `never` solves."""
    every = [*one.solved, *two.solved]
    total = 0.0
    for at in set(every):
        risk = [sum(t >= at for t in (*group.solved, *group.cut)) for group in (one, two)]
        total += list(one.solved).count(at) - every.count(at) * risk[0] / sum(risk)
    return total


@pytest.mark.parametrize("seed", range(10))
def test_its_statistic_is_observed_less_expected(seed: int) -> None:
    """With ties and runs that were cut, split by split."""
    rng = np.random.default_rng(seed)
    times, solved = rng.integers(1, 9, 7) * 100.0, rng.random(7) < 0.7
    solved[0] = True

    def groups(chosen: Sequence[int]) -> list[Times]:
        inside = np.isin(np.arange(7), chosen)
        return [Times(list(times[side & solved]), list(times[side & ~solved]), 0) for side in (inside, ~inside)]

    sums = [abs(apart(*groups(chosen))) for chosen in itertools.combinations(range(7), 3)]
    assert log_rank(*groups((0, 1, 2))) == pytest.approx(np.mean([each >= sums[0] - 1e-9 for each in sums]))


def test_many_runs_have_scipys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "SPLITS", 9)
    expected = stats.logrank([100, 200, 300], stats.CensoredData([700, 900], right=[1000])).pvalue
    assert log_rank(Times([100, 200, 300], [], 0), Times([700, 900], [1000], 0)) == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_equal_rules_are_seldom_told_apart(n: int) -> None:
    rng, small = np.random.default_rng(n), 0
    for _ in range(400):
        times, solved = 100 * np.ceil(rng.lognormal(2, 1, 2 * n)), rng.random(2 * n) < 0.8
        first = np.arange(2 * n) < n
        halves = (Times(list(times[side & solved]), [1e6] * int((side & ~solved).sum()), 0) for side in (first, ~first))
        p = log_rank(*halves)
        small += p is not None and p <= 0.05
    assert small / 400 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_rules_that_never_solve_differ_from_rules_that_do() -> None:
    p = log_rank(Times([100, 200, 300, 400, 500], [], 0), Times([], [], 5))
    assert p is not None
    assert p < 0.01
