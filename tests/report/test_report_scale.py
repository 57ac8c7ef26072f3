"""Reports over trees of made-up runs: all are read, counts are right, and memory stays bounded."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import pytest

from tprnn.bench import tree
from tprnn.bench.report import main, measure
from tprnn.report.cli import report_main
from tprnn.report.rows.frame import read_rows
from tprnn.store import Store


def test_made_up_runs_are_read_as_real_ones(tmp_path: Path) -> None:
    count = tree.make(tmp_path, 55, models=20)
    rows, damaged = read_rows(tmp_path)
    assert not damaged
    assert Counter(row["status"] for row in rows) == count
    assert sum(count.values()) == len(rows) == 55
    assert count["started"] == 1
    assert len({row["task.name"] for row in rows}) == 4
    assert len({row["trainer.name"] for row in rows}) == 3
    for folder in Store(tmp_path).folders():
        assert len(folder.read_metrics()) == tree.LINES
        assert folder.name == folder.read_spec().folder_name
    networks = [folder for folder in Store(tmp_path).folders() if folder.load_model()]
    assert len(networks) == 3


def test_their_table_counts_every_run_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = tree.make(tmp_path, 55)
    assert report_main([str(tmp_path), "--format", "csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert sum(int(line["solved"]) for line in lines) == count["solved"]
    assert sum(int(line["seeds"]) for line in lines) == sum(count.values()) - count["started"]
    assert sum(int(line["started"]) for line in lines) == count["started"]


def test_a_larger_tree_holds_the_smaller_one(tmp_path: Path) -> None:
    tree.make(tmp_path, 12)
    before = {folder.path: (folder.result(), folder.read_metrics()) for folder in Store(tmp_path).folders()}
    tree.make(tmp_path, 24)
    after = {folder.path: (folder.result(), folder.read_metrics()) for folder in Store(tmp_path).folders()}
    assert len(before) == 12
    assert len(after) == 24
    assert all(after[path] == content for path, content in before.items())


def test_the_bench_tells_time_and_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree.make(tmp_path, 5)
    main([str(tmp_path), "--repeats", "1"])
    assert capsys.readouterr().out.startswith("5 runs: ")


@pytest.mark.slow
def test_ten_thousand_runs_are_tabulated_within_a_gibibyte(tmp_path: Path) -> None:
    tree.make(tmp_path, 10_000)
    assert measure(tmp_path).bytes < 2**30
