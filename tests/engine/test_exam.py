"""The test set at a run's end: looked at once, with the weights of the best check, by no decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from quick_runs import After, metrics, quick

from tprnn.config import RunSpec
from tprnn.engine.loop import run_stack
from tprnn.engine.queue import Queue
from tprnn.engine.runs import Outcome
from tprnn.protocols.evaluate import Network, load
from tprnn.store import Store
from tprnn.sweep.run import run_all

EXAM = ("test_sequences", "test_right", "test_loss")
# rates at which the best of the checks is not the last
ROUGH = {
    "trainer.alpha": 1.0,
    "train.full_check_every": 1,
    "train.max_iterations": 160,
    "train.spectral_radius_limit": None,
}


def trained(*specs: RunSpec, stop: Any = None) -> list[Outcome]:
    """Outcomes in the order of the specs, all in one process."""
    if stop is None:
        return run_all(specs)
    return run_stack(specs, Queue([]), Store(specs[0].execution["outputs"]), stop, lambda *_: None)


def exam(outcome: Outcome) -> list[Any]:
    assert outcome.result is not None
    return [outcome.result[key] for key in EXAM]


def right(network: Network) -> int:
    """Right answers on the test stream, by the forward pass that users call."""
    size = network.spec.train.validation_size
    found = 0
    for chunk in range(size // 1000):
        batch = network.sample(1000, chunk)
        found += int((network.answers(batch).argmax(-1) == batch.targets).all(1).sum())
    return found


def test_a_run_whose_best_check_is_its_last_is_tested_as_it_ends(tmp_path: Path) -> None:
    (outcome,) = trained(quick(tmp_path, {"train.max_iterations": 20}))
    assert exam(outcome)[0] == 2000
    assert exam(outcome)[1] == right(load(Store(tmp_path / "outputs").folder(outcome.spec).path))


def test_the_weights_are_those_of_the_best_check(tmp_path: Path) -> None:
    (outcome,) = trained(spec := quick(tmp_path, ROUGH))
    rows = metrics(outcome)
    best = max(rows, key=lambda row: row["accuracy"])
    assert best["iteration"] < rows[-1]["iteration"], "the rates no longer make the case that is tested"
    (as_of_best,) = trained(
        spec.replace({"train.max_iterations": best["iteration"], "outputs": str(tmp_path / "shorter")})
    )
    assert exam(outcome) == exam(as_of_best)
    (last,) = trained(spec.replace({"seed": spec.config["seed"] + 1}))
    assert exam(last) != exam(outcome)


def test_a_run_that_was_broken_off_after_its_best_check_has_the_same_exam(tmp_path: Path) -> None:
    spec = quick(tmp_path, ROUGH)
    (whole,) = trained(spec)
    again = spec.replace({"outputs": str(tmp_path / "again")})
    (broken,) = trained(again, stop=After(150))
    assert (broken.status, exam(broken)) == ("interrupted", [None] * 3)
    (resumed,) = trained(again)
    assert exam(resumed) == exam(whole)


def test_a_larger_budget_is_tested_anew_and_the_smaller_ones_exam_stays(tmp_path: Path) -> None:
    spec = quick(tmp_path, ROUGH | {"train.max_iterations": 40})
    (short,) = trained(spec)
    (far,) = trained(spec.replace({"train.max_iterations": 160}))
    folder = Store(tmp_path / "outputs").folder(spec)
    assert [folder.results()[1][key] for key in EXAM] == exam(short)
    other = spec.replace({"train.max_iterations": 160, "outputs": str(tmp_path / "at once")})
    assert exam(trained(other)[0]) == exam(far)


def test_the_exam_is_that_of_the_run_alone(tmp_path: Path) -> None:
    specs = [quick(tmp_path, ROUGH | {"seed": seed}) for seed in range(3)]
    together = trained(*specs)
    for spec, outcome in zip(specs, together, strict=True):
        (alone,) = trained(spec.replace({"outputs": str(tmp_path / "alone")}))
        assert exam(alone) == exam(outcome)


def hopeless(tmp_path: Path, changes: dict[str, Any] | None = None) -> RunSpec:
    """A run that learns, but never answers a whole sequence rightly."""
    given = {"task.T": 20, "train.full_check_every": 1, "train.success_error": None, "train.max_iterations": 100}
    return quick(tmp_path, given | (changes or {}), task="copy_memory", trainer="bptt", optimizer="adam")


def test_of_checks_without_a_right_answer_the_best_is_that_of_the_lowest_loss(tmp_path: Path) -> None:
    (outcome,) = trained(hopeless(tmp_path))
    rows = metrics(outcome)
    assert {row["accuracy"] for row in rows} == {0.0}
    losses = [row["validation_loss"] for row in rows]
    assert losses.index(min(losses)) > 0, "the rates no longer make the case that is tested"
    assert outcome.result is not None
    assert outcome.result["test_loss"] == pytest.approx(min(losses), rel=0.005)
    assert outcome.result["test_loss"] != pytest.approx(losses[0], rel=0.01)


def test_a_lower_loss_with_as_many_mistakes_is_no_reason_for_more_patience(tmp_path: Path) -> None:
    (outcome,) = trained(hopeless(tmp_path, {"train.patience": 2}))
    assert outcome.result is not None
    assert (outcome.result["stopped_by"], outcome.result["iterations"]) == ("patience", 60)


def test_best_weights_of_before_ties_were_told_apart_are_not_known(tmp_path: Path) -> None:
    (short,) = trained(spec := hopeless(tmp_path, {"train.max_iterations": 40}))
    assert exam(short)[0] == 2000
    folder = Store(tmp_path / "outputs").folder(spec)
    found = folder.load_checkpoint()
    assert found is not None
    folder.save_checkpoint(found[0], {key: value for key, value in found[1].items() if key != "best_loss"})
    (far,) = trained(spec.replace({"train.max_iterations": 80}))
    assert far.status == "not_solved"
    assert exam(far) == [None] * 3


def test_no_decision_sees_the_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tprnn.engine.ensemble import Ensemble

    spec = quick(tmp_path, ROUGH)
    (before,) = trained(spec)

    def otherwise(self: Ensemble, params: Any) -> tuple[torch.Tensor, torch.Tensor]:
        R = len(self.specs)
        return torch.zeros(R, dtype=torch.int64), torch.full((R,), float("inf"), dtype=torch.float64)

    monkeypatch.setattr(Ensemble, "examine", otherwise)
    (after,) = trained(spec.replace({"outputs": str(tmp_path / "otherwise")}))
    kept = ("status", "stopped_by", "iterations", "accuracy", "best_accuracy", "best_validation_loss", "loss")
    assert before.result is not None
    assert after.result is not None
    assert [before.result[key] for key in kept] == [after.result[key] for key in kept]
    assert exam(after) != exam(before)
