"""A run is a trajectory: budgets cut it and leave no trace, whatever was asked for before and wherever it broke off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import make_spec
from quick_runs import After, strip
from run_files import same_bits

from tprnn.budgets import Budget, view
from tprnn.config import RunSpec
from tprnn.engine.loop import work_through
from tprnn.engine.queue import Queue
from tprnn.errors import UserError
from tprnn.protocols.evaluate import load
from tprnn.store import Store
from tprnn.sweep.run import run_all

SMALL = {"model.H": 20, "task.T": 10, "train.validation_size": 2000, "train.check_every": 10, "train.patience": 1000}
SMALL |= {"train.full_check_every": 3, "trainer.noise": 0.05, "optimizer.momentum": 0.8, "train.max_iterations": 100}


def small(folder: Path, changes: dict[str, Any] | None = None) -> RunSpec:
    changed = SMALL | {"outputs": str(folder), "checkpoint_seconds": 1000.0} | (changes or {})
    return make_spec(changed, trainer="tptt", probe="all")


def within(spec: RunSpec, iterations: int) -> RunSpec:
    return spec.replace({"train.max_iterations": iterations})


def left(spec: RunSpec) -> tuple[Any, ...]:
    """What a run left behind but for times: checkpoint, metrics, network, result."""
    folder = Store(spec.execution["outputs"]).folder(spec)
    tensors, state = folder.load_checkpoint() or ({}, {})
    times = ("seconds", "stack", "commit")
    numbers = [{key: value for key, value in found.items() if key not in times} for found in (state, folder.result())]
    return tensors, numbers, strip(folder.read_metrics()), load(folder.path).params


def assert_same(one: RunSpec, other: RunSpec) -> None:
    mine, theirs = left(one), left(other)
    assert mine[1:3] == theirs[1:3]
    assert same_bits(mine[0], theirs[0])
    assert same_bits(mine[3], theirs[3])


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Iterations of all ensembles since the test began, one entry for each."""
    from tprnn.engine.ensemble import Ensemble

    made: list[int] = []
    advance = Ensemble.advance

    def counting(self: Ensemble) -> None:
        made.extend(self.positions.tolist())
        advance(self)

    monkeypatch.setattr(Ensemble, "advance", counting)
    return made


@pytest.mark.parametrize("budgets", [(25, 70, 100), (30, 33, 100), (4, 10, 100), (99, 100, 100)])
def test_a_run_of_three_budgets_has_the_bits_of_one_that_had_the_last_from_the_start(
    tmp_path: Path, budgets: tuple[int, ...], trained: list[int]
) -> None:
    straight = small(tmp_path / "straight")
    run_all([straight])
    trained.clear()
    for budget in budgets:
        (outcome,) = run_all([within(small(tmp_path / "broken"), budget)])
        assert (outcome.status, outcome.result["iterations"]) == ("not_solved", budget)
    assert trained == list(range(100))
    assert_same(straight, small(tmp_path / "broken"))


@pytest.mark.parametrize("looks", [1, 3, 13, 14, 17, 22, 31])
def test_broken_off_at_odd_moments_over_three_budgets_it_is_still_the_same(tmp_path: Path, looks: int) -> None:
    straight, broken = small(tmp_path / "straight"), small(tmp_path / "broken")
    run_all([straight])
    store = Store(tmp_path / "broken")
    for budget in (25, 70, 100):
        spec = within(broken, budget)
        for _ in range(100):
            outcomes = work_through(Queue([spec]), store, After(looks), lambda kind, of, row: None)
            if outcomes and outcomes[0].status != "interrupted":
                break
            looks += 1  # so that no moment is one at which nothing can go on
        assert store.folder(spec).finished(spec.train)
    assert_same(straight, broken)


def test_a_process_that_is_killed_between_checkpoint_and_result_only_looks_again(
    tmp_path: Path, trained: list[int]
) -> None:
    spec = small(tmp_path)
    run_all([spec])
    before = left(spec)
    (Store(tmp_path).folder(spec).path / "result.json").unlink()
    trained.clear()
    run_all([spec])
    assert trained == []
    assert left(spec)[1:3] == before[1:3]


