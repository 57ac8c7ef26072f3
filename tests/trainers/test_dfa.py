"""Direct feedback alignment through time: against autograd, by hand, and where it is backpropagation."""

from __future__ import annotations

from math import tanh
from typing import Any

import pytest
import torch
from conftest import make_spec
from reference import SIGMA, encode, forward, global_loss, one_run, params_of, recorded_gradients

from tprnn.engine.ensemble import Ensemble
from tprnn.tasks.base import Batch

SMALL = {"dtype": "float64", "model.H": 7, "train.batch_size": 5, "task.T": 20}


def ensemble_of(trainer: str = "dfa", changes: dict[str, Any] | None = None, **choices: str) -> Ensemble:
    ensemble = Ensemble(
        [make_spec(SMALL | {"seed": 3 + r} | (changes or {}), trainer=trainer, **choices) for r in range(2)]
    )
    generator = torch.Generator().manual_seed(1)
    for name in ensemble.model.parameters:
        w = ensemble.state.params[name]
        w.add_(0.1 * torch.randn(w.shape, generator=generator, dtype=w.dtype))
    return ensemble


def by_autograd(ensemble: Ensemble, batch: Batch, r: int) -> dict[str, torch.Tensor]:
    """Each step's F pulled by the errors of all outputs from it on, h_{t-1} held fixed; the read-out by dE."""
    sigma = SIGMA[ensemble.specs[r].config["model"]["activation"]]
    p = params_of(ensemble, r)
    x, targets, start = one_run(encode(batch, ensemble), r)
    T, S = x.shape[0], targets.shape[0]
    h = [v.detach() for v in forward(p, x, start, sigma)]
    y = (torch.stack(h[-S:]) @ p["W_hy"] + p["b_y"]).detach().requires_grad_()
    identity = {"W_hy": torch.eye(y.shape[-1], dtype=y.dtype), "b_y": torch.zeros(y.shape[-1], dtype=y.dtype)}
    dy = torch.autograd.grad(global_loss(identity, list(y), targets, ensemble.task.readout), y)[0]
    pulled = torch.zeros((), dtype=x.dtype)
    for t in range(1, T + 1):
        error = sum(dy[s] for s in range(S) if T - S + s + 1 >= t) @ p["B_yh"].detach()
        h_t = sigma(x[t - 1] @ p["W_xh"] + h[t - 1] @ p["W_hh"] + p["b_h"])
        live = torch.ones(x.shape[1], dtype=torch.bool) if start is None else t - 1 >= start
        pulled = pulled + (error * h_t)[live].sum()
    names = ["W_xh", "W_hh", "b_h"]
    found = dict(zip(names, torch.autograd.grad(pulled, [p[n] for n in names]), strict=True))
    E = global_loss(p, h, targets, ensemble.task.readout)
    return found | dict(zip(("W_hy", "b_y"), torch.autograd.grad(E, [p["W_hy"], p["b_y"]]), strict=True))


def assert_follows(ensemble: Ensemble, batch: Batch) -> None:
    expected = [by_autograd(ensemble, batch, r) for r in range(2)]
    found = recorded_gradients(ensemble, batch)
    for r in range(2):
        for name, value in expected[r].items():
            assert (found[name][r] - value).abs().max() < 1e-9 * value.abs().max().clamp(min=1e-12), name


