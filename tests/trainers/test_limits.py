"""Where theory says that two rules agree, or that a quantity has a known value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import MEMBERS, make_spec
from reference import recorded_gradients

from tprnn.core.activations import ACTIVATIONS, Activation, pair_like
from tprnn.engine.ensemble import Ensemble

SMALL = {"dtype": "float64", "model.H": 6, "train.batch_size": 4, "task.T": 12}


def ensemble_of(runs: int = 1, changes: dict[str, Any] | None = None, **choices: str) -> Ensemble:
    return Ensemble([make_spec(SMALL | {"seed": r} | (changes or {}), **choices) for r in range(runs)])


def perturb(ensemble: Ensemble) -> None:
    generator = torch.Generator().manual_seed(1)
    for w in ensemble.state.params.values():
        w.add_(0.1 * torch.randn(w.shape, generator=generator, dtype=w.dtype))


def displacement(activation: Activation, a: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    pair = pair_like(a)
    pair[1].copy_(u)
    return activation.displacement(a, activation.opposite(a, torch.empty_like(a)), pair, torch.empty_like(a))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("size", [30.0, 3.0, 1e-3, 1e-9])
def test_displacement_is_the_difference_of_two_activations(name: str, size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    a = 2 * torch.randn(1000, generator=generator, dtype=torch.float64)
    u = size * torch.randn(1000, generator=generator, dtype=torch.float64)
    activation = ACTIVATIONS[name]()
    difference = activation.apply_((a + u).clone()) - activation.apply_(a.clone())
    found = displacement(activation, a, u)
    # the difference of two float64 numbers near 1 is itself only good to about 2e-16
    assert ((found - difference).abs() <= 4e-16 * (1 + a.abs() + u.abs()) + 1e-12 * difference.abs()).all()


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_displacement_keeps_its_relative_precision_in_float32(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1000, generator=generator)
    u = 1e-12 * torch.randn(1000, generator=generator)
    activation = ACTIVATIONS[name]()
    found = displacement(activation, a, u)
    slope = activation.slope(activation.apply_(a.double().clone()))
    # sigma(a + u) - sigma(a) -> sigma'(a) u; subtracting two float32 activations would give 0 or 6e-8 instead of 1e-12
    assert ((found.double() / (slope * u.double()) - 1).abs() < 4 * 1.2e-7 / slope).all()


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_displacement_is_right_far_into_saturation(name: str) -> None:
    a = torch.linspace(-30, 30, 301).repeat(301)
    u = torch.linspace(-60, 60, 301).repeat_interleave(301)
    activation = ACTIVATIONS[name]()
    exact = activation.apply_(a.double() + u.double()) - activation.apply_(a.double())
    assert (displacement(activation, a, u) - exact).abs().max() < 5e-7  # float32


def test_tptt_targets_become_backpropagated_gradients_for_a_transposed_inverse() -> None:
    """For alpha_i -> 0 and G with the slope of F and V_hh = W_hh^T, delta_t = -alpha_i dE/dh_t.

    At zero states every slope is 1, so b_h = c_h = 0, W_xh = 0 makes both hold: the local gradients are then
    2 alpha_i / (B H) times those of backpropagation.
    """
    ensemble = ensemble_of(changes={"trainer.alpha_i": 1e-6}, trainer="tptt")
    p = ensemble.state.params
    p["W_xh"].zero_()
    p["V_hh"].copy_(p["W_hh"].mT)
    p["b_y"].copy_(torch.tensor([[0.0, 1.0, -1.0, 2.0]]))  # so that dE/dh_T is not zero whatever the classes drawn
    batch = ensemble.batch(0)
    found = recorded_gradients(ensemble, batch)
    other = ensemble_of()
    for name in other.state.params:
        other.state.params[name].copy_(p[name])
    exact = recorded_gradients(other, batch)
    scale = 2 * 1e-6 / (SMALL["train.batch_size"] * SMALL["model.H"])
    assert exact["b_h"].abs().max() > 1e-3
    assert torch.allclose(found["b_h"], scale * exact["b_h"], rtol=1e-6, atol=0)


def test_a_perfect_inverse_makes_the_correction_vanish() -> None:
    """Where G(x_{t+1}, h_{t+1}) = h_t for all t, eq. 8 is eq. 5. Zero weights make h = 0 and G = 0 everywhere."""
    pair = []
    for correction in (True, False):
        ensemble = ensemble_of(changes={"trainer.difference_correction": correction}, trainer="tptt")
        ensemble.state.params["W_xh"].zero_()
        pair.append(recorded_gradients(ensemble, ensemble.batch(0)))
    assert pair[0]["b_h"].abs().max() > 0
    for name in pair[0]:
        assert torch.equal(pair[0][name], pair[1][name])


def test_displacement_and_absolute_targets_agree_in_float64() -> None:
    pair = []
    for targets in ("displacement", "absolute"):
        ensemble = ensemble_of(changes={"trainer.targets": targets, "trainer.alpha_i": 2.0}, trainer="tptt_hx")
        perturb(ensemble)
        pair.append(recorded_gradients(ensemble, ensemble.batch(0)))
    for name in pair[0]:
        assert torch.allclose(pair[0][name], pair[1][name], rtol=1e-9, atol=1e-15)


def test_alpha_i_scales_the_last_target_alone() -> None:
    ensembles = [ensemble_of(changes={"trainer.alpha_i": alpha}, trainer="tptt") for alpha in (1e-7, 1e-6)]
    first, second = (recorded_gradients(ensemble, ensemble.batch(0)) for ensemble in ensembles)
    assert torch.allclose(10 * first["W_hh"], second["W_hh"], rtol=1e-5)  # linear while displacements are small
    assert torch.equal(first["W_hy"], second["W_hy"])


def test_omega_vanishes_where_the_signal_keeps_its_norm() -> None:
    """W_hh orthogonal and all slopes 1 (states 0): every ratio is 1, so Omega and its derivative are 0."""
    ensemble = ensemble_of(changes={"trainer.omega": 3.0})
    ensemble.state.params["W_xh"].zero_()
    plain = ensemble_of()
    plain.state.params["W_xh"].zero_()
    batch = ensemble.batch(0)
    found, expected = recorded_gradients(ensemble, batch), recorded_gradients(plain, batch)
    assert torch.allclose(found["W_hh"], expected["W_hh"], atol=1e-12)


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_clipping_limits_the_norm_of_the_whole_gradient(limit: float) -> None:
    ensemble = ensemble_of(runs=2, changes={"trainer.clip_norm": limit})
    free = recorded_gradients(ensemble_of(runs=2), ensemble.batch(0))
    found = recorded_gradients(ensemble, ensemble.batch(0))
    whole = torch.cat([g.flatten(1) for g in free.values()], 1).norm(dim=1)
    clipped = torch.cat([g.flatten(1) for g in found.values()], 1).norm(dim=1)
    assert torch.allclose(clipped, whole.clamp(max=limit), rtol=1e-12)
    for name, g in found.items():  # the direction stays
        factor = (clipped / whole).view(-1, *[1] * (g.dim() - 1))
        assert torch.allclose(g, free[name] * factor, rtol=1e-12, atol=0)


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_frozen_parameters_stay_and_the_others_move(trainer: str) -> None:
    ensemble = ensemble_of(changes={"trainer.freeze": ["W_hh", "b_h"]}, trainer=trainer)
    before = {name: w.clone() for name, w in ensemble.state.params.items()}
    for _ in range(5):
        ensemble.advance()
    for name, w in ensemble.state.params.items():
        assert torch.equal(w, before[name]) == (name in ("W_hh", "b_h", *ensemble.trainer.fixed)), name


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov"])
def test_rate_factors_scale_the_first_update(trainer: str, optimizer: str) -> None:
    moved = []
    for factor in (1.0, 0.25):
        ensemble = ensemble_of(changes={"trainer.rate_factors": {"W_hh": factor}}, trainer=trainer, optimizer=optimizer)
        before = {name: w.clone() for name, w in ensemble.state.params.items()}
        ensemble.advance()
        moved.append({name: w - before[name] for name, w in ensemble.state.params.items()})
    assert moved[0]["W_hh"].abs().max() > 0
    for name in moved[0]:
        factor = 0.25 if name == "W_hh" else 1.0
        assert torch.allclose(moved[1][name], factor * moved[0][name], rtol=1e-6, atol=1e-16)


@pytest.mark.parametrize("p_g", [0.0, 1.0])
def test_random_phases_make_one_of_the_two_steps(p_g: float) -> None:
    ensemble = ensemble_of(changes={"trainer.phases": "random", "trainer.p_g": p_g}, trainer="tptt")
    before = {name: w.clone() for name, w in ensemble.state.params.items()}
    slots = {name: {s: v.clone() for s, v in found.items()} for name, found in ensemble.state.slots.items()}
    ensemble.advance()
    for name, w in ensemble.state.params.items():
        stays = (name in ("V_hh", "c_h")) != (p_g == 1.0)
        assert torch.equal(w, before[name]) == stays, name
        assert all(torch.equal(v, slots[name][s]) for s, v in ensemble.state.slots[name].items()) == stays


def test_random_phases_draw_g_with_probability_p_g() -> None:
    runs, steps, p_g = 20, 100, 1 / 3
    ensemble = ensemble_of(runs=runs, changes={"trainer.phases": "random", "trainer.p_g": p_g}, trainer="tptt")
    drawn = torch.stack([ensemble.trainer.phase(t)[0] for t in range(steps)]).double()
    standard_error = (p_g * (1 - p_g) / (runs * steps)) ** 0.5
    assert abs(drawn.mean().item() - p_g) < 4 * standard_error
