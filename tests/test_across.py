"""Columns over all rows: by hand, and only where there are seeds enough."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from verdict_runs import accuracies

from tprnn.papers.recipes import recipe
from tprnn.report.across import LEAST, across, improvement, interquartile_mean

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


def test_tables_with_printed_numbers_have_none() -> None:
    plan = recipe("manchev2025/table2")
    assert across(plan, [(cell, accuracies(*range(20, 40))) for cell in plan.cells]) == ("", [])
    assert across(PLAN, [(cell, None) for cell in PLAN.cells]) == ("", [])
