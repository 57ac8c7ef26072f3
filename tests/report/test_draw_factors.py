"""The figure of a score against a factor on learning rates."""

from __future__ import annotations

from typing import Any

import pytest

from tprnn.errors import UserError
from tprnn.papers.recipes import recipe
from tprnn.report.figures import draw_factors
from tprnn.report.figures.paper import Found, Line, kind_of

PLAN = recipe("beyond/rates")
BUDGET = PLAN.budget("laptop", seeds=(0, 1))


def found(rows_of: Any) -> Found:
    return Found(PLAN, BUDGET, [Line(cell, cell.runs(BUDGET), [], rows_of(cell)) for cell in PLAN.cells], [])


def row(seed: int, right: int | None, status: str, solvable: bool) -> dict[str, Any]:
    return {
        "seed": seed,
        "test_right": right,
        "test_sequences": None if right is None else 1000,
        "status": status,
        "iterations": 400,
        "train.success_error": 1e-4 if solvable else None,
    }


def all_of(cell: Any) -> list[dict[str, Any]]:
    solvable = cell.row.task == "temporal_order"
    return [row(0, 990, "solved" if solvable else "not_solved", solvable), row(1, 250, "not_solved", solvable)]


def test_a_column_stands_at_its_own_factor() -> None:
    _, options = kind_of(PLAN)
    rows = draw_factors.points(found(all_of), options)
    places = {row["x"] for row in rows if row["line"] == "target propagation"}
    assert places == {0.0, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0}
    for cell, line in zip(PLAN.cells, found(all_of).lines, strict=True):
        trainer = line.specs[0].config["trainer"]
        factors = {name: trainer["rate_factors"].get(name, 1.0) for name in ("W_hh", "b_h")}
        frozen = "W_hh" in trainer["freeze"]
        if cell.column.key != "readout":
            (x,) = {r["x"] for r in draw_factors.points(Found(PLAN, BUDGET, [line], []), options)}
            assert (x, x) == ((0.0, 0.0) if frozen else tuple(factors.values()))


def test_both_rules_have_the_same_rate_and_the_same_factors() -> None:
    for task in ("copy_memory", "temporal_order"):
        cells = [cell for cell in PLAN.cells if cell.row.task == task and cell.column.key != "readout"]
        rates = {cell.params.get("alpha", cell.params.get("alpha_f")) for cell in cells}
        assert len(rates) == 1, task
    keys = [column.key for column in PLAN.columns if column.key != "readout"]
    assert [key.removeprefix("TP_") for key in keys if key.startswith("TP_")] == [
        key.removeprefix("BP_") for key in keys if key.startswith("BP_")
    ]


def test_runs_that_were_not_solved_are_counted_and_stand_at_the_budget() -> None:
    _, options = kind_of(PLAN)
    the_found = found(all_of)
    figure = draw_factors.draw(the_found, draw_factors.points(the_found, options), options)
    panels = {panel.get_title(): panel for panel in figure.axes if panel.get_title()}
    assert len(panels) == 8
    solvable = panels["temporal order, T = 100"]
    assert {text.get_text() for text in solvable.texts} == {"1/2"}
    assert max(max(line.get_ydata()) for line in solvable.lines) == BUDGET.max_iterations
    assert not panels["copy memory, T = 5"].texts


def test_runs_without_a_test_set_are_left_out() -> None:
    _, options = kind_of(PLAN)
    one = [PLAN.cells[0]]
    with pytest.raises(UserError, match="no run with a test set has ended yet"):
        draw_factors.points(found(lambda cell: [row(0, None, "not_solved", False)]), options)
    rows = draw_factors.points(
        found(lambda cell: [row(0, None, "failed", False), row(1, 3, "not_solved", False)] if cell in one else []),
        options,
    )
    assert [(r["seed"], r["right_pct"]) for r in rows] == [(1, pytest.approx(0.3))]


def test_an_unknown_column_is_named() -> None:
    options = draw_factors.Options("trainer.rate_factors.W_hh", 1.0, "factor", ["redout"], [])
    with pytest.raises(UserError, match="no column 'redout'; nearest: readout"):
        draw_factors.points(found(all_of), options)
