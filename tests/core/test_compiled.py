"""Compiled recurrences beside PyTorch's calls: which networks have them, and that they compute the same."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
import torch
from conftest import MEMBERS, TASKS, make_spec

from tprnn.core import scans
from tprnn.core.activations import Relu, Sigmoid, Tanh
from tprnn.core.products import norm_bound
from tprnn.engine.ensemble import Ensemble
from tprnn.errors import UserError
from tprnn.models.base import States
from tprnn.tasks.base import Batch
from tprnn.trainers.lra import released_compiled as _lra_released_compiled
from tprnn.trainers.lra.released import Released
from tprnn.trainers.lra.sums import Sums

X = np.concatenate([np.geomspace(1e-30, 20.0, 20_000), np.linspace(0.0, 20.0, 20_000)]).astype(np.float32)


PROGRAM = {"trainer.inner": "literal", "trainer.last": "reread", "trainer.gradient": "through_time"}
RELEASED = PROGRAM | {"trainer.gradient": "released"}


def of_tanh(x: np.ndarray) -> np.ndarray:
    """What compiled code takes for tanh x, read off the first state of a network of one unit with the input x."""
    h = np.zeros((1, 2, x.size, 1), x.dtype)
    nothing, weights, bias = np.zeros((0, 0, 0), np.int64), np.zeros((1, 1, 1), x.dtype), np.zeros((1, 1), x.dtype)
    scans.kernels().forward(h, x.reshape(1, 1, -1, 1), nothing, weights, bias, weights, np.zeros((1, 0), np.int64))
    return h[0, 1, :, 0]


def test_tanh_is_right_to_a_few_roundings_however_small_its_value() -> None:
    true = np.tanh(X.astype(np.float64))
    error = np.abs(of_tanh(X) - true)
    assert (error <= 4e-7 * true + 1e-45).all()


def test_tanh_is_odd_and_stays_within_one() -> None:
    assert (of_tanh(-X) == -of_tanh(X)).all()
    assert np.abs(of_tanh(X)).max() <= 1.0


def test_tanh_in_float64_is_that_of_the_library() -> None:
    x = X.astype(np.float64)
    assert np.allclose(of_tanh(x), np.tanh(x), rtol=1e-15, atol=0.0)


def test_tanh_passes_on_what_is_not_a_number() -> None:
    x = X.copy()
    x[7] = np.nan
    assert np.isnan(of_tanh(x)).nonzero()[0].tolist() == [7]


@pytest.mark.parametrize(
    ("activation", "dtype", "device", "answer"),
    [
        (Tanh(), torch.float32, "cpu", True),
        (Tanh(), torch.float64, "cpu", False),
        (Tanh(), torch.float32, "cuda", False),
        (Tanh(), torch.float32, "meta", False),
        (Sigmoid(), torch.float32, "cpu", False),
        (Relu(), torch.float32, "cpu", False),
    ],
)
def test_compiled_are_tanh_networks_in_float32_on_a_cpu(
    activation: Any, dtype: torch.dtype, device: str, answer: bool
) -> None:
    assert scans.compiled(activation, dtype, device) is answer


def trained(trainer: str, task: str, **structural: Any) -> dict[str, torch.Tensor]:
    changes = {"task.T": 12, "model.H": 9, "train.batch_size": 4, "dtype": "float64"}
    ensemble = Ensemble(
        [make_spec(changes | structural | {"seed": seed}, trainer=trainer, task=task) for seed in (0, 1)]
    )
    for _ in range(3):
        ensemble.advance()
    return ensemble.state.flat()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_every_rule_learns_the_same_compiled(trainer: str, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        expected = trained(trainer, task)
    except UserError as error:
        pytest.skip(str(error))  # the rule refuses the task
    monkeypatch.setattr(scans, "COMPILED", {torch.float64})
    found = trained(trainer, task)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("trainer", "structural"),
    [
        ("tptt", {"trainer.difference_correction": False}),
        ("tptt", {"trainer.reading": "paper", "trainer.noise": 0.1}),
        ("tptt_many", {"trainer.reading": "dai2021"}),
        ("tptt_many", {"trainer.truncate": 3, "trainer.shrink": 0.9}),
        ("lra", {"trainer.force": True}),
        ("lra", {"trainer.c_1": 1e-6, "trainer.c_0": 1e-6}),
        ("lra", {"trainer.loss": "log_penalty", "trainer.inner": "literal", "trainer.gamma": 5.0}),
        ("lra", {"trainer.omega": 0.1, "trainer.gamma": 5.0}),
        ("lra", PROGRAM | {"trainer.gamma": 5.0}),
        ("lra", PROGRAM | {"trainer.gamma": 5.0, "trainer.c_0": 0.0}),
        ("lra", PROGRAM | {"trainer.gamma": 5.0, "trainer.c_0": 1e-4}),
        # with more inner steps of forced length rounding grows from step to step, beyond any tolerance
        ("lra", PROGRAM | {"trainer.gamma": 5.0, "trainer.force": True, "trainer.K": 1}),
        ("lra", PROGRAM | {"trainer.gamma": 5.0, "trainer.omega": 0.1, "trainer.c_0": 0.1}),
        ("lra", PROGRAM | {"trainer.loss": "log_penalty", "trainer.omega": 0.1, "trainer.omega_on": "released"}),
        ("lra", PROGRAM | {"trainer.targets": "absolute", "trainer.gamma": 5.0}),
        ("lra", RELEASED | {"trainer.omega": 0.1, "trainer.omega_on": "released", "trainer.c_0": 0.1}),
        ("lra", RELEASED | {"trainer.gamma": 5.0, "trainer.c_0": 1e-4}),
        ("lra", {"trainer.first_loss": False, "trainer.omega": 0.1, "trainer.omega_on": "weights"}),
        ("lra", {"trainer.last": "reread_unlimited", "trainer.gamma": 5.0, "trainer.c_1": 1e-3}),
        ("lra", {"trainer.omega": 0.1, "trainer.omega_form": "ratio", "trainer.omega_on": "released"}),
    ],
)
def test_every_form_of_a_rule_too(trainer: str, structural: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for task in ("temporal_order", "adding"):
        monkeypatch.setattr(scans, "COMPILED", set())
        expected = trained(trainer, task, **structural)
        monkeypatch.setattr(scans, "COMPILED", {torch.float64})
        found = trained(trainer, task, **structural)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("task", ["temporal_order", "adding"])
@pytest.mark.parametrize("omega", [0.0, 0.1])
def test_losses_that_go_back_together_have_gradients_that_no_limit_touches(
    task: str, omega: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Released, dict[str, torch.Tensor]]] = []

    def kept(self: Released, c_0: Any, regularized: Any) -> dict[str, torch.Tensor]:
        found = self.gradients()
        extra = self.omega_gradients() if omega else {}
        seen.append((self, {name: g + omega * extra[name] if omega else g for name, g in found.items()}))
        return sums(self, c_0, regularized)

    sums = Released.sums
    monkeypatch.setattr(Released, "sums", kept)
    alone: list[np.ndarray] = []
    apart = _lra_released_compiled.apart

    def watched(*arguments: Any) -> None:
        apart(*arguments)
        alone.append(arguments[0].copy())

    # as plain Python, so that the decisions can be seen
    monkeypatch.setattr(_lra_released_compiled, "apart", watched)
    monkeypatch.setattr(_lra_released_compiled, "sums", _lra_released_compiled.sums.py_func)
    changes = PROGRAM | {"trainer.omega": omega, "trainer.gamma": 1.0, "trainer.c_0": 0.05 if omega else 0.002}
    changes |= {"task.T": 12, "model.H": 9, "train.batch_size": 4, "trainer.K": 3}
    ensemble = Ensemble([make_spec(changes | {"seed": seed}, trainer="lra", task=task) for seed in (0, 1)])
    for _ in range(3):
        ensemble.advance()
    assert len(alone) == 6
    together = 0
    for (_, gradients), decided in zip(seen, np.array(alone).reshape(3, 2, -1), strict=True):
        for g in gradients.values():
            long = g.flatten(2).norm(dim=2).numpy() >= changes["trainer.c_0"]
            assert not (long & ~decided).any()
        together += int((~decided).sum())
    assert 0 < together < np.array(alone).size


@pytest.mark.parametrize("task", ["temporal_order", "adding"])
def test_norms_are_left_out_only_where_no_limit_can_be_reached(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[bool] = []

    def watched(self: Sums, states: States, g: torch.Tensor) -> bool:
        answer = short(self, states, g)
        longest = max(
            float((x.mT @ g).flatten(2).norm(dim=2).max())
            for x in (
                states.h[:, :-1],
                torch.ones_like(g[..., :1]),
                *([] if states.batch.tokens else [states.batch.inputs]),
            )
        )
        assert not answer or longest < self.c_0
        answers.append(answer)
        return answer

    short = Sums.short
    monkeypatch.setattr(Sums, "short", watched)
    for c_0 in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        ensemble = Ensemble(
            [make_spec({"trainer.c_0": c_0, "trainer.gamma": 5.0, "task.T": 12}, trainer="lra", task=task)]
        )
        ensemble.advance()
    assert answers == sorted(answers)
    assert len(set(answers)) == 2


def test_a_bound_of_the_norm_holds_and_is_near() -> None:
    torch.manual_seed(0)
    W = torch.cat([torch.randn(3, 20, 20), torch.linalg.qr(torch.randn(1, 20, 20))[0], torch.zeros(1, 20, 20)])
    true = torch.linalg.matrix_norm(W.double(), 2)
    for steps in (1, 10, 100):
        bound = norm_bound(W, steps)
        assert (bound >= true * (1 - 1e-6)).all()
        assert (bound <= true * np.exp(2.0 / steps) + 1e-6).all()


def test_a_compilation_is_told() -> None:
    told: list[int] = []
    function = numba.njit(lambda x: x + 1)  # new, so that no file has it
    with scans.on_compilation(lambda: told.append(1)):
        assert function(1) == 2
        assert told
        told.clear()
        assert function(2) == 3
    assert not told


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("task", ["temporal_order", "adding"])
def test_a_readout_is_the_same_compiled(task: str, steps: int) -> None:
    model = Ensemble([make_spec({"dtype": "float64", "model.H": 5, "seed": seed}, task=task) for seed in (0, 1)]).model
    generator = torch.Generator().manual_seed(0)
    params = {name: torch.randn(2, *shape, generator=generator).double() for name, shape in model.shapes().items()}
    h = torch.randn(2, 9, 3, 5, generator=generator).double()
    targets = torch.randn(2, steps, 3, model.outputs, generator=generator).double()
    if task == "temporal_order":
        targets = targets.argmax(-1)
    batch = Batch(torch.zeros(2, 8, 3, dtype=torch.int64), targets, None)
    states = States(h, [], [], batch)
    found = []
    for model.compiled in (False, True):
        readout = model.readout(params, states)
        found.append(
            (readout.loss, readout.y, readout.dy, readout.dh, *model.readout_gradients(states, readout).values())
        )
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_a_readout_of_what_is_not_a_number_is_not_a_number() -> None:
    ensemble = Ensemble([make_spec(task="temporal_order")])
    ensemble.state.params["W_hy"][0, 3, 1] = float("nan")
    states = ensemble.model.forward(ensemble.state.params, ensemble.batch(0))
    assert ensemble.model.compiled
    assert ensemble.model.readout(ensemble.state.params, states).loss.isnan().all()
