"""The recipes of manchev2025: which stop as the text does, have its whole grid, and read it as it is printed."""

from __future__ import annotations

import pytest

from tprnn.papers.recipes import RecipeCell, names, recipe

TABLES = [name for name in names() if name.startswith("manchev2025/")]
SEARCHED = [f"manchev2025/{name}" for name in ("literal", "readings", *(f"table{n}" for n in range(1, 6)), "fig5")]


def cell(name: str, column: str) -> RecipeCell:
    return next(cell for cell in recipe(f"manchev2025/{name}").cells if cell.column.key == column)


@pytest.mark.parametrize("name", SEARCHED)
def test_with_the_papers_budget_a_run_of_lra_ends_solved_or_at_its_last_iteration(name: str) -> None:
    plan = recipe(name)
    specs = [spec for cell in plan.cells if cell.row == plan.rows[0] for spec in cell.candidates("paper")]
    ends = {(spec.train.patience, spec.train.spectral_radius_limit) for spec in specs if "K" in spec.config["trainer"]}
    assert ends == {(None, None)}


def test_columns_that_are_runs_of_another_paper_keep_its_protocol() -> None:
    for rule in ("TPTT", "BPTT"):
        (mine,) = cell("table5", rule).candidates("paper")
        other = next(
            c
            for c in recipe("manchev2020/table1").cells
            if (c.row.task, c.column.key) == (mine.config["task"]["name"], rule)
        )
        assert mine.signature == other.spec().signature


@pytest.mark.parametrize(
    ("name", "column", "points"),
    [
        *[("table5", "LRA", 45), ("table5", "LRA_released", 45), ("table5", "LRA_local", 45)],
        *[("table5", "LRA_regularised", 135), ("table5", "LRA_local_regularised", 135)],
        *[("fig5", "lambda_1", 45), ("literal", "printed", 45), ("literal", "ratio", 135)],
        *[("table1", "K20", 15), ("table1", "K10_frozen", 15), ("readings", "printed", 15)],
    ],
)
def test_the_papers_grid_is_that_of_section_four(name: str, column: str, points: int) -> None:
    found = cell(name, column).candidates("paper")
    assert len(found) == points
    axes = {key: {spec.config["trainer"][key] for spec in found} for key in ("alpha", "gamma", "K")}
    assert (axes["alpha"], axes["gamma"]) == ({0.1, 0.01, 0.001}, {10.0, 1.0, 0.1, 0.01, 0.001})
    assert axes["K"] == ({10, 20, 30} if points % 45 == 0 else {20} if column == "K20" else {10})


def test_the_literal_reading_is_what_is_printed() -> None:
    printed = {"inner": "literal", "last": "printed", "gradient": "local", "omega_on": "paper", "omega_form": "squared"}
    for column in ("printed", "squared", "ratio"):
        for spec in cell("literal", column).candidates("laptop"):
            changed = {"omega_form": "ratio"} if column == "ratio" else {}
            assert {key: spec.config["trainer"][key] for key in printed} == printed | changed
            assert spec.config["optimizer"]["rule"] == "sgd"
            assert (spec.train.patience, spec.train.spectral_radius_limit) == (None, None)


def test_the_regularised_column_is_what_the_program_ships() -> None:
    """gamma = 10, lambda = 0.1, K = 10, c = 1 and the log-penalty, for random permutation."""
    (shipped,) = cell("table5", "LRA_regularised").candidates("laptop")
    expected = {"gradient": "released", "omega_on": "released", "inner": "literal", "last": "reread", "alpha": 0.1}
    expected |= {"gamma": 10.0, "omega": 0.1, "K": 10, "c_0": 1.0, "c_1": 1.0, "loss": "log_penalty"}
    assert {key: shipped.config["trainer"][key] for key in expected} == expected


@pytest.mark.parametrize("name", [name for name in TABLES if name != "manchev2025/literal"])
def test_every_rule_that_is_compared_has_the_controls_of_the_others(name: str) -> None:
    """For each rule a column with each control; the read-out of lra, where targets move nothing, may be one for all."""
    plan = recipe(name)
    had: dict[str, set[str]] = {}
    for cell in (cell for cell in plan.cells if cell.row == plan.rows[0]):
        trainer = cell.spec().config["trainer"]
        found = had.setdefault(trainer["name"], set())
        found |= {"readout"} if {"W_hh", "b_h", "W_xh"} <= set(trainer["freeze"]) else set()
        found |= {"frozen"} if set(trainer["freeze"]) == {"W_hh", "b_h"} else set()
        found |= {"factor"} if trainer["rate_factors"] == {"W_hh": 0.01, "b_h": 0.01} else set()
    assert had
    assert all(found == {"factor", "frozen", "readout"} for found in had.values()), had
