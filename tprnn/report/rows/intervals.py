"""Statistics of a cell: what one new run would give, exact shares, and times to a solution.

**One new run** (`accuracies`, `losses`, `iterations`, `lengths`). On a scale where runs are about normal (logit
accuracy, log loss, log iterations, log length) n seeds have mean x and standard deviation s. One more run lies with
95 % within

    x ± sqrt((t_{n-1} s sqrt(1 + 1/n))^2 + w^2)

The t interval for one new draw, and w, what one run's number itself leaves open: the exact binomial interval of one
test set, float32's limit of a loss, one step of the grid on which iterations and lengths are counted. Without w seeds
with equal numbers (three times 10,000 of 10,000) would have an interval without width. The runs' own scatter holds a
part of w already, so the interval is rather too wide than too narrow. The distribution-free interval, from the least
to the most, has but (n - 1)/(n + 1): 95 % from 39 seeds on. So this one stands on its scale, and
tests/report/test_error_rates.py shows what comes of it for several distributions. It knows nothing of two kinds of
seeds of which one has not been seen: no interval of a few runs does.

**Times to a solution.** A run that its budget cut is right-censored there. One that diverged or ran out of patience met
a competing end and will never solve: it stays at risk to the end, as in a cumulative incidence. It is not censored at
its own iteration, which would say that it might have been solved just after.

All arrays: [..., n], n seeds last.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from tprnn.report.tables.words import LEVEL, LOSS_LIMIT

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Where one new run lies, and the middle of it; arrays of any shape, or numbers."""

    low: Any
    middle: Any
    high: Any


def _new_run(x: Array, below: ArrayLike, above: ArrayLike) -> tuple[Array, Array, Array]:
    """Ends and mean on the scale of x [..., n]; `below`, `above`: w to either side. Raises ValueError for n < 2."""
    n = x.shape[-1]
    if n < 2:
        raise ValueError("an interval for a new run needs two runs at least")
    mean, s = x.mean(-1), x.std(-1, ddof=1)
    between = stats.t.ppf((1 + LEVEL) / 2, n - 1) * s * math.sqrt(1 + 1 / n)
    return mean - np.hypot(between, below), mean, mean + np.hypot(between, above)


def share(right: ArrayLike, sequences: ArrayLike) -> tuple[Array, Array]:
    """The exact binomial (Clopper–Pearson) interval of a share, as `scipy.stats.binomtest(...).proportion_ci()`."""
    k, n = np.asarray(right, float), np.asarray(sequences, float)
    tail = (1 - LEVEL) / 2
    with np.errstate(invalid="ignore"):  # beta distributions of parameter 0 are not asked for
        low = np.where(k > 0, stats.beta.ppf(tail, k, n - k + 1), 0.0)
        high = np.where(k < n, stats.beta.ppf(1 - tail, k + 1, n - k), 1.0)
    return low, high


def accuracies(right: ArrayLike, sequences: int) -> Interval:
    """Share of a test set that one new run answers rightly, from k = `right` [..., n] of `sequences` each.

    On logit((k + 1/2)/(N + 1)), finite for none and for all; w: the exact interval of one test set at the mean share.
    """
    k, N = np.asarray(right, float), sequences
    x = special.logit((k + 0.5) / (N + 1))
    mean = x.mean(-1)
    low, high = (special.logit(end) for end in share(np.round(k.mean(-1)), N))  # infinite at none and all
    ends = _new_run(x, np.maximum(mean - low, 0), np.maximum(high - mean, 0))
    return Interval(*(np.clip((special.expit(end) * (N + 1) - 0.5) / N, 0, 1) for end in ends))


def losses(loss: ArrayLike) -> Interval:
    """Loss of one new run, from finite losses [..., n]; an end below float32's limit is 0.

    On log loss; w: what that limit is of the loss.
    """
    x = np.log(np.maximum(np.asarray(loss, float), LOSS_LIMIT / 10))
    limit = np.log1p(LOSS_LIMIT / np.exp(x.mean(-1)))
    low, mean, high = (np.exp(end) for end in _new_run(x, limit, limit))
    return Interval(np.where(low < LOSS_LIMIT, 0.0, low), mean, high)


def iterations(counts: ArrayLike, step: int) -> Interval:
    """Iterations to solve of one new run, from those of n solved ones [..., n], looked at every `step` iterations.

    A count c says that it was solved in (c - step, c]: on the log of the middle of that, with w one step.
    """
    low, mean, high = _on_grid(np.asarray(counts, float) - step / 2, step)
    return Interval(*(step * np.maximum(np.ceil(end / step - 1e-9), 1) for end in (low, mean, high)))


def lengths(tops: ArrayLike, start: int, step: int) -> Interval:
    """Largest length of one new climb, from those of n climbs [..., n] (0: not even `start`), by `step`.

    A top T says that the limit lies in [T, T + step): on the log of the middle of that, with w one step.
    """
    top = np.asarray(tops, float)
    ends = _on_grid(np.where(top < start, start / 2, top + step / 2), step)
    floors = (start + step * np.floor((end - start) / step + 1e-9) for end in ends)
    return Interval(*(np.where(floor < start, 0.0, floor) for floor in floors))


