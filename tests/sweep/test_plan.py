"""What a call is to bring to its end, by the store alone: nothing is trained here, and nothing written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import make_spec

from tprnn.config import RunSpec
from tprnn.cost import memory
from tprnn.engine.runs import Outcome
from tprnn.errors import TooLarge
from tprnn.protocols import depth, reproduce
from tprnn.store import RunFolder, Store
from tprnn.sweep.plan import Plan
from tprnn.sweep.run import run_all


def run(outputs: str, seed: int = 0, **changes: Any) -> RunSpec:
    made = {"outputs": outputs, "seed": seed, "train.max_iterations": 1000}
    return make_spec(made | {key.replace("__", "."): value for key, value in changes.items()})


def write(spec: RunSpec, status: str, iterations: int = 1000, stopped_by: str | None = None) -> None:
    folder = Store(spec.execution["outputs"]).folder(spec)
    folder.open(spec)
    folder.write_result({"status": status, "iterations": iterations, "stopped_by": stopped_by})


def seeds(specs: list[RunSpec]) -> list[int]:
    return [spec.config["seed"] for spec in specs]


def of(outcomes: dict[str, Outcome]) -> dict[int, str]:
    """Statuses by seed."""
    return {outcome.spec.config["seed"]: outcome.status for outcome in outcomes.values()}


ENDS = ("solved", "not_solved", "diverged", "interrupted", "failed", None)


@pytest.fixture
def of_all_kinds(outputs: str) -> list[RunSpec]:
    """A run of each end, its seed the place of that end; the last one was never begun."""
    specs = [run(outputs, seed) for seed in range(len(ENDS))]
    for spec, status in zip(specs, ENDS, strict=True):
        if status is not None:
            write(spec, status, stopped_by="max_iterations" if status == "not_solved" else None)
    return specs


def test_what_is_finished_is_done_and_the_rest_waits(of_all_kinds: list[RunSpec], outputs: str) -> None:
    plan = Plan(of_all_kinds, Store(outputs))
    assert of(plan.done) == {0: "solved", 1: "not_solved", 2: "diverged"}
    assert all(outcome.skipped and outcome.result for outcome in plan.done.values())
    assert seeds(plan.waiting) == [3, 4, 5]
    assert plan.held == plan.refused == {}


def test_force_leaves_nothing_done(of_all_kinds: list[RunSpec], outputs: str) -> None:
    plan = Plan([spec.replace({"force": True}) for spec in of_all_kinds], Store(outputs), first_solved=True)
    assert plan.done == {}
    assert plan.bound is None
    assert plan.waiting == list(plan.runs.values())


def test_what_others_work_on_waits_and_is_known_with_its_holder(of_all_kinds: list[RunSpec], outputs: str) -> None:
    with ExitStack() as locks:
        for spec in of_all_kinds[::2]:  # a finished run that is looked at by somebody is done all the same
            locks.enter_context(Store(outputs).folder(spec).lock())
        plan = Plan(of_all_kinds, Store(outputs))
        assert of(plan.held) == {4: "locked"}
        assert seeds(plan.waiting) == [3, 4, 5]
        (held,) = plan.held.values()
        assert str(held.error).startswith(f"run {of_all_kinds[4].folder_name}: process ")


@pytest.mark.parametrize("first_solved", [False, True])
def test_in_a_race_a_run_that_can_no_longer_be_the_first_is_done(outputs: str, first_solved: bool) -> None:
    stands = [("solved", 500), ("solved", 300), ("interrupted", 299), ("interrupted", 300), ("failed", 900)]
    for seed, (status, iterations) in enumerate(stands):
        write(run(outputs, seed), status, iterations)
    plan = Plan([run(outputs, seed) for seed in range(6)], Store(outputs), first_solved)
    assert plan.bound == (300 if first_solved else None)
    assert seeds(plan.waiting) == ([2, 4, 5] if first_solved else [2, 3, 4, 5])
    assert of(plan.done) == {0: "solved", 1: "solved"} | ({3: "interrupted"} if first_solved else {})


def test_budgets_of_one_run_are_one_run_with_the_largest(outputs: str) -> None:
    asked = [run(outputs, train__max_iterations=limit) for limit in (20, 100, 50, 20)]
    plan = Plan(asked, Store(outputs))
    assert plan.waiting == [asked[1]]
    write(asked[0], "not_solved", 20, "max_iterations")
    write(asked[1], "not_solved", 100, "max_iterations")
    outcome = Outcome(asked[1], "not_solved", {"iterations": 100})
    found = plan.as_asked({asked[1].signature: outcome})
    assert [(one.spec, (one.result or {})["iterations"]) for one in found] == list(
        zip(asked, (20, 100, 50, 20), strict=True)
    )
    assert not any(one.skipped for one in found)
    assert Plan(asked, Store(outputs)).waiting == []


def test_a_run_that_came_to_no_end_is_so_within_each_of_its_budgets(outputs: str) -> None:
    asked = [run(outputs, train__max_iterations=limit) for limit in (20, 100)]
    found = Plan(asked, Store(outputs)).as_asked({asked[1].signature: Outcome(asked[1], "interrupted")})
    assert [(one.spec, one.status) for one in found] == [(spec, "interrupted") for spec in asked]


def test_what_does_not_fit_is_refused_unless_it_is_done(outputs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**34)
    specs = [run(outputs, seed, model__H=H) for seed, H in enumerate((30_000, 30_000, 10))]
    write(specs[0], "solved")
    plan = Plan(specs, Store(outputs))
    plan.refuse_too_large()
    assert (of(plan.done), of(plan.refused), seeds(plan.waiting)) == ({0: "solved"}, {1: "refused"}, [2])
    assert plan.outcomes == plan.done | plan.refused
    with pytest.raises(TooLarge):
        Plan(specs[1:2], Store(outputs)).refuse_too_large()


# ---- the store is asked once


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the store was asked whether a run is finished, by folder and budget."""
    count: Counter[str] = Counter()
    finished = RunFolder.finished

    def counted(folder: RunFolder, train: Any, *how: Any, **named: Any) -> Any:
        count[f"{folder.name} {train.budget}"] += 1
        return finished(folder, train, *how, **named)

    monkeypatch.setattr(RunFolder, "finished", counted)
    return count


