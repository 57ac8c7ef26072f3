"""Every hand-derived gradient against autograd, float64, to 1e-9."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import TASKS, make_spec
from reference import bptt_gradients, recorded_gradients, tptt_gradients

from tprnn.engine.ensemble import Ensemble
from tprnn.tasks.base import Batch

pytestmark = pytest.mark.usefixtures("recurrences")

SMALL = {"dtype": "float64", "model.H": 7, "train.batch_size": 5, "task.T": 20}


def ensemble_of(runs: int = 2, changes: dict[str, Any] | None = None, **choices: str) -> Ensemble:
    return Ensemble([make_spec(SMALL | {"seed": 3 + r} | (changes or {}), **choices) for r in range(runs)])


def perturb(ensemble: Ensemble) -> None:
    """Move every parameter off its structured start, so that no term is zero by chance."""
    generator = torch.Generator().manual_seed(1)
    for w in ensemble.state.params.values():
        w.add_(0.1 * torch.randn(w.shape, generator=generator, dtype=w.dtype))


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], r: int) -> None:
    for name, value in expected.items():
        if value is None:
            continue
        scale = value.abs().max().clamp(min=1e-12)
        error = ((found[name][r] - value).abs().max() / scale).item()
        assert error < 1e-9, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_bptt_is_the_gradient_of_the_loss(task: str, activation: str) -> None:
    ensemble = ensemble_of(changes={"model.activation": activation}, task=task)
    perturb(ensemble)
    batch = ensemble.batch(0)
    expected = [bptt_gradients(ensemble, batch, r) for r in range(2)]
    found = recorded_gradients(ensemble, batch)
    for r in range(2):
        assert_same(found, expected[r], r)


@pytest.mark.parametrize("task", ["temporal_order", "adding"])
def test_omega_term_is_its_immediate_derivative(task: str) -> None:
    ensemble = ensemble_of(changes={"trainer.omega": 2.0}, task=task)
    perturb(ensemble)
    batch = ensemble.batch(0)
    expected = [bptt_gradients(ensemble, batch, r) for r in range(2)]
    found = recorded_gradients(ensemble, batch)
    for r in range(2):
        assert_same(found, expected[r], r)


TPTT_VARIANTS: list[dict[str, Any]] = [
    {},
    {"trainer.wxh": "local"},
    {"trainer.targets": "absolute"},
    {"trainer.difference_correction": False},
    {"trainer.difference_correction": False, "trainer.targets": "absolute"},
    {"trainer.noise": 0.1},
    {"trainer.reading": "paper"},
    {"trainer.reading": "dai2021"},
    {"trainer.reading": "dai2021", "trainer.noise": 0.1, "model.activation": "sigmoid"},
    {"model.activation": "sigmoid"},
    {"model.activation": "relu"},
    {"model.activation": "sigmoid", "trainer.targets": "absolute", "trainer.wxh": "local"},
]


@pytest.mark.parametrize("task", ["temporal_order", "adding", "random_permutation"])
@pytest.mark.parametrize(
    "variant", TPTT_VARIANTS, ids=lambda v: ",".join(f"{k.split('.')[1]}={x}" for k, x in v.items()) or "plain"
)
def test_tptt_follows_its_equations(task: str, variant: dict[str, Any]) -> None:
    ensemble = ensemble_of(changes=variant | {"trainer.alpha_i": 3.0}, task=task, trainer="tptt")
    perturb(ensemble)
    batch = ensemble.batch(0)
    expected = [tptt_gradients(ensemble, batch, r) for r in range(2)]
    found = recorded_gradients(ensemble, batch)
    for r in range(2):
        assert_same(found, expected[r], r)


def test_tptt_with_outputs_at_every_step_merges_their_targets() -> None:
    ensemble = ensemble_of(changes={"trainer.alpha_i": 3.0}, trainer="tptt")
    perturb(ensemble)
    last = ensemble.batch(0)
    generator = torch.Generator().manual_seed(0)
    every = Batch(last.inputs, torch.randint(0, 4, last.inputs.shape, generator=generator))
    expected = [tptt_gradients(ensemble, every, r) for r in range(2)]
    found = recorded_gradients(ensemble, every)
    for r in range(2):
        assert_same(found, expected[r], r)


def test_bptt_with_outputs_at_every_step() -> None:
    ensemble = ensemble_of()
    perturb(ensemble)
    last = ensemble.batch(0)
    generator = torch.Generator().manual_seed(0)
    every = Batch(last.inputs, torch.randint(0, 4, (2, 9, 5), generator=generator))
    expected = [bptt_gradients(ensemble, every, r) for r in range(2)]
    found = recorded_gradients(ensemble, every)
    for r in range(2):
        assert_same(found, expected[r], r)
