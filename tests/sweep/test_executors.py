"""What every executor keeps to: the same plan comes to the same outcomes and the same files, whoever carries it out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_settings import settings
from conftest import make_spec
from fake_ray import RayInThisProcess
from quick_runs import QUICK, metrics, strip

from tprnn.config import RunSpec
from tprnn.errors import UserError
from tprnn.store import RESULT, Store
from tprnn.sweep.executors import cluster
from tprnn.sweep.executors.base import UNDER_WAY, Executor
from tprnn.sweep.executors.connect import connect
from tprnn.sweep.executors.here import Here
from tprnn.sweep.executors.ray import RayExecutor
from tprnn.sweep.plan import Plan
from tprnn.sweep.run import exit_code, run_all

Connect = Callable[[RunSpec], Executor]


def local(spec: RunSpec, **changes: Any) -> Executor:
    pytest.importorskip("submitit")
    return connect(settings(executor="local", runs_per_job=2, **changes), spec.execution)


def ray(spec: RunSpec) -> Executor:
    return RayExecutor(settings(executor="ray", runs_per_job=1), RayInThisProcess())


EXECUTORS: dict[str, tuple[Connect, int]] = {
    "here": (lambda spec: Here(), 1),
    "here in two processes": (lambda spec: Here(), 2),
    "local": (local, 1),
    "ray": (ray, 1),
}


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Connect, int]:
    """How to get it, and with how many worker processes."""
    monkeypatch.setattr(cluster, "_POLL", 0.05)
    monkeypatch.setattr(RayExecutor, "patience", 0.1)
    return EXECUTORS[request.param]


def written(spec: RunSpec) -> dict[str, int]:
    """When each run of the outputs folder had its result written."""
    runs = Store(spec.execution["outputs"]).runs
    return {path.parent.name: path.stat().st_mtime_ns for path in runs.glob(f"*/{RESULT}")}


def test_a_plan_of_runs_of_all_kinds_comes_to_the_same_end(
    executor: tuple[Connect, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finished, cut by a smaller budget, new with two budgets, held by another call, new with other shapes."""
    connected, workers = executor

    def made(name: str, seed: int, **changes: Any) -> RunSpec:
        numbers = QUICK | {"outputs": str(tmp_path / name), "seed": seed, "workers": workers, "locked": "leave"}
        return make_spec(numbers | {key.replace("__", "."): value for key, value in changes.items()})

    def asked(name: str) -> list[RunSpec]:
        of_seeds = [made(name, seed) for seed in range(4)]
        return [*of_seeds[:3], made(name, 2, train__max_iterations=40), made(name, 0, model__H=8), of_seeds[3]]

    straight = run_all([spec.replace({"workers": 1}) for spec in asked("straight")])
    specs = asked("outputs")
    run_all([specs[0], specs[1].replace({"train.max_iterations": 20})])
    before = written(specs[0])
    capsys.readouterr()
    with Store(tmp_path / "outputs").folder(specs[-1]).lock():
        outcomes = run_all(specs, connected(specs[0]))
        assert exit_code(outcomes) == 3
        told = capsys.readouterr()
        assert [one.spec for one in outcomes] == specs
        assert [one.status for one in outcomes] == [*(one.status for one in straight[:-1]), "locked"]
        assert [one.skipped for one in outcomes] == [True, *5 * [False]]
        for one, alone in zip(outcomes[:-1], straight, strict=False):
            assert one.result == Store(tmp_path / "outputs").folder(one.spec).finished(one.spec.train)
            assert strip(metrics(one)) == strip(metrics(alone))
        after = written(specs[0])
        assert {name for name in after if after[name] != before.get(name)} == {spec.folder_name for spec in specs[1:-1]}
        assert "5 not solved (1 finished before)" in told.out
        assert f"run {specs[-1].folder_name}: process" in told.err
        assert "works on it; wait for it or stop it" in told.err

    for force in (False, True):
        again = [spec.replace({"force": force}) for spec in specs[:2]]
        outcomes = run_all(again, connected(specs[0]))
        assert [one.skipped for one in outcomes] == 2 * [not force]
        assert [one.status for one in outcomes] == [one.status for one in straight[:2]]
        anew = written(specs[0])
        assert {name for name in anew if anew[name] != after[name]} == (
            {spec.folder_name for spec in specs[:2]} if force else set()
        )


def test_nothing_is_written_where_nothing_can_be(executor: tuple[Connect, int], tmp_path: Path) -> None:
    connected, workers = executor
    (tmp_path / "file").write_text("")
    spec = make_spec(QUICK | {"outputs": str(tmp_path / "file" / "outputs"), "workers": workers})
    with pytest.raises(UserError, match="outputs: cannot write to"):
        run_all([spec], connected(spec))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_runs_are_no_outcomes() -> None:
    assert run_all([]) == []


def test_jobs_do_not_race(outputs: str) -> None:
    """They do not know of each other, so that none could stop for another's success."""
    plan = Plan([make_spec({"outputs": outputs})], Store(outputs), first_solved=True)
    with pytest.raises(ValueError, match="first_solved"):
        RayExecutor(settings(executor="ray"), RayInThisProcess()).prepare(plan)
    Here().prepare(plan)


def test_runs_that_nobody_waits_for_are_under_way_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = [make_spec(QUICK | {"outputs": str(tmp_path / "outputs"), "seed": seed}) for seed in range(3)]
    run_all(specs[:1])
    capsys.readouterr()
    jobs = local(specs[0], wait=False)
    with Store(tmp_path / "outputs").folder(specs[2]).lock():
        outcomes = run_all(specs, jobs)
    assert [one.status for one in outcomes] == ["not_solved", UNDER_WAY, UNDER_WAY]
    assert exit_code(outcomes) == 0
    assert "1 of 3 handed over in 1 local job" in capsys.readouterr().out
    for handle in vars(jobs)["handles"].values():
        handle.wait()
