"""Verdicts as a function of runs and of a printed number or mark."""

from __future__ import annotations

from dataclasses import replace

import pytest
from verdict_runs import PAPER, accuracies, answer_of, climbs, counts, judged, published, run

from tprnn.report.rows.scores import Answer, Score
from tprnn.report.rows.verdicts import Limits, printed_range

LONG = {"iterations": 100_000}


def losses(*values: float, **given: object) -> Answer:
    return answer_of(
        [
            Score(value, False, (run(seed, test_sequences=10_000, test_right=9000, test_loss=value, **given),))
            for seed, value in enumerate(values)
        ]
    )


# ---- numbers


@pytest.mark.parametrize(
    ("percent", "printed", "says"),
    [
        ((98.0, 98.1, 97.9), "98.05", "consistent"),
        ((98.0, 98.1, 97.9), "95.00", "higher"),
        ((98.0, 98.1, 97.9), "99.50", "lower"),
        ((98.0, 95.0, 99.0), "97.00", "inconclusive (the interval is too wide)"),
        # more noise is not more agreement
        ((98.0, 60.0, 99.0), "51.00", "inconclusive (the interval is too wide)"),
        ((98.0,), "98.00", "inconclusive (1 seed)"),
        # two that happen to be alike say nothing of how seeds scatter
        ((98.0, 98.0), "98.00", "inconclusive (2 seeds)"),
        ((98.0, 98.0), "50.00", "inconclusive (2 seeds)"),
        ((98.0, 98.2, 98.1), "50.90", "does not replicate (higher)"),
        ((51.0, 50.2, 50.1), "98.00", "does not replicate (lower)"),
        ((50.1, 50.9, 50.4), "50.90", "inconclusive (the interval is too wide)"),
        # all right, three times: an interval of the test set's own
        ((100.0, 100.0, 100.0), "99.99", "consistent"),
        ((100.0, 100.0, 100.0), "99.84", "higher"),
        ((100.0, 100.0, 100.0), "100%", "consistent"),
        ((0.0, 0.01, 0.0), "0%", "consistent"),
        ((0.0, 0.01, 0.0), "3.62", "lower"),
        # within the printed rounding of 99.5 to 100.5
        ((99.6, 99.6, 99.61), "100%", "consistent"),
    ],
)
def test_accuracies(percent: tuple[float, ...], printed: str, says: str) -> None:
    cell = published(float(printed.rstrip("%")), printed)
    assert judged("accuracy_pct", cell, accuracies(*percent, end="cut")) == says


@pytest.mark.parametrize(
    ("values", "printed", "says"),
    [
        ((0.69, 0.691, 0.689), "0.6899", "consistent"),
        ((0.69, 0.691, 0.689), "0.9", "lower"),
        ((0.69, 0.691, 0.689), "0.5", "higher"),
        ((0.3, 0.69, 1.2), "0.6899", "inconclusive (the interval is too wide)"),
        ((0.0, 0.0, 0.0), "5e-8", "consistent"),  # all below what float32 can tell
        # the rounding of what is printed holds more than the margin: 5e-5 to 1.5e-4
        ((0.69, 0.691, 0.689), "0.7", "consistent"),
        ((6e-5, 6.01e-5, 5.99e-5), "0.0001", "inconclusive (too few digits are printed)"),
        ((0.0, 0.0, 0.0), "0.0000", "inconclusive (too few digits are printed)"),
        ((6e-5, 6.01e-5, 5.99e-5), "0.0003", "lower"),
        ((0.0, 2e-8, 3e-8), "0.6899", "lower"),
        ((0.69, float("inf"), 0.69), "0.6899", "inconclusive (1 of 3 without a finite loss)"),
    ],
)
def test_losses(values: tuple[float, ...], printed: str, says: str) -> None:
    assert judged("loss", published(float(printed), printed), losses(*values)) == says


