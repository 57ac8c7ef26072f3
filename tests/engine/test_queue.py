"""Who trains what: shares of a stack, places that are filled again, rungs that end with their first success."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import make_spec
from quick_runs import metrics, quick, strip

from tprnn.config import RunSpec
from tprnn.engine.loop import work_through
from tprnn.engine.queue import Queue, runs_under_way
from tprnn.engine.runs import Outcome
from tprnn.store import Store
from tprnn.sweep.run import run_all


def history(outcome: Outcome) -> list[dict[str, Any]]:
    return strip(metrics(outcome))


def waiting(runs: int, **changes: Any) -> list[RunSpec]:
    return [make_spec({"seed": seed} | changes) for seed in range(runs)]


def test_each_process_gets_its_share_and_later_ones_theirs() -> None:
    queue = Queue(waiting(9), workers=3)
    assert [len(queue.take_stack()) for _ in range(4)] == [3, 3, 3, 0]


def test_a_stack_has_as_many_runs_as_take_turns_unless_only_the_fastest_counts() -> None:
    specs = waiting(100, stack_size=64)
    assert len(Queue(specs).take_stack()) == runs_under_way(specs[0]) == 8
    assert len(Queue(specs, first_solved=True).take_stack()) == 64


def test_a_stack_holds_runs_of_one_kind() -> None:
    queue = Queue([*waiting(2), make_spec({"task.T": 20})])
    assert {spec.stack_key for spec in queue.take_stack()} == {waiting(1)[0].stack_key}
    assert [spec.config["task"]["T"] for spec in queue.take_stack()] == [20]


def test_free_places_are_filled_but_not_with_the_share_of_who_has_nothing() -> None:
    queue = Queue(waiting(30), workers=2)
    first = queue.take_stack()
    assert len(queue.take(first[0].stack_key, 5)) == 5
    assert len(queue.take(first[0].stack_key, 100)) == (30 - 8 - 5) // 2  # the other process has none yet
    assert queue.take("another kind", 5) == []


def test_a_process_hears_of_others_without_work_when_nothing_waits() -> None:
    queue = Queue(waiting(4), workers=2)
    (mine, _) = queue.take_stack(), queue.take_stack()
    assert queue.news().idle == 0
    queue.leave()
    assert queue.news().idle == 1
    assert not queue.over()
    queue.give_back(mine[:1])
    assert queue.news().idle == 0
    assert queue.take_stack() == mine[:1]
    queue.leave()
    queue.leave()
    assert queue.over()


def test_the_bound_is_that_of_the_fastest_and_only_where_only_that_counts() -> None:
    racing, patient = Queue([], first_solved=True, bound=500), Queue([], bound=500)
    for queue in (racing, patient):
        queue.solved(300)
        queue.solved(400)
    assert (racing.news().bound, patient.news().bound) == (300, None)


def test_runs_that_take_free_places_are_the_runs_they_are_alone(tmp_path: Path) -> None:
    """One diverges at once, and the places of two are shared by seven."""
    specs = [quick(tmp_path, {"seed": seed, "model.activation": "relu", "stack_size": 2}) for seed in range(7)]
    specs[1] = specs[1].replace({"trainer.alpha": 1e30})
    outcomes = run_all(specs)
    assert [outcome.status for outcome in outcomes] == ["not_solved", "diverged"] + 5 * ["not_solved"]
    for outcome in outcomes[2:]:
        (alone,) = run_all([outcome.spec.replace({"outputs": str(tmp_path / "alone")})])
        assert history(alone) == history(outcome)


def test_a_process_without_work_gets_runs_of_another_from_their_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [quick(tmp_path, {"seed": seed, "train.max_iterations": 400, "force": True}) for seed in range(3)]
    specs[2] = specs[2].replace({"trainer.alpha": 1e30, "model.activation": "relu"})  # alone in its stack, ends at once
    given: list[str] = []
    give_back = Queue.give_back
    monkeypatch.setattr(
        Queue, "give_back", lambda self, back: (given.extend(s.signature for s in back), give_back(self, back))
    )
    queue, store, never = Queue(specs, workers=2), Store(tmp_path / "outputs"), threading.Event()
    found: list[Outcome] = []

    def work() -> None:
        found.extend(work_through(queue, store, never, lambda kind, spec, row: None))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(given) & {spec.signature for spec in specs[:2]}
    by_signature = {outcome.spec.signature: outcome for outcome in found}
    assert sorted(by_signature) == sorted(spec.signature for spec in specs)
    for spec in specs[:2]:
        outcome = by_signature[spec.signature]
        (alone,) = run_all([spec.replace({"outputs": str(tmp_path / "alone")})])
        assert history(alone) == history(outcome)


# ---- only the first success counts


def race(tmp_path: Path, name: str, **changes: Any) -> list[RunSpec]:
    numbers = {"task.T": 10, "train.check_every": 20, "train.validation_size": 1000, "train.success_error": 0.05}
    numbers |= {"train.max_iterations": 5000, "outputs": str(tmp_path / name)} | changes
    return [make_spec(numbers | {"seed": seed}, trainer="tptt") for seed in range(5)]


@pytest.mark.parametrize("changes", [{}, {"workers": 2}, {"stack_size": 2}], ids=str)
def test_a_race_ends_with_the_fastest_whoever_trains_it(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The others have had as many iterations; asked for all later, they go on to what they would have been."""
    whole = run_all(race(tmp_path, "whole"))
    fewest = min(outcome.result["iterations"] for outcome in whole)
    specs = race(tmp_path, "race", **changes)
    outcomes = run_all(specs, first_solved=True)
    solved = {o.spec.config["seed"] for o in outcomes if o.status == "solved" and o.result["iterations"] == fewest}
    assert solved == {o.spec.config["seed"] for o in whole if o.result["iterations"] == fewest}
    for outcome in outcomes:
        assert outcome.status in ("solved", "interrupted")
        assert outcome.result["iterations"] >= fewest
        assert outcome.result["stopped_by"] == ("solved" if outcome.status == "solved" else "decided")
    again = run_all(specs, first_solved=True)
    assert all(outcome.skipped for outcome in again)
    for straight, outcome in zip(whole, run_all(specs), strict=True):
        assert history(outcome) == history(straight)


def test_a_race_without_a_success_trains_all_to_their_ends(tmp_path: Path) -> None:
    specs = [quick(tmp_path, {"seed": seed}) for seed in range(3)]
    assert [outcome.status for outcome in run_all(specs, first_solved=True)] == 3 * ["not_solved"]


def test_a_late_comer_to_a_race_gets_the_iterations_of_the_fastest(tmp_path: Path) -> None:
    specs = race(tmp_path, "race")
    first = run_all(specs[:2], first_solved=True)
    fewest = min(outcome.result["iterations"] for outcome in first if outcome.status == "solved")
    late = run_all(specs, first_solved=True)[4]
    assert late.status == "solved" or late.result["iterations"] == fewest
    assert late.result["iterations"] <= fewest
