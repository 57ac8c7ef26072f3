"""Killed processes: none outlives its parent, and a dead worker costs its runs their last seconds alone."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import make_spec
from quick_runs import QUICK
from test_resume import contents, long_specs, start

from tprnn.config import RunSpec
from tprnn.engine.queue import Queue
from tprnn.engine.runs import Outcome
from tprnn.errors import UserError
from tprnn.store import Store
from tprnn.sweep import progress, workers
from tprnn.sweep.plan import Plan
from tprnn.sweep.run import run_all

RUNS = 8
LAST = 29  # of the 30 checks of each run
# no run ends before its last check, and checks are not what is tested
WHOLE = {"train__success_error": None, "train__patience": None, "train__validation_size": 200}


def lines(folder: Path, specs: Sequence[RunSpec]) -> int:
    """The most checks that any run has behind it."""
    files = [Store(folder).folder(spec).path / "metrics.jsonl" for spec in specs]
    return max((file.read_bytes().count(b"\n") for file in files if file.exists()), default=0)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What comes of the runs when nobody is killed."""
    specs = long_specs(tmp_path_factory.mktemp("straight"), RUNS, **WHOLE)
    run_all(specs)
    return contents(specs)


# ---- the parent dies


def moments(*fast: Any, slow: Sequence[Any]) -> list[Any]:
    return [*fast, *(pytest.param(*moment, marks=pytest.mark.slow) for moment in slow)]


BEGINNING = [("seconds", seconds) for seconds in (0.1, 0.4, 0.8, 1.2, 1.6, 2.0, 2.5)]


@pytest.mark.parametrize(
    ("unit", "moment"), moments(("checks", 1), slow=[*BEGINNING, ("checks", 10), ("checks", LAST)]), ids=str
)
def test_no_process_outlives_a_killed_parent(tmp_path: Path, straight: list[Any], unit: str, moment: float) -> None:
    specs = long_specs(tmp_path / "outputs", RUNS, **WHOLE, workers=2)
    process = start(tmp_path, specs)
    if unit == "seconds":
        time.sleep(moment)
    else:
        assert until(lambda: lines(tmp_path / "outputs", specs) >= moment)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert not any(Store(tmp_path / "outputs").folder(spec).is_locked() for spec in specs)
    run_all([spec.replace({"workers": 1}) for spec in specs])
    assert contents(specs) == straight


@pytest.mark.parametrize("signum", [signal.SIGHUP, pytest.param(signal.SIGQUIT, marks=pytest.mark.slow)])
def test_a_closed_terminal_or_a_quit_leaves_no_process_but_a_checkpoint(tmp_path: Path, signum: int) -> None:
    specs = long_specs(
        tmp_path / "outputs", 4, **WHOLE, train__max_iterations=100_000, checkpoint_seconds=1000.0, workers=2
    )
    process = start(tmp_path, specs)
    assert until(lambda: lines(tmp_path / "outputs", specs) >= 3)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signum)
    assert process.wait(timeout=60) == (128 + signum if signum == signal.SIGHUP else -signum)
    assert psutil.wait_procs(children, timeout=20)[1] == []
    saved = [Store(tmp_path / "outputs").folder(spec).load_checkpoint() for spec in specs]
    assert sum(checkpoint[1]["iteration"] for checkpoint in saved if checkpoint) >= 3 * 20  # a line at every 20th


def test_what_nohup_has_ignored_stays_ignored(tmp_path: Path) -> None:
    code = "import os, signal; from tprnn.engine.signals import catch_signals\n"
    code += "with catch_signals() as flag:\n    os.kill(os.getpid(), signal.SIGHUP)\nassert flag.signum is None"
    asked = f"trap '' HUP; exec {sys.executable} -c \"$0\""
    assert subprocess.run(["sh", "-c", asked, code], check=False).returncode == 0


def test_an_orphan_ends_without_taking_its_libraries_down() -> None:
    """That took seconds, and the thread that ends a worker after its grace is frozen in them."""
    code = "import multiprocessing; from tprnn.sweep import worker_process\n"
    code += "ours, theirs = multiprocessing.Pipe(); ours.close()\n"
    code += "worker_process.GRACE = 100.0; worker_process.main(theirs, 1); print('goes on')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


# ---- workers die