@pytest.mark.parametrize(
    ("iterations", "printed", "says"),
    [
        ((5000, 5100, 5200), "5,100", "consistent"),
        ((5000, 5100, 5200), "12,000", "lower"),
        ((5000, 5100, 5200), "1,600", "higher"),
        ((800, 2400, 1200), "1,600", "inconclusive (the interval is too wide)"),
        ((100, 100, 100), "200", "inconclusive (the interval is too wide)"),  # the grid of checks hides the scatter
        ((100, 100, 100), "12,200", "lower"),
        ((500, 600, "diverged"), "600", "inconclusive (2 of 3 solved)"),
        ((500, 600, ">20000"), "600", "inconclusive (20,000 of 100,000 iterations)"),
        ((">20000", ">20000", ">20000"), "600", "inconclusive (20,000 of 100,000 iterations)"),
        ((">20000",), "46,500", "inconclusive (1 seed; 20,000 of 100,000 iterations)"),
    ],
)
def test_iterations(iterations: tuple[int | str, ...], printed: str, says: str) -> None:
    cell = published(float(printed.replace(",", "")), printed, solved=True)
    assert judged("iterations_to_solve", cell, counts(*iterations)) == says


@pytest.mark.parametrize(
    ("tops", "printed", "says"),
    [
        ((150, 150, 160), 150, "consistent"),
        ((150, 150, 160), 300, "lower"),
        ((150, 150, 160), 70, "higher"),
        ((70, 60, 80), 70, "inconclusive (the interval is too wide)"),
        ((20, 80, 120), 70, "inconclusive (the interval is too wide)"),
        ((70,), 70, "inconclusive (1 seed)"),
        ((0, 0, 0), 70, "does not replicate (lower: none solves T = 10)"),
        ((">=40", ">=40", 20), 70, "inconclusive (0 of 3 reach T = 70; the budget ended climbs)"),
        ((">=80", ">=80", ">=80"), 70, "inconclusive (3 of 3 reach T = 70; the budget ended climbs)"),
        ((">=80",) * 7, 70, "higher"),  # 7 equal outcomes
        ((">=80",) * 6, 70, "inconclusive (6 of 6 reach T = 70; the budget ended climbs)"),
    ],
)
def test_climbs(tops: tuple[int | str, ...], printed: float, says: str) -> None:
    assert judged("t_max", published(printed, str(printed), solved=True), climbs(*tops)) == says


def test_a_climb_that_its_iterations_cut_is_longer_than_it_looks() -> None:
    found = climbs(60, 60, 60, fails="cut", spent=20_000)
    says = "inconclusive (0 of 3 reach T = 70; 20,000 of 100,000 iterations)"
    assert judged("t_max", published(70, "70", solved=True), found) == says


@pytest.mark.parametrize("n", range(2, 30))
def test_noise_never_makes_a_verdict_of_consistent(n: int) -> None:
    values = [50.0 + 49.0 * seed / (n - 1) for seed in range(n)]
    assert "consistent" not in judged("accuracy_pct", published(75.0, "75.00"), accuracies(*values))


# ---- marks


TICK, CROSS = published(None, None, solved=True), published(None, "-", solved=False)


