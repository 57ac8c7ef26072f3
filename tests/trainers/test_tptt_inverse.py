"""Targets by the regularised inverse: against a least-squares solver and autograd, by hand, in limiting cases."""

from __future__ import annotations

from math import atanh, tanh
from typing import Any

import pytest
import torch
from conftest import make_spec
from reference import SIGMA, encode, forward, global_loss, one_run, params_of, recorded_gradients

from tprnn.core.activations import ACTIVATIONS, Activation
from tprnn.core.inverses import INVERSES
from tprnn.engine.ensemble import Ensemble
from tprnn.errors import UserError
from tprnn.tasks.base import Batch

SMALL = {"dtype": "float64", "model.H": 7, "train.batch_size": 5, "task.T": 14}
ENDS = {"tanh": (-1.0, torch.atanh), "sigmoid": (0.0, torch.logit)}
Tensor = torch.Tensor


def ensemble_of(trainer: str = "tptt_inverse", changes: dict[str, Any] | None = None, **choices: str) -> Ensemble:
    return Ensemble(
        [make_spec(SMALL | {"seed": 3 + r} | (changes or {}), trainer=trainer, **choices) for r in range(2)]
    )


def perturb(ensemble: Ensemble, size: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(1)
    for w in ensemble.state.params.values():
        w.add_(size * torch.randn(w.shape, generator=generator, dtype=w.dtype))


def by_definition(ensemble: Ensemble, batch: Batch, r: int) -> dict[str, Tensor]:
    """Each inverse by a least-squares solver, with absolute targets; local losses by autograd."""
    spec = ensemble.specs[r].config
    s, name = spec["trainer"], spec["model"]["activation"]
    sigma, (low, arc) = SIGMA[name], ENDS[name]
    p = params_of(ensemble, r)
    x, targets, start = one_run(encode(batch, ensemble), r)
    T, S, H = x.shape[0], targets.shape[0], p["W_hh"].shape[0]
    live = torch.ones(x.shape[:2], dtype=torch.bool) if start is None else torch.arange(T)[:, None] >= start
    h = forward(p, x, start, sigma)
    leaf = [v.detach().requires_grad_() for v in h]
    E = global_loss(p, leaf, targets, ensemble.task.readout)
    pull = torch.autograd.grad(E, leaf[-S:], retain_graph=True)
    v = [one.detach() for one in h]
    W = p["W_hh"].detach()
    ridge = torch.cat([W.T, s["r"] ** 0.5 * torch.eye(H, dtype=x.dtype)])

    def inverse_of_a(a: Tensor, t: int) -> Tensor:
        """argmin_v |a - x_t W_xh - b_h - v W_hh|^2 + r |v|^2."""
        rest = (a - x[t - 1] @ p["W_xh"] - p["b_h"]).detach()
        return torch.linalg.lstsq(ridge, torch.cat([rest, torch.zeros_like(rest)], 1).T).solution.T

    def inside(u: Tensor) -> Tensor:
        return u.clamp(low + s["tolerance"], 1.0 - s["tolerance"])

    h_hat = {T: v[T] - s["alpha_i"] * pull[-1]}
    for t in range(T, 1, -1):
        if s["difference"] == "exact":
            moved = inverse_of_a(arc(inside(h_hat[t])), t) - inverse_of_a(arc(inside(v[t])), t)
        else:  # the derivative at the moved state, in the direction of the displacement
            a = arc(inside(v[t])).requires_grad_()
            slope = torch.autograd.grad(sigma(a).sum(), a)[0]
            moved = inverse_of_a((h_hat[t] - v[t]) / slope, t) - inverse_of_a(torch.zeros_like(v[t]), t)
        h_hat[t - 1] = v[t - 1] + moved
        if t - 1 > T - S:
            h_hat[t - 1] = h_hat[t - 1] - s["alpha_i"] * pull[t - 1 - (T - S) - 1]
        h_hat[t - 1] = torch.where(live[t - 2][:, None], h_hat[t - 1], v[t - 1])
    loss = torch.zeros((), dtype=x.dtype)
    for t in range(1, T + 1):
        h_t = h[t]
        if s["gradient"] == "local":
            h_t = sigma(x[t - 1] @ p["W_xh"] + v[t - 1] @ p["W_hh"] + p["b_h"])
        loss = loss + 0.5 * (h_t - h_hat[t])[live[t - 1]].square().sum()
    names = ["W_xh", "W_hh", "b_h"]
    found = dict(zip(names, torch.autograd.grad(loss, [p[n] for n in names]), strict=True))
    return found | dict(zip(("W_hy", "b_y"), torch.autograd.grad(E, [p["W_hy"], p["b_y"]]), strict=True))


def assert_follows(ensemble: Ensemble, batch: Batch) -> None:
    expected = [by_definition(ensemble, batch, r) for r in range(2)]
    found = recorded_gradients(ensemble, batch)
    for r in range(2):
        for name, value in expected[r].items():
            error = (found[name][r] - value).abs().max() / value.abs().max().clamp(min=1e-12)
            assert error < 1e-9, f"{name}: {error:.1e}"


@pytest.mark.parametrize("task", ["temporal_order", "adding"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("difference", ["linearised", "exact"])
@pytest.mark.parametrize("gradient", ["local", "through_time"])
def test_it_follows_its_equations(task: str, activation: str, difference: str, gradient: str) -> None:
    options = {"model.activation": activation, "trainer.difference": difference, "trainer.gradient": gradient}
    ensemble = ensemble_of(changes=options | {"trainer.alpha_i": 0.5, "trainer.r": 0.3}, task=task)
    perturb(ensemble)
    assert_follows(ensemble, ensemble.batch(0))


@pytest.mark.parametrize("difference", ["linearised", "exact"])
def test_saturated_units_and_targets_beyond_the_range_are_moved_inside(difference: str) -> None:
    options = {"trainer.difference": difference, "trainer.tolerance": 0.05, "trainer.r": 2.0, "trainer.alpha_i": 20.0}
    ensemble = ensemble_of(changes=options)
    ensemble.state.params["W_xh"].mul_(6.0)
    batch = ensemble.batch(0)
    h = ensemble.model.forward(ensemble.state.params, batch).h[:, 1:]
    assert 0.1 < (h.abs() > 0.95).double().mean() < 0.9
    assert_follows(ensemble, batch)


@pytest.mark.parametrize("gradient", ["local", "through_time"])
def test_outputs_at_several_steps_add_their_own_pull(gradient: str) -> None:
    ensemble = ensemble_of(changes={"trainer.alpha_i": 0.5, "trainer.gradient": gradient})
    perturb(ensemble)
    generator = torch.Generator().manual_seed(0)
    assert_follows(ensemble, Batch(ensemble.batch(0).inputs, torch.randint(0, 4, (2, 6, 5), generator=generator)))


@pytest.mark.parametrize("difference", ["linearised", "exact"])
def test_by_hand(difference: str) -> None:
    changes = {"model.H": 1, "train.batch_size": 1, "task.reading": "paper", "trainer.difference": difference}
    ensemble = Ensemble([make_spec(SMALL | changes | {"trainer.r": 0.5}, trainer="tptt_inverse", task="adding")])
    values = {"W_xh": 0.5, "W_hh": 0.8, "b_h": 0.1, "W_hy": 2.0, "b_y": -0.1}
    for name, w in ensemble.state.params.items():
        w.fill_(values[name])
    x = torch.tensor([[1.0, 0.0], [0.5, 0.0]], dtype=torch.float64).view(1, 2, 1, 2)
    g = recorded_gradients(ensemble, Batch(x, torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64)))
    h_1 = tanh(1.0 * 0.5 + 0.1)
    h_2 = tanh(0.5 * 0.5 + 0.8 * h_1 + 0.1)
    delta_2 = -0.01 * 2 * 2 * (2 * h_2 - 0.1 - 0.3)  # E = (2 h_2 - 0.1 - 0.3)^2, alpha_i = 0.01
    # V = 0.8 / (0.8^2 + 0.5)
    u = delta_2 / (1 - h_2**2) if difference == "linearised" else atanh(h_2 + delta_2) - atanh(h_2)
    delta_1 = u * 0.8 / 1.14
    # 1/2 (h_t - h_hat_t)^2 by a_t: -delta_t (1 - h_t^2)
    d_1, d_2 = -delta_1 * (1 - h_1**2), -delta_2 * (1 - h_2**2)
    assert g["b_h"].item() == pytest.approx(d_1 + d_2, rel=1e-11)
    assert g["W_hh"].item() == pytest.approx(d_2 * h_1, rel=1e-11)  # h_0 = 0 adds nothing
    assert g["W_xh"][0, 0, 0].item() == pytest.approx(d_1 * 1.0 + d_2 * 0.5, rel=1e-11)


def test_orthogonal_weights_without_regularisation_backpropagate_where_the_network_is_linear() -> None:
    """V = W_hh^T, and all slopes are 1 (states 0): delta_t = -alpha_i dE/dh_t, gradients alpha_i times exact ones."""
    ensemble, other = ensemble_of(changes={"trainer.r": 0.0, "trainer.alpha_i": 0.3}), ensemble_of("bptt")
    ensemble.state.params["W_xh"].zero_()
    ensemble.state.params["b_y"].copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]))  # dE/dh_T is not 0 whatever was drawn
    for name, w in ensemble.state.params.items():
        other.state.params[name].copy_(w)
    found, exact = recorded_gradients(ensemble, ensemble.batch(0)), recorded_gradients(other, ensemble.batch(0))
    assert exact["b_h"].abs().max() > 1e-3
    for name in ("W_xh", "b_h"):
        assert torch.allclose(found[name], 0.3 * exact[name], rtol=1e-11, atol=1e-16), name


