"""`tprnn.train`: the command line's own runs, to the bits; safe in scripts, in threads and under Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from quick_runs import strip
from run_files import snapshot

import tprnn
from tprnn.cli import main
from tprnn.cost import memory
from tprnn.engine import group
from tprnn.errors import DamagedFile, UserError
from tprnn.protocols.host import flushes_denormals
from tprnn.store import RunFolder

SMALL = ("task=temporal_order", "model.H=20", "train.validation_size=500", "train.check_every=20", "workers=1")
BUDGET = "train.max_iterations=40"
LONG = (*SMALL, "trainer=bptt", "train.success_error=null", "train.patience=null", "checkpoint_seconds=0")


def folders(outputs: str | Path) -> list[Path]:
    return sorted((Path(outputs) / "runs").iterdir())


def contents(outputs: str | Path) -> dict[str, Any]:
    """Histories but for seconds, and trained weights, by run."""
    return {
        path.name: (strip(RunFolder(path).read_metrics()), (path / "model.safetensors").read_bytes())
        for path in folders(outputs)
    }


def files(outputs: str | Path) -> dict[str, dict[str, bytes]]:
    return {path.name: snapshot(path) for path in folders(outputs)}


def python(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, *arguments, str(folder)]


def test_it_does_what_the_command_line_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [*SMALL, BUDGET, "trainer=tptt,bptt", "trainer.tptt.alpha_i=0.1,1", "seed=range(2)"]
    assert main(["train", "-m", *lines, f"outputs={tmp_path}/a"]) == 0
    said = capsys.readouterr()
    rows = tprnn.train(*lines, f"outputs={tmp_path}/b")
    again = capsys.readouterr()
    assert len(rows) == 6
    assert contents(f"{tmp_path}/a") == contents(f"{tmp_path}/b")
    assert again.out == said.out.replace(f"{tmp_path}/a", f"{tmp_path}/b")
    assert again.err.splitlines()[0] == said.err.splitlines()[0]
    names = ["tptt-s0", "tptt-s0", "tptt-s1", "tptt-s1", "bptt-s0", "bptt-s1"]
    assert [name.rpartition("-")[0].removeprefix("temporal_order-T10-") for name in rows["run"]] == names
    known = tprnn.runs(f"{tmp_path}/b").set_index("run").loc[rows["run"]].reset_index()
    for key in known:
        assert rows[key].astype(str).tolist() == known[key].astype(str).tolist(), key


def test_what_is_finished_is_not_trained_again(outputs: str, into: str, capsys: pytest.CaptureFixture[str]) -> None:
    one = [*SMALL, BUDGET, "trainer=bptt", into]
    first = tprnn.train(*one)
    before = files(outputs)
    again = tprnn.train(*one)
    assert files(outputs) == before
    assert again.equals(first)
    assert "finished before" in capsys.readouterr().out
    two = tprnn.train(*one, "seed=1,0")
    assert two["seed"].tolist() == [1, 0]
    assert files(outputs)[first["run"][0]] == before[first["run"][0]]
    tprnn.train(*one, "--force", "--quiet")
    assert files(outputs)[first["run"][0]] != before[first["run"][0]]


def test_rows_are_seen_as_of_the_budget_asked_for(into: str) -> None:
    line = (*SMALL, "trainer=bptt", into)
    both = tprnn.train(*line, "train.max_iterations=40,20")
    assert both["iterations"].tolist() == both["train.max_iterations"].tolist() == [40, 20]
    assert both["run"].nunique() == 1
    (less,) = tprnn.train(*line, "train.max_iterations=20").to_dict("records")
    assert (less["iterations"], less["status"], less["train.max_iterations"]) == (20, "not_solved", 20)


def test_metrics_are_the_history(outputs: str, into: str) -> None:
    (run,) = tprnn.train(*SMALL, BUDGET, "trainer=bptt", into)["path"]
    table = tprnn.metrics(run)
    assert table["iteration"].tolist() == [20, 40]
    assert table.to_dict("records") == RunFolder(Path(run)).read_metrics()
    assert tprnn.metrics(Path(run).name, outputs).equals(table)
    (Path(run) / "metrics.jsonl").unlink()
    assert len(tprnn.metrics(run)["iteration"]) == 0
    (Path(run) / "metrics.jsonl").write_text("nothing\n")
    with pytest.raises(DamagedFile, match=r"metrics\.jsonl: damaged"):
        tprnn.metrics(run)


# ---- bad input


@pytest.mark.parametrize(
    "lines",
    [
        ["trainer=tppt"],
        ["trainer=bptt", "trainer.alpah=1"],
        ["trainer=bptt,tptt", "trainer.alpha=0.1"],
        ["trainer=bptt", "model.H=0"],
        ["trainer=bptt", "seed=range(5,5)"],
        ["trainer=bptt", "grid=nothing"],
        ["trainer=bptt", "trainer.alpha=interval(0,1)"],
        ["trainer=bptt", "device=cuda:99"],
        ["trainer=bptt trainer.alpha=1"],
        [],
    ],
    ids=str,
)
def test_bad_input_is_the_command_lines_own_line(
    lines: list[str], outputs: str, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["task=adding", *lines, into]
    assert main(["train", "-m", *given]) == 2
    told = capsys.readouterr().err
    with pytest.raises(UserError) as caught:
        tprnn.train(*given)
    assert f"tprnn train: error: {caught.value}\n" == told
    assert not os.path.exists(outputs)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "--cfg",
            "'--cfg': an option of the command line alone; tprnn.train takes --force, --quiet, --plugin=NAME, --config",
        ),
        ("-m", "'-m': an option of the command line alone"),
        ("hydra.launcher.executor=slurm", "tprnn.train trains on this machine"),
        ("hydra/launcher=joblib", "tprnn.train trains on this machine"),
        (["task=adding"], "tprnn.train: expected lines of text such as"),
    ],
)
def test_what_is_no_line_of_a_run_is_refused(line: Any, told: str, outputs: str, into: str) -> None:
    with pytest.raises(UserError) as caught:
        tprnn.train("task=adding", "trainer=bptt", line, into)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not os.path.exists(outputs)


@pytest.mark.usefixtures("session")
def test_a_folder_of_yamls_is_found_from_then_on(tmp_path: Path, into: str) -> None:
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "mine.yaml").write_text("name: mine\npoints:\n  - {trainer: bptt, trainer.alpha: 0.125}\n")
    rows = tprnn.train(*SMALL, BUDGET, "points=mine", f"--config-dir={tmp_path}", into)
    assert rows["trainer.alpha"].tolist() == [0.125]
    assert tprnn.train(*SMALL, BUDGET, "points=mine", into).equals(rows)


def test_a_damaged_run_is_told_and_left(outputs: str, into: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = [*SMALL, BUDGET, "trainer=bptt", into]
    (run,) = tprnn.train(*line)["path"]
    (Path(run) / "result.json").write_text("{")
    before = files(outputs)
    capsys.readouterr()
    with pytest.raises(DamagedFile) as caught:
        tprnn.train(*line)
    assert main(["train", "-m", *line]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"tprnn train: error: {caught.value}"
    assert files(outputs) == before


def test_runs_that_fail_or_are_refused_are_rows(into: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**34)
    sound = group.Group.block

    def fail(self: Any, *arguments: Any) -> Any:
        if self.runs[0].spec.config["seed"] == 1:
            raise ValueError("of a rule of one's own")
        return sound(self, *arguments)

    monkeypatch.setattr(group.Group, "block", fail)
    rows = tprnn.train(*SMALL, BUDGET, "trainer=bptt", "model.H=20,30000", "seed=0,1", into)
    assert rows["status"].tolist() == ["not_solved", "failed", "refused", "refused"]
    assert rows["model.H"].tolist() == [20, 20, 30000, 30000]
    assert rows["iterations"].isna().tolist() == [False, False, True, True]
    assert [os.path.exists(path) for path in rows["path"]] == [True, True, False, False]


# ---- signals and threads


def test_after_an_interruption_the_same_call_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*LONG, "train.max_iterations=100"]
    tprnn.train(*line, f"outputs={tmp_path}/unbroken")
    append = RunFolder.append_metrics

    def interrupt(folder: RunFolder, rows: Any) -> None:
        append(folder, rows)
        if rows[0]["iteration"] == 40:
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(RunFolder, "append_metrics", interrupt)
    with pytest.raises(KeyboardInterrupt, match="the same call goes on from there"):
        tprnn.train(*line, f"outputs={tmp_path}/broken")
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is handler
    assert "interrupted after 40 iterations" in capsys.readouterr().out
    assert tprnn.runs(f"{tmp_path}/broken")["status"].tolist() == ["interrupted"]
    tprnn.train(*line, f"outputs={tmp_path}/broken")
    assert contents(f"{tmp_path}/unbroken") == contents(f"{tmp_path}/broken")


def test_another_signal_ends_the_program_as_it_would_after_checkpoints(tmp_path: Path) -> None:
    code = f"import sys, tprnn\ntprnn.train(*{LONG!r}, 'train.max_iterations=100000000', 'outputs=' + sys.argv[1])"
    process = subprocess.Popen(python(tmp_path / "outputs", "-c", code), stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(tmp_path.glob("outputs/runs/*/metrics.jsonl")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert out.startswith("interrupted after")
    assert tprnn.runs(tmp_path / "outputs")["status"].tolist() == ["interrupted"]


def test_calls_from_other_threads_train_and_wait_for_one_another(into: str) -> None:
    found: dict[int, Any] = {}

    def call(number: int, lines: Sequence[str]) -> None:
        found[number] = tprnn.train(*lines)

    line = (*SMALL[:-1], BUDGET, "trainer=bptt", "seed=0,1", "workers=2", into)
    threads = [threading.Thread(target=call, args=(number, line)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0].equals(found[1])
    assert found[0]["status"].tolist() == ["not_solved", "not_solved"]


def test_settings_of_pytorch_stay_as_they_were(into: str) -> None:
    threads, flushes = torch.get_num_threads(), flushes_denormals()
    torch.set_num_threads(threads + 2)
    torch.set_flush_denormal(False)
    try:
        tprnn.train(*SMALL, BUDGET, "trainer=bptt", into)
        assert torch.get_num_threads() == threads + 2
        assert not flushes_denormals()
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushes)


# ---- programs

SCRIPT = f"""
import sys
import tprnn
print("begins")
rows = tprnn.train(*{SMALL[:-1]!r}, {BUDGET!r}, "trainer=bptt", "seed=0,1", "workers=2", "outputs=" + sys.argv[1])
print(len(rows), "rows")
"""


@pytest.mark.parametrize("way", ["script", "module"])
def test_a_program_without_a_guard_is_not_run_again_by_workers(way: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SCRIPT)
    how = ["program.py"] if way == "script" else ["-m", "program"]
    command = python(tmp_path / "outputs", *how)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stderr
    assert [line for line in done.stdout.splitlines() if not line.startswith("2 not solved")] == ["begins", "2 rows"]
    assert tprnn.runs(tmp_path / "outputs")["status"].tolist() == ["not_solved", "not_solved"]
