"""Tables of papers rebuilt from hand-made runs: our numbers beside the published ones, and the verdicts."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from paper_cells import CELLS, row_of, the

from tprnn.papers.recipes import RecipeCell, names, recipe
from tprnn.protocols import reproduce
from tprnn.report.paper import paper_report
from tprnn.store import Store

Record = Callable[..., None]


@pytest.fixture
def record(outputs: str) -> Record:
    """Writes a finished run of a cell by hand."""
    store = Store(outputs)

    def write(cell: RecipeCell, status: str, seed: int = 0, **given: Any) -> None:
        limit = given.get("max_iterations", 100_000)
        changes = {"seed": seed, "task.T": given.get("T", cell.first_T), "train.max_iterations": limit}
        spec = cell.spec().replace(changes | given.get("changes", {}))
        result = {
            "status": status,
            "stopped_by": given.get("stopped_by", "solved" if status == "solved" else "max_iterations"),
            "iterations": given.get("iterations", 500 if status == "solved" else limit),
            "accuracy": 1.0,
            "best_accuracy": given.get("best_accuracy", 1.0),
            "best_validation_loss": given.get("best_validation_loss", 0.1),
            "signature": spec.signature,
        }
        folder = store.folder(spec)
        folder.open(spec)
        folder.set_budget(spec.train)
        folder.write_result(result)

    return write


def climb(record: Record, cell: RecipeCell, seed: int, top: int, fails: bool, **given: Any) -> None:
    for T in range(10, top + 1, 10):
        record(cell, "solved", seed, T=T, **given)
    if fails:
        record(cell, "not_solved", seed, T=top + 10, **given)


# ---- largest T


BPTT = ("manchev2020/table1", "temporal_order_3bit", "BPTT")  # published: 70


def test_a_climb_that_gets_as_far_as_the_paper_is_reached(record: Record, outputs: str) -> None:
    climb(record, the(*BPTT), seed=0, top=70, fails=True)
    row = row_of(outputs, the(*BPTT))
    assert (row["published"], row["ours"], row["verdict"], row["seeds"]) == ("70", "70", "reached", "1")


def test_a_climb_that_fails_early_is_below(record: Record, outputs: str) -> None:
    climb(record, the(*BPTT), seed=0, top=60, fails=True)
    row = row_of(outputs, the(*BPTT))
    assert (row["ours"], row["verdict"]) == ("60", "below")


def test_below_says_so_when_fewer_iterations_than_in_the_paper_were_given(record: Record, outputs: str) -> None:
    climb(record, the(*BPTT), seed=0, top=60, fails=True, max_iterations=20_000)
    row = row_of(outputs, the(*BPTT))
    assert row["verdict"] == "below at 20,000 iterations"
    assert row["budget"] == "T ≤ 70, 20,000 iterations"


def test_a_climb_that_diverged_is_below_whatever_its_iterations(record: Record, outputs: str) -> None:
    record(the(*BPTT), "diverged", T=10, max_iterations=20_000, iterations=300, stopped_by="not_finite")
    row = row_of(outputs, the(*BPTT))
    assert (row["ours"], row["verdict"]) == ("< 10", "below")


def test_a_climb_that_its_budget_ended_is_a_lower_bound_and_not_below(record: Record, outputs: str) -> None:
    climb(record, the(*BPTT), seed=0, top=40, fails=False)
    row = row_of(outputs, the(*BPTT))
    assert (row["ours"], row["verdict"]) == ("≥ 40", "not run to T = 70")


def test_a_lower_bound_past_the_published_length_is_reached(record: Record, outputs: str) -> None:
    climb(record, the(*BPTT), seed=0, top=80, fails=False)
    row = row_of(outputs, the(*BPTT))
    assert (row["ours"], row["verdict"]) == ("≥ 80", "reached")


def test_a_climb_ends_where_a_length_is_missing(record: Record, outputs: str) -> None:
    for T in (10, 20, 40):
        record(the(*BPTT), "solved", T=T)
    assert row_of(outputs, the(*BPTT))["ours"] == "≥ 20"


def test_a_larger_budget_overrules_the_failure_of_a_smaller_one(record: Record, outputs: str) -> None:
    record(the(*BPTT), "not_solved", T=10, max_iterations=1000)
    record(the(*BPTT), "solved", T=10, max_iterations=100_000)
    assert row_of(outputs, the(*BPTT))["ours"] == "≥ 10"


@pytest.mark.parametrize(
    ("tops", "says"),
    [
        ([(70, True), (60, True), (80, True)], ("70 [60–80]", "reached")),
        ([(60, True), (50, True), (80, False)], ("60 [50–≥ 80]", "below")),
        ([(60, True), (60, True)], ("60", "below")),
        ([(60, True), (80, False)], ("≥ 70 [60–≥ 80]", "reached")),
        ([(20, True), (40, False), (40, False)], ("≥ 40 [20–≥ 40]", "not run to T = 70")),
    ],
)
def test_several_seeds_are_judged_by_their_median(
    record: Record, outputs: str, tops: Sequence[tuple[int, bool]], says: tuple[str, str]
) -> None:
    for seed, (top, fails) in enumerate(tops):
        climb(record, the(*BPTT), seed, top, fails)
    row = row_of(outputs, the(*BPTT))
    assert (row["ours"], row["verdict"]) == says
    assert row["seeds"] == str(len(tops))


def test_cells_without_runs_are_not_run_and_controls_have_no_verdict(record: Record, outputs: str) -> None:
    control = the("manchev2020/table1", "adding", "TPTT_frozen")
    assert row_of(outputs, the(*BPTT))["verdict"] == "not run"
    assert row_of(outputs, control)["verdict"] == "not run"
    climb(record, control, seed=0, top=20, fails=True)
    row = row_of(outputs, control)
    assert (row["published"], row["ours"], row["verdict"]) == ("–", "20", "–")


def test_runs_count_by_what_they_are(record: Record, outputs: str) -> None:
    cell = the(*BPTT)
    record(cell, "solved", seed=41, T=10, max_iterations=777)
    record(cell, "solved", seed=42, T=10, changes={"trainer.alpha": 0.5})
    record(cell, "solved", seed=43, T=10, changes={"dtype": "float64"})
    assert row_of(outputs, cell)["seeds"] == "1"


def test_a_climbs_iterations_are_shown_length_by_length(record: Record, outputs: str) -> None:
    cell = the(*BPTT)
    for seed, iterations in ((0, 300), (1, 500), (2, 400)):
        record(cell, "solved", seed, T=10, iterations=iterations)
        spent = 1000 * (seed + 1)
        status = "solved" if seed == 0 else "not_solved"
        record(cell, status, seed, T=20, iterations=spent, max_iterations=spent)
    lines = [line for line in paper_report(outputs, cell.recipe).splitlines() if cell.row.task in line]
    by_length = [[part.strip() for part in line.split("|")[1:4]] for line in lines]
    assert [cell.row.task, "10", "400 [300–500]"] in by_length
    assert [cell.row.task, "20", "> 2,000 [1,000–> 3,000]"] in by_length


@pytest.mark.parametrize("name", names())
def test_every_table_has_a_page_before_anything_was_run(outputs: str, name: str) -> None:
    page = paper_report(outputs, name)
    assert page.startswith(f"**{name}: ")
    judged = any(cell.published for cell in recipe(name).cells)
    assert page.count("not run") == (len(recipe(name).cells) if judged else 0)


def test_unfinished_runs_do_not_count(record: Record, outputs: str) -> None:
    record(the(*BPTT), "interrupted", T=10, iterations=200)
    record(the(*BPTT), "failed", T=10, seed=1, iterations=200)
    assert row_of(outputs, the(*BPTT))["verdict"] == "not run"


# ---- iterations to solve


COMMON = ("manchev2020/table2", "temporal_order", "TPTT_common")  # published: 1,600
UNSOLVED = ("manchev2020/table2", "adding", "TPTT_common")  # published: not solved
SLOW = ("manchev2020/table2", "temporal_order", "BPTT_best")  # published: 46,500


def test_iterations_are_shown_beside_the_published_ones_with_their_ratio(record: Record, outputs: str) -> None:
    for seed, iterations in enumerate((800, 2400, 1200)):
        record(the(*COMMON), "solved", seed, iterations=iterations)
    row = row_of(outputs, the(*COMMON))
    assert (row["published"], row["ours"], row["ratio"]) == ("1,600", "1,200 [800–2,400]", "0.75")
    assert row["verdict"] == "reached"


def test_runs_at_other_lengths_do_not_count(record: Record, outputs: str) -> None:
    record(the(*COMMON), "solved", T=110)
    assert row_of(outputs, the(*COMMON))["verdict"] == "not run"


def test_unsolved_runs_rank_after_all_solved_ones(record: Record, outputs: str) -> None:
    record(the(*COMMON), "solved", 0, iterations=30_000)
    record(the(*COMMON), "solved", 1, iterations=900)
    record(the(*COMMON), "not_solved", 2, max_iterations=20_000)
    row = row_of(outputs, the(*COMMON))
    assert (row["ours"], row["verdict"]) == ("30,000 [900–> 20,000]", "reached")


@pytest.mark.parametrize(
    ("cell", "given", "says"),
    [
        (COMMON, {"max_iterations": 100_000}, "below"),
        (COMMON, {"max_iterations": 20_000}, "below at 20,000 iterations"),
        (COMMON, {"max_iterations": 100_000, "iterations": 31_000, "stopped_by": "patience"}, "below"),
        (SLOW, {"max_iterations": 20_000}, "not run to 46,500 iterations"),
        (UNSOLVED, {"max_iterations": 20_000}, "not run to 100,000 iterations"),
        (UNSOLVED, {"max_iterations": 100_000}, "reached (not solved either)"),
    ],
)
def test_an_unsolved_run_is_judged_by_the_iterations_it_had(
    record: Record, outputs: str, cell: tuple[str, str, str], given: dict[str, Any], says: str
) -> None:
    record(the(*cell), "not_solved", **given)
    row = row_of(outputs, the(*cell))
    assert (row["verdict"], row["ratio"]) == (says, "–")
    assert row["ours"].startswith("> ")


def test_to_solve_what_the_paper_did_not_is_reached(record: Record, outputs: str) -> None:
    record(the(*UNSOLVED), "solved", iterations=4000)
    row = row_of(outputs, the(*UNSOLVED))
    assert (row["published"], row["verdict"]) == ("not solved", "reached (not solved in the paper)")


def test_best_is_the_fastest_point_of_the_grid(record: Record, outputs: str) -> None:
    record(the(*SLOW), "solved", iterations=40_000)
    record(the(*SLOW), "solved", iterations=9_000, changes={"trainer.alpha": 0.001})
    record(the(*SLOW), "solved", iterations=100, changes={"trainer.alpha": 0.5})  # not in the grid
    row = row_of(outputs, the(*SLOW))
    assert row["ours"] == "9,000"
    assert row["parameters"].startswith("alpha=0.001 ")
    assert "2 points run" in row["parameters"]


# ---- the page


@pytest.mark.parametrize("cell", CELLS[::5], ids=lambda c: f"{c.recipe}:{c.row.key}:{c.column.key}")
def test_the_command_of_a_cell_runs_that_cell_with_what_was_used(
    cell: RecipeCell, record: Record, outputs: str
) -> None:
    for seed in (0, 3):
        record(cell, "solved", seed, T=cell.first_T, max_iterations=1234)
    words = shlex.split(row_of(outputs, cell)["command"])
    assert words[:2] == ["tprnn", "reproduce"]
    request = reproduce.parse(words[2:])
    assert [(c.row, c.column.key) for c in request.cells] == [(cell.row, cell.column.key)]
    assert request.budget.seeds == (0, 3)
    assert request.budget.max_iterations == 1234
    assert list(request.recipe.lengths(cell, request.budget)) == [cell.first_T]


def test_damaged_runs_are_named_and_the_others_still_reported(record: Record, outputs: str) -> None:
    climb(record, the(*BPTT), seed=0, top=70, fails=True)
    record(the(*BPTT), "solved", seed=1, T=10)
    (broken,) = (Path(outputs) / "runs").glob("*-s1-*")
    (broken / "result.json").write_text("{")
    assert row_of(outputs, the(*BPTT))["ours"] == "70"
    assert broken.name in paper_report(outputs, BPTT[0], "md")
