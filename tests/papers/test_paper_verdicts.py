"""Tables of papers rebuilt from hand-made runs: our numbers beside the published ones, and the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from paper_cells import row_of, the

from tprnn.cli import main
from tprnn.papers.recipes import RecipeCell, names, recipe
from tprnn.report.tables.paper import paper_report
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
            **given.get("result", {}),
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


def test_a_climb_is_shown_with_what_it_had(record: Record, outputs: str) -> None:
    for seed in range(3):
        climb(record, the(*BPTT), seed, top=60, fails=True, max_iterations=20_000)
    row = row_of(outputs, the(*BPTT))
    assert (row["published"], row["ours"], row["seeds"], row["budget"]) == (
        "70",
        "60",
        "3",
        "T ≤ 70, 20,000 iterations",
    )
    assert row["verdict"] == "inconclusive (0 of 3 reach T = 70; 20,000 of 100,000 iterations)"
    assert row["new run (95 %)"] == "–"


def test_a_climb_that_diverged_has_no_bound(record: Record, outputs: str) -> None:
    for seed in range(3):
        record(the(*BPTT), "diverged", seed, T=10, max_iterations=1000, iterations=100, stopped_by="not_finite")
    row = row_of(outputs, the(*BPTT))
    assert (row["ours"], row["verdict"]) == ("< 10", "does not replicate (lower: none solves T = 10)")
    assert (row["solved"], row["diverged"], row["cut"], row["out of patience"]) == ("0", "3", "0", "0")
    assert "> 100" not in paper_report(outputs, BPTT[0])


def test_a_climb_that_its_budget_ended_is_a_lower_bound(record: Record, outputs: str) -> None:
    climb(record, the(*BPTT), seed=0, top=40, fails=False)
    row = row_of(outputs, the(*BPTT))
    assert (row["ours"], row["verdict"]) == ("≥ 40", "inconclusive (1 seed)")


def test_a_run_with_less_of_a_budget_than_the_lengths_before_it_took_ends_no_climb(
    record: Record, outputs: str
) -> None:
    record(the(*BPTT), "solved", T=10, iterations=60_000)
    record(the(*BPTT), "not_solved", T=20, max_iterations=20_000)
    assert row_of(outputs, the(*BPTT))["ours"] == "≥ 10"


def test_a_climb_ends_where_a_length_is_missing(record: Record, outputs: str) -> None:
    for T in (10, 20, 40):
        record(the(*BPTT), "solved", T=T)
    assert row_of(outputs, the(*BPTT))["ours"] == "≥ 20"


def test_a_larger_budget_overrules_the_failure_of_a_smaller_one(record: Record, outputs: str) -> None:
    record(the(*BPTT), "not_solved", T=10, max_iterations=1000)
    record(the(*BPTT), "solved", T=10, max_iterations=100_000)
    assert row_of(outputs, the(*BPTT))["ours"] == "≥ 10"


@pytest.mark.parametrize(
    ("tops", "ours"),
    [
        ([(70, True), (60, True), (80, True)], "70 [60–80]"),
        ([(60, True), (50, True), (80, False)], "60 [50–≥ 80]"),
        ([(60, True), (60, True)], "60"),
        ([(60, True), (80, False)], "≥ 70 [60–≥ 80]"),
        ([(20, True), (40, False), (40, False)], "≥ 40 [20–≥ 40]"),
    ],
)
def test_several_seeds_are_shown_by_their_median(
    record: Record, outputs: str, tops: Sequence[tuple[int, bool]], ours: str
) -> None:
    for seed, (top, fails) in enumerate(tops):
        climb(record, the(*BPTT), seed, top, fails)
    row = row_of(outputs, the(*BPTT))
    assert (row["ours"], row["seeds"]) == (ours, str(len(tops)))
    overview = paper_report(outputs, BPTT[0]).splitlines()
    assert any(f"{ours}, n = {len(tops)} (70)" in line for line in overview)


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


def test_a_climb_is_shown_length_by_length_with_how_many_of_how_many_solved(record: Record, outputs: str) -> None:
    cell = the(*BPTT)
    for seed, iterations in ((0, 300), (1, 500), (2, 400)):
        record(cell, "solved", seed, T=10, iterations=iterations)
        spent = 1000 * (seed + 1)
        status = "solved" if seed == 0 else "not_solved"
        record(cell, status, seed, T=20, iterations=spent, max_iterations=spent)
    record(cell, "diverged", 0, T=30, iterations=100, stopped_by="spectral_radius")
    lines = [line for line in paper_report(outputs, cell.recipe).splitlines() if cell.row.task in line]
    by_length = [[part.strip() for part in line.split("|")[1:4]] for line in lines]
    task = cell.row.task
    assert [task, "10", "3/3 [29–100]"] in by_length
    assert [task, "20", "1/3 [1–91]"] in by_length
    assert [task, "30", "0/1 [0–98]"] in by_length
    assert [task, "10", "400 [300–∞]"] in by_length
    assert [task, "20", "> 2,000 [1,000–∞]"] in by_length
    assert [task, "30", "never"] in by_length


def test_columns_are_tested_against_the_first_at_the_lengths_that_both_have(record: Record, outputs: str) -> None:
    first, other = the(*BPTT), the(BPTT[0], BPTT[1], "TPTT")
    for seed in range(5):
        record(first, "diverged", seed, T=10, iterations=100, stopped_by="not_finite")
        record(other, "solved", seed, T=10, iterations=400 + 100 * seed)
    record(other, "solved", 0, T=20)
    page = paper_report(outputs, first.recipe)
    assert "1 test, p without correction" in page
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {first.row.task}") and "5, 5" in line]
    assert [part.strip() for part in line.split("|")[2:6]] == ["10", "TPTT", "600 [400–∞]", "never"]
    assert float(line.split("|")[-2]) < 0.01


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
    assert row["verdict"] == "inconclusive (the interval is too wide)"
    assert row["new run (95 %)"] == "100–22,300"  # t_2 = 4.30, s = 0.577 of log(750, 2350, 1150)


def test_runs_at_other_lengths_do_not_count(record: Record, outputs: str) -> None:
    record(the(*COMMON), "solved", T=110)
    assert row_of(outputs, the(*COMMON))["verdict"] == "not run"


def test_unsolved_runs_rank_after_all_solved_ones(record: Record, outputs: str) -> None:
    record(the(*COMMON), "solved", 0, iterations=30_000)
    record(the(*COMMON), "solved", 1, iterations=900)
    record(the(*COMMON), "not_solved", 2, max_iterations=20_000)
    row = row_of(outputs, the(*COMMON))
    assert (row["ours"], row["verdict"]) == ("30,000 [900–> 20,000]", "inconclusive (20,000 of 100,000 iterations)")


def test_a_run_that_diverged_or_ran_out_of_patience_never_solves(record: Record, outputs: str) -> None:
    """Nine runs that diverge at iteration 100 of 1,000 are no "> 100", and are counted as what they are."""
    for seed in range(9):
        given = {"stopped_by": "not_finite"} if seed < 5 else {"stopped_by": "patience"}
        status = "diverged" if seed < 5 else "not_solved"
        record(the(*COMMON), status, seed, iterations=100, max_iterations=1000, **given)
    row = row_of(outputs, the(*COMMON))
    assert (row["ours"], row["ratio"]) == ("never", "–")
    assert (row["solved"], row["diverged"], row["cut"], row["out of patience"]) == ("0", "5", "0", "4")


def test_words_are_explained_under_the_table_and_by_help(record: Record, outputs: str, capsys: Any) -> None:
    page = " ".join(paper_report(outputs, BPTT[0]).split())
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for text in (page, told):
        for word in (
            "consistent",
            "inconclusive",
            "higher",
            "lower",
            "does not replicate",
            "95 %",
            "1 percentage point",
        ):
            assert word in text
        assert "factor of 1.5" in text


def test_the_smallest_budget_says_what_it_can_show(record: Record, outputs: str) -> None:
    record(the(*BPTT), "solved", T=10, max_iterations=20_000)
    said = "runs of the budget smoke (1 seed, 20,000 of 100,000 iterations)"
    assert paper_report(outputs, BPTT[0]).count(said) == 1
    record(the(*BPTT), "not_solved", T=20, max_iterations=100_000)
    assert said not in paper_report(outputs, BPTT[0])


def test_a_comparison_with_more_search_for_one_column_says_so(record: Record, outputs: str) -> None:
    record(the(*SLOW), "solved", iterations=40_000)
    record(the(*COMMON), "solved", iterations=1_000)
    assert "Not the same search" not in paper_report(outputs, SLOW[0])
    record(the(*SLOW), "solved", iterations=9_000, changes={"trainer.alpha": 0.001})
    page = paper_report(outputs, SLOW[0])
    assert "2 points: BPTT, best)" in page


def test_best_is_the_fastest_point_of_the_grid(record: Record, outputs: str) -> None:
    record(the(*SLOW), "solved", iterations=40_000)
    record(the(*SLOW), "solved", iterations=9_000, changes={"trainer.alpha": 0.001})
    record(the(*SLOW), "solved", iterations=100, changes={"trainer.alpha": 0.5})  # not in the grid
    row = row_of(outputs, the(*SLOW))
    assert row["ours"] == "9,000"
    assert row["parameters"].startswith("alpha=0.001 ")
    assert "2 points run" in row["parameters"]


# ---- the page


def test_damaged_runs_are_named_and_the_others_still_reported(record: Record, outputs: str) -> None:
    climb(record, the(*BPTT), seed=0, top=70, fails=True)
    record(the(*BPTT), "solved", seed=1, T=10)
    (broken,) = (Path(outputs) / "runs").glob("*-s1-*")
    (broken / "result.json").write_text("{")
    assert row_of(outputs, the(*BPTT))["ours"] == "70"
    assert broken.name in paper_report(outputs, BPTT[0], "md")