def test_neighbours_of_a_ensemble_may_have_budgets_of_their_own(tmp_path: Path) -> None:
    budgets = (35, 100, 60, 7)
    together = [small(tmp_path / "together", {"seed": n, "train.max_iterations": b}) for n, b in enumerate(budgets)]
    assert len({spec.stack_key for spec in together}) == 1
    assert [outcome.result["iterations"] for outcome in run_all(together)] == list(budgets)
    for spec in together:
        alone = spec.replace({"outputs": str(tmp_path / "alone")})
        run_all([alone])
        assert_same(spec, alone)


def test_a_limit_of_seconds_cuts_at_a_check_and_a_larger_one_goes_on(tmp_path: Path, trained: list[int]) -> None:
    straight, broken = small(tmp_path / "straight"), small(tmp_path / "broken")
    run_all([straight])
    (cut,) = run_all([broken.replace({"train.max_seconds": 1e-9})])
    assert (cut.result["stopped_by"], cut.result["iterations"]) == ("max_seconds", 10)
    (again,) = run_all([broken.replace({"train.max_seconds": 1e-9})])
    assert again.skipped
    trained.clear()
    run_all([broken])
    assert trained == list(range(10, 100))
    assert_same(straight, broken)
    (seen,) = run_all([broken.replace({"train.max_seconds": 1e-9})])
    assert seen.result == cut.result


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1000.0])
def test_a_smaller_budget_is_read_off_and_never_trained(
    tmp_path: Path, trained: list[int], checkpoint_seconds: float
) -> None:
    spec = small(tmp_path, {"checkpoint_seconds": checkpoint_seconds})
    cuts = {n: run_all([within(spec, n)])[0].result for n in (40, 60)}
    run_all([spec])
    trained.clear()
    folder = Store(tmp_path).folder(spec)
    rows = {row["iteration"]: row for row in folder.read_metrics()}
    for budget, result in cuts.items():  # once asked for: as it was reported then
        assert run_all([within(spec, budget)])[0].result == result
    (seen,) = run_all([within(spec, 65)])
    assert (seen.status, seen.skipped, seen.result["iterations"]) == ("not_solved", True, 65)
    assert seen.result["accuracy"] == rows[60]["accuracy"]
    assert seen.result["best_accuracy"] == max(rows[n]["accuracy"] for n in (30, 60))
    assert seen.result["loss"] == rows[60]["loss"]
    (early,) = run_all([within(spec, 25)])
    assert (early.result["accuracy"], early.result["seen_accuracy"]) == (None, rows[20]["accuracy"])
    assert trained == []


def test_an_end_by_a_rule_is_the_end_for_every_larger_budget(tmp_path: Path, trained: list[int]) -> None:
    solved = small(tmp_path, {"train.success_error": 0.9, "train.full_check_every": 1})
    diverged = small(tmp_path, {"train.spectral_radius_limit": 0.5})
    given_up = small(tmp_path, {"train.patience": 1, "train.validation": "fixed", "trainer.freeze": ["W_hh", "b_h"]})
    given_up = given_up.replace({"trainer.freeze": ["W_xh", "W_hh", "b_h", "W_hy", "b_y"]})
    specs = [solved, diverged, given_up]
    ends = run_all(specs)
    assert [end.result["stopped_by"] for end in ends] == ["solved", "spectral_radius", "patience"]
    trained.clear()
    larger = run_all([within(spec, 5000) for spec in specs])
    assert [(one.skipped, one.result) for one in larger] == [(True, end.result) for end in ends]
    smaller = run_all([within(spec, 9) for spec in specs])
    assert [(one.status, one.result["iterations"]) for one in smaller] == [("not_solved", 9)] * 3
    assert trained == []


def test_a_run_that_stands_beyond_a_budget_is_seen_at_it(tmp_path: Path, trained: list[int]) -> None:
    spec = small(tmp_path)
    (broken,) = work_through(Queue([spec]), Store(tmp_path), After(50), lambda kind, of, row: None)
    stood = broken.result["iterations"]
    assert 30 < stood < 40
    trained.clear()
    (seen,) = run_all([within(spec, stood - 1)])
    assert (seen.status, seen.result["iterations"], trained) == ("not_solved", stood - 1, [])
    (Store(tmp_path).folder(spec).path / "result.json").unlink()  # as if killed later
    (seen,) = run_all([within(spec, stood - 1)])
    assert (seen.status, seen.result["iterations"], trained) == ("not_solved", stood - 1, [])
    run_all([within(spec, stood)])
    assert trained == []