@pytest.mark.parametrize(
    ("found", "tick", "cross"),
    [
        (counts(400, 500, 600), "consistent", "does not replicate (higher: 3 of 3 solved)"),
        (counts(400), "inconclusive (1 seed; 1 of 1 solved)", "inconclusive (1 seed; 1 of 1 solved)"),
        # near the limit another run may miss it
        (counts(60_000, 90_000, 30_000), "inconclusive (3 of 3 solved)", "inconclusive (3 of 3 solved)"),
        (counts(400, 500, "diverged"), "inconclusive (2 of 3 solved)", "inconclusive (2 of 3 solved)"),
        # how far unsolved runs are from the criterion does not say how many would solve: 7 outcomes do
        (accuracies(84, 84.1, 84.2), "inconclusive (0 of 3 solved)", "inconclusive (0 of 3 solved)"),
        (accuracies(99.98, 99.99, 99.99), "inconclusive (0 of 3 solved)", "inconclusive (0 of 3 solved)"),
        (accuracies(*[84] * 7), "does not replicate (lower: 0 of 7 solved)", "consistent"),
        (counts(*["diverged"] * 6), "inconclusive (0 of 6 solved)", "inconclusive (0 of 6 solved)"),
        (counts(*["diverged"] * 7), "does not replicate (lower: 0 of 7 solved)", "consistent"),
        (
            accuracies(84, 84.1, 84.2, iterations=5000),
            "inconclusive (5,000 of 100,000 iterations; 0 of 3 solved)",
            "inconclusive (5,000 of 100,000 iterations; 0 of 3 solved)",
        ),
    ],
)  # fmt: skip
def test_marks(found: Answer, tick: str, cross: str) -> None:
    assert judged("accuracy_pct", TICK, found) == tick
    assert judged("accuracy_pct", CROSS, found) == cross
    assert judged("iterations_to_solve", CROSS, found) == cross


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (climbs(30, 30, 20), "does not replicate (higher: 3 of 3 solved)"),
        (climbs(30, 0, 0), "inconclusive (1 of 3 solved)"),
        (climbs(0, 0, 0), "inconclusive (0 of 3 solved)"),
        (climbs(*[0] * 7), "consistent"),
        (climbs(0, 0, 0, fails="cut"), "inconclusive (9,000 of 100,000 iterations; 0 of 3 solved)"),
    ],
)
def test_a_climb_that_the_paper_could_not_begin(found: Answer, says: str) -> None:
    assert judged("t_max", published(None, "-", solved=False), found) == says


def test_to_solve_what_the_paper_printed_as_a_number_is_another_outcome() -> None:
    cell = published(99.84, "99.84", solved=False)
    assert judged("accuracy_pct", cell, accuracies(100, 100, 100)) == "does not replicate (higher: 3 of 3 solved)"
    assert judged("accuracy_pct", published(99.99, "99.99"), accuracies(100, 100, 100)) == "consistent"


def test_nothing_solved_after_the_paper_did_is_lower_at_the_papers_budget_alone() -> None:
    cell = published(1600, "1,600", solved=True)
    for end, iterations in (("cut", 100_000), ("out of patience", 3_000), ("diverged", 100)):
        found = counts(*[">100000" if end == "cut" else end] * 7)
        assert judged("iterations_to_solve", cell, found) == "does not replicate (lower: 0 of 7 solved)", iterations


def test_solved_after_the_papers_limit_is_not_solved_within_it() -> None:
    found = counts(150_000, 160_000, 155_000, max_iterations=200_000)
    assert judged("iterations_to_solve", TICK, found).startswith("does not replicate (lower")


# ---- what a cell must have to be judged


def test_below_the_papers_budget_nothing_is_judged_unless_it_was_solved() -> None:
    short = accuracies(98.0, 98.1, 97.9, iterations=5000)
    for printed in ("98.00", "50.90", "99.90"):
        says = judged("accuracy_pct", published(float(printed), printed, solved=False), short)
        assert says == "inconclusive (5,000 of 100,000 iterations)"
    solved = accuracies(100, 100, 100, max_iterations=5000)
    assert judged("accuracy_pct", published(50.9, "50.90", solved=False), solved).startswith("does not replicate")


MORE = {"iterations": 200_000, "max_iterations": 200_000}
BEYOND = "inconclusive (200,000 iterations, not 100,000)"


@pytest.mark.parametrize(
    ("metric", "found", "printed", "says"),
    [
        (
            "accuracy_pct",
            accuracies(98.0, 98.1, 97.9, **MORE),
            "95.0",
            "inconclusive (200,000 iterations, not 100,000)",
        ),
        (
            "accuracy_pct",
            accuracies(98.0, 98.1, 97.9, **MORE),
            "98.0",
            "inconclusive (200,000 iterations, not 100,000)",
        ),
        ("accuracy_pct", accuracies(98.0, 98.1, 97.9, **MORE), "99.9", "lower"),
        ("loss", losses(0.69, 0.691, 0.689, **MORE), "0.9", BEYOND),
        ("loss", losses(0.69, 0.691, 0.689, **MORE), "0.5", "higher"),
        ("iterations_to_solve", counts(150_000, 151_000, 152_000), "46,500", "higher"),
    ],
)
def test_beyond_the_papers_budget_only_what_is_worse_is_judged(
    metric: str, found: Answer, printed: str, says: str
) -> None:
    cell = published(float(printed.replace(",", "")), printed, solved=metric == "iterations_to_solve")
    assert judged(metric, cell, found) == says