@pytest.mark.parametrize("task", ["temporal_order", "adding", "random_permutation"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_errors_go_straight_to_every_step(task: str, activation: str) -> None:
    ensemble = ensemble_of(changes={"model.activation": activation}, task=task)
    assert_follows(ensemble, ensemble.batch(0))


def test_a_step_gets_the_errors_of_all_outputs_from_it_on() -> None:
    ensemble = ensemble_of()
    generator = torch.Generator().manual_seed(0)
    assert_follows(ensemble, Batch(ensemble.batch(0).inputs, torch.randint(0, 4, (2, 9, 5), generator=generator)))


def test_by_hand() -> None:
    changes = {"model.H": 1, "train.batch_size": 1, "task.reading": "paper"}
    ensemble = Ensemble([make_spec(SMALL | changes, trainer="dfa", task="adding")])
    values = {"W_xh": 0.5, "W_hh": 0.8, "b_h": 0.1, "W_hy": 2.0, "b_y": -0.1, "B_yh": -0.7}
    for name, w in ensemble.state.params.items():
        w.fill_(values[name])
    x = torch.tensor([[1.0, 0.0], [0.5, 0.0]], dtype=torch.float64).view(1, 2, 1, 2)
    g = recorded_gradients(ensemble, Batch(x, torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64)))
    h_1 = tanh(1.0 * 0.5 + 0.1)
    h_2 = tanh(0.5 * 0.5 + 0.8 * h_1 + 0.1)
    dy = 2 * (2.0 * h_2 - 0.1 - 0.3)  # E = (y - 0.3)^2
    # the same error -0.7 dy at both steps; W_hh = 0.8 and W_hy = 2 take no part in it
    da_1, da_2 = -0.7 * dy * (1 - h_1**2), -0.7 * dy * (1 - h_2**2)
    assert g["b_h"].item() == pytest.approx(da_1 + da_2, rel=1e-12)
    assert g["W_hh"].item() == pytest.approx(da_2 * h_1, rel=1e-12)  # h_0 = 0 adds nothing
    assert g["W_xh"][0, 0, 0].item() == pytest.approx(da_1 * 1.0 + da_2 * 0.5, rel=1e-12)
    assert g["W_hy"].item() == pytest.approx(dy * h_2, rel=1e-12)


def test_with_the_transposed_readout_one_step_is_backpropagation() -> None:
    dfa, bptt = ensemble_of(), ensemble_of("bptt")
    dfa.state.params["B_yh"].copy_(dfa.state.params["W_hy"].mT)
    whole = dfa.batch(0)
    one = Batch(whole.inputs[:, -1:].contiguous(), whole.targets)
    found, exact = recorded_gradients(dfa, one), recorded_gradients(bptt, one)
    assert exact["b_h"].abs().max() > 1e-3
    for name, value in exact.items():
        assert torch.allclose(found[name], value, rtol=1e-12, atol=1e-16), name


def test_with_the_transposed_readout_the_last_step_gets_its_exact_error() -> None:
    ensemble = ensemble_of()
    ensemble.state.params["B_yh"].copy_(ensemble.state.params["W_hy"].mT)
    params, batch = ensemble.state.params, ensemble.batch(0)
    states = ensemble.model.forward(params, batch)
    readout = ensemble.model.readout(params, states)
    exact = ensemble.model.adjoint(params, states, readout.dh).clone()
    found = ensemble.trainer.signal(params, states, readout.dy)
    assert torch.allclose(found[:, -1], exact[:, -1], rtol=1e-12, atol=1e-16)
    assert not torch.allclose(found[:, -2], exact[:, -2], rtol=0.1)


def test_the_feedback_matrix_is_a_runs_own_and_never_learns() -> None:
    ensemble = ensemble_of()
    before = ensemble.state.params["B_yh"].clone()
    assert not torch.equal(before[0], before[1])
    assert not torch.allclose(before, 0.1 * ensemble.state.params["W_hy"].mT, atol=1e-3)
    for _ in range(5):
        ensemble.advance()
    assert torch.equal(ensemble.state.params["B_yh"], before)
    assert "param/B_yh" in ensemble.state.flat()
    assert not any(name.startswith("slot/B_yh") for name in ensemble.state.flat())


def test_scale_is_the_size_of_the_feedback_matrix() -> None:
    small, large = (ensemble_of(changes={"trainer.scale": scale}).state.params["B_yh"] for scale in (0.5, 2.0))
    assert torch.allclose(4 * small, large, rtol=1e-15)
    assert torch.allclose(torch.linalg.svdvals(large), torch.tensor(2.0, dtype=torch.float64))  # orthogonal rows