def test_much_regularisation_through_time_is_backpropagation() -> None:
    """r -> infinity: V = 0, the last state alone has a target, and all states are differentiated."""
    options = {"trainer.r": 1e30, "trainer.alpha_i": 0.3, "trainer.gradient": "through_time"}
    ensemble, other = ensemble_of(changes=options), ensemble_of("bptt")
    perturb(ensemble)
    for name, w in ensemble.state.params.items():
        other.state.params[name].copy_(w)
    found, exact = recorded_gradients(ensemble, ensemble.batch(0)), recorded_gradients(other, ensemble.batch(0))
    for name in ("W_xh", "W_hh", "b_h"):
        assert torch.allclose(found[name], 0.3 * exact[name], rtol=1e-11, atol=1e-16), name


def test_small_displacements_are_carried_alike_by_both_differences() -> None:
    pair = []
    for difference in ("linearised", "exact"):
        ensemble = ensemble_of(changes={"trainer.alpha_i": 1e-11, "trainer.difference": difference})
        perturb(ensemble)
        pair.append(recorded_gradients(ensemble, ensemble.batch(0)))
    for name, value in pair[0].items():
        assert (pair[1][name] - value).abs().max() < 1e-6 * value.abs().max(), name


@pytest.mark.parametrize("r", [0.0, 0.5])
def test_a_singular_matrix_needs_regularisation_and_leaves_its_neighbour_alone(r: float) -> None:
    ensemble, healthy = ensemble_of(changes={"trainer.r": r}), ensemble_of(changes={"trainer.r": r})
    ensemble.state.params["W_hh"][1].zero_()
    for _ in range(2):
        ensemble.advance()
        healthy.advance()
    assert ensemble.finite().tolist() == [True, r > 0]
    assert torch.equal(ensemble.state.params["W_hh"][0], healthy.state.params["W_hh"][0])


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-12])
def test_displacements_through_an_inverse_keep_their_relative_precision(name: str, size: float) -> None:
    activation: Activation = ACTIVATIONS[name]()
    inverse = INVERSES[type(activation)]
    generator = torch.Generator().manual_seed(0)
    a = 3 * torch.randn(1000, generator=generator, dtype=torch.float64)
    u = size * (0.1 + torch.rand(1000, generator=generator, dtype=torch.float64))
    h = inverse.inside(activation.apply_(a.clone()), 1e-3)
    a = ENDS[name][1](h)
    # the displacement of the activation, itself exact, is led back to u
    d = torch.tanh(u) * (1 - h * torch.tanh(a + u)) if name == "tanh" else torch.special.expm1(u) * h * (1 - h)
    if name == "sigmoid":
        d = d / (1 + torch.special.expm1(u) * h)
    kept = (h + d < inverse.high - 1e-3) & (h + d > inverse.low + 1e-3)
    assert kept.sum() > 500
    found = inverse.displacement(h.float(), d.float())[kept]
    # rounding h to float32 alone is 6e-8 / (1 - h^2), up to 3e-5 this near to the ends
    assert ((found / u[kept] - 1).abs() < 3e-4).all()


def test_an_activation_without_an_inverse_is_refused() -> None:
    with pytest.raises(UserError, match=r"^model.activation: tptt_inverse needs an inverse; choices: sigmoid, tanh$"):
        make_spec({"model.activation": "relu"}, trainer="tptt_inverse")
