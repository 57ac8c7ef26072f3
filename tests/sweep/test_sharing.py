"""Calls that share a sweep: each holds what it computes, takes more as it goes, and stays until all is done."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_spec
from quick_runs import QUICK
from test_resume import contents, long_specs, start, wait_for

from tprnn.cli import main
from tprnn.config import RunSpec
from tprnn.errors import RunLocked
from tprnn.store import Store
from tprnn.sweep.run import exit_code, run_all

CALL = """
import json, sys
from tprnn.config import RunSpec
from tprnn.sweep.run import run_all
if __name__ == "__main__":
    outcomes = run_all([RunSpec.from_config(config) for config in json.load(open(sys.argv[1]))])
    trained = [outcome.spec.signature for outcome in outcomes if not outcome.skipped]
    print(json.dumps([trained, [outcome.status for outcome in outcomes]]))
"""


def call(tmp_path: Path, specs: list[RunSpec]) -> subprocess.Popen[str]:
    (tmp_path / "call.py").write_text(CALL)
    (tmp_path / "specs.json").write_text(json.dumps([spec.as_dict() for spec in specs]))
    command = [sys.executable, str(tmp_path / "call.py"), str(tmp_path / "specs.json")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_three_calls_share_a_hundred_runs_and_train_none_twice(tmp_path: Path) -> None:
    numbers = QUICK | {"outputs": str(tmp_path / "outputs"), "train.max_iterations": 40, "checkpoint_seconds": 30.0}
    specs = [make_spec(numbers | {"seed": seed}) for seed in range(100)]
    calls = [call(tmp_path, specs) for _ in range(3)]
    trained: list[str] = []
    for process in calls:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        mine, statuses = json.loads(out.splitlines()[-1])
        assert set(statuses) <= {"solved", "not_solved"}  # each call tells the whole story
        trained += mine
    assert sorted(trained) == sorted(spec.signature for spec in specs)


def test_a_call_goes_on_with_what_another_leaves_unfinished(tmp_path: Path) -> None:
    """The other one is killed: its runs are taken over from their checkpoints, to the bits of an unbroken run."""
    long = {"train__max_iterations": 4000, "train__success_error": None, "train__patience": None}
    long |= {"train__validation_size": 200}  # checks are not what is tested
    straight = long_specs(tmp_path / "straight", 2, **long, checkpoint_seconds=1000.0)
    run_all(straight)
    specs = long_specs(tmp_path / "outputs", 2, **long)
    first = start(tmp_path, specs)
    wait_for(Store(tmp_path / "outputs").folder(specs[0]).path / "metrics.jsonl", 3, first)
    first.send_signal(signal.SIGSTOP)  # it holds its runs, and ends none of them before it is killed
    second = call(tmp_path, [spec.replace({"quiet": False}) for spec in specs])
    assert second.stderr is not None
    told = ""
    while "waited for" not in told and second.poll() is None:
        told += second.stderr.readline()
    first.kill()
    first.wait()
    out, _ = second.communicate(timeout=300)
    assert json.loads(out.splitlines()[-1])[1] == 2 * ["not_solved"]
    assert contents(specs) == contents(straight)
    assert re.search(
        rf"process {first.pid} on {socket.gethostname()} \(since .*\) works on {specs[0].folder_name}", told
    )


def test_who_holds_a_run_is_said_by_host_process_and_time(tmp_path: Path) -> None:
    folder = Store(tmp_path).folder(make_spec())
    with folder.lock():
        said = rf"process {os.getpid()} on {socket.gethostname()} \(since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\)"
        with pytest.raises(RunLocked, match=said):
            folder.lock().__enter__()
        (folder.path / ".holder.json").write_text("{torn")
        assert folder.holder() == "another process"
    assert sorted(path.name for path in folder.path.iterdir()) == [".lock"]


def test_locked_runs_can_be_left_with_an_exit_code_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["model.H=8", "train.max_iterations=20", "train.check_every=20", "train.validation_size=100", "workers=1"]
    words = ["train", "-m", "task=temporal_order", "trainer=bptt", "seed=0,1", f"outputs={tmp_path}/o", *small]
    assert main(words) == 0
    held = list(Store(tmp_path / "o").folders())
    for folder in held:
        (folder.path / "result.json").unlink()
    with held[0].lock(), held[1].lock():
        assert main([*words, "locked=leave"]) == 3
        said = capsys.readouterr()
        assert f"run {held[0].name}: process {os.getpid()} on" in said.err
        assert said.err.count("works on it") == 1  # one line for all that are left
        assert "(1 more are worked on)" in said.err
        assert "2 locked" in said.out
    assert main(words) == 0


def test_a_failure_counts_for_more_than_what_was_left() -> None:
    from tprnn.engine.runs import Outcome

    left, failed, done = (Outcome(make_spec(), status) for status in ("locked", "failed", "solved"))
    assert [exit_code(found) for found in ([done], [done, left], [left, failed])] == [0, 3, 1]
