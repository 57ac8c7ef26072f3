"""An ensemble of several runs, as a GPU computes it: each of them to rounding, permuted, beside a run that breaks.

On a CPU each run is an ensemble by itself; tests/engine/test_bits.py holds its bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MEMBERS, make_spec
from neighbours import EVERY_TASK, FORMS, SMALL, neighbours
from quick_runs import metrics, quick, strip

from tprnn.engine import loop
from tprnn.engine.ensemble import Ensemble
from tprnn.sweep.run import run_all
from tprnn.testing import check_alive, check_joined, check_permuted, check_stacked
from tprnn.trainers.base import State

STEPS = 30


def train(ensemble: Ensemble, steps: int = STEPS) -> dict[str, torch.Tensor]:
    for _ in range(steps):
        ensemble.advance()
    return ensemble.state.flat() | {"loss": ensemble.loss_sum}


@pytest.mark.parametrize(("trainer", "changes", "choices"), [*EVERY_TASK, *FORMS], ids=str)
def test_stacked_equals_solo(trainer: str, changes: dict[str, Any], choices: dict[str, str]) -> None:
    runs = neighbours(trainer, changes, **choices)
    check_alive(runs, STEPS)
    check_stacked(runs, STEPS)


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_a_permuted_stack_permutes_its_results(trainer: str) -> None:
    check_permuted(neighbours(trainer), STEPS)


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_a_run_that_becomes_nan_leaves_its_neighbours_unchanged(trainer: str) -> None:
    runs = neighbours(trainer)
    healthy, beside = Ensemble(runs), Ensemble(runs)
    beside.state.params["W_hh"][1] = float("nan")
    expected, found = train(healthy), train(beside)
    for name, value in expected.items():
        assert torch.equal(found[name][[0, 2]], value[[0, 2]]), name
    assert beside.finite().tolist() == [True, False, True]


def test_a_run_without_regulariser_or_clipping_takes_nothing_from_its_neighbours() -> None:
    """Errors that vanish (a contractive W_hh), and a neighbour with both remedies."""
    runs = [
        make_spec({"task.T": 100, "seed": r, "trainer.omega": 2.0 * r, "trainer.clip_norm": 0.1 if r else None})
        for r in range(2)
    ]
    together, alone = Ensemble(runs), Ensemble(runs[:1])
    for ensemble in (together, alone):
        ensemble.state.params["W_hh"].mul_(0.6)
        for _ in range(40):
            ensemble.advance()
    assert together.finite().all()
    for name, w in alone.state.params.items():
        torch.testing.assert_close(together.state.params[name][0], w[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_leaving_runs_do_not_change_those_that_stay(trainer: str) -> None:
    runs = neighbours(trainer)
    whole, part = Ensemble(runs), Ensemble(runs)
    for position in range(STEPS):
        whole.advance()
        if position == 10:
            part = part.select([0, 2])
        part.advance()
    for name, value in whole.state.flat().items():
        assert torch.allclose(part.state.flat()[name], value[[0, 2]], rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_runs_that_join_begin_at_their_own_first_iteration(trainer: str) -> None:
    """An ensemble of runs that stand at different iterations is each of them on its own."""
    numbers = (
        {"trainer.noise": 0.1, "trainer.phases": "random"}
        if "phases" in make_spec(trainer=trainer).config["trainer"]
        else {}
    )
    runs = [make_spec(SMALL | numbers | {"seed": seed}, trainer=trainer) for seed in range(3)]
    check_joined(runs, STEPS)


def test_state_survives_flattening() -> None:
    ensemble = Ensemble(neighbours("tptt", optimizer="adam"))
    train(ensemble, 2)
    copy = State.from_flat(ensemble.state.flat())
    assert copy.params.keys() == ensemble.state.params.keys()
    assert all(torch.equal(copy.slots[n][s], v) for n, slots in ensemble.state.slots.items() for s, v in slots.items())


def test_validation_of_a_run_does_not_depend_on_its_neighbours() -> None:
    runs = [make_spec({"seed": seed, "task.T": 10, "train.validation_size": 3000}, trainer="tptt") for seed in range(3)]
    together = Ensemble(runs)
    for _ in range(60):
        together.advance()
    mistakes, seen, losses = together.validate([0, 1, 2], [False] * 3)
    for r, spec in enumerate(runs):
        alone = Ensemble([spec])
        for _ in range(60):
            alone.advance()
        wrong, looked, loss = alone.validate([r], [False])
        assert (wrong.item(), looked.item()) == (mistakes[r].item(), seen[r].item())
        assert loss.item() == pytest.approx(losses[r].item(), rel=1e-6)
    full, all_seen, _ = together.validate([0, 1, 2], [True, None, True])
    assert all_seen.tolist() == [3000, 0, 3000]
    assert (full >= mistakes)[[0, 2]].all()


# ---- ensembles of many runs inside the engine


@pytest.fixture
def wide_ensembles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's ensembles as on a GPU."""
    monkeypatch.setattr(loop, "ensemble_size", lambda spec: 4)


@pytest.mark.usefixtures("wide_ensembles")
def test_ensembles_that_lose_runs_are_filled_and_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nine runs one breaks its ensemble and one diverges; the others are what they are alone."""
    from tprnn.trainers.bptt import BPTT

    step = BPTT.step

    def breaks(self: Any, state: Any, batch: Any, position: Any) -> Any:
        if 3 in self.seeds.data and (position == 30).any():
            raise ValueError("a rule of somebody's own")
        return step(self, state, batch, position)

    monkeypatch.setattr(BPTT, "step", breaks)
    sizes: set[int] = set()
    advance = Ensemble.advance
    monkeypatch.setattr(Ensemble, "advance", lambda self: (sizes.add(len(self.specs)), advance(self)))
    changes = {"dtype": "float64", "model.activation": "relu", "train.validation_size": 100}
    specs = [quick(tmp_path, changes | {"seed": seed}) for seed in range(9)]
    specs[1] = specs[1].replace({"trainer.alpha": 1e30})
    outcomes = run_all(specs)
    expected = ["not_solved"] * 9
    expected[1], expected[3] = "diverged", "failed"
    assert [outcome.status for outcome in outcomes] == expected
    assert max(sizes) == 4
    for outcome in (outcomes[0], outcomes[2], outcomes[8]):
        (alone,) = run_all([outcome.spec.replace({"outputs": str(tmp_path / "alone")})])
        for one, other in zip(strip(metrics(outcome)), strip(metrics(alone)), strict=True):
            assert one == pytest.approx(other, rel=1e-9)
