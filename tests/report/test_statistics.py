"""What the best of many looks or runs gives by chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tprnn.statistics import highest_by_chance


def best_of(m: int, k: int, n: int) -> float:
    return highest_by_chance({k / n: m}, n)[0]


def test_the_best_of_m_by_luck() -> None:
    assert best_of(1, 3, 10) == pytest.approx(0.3)
    # two draws of Binomial(2, 1/2): the larger is above 0 with 1 - 1/16, above 1 with 1 - 9/16
    assert best_of(2, 1, 2) == pytest.approx((15 / 16 + 7 / 16) / 2)
    rng = np.random.default_rng(0)
    drawn = rng.binomial(10_000, 0.5, (20_000, 15)).max(-1) / 10_000
    assert best_of(15, 5000, 10_000) == pytest.approx(drawn.mean(), abs=4 * drawn.std() / math.sqrt(20_000))


@pytest.mark.parametrize(("p", "looks"), [(0.25, 1), (0.25, 2), (0.9, 7), (0.01, 300)])
def test_the_highest_of_looks_at_one_sequence_each(p: float, looks: int) -> None:
    expected, bound = highest_by_chance({p: looks}, 1)
    assert expected == pytest.approx(1 - (1 - p) ** looks)  # one right is enough
    assert bound == (0.0 if (1 - p) ** looks >= 0.95 else 1.0)


def test_one_look_has_the_mean_and_the_quantile_of_the_binomial() -> None:
    expected, bound = highest_by_chance({0.3: 1}, 1000)
    assert expected == pytest.approx(0.3)
    assert bound == stats.binom.ppf(0.95, 1000, 0.3) / 1000


def test_the_highest_of_many_looks_as_simulated() -> None:
    drawn = np.random.default_rng(0).binomial(200, np.repeat([0.25, 0.27], [30, 10]), size=(20_000, 40)).max(1) / 200
    expected, bound = highest_by_chance({0.25: 30, 0.27: 10}, 200)
    assert abs(drawn.mean() - expected) < 4 * drawn.std() / 20_000**0.5
    assert (drawn <= bound).mean() >= 0.945
    assert (drawn < bound).mean() < 0.955


def test_certain_and_impossible_answers() -> None:
    assert highest_by_chance({1.0: 5}, 50) == (pytest.approx(1.0), 1.0)
    assert highest_by_chance({0.0: 5}, 50) == (pytest.approx(0.0), 0.0)
