"""Columns over all rows of a table of ours: the interquartile mean, and the probability of improvement over the first.

Agarwal, Schwarzer, Castro, Courville and Bellemare, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice" (2021): the mean of the middle half of all runs of all rows, and the chance that a run of one rule is better
than one of another on the same row (ties count half), as a mean over rows. Intervals: percentiles of a bootstrap that
draws seeds anew within each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tprnn.papers.recipes import Recipe, RecipeCell
from tprnn.report.rows.scores import Answer
from tprnn.report.tables.words import LEVEL

LEAST = 10
Array = NDArray[np.float64]
Lines = list[dict[str, str]]


def interquartile_mean(rows: Sequence[Array]) -> tuple[float, float, float]:
    """(value, low, high) over the scores of some rows, [n] each."""

    def statistic(*samples: Array, axis: int) -> Any:
        return stats.trim_mean(np.concatenate(samples, axis), 0.25, axis)

    return _bootstrapped(rows, statistic)


def improvement(better: Sequence[Array], than: Sequence[Array]) -> tuple[float, float, float]:
    """(value, low, high) of the chance that a score of `better` is larger than one of `than`, row by row."""

    def statistic(*samples: Array, axis: int) -> Any:
        half = len(samples) // 2
        pairs = zip(samples[:half], samples[half:], strict=True)
        chances = [_larger(np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)) for x, y in pairs]
        return np.mean(chances, axis=0)

    return _bootstrapped([*better, *than], statistic)


def _larger(x: Array, y: Array) -> Any:
    x, y = x[..., :, None], y[..., None, :]
    return ((x > y) + 0.5 * (x == y)).mean((-1, -2))


def _bootstrapped(samples: Sequence[Array], statistic: Any) -> tuple[float, float, float]:
    found = stats.bootstrap(
        samples, statistic, n_resamples=2000, confidence_level=LEVEL, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(statistic(*samples, axis=-1)), float(found.low), float(found.high)


def across(plan: Recipe, answers: Sequence[tuple[RecipeCell, Answer | None]]) -> tuple[str, Lines]:
    """What stands above the table, and its lines; only the words where seeds are too few, nothing for another table.

    Tables of accuracies that no paper printed; columns that have every row.
    """
    run = [(cell, found) for cell, found in answers if found]
    ours_alone = plan.metrics == ("accuracy_pct",) and not any(cell.published for cell in plan.cells)
    if not ours_alone or len(plan.columns) < 2 or not run:
        return "", []
    columns = {
        column.label: [np.array([s.value for s in found.scores]) for cell, found in run if cell.column == column]
        for column in plan.columns
    }
    whole = {label: rows for label, rows in columns.items() if len(rows) == len(plan.rows)}
    least = min((len(row) for rows in whole.values() for row in rows), default=0)
    first = plan.columns[0].label
    if least < LEAST or first not in whole:
        said = f"fewest: {least}" if first in whole else "not every row has runs"
        return f"No ranking over all rows: that takes {LEAST} seeds of every cell of a column ({said}).", []
    ranked = [found for cell, found in run if cell.column.label in whole]
    if unlike := _unlike(ranked):
        return f"No ranking over all rows: {unlike}.", []
    lines = []
    for label, rows in whole.items():
        line = {
            "column": label,
            "runs": str(sum(map(len, rows))),
            "interquartile mean": _text(interquartile_mean(rows)),
        }
        chance = _text(improvement(rows, whole[first])) if label != first else "–"
        lines.append(line | {f"better than {first}": chance})
    told = "Over all rows: mean of the middle half of all runs, and the chance to be better than a run of"
    return f"{told} {first} on the same row, each with the interval of a bootstrap within rows (95 %):", lines


def _unlike(answers: Sequence[Answer]) -> str | None:
    """Why runs are not to be ranked with one another: some were cut earlier, or some have no test set."""
    cuts = sorted({score.cut for found in answers for score in found.scores if score.cut is not None})
    if len(cuts) > 1:
        return f"runs were cut after {cuts[0]:,} to {cuts[-1]:,} iterations"
    return None if all(found.tested for found in answers) else "not every run has a test set"


def _text(found: tuple[float, float, float]) -> str:
    value, low, high = found
    return f"{value:.2f} [{low:.2f}–{high:.2f}]"
