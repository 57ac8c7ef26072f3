"""What a person sees while runs train."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from conftest import make_spec

from tprnn.engine.runs import Outcome
from tprnn.store import Store
from tprnn.sweep import progress
from tprnn.sweep.plan import Plan
from tprnn.sweep.progress import Progress


def test_the_time_left_is_that_of_runs_to_be_done(
    outputs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    made = {"train.max_iterations": 1000, "outputs": outputs, "quiet": False}
    done, new, resumed = (make_spec(made | {"seed": seed}) for seed in (0, 1, 2))
    Store(outputs).folder(done).open(done)
    Store(outputs).folder(done).write_result({"status": "diverged", "iterations": 700})
    shown = Progress(Plan([done, new, resumed], Store(outputs)), 1)
    for clock[0], spec, iteration in ((1.0, new, 100), (2.0, resumed, 800), (20.0, new, 200)):
        shown.emit("check", spec, {"iteration": iteration, "accuracy": 0.5, "loss": 1.0})
    # 200 iterations of one and 100 of the other in 20 s; 800 and 200 are left
    assert capsys.readouterr().err == "0/2 done, 0 solved, 15 it/s, best accuracy 50.00%, ≤ 1 min 6 s left\n"


@pytest.mark.parametrize(("quiet", "lines"), [(False, 1), (True, 0)])
def test_a_person_sees_one_line_about_it(
    quiet: bool, lines: int, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = make_spec({"quiet": quiet})
    progress = Progress(Plan([spec], Store(outputs)), 1)
    for _ in range(2):
        progress.emit("compiling", spec, {})
    assert capsys.readouterr().err.count("compiling for this machine") == lines


@pytest.mark.parametrize("count", [1, 2])
def test_the_commands_of_the_last_line_can_be_given_as_they_are(tmp_path: Path, count: int) -> None:
    """Also where the folder has spaces, as its override may have."""
    store = Store(tmp_path / "a b" / "ü")
    outcomes = [Outcome(make_spec({"seed": seed, "outputs": str(store.root)}), "not_solved") for seed in range(count)]
    commands = progress.last_line(outcomes, store).rsplit("(", 1)[1].rstrip(")").split("; ")
    for command in commands:
        folder = shlex.split(command)[2:]
        assert folder == [str(store.folder(outcomes[0].spec).path if count == 1 else store.root)]
