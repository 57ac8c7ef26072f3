"""A trained network on other data: what is too large is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from quick_runs import quick

from tprnn.errors import UserError
from tprnn.protocols import evaluate
from tprnn.store import Store
from tprnn.sweep.run import run_all


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A trained network."""
    spec = quick(tmp_path, {"train.max_iterations": 1, "train.validation_size": 10})
    run_all([spec])
    return str(Store(spec.execution["outputs"]).folder(spec).path)


def test_other_lengths_are_lines_of_a_table(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([run, "task.T=10,12", "--sequences", "20"]) == 0
    lines = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| temporal")]
    assert [(line[2].strip(), line[4].strip()) for line in lines] == [("10", "20"), ("12", "20")]


@pytest.mark.parametrize("T", ["1000000000000", "100000000000000000"])
def test_a_length_beyond_the_memory_is_one_line_that_names_it(run: str, T: str) -> None:
    with pytest.raises(UserError, match=f"^task.T={T}: out of memory: ") as caught:
        evaluate.main([run, f"task.T=10,{T}", "--sequences", "20"])
    assert "\n" not in str(caught.value)