def begin(outputs: str) -> list[RunSpec]:
    specs = [run(outputs, seed) for seed in range(8)]
    for spec in specs:
        write(spec, "diverged")
    return specs


def sweep(outputs: str) -> None:
    assert len(run_all([*begin(outputs), *begin(outputs)])) == 16


def climb(outputs: str) -> None:
    words = ["task=temporal_order", "trainer=bptt,tptt", "seed=0,1", "depth.max=30", f"outputs={outputs}", "--dry-run"]
    assert depth.main(words) == 0


def table(outputs: str) -> None:
    words = ["manchev2020/table1", "budget=smoke", "rows=temporal_order", f"outputs={outputs}", "--dry-run"]
    assert reproduce.main(words) == 0


@pytest.mark.parametrize("command", [sweep, climb, table], ids=lambda one: one.__name__)
def test_each_run_is_asked_for_once(command: Callable[[str], None], outputs: str, asked: Counter[str]) -> None:
    command(outputs)
    assert set(asked.values()) == {1}


# ---- a dry run counts what a run would train


@pytest.mark.parametrize("rung", ["first_solved", "all"])
@pytest.mark.parametrize("force", [False, True])
def test_a_dry_run_of_a_climb_counts_what_the_climb_would_train(
    outputs: str, rung: str, force: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["task=temporal_order", "trainer=bptt", "seed=range(4)", "train.max_iterations=1000", f"outputs={outputs}"]
    plan, overrides = depth.parse([*words, "depth.max=10", f"depth.rung={rung}", f"force={force}"])
    climbs = depth.climbs_of(depth.sweep([*overrides, "task.T=10"]))
    specs = depth.together_at(climbs, 10)
    # one that a signal stopped beyond the fastest, one before it, one that was never begun
    for spec, status, iterations in zip(specs, ("solved", "interrupted", "interrupted"), (300, 400, 200), strict=False):
        write(spec, status, iterations, "signal" if status == "interrupted" else "solved")
    counted: list[Any] = []
    monkeypatch.setattr(depth.cost, "estimate", lambda *rungs: counted.append([one for some in rungs for one in some]))
    depth.prices(climbs, plan)
    asked_for = Plan(specs, Store(outputs), first_solved=rung == "first_solved")
    assert [part.spec.signature for part in counted[0]] == [spec.signature for spec in asked_for.waiting]
    assert seeds(asked_for.waiting) == ([0, 1, 2, 3] if force else [2, 3] if rung == "first_solved" else [1, 2, 3])


def test_a_dry_run_of_a_table_counts_what_would_be_trained(outputs: str) -> None:
    for force, to_do in ((False, 1), (True, 2)):
        words = ["manchev2020/table1", "budget=smoke", "rows=temporal_order", "columns=BPTT", f"outputs={outputs}"]
        request = reproduce.parse([*words, "T_max=20", f"force={force}"])
        (climber,) = reproduce.climbers(request)
        write(climber.at(10), "solved", 10)
        (standing,) = reproduce.standings([climber], Store(outputs))
        assert len(standing.left) == to_do


def test_a_plan_writes_nothing(outputs: str) -> None:
    plan = Plan([run(outputs)], Store(outputs))
    plan.refuse_too_large()
    assert plan.held == {}
    assert not Path(outputs).exists()