def _on_grid(middles: Array, step: float) -> tuple[Array, Array, Array]:
    x = np.log(middles)
    mean = x.mean(-1)
    middle = np.exp(mean)
    below = mean - np.log(np.maximum(middle - step, 1e-9 * step))
    low, _, high = _new_run(x, below, np.log(middle + step) - mean)
    return np.exp(low), middle, np.exp(high)


# ---- outcomes of single runs


def alike_needed() -> int:
    """Runs of one outcome, all of them, after which a new run of the other is rarer than 5 % whatever their chance.

    n runs that succeed with chance p and one that fails: p^n (1 - p), at most (n/(n + 1))^n / (n + 1), under 5 % from 7
    runs on.
    """
    return next(n for n in range(1, 100) if (n / (n + 1)) ** n / (n + 1) <= 1 - LEVEL)


# ---- times to a solution


# Eight runs against eight have 12,870.
SPLITS = 20_000


@dataclass(frozen=True)
class Times:
    """How the runs of a cell ended: iterations of the solved, of the cut, and how many met a competing end."""

    solved: Sequence[float]
    cut: Sequence[float]
    never: int

    @property
    def runs(self) -> int:
        return len(self.solved) + len(self.cut) + self.never

    def censored(self, horizon: float) -> Any:
        """As `scipy.stats.CensoredData`; those that never solve stay at risk to the `horizon`."""
        return stats.CensoredData(self.solved, right=[*self.cut, *[horizon] * self.never])

    @property
    def horizon(self) -> float:
        return max([*self.solved, *self.cut], default=1.0)


@dataclass(frozen=True)
class Median:
    """Iterations by which half of the runs are solved, and its 95 % interval; infinite where that is never seen.

    `bound`: it is only known to be larger than `value`, as runs were cut before.
    """

    value: float
    low: float
    high: float
    bound: bool = False


def median_time(times: Times) -> Median:
    """Kaplan–Meier's median with the interval of Brookmeyer and Crowley (log-log limits of the survival curve).

    Where the curve is flat at one half, the middle of that stretch, as in the median of an even number.
    """
    every = sorted([*times.solved, *times.cut, *[math.inf] * times.never])
    least = every[(len(every) - 1) // 2]  # half of the runs were not solved before this, whatever became of the cut
    if not times.solved:
        return Median(least, least, math.inf, bound=math.isfinite(least))
    curve = stats.ecdf(times.censored(times.horizon)).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where the curve is 0 its limits are not defined
        limits = curve.confidence_interval(LEVEL, method="log-log")
    at, half = curve.quantiles, 0.5 + 1e-12
    low = _first(at, limits.low.probabilities <= half)
    high = _first(at, limits.high.probabilities <= half)
    value = _first(at, curve.probabilities <= half)
    if math.isinf(value):
        return Median(least, low, high, bound=math.isfinite(least))
    if abs(curve.probabilities[at == value][0] - 0.5) < 1e-9:
        after = _first(at, curve.probabilities < 0.5 - 1e-9)
        value = value if math.isinf(after) else (value + after) / 2
    return Median(value, min(low, value), high)


def _first(at: Array, reached: NDArray[np.bool_]) -> float:
    return float(at[reached][0]) if reached.any() else math.inf


def log_rank(one: Times, two: Times) -> float | None:
    """p of the log-rank test that two groups solve alike; None where one has under two runs, or none was solved.

    With the pooled Nelson–Aalen estimate H a run has the score 1 - H(t) where it was solved at t, and -H(t) where it
    was cut there; the sum over one group is its log-rank statistic, observed less expected (Peto and Peto 1972). p is
    exact up to `SPLITS` ways to split the runs into groups of these sizes: the share of those whose sum is as far from
    0. The chi-squared law that serves for more says 0.025 of three against three that are all apart, where it is 2 of
    20.
    """
    n, every = one.runs, one.runs + two.runs
    if min(n, two.runs) < 2 or not (one.solved or two.solved):
        return None
    horizon = max(one.horizon, two.horizon)
    if math.comb(every, n) > SPLITS:
        p = float(stats.logrank(one.censored(horizon), two.censored(horizon)).pvalue)
        return None if math.isnan(p) else p
    times, events = (
        np.concatenate(each) for each in zip(*(_ends(group, horizon) for group in (one, two)), strict=True)
    )
    at = np.unique(times[events])
    risen = np.cumsum([(times[events] == t).sum() / (times >= t).sum() for t in at])
    scores = events - np.where(times < at[0], 0.0, risen[np.searchsorted(at, times, "right") - 1])
    sums = scores[list(itertools.combinations(range(every), n))].sum(-1)
    return float((np.abs(sums) >= abs(sums[0]) - 1e-9).mean())


def _ends(group: Times, horizon: float) -> tuple[Array, NDArray[np.bool_]]:
    """(time, whether it was solved then) of each run."""
    times = [*group.solved, *group.cut, *[horizon] * group.never]
    return np.array(times, float), np.arange(len(times)) < len(group.solved)