def test_budgets_of_one_call_are_one_run_and_each_is_told(
    tmp_path: Path, trained: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    spec = small(tmp_path)
    outcomes = run_all([within(spec, budget) for budget in (20, 100, 50)])
    assert [outcome.result["iterations"] for outcome in outcomes] == [20, 100, 50]
    assert [outcome.spec.train.max_iterations for outcome in outcomes] == [20, 100, 50]
    assert trained == list(range(100))
    assert len(Store(tmp_path).folders()) == 1
    assert capsys.readouterr().out.startswith("3 not solved: ")


def test_budgets_of_one_run_of_which_none_holds_the_other_are_refused(tmp_path: Path) -> None:
    spec = small(tmp_path)
    with pytest.raises(
        UserError, match=r"train\.max_seconds: .*max_iterations=100 .*max_iterations=200, max_seconds=5"
    ):
        run_all([spec, spec.replace({"train.max_iterations": 200, "train.max_seconds": 5.0})])
    assert not (tmp_path / "runs").exists()


def test_force_forgets_what_other_budgets_left(tmp_path: Path) -> None:
    spec = small(tmp_path)
    run_all([within(spec, 50)])
    run_all([spec])
    run_all([within(spec, 30).replace({"force": True})])
    folder = Store(tmp_path).folder(spec)
    assert (folder.result()["iterations"], folder.earlier_results()) == (30, [])
    assert folder.read_config()["train"]["max_iterations"] == 30


# ---- the view alone


def result(status: str, stopped_by: str, iterations: int, seconds: float = 1.0) -> dict[str, Any]:
    return {"status": status, "stopped_by": stopped_by, "iterations": iterations, "seconds": seconds}


ROWS = [{"iteration": 10 * n, "seconds": n / 10, "accuracy": n / 100, "validated": 5, "loss": 0.1} for n in range(1, 9)]


@pytest.mark.parametrize(
    ("results", "budget", "expected"),
    [
        ([result("solved", "solved", 50)], Budget(50), ("solved", 50)),
        ([result("solved", "solved", 50)], Budget(49), ("max_iterations", 49)),
        ([result("solved", "solved", 50, 0.5)], Budget(100, 0.4), ("max_seconds", 40)),
        ([result("solved", "solved", 50, 0.5)], Budget(100, 0.5), ("solved", 50)),
        ([result("not_solved", "max_iterations", 80)], Budget(80), ("max_iterations", 80)),
        ([result("not_solved", "max_iterations", 80)], Budget(81), None),
        ([result("not_solved", "max_seconds", 80, 0.8)], Budget(100, 0.8), ("max_seconds", 80)),
        ([result("not_solved", "max_seconds", 80, 0.8)], Budget(100, 0.9), None),
        ([result("not_solved", "max_seconds", 80, 0.8)], Budget(100), None),
        ([result("interrupted", "signal", 85)], Budget(84), ("max_iterations", 84)),
        ([result("interrupted", "signal", 85)], Budget(85), None),
        ([], Budget(79), ("max_iterations", 79)),
        ([], Budget(80), None),
    ],
)
def test_a_budget_is_answered_where_the_run_has_got_that_far(
    results: list[dict[str, Any]], budget: Budget, expected: tuple[str, int] | None
) -> None:
    rows = [row for row in ROWS if not results or row["iteration"] <= results[0]["iterations"]]
    found = view(budget, results, lambda: rows, full=5)
    assert (found and (found["stopped_by"], found["iterations"])) == expected


def test_metrics_are_read_only_where_less_is_asked_for_than_was_run() -> None:
    def never() -> list[Any]:
        pytest.fail("metrics were read")

    solved, cut = result("solved", "solved", 50), result("not_solved", "max_iterations", 50)
    assert view(Budget(50), [solved], never, full=5) == view(Budget(60), [solved], never, full=5) == solved
    assert view(Budget(50), [cut], never, full=5) == cut
    assert view(Budget(60), [cut], never, full=5) is None
