"""Tables, climbs and figures as of a budget: smaller than what was run, larger, or still on the way to it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Make
from paper_cells import row_of, the
from table_cells import table_of
from test_old_runs import OLD, TWO_BUDGETS

from tprnn.cli import main
from tprnn.errors import UserError
from tprnn.papers.recipes import RecipeCell
from tprnn.protocols import depth, reproduce
from tprnn.store import RunFolder, Store

COMMON = ("manchev2020/table2", "temporal_order", "TPTT_common")
CLIMB = ("manchev2020/table1", "temporal_order_3bit", "BPTT")


def cut(limit: int) -> dict[str, Any]:
    return {"status": "not_solved", "stopped_by": "max_iterations", "iterations": limit, "accuracy": 0.5}


def line(table: list[dict[str, str]], *keys: str) -> list[tuple[str, ...]]:
    return [tuple(row[key] for key in keys) for row in table]


@pytest.fixture
def five(make: Make) -> list[RunFolder]:
    """Given 20,000 iterations: two solved, one cut; given 100,000: one solved at 30,000, one cut."""
    long, short = ({"task.T": 20, "train.max_iterations": limit} for limit in (100_000, 20_000))
    return [
        make(short | {"seed": 0}, iterations=300),
        make(short | {"seed": 1}, iterations=9000),
        make(short | {"seed": 2}, **cut(20_000)),
        make(long | {"seed": 3}, iterations=30_000),
        make(long | {"seed": 4}, **cut(100_000)),
    ]


def test_every_run_is_seen_at_each_budget_that_cut_one(five: list[RunFolder], outputs: str) -> None:
    """No run that went on is missing from the smaller budget: that would be a choice by outcome."""
    table = table_of(outputs)
    columns = ("max_iterations", "seeds", "solved", "iterations_max", "short")
    assert line(table, *columns) == [("20000", "5", "2", "20000", "0"), ("100000", "4", "3", "100000", "1")]


@pytest.mark.parametrize(
    ("limit", "seeds", "solved", "short"), [(200, 5, 0, 0), (20_000, 5, 2, 0), (30_000, 4, 3, 1), (99_999, 4, 3, 1)]
)
def test_a_where_states_the_budget(
    five: list[RunFolder], outputs: str, limit: int, seeds: int, solved: int, short: int
) -> None:
    for key in ("max_iterations", "train.max_iterations"):
        (row,) = table_of(outputs, f"{key}={limit}")
        assert (row["seeds"], row["solved"], row["short"]) == (str(seeds), str(solved), str(short))


def test_runs_that_nobody_gave_so_much_are_left_out(make: Make, outputs: str) -> None:
    make({"task.T": 20, "train.max_iterations": 1000}, **cut(1000))
    make({"task.T": 30, "train.max_iterations": 5000}, **cut(5000))
    assert line(table_of(outputs, "max_iterations=5000"), "seeds", "iterations_max") == [("1", "5000")]


@pytest.mark.parametrize("limit", ["-3", "0", "2.5", "many", "1000,x"])
def test_a_budget_is_a_whole_number(five: list[RunFolder], outputs: str, limit: str) -> None:
    with pytest.raises(UserError, match=r"train\.max_iterations: expected a whole number of at least 1, got"):
        table_of(outputs, f"max_iterations={limit}")


def test_a_status_is_asked_for_as_of_the_budget(five: list[RunFolder], outputs: str) -> None:
    (row,) = table_of(outputs, "status=solved", "max_iterations=20000")
    assert row["seeds"] == row["solved"] == "2"


def test_runs_that_all_ended_by_themselves_need_no_budget_to_be_one_group(make: Make, outputs: str) -> None:
    make({"seed": 0, "train.max_iterations": 100_000})
    make({"seed": 1, "train.max_iterations": 5000})
    (row,) = table_of(outputs)
    assert row["solved"] == "2"


def test_a_run_that_is_going_on_still_counts_as_of_what_it_had(make: Make, outputs: str) -> None:
    folder = make({"train.max_iterations": 5000}, **cut(5000))
    spec = folder.read_spec().replace({"train.max_iterations": 20_000})
    folder.set_budget(spec.train)
    columns = ("max_iterations", "seeds", "score_median", "started")
    assert line(table_of(outputs), *columns) == [("5000", "1", "0.5", "0"), ("20000", "0", "", "1")]
    folder.write_result({"status": "interrupted", "stopped_by": "signal", "iterations": 7000})
    assert line(table_of(outputs, "max_iterations=5000"), *columns[1:]) == [("1", "0.5", "0")]


def test_several_old_folders_of_a_run_count_as_one(tmp_path: Path) -> None:
    outputs = str(tmp_path / "outputs")
    shutil.copytree(OLD, outputs)
    table = table_of(outputs, f"seed={TWO_BUDGETS}")
    assert line(table, "max_iterations", "seeds", "score_median") == [("60", "1", "0.257"), ("80", "1", "0.264")]


# ---- papers


def solved_late(make: Make, cell: RecipeCell, **changes: Any) -> None:
    spec = cell.spec().replace({"train.max_iterations": 100_000} | changes)
    folder = Store(str(Path(make().path).parent.parent)).folder(spec)
    folder.open(spec)
    result = {"status": "solved", "stopped_by": "solved", "iterations": 30_000, "best_accuracy": 1.0}
    folder.write_result(result | {"signature": spec.signature})


def test_solved_at_30000_is_unsolved_in_a_table_of_20000_iterations(make: Make, outputs: str) -> None:
    cell = the(*COMMON)
    solved_late(make, cell)
    for budget in (None, "paper", "30000"):
        assert row_of(outputs, cell, budget)["ours"] == "30,000"
    for budget in ("laptop", "20000"):
        row = row_of(outputs, cell, budget)
        assert (row["ours"], row["verdict"]) == ("> 20,000", "inconclusive (1 seed; 20,000 of 100,000 iterations)")
        assert row["budget"] == "T = 120, 20,000 iterations"
    with pytest.raises(UserError, match="no budget 'labtop'"):
        row_of(outputs, cell, "labtop")


@pytest.mark.parametrize("budget", ["0", "00"])
def test_a_budget_of_no_iterations_is_refused(outputs: str, budget: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(outputs).mkdir()
    assert main(["report", outputs, "--paper", COMMON[0], "--budget", budget]) == 2
    assert "--budget: expected a budget's name or a whole number of at least 1" in capsys.readouterr().err


def test_a_budget_without_a_paper_points_to_where(outputs: str) -> None:
    assert main(["report", outputs, "--budget", "5000"]) == 2


def test_a_reproduction_and_a_climb_judge_by_their_own_budget(
    make: Make, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = the(*CLIMB)
    solved_late(make, cell, **{"task.T": 10})
    words = [CLIMB[0], f"rows={CLIMB[1]}", f"columns={CLIMB[2]}", "seeds=1", "T_max=10", f"outputs={outputs}"]
    for limit, status in ((20_000, "not_solved"), (100_000, "solved")):
        (climber,) = reproduce.distinct(reproduce.climbers(reproduce.parse([*words, f"max_iterations={limit}"])))
        assert [outcome.status for outcome in reproduce.run([climber])] == [status]
        climb = depth.Climb({}, [climber.spec], [])
        depth.go_up([climb], depth.Plan(start=10, step=10, max=10))
        assert climb.goes_on == (status == "solved")


def test_curves_end_at_the_budget(make: Make, outputs: str, tmp_path: Path) -> None:
    folder = make({"train.max_iterations": 300}, **cut(300))
    folder.append_metrics([{"iteration": n, "loss": 1.0, "accuracy": 0.5} for n in (100, 200, 300)])
    for where, count in (([], 3), (["--where", "max_iterations=250"], 2)):
        drawn = tmp_path / f"{count}.png"
        assert main(["plot", "--outputs", outputs, "--output", str(drawn), *where]) == 0
        assert len(drawn.with_suffix(".csv").read_text().splitlines()) == 1 + count
