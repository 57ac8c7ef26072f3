"""The runs behind the pages of results, packed: they can be reported again, and none is trained again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from quick_runs import quick

from tprnn.report.rows.frame import read_rows
from tprnn.sweep.run import run_all

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="packed by GNU find and tar")
ROOT = Path(__file__).parent.parent.parent


def make(target: str, outputs: Path, records: Path) -> None:
    words = ["make", "-s", "-C", str(ROOT), target, f"OUTPUTS={outputs}", f"RECORDS={records}"]
    subprocess.run(words, check=True, capture_output=True, timeout=60)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Three runs packed from tmp_path/outputs."""
    run_all([quick(tmp_path, {"seed": seed}) for seed in range(3)])
    whole = next((tmp_path / "outputs" / "runs").iterdir())
    broken_off = Path(shutil.copytree(whole, whole.with_name("broken-off")), "result.json")
    broken_off.write_text(broken_off.read_text().replace('"not_solved"', '"interrupted"'))
    make("records", tmp_path / "outputs", tmp_path / "runs.tar.xz")
    return tmp_path / "runs.tar.xz"


def test_unpacked_runs_say_what_they_said_and_are_finished(tmp_path: Path, records: Path) -> None:
    make("unpack-records", tmp_path / "elsewhere", records)
    was, now = (read_rows(tmp_path / folder)[0] for folder in ("outputs", "elsewhere"))
    assert len(now) == 3
    assert [{**row, "path": ""} for row in now] == [{**row, "path": ""} for row in was if row["run"] != "broken-off"]
    again = run_all([quick(tmp_path, {"seed": seed, "outputs": str(tmp_path / "elsewhere")}) for seed in range(3)])
    assert all(outcome.skipped for outcome in again)


def test_the_same_runs_are_the_same_bytes_and_what_is_there_stays(tmp_path: Path, records: Path) -> None:
    make("unpack-records", tmp_path / "elsewhere", records)
    kept = next((tmp_path / "elsewhere" / "runs").iterdir()) / "result.json"
    make("records", tmp_path / "elsewhere", tmp_path / "again.tar.xz")
    assert (tmp_path / "again.tar.xz").read_bytes() == records.read_bytes()
    kept.write_text("mine")
    make("unpack-records", tmp_path / "elsewhere", records)
    assert kept.read_text() == "mine"
