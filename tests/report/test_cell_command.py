"""The command beside a cell makes that cell: once its runs are recorded, its dry run has none to do."""

from __future__ import annotations

import random
import shlex
from pathlib import Path
from typing import Any

import pytest
from paper_cells import CELLS, row_of, the

from tprnn.config import RunSpec
from tprnn.papers.recipes import RecipeCell, recipe
from tprnn.protocols import reproduce
from tprnn.store import Store

MANY_POINTS = [cell for cell in CELLS if len(cell.candidates(None)) > 1]


def record(outputs: str, spec: RunSpec, status: str, iterations: int, stopped_by: str | None = None) -> None:
    folder = Store(outputs).folder(spec)
    folder.open(spec)
    folder.set_budget(spec.train)
    stop = stopped_by or {"solved": "solved", "diverged": "not_finite"}.get(status, "max_iterations")
    result = {"status": status, "stopped_by": stop, "iterations": iterations, "accuracy": 0.5, "best_accuracy": 0.5}
    folder.write_result(result | {"best_validation_loss": 0.1, "signature": spec.signature})


def climb(outputs: str, rng: random.Random, plan: Any, cell: RecipeCell, spec: RunSpec, limit: int) -> None:
    """A climb of one seed that fails, diverges, or that its budget ends; at one length, a run that ends in any way."""
    top = rng.randint(1, 4) if cell.row.T is None else 1
    for rung in range(top):
        end = rng.choice(["solved", "not_solved", "diverged", "patience"]) if rung == top - 1 else "solved"
        at = spec.replace({"task.T": cell.first_T + rung * plan.step, "train.max_iterations": limit})
        iterations = limit if end == "not_solved" else rng.randrange(100, 401, 100)
        status = "not_solved" if end == "patience" else end
        record(outputs, at, status, iterations, "patience" if end == "patience" else None)


def commands(outputs: str, cell: RecipeCell) -> list[list[str]]:
    """The words after `tprnn reproduce` of each command beside the cell."""
    found = [shlex.split(part) for part in row_of(outputs, cell)["command"].split(" && ")]
    assert all(words[:2] == ["tprnn", "reproduce"] for words in found)
    return [words[2:] for words in found]


def made(outputs: str, cell: RecipeCell) -> tuple[set[str], int]:
    """Signatures of the runs that the printed commands make, and how many of them are still to do."""
    signatures, todo = set(), 0
    for words in commands(outputs, cell):
        request = reproduce.parse(words)
        assert [(c.row, c.column.key) for c in request.cells] == [(cell.row, cell.column.key)]
        for standing in reproduce.standings(reproduce.climbers(request), Store(outputs)):
            climber = standing.climber
            todo += len(standing.left)
            signatures |= {climber.at(T).signature for T in climber.lengths[: standing.done]}
    return signatures, todo


@pytest.mark.parametrize("number", range(60))
def test_what_was_recorded_is_what_the_command_makes(number: int, outputs: str) -> None:
    """Cells of all kinds, some points, seeds and budgets of each, every run ending in its own way."""
    rng = random.Random(number)
    cell = rng.choice(MANY_POINTS if number % 2 else CELLS)
    plan = recipe(cell.recipe)
    points = list(cell.candidates(None))
    chosen = rng.sample(points, min(len(points), rng.choice([1, 2, 5])))
    seeds = rng.choice([[0], [0, 1, 2], [0, 3], [2, 5, 7]])
    limits = rng.choice([[plan.budgets["laptop"].max_iterations], [500, 1234], [400, 2000, 100_000]])
    for point in chosen:
        for seed in seeds:
            if len(chosen) == 1 or rng.random() < 0.8:
                climb(outputs, rng, plan, cell, point.replace({"seed": seed}), rng.choice(limits))
    if not Path(outputs).exists():
        pytest.skip("nothing was drawn")
    signatures, todo = made(outputs, cell)
    assert todo == 0
    recorded = {folder.read_spec().signature for folder in Store(outputs).folders()}
    assert signatures == recorded


def test_the_usual_cell_has_a_plain_command(outputs: str) -> None:
    cell = MANY_POINTS[0]
    for seed in range(3):
        for point in cell.candidates("laptop"):
            record(outputs, point.replace({"seed": seed, "train.max_iterations": 25_000}), "not_solved", 25_000)
    (words,) = commands(outputs, cell)
    assert words == [
        cell.recipe, f"rows={cell.row.key}", f"columns={cell.column.key}", "budget=laptop", f"outputs={outputs}"
    ]  # fmt: skip


def test_some_points_of_a_grid_are_named_by_their_numbers(outputs: str) -> None:
    cell = MANY_POINTS[0]
    whole = cell.candidates("paper")
    first, last = 2, len(whole)
    for number in (first, last):
        record(outputs, whole[number - 1].replace({"seed": 0, "train.max_iterations": 25_000}), "not_solved", 25_000)
    (words,) = commands(outputs, cell)
    assert words[3:-1] == ["budget=paper", "seeds=1", f"points={first},{last}"]


def test_runs_of_two_budgets_are_two_commands(outputs: str) -> None:
    cell = the("manchev2020/table2", "temporal_order", "TPTT_common")
    for seed, limit in ((0, 20_000), (1, 20_000), (2, 100_000)):
        record(outputs, cell.spec().replace({"seed": seed, "train.max_iterations": limit}), "not_solved", limit)
    assert [words[3:-1] for words in commands(outputs, cell)] == [
        ["budget=laptop", "seeds=2"],
        ["budget=paper", "seeds=[2]"],
    ]


def test_a_number_that_no_point_has_is_refused(outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    from tprnn.cli import main

    for points, says in (("4", "points: BPTT_loss has 3 of them in budget=laptop, no 4"), ("0", "points: expected")):
        words = ["dai2021/table1", "rows=copy_memory-T5", "columns=BPTT_loss", f"points={points}", "--dry-run"]
        assert main(["reproduce", *words, f"outputs={outputs}"]) == 2
        assert says in capsys.readouterr().err


def test_a_dry_run_with_points_has_those_alone(outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["dai2021/table1", "rows=copy_memory-T5", "columns=BPTT_loss", "points=1,3", "--dry-run"]
    assert reproduce.main([*words, f"outputs={outputs}"]) == 0
    out = capsys.readouterr().out
    assert "\n6 runs to do" in out
    assert "of these points 1, 3" in out
