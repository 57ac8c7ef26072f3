"""`make gpu` rehearsed on a CPU: parts in their order, cut off and gone on with, and the tables that come of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import packaging
import pytest

from tprnn.bench import gpu, gpu_start
from tprnn.bench.cards import CARDS, card_of, floor_of
from tprnn.bench.gpu import Part, Record, Supervisor, parts_of
from tprnn.bench.gpu_parts import FACTS, Row, Setting
from tprnn.bench.gpu_sizes import FULL, SMALL
from tprnn.bench.gpu_tables import blocks
from tprnn.cost.modelled import Shape
from tprnn.errors import UserError
from tprnn.trainers.base import Costs

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "performance.md"


def start(out: Path, *parts: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tprnn.bench.gpu", "--device", "cpu", "--seconds", "900", "--out", str(out)]
    words += ["--parts", *parts] if parts else []
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def read(out: Path) -> dict[str, Any]:
    return json.loads(out.read_text()) if out.exists() else {"parts": {}}


def rows(out: Path, part: str) -> dict[str, Row]:
    return read(out)["parts"].get(part, {}).get("rows", {})


def wait_for_row(out: Path, part: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not rows(out, part):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def group_members(word: str) -> list[int]:
    """Processes whose command line has a word, which nothing but this test's commands has."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_rehearsal_that_is_ended_half_way_keeps_what_it_has_and_is_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    first = start(out)
    wait_for_row(out, "times", first)
    first.send_signal(signal.SIGTERM)
    said = first.communicate(timeout=60)[0]
    assert first.returncode == 128 + signal.SIGTERM, said
    assert "the same command goes on" in said
    half = read(out)
    assert rows(out, "more times") == {}
    assert "rehearsal" in half["note"]

    second = start(out)
    said = second.communicate(timeout=400)[0]
    assert second.returncode == 0, said
    whole = read(out)
    assert {name: part["status"] for name, part in whole["parts"].items()} == {
        part.name: "done" for part in parts_of(SMALL)
    }
    times = whole["parts"]["times"]["rows"]
    assert len(times) == len(SMALL.first) * len(SMALL.lengths) * len(SMALL.stacks)
    assert half["parts"]["times"]["rows"].items() <= times.items()  # not measured again
    assert not any(row["recorded"] or "floor_ms" in row for row in times.values())
    assert {row["outcome"] for row in rows(out, "tests").values()} == {"passed"}
    assert all(row["equal"] for row in rows(out, "bits").values())
    assert rows(out, "grid")["grid"]["run_iterations"] > 0
    assert {row["processes"] for row in rows(out, "processes").values()} == set(SMALL.processes)
    assert set(blocks(whole)) == {"gpu: machine", "gpu: iterations", "gpu: grid"}


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks processes up in /proc")
def test_no_part_outlives_a_rehearsal_that_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    process = start(out, "grid")
    wait_for_row(out, "machine", process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while group_members(str(out)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert group_members(str(out)) == []
    assert FACTS in rows(out, "machine")


def good(setting: Setting) -> None:
    setting.tell("good", {"number": 1.0})


def bad(setting: Setting) -> None:
    setting.tell("before", {})
    raise ValueError("of no use")


def sudden(setting: Setting) -> None:
    os._exit(7)


def endless(setting: Setting) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    setting.tell("before", {})
    time.sleep(600.0)


def run(out: Path, *works: Any, seconds: float = 60.0, limit: float = 30.0) -> tuple[int, dict[str, Any]]:
    parts = [Part("first", 30.0, good), *(Part(work.__name__, limit, work) for work in works)]
    code = Supervisor(Record(out, "cpu", SMALL), SMALL, parts, seconds, page=None).run()
    return code, read(out)["parts"]


def test_a_part_that_fails_or_breaks_off_takes_no_other_with_it(tmp_path: Path) -> None:
    code, parts = run(tmp_path / "gpu.json", bad, sudden, good)
    assert code == 1
    assert {name: part["status"] for name, part in parts.items()} == {
        "first": "done",
        "bad": "failed",
        "sudden": "failed",
        "good": "done",
    }
    assert parts["bad"]["error"] == "ValueError: of no use"
    assert parts["bad"]["rows"] == {"before": {}}
    assert "without a word" in parts["sudden"]["error"]


def test_a_part_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "_GRACE", 0.3)
    code, parts = run(tmp_path / "gpu.json", endless, good, limit=0.5)
    assert code == 0
    assert parts["endless"] | {"seconds": 0} == {"status": "cut", "seconds": 0, "rows": {"before": {}}, "error": None}
    assert parts["good"]["status"] == "done"


def test_no_part_begins_where_no_time_is_left(tmp_path: Path) -> None:
    code, parts = run(tmp_path / "gpu.json", good, seconds=0.0)
    assert code == 0
    assert {part["status"] for part in parts.values()} <= {"cut"}


def test_without_the_device_nothing_else_is_tried(tmp_path: Path) -> None:
    parts = [Part("machine", 30.0, bad), Part("good", 30.0, good)]
    out = tmp_path / "gpu.json"
    assert Supervisor(Record(out, "cpu", SMALL), SMALL, parts, 60.0, page=None).run() == 1
    assert rows(out, "good") == {}


def test_results_of_another_machine_are_put_aside(tmp_path: Path) -> None:
    def facts(setting: Setting) -> None:
        setting.tell(FACTS, {"card": "ours"})

    out = tmp_path / "gpu.json"
    run(out, good)
    content = read(out)
    content["parts"]["machine"] = {"status": "done", "seconds": 1.0, "rows": {FACTS: {"card": "theirs"}}}
    out.write_text(json.dumps(content))
    parts = [Part("machine", 30.0, facts), Part("good", 30.0, good)]
    Supervisor(Record(out, "cpu", SMALL), SMALL, parts, 60.0, page=None).run()
    assert rows(out, "machine") == {FACTS: {"card": "ours"}}
    assert "first" not in read(out)["parts"]
    assert "first" in read(out.with_suffix(".old.json"))["parts"]


def test_a_rehearsal_never_writes_into_a_page_nor_is_a_page_without_blocks_begun(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    with pytest.raises(UserError, match="gpu: machine"):
        gpu.main(["--page-only", "--into", str(ROOT / "README.md"), "--out", str(tmp_path / "gpu.json")])
    with pytest.raises(UserError, match="rehearsal"):
        gpu.main(["--device", "cpu", "--into", str(page), "--out", str(tmp_path / "gpu.json")])
    assert page.read_text() == PAGE.read_text()


def measured() -> dict[str, Any]:
    """What a GPU might leave, half of it done."""
    times = {"trainer": "tptt", "T": 100, "ms": 0.05, "call_by_call_ms": 0.5, "flops_ms": 0.003, "bytes_ms": 0.002}
    times |= {"ratio": 16.0, "memory_gib": 2.5}
    facts = {"card": "NVIDIA H100 80GB HBM3", "card_memory_gib": 79.2, "torch": "2.11.0", "cuda": "13.0"}
    facts |= {"python": "3.12.3", "cores": 16, "cpu": "Xeon", "commit": "abc"}
    rates = {"flops": 5e13, "bytes_per_second": 3e12, "kernel_us": 2.5, "svd_ms": 9.0, "svd_ms_cpu": 4.0}
    rates |= {"eigenvalues_ms": 30.0, "eigenvalues_ms_cpu": 5.0}
    grid = {
        "T": 100,
        "points": 216,
        "seconds": 180.0,
        "per_second": 20000.0,
        "begun_after": 9.0,
        "ended": {"solved": 50},
    }
    found: dict[str, dict[str, Row]] = {
        "machine": {FACTS: facts, "rates": rates},
        "tests": {"a": {"outcome": "passed"}, "b": {"outcome": "failed"}},
        "times": {"1": times | {"R": 216}, "2": {"trainer": "tptt", "T": 300, "R": 1024, "left_out": "no memory"}},
        "core": {"tptt, T = 100": {"ms": 3.0}},
        "grid": {"grid": grid},
        "processes": {"16": {"processes": 16, "per_second": None, "begun_after": 9.0}},
    }
    parts = {name: {"status": "cut" if name == "grid" else "done", "rows": of_part} for name, of_part in found.items()}
    return {"device": "cuda", "small": False, "note": "measured", "parts": parts}


def test_tables_are_written_from_what_is_there(tmp_path: Path) -> None:
    page, out = tmp_path / "page.md", tmp_path / "gpu.json"
    page.write_text(PAGE.read_text())
    out.write_text(json.dumps(measured()))
    assert gpu.main(["--page-only", "--into", str(page), "--out", str(out)]) == 0
    text = page.read_text()
    for told in ("NVIDIA H100 80GB HBM3", "1 failed, 1 passed", "grid (cut)", "20,000", "left out: no memory", "60.0"):
        assert told in text
    empty = blocks({"parts": {}})
    assert set(empty.values()) == {"Not measured yet."}


def test_a_card_is_known_by_its_name_and_its_floor_is_what_the_sheet_says() -> None:
    assert card_of("NVIDIA H100 80GB HBM3") is CARDS["H100 80GB HBM3"]
    assert card_of("NVIDIA H200 NVL") is CARDS["H200 NVL"]
    assert card_of("Quadro") is None
    card, R, T, B, H = CARDS["H100 80GB HBM3"], 1000, 100, 20, 100
    shape = Shape(Costs(dependent=2, rows=1, outer=1, buffers=4), T, B, H, parameters=10_000)
    floor = floor_of(shape, R, card)
    E = R * T * B * H
    assert floor.flops == pytest.approx(4 * 2 * E * H / 67e12)
    spilt = 1 - 50e6 / (4 * E * 4)
    assert floor.bytes == pytest.approx((2 * 4 * E * spilt + 4 * R * 10_000) * 4 / 3.35e12)
    assert floor.seconds == max(floor.flops, floor.bytes)
    small = floor_of(shape, 1, card)
    assert small.bytes == pytest.approx(4 * 10_000 * 4 / 3.35e12)  # the cache holds the states


def test_the_parts_fit_their_time_in_the_order_of_their_worth() -> None:
    names = [part.name for part in parts_of(FULL)]
    assert names[:5] == ["machine", "tests", "times", "bits", "grid"]
    assert sum(part.seconds for part in parts_of(FULL)[:5]) <= 540.0  # limits, of which most parts need half


def test_a_python_without_what_is_needed_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert gpu_start.main(["--python", "/nonexistent/python", "--wheels", str(tmp_path)]) == 2
    assert "name it by PYTHON=" in capfd.readouterr().err
    monkeypatch.setattr(gpu_start, "python_for", lambda device, named: sys.executable)
    monkeypatch.setattr(gpu_start, "environment", lambda python: python)
    monkeypatch.setattr(gpu_start, "missing", lambda python: ["hydra-core", "omegaconf"])
    assert gpu_start.main(["--wheels", str(tmp_path)]) == 2
    said = capfd.readouterr().err
    assert 'make gpu-wheels WHEELS="hydra-core omegaconf"' in said
    assert said.count("\n") == 1


def test_the_environment_sees_what_a_virtual_environment_below_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_start, "VENV", tmp_path / "venv")
    inside = gpu_start.environment(sys.executable)
    assert gpu_start.output(inside, "-c", "import sys, yaml; print(sys.prefix)") == str(tmp_path / "venv")
    assert gpu_start.missing(inside) == []
    stamp = (tmp_path / "venv" / ".made-by").stat().st_mtime_ns
    gpu_start.environment(sys.executable)
    assert (tmp_path / "venv" / ".made-by").stat().st_mtime_ns == stamp


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """By a Python that sees one package only, which reads what others ask for."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "packaging").symlink_to(Path(packaging.__file__).parent)
    bare = tmp_path / "python"
    bare.write_text(f"#!/bin/sh\nPYTHONPATH='{packages}' exec '{sys.executable}' -S \"$@\"\n")
    bare.chmod(0o755)
    found = gpu_start.missing(str(bare))
    assert {"torch", "hydra-core", "omegaconf", "numba", "setuptools", "pytest"} <= set(found)
    (packages / "packaging").unlink()
    with pytest.raises(gpu_start.Refused, match="pip"):
        gpu_start.missing(str(bare))
