"""Columns over all rows: by hand, and only where there are seeds enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from verdict_runs import accuracies, answer_of

from tprnn.papers.recipes import recipe
from tprnn.report.rows.across import LEAST, across, improvement, interquartile_mean
from tprnn.report.rows.scores import Score

PLAN = recipe("beyond/rules")


def test_the_interquartile_mean_is_of_the_middle_half_of_all_rows() -> None:
    rows = [np.array([0.0, 10.0]), np.array([20.0, 100.0])]
    value, low, high = interquartile_mean(rows)
    assert value == 15
    assert low < value < high


def test_the_chance_of_improvement_is_that_of_mann_and_whitney() -> None:
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.0, 2.5, 9.0])
    value, low, high = improvement([x], [y])
    assert value == pytest.approx(stats.mannwhitneyu(x, y).statistic / 16)
    assert low < value < high
    both, _, _ = improvement([x, y], [y, x])
    assert both == pytest.approx(0.5)
    assert improvement([x + 10], [y])[0] == 1


@pytest.mark.parametrize("seeds", [LEAST - 1, LEAST])
def test_a_ranking_takes_ten_seeds_of_every_row(seeds: int) -> None:
    few = {PLAN.columns[0].key, PLAN.columns[1].key}
    values = [50.0 + seed for seed in range(seeds)]
    answers = [(cell, accuracies(*values) if cell.column.key in few else None) for cell in PLAN.cells]
    told, lines = across(PLAN, answers)
    if seeds < LEAST:
        assert (told, lines) == (
            f"No ranking over all rows: that takes 10 seeds of every cell of a column (fewest: {seeds}).",
            [],
        )
    else:
        assert [line["column"] for line in lines] == [column.label for column in PLAN.columns[:2]]
        assert lines[1][f"better than {PLAN.columns[0].label}"].startswith("0.50 [")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"iterations": 20_000}, "runs were cut after 20,000 to 100,000 iterations"),
        ({"test_sequences": None, "test_right": None}, "not every run has a test set"),
        ({"end": "diverged", "iterations": 100}, ""),
    ],
)
def test_runs_that_are_unlike_are_not_ranked(given: dict[str, object], says: str) -> None:
    values = [50.0 + seed for seed in range(LEAST)]
    unlike = accuracies(*values)
    scores = [Score(one.value, one.bound, [replace(one.last, **given)]) for one in unlike.scores]  # type: ignore[arg-type]
    first, second = (PLAN.columns[place].key for place in (0, 1))
    found = {first: unlike, second: answer_of(scores)}
    told, lines = across(PLAN, [(cell, found.get(cell.column.key)) for cell in PLAN.cells])
    assert bool(lines) == (says == "")
    assert says in told


def test_tables_with_printed_numbers_have_none() -> None:
    plan = recipe("manchev2025/table2")
    assert across(plan, [(cell, accuracies(*range(20, 40))) for cell in plan.cells]) == ("", [])
    assert across(PLAN, [(cell, None) for cell in PLAN.cells]) == ("", [])
