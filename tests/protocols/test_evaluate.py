"""A trained network on other data: what it answers, and what is too large or of another kind in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import TASKS, make_spec
from quick_runs import QUICK, quick

import tprnn
from tprnn.engine.ensemble import Ensemble
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


def network(task: str) -> evaluate.Network:
    """One that was never trained."""
    spec = make_spec(QUICK, task=task)
    return evaluate.Network(spec, {name: w[0].clone() for name, w in Ensemble([spec]).state.params.items()})


@pytest.mark.parametrize("task", TASKS)
def test_predictions_are_of_the_kind_and_shape_of_targets(task: str) -> None:
    one = network(task)
    batch = one.sample(30)
    y, found = one.answers(batch), one.predict(batch)
    assert found.shape == batch.targets.shape
    assert found.dtype == batch.targets.dtype
    if found.is_floating_point():
        assert torch.equal(found, y)
    else:
        assert torch.equal(y.gather(-1, found[..., None])[..., 0], y.amax(-1))


def test_the_score_is_the_share_of_right_predictions(run: str) -> None:
    one = evaluate.load(run)
    batch = one.sample(1000)
    right = (one.predict(batch) == batch.targets).all(1).float().mean().item()
    assert 0.0 < right < 1.0
    assert one.score(1000) == pytest.approx(right)


def test_answers_follow_from_the_last_states(run: str) -> None:
    one = evaluate.load(run)
    batch = one.sample(4)
    h = one.states(batch)
    assert h.shape == (1, batch.T + 1, 4, 20)
    torch.testing.assert_close(one.answers(batch), h[:, -1:] @ one.params["W_hy"] + one.params["b_y"])


def test_a_batch_of_another_kind_is_one_line_that_says_both(run: str) -> None:
    one, other = evaluate.load(run), network("adding")
    for ask in (one.predict, one.answers, one.states):
        with pytest.raises(UserError) as caught:
            ask(other.sample(3))
        assert re.fullmatch(
            r"batch: inputs are real numbers \[1, \d+, 3, 2\]; task=temporal_order has integers \[1, \d+, 1\] "
            r"\(runs, steps, sequences\), with any number of steps and sequences",
            str(caught.value),
        )
    with pytest.raises(UserError, match=r"^batch: inputs are integers \[1, \d+, 3\]; task=adding has real numbers"):
        other.predict(one.sample(3))
    two, _ = Ensemble([one.spec, one.spec.replace({"seed": 1})]).draw("test", 0, 3)
    with pytest.raises(UserError, match=r"^batch: inputs are integers \[2, "):
        one.predict(two)


def test_load_promises_nothing_that_a_network_lacks(run: str) -> None:
    one = tprnn.load(run)
    promised = re.findall(r"`(\w+)\b", (tprnn.load.__doc__ or "").partition("\n")[0])
    assert {"params", "predict", "score", "on"} <= set(promised)
    assert not [name for name in promised if not hasattr(one, name)]


def test_a_run_is_found_by_path_name_or_signature(run: str, tmp_path: Path) -> None:
    name = Path(run).name
    for known in (run, Path(run), name, name.rpartition("-")[2]):
        assert tprnn.load(known, tmp_path / "outputs").spec.folder_name == name
    with pytest.raises(UserError, match=f"^run 'nothing': no run folder there; choices: {name}"):
        tprnn.load("nothing", tmp_path / "outputs")
