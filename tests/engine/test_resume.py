"""Broken off and taken up again: killed, stopped by a signal, two processes at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import make_spec
from quick_runs import QUICK, strip

from tprnn.config import RunSpec
from tprnn.engine.signals import Interrupted, catch_signals
from tprnn.store import Store
from tprnn.sweep.run import run_all

SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
from tprnn.config import RunSpec
from tprnn.engine.signals import Interrupted
from tprnn.engine.ensemble import Ensemble
from tprnn.sweep.run import run_all
if __name__ == "__main__":
    try:
        run_all([RunSpec.from_config(config) for config in json.load(open(sys.argv[1]))])
    except Interrupted as stop:
        sys.exit(128 + stop.signum)
"""


def start(tmp_path: Path, specs: list[RunSpec]) -> subprocess.Popen[bytes]:
    (tmp_path / "script.py").write_text(SCRIPT.format(tests=str(Path(__file__).parent.parent)))
    (tmp_path / "specs.json").write_text(json.dumps([spec.as_dict() for spec in specs]))
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "specs.json")]
    # it hears a hang-up although the tests may run under nohup
    return subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))


def long_specs(folder: Path, seeds: int = 3, **changes: Any) -> list[RunSpec]:
    base = {"train.max_iterations": 600, "outputs": str(folder), "optimizer.momentum": 0.8, "trainer.noise": 0.05}
    changed = base | {key.replace("__", "."): value for key, value in changes.items()}
    return [make_spec(QUICK | changed | {"seed": seed}, trainer="tptt", probe="default") for seed in range(seeds)]


def wait_for(path: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.005)


def contents(specs: list[RunSpec]) -> list[Any]:
    found = []
    for spec in specs:
        folder = Store(spec.execution["outputs"]).folder(spec)
        result = {k: v for k, v in folder.finished(spec.train).items() if k not in ("seconds", "stack", "commit")}
        found.append((strip(folder.read_metrics()), result, {n: w.tolist() for n, w in folder.load_model()[0].items()}))
    return found


def test_killed_at_several_moments_a_stack_resumes_to_the_same_bits(tmp_path: Path) -> None:
    straight = long_specs(tmp_path / "straight")
    run_all(straight)
    broken = long_specs(tmp_path / "broken")
    first = Store(tmp_path / "broken").folder(broken[0]).path / "metrics.jsonl"
    for lines in (1, 7, 15, 22):
        process = start(tmp_path, broken)
        wait_for(first, lines, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    interrupted_at = [len(Store(tmp_path / "broken").folder(spec).read_metrics()) for spec in broken]
    assert min(interrupted_at) < 30, "the kills came too late to show anything"
    run_all(broken)
    assert contents(broken) == contents(straight)


@pytest.mark.parametrize(("signum", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGTERM, 2)])
def test_a_signal_saves_checkpoints_and_the_run_goes_on_later(tmp_path: Path, signum: int, workers: int) -> None:
    # no run may end before the signal comes
    long = {"train__max_iterations": 4000, "train__success_error": None, "train__patience": None}
    long |= {"train__validation_size": 200}  # checks are not what is tested
    broken = long_specs(tmp_path / "broken", **long, checkpoint_seconds=1000.0, workers=workers)
    process = start(tmp_path, broken)
    wait_for(Store(tmp_path / "broken").folder(broken[0]).path / "metrics.jsonl", 3, process)
    process.send_signal(signum)
    assert process.wait(timeout=60) == 128 + signum
    results = [Store(tmp_path / "broken").folder(spec).result() for spec in broken]
    stopped = [result for result in results if result]
    assert stopped
    assert {result["status"] for result in stopped} == {"interrupted"}
    assert max(result["iterations"] for result in stopped) >= 60
    finishing = [spec.replace({"train.max_iterations": 4000, "workers": 1}) for spec in broken]
    assert [spec.signature for spec in finishing] == [spec.signature for spec in broken]
    run_all(finishing)
    straight = long_specs(tmp_path / "straight", **long, checkpoint_seconds=1000.0)
    run_all(straight)
    assert contents(finishing) == contents(straight)


def test_two_processes_never_train_the_same_run(tmp_path: Path) -> None:
    spec = long_specs(tmp_path / "outputs", seeds=1, train__max_iterations=100_000, locked="leave")[0]
    process = start(tmp_path, [spec])
    wait_for(Store(tmp_path / "outputs").folder(spec).path / "metrics.jsonl", 1, process)
    try:
        (outcome,) = run_all([spec])
        assert outcome.status == "locked"
        assert spec.folder_name in outcome.error
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def test_a_second_ctrl_c_interrupts_at_once_but_schedulers_may_repeat_themselves() -> None:
    with catch_signals() as flag:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.signum == signal.SIGTERM
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
