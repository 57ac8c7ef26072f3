"""TPTT with an inverse that never learns, and with noise as wide as its displacements: beside tptt, and by autograd."""

from __future__ import annotations

from math import tanh
from typing import Any

import pytest
import torch
from conftest import make_spec
from reference import SIGMA, encode, forward, global_loss, one_run, params_of, recorded_gradients

from tprnn.core.streams import Stream, normals
from tprnn.engine.ensemble import Ensemble
from tprnn.tasks.base import Batch

SMALL = {"dtype": "float64", "model.H": 7, "train.batch_size": 5, "task.T": 20}


def ensemble_of(trainer: str, changes: dict[str, Any] | None = None, **choices: str) -> Ensemble:
    return Ensemble(
        [make_spec(SMALL | {"seed": 3 + r} | (changes or {}), trainer=trainer, **choices) for r in range(2)]
    )


def after(ensemble: Ensemble, steps: int = 20) -> dict[str, torch.Tensor]:
    for _ in range(steps):
        ensemble.advance()
    return ensemble.state.params | {"loss": ensemble.loss_sum}


def assert_same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("task", ["temporal_order", "adding"])
@pytest.mark.parametrize(
    "variant",
    [{}, {"wxh": "local"}, {"targets": "absolute"}, {"difference_correction": False}],
    ids=str,
)
def test_a_fixed_inverse_is_tptt_with_a_frozen_one(task: str, variant: dict[str, Any]) -> None:
    changes = {f"trainer.{key}": value for key, value in ({"alpha_i": 2.0, "alpha_f": 0.02} | variant).items()}
    fixed = ensemble_of("tptt_fixed", changes, task=task)
    frozen = ensemble_of("tptt", changes | {"trainer.freeze": ["V_hh", "c_h"]}, task=task)
    start = {name: w.clone() for name, w in fixed.state.params.items()}
    assert_same_bits(after(fixed), after(frozen))
    assert torch.equal(fixed.state.params["V_hh"], start["V_hh"])
    assert not torch.equal(fixed.state.params["W_hh"], start["W_hh"])


def test_a_fixed_inverse_is_the_limit_of_a_slow_one() -> None:
    rates = {"trainer.alpha_i": 2.0, "trainer.alpha_f": 0.02}
    expected = after(ensemble_of("tptt_fixed", rates))
    distances = []
    for alpha_g in (1e-4, 1e-6):
        found = after(ensemble_of("tptt", rates | {"trainer.alpha_g": alpha_g}))
        distances.append((found["W_hh"] - expected["W_hh"]).abs().max().item())
    assert 0 < distances[1] < 0.02 * distances[0] < 1e-4  # in proportion to alpha_g


def test_a_fixed_inverse_is_saved_and_has_no_optimizer_slots() -> None:
    flat = ensemble_of("tptt_fixed").state.flat()
    assert {"param/V_hh", "param/c_h"} <= flat.keys()
    assert not any(name.startswith(("slot/V_hh", "slot/c_h")) for name in flat)


@pytest.mark.parametrize("reading", ["released", "paper"])
@pytest.mark.parametrize("phases", ["alternate", "random"])
def test_adaptive_noise_of_level_zero_is_tptt(reading: str, phases: str) -> None:
    changes = {"trainer.reading": reading, "trainer.phases": phases, "trainer.noise": 0.0, "trainer.alpha_i": 2.0}
    assert_same_bits(after(ensemble_of("tptt_sigma", changes)), after(ensemble_of("tptt", changes)))


def adaptive(ensemble: Ensemble, batch: Batch, r: int, position: int) -> dict[str, torch.Tensor]:
    """V_hh and c_h by autograd: targets of the present G, their distances, noise of that size, eq. 9."""
    s = ensemble.specs[r].config["trainer"]
    sigma = SIGMA[ensemble.specs[r].config["model"]["activation"]]
    p = params_of(ensemble, r)
    x, targets, start = one_run(encode(batch, ensemble), r)
    (T, B), H = x.shape[:2], p["W_hh"].shape[0]
    live = torch.ones(T, B) if start is None else (torch.arange(T)[:, None] >= start)
    live = live.to(x.dtype)[..., None]
    h = [v.detach().requires_grad_() for v in forward(p, x, start, sigma)]
    pull = torch.autograd.grad(global_loss(p, h, targets, ensemble.task.readout), h[T])[0]
    h_hat = {T: h[T] - s["alpha_i"] * pull}
    for t in range(T - 1, 0, -1):
        there, here = (sigma(x[t] @ p["W_xh"] + v @ p["V_hh"] + p["c_h"]) for v in (h_hat[t + 1], h[t + 1]))
        h_hat[t] = torch.where(live[t - 1] > 0, h[t] + there - here, h[t])
    noise = normals(Stream([ensemble.specs[r].config["seed"]], "noise"), position, (T, B, H), x.dtype)[0]
    loss = torch.zeros((), dtype=x.dtype)
    for t in range(1, T + 1):
        L_t = (h_hat[t] - h[t]).square().mean()
        before = (h[t - 1] + s["noise"] * L_t.sqrt() * noise[t - 1]).detach()
        states = sigma(x[t - 1] @ p["W_xh"] + before @ p["W_hh"] + p["b_h"]).detach()
        rebuilt = sigma(x[t - 1] @ p["W_xh"] + states @ p["V_hh"] + p["c_h"])
        loss = loss + ((rebuilt - before).square() * live[t - 1]).sum() / (B * H)
    return dict(zip(("V_hh", "c_h"), torch.autograd.grad(loss, [p["V_hh"], p["c_h"]]), strict=True))