@contextlib.contextmanager
def killer(when: Callable[[], bool], which: Sequence[int]) -> Iterator[list[int]]:
    """Kills workers of this process by SIGKILL as soon as `when` is true; what was killed."""
    killed: list[int] = []

    def kill() -> None:
        if not until(when):
            return
        for worker in [workers._pool(2, 1).workers[index] for index in which]:
            killed.append(worker.process.pid or 0)
            os.kill(killed[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        thread.join()


FIRST, MIDDLE = 0, 12
FAST = [(FIRST, (0, 1)), (MIDDLE, (0,)), (LAST, (1,))]
ALL = itertools.product((FIRST, 1, 2, 4, 8, MIDDLE, 16, 20, 26, LAST), ((0,), (1,), (0, 1)))


@pytest.mark.parametrize(("moment", "which"), moments(*FAST, slow=[one for one in ALL if one not in FAST]), ids=str)
def test_dead_workers_cost_nothing_but_time(
    tmp_path: Path, straight: list[Any], moment: int, which: tuple[int, ...]
) -> None:
    """Also in the first moment, when no run has begun, and when all is nearly done."""
    specs = long_specs(tmp_path / "outputs", RUNS, **WHOLE, workers=2, quiet=True)
    begun = workers._pool(2, 1)
    if moment == 0:
        begun.close()  # new processes: they are killed while they begin
    with killer(lambda: len(begun.workers) == 2 and lines(tmp_path / "outputs", specs) >= moment, which) as killed:
        outcomes = run_all(specs)
    assert len(killed) == len(which)
    assert {outcome.status for outcome in outcomes} == {"not_solved"}
    assert contents(specs) == straight


DEADLY = """
import os, signal
from tprnn.trainers.bptt import {rule} as Rule
step = Rule.step
def deadly(self, state, batch, position):
    if 3 in self.seeds.data and int(position.max()) > 25:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, state, batch, position)
Rule.step = deadly
"""


def test_a_run_that_kills_its_workers_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is trained alone after its second worker, so that the others of its stack come to their ends."""
    from tprnn.trainers import bptt

    (rule,) = [name for name, value in vars(bptt).items() if getattr(value, "Settings", None) and "step" in vars(value)]
    (tmp_path / "sitecustomize.py").write_text(DEADLY.format(rule=rule))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    workers._pool(2, 1).close()  # new processes, which import what lies there
    specs = [
        make_spec(QUICK | {"outputs": str(tmp_path / "o"), "seed": seed, "workers": 2, "quiet": False})
        for seed in range(6)
    ]
    outcomes = run_all(specs)
    workers._pool(2, 1).close()
    assert [outcome.status for outcome in outcomes] == 3 * ["not_solved"] + ["failed"] + 2 * ["not_solved"]
    result = Store(tmp_path / "o").folder(specs[3]).result()
    assert (result["status"], result["iterations"]) == ("failed", 20)  # its last checkpoint
    assert result["error"].startswith("killed, perhaps out of memory (SIGKILL")
    said = capfd.readouterr()
    assert said.err.count("has died (SIGKILL); its") == 3
    assert "1 failed, 5 not solved" in said.out


def test_workers_that_cannot_begin_are_not_started_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nif 'spawn_main' in str(sys.orig_argv): os._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    workers._pool(2, 1).close()
    specs = [make_spec(QUICK | {"outputs": str(tmp_path / "o"), "seed": seed, "workers": 2}) for seed in range(2)]
    with pytest.raises(UserError, match=r"worker processes end before they can begin \(exit code 7\)"):
        run_all(specs)


# ---- what is said and decided about it


def test_a_backlog_gives_a_run_up_after_three_deaths_and_lets_it_alone_after_two() -> None:
    specs = [make_spec({"seed": seed}) for seed in range(3)]
    queue = Queue(specs)
    for _ in range(2):
        assert queue.take_stack() == specs
        assert queue.died(list(reversed(specs))) == []
        queue.leave()
    for spec in specs:
        assert queue.take_stack() == [spec]
        assert queue.places(spec) == 1
        queue.leave()
    assert queue.over()
    assert queue.died(specs[:1]) == specs[:1]
    assert queue.over()


def test_silence_is_broken_by_what_is_waited_for(
    outputs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_SILENCE", 0.0)
    specs = [make_spec({"seed": seed, "quiet": False}) for seed in range(2)]
    with progress.Progress(Plan(specs, Store(outputs)), workers=2) as shown:
        for spec in specs:
            shown.emit("begin", spec, {"process": 123})
        assert until(lambda: "waiting for process 123 with 2 runs" in capsys.readouterr().err)


def test_one_failure_ends_a_sweep_that_asked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tprnn.tasks.temporal_order import TemporalOrder

    def broken(self: Any, *arguments: Any) -> Any:
        raise ValueError("broken")

    monkeypatch.setattr(TemporalOrder, "measure", broken)
    made = {"outputs": str(tmp_path / "o"), "stack_size": 1}
    for fail_fast, statuses in ((False, ["failed"] * 3), (True, ["failed", "interrupted", "interrupted"])):
        specs = [make_spec(QUICK | made | {"seed": seed, "fail_fast": fail_fast}) for seed in range(3)]
        outcomes: list[Outcome] = run_all(specs)
        assert [outcome.status for outcome in outcomes] == statuses
