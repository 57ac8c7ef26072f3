"""Random command lines end in exit code 0, or in 2 with one line in our own words, and write into their folder only."""

from __future__ import annotations

import builtins
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
from odd_lines import COMMANDS, odd_line

from tprnn import cli
from tprnn.compose import compose
from tprnn.config import RunSpec
from tprnn.engine.runs import Outcome
from tprnn.protocols import depth, reproduce
from tprnn.protocols.search import command as search
from tprnn.store import Store
from tprnn.sweep import run as many

TINY = [
    "task.T=10",
    "model.H=2",
    "train.max_iterations=1",
    "train.check_every=1",
    "train.validation_size=10",
    "train.batch_size=2",
    "workers=1",
]
FAST, SLOW, REAL = range(8), range(8, 88), range(88, 96)
"""Seeds of lines: the first are tried by `make test`, the others by `make test-slow`, the last in training."""


@cache
def class_names() -> frozenset[str]:
    """Names of classes of Hydra, ANTLR, OmegaConf and Python that are no plain words."""
    libraries = [
        module for name, module in sorted(sys.modules.items()) if re.match(r"(hydra|omegaconf|antlr4)\b", name)
    ]
    found = {
        value.__name__
        for module in (builtins, *libraries)
        for value in vars(module).values()
        if isinstance(value, type)
    }
    return frozenset(name for name in found | {"NoneType"} if re.search(r"[a-z][A-Z]", name))


def check_error(line: Sequence[str], err: str) -> None:
    """One line, of our own words."""
    assert err.startswith(f"tprnn {line[0]}: error: "), err
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert err[:-1].isprintable()
    ours = set(re.findall(r"\w+", err)) - set(re.findall(r"\w+", " ".join(line)))
    assert not ours & class_names(), err
    assert not re.search(
        r"<class|object has no|positional argument|\w+\(\) takes|expecting \{|invalid (?:int|float) value", err
    ), err


def no_training(specs: Sequence[RunSpec], executor: object = None, first_solved: bool = False) -> list[Outcome]:
    """In the place of `run_all`: runs that end without success at once."""
    assert len(specs) <= 1000
    Store(specs[0].execution["outputs"]).check_writable()
    return [Outcome(spec, "not_solved", {"iterations": 1, "accuracy": 0.0, "best_accuracy": 0.0}) for spec in specs]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that is finished."""
    spec = compose(
        ["task=adding", "trainer=bptt", *TINY, f"outputs={tmp_path_factory.mktemp('odd')}/out", "quiet=true"]
    )
    many.run_all([spec])
    return Store(spec.execution["outputs"]).folder(spec).path


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, in which nothing is trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TPRNN_DEBUG", raising=False)
    for module in (many, depth, search, reproduce):
        monkeypatch.setattr(module, "run_all", no_training)
    return tmp_path


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Hydra sets up logging for its own flags; its handlers would write to a stream of an earlier test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


LINES = [
    *((command, seed) for command in COMMANDS for seed in FAST),
    *(pytest.param(command, seed, marks=pytest.mark.slow) for command in COMMANDS for seed in SLOW),
]


@pytest.mark.parametrize(("command", "seed"), LINES)
def test_an_odd_line_ends_well(
    place: Path, trained: Path, capsys: pytest.CaptureFixture[str], command: str, seed: int
) -> None:
    shutil.copytree(trained.parent.parent, place / "out")
    line = [str(trained) if word == "RUN" else word for word in odd_line(command, seed)]
    line += ["outputs=out"] * (command != "list")
    print(f"seed {seed}: {line!r}")  # shown where this fails
    capsys.readouterr()
    try:
        code = cli.main(line)
    except SystemExit as end:  # argparse's way to end a --help
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    print(f"seed {seed}: {line!r} -> {code}, {err}")
    assert code in (0, 2)
    if code == 2:
        assert out == "" or any(word.startswith("--info") for word in line)  # Hydra tells before it tries
        check_error(line, err)
    assert [path.name for path in place.iterdir()] == ["out"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "depth", "search"])
@pytest.mark.parametrize("seed", REAL)
def test_an_odd_line_that_trains_ends_well(tmp_path: Path, command: str, seed: int) -> None:
    """As above, in a process of its own and with tiny runs that are really trained."""
    own = {"depth": ["depth.start=10", "depth.max=10"], "search": ["search.trials=1"]}.get(command, [])
    line = [*odd_line(command, seed), *TINY[command == "depth" :], *own, "threads=1", "outputs=out"]
    program = [sys.executable, "-m", "tprnn", *line]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    print(f"seed {seed}: {line!r} -> {done.returncode}, {done.stderr}")
    assert done.returncode in (0, 1, 2)
    assert "Traceback" not in done.stderr
    if done.returncode == 1:
        assert list(tmp_path.glob("out/runs/*/failure.txt"))
    if done.returncode == 2:
        check_error(line, done.stderr)
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}