@pytest.mark.parametrize("task", ["temporal_order", "adding"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_noise_has_the_size_of_the_displacements(task: str, activation: str) -> None:
    changes = {"trainer.alpha_i": 9.0, "trainer.noise": 0.7, "model.activation": activation}
    ensemble = ensemble_of("tptt_sigma", changes, task=task)
    plain = ensemble_of("tptt", changes | {"trainer.noise": 0.0}, task=task)
    for name, w in ensemble.state.params.items():
        plain.state.params[name].copy_(w)
    batch = ensemble.batch(0)
    expected = [adaptive(ensemble, batch, r, 4) for r in range(2)]
    found, without = recorded_gradients(ensemble, batch, 4), recorded_gradients(plain, batch, 4)
    for name, value in without.items():
        if name not in ("V_hh", "c_h"):  # F does not see the noise
            assert torch.equal(found[name], value), name
            continue
        assert not torch.allclose(found[name], value, rtol=1e-3), name
        for r in range(2):
            scale = expected[r][name].abs().max()
            assert (found[name][r] - expected[r][name]).abs().max() < 1e-9 * scale, name


def test_adaptive_noise_by_hand() -> None:
    changes = {
        "model.H": 1,
        "train.batch_size": 1,
        "task.reading": "paper",
        "trainer.alpha_i": 0.25,
        "trainer.noise": 2.0,
    }
    ensemble = Ensemble([make_spec(SMALL | changes | {"seed": 5}, trainer="tptt_sigma", task="adding")])
    values = {"W_xh": 0.5, "W_hh": 0.8, "b_h": 0.1, "W_hy": 2.0, "b_y": -0.1, "V_hh": 0.6, "c_h": 0.2}
    for name, w in ensemble.state.params.items():
        w.fill_(values[name])
    x = torch.tensor([[1.0, 0.0], [0.5, 0.0]], dtype=torch.float64).view(1, 2, 1, 2)
    g = recorded_gradients(ensemble, Batch(x, torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64)))
    h_1 = tanh(1.0 * 0.5 + 0.1)
    h_2 = tanh(0.5 * 0.5 + 0.8 * h_1 + 0.1)
    delta_2 = -0.25 * 2 * 2 * (2 * h_2 - 0.1 - 0.3)  # E = (2 h_2 - 0.1 - 0.3)^2
    delta_1 = tanh(0.25 + 0.6 * (h_2 + delta_2) + 0.2) - tanh(0.25 + 0.6 * h_2 + 0.2)
    z_1, z_2 = normals(Stream([5], "noise"), 0, (2,), torch.float64)[0].tolist()
    # one unit: sqrt(L_t) = |delta_t|; the states before steps 1 and 2 are 0 and h_1
    u_1, u_2 = 0.0 + 2.0 * abs(delta_1) * z_1, h_1 + 2.0 * abs(delta_2) * z_2
    f_1, f_2 = tanh(0.5 + 0.8 * u_1 + 0.1), tanh(0.25 + 0.8 * u_2 + 0.1)
    g_1, g_2 = tanh(0.5 + 0.6 * f_1 + 0.2), tanh(0.25 + 0.6 * f_2 + 0.2)
    r_1, r_2 = 2 * (g_1 - u_1) * (1 - g_1**2), 2 * (g_2 - u_2) * (1 - g_2**2)
    assert g["V_hh"].item() == pytest.approx(r_1 * f_1 + r_2 * f_2, rel=1e-11)
    assert g["c_h"].item() == pytest.approx(r_1 + r_2, rel=1e-11)
