"""docs/extending.md: its two files, put into a copy of the package, are a working rule."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package with the two files of the guide in it."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tprnn", tmp_path / "tprnn", ignore=ignore)
    shutil.copytree(ROOT / "conf", tmp_path / "tprnn" / "conf", ignore=ignore)
    shutil.copytree(ROOT / "hydra_plugins", tmp_path / "hydra_plugins", ignore=ignore)
    text = (ROOT / "docs" / "extending.md").read_text()
    blocks = re.findall(r"\*\*File \d: `(?:tprnn/|conf/)(.+?)`\*\*\n\n```\w+\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in blocks] == ["trainers/manhattan.py", "trainer/manhattan.yaml"]
    (tmp_path / "tprnn" / blocks[0][0]).write_text(blocks[0][1])
    (tmp_path / "tprnn" / "conf" / blocks[1][0]).write_text(blocks[1][1])
    return tmp_path


def tprnn(tree: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, "-m", "tprnn", *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_files_make_a_rule_that_is_listed_swept_and_reported(tree: Path) -> None:
    assert re.search(r"^  manhattan +Manhattan rule", tprnn(tree, "list", "trainers"), re.MULTILINE)
    line = ["task=temporal_order", "trainer=manhattan,bptt", "task.T=10", "optimizer=sgd", "seed=0,1"]
    tprnn(tree, "train", "-m", *line, "train.max_iterations=2000", "train.validation_size=1000")
    results = [json.loads(path.read_text()) for path in tree.glob("outputs/runs/*-manhattan-*/result.json")]
    assert [result["status"] for result in results] == ["solved", "solved"]
    assert "manhattan" in tprnn(tree, "report")
