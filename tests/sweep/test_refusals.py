"""Runs that need more memory than there is: refused before anything of them is written, or failed in one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_spec
from quick_runs import quick

from tprnn import cli
from tprnn.cost import memory
from tprnn.engine import loop
from tprnn.engine.ensemble import Ensemble
from tprnn.errors import UserError
from tprnn.protocols import depth, reproduce
from tprnn.protocols.search import command as search
from tprnn.store import Store
from tprnn.sweep.run import exit_code, run_all

WIDE = 30_000


@pytest.fixture(autouse=True)
def sixteen_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**34)


def line_of(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("change", "needs"),
    [
        ("model.H=30000", "at least 47 GiB of memory"),
        ("task.T=1000000000", "TiB of memory"),
        ("train.batch_size=1000000000", "TiB of memory"),
        ("model.H=4000000000000", "EiB of memory"),
        ("train.batch_size=9000000000000000000", "EiB of memory"),
        ("task.T=3000000000000000000", "more memory than can be addressed"),
        ("task.T=1000000000000000000000", "more memory than can be addressed"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_in_one_line(
    change: str, needs: str, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "task=temporal_order", "trainer=tptt", change, f"outputs={outputs}"]) == 2
    line = line_of(capsys)
    assert line.startswith("tprnn train: error: temporal_order-T")
    assert f"needs {needs}" in line or ("needs at least" in line and needs in line)
    assert line.endswith(f", 16 GiB are free; lower {change}")
    assert not Path(outputs).exists()


def test_in_a_sweep_that_run_alone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specs = [quick(tmp_path, {"seed": 0}), *(quick(tmp_path, {"model.H": WIDE, "seed": s}) for s in (0, 1))]
    specs.append(quick(tmp_path, {"seed": 1}))
    for before in ("", " (2 finished before)"):
        outcomes = run_all(specs)
        assert [outcome.status for outcome in outcomes] == ["not_solved", "refused", "refused", "not_solved"]
        assert exit_code(outcomes) == 1
        told = capsys.readouterr()
        assert told.out.startswith(f"2 not solved, 2 refused{before}: ")
        assert told.err.splitlines() == [
            f"{specs[1].folder_name} and 1 more: needs at least 47 GiB of memory, 16 GiB are free; lower model.H=30000"
        ]
        assert {path.name for path in (tmp_path / "outputs" / "runs").iterdir() if path.is_dir()} == {
            specs[0].folder_name,
            specs[3].folder_name,
        }


def test_a_multirun_says_that_not_all_was_done(outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["train.max_iterations=10", "train.check_every=10", "train.validation_size=100", "workers=1", "--quiet"]
    words = ["train", "-m", "task=adding", "trainer=bptt", f"model.H=10,{WIDE}", f"outputs={outputs}", *small]
    assert cli.main(words) == 1
    assert "1 not solved, 1 refused" in capsys.readouterr().out
    assert cli.main([word.replace("10,", "", 1) for word in words]) == 2


def test_what_is_finished_is_not_asked_for_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = quick(tmp_path)
    run_all([spec])
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert run_all([spec])[0].status == "not_solved"
    with pytest.raises(UserError, match=r"0\.0 MiB are free"):
        run_all([spec.replace({"seed": 1})])


def test_a_grid_is_estimated_once_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(memory, "stack_bytes", lambda spec, stack: asked.append(spec.config["model"]["H"]) or 1)
    specs = [make_spec({"model.H": H}).replace({"seed": seed}) for H in (10, 20) for seed in range(20)]
    assert memory.refused(specs) == []
    assert asked == [10, 20]


@pytest.mark.parametrize("error", [RuntimeError("a bug of a rule"), NotImplementedError("no such operation on meta")])
def test_a_rule_that_cannot_be_estimated_is_left_to_the_engine(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(memory, "stack_bytes", fail)
    assert memory.refused([make_spec()]) == []


# ---- other commands


def test_a_climb_ends_in_one_line(outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["task=temporal_order", "trainer=bptt", f"model.H={WIDE}", f"outputs={outputs}", "workers=1"]
    with pytest.raises(UserError, match=r"T10-bptt-s0 needs at least 47 GiB of memory, 16 GiB are free; lower model.H"):
        depth.main(words)
    assert not Path(outputs).exists()


SEARCH = ["task=adding", "trainer=bptt", "search.sampler=random", "search.trials=2", "workers=1", "quiet=true"]
SHORT = ["train.max_iterations=10", "train.check_every=10", "train.validation_size=100"]


def test_a_search_that_does_not_fit_is_left_out(outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SEARCH, *SHORT, f"outputs={outputs}"]
    assert search.main([*words, f"model.H={WIDE},10"]) == 1
    told = capsys.readouterr()
    assert told.err.count("needs at least 47 GiB of memory") == 1
    assert "2 of 2 trials" in told.out
    with pytest.raises(UserError, match=r"lower model\.H"):
        search.main([*words, f"model.H={WIDE}"])


def test_nothing_of_a_search_is_written_that_does_not_fit(outputs: str) -> None:
    pytest.importorskip("optuna")
    words = [word for word in SEARCH if "sampler" not in word]
    with pytest.raises(UserError, match=r"lower model\.H"):
        search.main([*words, f"model.H={WIDE}", f"outputs={outputs}"])
    assert not Path(outputs).exists()


def test_a_table_that_does_not_fit_ends_in_one_line(outputs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**10)
    table = ["manchev2020/table1", "budget=smoke", "rows=temporal_order", "columns=BPTT", f"outputs={outputs}"]
    with pytest.raises(UserError, match=r"needs at least [\d.]+ MiB of memory, 0.0 MiB are free"):
        reproduce.main(table)
    assert not Path(outputs).exists()


# ---- what no estimate foresees


def too_large(*arguments: Any, **named: Any) -> Any:
    return torch.empty(10**15)


def test_an_allocation_that_fails_while_training_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ensemble, "advance", too_large)
    (outcome,) = run_all([quick(tmp_path)])
    assert (outcome.status, outcome.error) == ("failed", "out of memory: needs at least 3.6 PiB more")
    folder = Store(tmp_path / "outputs").folder(outcome.spec)
    assert (folder.result() or {})["error"] == outcome.error


def broken_together(method: Callable[..., Any]) -> Callable[..., Any]:
    def at_most_one(ensemble: Ensemble, *arguments: Any) -> Any:
        return too_large() if len(ensemble.specs) > 1 else method(ensemble, *arguments)

    return at_most_one


def test_runs_that_do_not_fit_together_go_on_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[bool] = []
    clear = loop.Workspace.clear
    monkeypatch.setattr(loop.Workspace, "clear", lambda work: cleared.append(bool(work._buffers)) or clear(work))
    monkeypatch.setattr(Ensemble, "validate", broken_together(Ensemble.validate))
    outcomes = run_all([quick(tmp_path, {"seed": seed}) for seed in range(2)])
    assert [outcome.status for outcome in outcomes] == ["not_solved", "not_solved"]
    assert cleared[0], "the buffers of both are still held while one goes on"


def test_a_checkpoint_that_does_not_fit_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = quick(tmp_path)
    ensemble, folder = Ensemble([spec]), Store(tmp_path / "outputs").folder(spec)
    folder.open(spec)
    folder.save_checkpoint({name: x[0] for name, x in ensemble.state.flat().items()}, {"iteration": 20})
    monkeypatch.setattr(loop.torch, "stack", too_large)
    (outcome,) = run_all([spec])
    assert (outcome.status, outcome.error) == ("failed", "out of memory: needs at least 3.6 PiB more")