@pytest.mark.parametrize(("printed", "better"), [(70, True), (300, False)])
@pytest.mark.parametrize("tops", [(150, 150, 160), (">=150",) * 7])
def test_a_length_that_took_more_than_the_papers_iterations_is_not_better(
    tops: tuple[int | str, ...], printed: float, better: bool
) -> None:
    scores = [
        Score(one.value, one.bound, [replace(run, iterations=150_000) for run in one.records])
        for one in climbs(*tops).scores
    ]
    says = judged("t_max", published(printed, str(printed), solved=True), answer_of(scores))
    assert says not in ("higher", "consistent")
    assert ("150,000 iterations, not 100,000" in says) == (better or len(tops) == 7)


def test_runs_without_a_test_set_are_not_judged_by_their_best_check() -> None:
    old = answer_of([Score(98.0, False, (run(seed, best_accuracy=0.98),)) for seed in range(3)])
    assert judged("accuracy_pct", published(98.0, "98.00"), old) == "inconclusive (no test set recorded)"


@pytest.mark.parametrize(
    ("metric", "found", "printed", "says"),
    [
        ("accuracy_pct", accuracies(98.0, 98.1, 97.9), 99.9, "inconclusive (1 of 15 points)"),
        ("accuracy_pct", accuracies(98.0, 98.1, 97.9), 98.0, "inconclusive (1 of 15 points)"),
        ("accuracy_pct", accuracies(98.0, 98.1, 97.9), 95.0, "higher"),  # the best of more is no worse
        ("loss", losses(0.69, 0.691, 0.689), 0.5, "inconclusive (1 of 15 points)"),
        ("loss", losses(0.69, 0.691, 0.689), 0.9, "lower"),
        ("iterations_to_solve", counts(5000, 5100, 5200), 1000, "inconclusive (1 of 15 points)"),
        ("iterations_to_solve", counts(5000, 5100, 5200), 20_000, "lower"),
        ("t_max", climbs(150, 150, 160), 300, "inconclusive (1 of 15 points)"),
        ("t_max", climbs(150, 150, 160), 70, "higher"),
    ],
)
def test_fewer_points_than_the_papers_grid_excuse_what_is_worse(
    metric: str, found: Answer, printed: float, says: str
) -> None:
    fewer = answer_of(found.scores, paper_points=(1, 15))
    assert (
        judged(metric, published(printed, str(printed), solved=metric in ("t_max", "iterations_to_solve")), fewer)
        == says
    )


def test_of_fewer_points_none_that_solves_is_no_outcome_but_one_that_solves_is() -> None:
    none = answer_of(accuracies(84, 84.1, 84.2).scores, paper_points=(1, 15))
    assert judged("accuracy_pct", TICK, none) == "inconclusive (1 of 15 points; 0 of 3 solved)"
    assert judged("accuracy_pct", CROSS, none) == "inconclusive (1 of 15 points; 0 of 3 solved)"
    assert judged("accuracy_pct", TICK, answer_of(counts(400, 500, 600).scores, paper_points=(1, 15))) == "consistent"


def test_tables_without_a_criterion_have_no_marks() -> None:
    of = Limits(25_000, None)
    assert (
        judged("accuracy_pct", published(0.0, "0%"), accuracies(99.9, 99.92, 99.95, iterations=25_000), of)
        == "does not replicate (higher)"
    )
    assert PAPER.error is not None


@pytest.mark.parametrize(
    ("value", "printed", "ends"),
    [
        (99.84, "99.84", (99.835, 99.845)),
        (100.0, "100%", (99.5, 100.5)),
        (0.00359, "3.59e-3", (0.003585, 0.003595)),
        (46_500, "46,500", (46_499.5, 46_500.5)),
        (5.0, "about five", (5.0, 5.0)),
    ],
)
def test_what_a_printed_number_may_be_the_rounding_of(value: float, printed: str, ends: tuple[float, float]) -> None:
    assert printed_range(published(value, printed)) == pytest.approx(ends)
